"""Both faces show the same methods: to people, to editors, to type checkers."""

import asyncio
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import closeby.client
import pytest
from closeby.client import AsyncClient, AsyncCollection, AsyncJob, Client, Collection, Job

DOCS = Path(__file__).resolve().parents[2] / "docs" / "client.md"
WITHOUT_IO = {"collection", "job"}
STREAMED = {"events", "rows"}
TWINS = [(Client, AsyncClient), (Collection, AsyncCollection), (Job, AsyncJob)]


def methods(owner: type) -> dict[str, Any]:
    return {
        name: value
        for name, value in inspect.getmembers(owner, inspect.isroutine)
        if not name.startswith("_")
    }


@pytest.mark.parametrize(("blocking", "awaiting"), TWINS)
def test_methods_signatures_and_docstrings_are_the_same(blocking: type, awaiting: type) -> None:
    ours, theirs = methods(blocking), methods(awaiting)
    assert ours.keys() == theirs.keys()
    assert len(ours) >= 5
    for name, method in ours.items():
        assert str(inspect.signature(method)) == str(inspect.signature(theirs[name])).replace(
            "'AsyncIterator[", "'Iterator["
        ), name
        assert inspect.getdoc(method), f"{name} has no docstring"
        assert inspect.getdoc(method) == inspect.getdoc(theirs[name])
        assert method.__name__ == name
        assert not inspect.iscoroutinefunction(method)
        assert inspect.iscoroutinefunction(theirs[name]) == (name not in WITHOUT_IO | STREAMED)
    assert list(inspect.signature(blocking).parameters) == list(
        inspect.signature(awaiting).parameters
    )


def test_no_flow_shows_through() -> None:
    for owner in (Client, AsyncClient, Collection, AsyncCollection, Job, AsyncJob):
        for name, method in methods(owner).items():
            assert "Flow" not in str(inspect.signature(method)), name
    assert str(inspect.signature(AsyncCollection.info)) == "(self) -> 'CollectionInfo'"
    assert str(inspect.signature(AsyncJob.events)) == "(self) -> 'AsyncIterator[JobInfo]'"


def test_awaiting_methods_return_awaitables() -> None:
    async def use() -> None:
        async with AsyncClient("http://127.0.0.1:1") as db:
            call = db.list_collections()
            assert inspect.iscoroutine(call)
            call.close()

    asyncio.run(use())


def test_exports_are_sorted_and_exist() -> None:
    exported = [name for name in closeby.client.__all__ if name != "__version__"]
    assert exported == sorted(exported)
    assert all(hasattr(closeby.client, name) for name in exported)


def test_every_method_and_error_is_documented() -> None:
    page = DOCS.read_text()
    names = {*methods(Client), *methods(Collection), *methods(Job), *closeby.client.__all__} - {
        "__version__"
    }
    assert [name for name in sorted(names) if name not in page] == []


TYPED = """
import numpy as np
from closeby.client import (
    AsyncClient, AsyncCollection, Client, Collection, CollectionInfo, QueryResult, QueryResults,
)
from typing_extensions import assert_type

def blocking(db: Client) -> None:
    c = db.create_collection("c", metric="jaccard", features={"kind": "ids"})
    assert_type(c, Collection)
    assert_type(db.collection("c"), Collection)
    assert_type(db.list_collections(), list[CollectionInfo])
    assert_type(c.query(text="x"), QueryResult)
    assert_type(c.query_batch(vectors=np.zeros((2, 3)))[0], QueryResult)
    assert_type(c.query(set=[1]).hits[0].score, float)
    c.upsert(ids=np.arange(2), sets=(np.arange(3), np.arange(4)))
    c.upsert(points=[{"id": 1, "text": "x"}], progress=lambda done, total: print(done, total))

async def awaiting(db: AsyncClient) -> None:
    c = await db.create_collection("c", metric="jaccard", features={"kind": "ids"})
    assert_type(c, AsyncCollection)
    assert_type(db.collection("c"), AsyncCollection)
    assert_type(await c.query(text="x"), QueryResult)
    assert_type(await c.query_batch(texts=["x"]), QueryResults)
    assert_type((await c.info()).count, int)
"""

WRONG = """
from closeby.client import AsyncClient, Client
def blocking(db: Client) -> None:
    db.collection("c").query(txt="x")
    db.collection("c").query(text=7)
async def awaiting(db: AsyncClient) -> None:
    db.collection("c").query(text="x").hits
"""


@pytest.mark.slow
def test_type_checkers_know_both_faces(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(TYPED)
    wrong.write_text(WRONG)

    def mypy(path: Path) -> str:
        command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary"]
        command += ["--cache-dir", str(tmp_path / "cache"), "--config-file", "", str(path)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path).stdout

    assert mypy(right) == ""
    found = mypy(wrong).splitlines()
    assert [line.split(":")[1] for line in found if ": error:" in line] == ["4", "5", "7"]
