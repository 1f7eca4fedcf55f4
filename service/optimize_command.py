"""`closeby select` and `closeby frank-wolfe` at the terminal: rows out, a summary on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from closeby.client import Client, ClosebyClientError, Collection, JobFailedError, JobInfo
from rich.console import Console

from .terminal import FAILED, WRONG_USE, bar, first_line, refuse

__all__ = ["OptimizeFlags", "run_frank_wolfe_command", "run_select_command"]


class WrongUseError(Exception):
    """A flag whose value cannot be read."""


@dataclass(frozen=True, slots=True)
class OptimizeFlags:
    """What the flags of both commands say; None: not given."""

    url: str
    api_key_file: Path | None
    output: Path | None
    matching: str | None
    exclude: Path | None


def run_select_command(
    name: str, m: int, target: Path | None, flags: OptimizeFlags, options: dict[str, Any]
) -> int:
    """Run the command: 0 if it was done, 1 if it failed, 2 for wrong flags."""

    def run(console: Console) -> None:
        options.update(_points(flags))
        if target is not None:
            options["target"] = read_vector(target)
        with _collection(name, flags) as collection, _telling(console) as tell:
            found = collection.select(m, progress=tell, **options)
        rows = zip(
            found.ids, found.weights, found.discrepancy, found.random_discrepancy, strict=True
        )
        names = ("id", "weight", "discrepancy", "random_discrepancy")
        _write(flags.output, [dict(zip(names, row, strict=True)) for row in rows])
        console.print(
            f"{len(found.ids):,} of {found.points:,} points, discrepancy"
            f" {found.discrepancy[-1]:.4g}, at random {found.random_discrepancy[-1]:.4g}"
        )

    return _run(run)


def run_frank_wolfe_command(
    name: str, target: Path, flags: OptimizeFlags, options: dict[str, Any]
) -> int:
    """Run the command: 0 if it was done, 1 if it failed, 2 for wrong flags."""

    def run(console: Console) -> None:
        options.update(_points(flags))
        vector = read_vector(target)
        with _collection(name, flags) as collection, _telling(console) as tell:
            found = collection.frank_wolfe(vector, progress=tell, **options)
        rows = zip(found.ids, found.weights, strict=True)
        _write(flags.output, [{"id": point, "weight": weight} for point, weight in rows])
        gap = "" if found.gap is None else f", gap {found.gap:.4g}"
        proved = " (proved)" if found.certified else ""
        console.print(
            f"{found.status} after {found.iterations:,} steps: {len(found.ids):,} of"
            f" {found.points:,} points, squared distance {found.objective:.4g}{gap}{proved}"
        )

    return _run(run)


def _run(command: Callable[[Console], None]) -> int:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        command(console)
    except WrongUseError as error:
        return refuse(str(error), WRONG_USE)
    except (JobFailedError, ClosebyClientError) as error:
        return refuse(str(error), FAILED)
    except OSError as error:
        shown = f"{error.filename}: " if error.filename else ""
        return refuse(f"{shown}{error.strerror or error}", FAILED)
    except KeyboardInterrupt:
        return refuse("stopped; the job goes on (GET /v1/jobs)", 130)
    return 0


@contextlib.contextmanager
def _collection(name: str, flags: OptimizeFlags) -> Iterator[Collection]:
    key = None if flags.api_key_file is None else first_line(flags.api_key_file)
    with Client(flags.url, api_key=key) as db:
        yield db.collection(name)


@contextlib.contextmanager
def _telling(console: Console) -> Iterator[Callable[[JobInfo], None]]:
    with bar(console) as shown:
        task = shown.add_task("waiting", total=None, rate="")

        def tell(info: JobInfo) -> None:
            progress = info.progress
            phase = progress.counters.get("phase", info.state)
            shown.update(
                task, description=str(phase), completed=progress.done, total=progress.total
            )

        yield tell


def _points(flags: OptimizeFlags) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if flags.matching is not None:
        found["filter"] = _json(flags.matching, "--filter")
        if not isinstance(found["filter"], dict):
            raise WrongUseError(f"--filter {flags.matching} is no JSON object")
    if flags.exclude is not None:
        lines = flags.exclude.read_text("utf-8").splitlines()
        found["exclude"] = [_point_id(line) for line in lines if line.strip()]
    return found


def _point_id(line: str) -> Any:
    """An id as JSON, or a row of an earlier output."""
    found = _json(line, "--exclude")
    return found.get("id") if isinstance(found, dict) else found


def _json(text: str, flag: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise WrongUseError(f"{flag}: {text[:80]} is no JSON") from None


def read_vector(path: Path) -> Any:
    """A vector of a file: .npy, or a JSON list. Raises WrongUseError, OSError."""
    if path.suffix == ".npy":
        try:
            return np.load(path, allow_pickle=False)
        except ValueError as error:
            raise WrongUseError(f"{path}: {error}") from error
    return _json(path.read_text("utf-8"), str(path))


def _write(output: Path | None, rows: list[dict[str, Any]]) -> None:
    content = b"".join(orjson.dumps(row) + b"\n" for row in rows)
    if output is None:
        sys.stdout.write(content.decode())
    else:
        output.write_bytes(content)
