"""Many shards, simulated from what was measured on a few: ``python -m benchmarks fanout``.

A query goes to all shards and is answered when the slowest has answered, so its tail is that of the
largest of many draws. Drawn are, from measured distributions (`service-cluster.json`), the way to a
shard and back and the search there. The search is scaled to the points of a shard by the measured
curve of time against points (`scale-streamed.json`; beyond its end by its last slope). Queries come
at random (Poisson) to all shards at once; a shard has some cores, and a query waits there for the
first that is free. Sending and taking an answer costs the ingress its own measured time a shard.

What is not in it: garbage collection of other tenants, networks that lose packets, disks: all files
are in memory. So it is a lower bound of what a real cluster does, and shows how it grows.

Second requests (Dean and Barroso, The Tail at Scale, CACM 56(2), 2013) go to a replica of the
shard after the 95th percentile of a shard's answers; the sooner answer counts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import machine, page

Floats = npt.NDArray[np.float64]
POINTS = 25_000_000
"""Of each shard, where the number of shards is varied."""
SHARDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
HEDGED_AT = 0.95
BEGIN, END = "<!-- simulated: by python -m benchmarks fanout -->", "<!-- end of simulated -->"
NAMES = 8 + 8 + 8 + 4 + 10
"""Bytes a point of the file of its name: seq, start, hash, place, and an id of ten digits."""
MACHINES = ((8, 64, 370), (32, 256, 1_470))
"""Cores, GB of memory and dollars a month: list prices of a large provider, on demand, rounded."""
OBJECTS, DATABASE = 0.023, 0.115
"""Dollars for a GB a month in object storage, and on a managed PostgreSQL's disk."""
USED = 0.8
"""Of a machine's memory; the rest is for what is being merged, and for others."""
PLANS = ((100_000_000, 4), (1_000_000_000, 32), (100_000_000_000, 256))
"""Points of the whole, and shards; there are 256 partitions, so no more shards than that."""


@dataclass(frozen=True)
class Seed:
    """What was measured, in milliseconds: quantiles, evenly spaced but for the last one."""

    transport: Floats
    search: Floats
    searched_points: int
    ingress: float
    """Of the ingress, for each shard that it asks."""
    curve: tuple[tuple[float, float], ...]
    """Points, and time of a query."""
    build: tuple[tuple[float, float], ...]
    """Points, and time of one point's build."""
    index_bytes: float
    feature_bytes: float
    log_bytes: float
    """Of a point in PostgreSQL."""
    stored: float
    """Points a second that a bulk build writes to PostgreSQL."""
    restart: float
    """Seconds until a shard is ready elsewhere, for each point."""

    @classmethod
    def of(cls, folder: Path) -> Seed:
        """From the result files in `folder`. Raises FileNotFoundError, KeyError."""
        cluster = json.loads((folder / "service-cluster.json").read_text())
        scale = json.loads((folder / "scale-streamed.json").read_text())
        rows = [row for row in scale["rows"] if row["name"] == "target_recall 0.95"]
        return cls(
            np.array(cluster["transport_ms"]),
            np.array(cluster["search"]["ms"]),
            int(cluster["search"]["points"]),
            float(cluster["ingress_ms_a_shard"]),
            tuple((float(row["points"]), float(row["us"])) for row in rows),
            tuple((float(row["points"]), float(row["build"])) for row in rows),
            float(rows[-1]["bytes"]),
            rows[-1]["nbytes"]["features"] / rows[-1]["points"],
            float(cluster["log_bytes_a_point"]),
            max(
                row["build"]["points"] / row["build"]["seconds"]["store"]
                for row in cluster["shards"].values()
                if "build" in row
            ),
            _slope(cluster["restart"]),
        )

    def growth(self, points: float) -> float:
        """How much longer a search among so many points takes than the measured one.

        Only the index's part of it grows.
        """
        measured = float(np.median(self.search))
        more = _on(self.curve, points) - _on(self.curve, self.searched_points)
        return 1 + more / 1e3 / measured


def _slope(restarts: list[dict[str, Any]]) -> float:
    """Seconds a point between the smallest and the largest shard."""
    first, last = restarts[0], restarts[-1]
    more = last["from_objects_seconds"] - first["from_objects_seconds"]
    return float(more / (last["points"] - first["points"]))


def _on(curve: tuple[tuple[float, float], ...], points: float) -> float:
    """The value for so many points, by straight lines between logarithms, beyond its ends too."""
    x, y = (np.log([pair[i] for pair in curve]) for i in (0, 1))
    at = math.log(points)
    after = int(np.clip(np.searchsorted(x, at), 1, len(x) - 1))
    slope = (y[after] - y[after - 1]) / (x[after] - x[after - 1])
    return math.exp(y[after - 1] + slope * (at - x[after - 1]))


def main(options: argparse.Namespace) -> int:
    """Simulate, and write ``fanout.json``, ``.md`` and ``.png``."""
    seed = Seed.of(options.results)
    rng = np.random.default_rng(options.seed)
    result: dict[str, Any] = {
        "machine": machine.describe(),
        "queries": options.queries,
        "cores": options.cores,
        "busy": options.busy,
        "points_a_shard": POINTS,
        "searched_points": seed.searched_points,
        "ingress_ms_a_shard": seed.ingress,
        "shards": [simulate(seed, n, POINTS, options, rng) for n in SHARDS],
        "plans": [
            simulate(seed, n, points / n, options, rng) | needs(seed, points, n, options.cores)
            for points, n in PLANS
        ],
    }
    options.output.mkdir(parents=True, exist_ok=True)
    stem = options.output / "fanout"
    stem.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    stem.with_suffix(".md").write_text(markdown(result))
    written = [stem.with_suffix(".json"), stem.with_suffix(".md")]
    if options.page is not None:
        page.put(options.page, BEGIN, END, planned(result))
        written.append(options.page)
    with contextlib.suppress(ImportError):
        written.append(_draw(result, stem.with_suffix(".png")))
    print("wrote", *written, sep="\n  ")
    return 0


def simulate(
    seed: Seed, shards: int, points: float, options: argparse.Namespace, rng: np.random.Generator
) -> dict[str, Any]:
    """Quantiles of a query's time over so many shards of so many points, in milliseconds."""
    growth = seed.growth(points)
    mean = float(np.mean(_draws(seed.search, (100_000,), rng))) * growth
    gaps = rng.exponential(mean / (options.cores * options.busy), options.queries)
    answers, waits = _answers(seed, growth, gaps, shards, options.cores, rng)
    # Those of the first tenth find the shards empty.
    answers, waits = answers[len(gaps) // 10 :], waits[len(gaps) // 10 :]
    delay = float(np.quantile(answers, HEDGED_AT))
    again = _draws(seed.transport, answers.shape, rng)
    again += _draws(seed.search, answers.shape, rng) * growth + rng.permuted(waits, axis=0)
    hedged = np.where(answers > delay, np.minimum(answers, delay + again), answers)
    ingress = seed.ingress * shards
    return {
        "shards": shards,
        "points_a_shard": round(points),
        "search_ms": round(mean, 4),
        "queries_a_second": round(1e3 * options.cores * options.busy / mean),
        "ingress_ms": round(ingress, 3),
        "one_shard": _quantiles(answers.reshape(-1)),
        "all_shards": _quantiles(answers.max(axis=1) + ingress),
        "hedged": _quantiles(hedged.max(axis=1) + ingress),
        "asked_again": round(float((answers > delay).mean()), 4),
    }


def needs(seed: Seed, points: int, shards: int, cores: int) -> dict[str, Any]:
    """Memory, machines, dollars a month and hours to build, of so many points in so many shards."""
    resident = seed.index_bytes + seed.feature_bytes + NAMES
    shard_gb = resident * points / shards / 1e9
    fleets = []
    for machine_cores, gb, price in MACHINES:
        each = min(int(USED * gb / shard_gb), machine_cores // cores)
        if each:
            fleets.append((price * math.ceil(shards / each), math.ceil(shards / each), gb))
    dollars, machines, gb = min(fleets)
    build_us = _on(seed.build, points / shards)
    return {
        "points": points,
        "shard_gb": round(shard_gb, 1),
        "machines": machines,
        "machine_gb": gb,
        "machines_dollars": dollars,
        "object_gb": round(resident * points / 1e9),
        "object_dollars": round(resident * points / 1e9 * OBJECTS),
        "log_gb": round(seed.log_bytes * points / 1e9),
        "log_dollars": round(seed.log_bytes * points / 1e9 * DATABASE),
        "seal_hours": round(build_us * 1e-6 * points / shards / 3600, 2),
        "store_hours": round(points / seed.stored / 3600, 2),
        "restart_seconds": round(seed.restart * points / shards, 1),
    }


def _answers(
    seed: Seed, growth: float, gaps: Floats, shards: int, cores: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """When each shard has answered each query since it came, and how long it waited, (q, shards).

    First come, first served, by whichever core of the shard is free first (M/G/c, with the same
    arrivals for all shards).
    """
    searches = _draws(seed.search, (len(gaps), shards), rng) * growth
    waits = np.empty_like(searches)
    free = np.zeros((shards, cores))
    now = 0.0
    every = np.arange(shards)
    for query, gap in enumerate(gaps.tolist()):
        now += gap
        core = free.argmin(axis=1)
        begun = np.maximum(now, free[every, core])
        waits[query] = begun - now
        free[every, core] = begun + searches[query]
    return waits + searches + _draws(seed.transport, searches.shape, rng), waits


def _draws(quantiles: Floats, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """From a distribution given by quantiles at 0, 1/200, … and .999, the largest that is drawn."""
    levels = [*(np.arange(len(quantiles) - 1) / (len(quantiles) - 1)), 0.999]
    return np.interp(rng.random(shape), levels, quantiles)


def _quantiles(times: Floats) -> dict[str, float]:
    levels = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
    return {name: round(float(np.quantile(times, level)), 3) for name, level in levels.items()}


def markdown(result: dict[str, Any]) -> str:
    """The result as a page."""
    lines = [
        "# Queries over many shards, simulated from measured latencies",
        "",
        f"Shards of {result['points_a_shard']:,} points with {result['cores']} cores each, busy"
        f" {result['busy']:.0%} of the time; {result['queries']:,} queries. Seeds: the way to a"
        f" shard and the search in one of {result['searched_points']:,} points"
        " (service-cluster.json), the growth with points (scale-streamed.json). Milliseconds.",
        "",
        "| shards | points a shard | one shard p50 | p99 | all p50 | p99 | p99.9 |"
        " p99 with second requests | of it the ingress | queries/s |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in [*result["shards"], *result["plans"]]:
        one, every, hedged = row["one_shard"], row["all_shards"], row["hedged"]
        lines.append(
            f"| {row['shards']} | {row['points_a_shard']:,} | {one['p50']} | {one['p99']}"
            f" | {every['p50']} | {every['p99']} | {every['p999']} | {hedged['p99']}"
            f" | {row['ingress_ms']} | {row['queries_a_second']:,} |"
        )
    return "\n".join(lines) + "\n"


def planned(result: dict[str, Any]) -> str:
    """The plans as a table, and what they were made of."""
    rows = result["plans"]

    def line(name: str, shown: Any) -> str:
        return f"| {name} | " + " | ".join(shown(row) for row in rows) + " |"

    host = result["machine"]
    return "\n".join(
        [
            line("points", lambda row: f"{row['points']:,}"),
            "|---|" + "---:|" * len(rows),
            line("shards", lambda row: str(row["shards"])),
            line("points a shard", lambda row: f"{row['points_a_shard']:,}"),
            line("memory a shard, GB", lambda row: f"{row['shard_gb']:,}"),
            line("machines", lambda row: f"{row['machines']} of {row['machine_gb']} GB"),
            line("machines, $ a month", lambda row: f"{row['machines_dollars']:,}"),
            line(
                "object storage",
                lambda row: f"{row['object_gb']:,} GB, ${row['object_dollars']:,}",
            ),
            line("PostgreSQL", lambda row: f"{row['log_gb']:,} GB, ${row['log_dollars']:,}"),
            line("search in a shard, mean ms", lambda row: str(row["search_ms"])),
            line("query p50, ms", lambda row: str(row["all_shards"]["p50"])),
            line("query p99, ms", lambda row: str(row["all_shards"]["p99"])),
            line("query p99.9, ms", lambda row: str(row["all_shards"]["p999"])),
            line("p99 with replicas asked again, ms", lambda row: str(row["hedged"]["p99"])),
            line("of these in the ingress, ms", lambda row: str(row["ingress_ms"])),
            line("queries a second by the shards", lambda row: f"{row['queries_a_second']:,}"),
            line("bulk build: into the log, h", lambda row: f"{row['store_hours']:,}"),
            line("bulk build: seal, h", lambda row: f"{row['seal_hours']:,}"),
            line("a shard ready elsewhere, s", lambda row: f"{row['restart_seconds']:,}"),
            "",
            f"Seeds measured on {host['cpu']}, {host['cores']} cores, which all parts shared;"
            f" simulated with {result['cores']} cores a shard, busy {result['busy']:.0%} of the"
            f" time, {result['queries']:,} queries.",
        ]
    )


def _draw(result: dict[str, Any], path: Path) -> Path:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    rows = result["shards"]
    shards = [row["shards"] for row in rows]
    for label, key, level in (
        ("p50", "all_shards", "p50"),
        ("p99", "all_shards", "p99"),
        ("p99.9", "all_shards", "p999"),
        ("p99, second requests to a replica", "hedged", "p99"),
    ):
        axes.plot(shards, [row[key][level] for row in rows], marker="o", label=label)
    axes.plot(shards, [row["ingress_ms"] for row in rows], "--", label="ingress alone")
    axes.set(xscale="log", yscale="log", xlabel="shards asked", ylabel="milliseconds")
    axes.set_xticks(shards, [str(n) for n in shards])
    axes.set_title(f"simulated, {result['points_a_shard']:,} points a shard")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
