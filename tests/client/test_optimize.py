"""select and frank_wolfe through the client and the command line, on a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closeby.client import (
    AsyncClient,
    Client,
    Collection,
    InvalidInputError,
    JobFailedError,
    JobInfo,
    JobTimeoutError,
    ValidationError,
)
from closeby.optimize import frank_wolfe, herding
from closeby.service.cli import app
from typer.testing import CliRunner

VECTORS = np.random.default_rng(5).standard_normal((300, 10)).astype(np.float32)
IDS = [f"v{i}" for i in range(300)]


@pytest.fixture(scope="module")
def vectors(server: Any) -> Iterator[Collection]:
    with Client(server.url) as db:
        made = db.create_collection("drawn", metric="ip", features={"kind": "vector", "dim": 10})
        payloads = [{"half": i // 150} for i in range(300)]
        made.upsert(ids=IDS, vectors=VECTORS, payloads=payloads)
        yield made
        db.delete_collection("drawn")


def distance_to(target: Any) -> Any:
    return lambda w: (float((w - target) @ (w - target)), 2 * (w - target))


def test_select(vectors: Collection) -> None:
    told: list[JobInfo] = []
    found = vectors.select(20, progress=told.append)
    expected = herding(VECTORS, 20)
    assert found.ids == [IDS[i] for i in expected.ids]
    assert found.weights == [1 / 20] * 20
    assert found.discrepancy == pytest.approx(expected.discrepancy.tolist())
    assert found.random_discrepancy[-1] > 2 * found.discrepancy[-1]
    assert (found.points, found.oracle) == (300, "exact")
    assert told[-1].state == "done"
    assert told[-1].id == found.job_id
    options = {"filter": {"half": 1}, "exclude": [IDS[150]], "target": VECTORS[150], "seed": 1}
    some = vectors.select(5, unique=False, **options)  # type: ignore[arg-type]
    rest = herding(VECTORS[151:], 5, VECTORS[150], unique=False)
    assert some.ids == [IDS[151 + i] for i in rest.ids]
    assert some.points == 150


def test_frank_wolfe(vectors: Collection) -> None:
    target = VECTORS[:9].mean(axis=0)
    found = vectors.frank_wolfe(target, tol=1e-5)
    expected = frank_wolfe(distance_to(target.astype(float)), VECTORS, tol=1e-5)
    assert found.objective == pytest.approx(expected.objective, abs=1e-9)
    assert dict(zip(found.ids, found.weights, strict=True)) == pytest.approx(
        dict(zip([IDS[i] for i in expected.ids], expected.weights, strict=True)), abs=1e-6
    )
    assert (found.status, found.certified) == ("converged", True)
    assert found.gap is not None
    assert found.gap <= 1e-5
    assert len(found.trace["objective"]) == found.iterations
    signed = vectors.frank_wolfe((-2 * target).tolist(), signed=True, radius=4, variant="pairwise")
    assert min(signed.weights) < 0
    assert sum(map(abs, signed.weights)) <= 4 + 1e-9


def test_without_waiting_and_with_asyncio(server: Any, vectors: Collection) -> None:
    job = vectors.start_select(6)
    assert job.wait(timeout=30).result is not None
    assert [row["id"] for row in job.rows()] == vectors.select(6).ids
    job = vectors.start_frank_wolfe(VECTORS[0])
    job.wait(timeout=30)
    assert [*job.rows()] == [{"id": "v0", "weight": pytest.approx(1.0)}]

    async def use() -> list[Any]:
        async with AsyncClient(server.url) as db:
            drawn = db.collection("drawn")
            assert (await drawn.frank_wolfe(VECTORS[0])).ids == ["v0"]
            job = await drawn.start_select(6)
            await job.wait()
            return [row["id"] async for row in job.rows()]

    assert asyncio.run(use()) == vectors.select(6).ids


def test_what_cannot_be_done(vectors: Collection) -> None:
    with pytest.raises(InvalidInputError, match=r"target.*finite"):
        vectors.select(3, target=[float("nan")] * 10)
    with pytest.raises(InvalidInputError, match=r"exclude\[1\]"):
        vectors.select(3, exclude=["v0", 1.5])  # type: ignore[list-item]
    with pytest.raises(ValidationError, match="m: is 301"):
        vectors.select(301)
    with pytest.raises(ValidationError, match="dimensions"):
        vectors.frank_wolfe([1.0])
    with pytest.raises(JobFailedError, match="no point that matches") as caught:
        vectors.select(3, filter={"half": 7})
    assert caught.value.code == "validation_error"
    with pytest.raises(JobTimeoutError):
        vectors.select(300, timeout=0)


# --- the command line -----------------------------------------------------------------------------


def command(server: Any, *arguments: object) -> Any:
    return CliRunner().invoke(app, [*map(str, arguments), "--url", server.url])


def test_the_command_selects(server: Any, vectors: Collection, tmp_path: Path) -> None:
    output = tmp_path / "coreset.jsonl"
    done = command(server, "select", "drawn", 12, "--output", output)
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["id"] for row in rows] == vectors.select(12).ids
    assert {*rows[0]} == {"id", "weight", "discrepancy", "random_discrepancy"}
    assert "12 of 300 points, discrepancy" in done.stderr
    np.save(tmp_path / "target.npy", VECTORS[7])
    more = command(
        server, "select", "drawn", 3, "--exclude", output, "--filter", '{"half": 0}',
        "--target", tmp_path / "target.npy", "--repeat",
    )  # fmt: skip
    assert more.exit_code == 0, more.output
    chosen = [json.loads(line)["id"] for line in more.stdout.splitlines()]
    assert len(chosen) == 3
    assert not {*chosen} & {row["id"] for row in rows}


def test_the_command_combines(server: Any, vectors: Collection, tmp_path: Path) -> None:
    target = tmp_path / "target.json"
    target.write_text(json.dumps(VECTORS[:4].mean(axis=0).astype(float).tolist()))
    done = command(server, "frank-wolfe", "drawn", target, "--tol", "1e-4")
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert sum(row["weight"] for row in rows) == pytest.approx(1)
    assert "converged after" in done.stderr
    assert "(proved)" in done.stderr


def test_the_commands_refuse(server: Any, vectors: Collection, tmp_path: Path) -> None:
    (tmp_path / "bad.npy").write_bytes(b"no")
    for code, message, *arguments in (
        (1, "m: is 999", "select", "drawn", 999),
        (1, "collection_not_found", "select", "absent", 1),
        (1, "No such file", "frank-wolfe", "drawn", tmp_path / "absent.json"),
        (2, "bad.npy", "frank-wolfe", "drawn", tmp_path / "bad.npy"),
        (2, "--filter", "select", "drawn", 1, "--filter", "lang"),
        (2, "--filter", "select", "drawn", 1, "--filter", "[1]"),
    ):
        done = command(server, *arguments)
        assert done.exit_code == code, done.output
        assert str(message) in done.stderr
    done = CliRunner().invoke(app, ["select", "drawn", "1", "--url", "http://127.0.0.1:1"])
    assert done.exit_code == 1
