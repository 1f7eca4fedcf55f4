"""A server answers queries and writes before the rest of it is imported."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from closeby.service import app
from closeby.service.settings import Settings

POINTS = "/v1/collections/c/points:"
SETS = {"metric": "jaccard", "features": {"kind": "ids"}, "index": "flat"}


@pytest.fixture
def settings(tmp_path: Path, serve: Callable[..., Any]) -> Settings:
    """Of a directory with a collection in it."""
    settings = Settings(data_dir=tmp_path, api_key="key")
    with serve(settings) as http:
        http.headers["X-API-Key"] = "key"
        http.put("/v1/collections/c", json=SETS).raise_for_status()
    return settings


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The rest is imported once this is set."""
    imported = threading.Event()
    create_rest = app.create_rest

    def create(service: Any) -> Any:
        assert imported.wait(30)
        return create_rest(service)

    monkeypatch.setattr(app, "create_rest", create)
    return imported


def test_points_are_served_before_the_rest_which_is_waited_for(
    settings: Settings, serve: Callable[..., Any], held: threading.Event
) -> None:
    with serve(settings) as http, ThreadPoolExecutor(1) as later:
        assert http.get("/healthz").status_code == 200
        assert http.post(POINTS + "get", json={"ids": [1]}).json()["code"] == "unauthorized"
        http.headers["X-API-Key"] = "key"
        while http.get("/readyz").status_code != 200:
            pass
        waiting = later.submit(http.get, "/v1/collections/c")
        stored = http.post(POINTS + "upsert", json={"ids": [1, 2], "sets": [[1, 2], [3]]})
        assert stored.json()["upserted"] == 2
        found = http.post("/v1/collections/c/query", json={"set": [1, 2]}).json()["hits"]
        assert [hit["id"] for hit in found] == [1]
        assert http.post(POINTS + "delete", json={"ids": [2]}).json()["deleted"] == 1
        assert http.post(POINTS + "get", json={"ids": [2]}).json()["missing"] == [2]
        batch = http.post("/v1/collections/c/query:batch", json={"sets": [[1, 2], [3]]}).json()
        assert [len(each["hits"]) for each in batch["results"]] == [1, 0]
        refused = http.post("/v1/collections/d/query", json={"set": [1]})
        assert refused.json()["code"] == "collection_not_found"
        assert refused.headers["x-request-id"] == refused.json()["request_id"]
        wrong = http.post(POINTS + "upsert", json={"ids": [1]})
        assert (wrong.status_code, wrong.json()["code"]) == (422, "validation_error")
        assert not waiting.done()
        held.set()
        assert waiting.result(30).json()["count"] == 1
        assert "closeby_queries_total 3.0" in http.get("/metrics").text
        assert http.get(POINTS + "upsert").status_code == 405


def test_a_rest_that_cannot_be_imported_is_an_error_of_those_who_ask_for_it(
    settings: Settings, serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(_service: Any) -> Any:
        raise ImportError("no such module")

    monkeypatch.setattr(app, "create_rest", create)
    with serve(settings) as http:
        http.headers["X-API-Key"] = "key"
        for _ in range(2):
            answer = http.get("/v1/collections")
            assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
        assert http.post(POINTS + "get", json={"ids": [1]}).status_code == 200


def test_a_server_that_only_reads_refuses_writes(
    settings: Settings, serve: Callable[..., Any]
) -> None:
    with serve(settings.model_copy(update={"read_only": True})) as http:
        http.headers["X-API-Key"] = "key"
        while http.get("/readyz").status_code != 200:
            pass
        assert http.post(POINTS + "get", json={"ids": [1]}).status_code == 200
        assert http.post(POINTS + "upsert", json={"ids": [1]}).json()["code"] == "read_only"


def test_what_a_server_needs_to_be_ready_brings_nothing_that_can_wait() -> None:
    waiting = "closeby.loaders closeby.optimize closeby.service.schemas faiss fastapi scipy httpx"
    code = (
        "import closeby.service.cli, closeby.service.server, closeby.service.serving, sys;"
        f" print(*(set({waiting.split()!r}) & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
