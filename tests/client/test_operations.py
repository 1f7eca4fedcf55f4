"""Each operation against a small fake server, on both faces."""

from typing import Any

import httpx
import numpy as np
import pytest
from closeby.client import (
    ApiError,
    Batching,
    ClientClosedError,
    ConflictError,
    Hit,
    InvalidInputError,
    NotFoundError,
    Point,
    QueryResult,
    TooLargeError,
    UnexpectedAnswerError,
    ValidationError,
)

SHINGLES = {"kind": "shingles", "unit": "byte", "n": 4}


@pytest.fixture
def db(faces: Any, fake: Any) -> Any:
    return faces.client(fake, batching=Batching(points=3, queries=2, in_flight=2))


@pytest.fixture
def texts(faces: Any, db: Any) -> Any:
    return faces.run(db.create_collection("texts", metric="jaccard", features=SHINGLES))


def test_create_sends_what_is_given_and_nothing_else(faces: Any, fake: Any, db: Any) -> None:
    made = faces.run(
        db.create_collection("c", metric="jaccard", features=SHINGLES, threshold=0.4, seed=7)
    )
    assert made.name == "c"
    assert fake.bodies() == [
        {
            "metric": "jaccard",
            "features": SHINGLES,
            "index": "auto",
            "threshold": 0.4,
            "seed": 7,
        }
    ]
    assert fake.requests[0].method == "PUT"


def test_create_again_is_no_error_unless_forbidden(faces: Any, fake: Any, db: Any) -> None:
    config = {"metric": "jaccard", "features": SHINGLES}
    faces.run(db.create_collection("c", **config))
    faces.run(db.create_collection("c", **config))
    with pytest.raises(ConflictError) as caught:
        faces.run(db.create_collection("c", **config, exist_ok=False))
    assert caught.value.code == "collection_exists"
    faces.run(db.create_collection("new", **config, exist_ok=False))


def test_create_with_another_configuration_is_a_conflict(faces: Any, db: Any, texts: Any) -> None:
    with pytest.raises(ConflictError, match="another configuration"):
        faces.run(db.create_collection("texts", metric="cosine", features=SHINGLES))


def test_create_whose_first_answer_was_lost_did_not_exist(
    faces: Any, fake: Any, db: Any, naps: list[float]
) -> None:
    fake.collections["c"] = {"metric": "jaccard", "features": SHINGLES, "index": "auto"}
    fake.points["c"] = {}
    fake.script = [httpx.ReadError("lost")]
    faces.run(db.create_collection("c", metric="jaccard", features=SHINGLES, exist_ok=False))
    assert len(fake.requests) == 2


def test_collection_asks_nothing(fake: Any, db: Any) -> None:
    handle = db.collection("anything")
    assert handle.name == "anything"
    assert "anything" in repr(handle)
    assert fake.requests == []


@pytest.mark.parametrize("name", ["", ".", "..", 3])
def test_a_name_that_is_no_path_segment_is_refused(faces: Any, db: Any, name: Any) -> None:
    with pytest.raises(InvalidInputError, match="name"):
        db.collection(name)


def test_names_are_quoted(faces: Any, fake: Any, db: Any) -> None:
    with pytest.raises(ApiError):
        faces.run(db.collection("a/b?c").info())
    assert fake.requests[0].url.raw_path == b"/v1/collections/a%2Fb%3Fc"


def test_list_follows_the_cursor_to_the_end(faces: Any, db: Any) -> None:
    assert faces.run(db.list_collections()) == []
    for name in "edcba":
        faces.run(db.create_collection(name, metric="jaccard", features=SHINGLES))
    listed = faces.run(db.list_collections())
    assert [one.name for one in listed] == ["a", "b", "c", "d", "e"]
    assert listed[0].config["features"] == SHINGLES


def test_delete_collection(faces: Any, fake: Any, db: Any, texts: Any, naps: list[float]) -> None:
    faces.run(db.delete_collection("texts"))
    with pytest.raises(NotFoundError) as caught:
        faces.run(db.delete_collection("texts"))
    assert (caught.value.status, caught.value.code) == (404, "collection_not_found")
    # The first try did it, but its answer was lost: not found is what was wanted.
    fake.script = [httpx.ReadError("lost")]
    assert faces.run(db.delete_collection("texts")) is None


def test_info(faces: Any, texts: Any) -> None:
    faces.run(texts.upsert(ids=[1, 2], texts=["ab", "cd"]))
    info = faces.run(texts.info())
    assert (info.name, info.count, info.ready) == ("texts", 2, True)
    assert info.config == {"metric": "jaccard", "features": SHINGLES, "index": "auto"}
    assert info.index_stats == {"engine": "fake"}


def test_upsert_then_get(faces: Any, texts: Any) -> None:
    done: list[tuple[int, int | None]] = []
    stored = faces.run(
        texts.upsert(
            ids=[1, "b", 3, 4],
            texts=["one", "two", "three", "four"],
            payloads=[{"n": 1}, None, {}, {"deep": {"x": [1, None]}}],
            progress=lambda *told: done.append(told),
        )
    )
    assert stored.upserted == 4
    assert stored.took_ms == 2.0
    assert done[-1] == (4, 4)
    assert sorted(done) == done
    found = faces.run(texts.get(ids=["b", 9, 4, 1, "no"]))
    assert list(found) == [
        Point("b", None, text="two"),
        Point(4, {"deep": {"x": [1, None]}}, text="four"),
        Point(1, {"n": 1}, text="one"),
    ]
    assert found.missing == [9, "no"]
    assert found[0].text == "two"
    assert len(found[1:]) == 2


def test_points_found_can_be_stored_as_they_are(faces: Any, fake: Any, db: Any, texts: Any) -> None:
    faces.run(texts.upsert(ids=[1, 2], texts=["one", "two"], payloads=[{"n": 1}, None]))
    copy = faces.run(db.create_collection("copy", metric="jaccard", features=SHINGLES))
    faces.run(copy.upsert(points=faces.run(texts.get(ids=[1, 2]))))
    assert fake.points["copy"] == fake.points["texts"]


def test_nothing_to_do_asks_nothing(faces: Any, fake: Any, texts: Any) -> None:
    fake.requests.clear()
    assert faces.run(texts.upsert(ids=[], texts=[])).upserted == 0
    assert faces.run(texts.upsert(points=[])).upserted == 0
    assert faces.run(texts.upsert(points=iter(()))).upserted == 0
    assert list(faces.run(texts.get(ids=[]))) == []
    assert faces.run(texts.delete(ids=[])).deleted == 0
    results = faces.run(texts.query_batch(texts=[]))
    assert (list(results), results.recall_estimate) == ([], None)
    assert fake.requests == []


def test_delete(faces: Any, fake: Any, texts: Any) -> None:
    faces.run(texts.upsert(ids=range(8), texts=["x"] * 8))
    assert faces.run(texts.delete(ids=np.array([0, 1, 2, 3, 3, 77]))).deleted == 4
    assert sorted(fake.points["texts"]) == [4, 5, 6, 7]


def test_query(faces: Any, fake: Any, texts: Any) -> None:
    faces.run(
        texts.upsert(ids=[1, 2, 3], texts=["abcd", "abce", "wxyz"], payloads=[{"n": 1}, None, None])
    )
    result = faces.run(texts.query(text="abcd", limit=5, threshold=0.5, target_recall=0.9))
    assert result == QueryResult(
        [Hit(1, 1.0, {"n": 1}), Hit(2, 0.6, None)], took_ms=2.0, recall_estimate=0.97
    )
    assert fake.bodies()[-1] == {
        "text": "abcd",
        "limit": 5,
        "with_payload": True,
        "threshold": 0.5,
        "target_recall": 0.9,
    }
    without = faces.run(texts.query(text="abcd", limit=1, with_payload=False))
    assert without.hits == [Hit(1, 1.0, None)]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"sequence": "ACGT"}, {"sequence": "ACGT"}),
        ({"set": {5}}, {"set": [5]}),
        ({"set": ["a", "b"]}, {"set": ["a", "b"]}),
        ({"set": np.array([2**64 - 1, 1], np.uint64)}, {"set": [2**64 - 1, 1]}),
        ({"vector": [0.5, 1]}, {"vector": [0.5, 1]}),
        ({"vector": np.array([0.1, 2.0], np.float32)}, {"vector": [0.1, 2.0]}),
        ({"vector": np.array([[0.1, 2.0]])[0]}, {"vector": [0.1, 2.0]}),
    ],
)
def test_every_kind_of_input(
    faces: Any, fake: Any, texts: Any, given: dict[str, Any], sent: dict[str, Any]
) -> None:
    faces.run(texts.query(**given))
    assert fake.bodies()[-1] == {**sent, "limit": 10, "with_payload": True}


def test_query_takes_exactly_one_input(faces: Any, fake: Any, texts: Any) -> None:
    fake.requests.clear()
    with pytest.raises(InvalidInputError, match="exactly one of text, sequence, set, vector"):
        faces.run(texts.query())
    with pytest.raises(InvalidInputError, match="text and set"):
        faces.run(texts.query(text="a", set=[1]))
    assert fake.requests == []


def test_query_batch_is_split_and_keeps_order(faces: Any, fake: Any, texts: Any) -> None:
    letters = "abcdefg"
    faces.run(texts.upsert(ids=list(letters), texts=list(letters)))
    fake.requests.clear()
    fake.slow = lambda body: 0.05 if "a" in body["texts"] else 0.0  # the first comes last
    done: list[tuple[int, int | None]] = []
    results = faces.run(
        texts.query_batch(texts=list(letters), limit=1, progress=lambda *told: done.append(told))
    )
    assert [one.hits[0].id for one in results] == list(letters)
    assert [len(body["texts"]) for body in fake.bodies()] == [2, 2, 2, 1]
    assert len(results) == 7
    assert results[0].took_ms == 1.0
    assert results.took_ms == pytest.approx(8.0)
    assert results.recall_estimate == pytest.approx(0.97)
    assert done[-1] == (7, 7)


def test_query_batch_takes_a_generator(faces: Any, texts: Any) -> None:
    faces.run(texts.upsert(ids=["q"], texts=["q"]))
    results = faces.run(texts.query_batch(texts=(letter for letter in "qqq"), limit=1))
    assert [one.hits[0].id for one in results] == ["q", "q", "q"]


def test_unknown_collection(faces: Any, db: Any) -> None:
    nowhere = db.collection("nowhere")
    calls = [
        lambda: nowhere.info(),
        lambda: nowhere.query(text="x"),
        lambda: nowhere.query_batch(texts=["x"]),
        lambda: nowhere.upsert(ids=[1], texts=["x"]),
        lambda: nowhere.get(ids=[1]),
        lambda: nowhere.delete(ids=[1]),
    ]
    for call in calls:
        with pytest.raises(NotFoundError, match="no collection 'nowhere'"):
            faces.run(call())


def test_rows_in_errors_are_counted_as_the_caller_does(
    faces: Any, fake: Any, texts: Any, problem: Any
) -> None:
    refused = {"field": "texts[1]", "message": "is an empty text"}
    # The second request of three rows: its row 1 is the caller's row 4. One at a time, in order.
    one_by_one = faces.client(fake, batching=Batching(points=3, in_flight=1)).collection("texts")
    fake.script = [
        None,
        problem(422, "validation_error", "texts[1]: is an empty text", errors=[refused]),
    ]
    with pytest.raises(ValidationError, match=r"texts\[4\]: is an empty text") as caught:
        faces.run(one_by_one.upsert(ids=range(9), texts=["x"] * 9))
    assert caught.value.errors[0].field == "texts[4]"
    assert sorted(fake.points["texts"]) == [0, 1, 2]


@pytest.mark.parametrize("status", [413, 422])
def test_requests_too_large_for_this_server_are_halved(
    faces: Any, fake: Any, texts: Any, status: int
) -> None:
    fake.max_rows, fake.too_many_status = 2, status
    large = faces.client(fake, batching=Batching(points=7, queries=7)).collection("texts")
    letters = "abcdefg"
    assert faces.run(large.upsert(ids=list(letters), texts=list(letters))).upserted == 7
    results = faces.run(large.query_batch(texts=list(letters), limit=1))
    assert [one.hits[0].id for one in results] == list(letters)


def test_one_point_too_large_is_an_error(faces: Any, fake: Any, texts: Any, problem: Any) -> None:
    fake.script = [problem(413, "body_too_large", "over 67108864 bytes")]
    with pytest.raises(TooLargeError, match="67108864"):
        faces.run(texts.upsert(ids=[1], texts=["x"]))


@pytest.mark.parametrize(
    "answer",
    [
        {"status_code": 200, "text": "<html>Welcome to nginx</html>"},
        {"status_code": 200, "json": ["no", "object"]},
        {"status_code": 200, "json": {"unrelated": 1}},
        {"status_code": 302, "headers": {"location": "https://elsewhere.test/"}},
    ],
)
def test_an_answer_that_is_not_closebys(
    faces: Any, fake: Any, texts: Any, answer: dict[str, Any]
) -> None:
    fake.script = [httpx.Response(**answer)]
    with pytest.raises(UnexpectedAnswerError, match=r"closeby\.test:8080.*is the URL right"):
        faces.run(texts.query(text="x"))


def test_closed_client(faces: Any, db: Any, texts: Any) -> None:
    faces.run(db.close())
    with pytest.raises(ClientClosedError):
        faces.run(texts.info())
    faces.run(db.close())


def test_context_manager_closes(faces: Any, fake: Any) -> None:
    db = faces.client(fake)
    if faces.kind == "sync":
        with db as entered:
            assert entered is db
    else:

        async def use() -> None:
            async with db as entered:
                assert entered is db

        faces.run(use())
    with pytest.raises(ClientClosedError):
        faces.run(db.list_collections())


def test_the_key_and_the_version_are_sent(faces: Any, fake: Any) -> None:
    faces.run(faces.client(fake, api_key="s3cret").list_collections())
    headers = fake.requests[0].headers
    assert headers["authorization"] == "Bearer s3cret"
    assert headers["user-agent"].startswith("closeby-client/")


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "", "ftp://x", "http://", "http://h:port", None])
def test_a_url_that_is_none(faces: Any, fake: Any, url: Any) -> None:
    from closeby.client import AsyncClient, Client

    with pytest.raises(InvalidInputError) as caught:
        (Client if faces.kind == "sync" else AsyncClient)(url)
    assert caught.value.field == "url"


def test_a_url_may_have_a_path(faces: Any) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, json={"collections": [], "next_cursor": None})

    faces.run(faces.client(answer, url="http://proxy.test/closeby/").list_collections())
    assert asked == ["http://proxy.test/closeby/v1/collections"]
