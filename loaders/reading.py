"""Open a file of any known format and read its points batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .detect import detect
from .points import Format, PointBatch
from .report import OnError, Report
from .source import Limits, Source

BATCH_POINTS = 1000


class PointReader:
    """An iterator of `PointBatch`, with the `report` of what was read so far.

    `format` is what the file was found to be; `bytes_read` of `bytes_total` (as on disk) tells
    how far the reading is.
    """

    def __init__(self, source: Source, format: Format, report: Report, batch_size: int) -> None:  # noqa: A002
        self.format = format
        self.report = report
        self._source = source
        self._batches = format.batches(source, report, batch_size)

    @property
    def bytes_total(self) -> int:
        """Size of the file on disk."""
        return self._source.bytes_total

    @property
    def bytes_read(self) -> int:
        """How much of the file on disk has been read."""
        return self._source.bytes_read

    def __iter__(self) -> Iterator[PointBatch]:
        return self

    def __next__(self) -> PointBatch:
        return next(self._batches)


def open_points(
    path: str | Path,
    *,
    format: str | Format | None = None,  # noqa: A002
    on_error: OnError = "skip",
    batch_size: int = BATCH_POINTS,
    limits: Limits | None = None,
) -> PointReader:
    """Open a file of points, compressed by gzip or xz or not at all.

    format: the name of a format ("lines", "fasta", "jsonl"), one with its options
        (`Lines(urls=True)`), or None to find it by extension and content.
    on_error: what a bad row does. "skip" counts it in `report` and goes on; "stop" raises.
    batch_size: points in a batch, at most; batches of long points are smaller.

    Raises, at once:
        OSError: the file cannot be opened.
        UnknownFormatError, WrongFormatError, DamagedFileError: by what it begins with.
    and while iterating:
        BadRowError: a bad row with `on_error="stop"`.
        DamagedFileError: the file is truncated or corrupt further on, whatever `on_error` says.
        FileTooLargeError: there is more of it than `limits.total`.
    """
    if on_error not in ("skip", "stop"):
        raise ValueError(f"on_error is {on_error!r}; it can be 'skip' or 'stop'")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    source = Source(Path(path), limits)
    report = Report(source.path, on_error)
    return PointReader(source, detect(source, format), report, batch_size)
