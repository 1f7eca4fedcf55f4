"""Tasks of a bulk build on all machines of a Ray cluster, by Ray Data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import ray.data
from closeby.index.errors import ClosebyError
from closeby.loaders import LoaderError
from closeby.service.cluster.bulk_build import Row
from closeby.service.errors import ImportFileError, StoreUnavailableError

__all__ = ["RaySpread"]

READ_CPUS = 0.5
"""Reading waits for the disk and parses; its other value than `STORE_CPUS` also keeps Ray from
joining both steps into one task a file, which would be one core a file."""
STORE_CPUS = 0.75
BLOCK_BYTES = 4 << 20
"""What is read goes on to the next step in blocks of this size, not a file at a time."""
SEAL_CPUS = 1
FILE, STORE = "file", "store"
"""What failed: an import's file, or PostgreSQL or object storage."""


class RaySpread:
    """See `bulk_build.Spread`. Ray is initialised.

    Raises ImportFileError, StoreUnavailableError with what a task raised: exceptions do not come
    through Ray Data as they are.
    """

    def __init__(self) -> None:
        context = ray.data.DataContext.get_current()
        context.target_max_block_size = BLOCK_BYTES
        context.enable_progress_bars = False

    def flow(
        self,
        files: Sequence[Row],
        read: Callable[[Row], Iterator[Row]],
        store: Callable[[Row], Row],
    ) -> Iterable[Row]:
        """See `Spread.flow`."""
        opened = ray.data.from_items(list(files), override_num_blocks=max(1, len(files)))
        points = opened.flat_map(partial(_read, read), num_cpus=READ_CPUS)
        stored = points.map(partial(_work, store), num_cpus=STORE_CPUS)
        for row in stored.iter_rows():
            yield _unless_failed(row)

    def each(self, asked: Sequence[Row], work: Callable[[Row], Row]) -> Iterable[Row]:
        """See `Spread.each`."""
        # Not as tables: what is asked for is nested.
        remote: Any = ray.remote(num_cpus=SEAL_CPUS)(_work)
        waiting = [remote.remote(work, one) for one in asked]
        while waiting:
            (done,), waiting = ray.wait(waiting)
            yield _unless_failed(ray.get(done))


def _read(read: Callable[[Row], Iterator[Row]], file: Row) -> Iterator[Row]:
    """The rows of `read`, all with the same columns, and how it failed."""
    try:
        for row in read(file):
            yield {"failure": "", "why": ""} | row
    except (ClosebyError, OSError) as error:
        yield file | {"first": 0, "points": b"", "bad": 0, "reasons": b""} | _failure(error)


def _work(work: Callable[[Row], Row], asked: Row) -> Row:
    """What `work` gives, or how it failed."""
    if asked.get("failure"):
        return asked
    try:
        return {"failure": "", "why": ""} | work(asked)
    except (ClosebyError, OSError) as error:
        return _failure(error)


def _failure(error: Exception) -> Row:
    file = isinstance(error, LoaderError | ImportFileError)
    return {"failure": FILE if file else STORE, "why": str(error)}


def _unless_failed(row: Row) -> Row:
    if row["failure"] == FILE:
        raise ImportFileError(row["why"])
    if row["failure"]:
        raise StoreUnavailableError(row["why"])
    return row
