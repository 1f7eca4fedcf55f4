"""Open a file of any known format and read its points batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .detect import detect
from .points import Format, PointBatch
from .report import OnError, Report
from .source import Limits, Source

BATCH_POINTS = 1000


class PointReader:
    """An iterator of `PointBatch`, with the `report` of what was read so far.

    `format` is what the file was found to be; `bytes_read` of `bytes_total` (as on disk) tells
    how far the reading is; `next_row` is where another one goes on after the batches given so far.
    """

    def __init__(self, source: Source, format: Format, report: Report, batch_size: int) -> None:  # noqa: A002
        self.format = format
        self.report = report
        self._source = source
        self.next_row = report.start_row
        self._batches = format.batches(source, report, batch_size)

    @property
    def bytes_total(self) -> int:
        """Size of the file on disk."""
        return self._source.bytes_total

    @property
    def bytes_read(self) -> int:
        """How much of the file on disk has been read."""
        return self._source.bytes_read

    def close(self) -> None:
        """Stop reading; nothing of it remains open. Not needed at the end."""
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()

    def __iter__(self) -> Iterator[PointBatch]:
        return self

    def __next__(self) -> PointBatch:
        batch = next(self._batches)
        self.next_row = batch.lines[-1] + 1
        return batch


def open_points(
    path: str | Path,
    *,
    format: str | Format | None = None,  # noqa: A002
    on_error: OnError = "skip",
    batch_size: int = BATCH_POINTS,
    limits: Limits | None = None,
    start_row: int = 1,
    options: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
    on_read: Callable[[], object] | None = None,
) -> PointReader:
    """Open a file of points, compressed by gzip, xz or zstd or not at all.

    format: the name of a format ("lines", "fasta", "jsonl"), one with its options
        (`Lines(urls=True)`), or None to find it by extension and content.
    options: of the format, by name (`{"column": "body", "id": "url"}`), where `format` is no
        object that has them already.
    defaults: options that a format takes if it has them and `options` do not say otherwise.
    on_error: what a bad row does. "skip" counts it in `report` and goes on; "stop" raises.
    batch_size: points in a batch, at most; batches of long points are smaller.
    start_row: the first line, or row by number from 1, that is wanted. With the `next_row` of an
        earlier reader of the same file this one gives what that one did not, and `report` counts
        from there on. Files whose rows have no ids are gone through without being parsed, or are
        sought in.
    on_read: called after every 256 KiB at the latest, decompressed, also where no point is found;
        what it raises ends the reading. (Not while a reader in a process of its own is at work.)

    Raises, at once:
        OSError: the file cannot be opened.
        UnknownFormatError, WrongFormatError, DamagedFileError: by what it begins with.
        FormatOptionError: the format has no such option, or not that value of it.
        MissingExtraError: a package of the extra `files` is needed and not installed.
    and while iterating:
        BadRowError: a bad row with `on_error="stop"`.
        DamagedFileError: the file is truncated or corrupt further on, whatever `on_error` says.
        FileTooLargeError: there is more of it than `limits.total`.
    """
    if on_error not in ("skip", "stop"):
        raise ValueError(f"on_error is {on_error!r}; it can be 'skip' or 'stop'")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    if start_row < 1:
        raise ValueError(f"start_row is {start_row}; it must be at least 1")
    source = Source(Path(path), limits, on_read)
    report = Report(source.path, on_error, start_row)
    return PointReader(source, detect(source, format, options, defaults), report, batch_size)
