"""The files that imports read: uploaded ones, and those that lie under the import roots.

A path from a request is trusted in nothing. It is resolved, must then lie under one of the roots
(resolved too), and is opened from that root's directory one component at a time, none of which may
be a symbolic link any more: whoever swaps a folder for a link in between is refused as well. What
is opened is read through its descriptor, and is the same file at a resume as at the start
(`FileIdentity`), or the job fails.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .errors import ImportFileError, ValidationError

__all__ = ["FileIdentity", "opened_under", "safe_name"]

MAX_PATH = 4096
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What tells whether a file is the one that it was: which, how long, when written (ns)."""

    device: int
    inode: int
    size: int
    modified_ns: int

    def as_json(self) -> dict[str, int]:
        """For the parameters of a job."""
        return asdict(self)

    @classmethod
    def of(cls, descriptor: int) -> FileIdentity:
        """That of an open file."""
        found = os.fstat(descriptor)
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def safe_name(name: str) -> str:
    """The last part of a name from outside, with nothing in it that means anything in a path."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return _UNSAFE.sub("_", last)[-100:].lstrip(".") or "upload"


@contextlib.contextmanager
def opened_under(
    roots: Sequence[Path], asked: str, folder: Path, expected: dict[str, Any] | None = None
) -> Iterator[tuple[Path, FileIdentity]]:
    """A path to read the file `asked` by, within the context, and what file it is.

    `asked` is absolute, or relative to one of `roots`. The path is a link in `folder` to the open
    descriptor, named like the file. Raises ValidationError for `path` if it is no regular file
    under a root, ImportFileError if it is not the `expected` one.
    """
    root, inside = _place(roots, asked)
    descriptor = _open_beneath(root, inside)
    try:
        identity = FileIdentity.of(descriptor)
        if expected is not None and identity.as_json() != expected:
            raise ImportFileError(
                "the file was changed while it was being imported; import it anew"
            )
        link = folder / safe_name(inside.name)
        link.unlink(missing_ok=True)
        # By our process id, since a process that reads for us has descriptors of its own.
        link.symlink_to(f"/proc/{os.getpid()}/fd/{descriptor}")
        try:
            yield link, identity
        finally:
            link.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _place(roots: Sequence[Path], asked: str) -> tuple[Path, Path]:
    """The root, resolved, and the resolved path within it."""
    if not roots:
        raise ValidationError.of(
            "path", "is refused: no import_roots are configured; upload the file instead"
        )
    if not asked or "\0" in asked or len(asked) > MAX_PATH:
        raise _refused()
    for root in roots:
        try:
            base = root.resolve(strict=True)
            found = (base / asked).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            continue
        if found != base and found.is_relative_to(base):
            return base, found.relative_to(base)
    raise _refused()


def _open_beneath(root: Path, inside: Path) -> int:
    """A descriptor of the regular file `inside` `root`, without following any link."""
    try:
        at = os.open(root, os.O_RDONLY | os.O_DIRECTORY | _FLAGS)
        try:
            for part in inside.parts[:-1]:
                following = os.open(part, os.O_RDONLY | os.O_DIRECTORY | _FLAGS, dir_fd=at)
                os.close(at)
                at = following
            # Not blocking, so that a pipe cannot hold us.
            descriptor = os.open(inside.name, os.O_RDONLY | os.O_NONBLOCK | _FLAGS, dir_fd=at)
        finally:
            os.close(at)
    except OSError:
        raise _refused() from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _refused()
    return descriptor


def _refused() -> ValidationError:
    # One answer for all reasons: it must not tell what lies outside.
    return ValidationError.of("path", "is no readable file under the server's import_roots")
