"""`closeby dedup` at the terminal: flags to options, progress, summary, exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from closeby.index import InvalidInputError
from closeby.loaders import LoaderError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from .dedup import DedupError, DedupOptions, DedupResult, deduplicate

FAILED = 1
WRONG_USE = 2
SHOWN_BAD_ROWS = 5


def run_dedup(source: Path, output: Path, pairs: Path | None, **flags: Any) -> int:
    """Run the command: 0 if done, 1 if a file cannot be read or written, 2 for wrong flags."""
    console = Console(stderr=True, highlight=False)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = progress.add_task("reading", total=1.0)

    def step(what: str, share: float) -> None:
        progress.update(task, description=what, completed=share)

    try:
        options = _options(flags)
        with progress:
            result = deduplicate(source, output, pairs, options, step)
    except (DedupError, InvalidInputError) as error:
        return _refuse(str(error), WRONG_USE)
    except LoaderError as error:
        return _refuse(str(error), FAILED)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        return _refuse(f"{name}{error.strerror or error}", FAILED)
    except KeyboardInterrupt:
        return _refuse("stopped; nothing was written", 130)
    _show(console, result, output, pairs)
    return 0


def _refuse(message: str, code: int) -> int:
    sys.stderr.write(f"closeby: {message}\n")
    return code


def _options(flags: dict[str, Any]) -> DedupOptions:
    shingles, words, kmers = (flags.pop(name) for name in ("shingles", "words", "kmers"))
    unit = flags.pop("unit")
    if sum(given is not None for given in (shingles, words, kmers)) > 1:
        raise DedupError("--shingles, --words and --kmers exclude one another")
    if flags["keep"] not in ("first", "last", "longest", "shortest"):
        raise DedupError("--keep must be first, last, longest or shortest")
    if flags["on_error"] not in ("skip", "stop"):
        raise DedupError("--on-error must be skip or stop")
    features: dict[str, Any] | None = None
    if words is not None:
        features = {"kind": "shingles", "unit": "word", "n": words}
    elif kmers is not None:
        features = {"kind": "kmers", "k": kmers}
    elif shingles is not None or unit != "byte":
        features = {"kind": "shingles", "unit": unit, "n": 4 if shingles is None else shingles}
    return DedupOptions(features=features, name=flags.pop("field"), **flags)


def _show(console: Console, result: DedupResult, output: Path, pairs: Path | None) -> None:
    report = result.report
    for row in report.samples[:SHOWN_BAD_ROWS]:
        console.print(escape(f"line {row.line}: {row.reason}"), style="yellow", soft_wrap=True)
    if report.bad > SHOWN_BAD_ROWS:
        console.print(f"… and {report.bad - SHOWN_BAD_ROWS:,} more bad records", style="yellow")
    lines = [
        f"{report.points:,} records: {result.kept:,} kept in {output}, "
        f"{report.points - result.kept:,} near-duplicates left out "
        f"({result.clusters:,} clusters of two and more)"
    ]
    if result.pairs is not None:
        lines.append(f"{result.pairs:,} pairs in {pairs}")
    if report.bad:
        lines.append(f"{report.bad:,} bad records left out")
    lines.append(
        f"{result.metric}, {result.plan.tables} tables of {result.plan.K} hashes: a pair exactly "
        f"at the threshold is found with probability {result.plan.recall:.4f}"
    )
    console.print(escape("\n".join(lines)), soft_wrap=True)
