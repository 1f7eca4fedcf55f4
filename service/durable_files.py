"""Files that are there complete or not at all, also after a power cut."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import xxhash

__all__ = ["BLOCK", "PARTIAL", "checksum", "remove", "sync_directory", "write_atomically"]

PARTIAL = ".partial"
"""Ending of a file that is being written."""
BLOCK = 1 << 20


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path`, replacing it; durable on return.

    Raises OSError; then `path` is as it was, or the new file is there but may not outlive a power
    cut. No partial file stays behind.
    """
    temporary = path.with_name(path.name + PARTIAL)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    except BaseException:
        remove([temporary])
        raise


def sync_directory(directory: Path) -> None:
    """Make names in `directory` durable: a rename is only as durable as the directory."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum(path: Path) -> tuple[int, str]:
    """Bytes and hexadecimal xxh3-64 of a file, read block by block. Raises OSError."""
    digest, size = xxhash.xxh3_64(), 0
    block = memoryview(bytearray(BLOCK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(block[:count])
            size += count
    return size, digest.hexdigest()


def remove(paths: Iterable[Path]) -> None:
    """Remove files that are not needed. What cannot be removed now is found at the next start."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
