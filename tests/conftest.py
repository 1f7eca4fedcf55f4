"""What tests of several rooms share: a real server in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

START_SECONDS = 60


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
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One real server for the whole session: tests take collections of names of their own."""
    with running_server(tmp_path_factory.mktemp("server") / "data") as running:
        yield running
