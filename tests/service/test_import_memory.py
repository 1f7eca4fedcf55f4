"""Imports hold a few batches in memory, however large the file is."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

MOST, MOST_BY_CHILD = 50_000_000, 140_000_000
"""Bytes by which a process grows at most when it imports, and with a child that reads for it; said
in docs/jobs.md. A whole file in memory beside the batches would be more."""
DIM = 128
VECTORS = {"kind": "vector", "dim": DIM}
SHINGLES = {"kind": "shingles", "unit": "byte", "n": 4}


def text_gz(path: Path) -> int:
    """50 MB of text in lines of a kilobyte, with few shingles each."""
    filler = b"0123456789abcdef" * 62
    with gzip.open(path, "wb", compresslevel=1) as file:
        for start in range(0, 50_000, 1_000):
            rows = (b"%d %s\n" % (row * row, filler) for row in range(start, start + 1_000))
            file.write(b"".join(rows))
    return 50_000


def vectors(row: int, count: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(row).random((count, DIM), np.float32)


def parquet(path: Path) -> int:
    """50 MB of vectors in row groups of 13 MB."""
    rows, group = 100_000, 25_000
    kind = pa.schema([("vector", pa.list_(pa.float32(), DIM))])
    with pq.ParquetWriter(path, kind, compression="none") as writer:
        for start in range(0, rows, group):
            flat = pa.array(vectors(start, group).reshape(-1))
            column = pa.FixedSizeListArray.from_arrays(flat, DIM)
            writer.write_table(pa.table([column], schema=kind), row_group_size=group)
    return rows


def npy(path: Path) -> int:
    """50 MB of vectors."""
    rows = 100_000
    mapped = np.lib.format.open_memmap(path, "w+", np.float32, (rows, DIM))
    for start in range(0, rows, 25_000):
        mapped[start : start + 25_000] = vectors(start, 25_000)
    return rows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "write", "features", "most"),
    [
        ("texts.txt.gz", text_gz, SHINGLES, MOST),
        ("vectors.parquet", parquet, VECTORS, MOST_BY_CHILD),
        ("vectors.npy", npy, VECTORS, MOST),
    ],
    ids=["gz", "parquet", "npy"],
)
def test_memory_does_not_grow_with_the_file(
    tmp_path: Path, name: str, write: Callable[[Path], int], features: dict[str, Any], most: int
) -> None:
    file = tmp_path / name
    rows = write(file)
    (tmp_path / "data").mkdir()
    script = Path(__file__).with_name("import_memory.py")
    arguments = [str(tmp_path / "data"), str(file), json.dumps(features)]
    done = subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["state"], told["result"]["points"]) == ("done", rows), told
    assert told["most"] - told["before"] < most, told
