"""Parts of the service for tests: a store, shards, and whole servers with settings of one's own."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from closeby.service.deployment import Deployment
from closeby.service.front import guarded
from closeby.service.serving import open_front
from closeby.service.settings import Settings
from closeby.service.store import Store

SHINGLES = {"kind": "shingles", "unit": "byte", "n": 4}


def configuration(features: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A normalised collection configuration with an exact index."""
    metric = "cosine" if features["kind"] == "vector" else "jaccard"
    base = {"metric": metric, "features": features, "index": "flat"}
    return base | {"target_recall": 0.95, "threshold": 0.5, "seed": 0} | changes


@contextmanager
def serving(settings: Settings, deployment: Deployment | None = None) -> Iterator[httpx.Client]:
    """A server in a thread of this process, and a client of it."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        guarded(open_front(settings, deployment or Deployment(settings))),
        lifespan="on",
        log_config=None,
        ws="none",
        access_log=False,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(
        target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True
    )
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        assert time.monotonic() < deadline, "the server did not start in time"
        time.sleep(0.01)
    host, port = listener.getsockname()[:2]
    try:
        with httpx.Client(base_url=f"http://{host}:{port}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
        assert not thread.is_alive(), "the server did not stop"


@pytest.fixture(scope="session", name="serving")
def serving_fixture() -> Callable[..., Any]:
    return serving


@pytest.fixture
def serve() -> Callable[..., Any]:
    return serving


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server for the tests of one module, with small bounds that are quick to pass."""
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("data"),
        max_body_bytes=200_000,
        max_points=50,
        max_queries=20,
        max_set_elements=1000,
    )
    with serving(settings) as client:
        yield client


@pytest.fixture
def config() -> Callable[..., dict[str, Any]]:
    return configuration


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.cluster)])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Store]:
    """Opens the store of this test, each time the same one."""
    if request.param == "sqlite":
        return partial(Store, f"sqlite:///{tmp_path}/store.sqlite3")
    return partial(Store, request.getfixturevalue("new_database")())


@pytest.fixture
def store(open_store: Callable[..., Store]) -> Iterator[Store]:
    opened = open_store()
    yield opened
    opened.close()
