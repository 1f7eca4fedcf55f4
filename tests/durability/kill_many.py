"""``python -m tests.durability.kill_many --kills 1000``: the long run of `crashes`.

Writes what came of it as JSON, with machine and commit. Exit code 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.durability.kill_many")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="stop after so long, with fewer kills")
    parser.add_argument("--longest", type=float, default=1.0, help="seconds of load before a kill")
    parser.add_argument("--workers", type=int, default=0, help="processes that build segments")
    parser.add_argument("--output", type=Path, help="JSON file; default: standard output alone")
    options = parser.parse_args()

    # Imported here, before the servers are forked, which then start at once.
    import closeby.service.app
    import closeby.service.job_kinds
    import closeby.service.serving
    import closeby.service.worker  # noqa: F401
    from crashes import kill_many

    start = time.monotonic()
    deadline = None if options.minutes is None else start + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        outcome = kill_many(
            Path(folder),
            options.kills,
            options.seed,
            longest=options.longest,
            deadline=deadline,
            workers=options.workers,
        )
    result = {
        "what": "SIGKILL at a random moment under the load of 4 writing clients",
        "kills": outcome.kills,
        "workers": options.workers,
        "worker_kills": outcome.worker_kills,
        "segments_built_by_workers": outcome.built,
        "acknowledged_requests": outcome.acknowledged,
        "lost_or_wrong": len(outcome.faults),
        "faults": outcome.faults[:20],
        "ready_seconds_median": round(statistics.median(outcome.ready_seconds), 3),
        "ready_seconds_max": round(max(outcome.ready_seconds), 3),
        "seconds": round(time.monotonic() - start, 1),
        "seed": options.seed,
    }
    if options.output is not None:
        from benchmarks import machine

        options.output.write_text(json.dumps(result | {"machine": machine.describe()}, indent=1))
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
