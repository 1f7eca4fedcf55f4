"""``python -m benchmarks.featurise``: raw text and sequences to features, against peers.

Three distances that a featuriser can go, each with its own rate in bytes (bases) of input a second
of processor time, one thread:

- ``hashes``: every shingle or k-mer as a number, in order and with repeats;
- ``set``: the distinct numbers of each row, ascending: what closeby's index holds;
- ``minhash``: 128 MinHash values of each row, from the raw input.

Rows go in by 1,000, as an import gives them. URLs and genes are those that come with closeby;
``--lines FILE`` adds text of yours, one record a line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROWS = 1000
VALUES = 128
REPEATS = 3

Work = Callable[[list[str]], object]


def ours(spec: dict[str, Any]) -> dict[str, Work]:
    """Closeby's own featuriser, as a collection with this specification runs it."""
    from closeby.index import _native, featurizer_from
    from closeby.index.minhash import MinHashFamily

    featurizer = featurizer_from(spec)
    scheme = "permutations" if spec["kind"] == "shingles" else "one_permutation"
    family = MinHashFamily(tables=VALUES, sketch_bits=0, scheme=scheme)
    unit, n = spec.get("unit", "dna"), spec.get("n", spec.get("k"))
    return {
        "hashes": lambda rows: _native.shingle_batch(unit, rows, n),
        "set": featurizer.features,
        "minhash": lambda rows: family.signatures(featurizer.features(rows)),
    }


def vectorizer(unit: str, n: int) -> dict[str, Work]:
    """scikit-learn's HashingVectorizer: distinct n-grams of each row as columns of a CSR matrix."""
    from sklearn.feature_extraction.text import HashingVectorizer

    made = HashingVectorizer(
        analyzer="word" if unit == "word" else "char",
        ngram_range=(n, n),
        n_features=2**30,
        alternate_sign=False,
        binary=True,
        norm=None,
        lowercase=False,
    )
    return {"set": made.transform}


def datasketch_of(unit: str, n: int) -> dict[str, Work]:
    """Shingles made in Python, as datasketch leaves them to its user, then its hash and MinHash."""
    from datasketch import MinHash
    from datasketch.hashfunc import sha1_hash32

    def shingles(row: str) -> set[bytes]:
        if unit == "word":
            words = row.split()
            return {" ".join(words[i : i + n]).encode() for i in range(max(1, len(words) - n + 1))}
        data = row.encode()
        return {data[i : i + n] for i in range(max(1, len(data) - n + 1))}

    def minhashes(rows: list[str]) -> list[Any]:
        return list(MinHash.generator([shingles(row) for row in rows], num_perm=VALUES, seed=1))

    return {
        "set": lambda rows: [{sha1_hash32(s) for s in shingles(row)} for row in rows],
        "minhash": minhashes,
    }


def sourmash_of(k: int) -> dict[str, Work]:
    """Sketches of all canonical k-mers (scaled=1), and of the 128 smallest hashes, by sourmash."""
    from sourmash import MinHash

    def sketch(rows: list[str], **size: int) -> list[Any]:
        made = []
        for row in rows:
            one = MinHash(ksize=k, **size)
            one.add_sequence(row, force=True)
            made.append(one)
        return made

    return {
        "set": lambda rows: sketch(rows, n=0, scaled=1),
        "minhash": lambda rows: sketch(rows, n=VALUES),
    }


def rate(work: Work, batches: Sequence[list[str]], size: int) -> float:
    """Median MB (or Mbp) a second of processor time."""
    work(batches[0])
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        for batch in batches:
            work(batch)
        seconds.append(time.process_time() - start)
    return size / statistics.median(seconds) / 1e6


def measure(rows: list[str], engines: dict[str, dict[str, Work]]) -> dict[str, dict[str, float]]:
    """Rates by engine and distance; slow engines see the first rows alone."""
    results: dict[str, dict[str, float]] = {}
    for engine, works in engines.items():
        results[engine] = {}
        for distance, work in works.items():
            chosen = rows if engine == "closeby" else rows[: ROWS // 2]
            batches = [chosen[i : i + ROWS] for i in range(0, len(chosen), ROWS)]
            size = sum(len(row.encode()) for row in chosen)
            results[engine][distance] = round(rate(work, batches, size), 2)
            print(f"  {engine:14s} {distance:8s} {results[engine][distance]:9.2f}", flush=True)
    return results


def cases(lines: Path | None) -> list[tuple[str, list[str], dict[str, dict[str, Work]]]]:
    """What is measured: name, rows, engines."""
    from closeby.loaders import after_scheme, samples

    texts = {"URLs": [after_scheme(url) for url in samples.urls()]}
    if lines is not None:
        texts[lines.stem] = [line for line in lines.read_text().splitlines() if line.strip()]
    found = []
    for name, rows in texts.items():
        for unit, n in (("byte", 4), ("char", 5), ("word", 3)):
            engines = {
                "closeby": ours({"kind": "shingles", "unit": unit, "n": n}),
                "scikit-learn": vectorizer(unit, n),
                "datasketch": datasketch_of(unit, n),
            }
            found.append((f"{name}, {n}-grams of {unit}s", rows, engines))
    genes = [gene.sequence for gene in samples.genes()]
    joined = "".join(genes)
    genomes = [joined[i : i + 500_000] for i in range(0, len(joined), 500_000)]
    for name, rows in (("genes", genes), ("genes joined to 500 kbp", genomes)):
        for k in (21, 31):
            engines = {"closeby": ours({"kind": "kmers", "k": k}), "sourmash": sourmash_of(k)}
            found.append((f"{name}, canonical {k}-mers", rows, engines))
    return found


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """The results as Markdown: a row for each case and engine."""
    lines = ["| what | engine | to hashes | to sets | to MinHash |", "|---|---|---:|---:|---:|"]
    for name, engines in results.items():
        for engine, rates in engines.items():
            cells = [
                f"{rates[d]:,.4g}" if d in rates else "—" for d in ("hashes", "set", "minhash")
            ]
            lines.append(f"| {name} | {engine} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, and write a JSON file and a table."""
    from . import machine

    parser = argparse.ArgumentParser(prog="python -m benchmarks.featurise", description=__doc__)
    parser.add_argument("--lines", type=Path, help="text, one record a line")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    parser.add_argument("--limit", type=int, help="the first so many rows of each")
    parser.add_argument("--only", help="cases whose name has this; the others stay as they are")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "unit": "MB (Mbp) of input a second of processor time, one thread, median of "
        f"{REPEATS}, {ROWS} rows at a time",
        "machine": machine.describe(),
        "rates": {},
    }
    path = options.output / "featurise.json"
    if options.only is not None and path.exists():
        result = json.loads(path.read_text())
    for name, rows, engines in cases(options.lines):
        if options.only is not None and options.only not in name:
            continue
        print(name, flush=True)
        result["rates"][name] = measure(rows[: options.limit], engines)
        path.write_text(json.dumps(result, indent=1) + "\n")
        (options.output / "featurise.md").write_text(table(result["rates"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
