"""``python -m benchmarks.dedup``: near-duplicates of whole files, against peers and the truth.

Each engine runs in a process of its own, with one thread, from lines of text in a file to pairs
above the threshold: reading and shingling are included for all. A peer's candidates are verified
by their exact Jaccard similarity, as ours are, so that precision is alike. The result has recall
and precision against exact all-pairs, processor and wall time, and the highest resident memory. Two
engines give no pairs: ``closeby-clusters`` (what to keep) and ``rensa-flags`` (what shares a band
with another row, unverified).

    python -m benchmarks.dedup                       # the URLs that come with closeby
    python -m benchmarks.dedup --lines titles.txt    # any text, one record a line
    python -m benchmarks.dedup --lines smiles.txt --only closeby --no-truth
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "MKL_NUM_THREADS")
Pairs = set[tuple[int, int]]


def shingles(text: str) -> set[bytes]:
    """Byte 4-grams: what all engines compare."""
    data = text.encode()
    return {data[i : i + 4] for i in range(max(1, len(data) - 3))}


def _verified(sets: list[set[bytes]], candidates: Iterator[tuple[int, int]], t: float) -> Pairs:
    found: Pairs = set()
    for a, b in candidates:
        shared = len(sets[a] & sets[b])
        if shared >= t * (len(sets[a]) + len(sets[b]) - shared):
            found.add((a, b))
    return found


def _closeby(path: Path, threshold: float, output: Path) -> Pairs:
    """The command itself; its pairs are read back after the clock has stopped."""
    from closeby.service.dedup import DedupOptions, deduplicate

    options = DedupOptions(threshold=threshold)
    deduplicate(path, output / "out.txt", output / "pairs", options, lambda *_: None)
    return set()


def _closeby_clusters(path: Path, threshold: float, output: Path) -> Pairs:
    from closeby.service.dedup import DedupOptions, deduplicate

    options = DedupOptions(threshold=threshold)
    deduplicate(path, output / "out.txt", None, options, lambda *_: None)
    return set()


BANDS, ROWS = 16, 6  # a pair at .8 is found with probability .992: the peers' cheapest with .99


def _datasketch(path: Path, threshold: float, _: Path) -> Pairs:
    """MinHash of 96 permutations in 16 bands of 6, with a cheap hash instead of SHA-1."""
    import xxhash
    from datasketch import MinHash, MinHashLSH

    sets = [shingles(line) for line in path.read_text().splitlines()]
    index = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    sketches = []
    for number, elements in enumerate(sets):
        sketch = MinHash(num_perm=BANDS * ROWS, hashfunc=xxhash.xxh32_intdigest)
        sketch.update_batch(list(elements))
        sketches.append(sketch)
        index.insert(number, sketch)
    candidates = (
        (other, number)
        for number, sketch in enumerate(sketches)
        for other in index.query(sketch)
        if other < number
    )
    return _verified(sets, candidates, threshold)


def _rensa(path: Path, threshold: float, _: Path) -> Pairs:
    """R-MinHash of 96 values in 16 bands of 6, its bulk calls, candidates verified."""
    from rensa import RMinHash, RMinHashLSH

    sets = [shingles(line) for line in path.read_text().splitlines()]
    sketches = RMinHash.from_token_sets([list(elements) for elements in sets], BANDS * ROWS, 42)
    index = RMinHashLSH(threshold=threshold, num_perm=BANDS * ROWS, num_bands=BANDS)
    index.insert_pairs(list(enumerate(sketches)))
    candidates = (
        (other, number)
        for begin in range(0, len(sketches), 1000)
        for number, others in enumerate(index.query_all(sketches[begin : begin + 1000]), begin)
        for other in others
        if other < number
    )
    return _verified(sets, candidates, threshold)


def _rensa_flags(path: Path, threshold: float, output: Path) -> Pairs:
    """Rensa's fastest: which rows share a band with another, unverified and without pairs."""
    from rensa import RMinHash, RMinHashLSH

    texts = path.read_text().splitlines()
    sets = [list(shingles(line)) for line in texts]
    matrix = RMinHash.digest_matrix_from_token_byte_sets(sets, BANDS * ROWS, 42)
    index = RMinHashLSH(threshold=threshold, num_perm=BANDS * ROWS, num_bands=BANDS)
    flags = index.query_duplicate_flags_matrix_one_shot(matrix)
    kept = (text for text, near in zip(texts, flags, strict=True) if not near)
    (output / "out.txt").write_text("".join(text + "\n" for text in kept))
    return set()


def _exact(path: Path, threshold: float, _: Path) -> Pairs:
    """All pairs by prefix filter (Bayardo et al. 2007): rare elements first, then exactly."""
    sets = [shingles(line) for line in path.read_text().splitlines()]
    counts: dict[bytes, int] = {}
    for elements in sets:
        for element in elements:
            counts[element] = counts.get(element, 0) + 1
    lists: dict[bytes, list[int]] = {}
    found: Pairs = set()
    for number, elements in enumerate(sets):
        ordered = sorted(elements, key=lambda each: (counts[each], each))
        prefix = ordered[: len(ordered) - int(np.ceil(threshold * len(ordered) - 1e-9)) + 1]
        met: set[int] = set()
        for element in prefix:
            met.update(lists.setdefault(element, []))
            lists[element].append(number)
        found |= _verified(sets, ((other, number) for other in met), threshold)
    return found


ENGINES: dict[str, Callable[[Path, float, Path], Pairs]] = {
    "closeby": _closeby,
    "closeby-clusters": _closeby_clusters,
    "datasketch": _datasketch,
    "rensa": _rensa,
    "rensa-flags": _rensa_flags,
    "exact": _exact,
}


def _measure_one(engine: str, path: Path, threshold: float, folder: Path) -> None:
    """In a process of its own: run, and write numbers and pairs into `folder`."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = ENGINES[engine](path, threshold, folder)
    numbers = {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    (folder / "numbers.json").write_text(json.dumps(numbers))
    written = folder / "pairs"
    if engine == "closeby":
        rows = map(json.loads, written.read_text().splitlines())
        found = {(row["a"] - 1, row["b"] - 1) for row in rows}
    np.save(folder / "pairs.npy", np.array(sorted(found), np.int64).reshape(-1, 2))


@contextmanager
def _locked(path: Path | None) -> Iterator[None]:
    if path is None:
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def compare(lines: Path, threshold: float, engines: list[str]) -> dict[str, Any]:
    """Numbers of each engine, and its recall and precision against "exact" if that is one."""
    results: dict[str, Any] = {}
    pairs: dict[str, Any] = {}
    environment = os.environ | dict.fromkeys(THREADS, "1")
    for engine in engines:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "benchmarks.dedup", "--run", engine, "--into", folder]
            command += ["--lines", str(lines), "--threshold", str(threshold)]
            done = subprocess.run(command, cwd=HERE.parent, env=environment, check=False)
            if done.returncode:
                results[engine] = {"failed": done.returncode}
                continue
            results[engine] = json.loads((Path(folder) / "numbers.json").read_text())
            if engine not in ("closeby-clusters", "rensa-flags"):
                rows = np.load(Path(folder) / "pairs.npy")
                pairs[engine] = rows[:, 0] << 32 | rows[:, 1]
                results[engine]["pairs"] = len(rows)
        print(engine, results[engine], flush=True)
    truth = pairs.get("exact")
    for engine, found in pairs.items():
        if truth is not None:
            right = len(np.intersect1d(found, truth))
            results[engine]["recall"] = right / max(1, len(truth))
            results[engine]["precision"] = right / max(1, len(found))
    return results


def main() -> int:
    """Measure, and write a JSON file."""
    from . import machine

    parser = argparse.ArgumentParser(prog="python -m benchmarks.dedup", description=__doc__)
    parser.add_argument("--lines", type=Path, help="text, one record a line; default: URLs")
    parser.add_argument("--what", default="", help="what the lines are, for the result")
    parser.add_argument("--limit", type=int, help="the first so many lines")
    parser.add_argument("--threshold", type=float, default=0.8)
    parser.add_argument("--only", help="engines, comma-separated; default: all")
    parser.add_argument("--lock", type=Path, help="file to lock while measuring")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        _measure_one(options.run, options.lines, options.threshold, options.into)
        return 0
    engines = options.only.split(",") if options.only else list(ENGINES)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lines.txt"
        texts = _texts(options.lines)[: options.limit]
        path.write_text("".join(text + "\n" for text in texts))
        with _locked(options.lock):
            results = compare(path, options.threshold, engines)
    name = "urls" if options.lines is None else options.lines.name.split(".")[0]
    result = {
        "what": options.what or name,
        "records": len(texts),
        "bytes": sum(map(len, texts)),
        "threshold": options.threshold,
        "machine": machine.describe(),
        "engines": results,
    }
    options.output.mkdir(parents=True, exist_ok=True)
    target = options.output / f"dedup-{name}-{len(texts)}.json"
    target.write_text(json.dumps(result, indent=1) + "\n")
    print("wrote", target)
    return 0


def _texts(path: Path | None) -> list[str]:
    if path is None:
        from closeby.loaders import samples

        return list(samples.urls())
    return [line for line in path.read_text().splitlines() if line.strip()]


if __name__ == "__main__":
    sys.exit(main())
