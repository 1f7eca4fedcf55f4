"""The structure of an engine of FAISS in a file, so that a start need not build it anew.

The points come from the log, as always; the file names those that the structure holds by their
seqs. It is no part of the truth: one that is missing, damaged, older or of other parameters costs
time at most, since the structure is then brought up to date or built beside the searches.
"""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Protocol, runtime_checkable

import structlog
from closeby.index.errors import ClosebyError

__all__ = ["HasStructure", "StructureFile"]

NAME = "structure"
GROWN = 1.25
"""The file is written anew when the structure has so many times the points of the one in it."""

log = structlog.get_logger(__name__)


@runtime_checkable
class HasStructure(Protocol):
    """An engine with a structure that takes long to build (`baselines.RebuiltIndex`)."""

    @property
    def structure_points(self) -> int:
        """Points that the structure covers; 0: there is none."""
        ...

    def save_structure(self, path: Path) -> int:
        """Write it; the points that it covers. Raises OSError."""
        ...

    def load_structure(self, path: Path) -> int:
        """Take up one that was written; raises CorruptFileError, OSError."""
        ...


class StructureFile:
    """The file of one shard, in its directory. All methods are thread-safe."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._covered = 0  # points of the structure in the file, as far as this process knows
        self._closed = False
        self._lock = threading.Lock()

    def take_up(self, engine: object) -> None:
        """Give an engine that has its points the structure in the file, if there is one."""
        path = self._directory / NAME
        if not isinstance(engine, HasStructure) or not path.exists():
            return
        try:
            self._covered = engine.load_structure(path)
        except (ClosebyError, OSError) as error:
            log.warning("structure_not_used", path=str(path), error=str(error))

    def keep(self, engine: object, *, at_once: bool = False) -> None:
        """Write the structure if it has changed much, or `at_once`, if at all.

        A file that cannot be written is logged: it costs the next start time.
        """
        if not isinstance(engine, HasStructure):
            return
        with self._lock:
            points = engine.structure_points
            much = self._covered == 0 or not self._covered <= points < GROWN * self._covered
            if self._closed or not points or points == self._covered or not (much or at_once):
                return
            try:
                self._directory.mkdir(parents=True, exist_ok=True)
                self._covered = engine.save_structure(self._directory / NAME)
            except OSError as error:
                log.warning("structure_not_kept", path=str(self._directory), error=str(error))

    def close(self) -> None:
        """The collection was deleted, or has another engine: write nothing any more."""
        with self._lock:
            self._closed = True
            shutil.rmtree(self._directory, ignore_errors=True)
