"""Imports from object storage, with fsspec's own store in memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from closeby.service.errors import ImportFileError, ValidationError
from closeby.service.import_urls import check_url, fetched
from closeby.service.settings import (
    Settings,
    SettingsError,
    load_settings,
    worker_environment,
)

ROOT = "memory://closeby-imports/in"
SHINGLES = {"metric": "jaccard", "features": {"kind": "shingles", "unit": "byte", "n": 4}}
TEXTS = [f"https://example.org/a/page/{i}" for i in range(50)]


@pytest.fixture(autouse=True)
def objects() -> None:
    with fsspec.open(f"{ROOT}/deep/urls.txt", "wb") as file:
        file.write("\n".join(TEXTS).encode())
    with fsspec.open("memory://closeby-imports/secret.txt", "wb") as file:
        file.write(b"nobody may read this")


def finished(client: Any, answer: Any) -> dict[str, Any]:
    assert answer.status_code == 202, answer.text
    job = answer.json()
    deadline = time.monotonic() + 30
    while job["state"] in ("queued", "running") and time.monotonic() < deadline:
        job = client.get(f"/v1/jobs/{job['id']}").json()
    return job


def test_an_object_is_imported(tmp_path: Path, serve: Callable[..., Any]) -> None:
    with serve(Settings(data_dir=tmp_path, import_urls=(ROOT,))) as client:
        client.put("/v1/collections/c", json=SHINGLES)
        asked = {"path": f"{ROOT}/deep/urls.txt"}
        job = finished(client, client.post("/v1/collections/c/imports", json=asked))
        assert job["state"] == "done", job
        assert client.get("/v1/collections/c").json()["count"] == len(TEXTS)
        gone = finished(
            client, client.post("/v1/collections/c/imports", json={"path": f"{ROOT}/no.txt"})
        )
        assert gone["state"] == "failed"
        assert "no such object" in gone["error"]["detail"]
        outside = client.post(
            "/v1/collections/c/imports", json={"path": "memory://closeby-imports/secret.txt"}
        )
        assert outside.status_code == 422
        assert outside.json()["errors"][0]["field"] == "path"


@pytest.mark.parametrize(
    "inside",
    [
        "",
        "/",
        "../secret.txt",
        "deep/../../secret.txt",
        "./urls.txt",
        "deep//urls.txt",
        "%2e%2e/secret.txt",
        "urls.txt?versionId=3",
        "urls.txt#part",
        "a\\b",
        "a::file:///etc/passwd",
        "a\nb",
        "x" * 5_000,
    ],
)
def test_what_could_mean_another_place_is_refused(inside: str) -> None:
    with pytest.raises(ValidationError, match="import_urls"):
        check_url([ROOT], f"{ROOT}/{inside}")


@pytest.mark.parametrize(
    "url",
    ["memory://closeby-imports/in-other/a", "memory://other/in/a", "file:///etc/passwd", ROOT],
)
def test_what_lies_elsewhere_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        check_url([ROOT], url)
    with pytest.raises(ValidationError, match="no import_urls"):
        check_url([], url)


def test_fetching_is_bounded_and_can_be_stopped(tmp_path: Path) -> None:
    url = f"{ROOT}/deep/urls.txt"
    with pytest.raises(ImportFileError, match="max_import_bytes"):
        fetched(url, tmp_path, 100, lambda: None)

    def stop() -> None:
        raise KeyError("stopped")

    with pytest.raises(KeyError):
        fetched(url, tmp_path, 1 << 20, stop)
    assert list(tmp_path.iterdir()) == []
    path = fetched(url, tmp_path, 1 << 20, lambda: None)
    with fsspec.open(url, "wb") as file:
        file.write(b"another content")
    assert fetched(url, tmp_path, 1 << 20, lambda: None) == path  # as it was at first
    assert path.read_text().splitlines() == TEXTS


def test_unknown_protocols_fail_with_their_name(tmp_path: Path) -> None:
    with pytest.raises(ImportFileError, match="cannot be fetched: ValueError"):
        fetched("nosuch://bucket/a.txt", tmp_path, 100, lambda: None)


def test_urls_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOSEBY_IMPORT_URLS", "s3://a/b gs://c/")
    settings = load_settings()
    assert settings.import_urls == ("s3://a/b", "gs://c/")
    monkeypatch.setenv("CLOSEBY_IMPORT_URLS", worker_environment(settings)["CLOSEBY_IMPORT_URLS"])
    assert load_settings().import_urls == settings.import_urls
    for wrong in ("bucket/folder", "file:///data", "s3://", "simplecache::s3://a/b"):
        monkeypatch.setenv("CLOSEBY_IMPORT_URLS", wrong)
        with pytest.raises(SettingsError, match="import_urls"):
            load_settings()
