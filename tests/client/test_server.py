"""The client against a real server: what both sides agree on."""

import asyncio
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from closeby.client import (
    AsyncClient,
    AsyncCollection,
    Batching,
    Client,
    Collection,
    ConflictError,
    NotFoundError,
    ValidationError,
)

SHINGLES = {"kind": "shingles", "unit": "byte", "n": 4}
URLS = [f"https://shop{n % 7}.example/items/{n}/detail?ref={n * n}" for n in range(700)]


@pytest.fixture
def db(server: Any) -> Any:
    with Client(server.url, batching=Batching(points=100, queries=50)) as client:
        yield client


@pytest.fixture
def fresh(db: Client, request: pytest.FixtureRequest) -> Any:
    """Creates collections that are gone after the test."""
    made: list[str] = []

    def create(**config: Any) -> Collection:
        name = f"client-{request.node.name[:80]}-{len(made)}".replace("[", "-").replace("]", "")
        collection = db.create_collection(name, **config)
        made.append(name)
        return collection

    yield create
    for name in made:
        db.delete_collection(name)


def test_text_from_end_to_end(db: Client, fresh: Any) -> None:
    urls = fresh(metric="jaccard", features=SHINGLES, threshold=0.5)
    done: list[tuple[int, int | None]] = []
    stored = urls.upsert(
        ids=range(len(URLS)),
        texts=URLS,
        payloads=({"n": n} for n in range(len(URLS))),
        progress=lambda *told: done.append(told),
    )
    assert stored.upserted == len(URLS)
    assert stored.took_ms > 0
    assert done[-1] == (700, 700)
    assert len(done) == 7

    result = urls.query(text=URLS[42], limit=5, threshold=0.3)
    assert (result.hits[0].id, result.hits[0].score) == (42, 1.0)
    assert result.hits[0].payload == {"n": 42}
    assert [hit.score for hit in result.hits] == sorted(
        (h.score for h in result.hits), reverse=True
    )
    assert result.took_ms > 0
    assert urls.query(text=URLS[42], limit=1, with_payload=False).hits[0].payload is None

    results = urls.query_batch(texts=URLS[:120], limit=1, target_recall=0.99)
    assert [one.hits[0].id for one in results] == list(range(120))
    assert results.took_ms > 0

    info = urls.info()
    assert info.count == 700
    assert info.config["metric"] == "jaccard"
    assert info.config["features"] == SHINGLES
    assert info.config["threshold"] == 0.5
    assert info.ready
    assert urls.name in [one.name for one in db.list_collections()]

    found = urls.get(ids=[3, 100_000, 1])
    assert [(one.id, one.text, one.payload) for one in found] == [
        (3, URLS[3], {"n": 3}),
        (1, URLS[1], {"n": 1}),
    ]
    assert found.missing == [100_000]
    assert urls.delete(ids=[3, 3, 100_000]).deleted == 1
    assert urls.get(ids=[3]).missing == [3]
    assert urls.info().count == 699


@pytest.mark.parametrize("form", ["lists", "arrays", "pair", "csr"])
def test_sets_in_every_form_are_the_same_sets(fresh: Any, form: str) -> None:
    rows = [[n, n + 1, n + 2, 1000 + n] for n in range(0, 300, 3)]
    indptr, indices = np.arange(0, 401, 4), np.array(rows).ravel()
    sets: Any = {
        "lists": rows,
        "arrays": [np.array(row, np.uint64) for row in rows],
        "pair": (indptr, indices),
        "csr": scipy.sparse.csr_array((np.ones(400), indices, indptr)),
    }[form]
    collection = fresh(metric="jaccard", features={"kind": "ids"})
    collection.upsert(ids=np.arange(100), sets=sets)
    assert [one.hits[0].id for one in collection.query_batch(sets=sets, limit=1)] == list(
        range(100)
    )
    assert sorted(collection.get(ids=[7])[0].set) == sorted(rows[7])


def test_tokens_and_sequences(fresh: Any) -> None:
    tokens = fresh(metric="jaccard", features={"kind": "tokens"})
    tokens.upsert(points=[{"id": "a", "set": ["red", "round"]}, {"id": "b", "set": ["blue"]}])
    assert tokens.query(set={"round", "red"}).hits[0].id == "a"
    genes = fresh(metric="jaccard", features={"kind": "kmers", "k": 8, "canonical": True})
    genes.upsert(ids=["g"], sequences=["ACGTTGCAACGGTTAACCGT"])
    assert genes.query(sequence="ACGTTGCAACGGTTAACCGT").hits[0].score == 1.0


def test_vectors_by_array_and_by_list(fresh: Any) -> None:
    vectors = np.random.default_rng(5).standard_normal((300, 24))
    collection = fresh(metric="cosine", features={"kind": "vector", "dim": 24})
    collection.upsert(ids=[f"v{n}" for n in range(300)], vectors=vectors)
    assert collection.query(vector=vectors[17], limit=1).hits[0].id == "v17"
    nearest = collection.query_batch(vectors=vectors.tolist(), limit=1)
    assert [one.hits[0].id for one in nearest] == [f"v{n}" for n in range(300)]
    kept = collection.get(ids=["v3"])[0].vector
    assert np.allclose(kept, vectors[3], atol=1e-6)


def test_the_last_of_one_id_wins(fresh: Any) -> None:
    collection = fresh(metric="jaccard", features=SHINGLES)
    ids = [n % 150 for n in range(900)]
    collection.upsert(ids=ids, texts=[f"version {n // 150} of {n % 150}" for n in range(900)])
    assert [point.text for point in collection.get(ids=range(150))] == [
        f"version 5 of {n}" for n in range(150)
    ]
    assert collection.info().count == 150


def test_wrong_input_becomes_typed_errors(db: Client, fresh: Any) -> None:
    collection = fresh(metric="cosine", features={"kind": "vector", "dim": 3})
    vectors = [[1.0, 2.0, 3.0]] * 250
    vectors[230] = [1.0, 2.0]
    with pytest.raises(ValidationError, match=r"vectors\[230\]") as caught:
        collection.upsert(ids=range(250), vectors=vectors)
    assert caught.value.code == "validation_error"
    assert caught.value.errors[0].field == "vectors[230]"
    assert caught.value.errors[0].limit == 3
    assert caught.value.request_id
    with pytest.raises(ValidationError, match="limit"):
        collection.query(vector=[1, 2, 3], limit=0)
    with pytest.raises(ValidationError, match="text"):
        collection.query(text="words")
    with pytest.raises(ConflictError):
        db.create_collection(
            collection.name, metric="cosine", features={"kind": "vector", "dim": 4}
        )
    with pytest.raises(ConflictError):
        db.create_collection(
            collection.name,
            metric="cosine",
            features={"kind": "vector", "dim": 3},
            exist_ok=False,
        )
    with pytest.raises(NotFoundError) as missing:
        db.collection("nowhere").query(text="x")
    assert missing.value.code == "collection_not_found"
    with pytest.raises(NotFoundError):
        db.delete_collection("nowhere")


def test_more_than_the_server_takes_at_once_is_halved(server: Any, fresh: Any) -> None:
    collection = fresh(metric="jaccard", features={"kind": "ids"})
    generous = Batching(points=25_000, queries=3_000)
    with Client(server.url, batching=generous) as db:
        same = db.collection(collection.name)
        assert same.upsert(ids=range(25_000), sets=[[n, n + 1] for n in range(25_000)]).upserted
        assert same.info().count == 25_000
        results = same.query_batch(sets=[[n, n + 1] for n in range(2_500)], limit=1)
        assert len(results) == 2_500


def test_asyncio_from_end_to_end(server: Any) -> None:
    async def use() -> None:
        async with AsyncClient(server.url, batching=Batching(points=100)) as db:
            urls = await db.create_collection("client-async", metric="jaccard", features=SHINGLES)
            assert isinstance(urls, AsyncCollection)
            try:
                assert (await urls.upsert(ids=range(700), texts=URLS)).upserted == 700
                results = await asyncio.gather(
                    *(urls.query(text=text, limit=1) for text in URLS[:30])
                )
                assert [one.hits[0].id for one in results] == list(range(30))
                batch = await urls.query_batch(texts=URLS[:30], limit=1)
                assert [one.hits for one in batch] == [one.hits for one in results]
                assert (await urls.get(ids=[5]))[0].text == URLS[5]
                assert (await urls.delete(ids=[5])).deleted == 1
                assert (await urls.info()).count == 699
            finally:
                await db.delete_collection("client-async")

    asyncio.run(use())
