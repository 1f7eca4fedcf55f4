"""Points that come in are tested against earlier ones; the client tells what it duplicates."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from closeby.client import (
    AsyncClient,
    Batching,
    Client,
    Collection,
    ConflictError,
    Duplicate,
    ValidationError,
)

FRESH = [f"https://shop{n}.example/items/{n * n * 977}/detail" for n in range(250)]
TEXTS = [*FRESH, *(text + "s" for text in FRESH)]
"""Each with a near copy 250 positions behind, in another request."""
ONCE = Batching(points=40)


@pytest.fixture
def urls(server: Any, request: pytest.FixtureRequest) -> Iterator[Collection]:
    with Client(server.url, batching=ONCE) as db:
        name = request.node.name.replace("[", "-").replace("]", "")
        yield db.create_collection(
            name, metric="jaccard", features={"kind": "shingles", "unit": "byte", "n": 4}
        )
        db.delete_collection(name)


@pytest.mark.parametrize("policy", ["keep", "link", "skip"])
def test_what_duplicates_what_and_how_near(urls: Collection, policy: Any) -> None:
    done = urls.upsert(ids=range(500), texts=TEXTS, on_duplicate=policy, threshold=0.9)
    # "detail" and "details" differ in one of more than 30 shingles.
    assert [(one.id, one.duplicate_of) for one in done.duplicates] == [
        (n + 250, n) for n in range(250)
    ]
    assert all(isinstance(one, Duplicate) and 0.9 <= one.score < 1 for one in done.duplicates)
    assert done.upserted == urls.info().count == (250 if policy == "skip" else 500)
    payload = urls.get(ids=[300 if policy != "skip" else 50])[0].payload
    linked = {"duplicate_of": {"id": 50, "score": done.duplicates[50].score}}
    assert payload == (linked if policy == "link" else None)


def test_a_refused_request_names_the_rows_of_the_call(urls: Collection) -> None:
    with pytest.raises(ConflictError) as caught:
        urls.upsert(ids=range(500), texts=TEXTS, on_duplicate="reject", threshold=0.9)
    assert caught.value.code == "near_duplicate"
    # Requests of 40: the seventh, 240 to 279, has the first copies, 250 and on.
    assert caught.value.errors[0].field == "ids[250]"
    assert urls.info().count == 240


def test_nothing_is_told_unless_asked(urls: Collection) -> None:
    assert urls.upsert(ids=range(500), texts=TEXTS).duplicates == []
    for wrong in ({"on_duplicate": "skip"}, {"threshold": 0.5}):
        with pytest.raises(ValidationError):
            urls.upsert(ids=[1], texts=["a text"], **wrong)  # type: ignore[arg-type]


def test_with_asyncio(server: Any, urls: Collection) -> None:
    async def store() -> list[Duplicate]:
        async with AsyncClient(server.url, batching=ONCE) as db:
            done = await db.collection(urls.name).upsert(
                ids=range(500), texts=TEXTS, on_duplicate="skip", threshold=0.9
            )
            return done.duplicates

    assert [one.duplicate_of for one in asyncio.run(store())] == [*range(250)]
