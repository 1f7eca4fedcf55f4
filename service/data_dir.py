"""The data directory: made if missing, and locked so that one server writes to it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import BinaryIO

from .errors import DataDirError, DataDirLockedError

__all__ = ["DataDir"]

LOCK_NAME = "closeby.lock"


class DataDir:
    """An exclusive hold on `path` until `release`; the kernel lets go of it when we die.

    Raises DataDirError if the directory cannot be made or written to, DataDirLockedError if
    another server holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock: BinaryIO = (path / LOCK_NAME).open("a+b")
        except OSError as error:
            raise DataDirError(f"data directory {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.seek(0)
            holder = self._lock.read(32).decode("ascii", "replace").strip()
            self._lock.close()
            raise DataDirLockedError(
                f"data directory {path} is in use by another closeby server (process {holder});"
                " stop it, or take another --data-dir"
            ) from error
        self._note_holder()

    def release(self) -> None:
        """Let go of the directory. The lock file stays: removing it would race with others."""
        self._lock.close()

    def _note_holder(self) -> None:
        try:
            self._lock.truncate(0)
            self._lock.write(str(os.getpid()).encode())
            self._lock.flush()
        except OSError as error:
            self._lock.close()
            raise DataDirError(f"data directory {self.path}: {error.strerror}") from error
