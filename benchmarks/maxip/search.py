"""MaxIP search: recall and processor time of closeby, a BLAS scan, FAISS and ScaNN.

    python -m benchmarks.maxip.search ITEMS.npy [--queries USERS.npy] [--n 1000000] [--out FILE]

One thread; times are processor time of one query after another, which a busy machine blurs least.
Peers get a small grid of their parameters, and the fastest setting of each that reaches the recall
counts. An optional peer that is not installed is left out and named.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from closeby.index import MaxIPIndex

from benchmarks.machine import describe

K = 10
QUERIES = 200
Search = Callable[[np.ndarray], np.ndarray]


def clock(work: Callable[[], Any]) -> tuple[Any, float]:
    """What the work gives, and the processor seconds that it took."""
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def truth(items: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The score of the K-th best item of each query."""
    return np.array([np.partition(items @ q, -K)[-K] for q in queries])


def recall(found: np.ndarray, items: np.ndarray, queries: np.ndarray, least: np.ndarray) -> float:
    """Share of answers that score as high as the K-th best: equal items are equally right."""
    scores = np.einsum("qkd,qd->qk", items[found], queries)
    good = (found >= 0) & (scores >= (least - 1e-5 * np.abs(least))[:, None])
    return float(good.mean())


def closeby_(items: np.ndarray, tune: np.ndarray) -> Iterator[tuple[str, float, float, Search]]:
    """closeby, as it tunes itself and tuned with other queries of the same kind."""
    index = MaxIPIndex(seed=0)
    _, build = clock(lambda: index.add(items))
    size = sum(v for name, v in index.nbytes.items() if name != "features")
    for target in (0.9, 0.95, 0.97, 0.99):
        yield f"closeby target {target}", build, size, _closeby_search(index, target)
    index.tune(tune)
    for target in (0.9, 0.95, 0.97, 0.99):
        yield f"closeby tuned, target {target}", build, size, _closeby_search(index, target)


def _closeby_search(index: MaxIPIndex, target: float) -> Search:
    return lambda q: index.search(q, K, target_recall=target)[0]


def faiss_index(
    factory: str, grid: dict[str, tuple[int, ...]], rerank: int
) -> Callable[[np.ndarray, np.ndarray], Iterator[tuple[str, float, float, Search]]]:
    """An index of FAISS by its factory string, over a grid of one parameter."""

    def make(items: np.ndarray, _: np.ndarray) -> Iterator[tuple[str, float, float, Search]]:
        index = faiss.index_factory(items.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        sample = items[:: max(1, len(items) // 200_000)]

        def build() -> None:
            index.train(sample)
            index.add(items)

        _, seconds = clock(build)
        size = float(len(faiss.serialize_index(index)))
        (name, values), *_ = grid.items()
        for value in values:
            setting = faiss.ParameterSpace()
            yield (
                f"{factory} {name} {value}" + (f", {rerank} compared exactly" if rerank else ""),
                seconds,
                size,
                _faiss_search(index, setting, name, value, items, rerank),
            )

    return make


def _faiss_search(
    index: Any, setting: Any, name: str, value: int, items: np.ndarray, rerank: int
) -> Search:
    def search(query: np.ndarray) -> np.ndarray:
        setting.set_index_parameter(index, name, value)
        if not rerank:
            return np.asarray(index.search(query, K)[1])
        places = index.search(query, rerank)[1]
        out = np.full((len(query), K), -1, np.int64)
        for row, place in enumerate(places):
            good = place[place >= 0]
            out[row, :K] = np.pad(
                good[np.argsort(-(items[good] @ query[row]))[:K]],
                (0, max(0, K - len(good))), constant_values=-1,
            )  # fmt: skip
        return out

    return search


def scann_(items: np.ndarray, _: np.ndarray) -> Iterator[tuple[str, float, float, Search]]:
    """ScaNN with its usual settings."""
    import scann  # an optional peer

    leaves = round(len(items) ** 0.5)

    def build() -> Any:
        return (
            scann.scann_ops_pybind.builder(items, K, "dot_product")
            .tree(leaves, 32, training_sample_size=min(len(items), 100_000))
            .score_ah(2, anisotropic_quantization_threshold=0.2)
            .reorder(100)
            .set_n_training_threads(1)
            .build()
        )

    index, seconds = clock(build)
    for probes in (16, 32, 64, 128, 256, 512):
        yield (
            f"ScaNN leaves {probes}",
            seconds,
            float("nan"),
            lambda q, p=probes: np.stack([index.search(x, leaves_to_search=p)[0] for x in q]),
        )


def subjects(n: int, dim: int) -> dict[str, Any]:
    """All subjects by name."""
    lists = 4 * round(n**0.5)
    probes = (8, 16, 32, 64, 128, 256, 512)
    return {
        "closeby": closeby_,
        "FAISS IVF-RaBitQ": faiss_index(f"IVF{lists},RaBitQfs", {"nprobe": probes}, 100),
        "FAISS IVF-PQ": faiss_index(f"IVF{lists},PQ{dim // 2}x4fs", {"nprobe": probes}, 100),
        "FAISS HNSW": faiss_index("HNSW16", {"efSearch": (64, 256, 1024)}, 0),
        "ScaNN": scann_,
    }


def measure(
    items: np.ndarray, tune: np.ndarray, queries: np.ndarray, wanted: list[str]
) -> list[dict[str, Any]]:
    """A row for each setting of each subject, and one for the scan."""
    expected = truth(items, queries)
    _, scan = clock(lambda: [items @ q for q in queries[:30]])
    scan /= 30
    rows = [
        {"subject": "BLAS", "setting": "scan", "recall": 1.0, "query_us": scan * 1e6, "build_s": 0}
    ]
    for name, make in subjects(*items.shape).items():
        if wanted and name not in wanted:
            continue
        try:
            for setting, build, size, search in make(items, tune):
                search(queries[:2])
                found, seconds = clock(lambda s=search: np.vstack([s(q[None]) for q in queries]))
                together, batch = clock(lambda s=search: s(queries))
                del together
                row = {
                    "subject": name,
                    "setting": setting,
                    "recall": recall(found, items, queries, expected),
                    "query_us": seconds / len(queries) * 1e6,
                    "batch_us": batch / len(queries) * 1e6,
                    "build_s": build,
                    "index_bytes": size,
                    "times_faster_than_scan": scan * len(queries) / seconds,
                }
                rows.append(row)
                print(
                    f"{setting:50s} recall {row['recall']:.3f}  {row['query_us']:8.0f} µs  "
                    f"batch {row['batch_us']:8.0f} µs  "
                    f"{row['times_faster_than_scan']:6.1f} × scan  build {build:.1f} s",
                    flush=True,
                )
        except ImportError as missing:
            print(f"{name}: left out, {missing}")
    return rows


def main() -> None:
    """Measure, print, and write a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("items", type=Path)
    parser.add_argument("--queries", type=Path)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(1)
    items = np.ascontiguousarray(np.load(arguments.items, mmap_mode="r")[: arguments.n], np.float32)
    rng = np.random.default_rng(0)
    source = np.load(arguments.queries, mmap_mode="r") if arguments.queries else items
    drawn = np.asarray(source[np.sort(rng.choice(len(source), 2 * QUERIES, replace=False))])
    drawn = drawn[rng.permutation(len(drawn))]
    rows = measure(items, drawn[:QUERIES], drawn[QUERIES:], arguments.only)
    print(f"BLAS scan {rows[0]['query_us']:.0f} µs")
    if arguments.out:
        data = f"{arguments.items.parent.name}, {items.shape[0]:,} x {items.shape[1]}"
        arguments.out.write_text(
            json.dumps({"data": data, "machine": describe(), "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
