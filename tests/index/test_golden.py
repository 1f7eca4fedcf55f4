"""Hashes of format version 1 never change: files and collections written today stay searchable.

``python tests/index/test_golden.py`` wrote tests/golden/hashes_v1.json and tests/golden/v1 once,
when the format was new, and never overwrites one: whoever changes a hash changes the format
version and adds a golden file, and this one stays.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closeby.index import (
    FlatIndex,
    FlinngIndex,
    LshIndex,
    MaxIPIndex,
    MinHashFamily,
    SetBatch,
    SignedRandomProjection,
    as_set_batch,
    featurizer_from,
    tuning,
)
from closeby.index.minhash import SCHEMES

GOLDEN = Path(__file__).parents[1] / "golden"
HASHES = GOLDEN / "hashes_v1.json"
FILES = GOLDEN / "v1"

SETS = [[1, 2, 3], [], [2**64 - 1], list(range(0, 3000, 7)), [2**32 - 1, 2**32]]
# Sums of a few small whole numbers: no rounding, so the same bits on any processor.
VECTORS = [[(i * j) % 7 - 3 for j in range(20)] for i in range(1, 6)]
TEXTS = ["", "a", "closeby", "Ein Café, zwei Cafés: √2 🙂", "the quick brown fox " * 3]
SEQUENCES = ["", "ACGT", "acguNACGTTGCA", "ACGTTGCATGTCAGTCAGGCTAGCTAGGATCGATCGGAT"]
ENGINES: dict[str, Any] = {
    "flat": FlatIndex,
    "flinng": FlinngIndex,
    "lsh": LshIndex,
    "maxip": MaxIPIndex,
}
FEATURIZERS: list[tuple[dict[str, Any], list[Any]]] = [
    ({"kind": "shingles", "unit": "byte", "n": 3}, TEXTS),
    ({"kind": "shingles", "unit": "byte", "n": 9}, TEXTS),
    ({"kind": "shingles", "unit": "char", "n": 4}, TEXTS),
    ({"kind": "shingles", "unit": "word", "n": 2}, TEXTS),
    ({"kind": "kmers", "k": 4, "canonical": True}, SEQUENCES),
    ({"kind": "kmers", "k": 4, "canonical": False}, SEQUENCES),
    ({"kind": "kmers", "k": 32, "canonical": True}, SEQUENCES),
    ({"kind": "tokens"}, [[], ["a", "b", "a"], ["", "eine längere Zeichenkette"]]),
]


def hashes() -> dict[str, Any]:
    """Everything that is stored or compared across versions, as JSON values."""
    found: dict[str, Any] = {"minhash": {}, "projection": {}, "features": []}
    for scheme in SCHEMES:
        for seed in (0, 2**64 - 1):
            family = MinHashFamily(seed, tables=6, K=2, sketch_bits=32, scheme=scheme)
            keys, sketches = family.hash(SETS)
            found["minhash"][f"{scheme} {seed}"] = {
                "signatures": family.signatures(SETS).tolist(),
                "keys": keys.tolist(),
                "sketches": sketches.tolist(),
            }
    for seed in (0, 2**64 - 1):
        projection = SignedRandomProjection(20, seed, tables=6, sketch_bits=64)
        keys, sketches = projection.hash(VECTORS)
        found["projection"][str(seed)] = {"keys": keys.tolist(), "sketches": sketches.tolist()}
    for spec, inputs in FEATURIZERS:
        batch = featurizer_from(spec).features(inputs)
        assert isinstance(batch, SetBatch)
        rows = [batch.row(i).tolist() for i in range(len(batch))]
        found["features"].append({"spec": spec, "sets": rows})
    return found


def golden_points() -> tuple[SetBatch, np.ndarray, np.ndarray]:
    """40 sets, 40 vectors and their ids, which need no random numbers of any library."""
    sets = [[i % 10 * 1000 + j for j in range(i % 4, 30)] for i in range(39)]
    vectors = [[(i % 10 + 2) * j % 11 - 5 + (i == j) for j in range(16)] for i in range(40)]
    return as_set_batch([*sets, [2**64 - 1, 5]]), np.float32(vectors), np.arange(40) * 3 + 100


def write_golden() -> None:
    """Write the golden files, if they are not there yet."""
    FILES.mkdir(parents=True, exist_ok=True)
    if not HASHES.exists():
        HASHES.write_text(json.dumps(hashes(), separators=(",", ":")) + "\n")
    sets, vectors, ids = golden_points()
    for metric, points in (("jaccard", sets), ("cosine", vectors), ("ip", vectors)):
        flat = FlatIndex(metric)
        flat.add(points, ids)
        flat.remove(ids[5:7])
        if not (path := FILES / f"flat-{metric}.closeby").exists():
            flat.save(path)
    for name, scan_below in (("", tuning.SCAN_BELOW), ("-bitmaps", 16)):
        tuning.SCAN_BELOW = scan_below  # so that a small file has bitmaps too
        for metric, points in (("jaccard", sets), ("cosine", vectors)):
            flinng = FlinngIndex(metric, 7, tables=8, sketch_bits=128, capacity=16)
            flinng.add(points, ids)
            flinng.remove(ids[5:7])
            if not (path := FILES / f"flinng-{metric}{name}.closeby").exists():
                flinng.save(path)
    tuning.POSTINGS_FROM = 16
    for metric, points in (("jaccard", sets), ("cosine", vectors)):
        # So many tables that nothing is missed.
        lsh = LshIndex(
            metric,
            7,
            tables=48,
            K=1 if metric == "jaccard" else 2,
            threshold=0.1,
            target_recall=0.9999,
            sketch_bits=128,
            capacity=16,
        )
        lsh.add(points, ids)
        lsh.remove(ids[5:7])
        if not (path := FILES / f"lsh-{metric}.closeby").exists():
            lsh.save(path)
    maxip = MaxIPIndex(7, 0.9999, rotations=2, capacity=16)
    maxip.add(vectors[:35], ids[:35])
    maxip.add(vectors[35:], ids[35:])
    maxip.remove(ids[5:7])
    if not (path := FILES / "maxip-ip.closeby").exists():
        maxip.save(path)


def test_hashes_are_those_of_version_1() -> None:
    # Through JSON, so that numbers compare as numbers.
    assert json.loads(json.dumps(hashes())) == json.loads(HASHES.read_text())


@pytest.mark.parametrize("path", sorted(FILES.iterdir()), ids=lambda path: path.stem)
def test_files_of_version_1_load_and_answer(path: Path) -> None:
    kind, metric = path.stem.split("-")[:2]
    sets, vectors, ids = golden_points()
    points: Any = sets if metric == "jaccard" else vectors
    loaded = ENGINES[kind].load(path)
    assert loaded.metric == metric
    assert len(loaded) == 38
    expected = FlatIndex(metric)
    expected.add(points, ids)
    expected.remove(ids[5:7])
    expected_ids, expected_scores = expected.search(points, 40, threshold=0.4)
    got_ids, got_scores = loaded.search(points, 40, threshold=0.4)
    np.testing.assert_allclose(got_scores, expected_scores, rtol=0, atol=1e-5)
    if metric == "jaccard":
        np.testing.assert_array_equal(got_ids, expected_ids)
    assert loaded.remove(ids[5:8]) == 1
    loaded.add(points.take([5]) if metric == "jaccard" else points[5:6], ids[5:6])
    assert len(loaded) == 38


def test_all_kinds_of_files_are_kept() -> None:
    names = {path.name for path in FILES.iterdir()}
    assert names >= {
        "flat-jaccard.closeby",
        "flat-cosine.closeby",
        "flat-ip.closeby",
        "flinng-jaccard.closeby",
        "flinng-cosine.closeby",
        "flinng-jaccard-bitmaps.closeby",
        "flinng-cosine-bitmaps.closeby",
        "lsh-jaccard.closeby",
        "lsh-cosine.closeby",
        "maxip-ip.closeby",
    }


if __name__ == "__main__":
    write_golden()
