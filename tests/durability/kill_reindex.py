"""A server that is killed at one moment of a change of engine, and what the next start has.

    python kill_reindex.py FOLDER      {moment: what was wrong}, as JSON

The moments are found in the server's own code, so that each is hit exactly; the server is a real
process and ends by SIGKILL. It is written to while the engine changes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Imported before the servers are forked, which then start at once.
import closeby.service.app
import closeby.service.server  # noqa: F401
import httpx
from crashes import COLLECTION, await_ready, fork_server, free_port, query

POINTS = 400
URL = f"/v1/collections/{COLLECTION}"


def die(*_args: Any, **_named: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str) -> None:
    setattr(owner, name, die)


def after(owner: Any, name: str) -> None:
    wrapped = getattr(owner, name)

    def run(*args: Any, **named: Any) -> None:
        wrapped(*args, **named)
        die()

    setattr(owner, name, run)


def begun() -> None:
    from closeby.service import reindexing

    before(reindexing, "_change")


def building() -> None:
    """With two of four parts of the points in the new engine."""
    from closeby.service import shard
    from closeby.service.contents import Contents

    shard.REPLAY_CHUNK = POINTS // 4  # type: ignore[misc]
    reindex = shard.Shard.reindex

    def run(*args: Any, **named: Any) -> None:
        parts, apply = [], Contents.apply_rows

        def count(self: Contents, rows: Any) -> None:
            apply(self, rows)
            parts.append(len(rows))
            if len(parts) == 2:
                die()

        Contents.apply_rows = count  # type: ignore[method-assign]
        reindex(*args, **named)

    shard.Shard.reindex = run  # type: ignore[method-assign]


def built() -> None:
    from closeby.service.store import Store

    before(Store, "change_config")


def stored() -> None:
    from closeby.service.store import Store

    after(Store, "change_config")


def switched() -> None:
    from closeby.service.shard import Shard

    after(Shard, "reindex")


def removed() -> None:
    from closeby.service.registry import Registry

    after(Registry, "reindex")


MOMENTS: dict[str, Callable[[], None]] = {
    moment.__name__: moment for moment in (begun, building, built, stored, switched, removed)
}


def elements(point: int) -> list[int]:
    return [point, point + 1, (1 << 40) + point, (1 << 41) + point]


def put(http: httpx.Client, points: list[int]) -> None:
    body = {"ids": points, "sets": [elements(point) for point in points]}
    http.post(f"{URL}/points:upsert", json=body).raise_for_status()


def scenario(folder: Path, prepare: Callable[[], None]) -> list[str]:
    """What is wrong after the server was killed at a moment, empty if all is well."""
    port, log, data = free_port(), folder / "server.log", folder / "data"
    acknowledged = [*range(POINTS)]
    faults: list[str] = []
    pid = fork_server(data, port, log, prepare)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        try:
            await_ready(http, pid, time.monotonic() + 60, log)
            body = {"features": {"kind": "ids"}, "metric": "jaccard", "index": "flinng"}
            http.put(URL, json=body).raise_for_status()
            put(http, acknowledged)
            answer = http.post(f"{URL}:reindex", json={"index": "lsh"})
            job = answer.headers["Location"]
            with contextlib.suppress(httpx.TransportError):
                until = time.monotonic() + 30
                while time.monotonic() < until:
                    put(http, [len(acknowledged)])
                    acknowledged.append(len(acknowledged))
                faults.append("the moment did not come")
        finally:
            end(pid)
    # What the first start leaves when it is killed too is looked at once.
    for turn in ("first start", "second start")[: 2 if prepare is switched else 1]:
        pid = fork_server(data, port, log)
        # Connections are kept alive, so each server has a client of its own.
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            try:
                await_ready(http, pid, time.monotonic() + 60, log)
                faults += [f"{turn}: {fault}" for fault in wrong(http, acknowledged)]
                state = await_end(http, job)
                if state != "done":
                    faults.append(f"{turn}: the job is {state}")
                faults += [f"{turn}, later: {fault}" for fault in wrong(http, acknowledged)]
                info = http.get(URL).json()
                if {info["index"], info["index_stats"]["engine"]} != {"lsh"}:
                    faults.append(f"{turn}: {info}")
                faults += [f"{turn}: {fault}" for fault in left_over(data)]
            finally:
                end(pid)
    return faults


def wrong(http: httpx.Client, acknowledged: list[int]) -> list[str]:
    """Points that are not there, or not found."""
    engine = http.get(URL).json()["index_stats"]["engine"]
    faults = [] if engine in ("flinng", "lsh") else [f"engine {engine}"]
    found = http.post(f"{URL}/points:get", json={"ids": acknowledged}).json()
    if found["missing"]:
        faults.append(f"missing {found['missing']}")
    lost = [point for point in acknowledged[::7] if point not in query(http, elements(point))]
    return [*faults, f"not found {lost}"] if lost else faults


def left_over(data: Path) -> list[str]:
    """Folders too many. A seal that was in progress takes its own away when it ends."""
    until = time.monotonic() + 10
    while True:
        shards = [path.name for path in (data / "shards").iterdir()]
        jobs = [path.name for path in (data / "jobs").glob("*")]
        if len(shards) == 1 and not jobs:
            return []
        if time.monotonic() > until:
            return [f"folders {shards}, {jobs}"]
        time.sleep(0.02)


def await_end(http: httpx.Client, job: str) -> str:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        state: str = http.get(job).json()["state"]
        if state in ("done", "failed", "cancelled"):
            return state
        time.sleep(0.02)
    return "not at its end"


def end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


if __name__ == "__main__":
    outcome = {}
    for name, hook in MOMENTS.items():
        own = Path(sys.argv[1]) / name
        own.mkdir(parents=True)
        try:
            outcome[name] = scenario(own, hook)
        except (AssertionError, httpx.HTTPError) as error:
            outcome[name] = [repr(error), (own / "server.log").read_text()[-2000:]]
    json.dump(outcome, sys.stdout)
