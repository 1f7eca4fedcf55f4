"""What can go wrong with a file.

    ClosebyError
    └── LoaderError              about one file; `.path`
        ├── UnknownFormatError   neither name nor content says what it is
        ├── WrongFormatError     it is not what it says it is
        ├── DamagedFileError     it ends or breaks off where it may not; `.line`
        ├── FileTooLargeError    more than the caller allows once decompressed
        └── BadRowError          a row that cannot be a point, with on_error="stop"; `.line`

A file that cannot be opened at all raises the `OSError` of the operating system.
"""

from __future__ import annotations

from pathlib import Path

from closeby.index.errors import ClosebyError


class LoaderError(ClosebyError):
    """Something about the file at `path`."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class UnknownFormatError(LoaderError):
    """Neither the name of the file nor its beginning says what format it has."""


class WrongFormatError(LoaderError):
    """The content of the file is not what its name, or the caller, says it is."""


class FileTooLargeError(LoaderError):
    """The file holds more bytes, decompressed, than `Limits.total` allows."""


class DamagedFileError(LoaderError):
    """The file is truncated or corrupt; all rows before `line` (1-based) were sound."""

    def __init__(self, path: Path, line: int, reason: str) -> None:
        super().__init__(path, f"damaged at line {line} or soon after it: {reason}")
        self.line = line


class BadRowError(LoaderError):
    """The row at `line` (1-based) cannot become a point."""

    def __init__(self, path: Path, line: int, reason: str) -> None:
        super().__init__(path, f"line {line}: {reason}")
        self.line = line
