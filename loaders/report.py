"""What became of the rows of one file: how many were points, and which were not and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from .errors import BadRowError

OnError = Literal["skip", "stop"]

SAMPLED_ROWS = 20
SHOWN_CHARACTERS = 80


class BadRow(NamedTuple):
    """A row that did not become a point: its first line (1-based) and why."""

    line: int
    reason: str


@dataclass(slots=True)
class Report:
    """Counts of one reading; grows while the file is read.

    `samples` are the first bad rows, at most 20 of them; `bad` counts all. Rows that begin before
    `start_row` (a line or the number of a row, from 1) belong to an earlier reading: they give no
    points and are not counted.
    """

    path: Path
    on_error: OnError = "skip"
    start_row: int = 1
    points: int = 0
    bad: int = 0
    samples: list[BadRow] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Rows read so far, good and bad; blank lines are not rows."""
        return self.points + self.bad

    def reject(self, line: int, reason: str) -> None:
        """Count a bad row; raises BadRowError with `on_error="stop"`."""
        if line < self.start_row:
            return
        self.bad += 1
        if len(self.samples) < SAMPLED_ROWS:
            self.samples.append(BadRow(line, reason))
        if self.on_error == "stop":
            raise BadRowError(self.path, line, reason)


def excerpt(text: str) -> str:
    """A short printable form of what a row holds, for its error message."""
    shown = text[:SHOWN_CHARACTERS]
    return repr(shown) + ("…" if len(text) > SHOWN_CHARACTERS else "")
