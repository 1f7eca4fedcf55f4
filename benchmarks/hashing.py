"""``python -m benchmarks hashing``: what hashes cost, beside the loops that one writes first.

Signed random projections: 1,024 bits of vectors of 768 to 4,096 dimensions, beside two loops over
the dimensions for every bit (``naive_projection.cpp``, compiled here with -O2), and a BLAS product
with a Gaussian matrix. MinHash: all that the default ``FlinngIndex`` takes of a set (keys of 32
tables and 512 sketch bits), by size of the set, for both schemes.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from closeby.index import FlinngIndex, MinHashFamily, SetBatch, SignedRandomProjection

from . import machine, report

BITS = 1_024
DIMENSIONS = (768, 1_024, 1_536, 4_096)
SIZES = (10, 56, 200, 1_000, 5_000)


def _us(action: Callable[[], object], items: int, repeats: int) -> float:
    """Median µs of processor time an item."""
    action()
    times = []
    for _ in range(repeats):
        start = time.thread_time()
        action()
        times.append((time.thread_time() - start) / items * 1e6)
    return statistics.median(times)


def _naive() -> ctypes.CDLL:
    source = Path(__file__).parent / "naive_projection.cpp"
    folder = tempfile.mkdtemp()
    target = Path(folder) / "naive.so"
    subprocess.run(
        ["c++", "-O2", "-shared", "-fPIC", "-o", str(target), str(source)],
        check=True,
    )
    return ctypes.CDLL(str(target))


def _pointer(array: Any) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def projections(repeats: int) -> list[dict[str, Any]]:
    """µs a vector for 1,024 bits."""
    library, random, rows = _naive(), np.random.default_rng(0), []
    for dim in DIMENSIONS:
        vectors = random.standard_normal((2_000, dim)).astype(np.float32)
        one, out = vectors[:1], np.empty(BITS, np.uint8)
        signs = random.choice(np.array([-1, 1], np.int8), (BITS, dim))
        as_floats = signs.astype(np.float32)
        gaussian = random.standard_normal((dim, BITS)).astype(np.float32)
        family = SignedRandomProjection(dim, tables=0, sketch_bits=BITS)

        def loop(name: str, matrix: Any, one: Any = one, out: Any = out, dim: int = dim) -> None:
            size, bits = ctypes.c_int64(dim), ctypes.c_int64(BITS)
            getattr(library, name)(_pointer(one), size, _pointer(matrix), bits, _pointer(out))

        row = {
            "dim": dim,
            "closeby": _us(lambda f=family, v=vectors: f.signs(v), len(vectors), repeats),
            "branches": _us(lambda s=signs, call=loop: call("by_branch", s), 1, repeats),
            "products": _us(lambda s=as_floats, call=loop: call("by_product", s), 1, repeats),
            "blas": _us(lambda v=vectors, g=gaussian: v @ g < 0, len(vectors), repeats),
        }
        rows.append(row)
    return rows


def minhashes(repeats: int) -> list[dict[str, Any]]:
    """µs a set for the keys and the sketch of the default index."""
    random, rows = np.random.default_rng(0), []
    index = FlinngIndex()
    for size in SIZES:
        count = max(20, 100_000 // size)
        elements = np.sort(random.integers(0, 1 << 62, (count, size)).astype(np.uint64), axis=1)
        sets = SetBatch(np.arange(0, count * size + 1, size), elements.ravel())
        row: dict[str, Any] = {"size": size, "values": index.tables * index.K + index.sketch_bits}
        for scheme in ("permutations", "one_permutation"):
            family = MinHashFamily(0, tables=index.tables, K=index.K, scheme=scheme)
            row[scheme] = _us(lambda f=family, s=sets: f.hash(s), count, repeats)
        rows.append(row)
    return rows


def markdown(result: dict[str, Any]) -> str:
    """Both tables."""
    here = result["machine"]
    lines = [
        "# What hashing costs",
        "",
        f"µs an item of processor time, one thread, batches, medians of {result['repeats']}; "
        f"{here['cpu']}, commit {here['commit']}, load {here['load_average']}.",
        "",
        f"## {BITS:,} signs of random projections",
        "",
        *report.table(
            ["dimensions", "closeby", "loop with branches", "loop of products", "BLAS, Gaussian",
             "branches / closeby", "products / closeby", "BLAS / closeby"],
            [
                [f"{r['dim']:,}", *(f"{r[n]:,.1f}" for n in
                 ("closeby", "branches", "products", "blas")),
                 *(f"{r[n] / r['closeby']:,.0f}×" for n in ("branches", "products", "blas"))]
                for r in result["projections"]
            ],
        ),
        "",
        f"## MinHash: {result['minhash'][0]['values']} values of a set, as the default index takes",
        "",
        *report.table(
            ["elements", "by permutations", "by one permutation"],
            [[f"{r['size']:,}", f"{r['permutations']:,.1f}", f"{r['one_permutation']:,.1f}"]
             for r in result["minhash"]],
        ),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main(options: argparse.Namespace) -> int:
    """Measure, and write ``hashing.json`` and ``.md``."""
    result = {
        "machine": machine.describe(),
        "repeats": options.repeats,
        "projections": projections(options.repeats),
        "minhash": minhashes(options.repeats),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    path = Path(options.output) / "hashing.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(result))
    print(markdown(result), "wrote", path, sep="\n")
    return 0
