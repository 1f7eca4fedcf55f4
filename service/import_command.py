"""`closeby import` at the terminal: flags to a collection and a job, progress, exit code."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from closeby.client import (
    Client,
    ClosebyClientError,
    Collection,
    Job,
    JobFailedError,
    JobInfo,
    NotFoundError,
)
from closeby.loaders import LoaderError, PointReader, open_points
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TaskID

from .feature_flags import WrongUseError, features_for, named_features
from .terminal import FAILED, WRONG_USE, bar, first_line, refuse

__all__ = ["ImportFlags", "run_import_command"]

SHOWN_ERRORS = 5


@dataclass(frozen=True, slots=True)
class ImportFlags:
    """What the flags say; None: not given."""

    url: str
    api_key_file: Path | None
    metric: str | None
    shingles: int | None
    unit: str
    words: int | None
    kmers: int | None
    target_recall: float | None
    collection_threshold: float | None
    store: str | None
    wait: bool
    on_server: bool
    options: dict[str, Any]
    """Of the import: `Collection.import_file`."""


def run_import_command(name: str, source: Path, flags: ImportFlags) -> int:
    """Run the command: 0 if it was done (or queued), 1 if it failed, 2 for wrong flags."""
    console = Console(stderr=True, highlight=False)
    try:
        _read_columns(flags.options)
        key = None if flags.api_key_file is None else first_line(flags.api_key_file)
        with Client(flags.url, api_key=key) as db:
            collection = _collection(db, name, source, flags)
            job = _start(console, collection, source, flags)
            if not flags.wait:
                sys.stdout.write(f"{job.id}\n")
                return 0
            _show(console, _watch(console, job), name)
            return 0
    except WrongUseError as error:
        return refuse(str(error), WRONG_USE)
    except JobFailedError as error:
        _show_errors(console, error.job)
        return refuse(str(error), FAILED)
    except (ClosebyClientError, LoaderError) as error:
        return refuse(str(error), FAILED)
    except OSError as error:
        shown = f"{error.filename}: " if error.filename else ""
        return refuse(f"{shown}{error.strerror or error}", FAILED)
    except KeyboardInterrupt:
        return refuse("stopped; a job that was begun goes on (GET /v1/jobs)", 130)


def _read_columns(options: dict[str, Any]) -> None:
    text = options.get("columns")
    if text is None:
        return
    try:
        options["columns"] = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise WrongUseError(f"--columns {text} is no JSON object") from None
    if not isinstance(options["columns"], dict):
        raise WrongUseError(f"--columns {text} is no JSON object")


def _collection(db: Client, name: str, source: Path, flags: ImportFlags) -> Collection:
    """The collection, created if there is none."""
    collection = db.collection(name)
    try:
        collection.info()
    except NotFoundError:
        named = named_features(flags.shingles, flags.unit, flags.words, flags.kmers)
        features = named or _found_features(source, flags)
        metric = flags.metric or ("cosine" if features["kind"] == "vector" else "jaccard")
        return db.create_collection(
            name,
            metric=metric,
            features=features,
            target_recall=flags.target_recall,
            threshold=flags.collection_threshold,
            store=flags.store,
        )
    return collection


def _found_features(source: Path, flags: ImportFlags) -> dict[str, Any]:
    """What suits the first points of the file."""
    if flags.on_server:
        raise WrongUseError(
            "there is no such collection, and a file of the server's cannot be looked into from"
            " here: say --shingles, --words or --kmers, or create the collection first"
        )
    for batch in _open(source, flags):
        return features_for(batch, flags.unit)
    raise WrongUseError(f"{source} holds no point, so it cannot be told what the collection is of")


def _open(source: Path, flags: ImportFlags) -> PointReader:
    named = flags.options
    return open_points(
        source, format=named.get("format"), options=named.get("columns"), batch_size=100
    )


def _start(console: Console, collection: Collection, source: Path, flags: ImportFlags) -> Job:
    with bar(console) as shown:
        task = shown.add_task("uploading", total=None, rate="")

        def sent(done: int, total: int) -> None:
            shown.update(task, completed=done, total=total, rate=f"{done / 1e6:,.1f} MB")

        return collection.import_file(
            source, on_server=flags.on_server, progress=sent, **flags.options
        )


def _watch(console: Console, job: Job) -> JobInfo:
    with bar(console) as shown:
        task = shown.add_task("waiting", total=None, rate="")
        return job.wait(progress=lambda info: _advance(shown, task, info))


def _advance(shown: Progress, task: TaskID, info: JobInfo) -> None:
    progress = info.progress
    rate = "" if progress.rate is None else f" ({progress.rate:,.0f}/s)"
    bad = progress.counters.get("bad")
    shown.update(
        task,
        description="importing" if info.state == "running" else info.state,
        total=progress.counters.get("bytes_total"),
        completed=progress.counters.get("bytes_read", 0),
        rate=f"{progress.done:,.0f} points{rate}" + (f", {bad:,} bad rows" if bad else ""),
    )


def _show(console: Console, info: JobInfo, name: str) -> None:
    result = info.result or {}
    _show_errors(console, info)
    counts = ", ".join(
        f"{value:,} {key}"
        for key, value in result.items()
        if isinstance(value, int) and (value or key == "points")
    )
    console.print(escape(f"{name}: {counts}"), soft_wrap=True)


def _show_errors(console: Console, info: JobInfo) -> None:
    for error in info.errors[:SHOWN_ERRORS]:
        line = f"line {error['line']}: " if "line" in error else ""
        console.print(escape(f"{line}{error.get('detail')}"), style="yellow", soft_wrap=True)
