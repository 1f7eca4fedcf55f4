"""What the commands that talk to a server share: keys, progress bars, refusals, exit codes."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["FAILED", "WRONG_USE", "bar", "first_line", "refuse"]

FAILED = 1
WRONG_USE = 2


def bar(console: Console) -> Progress:
    """A progress bar, if a terminal is there to show it; tasks have a field `rate`."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def first_line(path: Path) -> str:
    """The API key of a file. Raises OSError."""
    return (path.read_text("utf-8").splitlines() or [""])[0].strip()


def refuse(message: str, code: int) -> int:
    """Say why on stderr; the exit code."""
    sys.stderr.write(f"closeby: {message}\n")
    return code
