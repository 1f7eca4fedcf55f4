"""A `closeby serve` of one's own: started, waited for, and always stopped again."""

from __future__ import annotations

import ctypes
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx
from closeby.service.settings import environment_without_settings

START_SECONDS = 60.0
STOP_SECONDS = 30.0
_POLL_SECONDS = 0.1
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class DemoServerError(RuntimeError):
    """The server did not start; the message has the end of its log."""


@contextmanager
def running_server(directory: Path) -> Iterator[str]:
    """The URL of a server on a free loopback port, with its data and log in `directory`.

    It is stopped when the block ends, however it ends. Raises DemoServerError if it does not start.
    """
    log_path = directory / "server.log"
    command = [sys.executable, "-m", "closeby.service", "serve", "--host", "127.0.0.1"]
    command += ["--port", "0", "--data-dir", str(directory / "data"), "--log-level", "warning"]
    # The settings of a server that the user may have configured are not meant for this one.
    environment = environment_without_settings()
    with log_path.open("wb") as log:
        server = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            preexec_fn=_end_with_parent,
        )
    try:
        yield _wait_until_ready(server, log_path)
    finally:
        _stop(server)


def _end_with_parent() -> None:
    """In the new process, on Linux: take SIGTERM when the demo dies without a chance to stop it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_until_ready(server: subprocess.Popen[bytes], log_path: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    url = _listening_url(server, deadline)
    with httpx.Client(trust_env=False) as http:
        while url is not None and server.poll() is None and time.monotonic() < deadline:
            try:
                if http.get(f"{url}/readyz").status_code == httpx.codes.OK:
                    return url
            except httpx.TransportError:
                pass  # not yet
            time.sleep(_POLL_SECONDS)
    tail = log_path.read_text("utf-8", "replace")[-2000:]
    raise DemoServerError(f"closeby serve did not start. Its log ends with:\n{tail}")


def _listening_url(server: subprocess.Popen[bytes], deadline: float) -> str | None:
    """The URL in the first line that the server prints; None if it ends or takes too long."""
    stdout: IO[bytes] | None = server.stdout
    while stdout is not None and time.monotonic() < deadline:
        if select.select([stdout], [], [], _POLL_SECONDS)[0]:
            words = stdout.readline().decode().split()
            return words[-1] if words and words[-1].startswith("http://") else None
    return None


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    if server.stdout is not None:
        server.stdout.close()
