"""What can go wrong with a file.

    ClosebyError
    └── LoaderError              about one file; `.path`
        ├── UnknownFormatError   neither name nor content says what it is
        ├── WrongFormatError     it is not what it says it is
        ├── FormatOptionError    its format has no such option, or not that value of it
        ├── MissingExtraError    a package that reads it is not installed; `.extra`
        ├── DamagedFileError     it ends or breaks off where it may not; `.line`
        ├── FileTooLargeError    more than the caller allows, decompressed or at once in memory
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
    """The file holds more bytes than `Limits.total`, or needs more memory than `Limits.memory`."""


class FormatOptionError(LoaderError):
    """The format of the file has no such option, or not that value of it."""


class MissingExtraError(LoaderError):
    """Reading the file needs `package`, which the extra `extra` of closeby installs."""

    def __init__(self, path: Path, package: str, extra: str = "files") -> None:
        super().__init__(path, f"reading it needs {package}: pip install 'closeby[{extra}]'")
        self.package = package
        self.extra = extra


class DamagedFileError(LoaderError):
    """The file is truncated or corrupt; all rows before `line` (1-based) were sound."""

    def __init__(self, path: Path, line: int, reason: str) -> None:
        super().__init__(path, f"damaged at line {line} or soon after it: {reason}")
        self.line = line
        self.cause = reason


class BadRowError(LoaderError):
    """The row at `line` (1-based) cannot become a point."""

    def __init__(self, path: Path, line: int, reason: str) -> None:
        super().__init__(path, f"line {line}: {reason}")
        self.line = line
        self.cause = reason
