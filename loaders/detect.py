"""Which format a file has: by its name, checked against its content; without a name, by content."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .arrow import Arrow
from .delimited import Delimited
from .errors import FormatOptionError, UnknownFormatError, WrongFormatError
from .fasta import Fasta
from .hdf5 import Hdf5
from .jsonl import Jsonl
from .libsvm import Libsvm
from .lines import Lines
from .npz import Npz
from .parquet import Parquet
from .points import Format
from .sketches import Sourmash
from .source import Source
from .vectors import Npy, Vecs

FORMATS: tuple[type[Any], ...] = (
    *(Fasta, Jsonl, Lines, Delimited, Libsvm, Sourmash),
    *(Npy, Npz, Vecs, Parquet, Arrow, Hdf5),
)
"""All formats; each is a dataclass of its options and follows `Format`."""


def detect(
    source: Source,
    named: str | Format | None = None,
    options: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Format:
    """The format of `source`: the one the caller named, or what its extension or content says.

    `defaults` stand beside `options` in a format that has such options.

    Raises UnknownFormatError if no format has that name, or neither extension nor content says
    one; WrongFormatError if the file does not begin as this format must; FormatOptionError if the
    options are not its own.
    """
    if named is None:
        chosen = _with_options(source.path, _found(source), options, defaults)
    elif isinstance(named, str):
        chosen = format_named(source.path, named, options, defaults)
    else:
        chosen = named
    reason = chosen.refusal(source.head)
    if reason is not None:
        raise WrongFormatError(source.path, f"is no {chosen.name} file: {reason}")
    return chosen


def format_named(
    path: Path,
    name: str,
    options: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Format:
    """The format of that name with these options. Raises as `detect` does, for `path`."""
    for kind in FORMATS:
        if kind.name == name:
            return _with_options(path, kind, options, defaults)
    known = ", ".join(kind.name for kind in FORMATS)
    raise UnknownFormatError(path, f"there is no format {name!r}; there are {known}")


def _found(source: Source) -> type[Any]:
    for kind in FORMATS:
        if source.suffix in kind.extensions:
            return kind
    for kind in FORMATS:
        if kind().recognises(source.head):
            return kind
    known = ", ".join(f".{extension}" for kind in FORMATS for extension in kind.extensions)
    raise UnknownFormatError(
        source.path, f"its format is unclear; name one, or use an extension of {known}"
    )


def _with_options(
    path: Path,
    kind: type[Any],
    options: Mapping[str, Any] | None,
    defaults: Mapping[str, Any] | None,
) -> Format:
    hints = get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind)]
    given = {name: value for name, value in (defaults or {}).items() if name in known}
    for name, value in (options or {}).items():
        if name not in known:
            listed = ", ".join(known) or "none"
            raise FormatOptionError(
                path, f"{kind.name} has no option {name!r}; its options are {listed}"
            )
        given[name] = tuple(value) if isinstance(value, list) else value
        if not _fits(given[name], hints[name]):
            raise FormatOptionError(path, f"{kind.name}: the option {name!r} cannot be {value!r}")
    try:
        made: Format = kind(**given)
    except ValueError as error:
        raise FormatOptionError(path, str(error)) from error
    return made


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value that came as JSON is of a field's type."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(v, get_args(hint)[0]) for v in value)
    return type(value) is hint
