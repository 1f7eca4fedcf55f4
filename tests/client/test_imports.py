"""Importing files through the client and the command line, on a real server."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closeby.client import (
    AsyncClient,
    Client,
    InvalidInputError,
    JobFailedError,
    JobInfo,
    NotFoundError,
    ValidationError,
)
from closeby.service.cli import app
from typer.testing import CliRunner

SHINGLES = {"kind": "shingles", "unit": "byte", "n": 4}
TEXTS = [f"https://shop{n % 7}.example/items/{n}/detail?ref={n * n}" for n in range(3_000)]


@pytest.fixture
def db(server: Any) -> Any:
    with Client(server.url) as client:
        yield client


@pytest.fixture
def urls(tmp_path: Path) -> Path:
    path = tmp_path / "urls.txt.gz"
    path.write_bytes(gzip.compress("\n".join(TEXTS).encode()))
    return path


def test_a_file_is_sent_imported_and_found(db: Client, urls: Path) -> None:
    made = db.create_collection("imported", metric="jaccard", features=SHINGLES)
    sent: list[tuple[int, int]] = []
    seen: list[JobInfo] = []
    job = made.import_file(urls, progress=lambda *told: sent.append(told))
    info = job.wait(progress=seen.append, timeout=60)
    size = urls.stat().st_size
    assert sent[-1] == (size, size)
    assert info.result == {"points": 3_000, "bad": 0, "format": "lines"}
    assert seen[-1] == info
    assert [*job.events()][-1].state == "done"
    assert job.id in [one.id for one in db.list_jobs(collection="imported")]
    assert made.info().count == 3_000
    assert made.query(text=TEXTS[5]).hits[0].id == 6
    with pytest.raises(NotFoundError):
        next(job.rows())
    db.delete_collection("imported")


def test_the_same_with_asyncio(server: Any, urls: Path) -> None:
    async def use() -> None:
        async with AsyncClient(server.url) as db:
            made = await db.create_collection("awaited", metric="jaccard", features=SHINGLES)
            job = await made.import_file(urls, id_prefix="u")
            states = [info.state async for info in job.events()]
            assert states[-1] == "done"
            assert (await job.result())["points"] == 3_000
            assert (await made.get(ids=["u1"]))[0].text == TEXTS[0]
            await db.delete_collection("awaited")

    asyncio.run(use())


def test_what_cannot_be_imported_is_said(db: Client, urls: Path, tmp_path: Path) -> None:
    made = db.create_collection("refusing", metric="jaccard", features=SHINGLES)
    with pytest.raises(InvalidInputError, match="No such file"):
        made.import_file(tmp_path / "absent.txt")
    with pytest.raises(ValidationError, match="import_failed"):
        made.import_file(urls, format="jsonl")
    with pytest.raises(ValidationError, match="import_roots"):
        made.import_file(urls, on_server=True)
    wrong = tmp_path / "v.jsonl"
    wrong.write_text('{"vector": [1.0, 2.0]}\n')
    with pytest.raises(JobFailedError, match="with a vector"):
        made.import_file(wrong).wait()
    renamed = tmp_path / "r.jsonl"
    renamed.write_text('{"url": "a", "body": "some text"}\n')
    job = made.import_file(renamed, columns={"key": "body", "field": "text"})
    assert job.wait().result == {"points": 1, "bad": 0, "format": "jsonl"}
    db.delete_collection("refusing")


def run(server: Any, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["import", *arguments, "--url", server.url])


def test_the_command_makes_a_collection_that_suits_the_file(
    db: Client, server: Any, urls: Path, tmp_path: Path
) -> None:
    vectors, genes = tmp_path / "v.npy", tmp_path / "g.fasta"
    np.save(vectors, np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32))
    genes.write_text(">a\nACGTACGTACGTACGTACGTA\n>b\nTTTTGGGGCCCCACGTACGTA\n")
    wanted = {
        "cli-urls": (urls, [], {"kind": "shingles", "unit": "byte", "n": 4}, 3_000),
        "cli-words": (urls, ["--words", "1"], {"kind": "shingles", "unit": "word", "n": 1}, 3_000),
        "cli-v": (vectors, ["--metric", "ip"], {"kind": "vector", "dim": 6}, 40),
        "cli-none": (
            urls,
            ["--store", "none"],
            {"kind": "shingles", "unit": "byte", "n": 4},
            3_000,
        ),
        "cli-g": (genes, ["--kmers", "9"], {"kind": "kmers", "k": 9, "canonical": True}, 2),
    }
    for name, (path, flags, features, count) in wanted.items():
        done = run(server, name, str(path), "--wait", *flags)
        assert done.exit_code == 0, done.output
        assert f"{count:,} points" in done.stderr
        info = db.collection(name).info()
        assert (info.count, info.config["features"]) == (count, features)
        assert info.config["store"] == ("none" if name == "cli-none" else "features")
        assert info.config["metric"] == ("ip" if name == "cli-v" else "jaccard")
    again = run(server, "cli-urls", str(urls))
    assert again.exit_code == 0
    assert db.job(again.stdout.strip()).wait().result is not None
    for name in wanted:
        db.delete_collection(name)


def test_the_command_leaves_near_duplicates_out(db: Client, server: Any, tmp_path: Path) -> None:
    file = tmp_path / "near.txt"
    text = "https://example.org/a/long/address/of/something"
    file.write_text(f"{text}\n{text}s\nsomething else entirely\n")
    flags = ["--on-duplicate", "skip", "--duplicate-threshold", ".8"]
    done = run(server, "cli-near", str(file), "--wait", *flags)
    assert done.exit_code == 0, done.output
    assert "cli-near: 2 points, 1 duplicates" in done.stderr
    (job,) = db.list_jobs(collection="cli-near")
    (told,) = db.job(job.id).rows()
    # 44 shingles are of both, and one of the longer alone.
    assert told == {"id": 2, "duplicate_of": 1, "score": round(44 / 45, 7)}
    db.delete_collection("cli-near")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["x", "absent.txt", "--wait"], 1, "absent.txt"),
        (["x", "FILE", "--words", "2", "--kmers", "3"], 2, "exclude one another"),
        (["x", "FILE", "--columns", "[1]"], 2, "no JSON object"),
        (["x", "FILE", "--on-server"], 2, "cannot be looked into"),
        (["x", "FILE", "--format", "no-such"], 1, "no-such"),
        (["no/name", "FILE"], 1, "name"),
    ],
)
def test_the_command_fails_with_one_clear_line(
    server: Any, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    file = tmp_path / "few.txt"
    file.write_text("a first text\nanother text\n")
    done = run(server, *(str(file) if each == "FILE" else each for each in arguments))
    assert done.exit_code == code, done.output
    assert said in done.stderr
    assert done.stderr.startswith("closeby: ")
    assert len(done.stderr.splitlines()) == 1


def test_the_command_fails_when_the_job_does(server: Any, db: Client, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"text": "fine"}) + "\n{broken\n")
    done = run(server, "cli-broken", str(file), "--on-error", "stop", "--wait")
    assert done.exit_code == 1
    assert "import_failed" in done.stderr
    assert "line 2" in done.stderr
    db.delete_collection("cli-broken")


def test_no_server_is_said() -> None:
    done = CliRunner().invoke(app, ["import", "x", __file__, "--url", "http://127.0.0.1:9"])
    assert done.exit_code == 1
    assert "cannot connect" in done.stderr
