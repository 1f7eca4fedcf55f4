"""Clients in processes of their own: they post bodies that were made before."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import multiprocessing
import time
from multiprocessing.synchronize import Barrier, Event
from urllib.parse import urlsplit

import orjson

from .server import bodies, small_sets

JSON = {"Content-Type": "application/json"}
UPSERT = "/v1/collections/points/points:upsert"
OWN_IDS = 100_000_000
"""Ids of one client."""
ENDLESS_SETS = 20_000
"""Different sets of a client that stores without end, in whole batches."""


def post(url: str, path: str, texts: list[bytes]) -> None:
    """Post one body after the other over one connection; 429 is waited for."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=120)
    for text in texts:
        while True:
            connection.request("POST", path, text, JSON)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status == 200:
                break
            if answer.status not in (429, 503):
                raise RuntimeError(content.decode())
            time.sleep(0.2)
    connection.close()


def _client(url: str, number: int, points: int, batch: int, ready: Barrier) -> None:
    texts = bodies(number * OWN_IDS, small_sets(points, number), batch)
    ready.wait()
    post(url, UPSERT, texts)


def _endless_client(
    url: str, number: int, batch: int, ready: Barrier, stop: Event, replacing: bool
) -> None:
    """Store sets until told to stop; `replacing` the same points again and again, or new ones."""
    sets = small_sets(ENDLESS_SETS, number)
    parts = [orjson.dumps(sets[i : i + batch]) for i in range(0, len(sets), batch)]
    ready.wait()
    with contextlib.suppress(OSError, http.client.HTTPException):  # until the server is killed
        for turn in itertools.count():
            if stop.is_set():
                break
            first = number * OWN_IDS + (turn % len(parts) if replacing else turn) * batch
            ids = orjson.dumps(list(range(first, first + batch)))
            post(url, UPSERT, [b'{"ids":%b,"sets":%b}' % (ids, parts[turn % len(parts)])])


def ingest(url: str, clients: int, points: int, batch: int) -> float:
    """Let clients store so many points each; points a second over all."""
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(clients + 1)
    workers = [
        context.Process(target=_client, args=(url, n, points, batch, ready))
        for n in range(1, clients + 1)
    ]
    for worker in workers:
        worker.start()
    ready.wait()
    start = time.perf_counter()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - start
    if any(worker.exitcode for worker in workers):
        raise RuntimeError("a client failed")
    return clients * points / seconds


class Pressure:
    """Clients that store points without end, until the context is left.

    `first` is the number of the first client: each number has ids of its own.
    """

    def __init__(
        self, url: str, clients: int, batch: int, first: int = 50, *, replacing: bool = True
    ) -> None:
        context = multiprocessing.get_context("fork")
        self._stop = context.Event()
        ready = context.Barrier(clients + 1)
        self._workers = [
            context.Process(
                target=_endless_client, args=(url, n, batch, ready, self._stop, replacing)
            )
            for n in range(first, first + clients)
        ]
        for worker in self._workers:
            worker.start()
        ready.wait()

    def __enter__(self) -> Pressure:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for worker in self._workers:
            worker.join()
