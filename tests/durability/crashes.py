"""A server that is killed at random moments under load, and what must be left of its writes.

Clients write into one collection, each with ids of its own, so that each knows what the server
must hold: for every id the last acknowledged state, or that of the one request which had no answer
when the server died. After each kill the server is started again on the same directory and all
points are compared, by `points:get` and by queries for some of them.

With workers, which build the segments that the server orders, each of them is killed as well: one
in the midst of the load, the others with the server or not before the next one has taken over.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

COLLECTION = "points"
CLIENTS = 4
IDS = 300
"""Ids of each client."""
State = list[int] | None
"""The set of a point; None: there is none."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def fork_server(
    data_dir: Path, port: int, log: Path, prepare: Callable[[], None] | None = None
) -> int:
    """Start a server in a process of its own and give its id. `prepare` is called there first.

    Forked, not executed, so that a thousand starts do not import everything a thousand times; to
    be called where no other thread runs. It is the server of the command line in all else.
    """

    def run() -> None:
        from closeby.service.cli import serve

        if prepare is not None:
            prepare()
        serve(
            host="127.0.0.1",
            port=port,
            data_dir=data_dir,
            api_key_file=None,
            config=None,
            log_level="warning",
            log_format="json",
        )

    return _forked(run, log)


def fork_worker(data_dir: Path, log: Path) -> int:
    """Start a worker of the server of that directory, as `fork_server` does."""

    def run() -> None:
        from closeby.service.cli import worker

        worker(
            data_dir=data_dir, config=None, log_level="debug", log_format="json", with_parent=False
        )

    return _forked(run, log)


def _forked(run: Callable[[], None], log: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        os.environ["CLOSEBY_SEGMENT_POINTS"] = "64"
        run()
        code = 0
    finally:
        os._exit(code)


def end(pid: int) -> None:
    """Kill a process of ours, if it lives."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


@dataclass
class Client:
    """One writer: what it knows to be stored, and what it does not know of its last request."""

    number: int
    seed: int
    known: dict[int, State] = field(default_factory=dict)
    doubtful: dict[int, State] = field(default_factory=dict)
    acknowledged: int = 0
    faults: list[str] = field(default_factory=list)

    def run(self, url: str, stop: threading.Event) -> None:
        """Write until the server is gone or `stop` is set."""
        draw = random.Random(self.seed)
        with httpx.Client(base_url=url, timeout=20) as http:
            while not stop.is_set():
                change = self._draw(draw)
                self.doubtful = change
                try:
                    answers = self._send(http, change)
                except httpx.HTTPError:
                    return  # no answer: the change may have been done or not
                for answer in answers:
                    if answer.status_code not in (429, 503):
                        if answer.status_code != 200:
                            self.faults.append(f"{answer.status_code} {answer.text[:300]}")
                        continue
                    # Refused: nothing was stored.
                    break
                else:
                    self.known.update(change)
                    self.acknowledged += 1
                    self.doubtful = {}
                    self._check_one(http, draw, change)
                    continue
                self.doubtful = {}
                time.sleep(0.05)

    def _draw(self, draw: random.Random) -> dict[int, State]:
        ids = draw.sample(range(IDS), draw.choice([1, 1, 5, 40]))
        if draw.random() < 0.2:
            return {self._id(i): None for i in ids}
        base = draw.randrange(1 << 40)
        return {
            self._id(i): [base, *(base + 1 + draw.randrange(99) for _ in range(7))] for i in ids
        }

    def _id(self, i: int) -> int:
        return self.number * 10_000 + i

    def _send(self, http: httpx.Client, change: dict[int, State]) -> list[httpx.Response]:
        path = f"/v1/collections/{COLLECTION}/points"
        sets = [state for state in change.values() if state is not None]
        if not sets:
            return [http.post(f"{path}:delete", json={"ids": [*change]})]
        return [http.post(f"{path}:upsert", json={"ids": [*change], "sets": sets})]

    def _check_one(self, http: httpx.Client, draw: random.Random, change: dict[int, State]) -> None:
        """What was acknowledged just now is found at once, or is gone at once."""
        point, state = draw.choice([*change.items()])
        with contextlib.suppress(httpx.HTTPError):
            if state is not None:
                hits = query(http, state)
                if point not in hits:
                    self.faults.append(f"point {point} is not found after it was acknowledged")
            else:
                body = http.post(
                    f"/v1/collections/{COLLECTION}/points:get", json={"ids": [point]}
                ).json()
                if body.get("points"):
                    self.faults.append(f"point {point} is there after it was deleted")

    def check(self, http: httpx.Client, draw: random.Random) -> list[str]:
        """Compare everything with the server; settle what was doubtful."""
        ids = [self._id(i) for i in range(IDS)]
        answer = http.post(f"/v1/collections/{COLLECTION}/points:get", json={"ids": ids})
        answer.raise_for_status()
        stored = {point["id"]: point["set"] for point in answer.json()["points"]}
        faults, self.faults = self.faults, []
        # One request is one transaction: all of it or nothing.
        outcomes = set()
        for point in ids:
            found = stored.get(point)
            known = _plain(self.known.get(point))
            if point in self.doubtful and _plain(self.doubtful[point]) != known:
                if found == _plain(self.doubtful[point]):
                    outcomes.add("done")
                elif found == known:
                    outcomes.add("not done")
                else:
                    faults.append(f"point {point}: {found}, neither {known} nor the last change")
            elif found != known:
                faults.append(f"point {point}: {found} instead of {known}")
            self.known[point] = found
        if len(outcomes) > 1:
            faults.append(f"a request was done in part: {self.doubtful}")
        self.doubtful = {}
        alive = [point for point in ids if self.known[point] is not None]
        for point in draw.sample(alive, min(10, len(alive))):
            if point not in query(http, self.known[point] or []):
                faults.append(f"point {point} is stored but not found")
        return faults


def query(http: httpx.Client, elements: list[int]) -> list[int]:
    """Ids of the points that equal `elements`."""
    body = {"set": elements, "limit": 50, "threshold": 0.999}
    answer = http.post(f"/v1/collections/{COLLECTION}/query", json=body)
    if answer.status_code == 503:
        raise httpx.TransportError("not now")
    answer.raise_for_status()
    return [hit["id"] for hit in answer.json()["hits"]]


def _plain(state: State) -> State:
    return None if state is None else sorted(set(state))


@dataclass
class Outcome:
    """What came of a run of kills."""

    kills: int = 0
    acknowledged: int = 0
    faults: list[str] = field(default_factory=list)
    ready_seconds: list[float] = field(default_factory=list)
    worker_kills: int = 0
    built: int = 0
    """Segments that workers have built."""


def kill_many(
    folder: Path,
    kills: int,
    seed: int,
    *,
    longest: float = 1.0,
    deadline: float | None = None,
    workers: int = 0,
) -> Outcome:
    """Start, load and kill a server so many times; stops early at `deadline` or at a fault."""
    draw = random.Random(seed)
    outcome = Outcome()
    clients = [Client(n, 0) for n in range(CLIENTS)]
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log, worker_log = folder / "server.log", folder / "worker.log"
    crew: list[int] = []
    # One more start than kills: what the last one left is compared too.
    for turn in range(kills + 1):
        last = turn == kills or (deadline is not None and time.monotonic() > deadline)
        start = time.monotonic()
        pid = fork_server(folder / "data", port, log)
        try:
            with httpx.Client(base_url=url, timeout=60) as http:
                await_ready(http, pid, start + 60, log)
                outcome.ready_seconds.append(time.monotonic() - start)
                if turn == 0:
                    body = {"features": {"kind": "ids"}, "metric": "jaccard", "index": "flinng"}
                    http.put(f"/v1/collections/{COLLECTION}", json=body).raise_for_status()
                for client in clients:
                    try:
                        outcome.faults += client.check(http, draw)
                    except httpx.HTTPStatusError as error:
                        told = f"{error.response.text}\n{log.read_text()[-6000:]}"
                        outcome.faults.append(f"{error.request.url}: {told}")
            if not last and not outcome.faults:
                # Before there are other threads.
                crew += [
                    fork_worker(folder / "data", worker_log) for _ in range(workers - len(crew))
                ]
                first, rest = crew[:1], crew[1:]
                _load(clients, url, pid, draw.uniform(0.01, longest), draw, first)
                survivors = rest if draw.random() < 0.5 else []
                for worker in set(crew) - set(survivors):
                    end(worker)
                outcome.worker_kills += len(crew) - len(survivors)
                crew = survivors
                outcome.kills += 1
        finally:
            end(pid)
        for client in clients:
            outcome.faults += client.faults
        if outcome.faults or last:
            break
    for worker in crew:
        end(worker)
    if workers:
        lines = worker_log.read_text().splitlines()
        outcome.built = sum('"job_finished"' in line and '"done"' in line for line in lines)
    outcome.acknowledged = sum(client.acknowledged for client in clients)
    return outcome


def _load(
    clients: list[Client],
    url: str,
    pid: int,
    seconds: float,
    draw: random.Random,
    workers: list[int],
) -> None:
    stop = threading.Event()
    threads = []
    for client in clients:
        client.seed = draw.randrange(1 << 60)
        threads.append(threading.Thread(target=client.run, args=(url, stop)))
    for thread in threads:
        thread.start()
    early = draw.uniform(0, seconds)
    time.sleep(early)
    for worker in workers:
        end(worker)
    time.sleep(seconds - early)
    os.kill(pid, signal.SIGKILL)
    stop.set()
    for thread in threads:
        thread.join()


def await_ready(http: httpx.Client, pid: int, deadline: float, log: Path) -> None:
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if http.get("/readyz").status_code == 200:
                return
        died, _ = os.waitpid(pid, os.WNOHANG)
        assert not died, f"the server died at its start:\n{log.read_text()[-4000:]}"
        time.sleep(0.01)
    raise AssertionError(f"the server did not become ready:\n{log.read_text()[-4000:]}")
