"""results.jsonl: what a run is of, then each build and each measurement as it was done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from .errors import BenchError

__all__ = ["Journal"]

NAME = "results.jsonl"


class Journal:
    """The measurements of one directory: {"run"}, {"build"}, {"row"} and {"failed"} lines.

    Attributes:
        builds: of each label, what its build took.
        rows: all measurements.
        done: label and target_recall of each.
    """

    def __init__(self, folder: Path, run: dict[str, Any]) -> None:
        """Open the journal of `folder`, or begin it.

        Raises:
            BenchError: it is of another run, or no journal.
            OSError: it cannot be read or written.
        """
        self.run = run
        self.builds: dict[str, dict[str, Any]] = {}
        self.rows: list[dict[str, Any]] = []
        self._path = folder / NAME
        if self._path.exists() and self._path.stat().st_size:
            self._read()
        else:
            self._append({"run": run})

    @property
    def done(self) -> set[tuple[str, float]]:
        """What need not be measured again."""
        return {(row["label"], row["target_recall"]) for row in self.rows}

    def add_build(self, label: str, built: dict[str, Any]) -> None:
        """Note a build."""
        self.builds[label] = built
        self._append({"build": label, **built})

    def add_row(self, row: dict[str, Any]) -> None:
        """Note a measurement."""
        self.rows.append(row)
        self._append({"row": row})

    def _read(self) -> None:
        whole = self._path.read_bytes()
        lines = whole.split(b"\n")
        # A run that was killed may leave half a line.
        if lines.pop():
            self._path.write_bytes(b"".join(line + b"\n" for line in lines))
        try:
            entries = [orjson.loads(line) for line in lines]
            before = entries[0]["run"]["identity"]
        except (orjson.JSONDecodeError, LookupError, TypeError):
            raise BenchError(
                f"{self._path} is no journal of closeby bench; take another --output"
            ) from None
        now = self.run["identity"]
        differing = sorted(name for name in now if before.get(name) != now[name])
        if differing:
            told = ", ".join(f"{n} {before.get(n)} there, {now[n]} now" for n in differing)
            raise BenchError(
                f"{self._path.parent} holds results of another run ({told}); take another --output,"
                " or repeat that run's data and flags to go on with it"
            )
        for entry in entries[1:]:
            if "row" in entry:
                self.rows.append(entry["row"])
            else:
                self.builds[entry.pop("build")] = entry

    def _append(self, entry: dict[str, Any]) -> None:
        with self._path.open("ab") as file:
            file.write(orjson.dumps(entry) + b"\n")
