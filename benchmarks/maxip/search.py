"""MaxIP search: recall and processor time of closeby, a BLAS scan, FAISS and ScaNN.

    python -m benchmarks maxip search ITEMS.npy [--queries USERS.npy] [--only SUBJECT]

One thread; times are processor time of one query after another, and of all in one call, which a
busy machine blurs least: medians of five rounds in which all take turns. Peers get a grid of their
parameters, and the fastest setting of each that reaches the recall counts; a setting that takes one
and a half times as long as another of the same subject with more recall is asked once only. An
optional peer that is not installed is left out and named.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import faiss
import numpy as np
from closeby.index import MaxIPIndex

K = 10
QUERIES = 200
REPEATS = 5
LEVELS = (0.9, 0.95, 0.98, 0.99)
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


@dataclass(frozen=True)
class Setting:
    """One way to ask one index."""

    subject: str
    name: str
    search: Search
    build: float
    size: float


def closeby_(items: np.ndarray, tune: np.ndarray) -> Iterator[Setting]:
    """Closeby as it measures itself, and tuned with other queries of the same kind."""
    index = MaxIPIndex(seed=0)
    _, build = clock(lambda: index.add(items))
    size = float(sum(v for name, v in index.nbytes.items() if name != "features"))
    tuned = index.fork()
    tuned.tune(tune)
    for subject, chosen in (("closeby", index), ("closeby, tuned", tuned)):
        for target in (0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999):
            yield Setting(subject, f"target {target}", _closeby_search(chosen, target), build, size)


def _closeby_search(index: MaxIPIndex, target: float) -> Search:
    return lambda q: index.search(q, K, target_recall=target)[0]


def faiss_ivf(name: str, code: str) -> Callable[..., Iterator[Setting]]:
    """Lists with codes of FAISS, the best by code compared exactly by it."""

    def make(items: np.ndarray, _: np.ndarray) -> Iterator[Setting]:
        lists = 4 * round(len(items) ** 0.5)
        index = faiss.index_factory(
            items.shape[1], f"IVF{lists},{code},RFlat", faiss.METRIC_INNER_PRODUCT
        )
        sample = items[:: max(1, len(items) // (40 * lists))]

        def build() -> None:
            index.train(sample)
            index.add(items)

        _, seconds = clock(build)
        size = float(len(faiss.serialize_index(index.base_index)))
        base = faiss.downcast_index(index.base_index)

        def search(query: np.ndarray, probes: int, factor: int) -> np.ndarray:
            base.nprobe, index.k_factor = probes, factor
            return np.asarray(index.search(query, K)[1])

        for probes in (16, 32, 64, 128, 256, 512, 1024):
            for factor in (5, 10, 20, 40, 80):
                yield Setting(
                    name,
                    f"IVF{lists},{code} nprobe {probes} k_factor {factor}",
                    partial(search, probes=probes, factor=factor),
                    seconds,
                    size,
                )

    return make


def faiss_hnsw(items: np.ndarray, _: np.ndarray) -> Iterator[Setting]:
    """The graph of FAISS over inner products."""
    index = faiss.IndexHNSWFlat(items.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 80
    _, seconds = clock(lambda: index.add(items))

    def search(query: np.ndarray, ef: int) -> np.ndarray:
        index.hnsw.efSearch = ef
        return np.asarray(index.search(query, K)[1])

    links = float(len(items) * 2 * 32 * 4)
    for ef in (16, 32, 64, 128, 256, 512, 1024, 2048):
        yield Setting("FAISS HNSW", f"HNSW32 efSearch {ef}", partial(search, ef=ef), seconds, links)


def scann_(items: np.ndarray, _: np.ndarray) -> Iterator[Setting]:
    """ScaNN with its usual settings, √n and 4√n leaves."""
    import scann  # an optional peer

    for leaves in (round(len(items) ** 0.5), 4 * round(len(items) ** 0.5)):
        builder = (
            scann.scann_ops_pybind.builder(items, K, "dot_product")
            .tree(leaves, 32, training_sample_size=min(len(items), 150_000))
            .score_ah(2, anisotropic_quantization_threshold=0.2)
            .reorder(100)
            .set_n_training_threads(1)
        )
        index, seconds = clock(builder.build)

        def search(query: np.ndarray, probes: int, reorder: int, index: Any = index) -> np.ndarray:
            settings = {"leaves_to_search": probes, "pre_reorder_num_neighbors": reorder}
            if len(query) > 1:
                return np.asarray(index.search_batched(query, **settings)[0], np.int64)
            found = np.full((1, K), -1, np.int64)
            places = index.search(query[0], **settings)[0]
            found[0, : len(places)] = places
            return found

        for probes in (8, 16, 32, 64, 128, 256, 512, 1024):
            for reorder in (50, 100, 200, 400, 800):
                if probes <= leaves:
                    yield Setting(
                        "ScaNN",
                        f"{leaves} leaves, {probes} searched, reorder {reorder}",
                        partial(search, probes=probes, reorder=reorder),
                        seconds,
                        float("nan"),
                    )


SUBJECTS: dict[str, Callable[..., Iterator[Setting]]] = {
    "closeby": closeby_,
    "FAISS IVF-RaBitQ": faiss_ivf("FAISS IVF-RaBitQ", "RaBitQfs"),
    "FAISS HNSW": faiss_hnsw,
    "ScaNN": scann_,
}


def measure(
    items: np.ndarray, tune: np.ndarray, queries: np.ndarray, wanted: list[str], rounds: int
) -> list[dict[str, Any]]:
    """A row for each setting of each subject, and one for the scan.

    Everything is built first and measured together, in turns, so that a busy moment of the machine
    falls on all.
    """
    expected = truth(items, queries)
    subjects = SUBJECTS | {
        "FAISS IVF-PQ": faiss_ivf("FAISS IVF-PQ", f"PQ{items.shape[1] // 2}x4fs")
    }
    settings: list[Setting] = []
    for name, make in subjects.items():
        if wanted and name not in wanted:
            continue
        try:
            settings += make(items, tune)
            print(f"{name}: built in {settings[-1].build:.1f} s of processor time", flush=True)
        except ImportError as missing:
            print(f"{name}: left out, {missing}")
    first = [_once(setting, items, queries, expected) for setting in settings]
    chosen = [at for at in range(len(settings)) if not _beaten(at, settings, first)]
    times: list[list[float]] = [[] for _ in chosen]
    batches: list[list[float]] = [[] for _ in chosen]
    scans, scan_batches = [], []
    for _ in range(rounds):
        scans.append(clock(lambda: [items @ q for q in queries[:5]])[1] / 5)
        scan_batches.append(clock(lambda: items @ queries.T)[1] / len(queries))
        for at, spent, together in zip(chosen, times, batches, strict=True):
            search = settings[at].search
            one_by_one = clock(lambda s=search: [s(q[None]) for q in queries])[1]
            spent.append(one_by_one / len(queries))
            together.append(clock(lambda s=search: s(queries))[1] / len(queries))
    scan = float(np.median(scans))
    rows: list[dict[str, Any]] = [
        {
            "subject": "BLAS",
            "setting": "scan",
            "recall": 1.0,
            "query_us": round(scan * 1e6, 1),
            "batch_us": round(float(np.median(scan_batches)) * 1e6, 1),
            "build_s": 0,
        }
    ]
    for at, spent, together in zip(chosen, times, batches, strict=True):
        setting, seconds = settings[at], float(np.median(spent))
        rows.append(
            {
                "subject": setting.subject,
                "setting": setting.name,
                "recall": round(first[at][0], 4),
                "query_us": round(seconds * 1e6, 1),
                "batch_us": round(float(np.median(together)) * 1e6, 1),
                "build_s": round(setting.build, 1),
                "index_bytes": setting.size,
                "times_faster_than_scan": round(scan / seconds, 1),
            }
        )
    return rows


def _once(
    setting: Setting, items: np.ndarray, queries: np.ndarray, expected: np.ndarray
) -> tuple[float, float]:
    """Recall, and seconds a query."""
    found, seconds = clock(lambda: np.vstack([setting.search(q[None]) for q in queries]))
    return recall(found, items, queries, expected), seconds / len(queries)


def _beaten(at: int, settings: list[Setting], first: list[tuple[float, float]]) -> bool:
    """Whether another setting of the subject is far faster and no worse."""
    return any(
        other.subject == settings[at].subject
        and share >= first[at][0]
        and 1.5 * spent < first[at][1]
        for other, (share, spent) in zip(settings, first, strict=True)
    )


def fastest(rows: list[dict[str, Any]], measure: str = "query_us") -> list[dict[str, Any]]:
    """The fastest setting of each subject at each recall, and how much slower than closeby's."""
    best = []
    for level in LEVELS:
        reached: dict[str, dict[str, Any]] = {}
        for row in rows[1:]:
            subject = row["subject"]
            slower = subject in reached and reached[subject][measure] <= row[measure]
            if row["recall"] >= level and not slower:
                reached[subject] = row
        ours = min(
            (row[measure] for name, row in reached.items() if name.startswith("closeby")),
            default=0.0,
        )
        for subject in dict.fromkeys(row["subject"] for row in rows[1:]):
            row = reached.get(subject)
            best.append(
                {
                    "recall": level,
                    "subject": subject,
                    "setting": row["setting"] if row else "not reached",
                    measure: row[measure] if row else None,
                    "times_closeby": round(row[measure] / ours, 2) if row and ours else None,
                }
            )
    return best


def markdown(found: dict[str, Any]) -> str:
    """The fastest settings as a table."""
    scan = found["rows"][0]
    lines = [
        f"BLAS scan: {scan['query_us']:,.0f} µs a query, {scan['batch_us']:,.0f} µs in one call. "
        "× is how much longer than closeby.",
        "",
        "| recall | | µs one by one | × | setting | µs in one call | × |",
        "|---|---|---|---|---|---|---|",
    ]
    for one, batch in zip(found["fastest"], found["fastest_in_one_call"], strict=True):
        if one["query_us"] is None:
            lines.append(f"| {one['recall']} | {one['subject']} | not reached | | | | |")
            continue
        lines.append(
            f"| {one['recall']} | {one['subject']} | {one['query_us']:,.0f} | "
            f"{one['times_closeby']} | {one['setting']} | {batch['batch_us']:,.0f} | "
            f"{batch['times_closeby']} |"
        )
    builds = {row["subject"]: row["build_s"] for row in found["rows"][1:]}
    lines += ["", "Build, processor seconds: "]
    lines[-1] += ", ".join(f"{subject} {seconds}" for subject, seconds in builds.items()) + "."
    return "\n".join(lines)


def plot(found: dict[str, Any], axes: Any) -> None:
    """Recall against queries a second: the best settings of each subject."""
    rows = found["rows"]
    for subject in dict.fromkeys(row["subject"] for row in rows[1:]):
        points = sorted(
            (row["query_us"], row["recall"]) for row in rows[1:] if row["subject"] == subject
        )
        front, top = [], 0.0
        for spent, share in points:
            if share > top:
                front.append((spent, share))
                top = share
        axes.plot([s for _, s in front], [1e6 / t for t, _ in front], "o-", ms=3, label=subject)
    axes.axhline(1e6 / rows[0]["query_us"], color="grey", ls=":", label="BLAS scan")
    axes.set(
        xlim=(0.5, 1.005),
        yscale="log",
        xlabel="recall@10",
        ylabel="queries a second, one by one, one thread",
    )
    axes.grid(alpha=0.3, which="both")


def main(
    items: np.ndarray, source: np.ndarray, only: list[str], rounds: int = REPEATS
) -> dict[str, Any]:
    """Measure; queries are drawn from `source`, half of them to tune with."""
    rng = np.random.default_rng(0)
    wanted = min(2 * QUERIES, len(source))
    drawn = np.asarray(source[np.sort(rng.choice(len(source), wanted, replace=False))])
    drawn = drawn[rng.permutation(len(drawn))]
    rows = measure(items, drawn[: wanted // 2], drawn[wanted // 2 :], only, rounds)
    found = {
        "rounds": rounds,
        "fastest": fastest(rows),
        "fastest_in_one_call": fastest(rows, "batch_us"),
        "rows": rows,
    }
    print(markdown(found))
    return found
