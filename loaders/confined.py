"""The reader that `confinement` starts: one file to frames on standard output.

Its one argument is the task, as JSON: path, format, options, limits.
"""

from __future__ import annotations

import os
import resource
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import orjson

from .confinement import DTYPES, FRAME, ConfinedFormat
from .detect import format_named
from .errors import BadRowError, DamagedFileError, FileTooLargeError, WrongFormatError
from .points import PointBatch
from .report import Report
from .source import Limits, Source


def main(task: dict[str, Any], out: BinaryIO) -> None:
    """Write the frames of one file: one when it is open, one a batch, one at the end."""
    path = Path(os.fsdecode(bytes.fromhex(task["path"])))
    report = Report(path, task["on_error"], task["start_row"])
    limits = Limits(**task["limits"])
    source = Source(path, limits)
    line = report.start_row
    try:
        named = format_named(source.path, task["format"], task["options"])
        format = cast(ConfinedFormat, named)  # noqa: A001
        import_module(format.package)
        _bound_memory(limits.memory)
        batches = format.read(source, report, task["size"])
        _write(out, {})
        for batch in batches:
            line = batch.lines[-1] + 1
            _write_batch(out, batch, source, report)
        _write(out, _progress(source, report))
        _write(out, {"end": True})
    except (WrongFormatError, FileTooLargeError) as error:
        _write_error(out, type(error).__name__, error.reason, line, source, report)
    except DamagedFileError as error:
        _write_error(out, "DamagedFileError", error.cause, error.line, source, report)
    except BadRowError as error:
        _write_error(out, "BadRowError", error.cause, error.line, source, report)
    except MemoryError:
        reason = f"reading it takes more than {limits.memory} bytes of memory at a time"
        _write_error(out, "FileTooLargeError", reason, line, source, report)


def _bound_memory(limit: int) -> None:
    """Let this process take `limit` bytes more than it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + limit
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _progress(source: Source, report: Report) -> dict[str, Any]:
    return {
        "points": report.points,
        "bad": report.bad,
        "samples": report.samples,
        "bytes_read": source.bytes_read,
    }


def _write_batch(out: BinaryIO, batch: PointBatch, source: Source, report: Report) -> None:
    columns: dict[str, Any] = {
        "field": batch.field,
        "ids": batch.ids,
        "values": batch.values,
        "payloads": batch.payloads,
        "lines": batch.lines,
    }
    numbers = b""
    dtype = DTYPES.get(batch.field)
    if dtype is not None and not isinstance(batch.values[0][0], str):
        columns["lengths"] = [len(value) for value in batch.values]
        columns["values"] = None
        numbers = b"".join(np.array(value, dtype).tobytes() for value in batch.values)
    _write(out, {**_progress(source, report), "batch": columns}, numbers)


def _write_error(
    out: BinaryIO, name: str, reason: str, line: int, source: Source, report: Report
) -> None:
    told = {"error": name, "reason": reason, "line": line}
    _write(out, {**_progress(source, report), **told})


def _write(out: BinaryIO, about: dict[str, Any], numbers: bytes = b"") -> None:
    data = orjson.dumps(about)
    out.write(FRAME.pack(len(data), len(numbers)) + data)
    out.write(numbers)
    out.flush()


if __name__ == "__main__":
    main(orjson.loads(sys.argv[1]), sys.stdout.buffer)
