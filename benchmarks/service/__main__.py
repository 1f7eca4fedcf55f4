"""``python -m benchmarks.service restart | ingest | imports | queries | peers | store``."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson

from benchmarks import machine

from . import imports, stores
from .load import Pressure, ingest
from .server import Server, serving, small_sets

RESULTS = Path(__file__).resolve().parents[1] / "results"
COLLECTION = {"metric": "jaccard", "features": {"kind": "ids"}, "index": "flinng"}


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service", description=__doc__)
    parser.add_argument("what", choices=sorted(_MEASURES))
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--batch", type=int, default=1000, help="points a request")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer-points", type=int, default=20_000)
    parser.add_argument("--peers-python", type=Path, help="Python that has the peers")
    parser.add_argument("--file", type=Path, help="imports: texts, one a line; default: URLs")
    parser.add_argument("--datasets", nargs="+", default=["urls", "genes"], help="store")
    parser.add_argument("--data", type=Path, help="store: where further data sets lie")
    parser.add_argument("--queries", type=int, default=1000, help="store: of each data set")
    parser.add_argument("--folder", type=Path, help="work here; kept for the next run")
    parser.add_argument("--lock", type=Path, help="file to lock while measuring")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(_locked(options.lock))
        result = {"machine": machine.describe()} | _MEASURES[options.what](folder, options)
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"service-{options.what}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    if options.what == "imports":
        imports.publish(result, path.with_suffix(""))
    if options.what == "store":
        stores.publish(result, path.with_suffix(""))
    print(json.dumps({k: v for k, v in result.items() if k != "machine"}, indent=1))
    return 0


@contextlib.contextmanager
def _locked(path: Path | None) -> Iterator[None]:
    if path is None:
        yield
        return
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _create(url: str) -> None:
    with httpx.Client(base_url=url, timeout=60) as http:
        http.put("/v1/collections/points", json=COLLECTION).raise_for_status()


def _count(url: str) -> int:
    with httpx.Client(base_url=url, timeout=60) as http:
        count: int = http.get("/v1/collections/points").json()["count"]
        return count


def _ingest(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Durable ingest over HTTP: every request is answered when it is on disk."""
    rates, singles = [], []
    each = options.points // options.clients
    for repeat in range(options.repeats):
        with serving(folder / f"ingest-{repeat}") as server:
            _create(server.url)
            rates.append(ingest(server.url, options.clients, each, options.batch))
            assert _count(server.url) == each * options.clients
            singles.append(ingest(server.url, 16, 100, 1))
    return {
        "points": options.points,
        "clients": options.clients,
        "points_a_request": options.batch,
        "points_a_second": [round(rate) for rate in rates],
        "median": round(statistics.median(rates)),
        "one_at_a_time_16_clients": round(statistics.median(singles)),
    }


def _restart(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds until ready, from exec: after SIGTERM, and after kill -9 in the midst of ingest."""
    data = folder / "restart"
    empty, clean, killed = _Starts(), _Starts(), _Starts()
    for repeat in range(options.repeats):
        with serving(folder / f"empty-{repeat}") as server:
            empty.note(server)
    if not data.exists():
        with serving(data) as server:
            _create(server.url)
            ingest(server.url, options.clients, options.points // options.clients, options.batch)
    with serving(data) as server:
        _merge(server.url)
    found = 0
    for _ in range(options.repeats):
        with serving(data) as server:
            clean.note(server)
            found = _count(server.url)
    for _ in range(options.repeats):
        with serving(data) as server, Pressure(server.url, 2, options.batch) as pressure:
            time.sleep(6)
            server.process.kill()
            pressure.__exit__()
        with serving(data) as server:
            killed.note(server)
    return {
        "points": found,
        "imports_cpu_seconds": _imports(options.repeats),
        "empty_server": empty.shown(),
        "after_a_clean_stop": clean.shown(),
        "after_kill_during_ingest": killed.shown(),
        "beyond_an_empty_server": {
            "clean": round(clean.median() - empty.median(), 3),
            "killed": round(killed.median() - empty.median(), 3),
        },
    }


def _merge(url: str, still: float = 10.0, longest: float = 300.0) -> None:
    """Wait until the number of sealed segments has not changed for `still` seconds."""
    last, since, end = -1, time.monotonic(), time.monotonic() + longest
    while time.monotonic() < min(since + still, end):
        found = httpx.get(f"{url}/v1/collections/points", timeout=60).json()
        now = found["index_stats"]["sealed_segments"]
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.5)


class _Starts:
    """Some starts of a server, and what they were spent on."""

    def __init__(self) -> None:
        self.servers: list[Server] = []

    def note(self, server: Server) -> None:
        self.servers.append(server)

    def median(self) -> float:
        return statistics.median(server.ready for server in self.servers)

    def shown(self) -> dict[str, Any]:
        found = _rounded([server.ready for server in self.servers])
        found["cpu"] = statistics.median(server.cpu for server in self.servers)
        loaded = [event for server in self.servers for event in server.loaded]
        for part in ("map_seconds", "replay_seconds", "replayed") if loaded else ():
            found[part] = statistics.median(event[part] for event in loaded)
        return found


def _imports(repeats: int) -> float:
    """Seconds of CPU that a process takes to import what a server needs to be ready."""
    modules = "closeby.service.cli, closeby.service.server, closeby.service.serving"
    code = f"import {modules}, time; print(time.process_time())"
    command = [sys.executable, "-c", code]
    done = [subprocess.run(command, capture_output=True, check=True) for _ in range(repeats)]
    return round(statistics.median(float(each.stdout) for each in done), 3)


def _queries(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Latency of single queries on a quiet server and beside full ingest."""
    with serving(folder / "queries") as server:
        if httpx.get(f"{server.url}/v1/collections/points").status_code == 404:
            _create(server.url)
            ingest(server.url, options.clients, options.points // options.clients, options.batch)
            time.sleep(10)
        asked = [
            orjson.dumps({"set": row, "limit": 10, "with_payload": False})
            for row in small_sets(2000, 1)
        ]
        _latencies(server.url, asked[:200])
        idle = _median([_latencies(server.url, asked) for _ in range(options.repeats)])
        first = int(time.time()) % 100_000 * 10  # another run's ids are old points here
        found: dict[str, Any] = {"points": _count(server.url), "idle_ms": idle}
        for name, replacing in (("new", False), ("replaced", True)):
            before = _count(server.url)
            with Pressure(server.url, 2, options.batch, first, replacing=replacing):
                time.sleep(3)
                start = time.perf_counter()
                counted = _count(server.url)
                busy = _median([_latencies(server.url, asked) for _ in range(options.repeats)])
                stored = (_count(server.url) - counted) / (time.perf_counter() - start)
            first += 2
            found[f"beside_{name}_points_ms"] = busy
            found[f"p99_ratio_{name}"] = round(busy["p99"] / idle["p99"], 2)
            if not replacing:
                found["new_points_per_second"] = round(stored)
            assert _count(server.url) > before
    return found


def _median(parts: list[tuple[float, float]]) -> dict[str, float]:
    """Medians of percentiles over repeats."""
    p50, p99 = (statistics.median(part[i] for part in parts) for i in (0, 1))
    return {"p50": p50, "p99": p99}


def _latencies(url: str, asked: list[bytes]) -> tuple[float, float]:
    headers = {"content-type": "application/json"}
    seconds = []
    with httpx.Client(base_url=url, timeout=60) as http:
        for body in asked:
            start = time.perf_counter()
            answer = http.post("/v1/collections/points/query", content=body, headers=headers)
            seconds.append(time.perf_counter() - start)
            answer.raise_for_status()
    p50, p99 = np.percentile(np.array(seconds) * 1e3, [50, 99])
    return round(float(p50), 3), round(float(p99), 3)


def _rounded(seconds: list[float]) -> dict[str, Any]:
    return {
        "seconds": [round(each, 3) for each in seconds],
        "median": round(statistics.median(seconds), 3),
    }


def _peers(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    from . import peers

    return peers.measure(folder, options)


_MEASURES = {
    "imports": imports.measure,
    "ingest": _ingest,
    "peers": _peers,
    "queries": _queries,
    "restart": _restart,
    "store": stores.measure,
}

if __name__ == "__main__":
    sys.exit(main())
