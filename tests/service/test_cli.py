"""The `closeby` command, in processes of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

COMMAND = [sys.executable, "-m", "closeby.service"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    # No colours and a wide terminal, so that the text can be searched.
    environment = os.environ | {"COLUMNS": "120", "NO_COLOR": "1", "TERM": "dumb"}
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=60, env=environment
    )


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [*COMMAND, "serve", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    too_late = threading.Timer(60, process.kill)
    too_late.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("closeby listens on http://"), line
        yield process, line.split()[-1]
    finally:
        too_late.cancel()
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_serve_prints_one_line_and_stops_cleanly_on_sigterm(tmp_path: Path) -> None:
    with started("--port", "0", "--data-dir", str(tmp_path / "new" / "data")) as (process, url):
        httpx.put(url + "/v1/collections/a", json={"features": {"kind": "ids"}})
        body = {"ids": [1], "sets": [[1]]}
        assert httpx.post(url + "/v1/collections/a/points:upsert", json=body).status_code == 200
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
        assert process.returncode == 0
        assert out == ""
    assert not (tmp_path / "new/data/store.sqlite3-wal").exists(), "the store was not closed"


def test_acknowledged_points_survive_sigkill(tmp_path: Path) -> None:
    arguments = ("--port", "0", "--data-dir", str(tmp_path))
    body = {"ids": list(range(100)), "sets": [[i, 7] for i in range(100)]}
    with started(*arguments) as (process, url):
        httpx.put(url + "/v1/collections/a", json={"features": {"kind": "ids"}})
        assert httpx.post(url + "/v1/collections/a/points:upsert", json=body).status_code == 200
        process.kill()
        process.wait(30)
    with started(*arguments) as (_, url):
        for _ in range(300):
            if httpx.get(url + "/readyz").status_code == 200:
                break
            threading.Event().wait(0.02)
        got = httpx.post(url + "/v1/collections/a/points:get", json={"ids": body["ids"]}).json()
        assert len(got["points"]) == 100


def test_a_second_server_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    with started("--port", "0", "--data-dir", str(tmp_path)) as (process, url):
        second = run("serve", "--port", "0", "--data-dir", str(tmp_path))
        assert second.returncode == 1
        assert second.stdout == ""
        assert second.stderr.count("\n") == 1
        assert f"in use by another closeby server (process {process.pid})" in second.stderr
        assert httpx.get(url + "/healthz").status_code == 200


def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run("serve", "--port", port, "--data-dir", str(tmp_path))
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert f"port {port}: Address already in use" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--data-dir", "/proc/closeby"), "data directory /proc/closeby: "),
        (("--data-dir", "/dev/null"), "data directory /dev/null: "),
        (("--host", "no.such.host.invalid"), "cannot listen on no.such.host.invalid"),
        (("--port", "70000"), "port: "),
        (("--log-level", "loud"), "log_level: "),
        (("--config", "/no/such/file.toml"), "/no/such/file.toml: No such file"),
        (("--api-key-file", "/no/such/key"), "api_key_file /no/such/key: No such file"),
    ],
)
def test_what_cannot_start_says_why_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    defaults = () if "--data-dir" in arguments else ("--data-dir", str(tmp_path))
    port = () if "--port" in arguments else ("--port", "0")
    result = run("serve", *port, *defaults, *arguments)
    assert result.returncode == 1, result.stderr
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    assert said in result.stderr


def test_version_and_help() -> None:
    assert run("version").stdout.strip()
    for arguments in ((), ("serve",), ("demo",), ("version",)):
        result = run(*arguments, "--help")
        assert result.returncode == 0
        assert "closeby " + " ".join(arguments) in result.stdout
    assert "CLOSEBY_" in run("serve", "--help").stdout
