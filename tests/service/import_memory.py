"""A worker's import in a process of its own: ``FOLDER FILE FEATURES`` to peak memory and counts.

To be run by a test: prints one JSON object with the points stored and the bytes of memory
of its own, with that of its children: before the import, and at their highest. Files that are
mapped do not count: the system takes their pages back when it needs them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from closeby.service.imports import IMPORT
from closeby.service.job_store import JobStore, new_job_id
from closeby.service.jobs import JobRunner
from closeby.service.settings import Settings
from closeby.service.store import Store


def memory(pid: int) -> int:
    """Anonymous resident bytes of a process and its children, what they share counted once."""
    folder = Path(f"/proc/{pid}")
    try:
        sizes = (folder / "smaps_rollup").read_text()
        children = [int(c) for f in folder.glob("task/*/children") for c in f.read_text().split()]
    except OSError:  # it has ended
        return 0
    own = [1024 * int(row.split()[1]) for row in sizes.splitlines() if row.startswith("Pss_Anon:")]
    return sum(own) + sum(map(memory, children))


def main() -> None:
    """Import the file."""
    folder, file, features = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    metric = "cosine" if features["kind"] == "vector" else "jaccard"
    store = Store.open_directory(folder)
    config = {"metric": metric, "features": features, "index": "flat", "target_recall": 0.95}
    store.create_collection("c", config | {"threshold": 0.5, "seed": 0})
    job = new_job_id()
    (folder / "jobs" / job).mkdir(parents=True)
    (folder / "jobs" / job / file.name).symlink_to(file)
    jobs = JobStore(store)
    params = {"upload": file.name, "options": {}}
    jobs.submit("import", params, collection=1, job_id=job, max_queued=1)
    settings = Settings(data_dir=folder)
    runner = JobRunner(
        store,
        settings,
        lambda: {"import": IMPORT},
        folder / "jobs",
        owner="worker:here:1:a",
        threads=1,
    )
    # What the loaders import is no memory of theirs.
    import pyarrow.parquet  # noqa: F401

    before = most = memory(os.getpid())
    runner.start()
    while not (found := jobs.get(job)).finished:
        most = max(most, memory(os.getpid()))
        time.sleep(0.05)
    runner.stop()
    told = {"state": found.state, "result": found.result, "error": found.error}
    sys.stdout.write(json.dumps(told | {"before": before, "most": most}) + "\n")
    store.close()


if __name__ == "__main__":
    main()
