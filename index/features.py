"""Featurizers: raw text, sequences and vectors to what an index holds.

A collection names its featurizer once, so that ingest and query see the same features::

    {"kind": "shingles", "unit": "byte" | "char" | "word", "n": 4}    text      -> set
        (and "normalise": {"unicode": "NFKC", "case": "fold", "whitespace": "collapse"})
    {"kind": "kmers", "k": 16, "canonical": true}                     sequence  -> set
    {"kind": "kmers", "alphabet": "protein" | "dayhoff" | "hp", "k": 7}
    {"kind": "ids"}                                                   integers  -> set
    {"kind": "tokens"}                                                strings   -> set
    {"kind": "ngrams", "unit": "id" | "token", "n": 2}                integers or strings -> set
    {"kind": "sketch", "positions": false}                            integers  -> set
    {"kind": "vector", "dim": 768}                                    floats    -> vector
    {"kind": "sparse", "dim": 1000000}                 indices and values -> sparse vector

With ``"counts": true`` shingles, k-mers, ids, tokens and n-grams count their repeats: the j-th copy
of an element is an element of its own, (element, j), so that the Jaccard similarity of two sets is
the weighted one of the bags, the sum of the minima of counts over the sum of their maxima. Copies
beyond 255 count no more.
"""

from __future__ import annotations

import inspect
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _native
from .batches import SetBatch, as_set_batch, integer_rows
from .errors import InvalidInputError
from .featurizer import MAX_ELEMENTS, Featurizer, whole_number
from .vector_features import Sparse, Vector

MAX_SHINGLE = 64
MAX_KMER = 64
MAX_PACKED_KMER = 32
MAX_COPIES = 255


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


def _checked_texts(inputs: Sequence[Any], field: str) -> None:
    """Say which text is no string, or none that UTF-8 can hold."""
    for row, text in enumerate(inputs):
        if not isinstance(text, str):
            raise InvalidInputError(
                f"{field} must be a string, not {type(text).__name__}", field=field, row=row
            )
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidInputError(
                f"{field} must be valid Unicode; it holds an unpaired surrogate",
                field=field,
                row=row,
            ) from None


def _sets_of_texts(
    inputs: Sequence[Any], field: str, unit: str, n: int, *, counts: bool, **options: Any
) -> SetBatch:
    if not all(type(text) is str for text in inputs):
        _checked_texts(inputs, field)
    copies = MAX_COPIES if counts else 1
    try:
        pair = _native.shingle_batch(unit, list(inputs), n, copies=copies, **options)
    except UnicodeEncodeError:
        _checked_texts(inputs, field)
        raise
    return _bounded(SetBatch(*pair), field)


def _tokens(inputs: Sequence[Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """Offsets and hashes of lists of strings, in order and with repeats."""
    tokens: list[bytes] = []
    indptr = np.zeros(len(inputs) + 1, np.int64)
    for row, items in enumerate(inputs):
        if isinstance(items, (str, bytes, Mapping)) or not hasattr(items, "__iter__"):
            raise InvalidInputError("set must be a list of strings", field="set", row=row)
        items = list(items)
        try:
            _checked_texts(items, "set")
        except InvalidInputError as error:
            raise InvalidInputError(str(error), field="set", row=row) from None
        tokens += [item.encode() for item in items]
        indptr[row + 1] = len(tokens)
    return indptr, _native.hash_tokens(tokens)


def _distinct(
    indptr: npt.NDArray[np.int64], elements: npt.NDArray[np.uint64], *, counts: bool = False
) -> SetBatch:
    copies = MAX_COPIES if counts else 1
    return _bounded(SetBatch(*_native.sort_unique(indptr, elements, copies)), "set")


def _flag(value: Any, field: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidInputError(f"{field.rpartition('.')[2]} must be true or false", field=field)
    return value


def _with_counts(spec: dict[str, Any], counts: bool) -> dict[str, Any]:
    return spec | ({"counts": True} if counts else {})


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
        counts: whether repeats count.
    """

    kind = "shingles"
    field = "text"

    def __init__(
        self,
        unit: str = "char",
        n: int = 4,
        normalise: Mapping[str, str] | None = None,
        counts: bool = False,
    ) -> None:
        if unit not in ("byte", "char", "word"):
            raise InvalidInputError('unit must be "byte", "char" or "word"', field="features.unit")
        self.unit = unit
        self.n = whole_number(n, "features.n", 1, MAX_SHINGLE)
        self.normalise = _checked_normalisation({} if normalise is None else normalise)
        self.counts = _flag(counts, "features.counts")

    @property
    def spec(self) -> dict[str, Any]:
        """See :class:`Featurizer`."""
        spec: dict[str, Any] = {"kind": self.kind, "unit": self.unit, "n": self.n}
        spec |= {"normalise": self.normalise} if self.normalise else {}
        return _with_counts(spec, self.counts)

    def features(self, inputs: Sequence[Any]) -> SetBatch:
        """See :class:`Featurizer`; inputs are strings."""
        if self.normalise:
            inputs = [self._normal(text) if isinstance(text, str) else text for text in inputs]
        return _sets_of_texts(inputs, self.field, self.unit, self.n, counts=self.counts)

    def _normal(self, text: str) -> str:
        for name, how in self.normalise.items():
            text = NORMALISATIONS[name][how](text)
        return text


AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
ALPHABETS: dict[str, tuple[str, ...]] = {
    "dna": ("A", "C", "G", "TU"),
    "protein": tuple(AMINO_ACIDS),
    # Exchange groups of Dayhoff, Schwartz and Orcutt (1978).
    "dayhoff": ("C", "AGPST", "DENQ", "HKR", "ILMV", "FWY"),
    # Hydrophobic and polar (Lau and Dill, 1989).
    "hp": ("AFGILMPVWY", "CDEHKNQRST"),
}
"""Letters that are one and the same, by alphabet; any other letter breaks a k-mer."""
_DEFAULT_K = {"dna": 16, "protein": 7, "dayhoff": 12, "hp": 24}


def _letter_table(groups: tuple[str, ...]) -> npt.NDArray[np.uint8]:
    """What each byte stands for: the first letter of its group, in either case; 0 for no letter."""
    table = np.zeros(256, np.uint8)
    for group in groups:
        for letter in group + group.lower():
            table[ord(letter)] = ord(group[0])
    return table


_LETTERS = {name: _letter_table(groups) for name, groups in ALPHABETS.items()}
_COMPLEMENTS = np.zeros(256, np.uint8)
_COMPLEMENTS[[ord(letter) for letter in "ACGT"]] = [ord(letter) for letter in "TGCA"]


class Kmers(Featurizer):
    """A sequence of DNA, RNA or protein as the set of its k-mers.

    Case is ignored and U is T in DNA. K-mers with a letter that is none of the alphabet, or stands
    for several (N; B, J, X, Z), are left out, as genome sketching tools do. Canonical k-mers make
    a DNA sequence and its reverse complement the same set. DNA k-mers up to 32 are packed, 2 bits
    a letter; all others are hashed.

    Args:
        k: letters in a k-mer, 1 to 64; 16 of DNA, 7 of proteins, 12 by Dayhoff's groups, 24 of hp.
        canonical: of DNA alone; true unless given.
        alphabet: ``"dna"``, ``"protein"``, or a protein in fewer letters: ``"dayhoff"`` (6 groups
            of amino acids that replace one another) or ``"hp"`` (hydrophobic or polar).
        counts: whether repeats count.
    """

    kind = "kmers"
    field = "sequence"

    def __init__(
        self,
        k: int | None = None,
        canonical: bool | None = None,
        alphabet: str = "dna",
        counts: bool = False,
    ) -> None:
        if not isinstance(alphabet, str) or alphabet not in ALPHABETS:
            raise InvalidInputError(
                f"alphabet must be one of {', '.join(ALPHABETS)}", field="features.alphabet"
            )
        if canonical is not None and alphabet != "dna":
            raise InvalidInputError(
                "canonical k-mers are of DNA; leave it out", field="features.canonical"
            )
        self.alphabet = alphabet
        self.k = whole_number(_DEFAULT_K[alphabet] if k is None else k, "features.k", 1, MAX_KMER)
        self.canonical = alphabet == "dna"
        if canonical is not None:
            self.canonical = _flag(canonical, "features.canonical")
        self.counts = _flag(counts, "features.counts")

    @property
    def spec(self) -> dict[str, Any]:
        """See :class:`Featurizer`."""
        spec: dict[str, Any] = {"kind": self.kind, "k": self.k}
        if self.alphabet == "dna":
            spec["canonical"] = self.canonical
        else:
            spec["alphabet"] = self.alphabet
        return _with_counts(spec, self.counts)

    def features(self, inputs: Sequence[Any]) -> SetBatch:
        """See :class:`Featurizer`; inputs are strings."""
        options: dict[str, Any] = {"canonical": self.canonical}
        unit = "dna"
        if self.alphabet != "dna" or self.k > MAX_PACKED_KMER:
            unit = "letters"
            options["letters"] = _LETTERS[self.alphabet]
            options["complements"] = _COMPLEMENTS if self.canonical else None
        return _sets_of_texts(inputs, self.field, unit, self.k, counts=self.counts, **options)


class Ids(Featurizer):
    """A set given as integers 0 .. 2**64 - 1; with `counts` a bag, whose repeats count."""

    kind = "ids"
    field = "set"

    def __init__(self, counts: bool = False) -> None:
        self.counts = _flag(counts, "features.counts")
        self.gives_back = not self.counts

    @property
    def spec(self) -> dict[str, Any]:
        """See :class:`Featurizer`."""
        return _with_counts({"kind": self.kind}, self.counts)

    def features(self, inputs: Sequence[Any]) -> SetBatch:
        """See :class:`Featurizer`; inputs are iterables of integers."""
        if not self.counts:
            # A tuple of two sets is not a pair of offsets and elements here.
            return _bounded(as_set_batch(list(inputs)), self.field)
        return _distinct(*integer_rows(inputs), counts=True)


class Tokens(Featurizer):
    """A set given as strings, e.g. words or tags; with `counts` a bag, whose repeats count."""

    kind = "tokens"
    field = "set"
    element = str

    def __init__(self, counts: bool = False) -> None:
        self.counts = _flag(counts, "features.counts")

    @property
    def spec(self) -> dict[str, Any]:
        """See :class:`Featurizer`."""
        return _with_counts({"kind": self.kind}, self.counts)

    def features(self, inputs: Sequence[Any]) -> SetBatch:
        """See :class:`Featurizer`; inputs are lists of strings."""
        return _distinct(*_tokens(inputs), counts=self.counts)


class Ngrams(Featurizer):
    """A list of token numbers or of strings, in its order, as the set of its n-grams.

    A list shorter than n is one n-gram.

    Args:
        unit: ``"id"`` for integers 0 .. 2**64 - 1, ``"token"`` for strings.
        n: tokens in an n-gram.
        counts: whether repeats count.
    """

    kind = "ngrams"
    field = "set"

    def __init__(self, unit: str = "id", n: int = 2, counts: bool = False) -> None:
        if unit not in ("id", "token"):
            raise InvalidInputError('unit must be "id" or "token"', field="features.unit")
        self.unit = unit
        self.n = whole_number(n, "features.n", 1, MAX_SHINGLE)
        self.counts = _flag(counts, "features.counts")
        self.element = int if unit == "id" else str

    @property
    def spec(self) -> dict[str, Any]:
        """See :class:`Featurizer`."""
        return _with_counts({"kind": self.kind, "unit": self.unit, "n": self.n}, self.counts)

    def features(self, inputs: Sequence[Any]) -> SetBatch:
        """See :class:`Featurizer`; inputs are lists of integers or of strings."""
        rows = integer_rows(inputs) if self.unit == "id" else _tokens(inputs)
        return _distinct(*_native.ngram_batch(*rows, self.n), counts=self.counts)


class Sketch(Featurizer):
    """A MinHash sketch that was made elsewhere, as the set of its values.

    What the Jaccard similarity of two sketches says of the sets that they were made of:

    - the hashes below a bound (FracMinHash, sourmash's ``scaled``): it estimates theirs
      (Irber et al., 2022);
    - the n smallest hashes (bottom-n): it is near theirs for similar sets, and below it for others,
      since the two sketches do not reach equally far;
    - one value for each of n hash functions: give ``positions`` as true; with c equal positions
      the score is c / (2n - c), and c / n estimates their similarity J: a score of J / (2 - J).

    Args:
        positions: whether a value counts only at its place in the list.
    """

    kind = "sketch"
    field = "set"

    def __init__(self, positions: bool = False) -> None:
        self.positions = _flag(positions, "features.positions")
        self.gives_back = not self.positions

    @property
    def spec(self) -> dict[str, Any]:
        """See :class:`Featurizer`."""
        return {"kind": self.kind, "positions": self.positions}

    def features(self, inputs: Sequence[Any]) -> SetBatch:
        """See :class:`Featurizer`; inputs are lists of integers 0 .. 2**64 - 1."""
        indptr, values = integer_rows(inputs)
        if not self.positions:
            return _distinct(indptr, values)
        places = np.arange(len(values)) - np.repeat(indptr[:-1], np.diff(indptr))
        pairs = np.stack((places.astype(np.uint64), values), axis=1).reshape(-1)
        _, elements = _native.ngram_batch(np.arange(len(values) + 1) * 2, pairs, 2)
        return _distinct(indptr, elements)


_KINDS: dict[str, type[Featurizer]] = {
    cls.kind: cls for cls in (Shingles, Kmers, Ids, Tokens, Ngrams, Sketch, Vector, Sparse)
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
    if cls in (Vector, Sparse) and "dim" not in options:
        raise InvalidInputError(f"features of kind {kind!r} need dim", field="features.dim")
    return cls(**options)
