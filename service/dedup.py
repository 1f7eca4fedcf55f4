"""Near-duplicates of one file, without a server: what `closeby dedup` does.

::

    IN ─ loader ─ featurizer ─ sets or vectors ─ all pairs ─┬─ PAIRS
                                                            └─ clusters ─ rows to keep ─┐
    IN, once more ─ raw lines ──────────────────────────────────────────────────────────┴─ OUT

Only features, ids and line numbers are held in memory. OUT has the kept records byte for byte as
they are in IN where records are lines, else as JSONL; it and PAIRS appear under their names when
they are complete.
"""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import numpy as np
import numpy.typing as npt
import orjson
from closeby.index import Featurizer, InvalidInputError, SetBatch, featurizer_from
from closeby.index.duplicates import (
    TARGET_RECALL,
    DuplicateSearch,
    JoinPlan,
    Rule,
    SetStore,
    clusters,
    representatives,
)
from closeby.loaders import (
    Fasta,
    Format,
    Jsonl,
    LoaderError,
    PointBatch,
    PointReader,
    Report,
    WrongFormatError,
    open_points,
)
from closeby.loaders.source import Source

Step = Callable[[str, float], None]
"""Told what is being done and which share of it is done, 0 to 1."""

BATCH_POINTS = 10_000
DEFAULT_FEATURES: dict[str, dict[str, Any]] = {
    "text": {"kind": "shingles", "unit": "byte", "n": 4},
    "sequence": {"kind": "kmers", "k": 16, "canonical": True},
}
_COPIED = ("lines", "jsonl", "fasta", "libsvm")
"""Formats whose records are whole lines; of all others OUT has the kept points as JSONL."""
_FASTQ_LINES = 4
_OPEN: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}


class DedupError(Exception):
    """The command cannot do what it was asked for; one line for the user."""


@dataclass(frozen=True)
class DedupOptions:
    """What to find and what to keep; see `closeby dedup --help`.

    features: a featurizer's specification; that of the field unless given.
    name: the field's name in JSONL, if it is none of text, sequence, set and vector.
    """

    threshold: float
    features: dict[str, Any] | None = None
    name: str | None = None
    format: str | None = None
    keep: Rule = "first"
    target_recall: float = TARGET_RECALL
    on_error: Literal["skip", "stop"] = "skip"
    seed: int = 0
    threads: int = 1


@dataclass
class DedupResult:
    """What was found: counts of records, pairs (None unless they were listed) and clusters."""

    report: Report
    kept: int
    clusters: int
    pairs: int | None
    plan: JoinPlan
    metric: str


@dataclass
class _Records:
    """Of each record, in the order of IN: what it is called, where it begins and how long it is."""

    ids: list[Any] = field(default_factory=list)
    lines: list[npt.NDArray[np.int64]] = field(default_factory=list)
    lengths: list[npt.NDArray[np.int64]] = field(default_factory=list)

    def append(self, batch: PointBatch) -> None:
        self.ids += batch.ids
        self.lines.append(np.array(batch.lines, np.int64))
        self.lengths.append(np.fromiter(map(len, batch.values), np.int64, len(batch)))


def deduplicate(
    path: Path, output: Path, pairs: Path | None, options: DedupOptions, step: Step
) -> DedupResult:
    """Write one record of each cluster of near-duplicates in `path` to `output`.

    Raises:
        LoaderError: the file cannot be read, or with on_error="stop" one of its records.
        InvalidInputError: an option out of range.
        DedupError: the files do not go together.
        OSError: a file cannot be opened or written.
    """
    _check_paths(path, output, pairs)
    # Wrong numbers are refused before the file is read.
    DuplicateSearch([], options.threshold, target_recall=options.target_recall)
    reader = open_points(
        path,
        format=_format(options),
        on_error=options.on_error,
        batch_size=BATCH_POINTS,
    )
    points, records = _read(reader, options, step)
    search = DuplicateSearch(
        points,
        options.threshold,
        target_recall=options.target_recall,
        seed=options.seed,
        threads=options.threads,
    )
    step("comparing", 0)
    listed: int | None = None
    if pairs is None:
        labels = search.clusters()
    else:
        with _written(pairs) as file:
            listed, labels = _write_pairs(file, search, records.ids)
    lengths = np.concatenate([np.zeros(0, np.int64), *records.lengths])
    chosen = representatives(labels, options.keep, lengths)
    lines = np.concatenate([np.zeros(0, np.int64), *records.lines])[chosen]
    with _written(output) as file:
        if reader.format.name in _COPIED:
            _copy_records(path, reader.format, lines, file, step)
        else:
            _write_points(path, reader.format, lines, file, step)
    sizes = np.bincount(labels, minlength=1)
    return DedupResult(
        reader.report, len(chosen), int((sizes > 1).sum()), listed, search.plan, search.metric
    )


# --- reading -----------------------------------------------------------------------------------


def _check_paths(path: Path, output: Path, pairs: Path | None) -> None:
    named = {"OUT": output} | ({} if pairs is None else {"PAIRS": pairs})
    for name, target in named.items():
        if target.exists() and path.exists() and target.samefile(path):
            raise DedupError(f"{name} is IN: {target}")
        if target.is_dir():
            raise DedupError(f"{name} is a directory: {target}")
    if pairs is not None and pairs.resolve() == output.resolve():
        raise DedupError(f"PAIRS is OUT: {pairs}")


def _format(options: DedupOptions) -> str | Format | None:
    if options.name is None:
        return options.format
    if options.format not in (None, "jsonl"):
        raise DedupError(f"--field names a field of JSONL; {options.format} has none")
    if options.name in ("text", "sequence", "set", "vector"):
        return Jsonl(cast(Any, options.name))
    kind = featurizer_from(options.features).field if options.features else "text"
    return Jsonl(cast(Any, kind), key=options.name)


def _read(
    reader: PointReader, options: DedupOptions, step: Step
) -> tuple[SetStore | npt.NDArray[np.float32], _Records]:
    sets, records = SetStore(), _Records()
    vectors: list[npt.NDArray[np.float32]] = []
    featurizer: Featurizer | None = None
    for batch in reader:
        if featurizer is None:
            featurizer = _featurizer(batch, options)
        features = _features(featurizer, batch, reader.report)
        if isinstance(features, SetBatch):
            sets.append(features)
        else:
            vectors.append(features)
        records.append(batch)
        step("reading", reader.bytes_read / max(1, reader.bytes_total))
    return (np.concatenate(vectors) if vectors else sets), records


def _features(
    featurizer: Featurizer, batch: PointBatch, report: Report
) -> SetBatch | npt.NDArray[np.float32]:
    """Features of a batch; rows that cannot have any are taken out of it and reported."""
    while True:
        try:
            return featurizer.features(batch.values)
        except InvalidInputError as error:
            if error.row is None:
                raise
            report.points -= 1
            report.reject(batch.lines[error.row], str(error))
            for column in (batch.ids, batch.values, batch.payloads, batch.lines):
                del column[error.row]


def _featurizer(batch: PointBatch, options: DedupOptions) -> Featurizer:
    spec = options.features
    if spec is None and batch.field == "set":
        spec = {"kind": "tokens" if isinstance(batch.values[0][0], str) else "ids"}
    elif spec is None and batch.field == "vector":
        spec = {"kind": "vector", "dim": len(batch.values[0])}
    if batch.field == "sparse":
        raise DedupError("the records are sparse vectors, of which duplicates cannot be found yet")
    featurizer = featurizer_from(spec or DEFAULT_FEATURES[batch.field])
    if featurizer.field != batch.field:
        raise DedupError(
            f"features of kind {featurizer.kind!r} are made of a {featurizer.field}, and the "
            f"records have a {batch.field}"
        )
    return featurizer


# --- writing -----------------------------------------------------------------------------------


@contextmanager
def _written(path: Path) -> Iterator[BinaryIO]:
    """A file that appears as `path`, compressed as its name says, when all of it is written."""
    part = path.with_name(path.name + ".part")
    opening: Callable[..., Any] = _OPEN.get(path.suffix, open)
    try:
        with opening(part, "wb") as file:
            yield file
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    part.replace(path)


def _write_pairs(
    file: BinaryIO, search: DuplicateSearch, ids: list[Any]
) -> tuple[int, npt.NDArray[np.int64]]:
    """Write all pairs; how many they are, and the cluster of each point."""
    count = 0

    def counted() -> Iterator[Any]:
        nonlocal count
        for block in search.pairs():
            columns = zip(block.a.tolist(), block.b.tolist(), block.scores.tolist(), strict=True)
            file.writelines(
                orjson.dumps({"a": ids[a], "b": ids[b], "score": score}) + b"\n"
                for a, b, score in columns
            )
            count += len(block)
            yield block

    labels = clusters(counted(), len(search))
    return count, labels


def _copy_records(
    path: Path,
    format: Format,  # noqa: A002
    lines: npt.NDArray[np.int64],
    file: BinaryIO,
    step: Step,
) -> None:
    """Copy the records that begin at these lines (1-based, rising), byte for byte."""
    source = Source(path)
    fasta = isinstance(format, Fasta) and not source.head.lstrip().startswith(b"@")
    length = _FASTQ_LINES if isinstance(format, Fasta) else 1
    starts = iter(lines.tolist())
    start = next(starts, None)
    left = 0  # lines of the record that is being copied
    for number, line in enumerate(_raw_lines(source), 1):
        if fasta and line.startswith(b">"):
            left = 0
        if number == start:
            left = -1 if fasta else length
            start = next(starts, None)
        if left:
            file.write(line)
            left -= 1
        elif start is None and not fasta:
            return
        if number % BATCH_POINTS == 0:
            step("writing", source.bytes_read / max(1, source.bytes_total))


def _write_points(
    path: Path,
    format: Format,  # noqa: A002
    lines: npt.NDArray[np.int64],
    file: BinaryIO,
    step: Step,
) -> None:
    """Write the points of these rows (1-based) as JSONL."""
    reader = open_points(path, format=format, batch_size=BATCH_POINTS)
    for batch in reader:
        kept = np.isin(np.array(batch.lines, np.int64), lines)
        for point, wanted in zip(batch.points(), kept.tolist(), strict=True):
            if wanted:
                file.write(orjson.dumps(point) + b"\n")
        step("writing", reader.bytes_read / max(1, reader.bytes_total))


def _raw_lines(source: Source) -> Iterator[bytes]:
    """Each line with its end; of lines over the limit, which are no records, only the end."""
    limit = source.limits.record
    rest: list[bytes] = []
    size = 0
    for chunk in source.chunks():
        *whole, last = chunk.split(b"\n")
        for piece in whole:
            rest.append(piece)
            yield b"".join(rest) + b"\n" if rest[1:] else piece + b"\n"
            rest, size = [], 0
        size += len(last)
        rest = [*rest, last] if size <= limit else [b""]
    if rest and (line := b"".join(rest)):
        yield line


__all__ = [
    "DedupError",
    "DedupOptions",
    "DedupResult",
    "LoaderError",
    "WrongFormatError",
    "deduplicate",
]
