r"""Reading in a process of its own, for formats that only large C libraries read.

    this process                              the reader (`python -m closeby.loaders.confined`)
    format.batches ─ start ─────────────────▶ format.read: opens, checks, makes batches
          ▲                                            │
          └──────── frames through a pipe ─────────────┘

A Parquet, Arrow or HDF5 file can make its library crash, hang or ask for all memory: their
formats are deep, and they were not written for files from strangers. The reader has a bound on
its memory, and whatever becomes of it is a `LoaderError` here.

A frame is two lengths (uint32 of JSON, uint64 of an array), the JSON, and the array with the
numbers of a batch: float64 for vectors, uint64 for sets of integers.
"""

from __future__ import annotations

import dataclasses
import os
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import accumulate, pairwise
from typing import Any, ClassVar, Protocol

import numpy as np
import orjson

from .errors import (
    BadRowError,
    DamagedFileError,
    FileTooLargeError,
    LoaderError,
    MissingExtraError,
    WrongFormatError,
)
from .points import PointBatch
from .report import BadRow, Report
from .source import Source

STALL_SECONDS = 300.0
FRAME = struct.Struct("<IQ")
DTYPES = {"vector": np.dtype("<f8"), "set": np.dtype("<u8")}

_PIPE_BYTES = 1024 * 1024
_AT_A_LINE: dict[str, type[DamagedFileError | BadRowError]] = {
    "DamagedFileError": DamagedFileError,
    "BadRowError": BadRowError,
}
_OF_THE_FILE: dict[str, type[LoaderError]] = {
    "WrongFormatError": WrongFormatError,
    "FileTooLargeError": FileTooLargeError,
}


class ConfinedFormat(Protocol):
    """A format whose files are read in a process of their own; a dataclass of its options."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    name: ClassVar[str]
    package: ClassVar[str]

    def read(self, source: Source, report: Report, size: int) -> Iterator[PointBatch]:
        """Like `Format.batches`, but called in the reader; checks the file before it returns.

        Raises WrongFormatError at once if the file is not what it says.
        """


def confined(
    format: ConfinedFormat,  # noqa: A002
    source: Source,
    report: Report,
    size: int,
) -> Iterator[PointBatch]:
    """The batches of `format.read`, made in a process of their own.

    Raises WrongFormatError or MissingExtraError at once, what `Format.batches` raises later.
    """
    if not source.head:
        return iter(())
    if source.compression is not None:
        raise WrongFormatError(
            source.path, f"{format.name} files are read here and there; decompress it first"
        )
    if find_spec(format.package) is None:
        raise MissingExtraError(source.path, format.package)
    reader = _Reader(format, source, report, size)
    try:
        reader.frame()  # says that the file was opened and is what it says
    except BaseException:
        reader.close()
        raise
    return reader


def _decoded(columns: dict[str, Any], numbers: bytes) -> PointBatch:
    batch = PointBatch(columns["field"], columns["ids"], columns["values"])
    batch.payloads, batch.lines = columns["payloads"], columns["lines"]
    if columns["values"] is None:
        elements = np.frombuffer(numbers, DTYPES[batch.field]).tolist()
        bounds = accumulate(columns["lengths"], initial=0)
        batch.values = [elements[start:stop] for start, stop in pairwise(bounds)]
    return batch


class _Reader:
    """The process, and the batches that come from it in frames."""

    def __init__(
        self,
        format: ConfinedFormat,  # noqa: A002
        source: Source,
        report: Report,
        size: int,
    ) -> None:
        self._ended = True  # until it has begun
        self._source = source
        self._report = report
        self._line = report.start_row
        task = {
            "path": os.fsencode(source.path.absolute()).hex(),
            "format": format.name,
            "options": {f.name: getattr(format, f.name) for f in dataclasses.fields(format)},
            "limits": dataclasses.asdict(source.limits),
            "on_error": report.on_error,
            "start_row": report.start_row,
            "size": size,
        }
        self._process = subprocess.Popen(  # noqa: S603, our own interpreter and module
            [sys.executable, "-m", "closeby.loaders.confined", orjson.dumps(task).decode()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._ended = False

    def __iter__(self) -> Iterator[PointBatch]:
        return self

    def __next__(self) -> PointBatch:
        try:
            while not self._ended and (frame := self.frame()) is not None:
                about, numbers = frame
                if "batch" in about:
                    return _decoded(about["batch"], numbers)
        except BaseException:
            self.close()
            raise
        self.close()
        raise StopIteration

    def frame(self) -> tuple[dict[str, Any], bytes] | None:
        """The next frame, None after the last one; raises what the reader was stopped by."""
        json_size, array_size = FRAME.unpack(self._bytes(FRAME.size))
        about: dict[str, Any] = orjson.loads(self._bytes(json_size))
        numbers = self._bytes(array_size)
        if "points" in about:
            self._report.points, self._report.bad = about["points"], about["bad"]
            self._report.samples[:] = [BadRow(line, why) for line, why in about["samples"]]
            self._source.bytes_read = about["bytes_read"]
        if "batch" in about:
            self._line = about["batch"]["lines"][-1] + 1
        if "error" in about:
            raise self._error(about["error"], about["reason"], about["line"])
        return None if about.get("end") else (about, numbers)

    def close(self) -> None:
        """End the process if it has not ended; nothing of it remains."""
        self._ended = True
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __del__(self) -> None:
        if not self._ended:
            self.close()

    def _error(self, name: str, reason: str, line: int) -> LoaderError:
        if name in _AT_A_LINE:
            return _AT_A_LINE[name](self._source.path, line, reason)
        return _OF_THE_FILE[name](self._source.path, reason)

    def _bytes(self, size: int) -> bytes:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        parts: list[bytes] = []
        while size:
            if not poll.poll(STALL_SECONDS * 1000):
                raise self._damaged(f"its reader stood still for {STALL_SECONDS:.0f} seconds")
            part = os.read(pipe, min(size, _PIPE_BYTES))
            if not part:
                code = self._process.wait()
                ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                raise self._damaged(f"its reader ended with {ended}")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _damaged(self, reason: str) -> DamagedFileError:
        return DamagedFileError(self._source.path, self._line, reason)
