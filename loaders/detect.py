"""Which format a file has: by its name, checked against its content; without a name, by content."""

from __future__ import annotations

from .delimited import Delimited
from .errors import UnknownFormatError, WrongFormatError
from .fasta import Fasta
from .jsonl import Jsonl
from .lines import Lines
from .points import Format
from .source import Source
from .vectors import Npy, Vecs

Known = type[Fasta] | type[Jsonl] | type[Lines] | type[Delimited] | type[Npy] | type[Vecs]
FORMATS: tuple[Known, ...] = (Fasta, Jsonl, Lines, Delimited, Npy, Vecs)


def detect(source: Source, named: str | Format | None = None) -> Format:
    """The format of `source`: the one the caller named, or what its extension or content says.

    Raises UnknownFormatError if no format has that name, or neither extension nor content says
    one; WrongFormatError if the file does not begin as this format must.
    """
    chosen = _named(source, named) if named is not None else _found(source)
    reason = chosen.refusal(source.head)
    if reason is not None:
        raise WrongFormatError(source.path, f"is no {chosen.name} file: {reason}")
    return chosen


def _named(source: Source, named: str | Format) -> Format:
    if not isinstance(named, str):
        return named
    for kind in FORMATS:
        if kind.name == named:
            return kind()
    known = ", ".join(kind.name for kind in FORMATS)
    raise UnknownFormatError(source.path, f"there is no format {named!r}; there are {known}")


def _found(source: Source) -> Format:
    for kind in FORMATS:
        if source.suffix in kind.extensions:
            return kind()
    for kind in FORMATS:
        if kind().recognises(source.head):
            return kind()
    known = ", ".join(f".{extension}" for kind in FORMATS for extension in kind.extensions)
    raise UnknownFormatError(
        source.path, f"its format is unclear; name one, or use an extension of {known}"
    )
