"""What can go wrong in the library.

::

    ClosebyError
    ├── InvalidInputError (also a ValueError)   what the caller gave cannot be used
    ├── CorruptFileError                        a file is damaged or no file of closeby's
    ├── UnsupportedVersionError                 a file was written by a newer closeby
    └── AbandonedError                          a build was not wanted any more (``abandon``)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class ClosebyError(Exception):
    """Root of all exceptions that closeby raises on purpose."""


class InvalidInputError(ClosebyError, ValueError):
    """An argument cannot be used; the message says which, why, and what would do.

    Attributes:
        field: name of the argument or field, e.g. ``"vector"`` or ``"features.n"``.
        row: position in the batch of the first offender, if one row is to blame.
        limit: the bound that was passed, if there is one.
    """

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        row: int | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__(message)
        self.field = field
        self.row = row
        self.limit = limit


class CorruptFileError(ClosebyError):
    """A file is damaged, cut short, or no file of closeby's.

    Attributes:
        path: the file.
        offset: where in the file the fault was noticed, in bytes.
    """

    def __init__(self, message: str, *, path: str, offset: int = 0) -> None:
        super().__init__(f"{path}: {message} (at byte {offset})")
        self.path = path
        self.offset = offset


class UnsupportedVersionError(CorruptFileError):
    """A file is of a format version that this closeby does not know."""


class AbandonedError(ClosebyError):
    """A build was given up because whoever ran it did not want it any more."""


@contextmanager
def unusable_is_corrupt(path: str | Path) -> Iterator[None]:
    """Whatever does not fit while an index is made from a file is a fault of the file.

    A checksum tells damage, not malice or the mistakes of another writer.

    Raises:
        CorruptFileError: something was missing, of the wrong type, or out of range.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise CorruptFileError(
            f"the file does not describe an index ({type(error).__name__}: {error})",
            path=str(path),
        ) from error
