"""Imports: the points of a file into a collection, as a job.

    file ──loaders──► batches ──features──► one transaction: the batch's rows and the checkpoint

The checkpoint is the number of the first row that was not stored yet. It is committed together with
the rows before it, so a job that is resumed, after whatever crash, stores each row once. Ids are
given by the file or made of positions in it, so that importing a file again replaces its points.

Near-duplicates that were looked for are listed in the result file. What a batch adds to it is on
disk before the batch is committed, and the checkpoint has the length: what is behind it was of a
batch that is done again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import orjson
from closeby.index.errors import InvalidInputError
from closeby.loaders import BadRowError, PointReader, open_points
from closeby.loaders import PointBatch as FileBatch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from .durable_files import sync_directory
from .errors import (
    CollectionNotFoundError,
    ImportFileError,
    StoreUnavailableError,
    TooManyRequestsError,
)
from .import_files import opened_under
from .import_urls import check_url, fetched
from .inputs import PointBatch
from .jobs import JobContext, Kind
from .near_duplicates import Duplicates, OnDuplicate, Policy, upsert_tested
from .registry import shard_folder
from .sealed_files import read_manifest
from .shard import Shard
from .store import CollectionRecord, Durability

__all__ = ["IMPORT", "IMPORT_TESTED", "ImportOptions", "opened_source", "run_import"]

BATCH_POINTS = 2_000
LOOK_BATCHES = 8
"""After so many batches a worker looks how long the unsealed part of the log is."""
MAX_TAIL_SEGMENTS = 16
"""How long it may be, in segments."""
PAUSE_SECONDS = 0.2
TRIES = 10
"""How often a batch is tried that the store cannot take for now."""
STRINGS = frozenset({"text", "sequence"})
"""Fields of a file that may stand for one another: both are strings."""


class ImportOptions(BaseModel):
    """How a file is to be imported."""

    model_config = ConfigDict(extra="forbid")

    format: str | None = Field(
        None, max_length=32, description="Of the file; default: by its name and content."
    )
    columns: dict[str, Any] | None = Field(
        None, description='Options of the format, such as {"column": "body", "id": "url"}.'
    )
    on_error: Literal["skip", "stop"] = Field(
        "skip", description="A row that cannot be a point is left out and counted, or ends the job."
    )
    on_duplicate: Literal["keep", "link", "skip", "reject"] | None = Field(
        None, description="What becomes of near-duplicates; default: they are not looked for."
    )
    threshold: float | None = Field(
        None, gt=0, le=1, description="Least similarity of a near-duplicate; with on_duplicate."
    )
    id_prefix: str | None = Field(
        None,
        max_length=256,
        description="Put before each id, which is then a string: keeps the rows of several files"
        " apart whose ids are numbers of lines.",
    )

    @model_validator(mode="after")
    def _both(self) -> ImportOptions:
        if (self.on_duplicate is None) != (self.threshold is None):
            raise ValueError("on_duplicate and threshold belong together")
        return self

    @property
    def kind(self) -> Kind:
        """The kind of job that does it: near-duplicates are found where the index is."""
        return IMPORT if self.on_duplicate is None else IMPORT_TESTED


@dataclass(slots=True)
class _Tally:
    """What became of the rows so far; kept in the checkpoint."""

    next_row: int = 1
    stored: int = 0
    bad: int = 0
    duplicates: int = 0
    told_bytes: int = 0
    """Length of the list of duplicates, in the result file."""


def run_import(context: JobContext) -> dict[str, Any]:
    """Store what the file holds; its counts."""
    options = ImportOptions.model_validate(context.params["options"])
    tally = _Tally(**(context.resume_from or {}))
    shard = _shard(context)
    with opened_source(context) as path:
        reader = open_points(
            path,
            format=options.format,
            options=options.columns,
            # Of files that hold sets or sparse vectors, what the collection holds.
            defaults={"values": shard.featurizer.field == "sparse"},
            on_error=options.on_error,
            batch_size=BATCH_POINTS,
            start_row=tally.next_row,
            on_read=context.check,
        )
        with contextlib.closing(reader):
            work = _Import(context, shard, reader, options, tally)
            for batch in reader:
                work.store(batch)
                work.tell()
            work.end()
    return work.counts()


@contextlib.contextmanager
def opened_source(context: JobContext) -> Iterator[Path]:
    """The file of an import, to be read within the context."""
    upload = context.params.get("upload")
    if upload is not None:
        path = context.folder / upload
        if not path.is_file():
            raise ImportFileError("the uploaded file is gone; upload it again")
        yield path
        return
    url = context.params.get("url")
    if url is not None:
        # Again, since the configuration may have changed.
        check_url(context.settings.import_urls, url)
        yield fetched(url, context.folder, context.settings.max_import_bytes, context.check)
        return
    asked, expected = context.params["path"], context.params["file"]
    roots = context.settings.import_roots
    with opened_under(roots, asked, context.folder, expected) as (path, _):
        yield path


class _Import:
    """One run of an import: stores batch by batch, and tells how far it is."""

    def __init__(
        self,
        context: JobContext,
        shard: Shard,
        reader: PointReader,
        options: ImportOptions,
        tally: _Tally,
    ) -> None:
        self._context = context
        self._shard = shard
        self._reader = reader
        self._options = options
        self._tally = tally
        self._bad_before = tally.bad
        self._refused = 0
        self._sampled = 0
        self._batches = 0
        if options.on_duplicate is not None:
            path = context.result_path()
            path.touch()
            sync_directory(path.parent)

    def store(self, batch: FileBatch) -> None:
        """Store the rows of a batch, and the checkpoint behind them."""
        self._check_field(batch)
        self._await_sealing()
        rows = self._usable(batch, [*range(len(batch))])
        self._tally.next_row = self._reader.next_row
        self._tally.bad = self._bad
        if not rows:
            return
        points = PointBatch(
            [self._id(batch.ids[row]) for row in rows],
            [batch.values[row] for row in rows],
            [_payload(batch.payloads[row]) for row in rows],
        )
        self._insist(points)

    def _await_sealing(self) -> None:
        """Pause, in a worker, while what the server has not sealed is much.

        That is what a start replays. In the server the shard itself makes writers wait.
        """
        self._batches += 1
        if self._context.in_server or self._batches % LOOK_BATCHES:
            return
        settings = self._context.settings
        # Read anew: an engine that was put in the place of another has a folder of its own.
        record = _record(self._context)
        folder = settings.shards_dir / shard_folder(record.id, record.config)
        most = max(MAX_TAIL_SEGMENTS * settings.segment_points, BATCH_POINTS * LOOK_BATCHES)
        # A collection without sealed files (an exact index) has no such folder.
        while folder.is_dir():
            sealed_seq = read_manifest(folder, record.id).sealed_seq
            if self._context.store.count_rows(record.id, sealed_seq) <= most:
                return
            self._context.wait(PAUSE_SECONDS)

    def _insist(self, points: PointBatch) -> None:
        for _ in range(TRIES - 1):
            try:
                self._write(points)
                return
            except (TooManyRequestsError, StoreUnavailableError) as error:
                # Nothing of it was kept. Here rather than from the checkpoint: the file would
                # have to be gone through again.
                self._context.wait(error.retry_after or 1.0)
        self._write(points)

    def _write(self, points: PointBatch) -> None:
        if self._options.on_duplicate is not None:
            self._write_tested(points, self._options.on_duplicate)
            return
        tally = replace(self._tally, stored=self._tally.stored + len(points.ids))
        also = self._context.checkpoint_with(asdict(tally))
        if self._context.in_server:
            # Rows and checkpoint are on disk together or not at all: no need to wait for it.
            self._shard.upsert(points, Durability.INDEXED, also)
        else:
            self._shard.append(points, also)
        self._tally = tally

    def _write_tested(self, points: PointBatch, policy: Policy) -> None:
        def listed(done: Duplicates) -> _Tally:
            tally = self._tally
            return replace(
                tally,
                stored=tally.stored + done.stored,
                duplicates=tally.duplicates + len(done.found),
                told_bytes=self._list(done),
            )

        assert self._options.threshold is not None
        done = upsert_tested(
            self._shard,
            points,
            OnDuplicate(policy, self._options.threshold),
            Durability.INDEXED,
            lambda done: self._context.checkpoint_with(asdict(listed(done))),
        )
        # Where all were left out nothing was committed: a resume would leave them out again.
        self._tally = listed(done)

    def _list(self, done: Duplicates) -> int:
        """Put the duplicates of the current batch, alone, behind those of the batches before.

        The length of the list with them; they are on disk. Doing it again changes nothing.
        """
        before = self._tally.told_bytes
        rows = b"".join(orjson.dumps(one.as_json()) + b"\n" for one in done.found)
        if not rows:
            return before
        with self._context.result_path().open("r+b") as file:
            file.truncate(before)
            file.seek(before)
            file.write(rows)
            file.flush()
            os.fsync(file.fileno())
        return before + len(rows)

    def end(self) -> None:
        """Cut off what a batch had listed that was never committed."""
        if self._options.on_duplicate is not None:
            with self._context.result_path().open("r+b") as file:
                file.truncate(self._tally.told_bytes)

    def tell(self) -> None:
        """Report progress. Raises what `JobContext.progress` raises."""
        report = self._reader.report
        for row in report.samples[self._sampled :]:
            self._context.error(row.reason, line=row.line)
        self._sampled = len(report.samples)
        total = self._reader.bytes_total
        fraction = self._reader.bytes_read / total if total else None
        self._context.progress(
            self._tally.stored,
            fraction=fraction,
            bad=self._bad,
            duplicates=self._tally.duplicates,
            bytes_read=self._reader.bytes_read,
            bytes_total=total,
        )

    def counts(self) -> dict[str, Any]:
        """The job's result."""
        tested = self._options.on_duplicate is not None
        return {
            "points": self._tally.stored,
            "bad": self._bad,
            "format": self._reader.format.name,
        } | ({"duplicates": self._tally.duplicates} if tested else {})

    @property
    def _bad(self) -> int:
        return self._bad_before + self._reader.report.bad + self._refused

    def _check_field(self, batch: FileBatch) -> None:
        wanted: str = self._shard.featurizer.field
        if batch.field != wanted and not {batch.field, wanted} <= STRINGS:
            raise ImportFileError(
                f"the file holds points with a {batch.field}, the collection points with a {wanted}"
            )

    def _usable(self, batch: FileBatch, rows: list[int]) -> list[int]:
        """Those of `rows` that the collection takes; the others are bad rows.

        A batch with a bad row is halved until that row is alone.
        """
        if not rows:
            return []
        try:
            self._shard.features([batch.values[row] for row in rows])
        except InvalidInputError as error:
            if len(rows) > 1:
                middle = len(rows) // 2
                return [*self._usable(batch, rows[:middle]), *self._usable(batch, rows[middle:])]
            self._refuse(batch.lines[rows[0]], str(error))
            return []
        return [row for row in rows if self._payload_fits(batch, row)]

    def _payload_fits(self, batch: FileBatch, row: int) -> bool:
        most = self._context.settings.max_payload_bytes
        payload = _payload(batch.payloads[row])
        if payload is None or len(payload) <= most:
            return True
        self._refuse(batch.lines[row], f"its payload has {len(payload)} bytes, the limit is {most}")
        return False

    def _refuse(self, line: int, reason: str) -> None:
        if self._options.on_error == "stop":
            raise BadRowError(self._reader.report.path, line, reason)
        self._refused += 1
        self._context.error(reason, line=line)

    def _id(self, given: int | str) -> int | str:
        prefix = self._options.id_prefix
        return given if prefix is None else f"{prefix}{given}"


def _shard(context: JobContext) -> Shard:
    """The collection: the server's own shard, or one to append to."""
    if context.in_server:
        return context.shard()
    most = context.settings.max_set_elements
    return Shard(context.store, _record(context), max_set_elements=most)


def _record(context: JobContext) -> CollectionRecord:
    """The collection as it is stored now."""
    for record in context.store.list_collections():
        if record.id == context.job.collection:
            return record
    raise CollectionNotFoundError("the collection was deleted")


def _payload(payload: dict[str, Any] | None) -> bytes | None:
    return None if payload is None else orjson.dumps(payload)


IMPORT = Kind("import", "anywhere", run_import)
IMPORT_TESTED = Kind("import_tested", "server", run_import)
