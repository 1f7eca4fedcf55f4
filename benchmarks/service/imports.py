"""How quickly a file of URLs is imported by 0, 1 and 2 workers, and what queries notice of it.

For each number of workers a server of its own: the shipped URLs are imported, queries are asked at
a steady rate while nothing else happens, and then while the file is imported. The clock runs from
the request until the job is done, which means that queries find all its rows.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from closeby.loaders import samples

from .server import serving

COLLECTION = {
    "metric": "jaccard",
    "features": {"kind": "shingles", "unit": "byte", "n": 4},
    "index": "flinng",
    "seed": 0,
}
WORKERS = (0, 1, 2)
QUERIES_A_SECOND = 50
IDLE_SECONDS = 10.0
LOOK_SECONDS = 0.5


def measure(folder: Path, options: Any) -> dict[str, Any]:
    """Rates and latencies for each number of workers."""
    file = options.file
    if file is None:
        file = folder / f"urls-{options.points}.txt"
        write_urls(file, options.points)
    rows = sum(1 for _ in file.open("rb")) if file.suffix == ".txt" else None
    runs = {
        workers: [
            _run(folder / f"imports-{workers}-{repeat}", file, workers)
            for repeat in range(options.repeats)
        ]
        for workers in WORKERS
    }
    return {
        "file": "the shipped URLs and variants of them" if options.file is None else file.name,
        "rows": rows or runs[0][0]["points"],
        "bytes": file.stat().st_size,
        "base_points": len(samples.urls()),
        "queries_a_second": QUERIES_A_SECOND,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "repeats": options.repeats,
        "by_workers": {workers: _median(each) for workers, each in runs.items()},
        "runs": runs,
    }


def write_urls(path: Path, count: int) -> None:
    """So many different URLs: the shipped ones, then each with a part of another behind it."""
    urls = samples.urls()
    with path.open("w") as file:
        for row in range(count):
            again, at = divmod(row, len(urls))
            if not again:
                file.write(f"{urls[at]}\n")
                continue
            other = urls[(at * 7919 + again) % len(urls)].rpartition("/")[2]
            file.write(f"{urls[at].rstrip('/')}/{other}?page={row}\n")


class _Queries:
    """Asks at a steady rate, in a thread, until the context is left; `seconds` each took."""

    def __init__(self, url: str, texts: Sequence[str]) -> None:
        self.seconds: list[float] = []
        self._url = url
        self._texts = texts
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> _Queries:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as http:
            due = time.perf_counter()
            for number in range(1_000_000_000):
                # Late ones are asked at once and counted from when they were due, so that a
                # server that stands still is not asked less for it.
                if self._stop.wait(max(0.0, due - time.perf_counter())):
                    return
                body = {"text": self._texts[number % len(self._texts)], "limit": 10}
                http.post("/v1/collections/urls/query", json=body).raise_for_status()
                self.seconds.append(time.perf_counter() - due)
                due += 1 / QUERIES_A_SECOND

    def percentiles(self) -> dict[str, float]:
        """Milliseconds."""
        p50, p99 = np.percentile(np.array(self.seconds) * 1e3, [50, 99])
        return {"p50": round(float(p50), 2), "p99": round(float(p99), 2)}


def _run(data: Path, file: Path, workers: int) -> dict[str, Any]:
    roots = f"{samples.URLS_PATH.parent}{os.pathsep}{file.resolve().parent}"
    with (
        serving(data, workers=workers, import_roots=roots) as server,
        httpx.Client(base_url=server.url, timeout=120) as http,
    ):
        http.put("/v1/collections/urls", json=COLLECTION).raise_for_status()
        _import(http, samples.URLS_PATH, "shipped ")
        _settle(http)
        asked = samples.urls()[::60]
        with _Queries(server.url, asked) as idle:
            time.sleep(IDLE_SECONDS)
        with _Queries(server.url, asked) as beside:
            start = time.perf_counter()
            points = _import(http, file, "")
            seconds = time.perf_counter() - start
        _settle(http)
        settled = time.perf_counter() - start
        count = http.get("/v1/collections/urls").json()["count"]
        assert count == points + len(samples.urls()), "rows were lost or doubled"
        return {
            "points": points,
            "seconds": round(seconds, 2),
            "rows_a_second": round(points / seconds),
            "until_sealed_seconds": round(settled, 2),
            "segments_by_workers": _metric(http, "closeby_segments_by_workers_total"),
            "idle_ms": idle.percentiles(),
            "beside_import_ms": beside.percentiles(),
        }


def _import(http: httpx.Client, path: Path, prefix: str) -> int:
    """Import a file that lies on the server; the points it had."""
    body = {"path": str(path.resolve()), "id_prefix": prefix or None}
    answer = http.post("/v1/collections/urls/imports", json=body)
    answer.raise_for_status()
    while True:
        job = http.get(answer.headers["location"]).json()
        if job["state"] not in ("queued", "running"):
            break
        time.sleep(LOOK_SECONDS)
    if job["state"] != "done":
        raise RuntimeError(f"the import ended as {job['state']}: {job['error']}")
    points: int = job["result"]["points"]
    return points


def _settle(http: httpx.Client) -> None:
    """Until no full segment waits."""
    while _metric(http, 'closeby_segments_waiting{collection="urls"}'):
        time.sleep(0.1)


def _metric(http: httpx.Client, name: str) -> int:
    for line in http.get("/metrics").text.splitlines():
        if line.startswith(f"{name} "):
            return int(float(line.rpartition(" ")[2]))
    raise KeyError(name)


def _median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    def middle(*names: str) -> float:
        found = runs
        for name in names:
            found = [each[name] for each in found]
        return float(statistics.median(found))  # type: ignore[type-var]

    return {
        "rows_a_second": round(middle("rows_a_second")),
        "idle_ms": {p: middle("idle_ms", p) for p in ("p50", "p99")},
        "beside_import_ms": {p: middle("beside_import_ms", p) for p in ("p50", "p99")},
    }


def publish(result: dict[str, Any], stem: Path) -> None:
    """Write ``STEM.md`` and ``STEM.png``."""
    stem.with_suffix(".md").write_text(_page(result))
    _draw(result, stem.with_suffix(".png"))


def _page(result: dict[str, Any]) -> str:
    machine = result["machine"]
    lines = [
        "# Importing a file, and queries meanwhile",
        "",
        f"{result['rows']:,} rows ({result['bytes'] / 1e6:.0f} MB; {result['file']}) into a"
        f" collection of {result['base_points']:,} URLs (4-byte shingles, group tests), by the"
        f" server's own threads (0) or by workers; {result['queries_a_second']} queries a second"
        f" meanwhile. {result['cores']} cores, which server, workers and the asking client share."
        f" {machine['cpu']}, commit {machine['commit']}, load {result['load']}, medians of"
        f" {result['repeats']}.",
        "",
        "| workers | rows a second | p50 idle | p50 beside | p99 idle | p99 beside |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for workers, found in result["by_workers"].items():
        idle, beside = found["idle_ms"], found["beside_import_ms"]
        lines.append(
            f"| {workers} | {found['rows_a_second']:,} | {idle['p50']:.1f} ms |"
            f" {beside['p50']:.1f} ms | {idle['p99']:.1f} ms | {beside['p99']:.1f} ms |"
        )
    return "\n".join(lines) + "\n"


def _draw(result: dict[str, Any], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = [str(workers) for workers in result["by_workers"]]
    found = list(result["by_workers"].values())
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    left.bar(names, [each["rows_a_second"] for each in found], color="#1f77b4")
    left.set(xlabel="workers", ylabel="rows a second", title="import")
    places = np.arange(len(names))
    for shift, (key, percentile, colour) in enumerate(
        [
            ("idle_ms", "p50", "#aec7e8"),
            ("beside_import_ms", "p50", "#1f77b4"),
            ("idle_ms", "p99", "#ff9896"),
            ("beside_import_ms", "p99", "#d62728"),
        ]
    ):
        label = f"{percentile} {'idle' if key == 'idle_ms' else 'beside the import'}"
        heights = [each[key][percentile] for each in found]
        right.bar(places + 0.2 * (shift - 1.5), heights, 0.2, label=label, color=colour)
    right.set(xlabel="workers", ylabel="ms a query", title="queries", yscale="log")
    right.set_xticks(places, names)
    right.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
