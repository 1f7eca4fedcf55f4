"""Checksums of sealed files, compared while the rest of a server is imported.

Importing keeps one processor busy and the files need none of it, so a start that reads them
meanwhile is sooner ready. What was not reached when the collections are loaded is checked then.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection
from pathlib import Path

from closeby.index.errors import ClosebyError

from .durable_files import checksum
from .manifest import FileEntry, Manifest

__all__ = ["EarlyChecks"]


class EarlyChecks:
    """Reads the files that the manifests in the folders of `shards` list, in a thread."""

    def __init__(self, shards: Path) -> None:
        self._shards = shards
        self._passed: dict[Path, list[FileEntry]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="closeby-early", daemon=True)
        self._thread.start()

    def passed(self, folder: Path) -> Collection[FileEntry]:
        """Those of a folder whose checksums matched; the first call ends the reading."""
        self._stop.set()
        self._thread.join()
        return self._passed.get(folder, ())

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            for folder in sorted(self._shards.iterdir()):
                # Whoever loads the collection meets the same, and says so.
                with contextlib.suppress(ClosebyError, OSError):
                    self._check(folder)

    def _check(self, folder: Path) -> None:
        manifest = Manifest.read(folder)
        if manifest is None:
            return
        passed = self._passed[folder] = []
        for file in manifest.files():
            if self._stop.is_set():
                return
            if checksum(folder / file.name) == (file.size, file.xxh3):
                passed.append(file)
