"""A server in a process of its own, as a user starts it, and the sets that it is fed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson


@dataclass(frozen=True)
class Server:
    """A running server; `listening` and `ready` are seconds from its exec, `cpu` up to then.

    `loaded` is what it says of its collections: seconds for mapping and for the replay.
    """

    url: str
    process: subprocess.Popen[str]
    listening: float
    ready: float
    cpu: float
    loaded: list[dict[str, Any]]


@contextlib.contextmanager
def serving(data_dir: Path, **settings: Any) -> Iterator[Server]:
    """Start ``closeby serve`` and wait until it is ready; stopped by SIGTERM at the end."""
    environment = os.environ | {f"CLOSEBY_{k.upper()}": str(v) for k, v in settings.items()}
    command = [sys.executable, "-m", "closeby.service", "serve", "--port", "0"]
    command += ["--data-dir", str(data_dir), "--log-level", "info"]
    log = tempfile.NamedTemporaryFile("w")  # noqa: SIM115 - closed at the end
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        found = re.search(r"https?://\S+", process.stdout.readline())
        assert found, "the server did not start"
        listening = time.perf_counter() - start
        with httpx.Client(base_url=found[0], timeout=60) as http:
            while http.get("/readyz").status_code != 200:
                time.sleep(0.005)
        ready = time.perf_counter() - start
        times = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        cpu = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
        lines = Path(log.name).read_text().splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        loaded = [event for event in events if event["event"] == "loaded"]
        yield Server(found[0], process, listening, ready, cpu, loaded)
    finally:
        process.terminate()
        process.wait(120)
        assert process.stdout is not None
        process.stdout.close()
        log.close()


def small_sets(count: int, seed: int, size: int = 50, near: float = 0.2) -> list[list[int]]:
    """Sets of `size` elements of 32 bits; a share `near` of them are nearly equal to another."""
    rng = np.random.default_rng(seed)
    sets = rng.integers(0, 1 << 32, (count, size), np.uint64)
    copies = rng.random(count) < near
    sets[copies] = sets[rng.integers(0, count, int(copies.sum()))]
    sets[copies, :5] = rng.integers(0, 1 << 32, (int(copies.sum()), 5), np.uint64)
    return [list(map(int, row)) for row in sets]


def bodies(first: int, sets: list[list[int]], batch: int) -> list[bytes]:
    """Upsert bodies, made before the clock starts: clients should not be measured."""
    return [
        orjson.dumps({"ids": list(range(first + i, first + i + len(part))), "sets": part})
        for i in range(0, len(sets), batch)
        if (part := sets[i : i + batch])
    ]
