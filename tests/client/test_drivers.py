"""What only running together shows: requests in flight, failures, memory, retries, transport."""

import asyncio
import json
import socket
import threading
from typing import Any

import httpx
import pytest
from closeby.client import (
    AsyncClient,
    Batching,
    Client,
    ConnectError,
    ConnectionLostError,
    InvalidInputError,
    RateLimitedError,
    RequestTimeoutError,
    ServerError,
    TransportError,
)

SETS = {"metric": "jaccard", "features": {"kind": "ids"}}


def collection(faces: Any, fake: Any, **options: Any) -> Any:
    db = faces.client(fake, **options)
    made = faces.run(db.create_collection("c", **SETS))
    fake.requests.clear()
    return made


def test_several_requests_are_under_way_but_no_more_than_asked(faces: Any, fake: Any) -> None:
    c = collection(faces, fake, batching=Batching(points=1, in_flight=3))
    fake.slow = lambda body: 0.02
    faces.run(c.upsert(ids=range(12), texts=["x"] * 12))
    assert fake.most_under_way == 3
    assert len(fake.requests) == 12


def test_of_one_id_given_twice_the_last_wins_whatever_is_in_flight(faces: Any, fake: Any) -> None:
    c = collection(faces, fake, batching=Batching(points=2, in_flight=4))
    # Early writes are slow: without waiting for them, late ones would be overwritten.
    fake.slow = lambda body: 0.05 if "early" in body["texts"] else 0.0
    ids = [1, 2, 1, 3, 4, 4, 2, 5, 1, 6]
    texts = ["early", "early", "middle", "x", "early", "late", "late", "x", "late", "x"]
    faces.run(c.upsert(ids=ids, texts=texts))
    stored = {one: point["text"] for one, point in fake.points["c"].items()}
    assert stored == {1: "late", 2: "late", 3: "x", 4: "late", 5: "x", 6: "x"}


def test_the_first_failure_ends_the_call(faces: Any, fake: Any, problem: Any) -> None:
    c = collection(faces, fake, batching=Batching(points=1, in_flight=1))
    fake.script = [None, problem(500, "internal_error", "a defect", request_id="r-42")]
    with pytest.raises(ServerError, match=r"500 internal_error: a defect \[request r-42\]"):
        faces.run(c.upsert(ids=range(100), texts=["x"] * 100))
    assert len(fake.requests) == 2
    assert fake.under_way == 0


def test_a_fault_of_a_generator_ends_the_call_after_what_is_in_flight(
    faces: Any, fake: Any
) -> None:
    c = collection(faces, fake, batching=Batching(points=1, in_flight=2))

    def points() -> Any:
        yield {"id": 1, "text": "a"}
        yield {"id": 2, "text": "b"}
        yield {"id": 3, "text": None, "vector": [float("nan")]}

    with pytest.raises(InvalidInputError) as caught:
        faces.run(c.upsert(points=points()))
    assert caught.value.row == 2

    def broken() -> Any:
        yield {"id": 1, "text": "a"}
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        faces.run(c.upsert(points=broken()))


def test_a_generator_is_read_no_further_ahead_than_what_is_in_flight(faces: Any, fake: Any) -> None:
    c = collection(faces, fake, batching=Batching(points=10, in_flight=2))
    read = 0
    ahead: list[int] = []
    totals: set[int | None] = set()

    def points() -> Any:
        nonlocal read
        for at in range(500):
            read = at + 1
            yield {"id": at, "set": [at]}

    def watch(done: int, total: int | None) -> None:
        ahead.append(read - done)
        totals.add(total)

    faces.run(c.upsert(points=points(), progress=watch))
    assert max(ahead) <= 3 * 10 + 1  # two in flight, one being filled, one row beyond
    assert totals == {None}
    assert len(fake.points["c"]) == 500


def test_progress_is_told_in_the_callers_thread(faces: Any, fake: Any) -> None:
    c = collection(faces, fake, batching=Batching(points=1))
    threads = set()
    faces.run(
        c.upsert(
            ids=[1, 2, 3],
            texts=["a"] * 3,
            progress=lambda done, total: threads.add(threading.get_ident()),
        )
    )
    assert threads == {threading.get_ident()}


def test_passing_trouble_is_overcome(
    faces: Any, fake: Any, problem: Any, naps: list[float]
) -> None:
    c = collection(faces, fake)
    fake.script = [
        httpx.ConnectError("refused"),
        problem(429, "too_many_requests", "busy", headers={"retry-after": "2"}),
        problem(503, "not_ready", "loading"),
    ]
    assert faces.run(c.upsert(ids=[1], texts=["x"])).upserted == 1
    assert len(fake.requests) == 4
    assert naps[1] == 2.0
    assert 0.1 <= naps[0] <= 0.2
    assert 0.4 <= naps[2] <= 0.8


def test_trouble_that_stays_is_raised(
    faces: Any, fake: Any, problem: Any, naps: list[float]
) -> None:
    c = collection(faces, fake, retries=2)
    busy = {"headers": {"retry-after": "1"}}
    fake.script = [problem(429, "too_many_requests", "busy", **busy) for _ in range(3)]
    with pytest.raises(RateLimitedError) as caught:
        faces.run(c.query(text="x"))
    assert caught.value.retry_after == 1.0
    assert naps == [1.0, 1.0]


@pytest.mark.parametrize(
    ("raised", "kind", "builtin", "words"),
    [
        (httpx.ConnectError("refused"), ConnectError, ConnectionError, "is `closeby serve` runn"),
        (httpx.ConnectTimeout("x"), ConnectError, ConnectionError, "no connection .* within 9 s"),
        (httpx.ReadTimeout("x"), RequestTimeoutError, TimeoutError, "within 9 s.*timeout="),
        (httpx.WriteTimeout("x"), RequestTimeoutError, TimeoutError, "within 9 s"),
        (httpx.PoolTimeout("x"), RequestTimeoutError, TimeoutError, "within 9 s"),
        (httpx.ReadError("reset"), ConnectionLostError, ConnectionError, "broke .* reset"),
        (httpx.RemoteProtocolError("eof"), ConnectionLostError, ConnectionError, "did the server"),
        (httpx.ProxyError("no"), TransportError, TransportError, "no exchange with"),
    ],
)
def test_trouble_of_the_network_names_the_url_and_what_to_do(
    faces: Any, fake: Any, raised: Exception, kind: Any, builtin: Any, words: str
) -> None:
    c = collection(faces, fake, retries=0, timeout=9)
    fake.script = [raised]
    with pytest.raises(kind, match=words) as caught:
        faces.run(c.info())
    assert type(caught.value) is kind
    assert isinstance(caught.value, builtin)
    assert "http://closeby.test:8080" in str(caught.value)
    assert caught.value.__cause__ is raised


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_nobody_listens() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    expected = f"cannot connect to {url}.*is `closeby serve` running there"
    with Client(url, retries=0) as db, pytest.raises(ConnectError, match=expected):
        db.list_collections()

    async def ask() -> None:
        async with AsyncClient(url, retries=0) as db:
            await db.list_collections()

    with pytest.raises(ConnectError, match=expected):
        asyncio.run(ask())


def test_a_proxy_of_the_environment_is_not_asked_for_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    for url in (f"http://127.0.0.1:{free_port()}", f"http://localhost:{free_port()}"):
        with Client(url, retries=0) as db, pytest.raises(ConnectError, match=url):
            db.list_collections()
        with Client(url) as db:
            assert db._session.driver._http.trust_env is False
    with Client("http://search.example") as db:
        assert db._session.driver._http.trust_env is True


def test_a_cancelled_call_leaves_no_request_behind(fake: Any) -> None:
    fake.slow = lambda body: 30.0
    transport = httpx.MockTransport(fake.answer_async)

    async def use() -> None:
        async with AsyncClient(
            "http://closeby.test", transport=transport, batching=Batching(points=1)
        ) as db:
            call = asyncio.create_task(
                db.collection("c").upsert(ids=range(9), texts=["x"] * 9)  # type: ignore[arg-type]
            )
            while fake.under_way < 4:
                await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(use())


def test_one_blocking_client_serves_many_threads(fake: Any) -> None:
    with Client("http://closeby.test", transport=httpx.MockTransport(fake.answer)) as db:
        c = db.create_collection("c", **SETS)  # type: ignore[arg-type]
        threads = [
            threading.Thread(
                target=c.upsert,
                kwargs={"ids": range(n * 100, n * 100 + 100), "texts": ["x"] * 100},
            )
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert c.info().count == 800


def test_without_orjson_the_same_bytes_mean_the_same(
    faces: Any, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("closeby.client.wire._orjson_dumps", None)
    monkeypatch.setattr("closeby.client.wire._loads", json.loads)
    c = collection(faces, fake)
    faces.run(c.upsert(ids=[1], texts=["ü\u2028"], payloads=[{"n": None}]))
    assert faces.run(c.get(ids=[1]))[0].text == "ü\u2028"
