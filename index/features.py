"""Featurizers: raw text, sequences and vectors to what an index holds.

A collection names its featurizer once, so that ingest and query see the same features::

    {"kind": "shingles", "unit": "byte" | "char" | "word", "n": 4}    text      -> set
        (and "normalise": {"unicode": "NFKC", "case": "fold", "whitespace": "collapse"})
    {"kind": "kmers", "k": 16, "canonical": true}                     sequence  -> set
    {"kind": "ids"}                                                   integers  -> set
    {"kind": "tokens"}                                                strings   -> set
    {"kind": "vector", "dim": 768}                                    floats    -> vector
"""

from __future__ import annotations

import inspect
import math
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from . import _native
from .batches import Batch, FloatArray, SetBatch, as_dense_batch, as_set_batch
from .errors import InvalidInputError

MAX_SHINGLE = 64
MAX_KMER = 32
MAX_DIM = 65_536
MAX_ELEMENTS = 1_000_000


class Featurizer(ABC):
    """Turns a list of raw inputs into a batch of features.

    Attributes:
        kind: name in a specification.
        field: name of the raw input in a point: ``"text"``, ``"sequence"``, ``"set"`` or
            ``"vector"``.
    """

    kind: ClassVar[str]
    field: ClassVar[str]

    @property
    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """The complete specification; ``featurizer_from(f.spec)`` is the same featurizer."""

    @abstractmethod
    def features(self, inputs: Sequence[Any]) -> Batch:
        """Features of each input: a ``SetBatch``, or float32 (n, dim).

        Raises:
            InvalidInputError: an input is of the wrong type or size; ``row`` says which.
        """

    def empty_rows(self, features: Batch) -> npt.NDArray[np.int64]:
        """Numbers of the rows without any element, int64: nothing can be near them."""
        if isinstance(features, SetBatch):
            return np.flatnonzero(features.sizes == 0).astype(np.int64)
        return np.zeros(0, np.int64)


NORMALISATIONS: dict[str, dict[str, Callable[[str], str]]] = {
    "unicode": {
        "NFC": lambda text: unicodedata.normalize("NFC", text),
        "NFKC": lambda text: unicodedata.normalize("NFKC", text),
    },
    "case": {"lower": str.lower, "fold": str.casefold},
    "whitespace": {"collapse": lambda text: " ".join(text.split())},
}
"""What can be done to a text before it is shingled: steps in their order, and the ways of each."""


def _checked_normalisation(normalise: Any) -> dict[str, str]:
    """The steps in their order; InvalidInputError names one that is not known."""
    if not isinstance(normalise, Mapping):
        raise InvalidInputError("normalise must be an object", field="features.normalise")
    for name, how in normalise.items():
        if name not in NORMALISATIONS:
            raise InvalidInputError(
                f"normalise has no step {name!r}; it knows {', '.join(NORMALISATIONS)}",
                field="features.normalise",
            )
        if not isinstance(how, str) or how not in NORMALISATIONS[name]:
            raise InvalidInputError(
                f"normalise.{name} must be one of {', '.join(NORMALISATIONS[name])}",
                field=f"features.normalise.{name}",
            )
    return {name: normalise[name] for name in NORMALISATIONS if name in normalise}


def _utf8(inputs: Sequence[Any], field: str) -> list[bytes]:
    encoded = []
    for row, text in enumerate(inputs):
        if not isinstance(text, str):
            raise InvalidInputError(
                f"{field} must be a string, not {type(text).__name__}", field=field, row=row
            )
        try:
            encoded.append(text.encode())
        except UnicodeEncodeError:
            raise InvalidInputError(
                f"{field} must be valid Unicode; it holds an unpaired surrogate",
                field=field,
                row=row,
            ) from None
    return encoded


def _bounded(batch: SetBatch, field: str) -> SetBatch:
    sizes = batch.sizes
    if len(sizes) and sizes.max() > MAX_ELEMENTS:
        raise InvalidInputError(
            f"a {field} may give at most {MAX_ELEMENTS:,} set elements, not {sizes.max():,}",
            field=field,
            row=int(sizes.argmax()),
            limit=MAX_ELEMENTS,
        )
    return batch


class Shingles(Featurizer):
    """Text as the set of its n-grams of bytes, characters or words.

    A text shorter than n is one shingle. Words are runs of letters and digits.

    Args:
        unit: ``"byte"``, ``"char"`` or ``"word"``.
        n: units in a shingle.
        normalise: what is done to a text first, in this order; nothing unless given::

            {"unicode": "NFC" | "NFKC", "case": "lower" | "fold", "whitespace": "collapse"}

            ``"fold"`` is Unicode's case folding (ß is ss); ``"collapse"`` makes one space of each
            run of white space, and none of those at the ends.
    """

    kind = "shingles"
    field = "text"

    def __init__(
        self, unit: str = "char", n: int = 4, normalise: Mapping[str, str] | None = None
    ) -> None:
        if unit not in ("byte", "char", "word"):
            raise InvalidInputError('unit must be "byte", "char" or "word"', field="features.unit")
        self.unit = unit
        self.n = _whole_number(n, "features.n", 1, MAX_SHINGLE)
        self.normalise = _checked_normalisation({} if normalise is None else normalise)

    @property
    def spec(self) -> dict[str, Any]:
        """See :class:`Featurizer`."""
        spec: dict[str, Any] = {"kind": self.kind, "unit": self.unit, "n": self.n}
        return spec | ({"normalise": self.normalise} if self.normalise else {})

    def features(self, inputs: Sequence[Any]) -> SetBatch:
        """See :class:`Featurizer`; inputs are strings."""
        if self.normalise:
            inputs = [self._normal(text) if isinstance(text, str) else text for text in inputs]
        pair = _native.shingle_batch(self.unit, _utf8(inputs, self.field), self.n)
        return _bounded(SetBatch(*_native.sort_unique(*pair)), self.field)

    def _normal(self, text: str) -> str:
        for name, how in self.normalise.items():
            text = NORMALISATIONS[name][how](text)
        return text


class Kmers(Featurizer):
    """A DNA or RNA sequence as the set of its k-mers, 2 bits a letter.

    Case is ignored and U is T; k-mers with any other letter are left out, as genome sketching
    tools do. Canonical k-mers make a sequence and its reverse complement the same set.
    """

    kind = "kmers"
    field = "sequence"

    def __init__(self, k: int = 16, canonical: bool = True) -> None:
        if not isinstance(canonical, bool):
            raise InvalidInputError("canonical must be true or false", field="features.canonical")
        self.k = _whole_number(k, "features.k", 1, MAX_KMER)
        self.canonical = canonical

    @property
    def spec(self) -> dict[str, Any]:
        """See :class:`Featurizer`."""
        return {"kind": self.kind, "k": self.k, "canonical": self.canonical}

    def features(self, inputs: Sequence[Any]) -> SetBatch:
        """See :class:`Featurizer`; inputs are strings."""
        pair = _native.shingle_batch("dna", _utf8(inputs, self.field), self.k, self.canonical)
        return _bounded(SetBatch(*_native.sort_unique(*pair)), self.field)


class Ids(Featurizer):
    """A set given as integers 0 .. 2**64 - 1."""

    kind = "ids"
    field = "set"

    @property
    def spec(self) -> dict[str, Any]:
        """See :class:`Featurizer`."""
        return {"kind": self.kind}

    def features(self, inputs: Sequence[Any]) -> SetBatch:
        """See :class:`Featurizer`; inputs are iterables of integers."""
        # A tuple of two sets is not a pair of offsets and elements here.
        return _bounded(as_set_batch(list(inputs)), self.field)


class Tokens(Featurizer):
    """A set given as strings, e.g. words or tags."""

    kind = "tokens"
    field = "set"

    @property
    def spec(self) -> dict[str, Any]:
        """See :class:`Featurizer`."""
        return {"kind": self.kind}

    def features(self, inputs: Sequence[Any]) -> SetBatch:
        """See :class:`Featurizer`; inputs are lists of strings."""
        tokens: list[bytes] = []
        indptr = np.zeros(len(inputs) + 1, np.int64)
        for row, items in enumerate(inputs):
            if isinstance(items, (str, bytes, Mapping)) or not hasattr(items, "__iter__"):
                raise InvalidInputError("set must be a list of strings", field="set", row=row)
            try:
                tokens += _utf8(list(items), "set")
            except InvalidInputError as error:
                raise InvalidInputError(str(error), field="set", row=row) from None
            indptr[row + 1] = len(tokens)
        batch = SetBatch(*_native.sort_unique(indptr, _native.hash_tokens(tokens)))
        return _bounded(batch, self.field)


class Vector(Featurizer):
    """A dense vector of `dim` floats."""

    kind = "vector"
    field = "vector"

    def __init__(self, dim: int) -> None:
        self.dim = _whole_number(dim, "features.dim", 1, MAX_DIM)

    @property
    def spec(self) -> dict[str, Any]:
        """See :class:`Featurizer`."""
        return {"kind": self.kind, "dim": self.dim}

    def features(self, inputs: Sequence[Any] | npt.NDArray[Any]) -> FloatArray:
        """See :class:`Featurizer`; inputs are lists of floats, or one array (n, dim)."""
        if isinstance(inputs, np.ndarray):
            return as_dense_batch(inputs, self.dim)
        out = np.empty((len(inputs), self.dim), np.float32)
        for row, vector in enumerate(inputs):
            out[row] = self._checked(vector, row)
        return out

    def _checked(self, vector: Any, row: int) -> FloatArray:
        plain = isinstance(vector, (list, tuple))
        # A bool is an int to Python and a number to NumPy, but not to whoever sent it.
        if plain and not {type(value) for value in vector} <= {int, float}:
            raise InvalidInputError("vector must be a list of numbers", field="vector", row=row)
        if not plain and (not isinstance(vector, np.ndarray) or vector.ndim != 1):
            raise InvalidInputError("vector must be a list of numbers", field="vector", row=row)
        if len(vector) != self.dim:
            raise InvalidInputError(
                f"vector must have {self.dim} dimensions, not {len(vector)}",
                field="vector",
                row=row,
                limit=self.dim,
            )
        try:
            dense: FloatArray = as_dense_batch(np.asarray(vector), self.dim)[0]
        except (InvalidInputError, OverflowError) as error:
            raise InvalidInputError(str(error), field="vector", row=row) from None
        return dense


_KINDS: dict[str, type[Featurizer]] = {
    cls.kind: cls for cls in (Shingles, Kmers, Ids, Tokens, Vector)
}


def featurizer_from(spec: Mapping[str, Any]) -> Featurizer:
    """The featurizer that a specification names.

    Raises:
        InvalidInputError: unknown kind, or unknown, missing or unusable option; ``field`` names it.
    """
    if not isinstance(spec, Mapping):
        raise InvalidInputError("features must be an object", field="features")
    options = dict(spec)
    kind = options.pop("kind", None)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise InvalidInputError(
            f"features.kind must be one of {', '.join(_KINDS)}", field="features.kind"
        )
    cls = _KINDS[kind]
    known = tuple(inspect.signature(cls).parameters)
    for name in options:
        if name not in known:
            raise InvalidInputError(
                f"features of kind {kind!r} have no option {name!r}; "
                f"it knows {', '.join(known) or 'none'}",
                field=f"features.{name}",
            )
    if cls is Vector and "dim" not in options:
        raise InvalidInputError("features of kind 'vector' need dim", field="features.dim")
    return cls(**options)


def _whole_number(value: Any, field: str, least: int, most: int) -> int:
    integral = isinstance(value, int) and not isinstance(value, bool)
    if not integral or not least <= value <= most or math.isnan(value):
        raise InvalidInputError(
            f"{field} must be a whole number from {least} to {most}", field=field, limit=most
        )
    return int(value)
