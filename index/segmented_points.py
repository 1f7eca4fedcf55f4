"""Where the points of an engine over segments are: adding, sealing, merging, removing, files.

What its segments are asked, and how far, is in ``segmented``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from .batches import Batch, Int64Array, SetBatch, SparseBatch
from .crew import Crew
from .engine import Metric, check_features, check_ids, check_metric
from .errors import InvalidInputError, unusable_is_corrupt
from .files import read_arrays, write_arrays
from .flat_segments import feature_arrays, features_of
from .hashed import Family, HashedBatch, Stored, hash_all
from .minhash import SCHEMES, MinHashFamily, Scheme
from .mutable_segment import MutableSegment
from .places import rising
from .projection import SignedRandomProjection
from .segment import Segment
from .segment_files import HashedSegments, open_segment
from .segments import Merge, Sealed, Segments
from .selectors import Selector
from .tuning import GroupShape, Shape, check_target

DEFAULT_THRESHOLD = {"jaccard": 0.5, "cosine": 0.8}
DEFAULT_EXPECTED_POINTS = 1_000_000
MAX_TABLES = 1_024
# One-permutation hashing is faster from so many elements a MinHash value on.
LARGE_SET = 4
# What the constructor takes by name and a file keeps.
_OPTIONS = (
    "target_recall", "threshold", "expected_points", "tables", "K", "sketch_bits", "scheme",
    "capacity",
)  # fmt: skip


class SegmentedPoints(ABC):
    """The points of an engine, sets or vectors, in segments.

    Args: see the engines.

    Attributes:
        kind: name of the engine.
        selector_type: what its segments select candidates with.
        least_tables: fewest tables that may be asked for.
        key_bits: bits of a key of vectors.
        kept_keys: type of a point's keys where they are kept and its features are not.
    """

    kind: ClassVar[str]
    selector_type: ClassVar[type[Selector]]
    least_tables: ClassVar[int]
    key_bits: int = 16
    kept_keys: ClassVar[type[np.unsignedinteger[Any]]]

    def __init__(
        self,
        metric: Metric,
        seed: int,
        *,
        target_recall: float,
        threshold: float | None,
        expected_points: int,
        tables: int | None,
        K: int | None,
        sketch_bits: int,
        scheme: Scheme | None,
        capacity: int,
        settle: bool,
        directory: str | Path | None,
        keep_features: bool,
    ) -> None:
        self.metric: Metric = check_metric(metric, ("jaccard", "cosine"))
        self.seed = int(seed)
        self.target_recall = check_target(target_recall)
        self.threshold = DEFAULT_THRESHOLD[metric] if threshold is None else float(threshold)
        if not 0 < self.threshold <= 1:
            raise InvalidInputError("threshold must be above 0 and at most 1", field="threshold")
        least = self.least_tables
        if tables is not None and not least <= tables <= MAX_TABLES:
            raise InvalidInputError(
                f"tables must be from {least} to {MAX_TABLES}", field="tables", limit=MAX_TABLES
            )
        if sketch_bits not in (128, 256, 512):
            raise InvalidInputError("sketch_bits must be 128, 256 or 512", field="sketch_bits")
        limit = self._hash_limit()
        if K is not None and not 1 <= K <= limit:
            raise InvalidInputError(f"K must be from 1 to {limit}", field="K", limit=limit)
        if capacity < 1 or expected_points < 1:
            raise InvalidInputError(
                "capacity and expected_points must be positive", field="capacity"
            )
        if scheme is not None and scheme not in SCHEMES:
            raise InvalidInputError(f"scheme must be one of {', '.join(SCHEMES)}", field="scheme")
        self.sketch_bits = sketch_bits
        self.scheme = scheme
        self.expected_points = int(expected_points)
        self.capacity = int(capacity)
        self.K, self.tables = self._plan(
            None if K is None else int(K), None if tables is None else int(tables)
        )
        self.keep_features = keep_features
        self._settle = settle
        self._directory = Path(directory) if directory is not None else None
        self.dim: int | None = None
        self.sparse: bool | None = None  # of vectors; the first decide
        self._family: Family | None = None
        self._segments: Segments[Segment, MutableSegment] | None = None
        self._next_id = 0
        self._crew = Crew()

    # --- what engines decide ---------------------------------------------------------------------

    def _hash_limit(self) -> int:
        return 16

    @abstractmethod
    def _plan(self, K: int | None, tables: int | None) -> tuple[int, int]:
        """K and m, where they are not given."""

    @abstractmethod
    def _shape(self, points: int) -> Shape | None:
        """The selector of a segment of so many points; None to scan all sketches."""

    def __len__(self) -> int:
        return len(self._segments) if self._segments is not None else 0

    def _searchable(self) -> list[Segment | MutableSegment]:
        return self._segments.searchable() if self._segments is not None else []

    # --- adding ----------------------------------------------------------------------------------

    def check(self, batch: Any) -> Batch:
        """The features as this index stores them; raises what ``add`` would raise."""
        return check_features(batch, self.metric, self.dim, self.sparse)

    def lay_out(self, dim: int | None = None, *, sparse: bool = False) -> None:
        """Choose the hashes before the first points come, which else decide.

        Args:
            dim: of dense vectors.
            sparse: whether vectors are sparse.
        """
        if self._segments is None:
            self._lay_out_again({"dim": dim, "sparse": sparse})

    def hashed(self, batch: Any) -> HashedBatch:
        """All that an index without features keeps of points; ``add`` takes it instead of them.

        Args:
            batch: as for :meth:`add`; what is hashed already is checked.

        Raises:
            InvalidInputError: unusable features; hashes of an index with other parameters, or
                before :meth:`lay_out`.
        """
        if isinstance(batch, HashedBatch):
            if self._family is None:
                raise InvalidInputError("call lay_out before hashes are added", field="batch")
            batch.check(self._family, self.kept_keys)
            return batch
        features = self.check(batch)
        if self._family is None:
            self._lay_out(features)
        assert self._family is not None
        return hash_all(features, self._family, self.kept_keys)

    def add(self, batch: Any, ids: Any = None) -> None:
        """Add points; a search finds them when this returns.

        Args:
            batch: n sets, float32 (n, dim), or sparse vectors (a ``SparseBatch`` or scipy CSR);
                or what :meth:`hashed` gave, where no features are kept.
            ids: int64 (n,), new ones; the next free numbers unless given.

        Raises:
            InvalidInputError: unusable features, or an id that is present or given twice.
        """
        features: Stored = self.check(batch) if self.keep_features else self.hashed(batch)
        new_ids = check_ids(ids, len(features), self._next_id)
        if not len(features):
            return
        segments = self._lay_out(features) if self._segments is None else self._segments
        if ids is not None and self._next_id > int(new_ids.min()):
            present = segments.first_present(new_ids)
            if present is not None:
                raise InvalidInputError(
                    f"id {present} is in the index already; remove it first", field="ids"
                )
        self._next_id = max(self._next_id, int(new_ids.max()) + 1)
        segments.append(new_ids, features)

    def _lay_out(self, features: Stored) -> Segments[Segment, MutableSegment]:
        """Choose the hash family by the first points."""
        assert not isinstance(features, HashedBatch)
        family: Family
        self.sparse = isinstance(features, SparseBatch)
        if isinstance(features, SetBatch) and not self.sparse:
            if self.scheme is None:
                values = self.tables * self.K + self.sketch_bits
                large = int(features.sizes[:1].sum()) > LARGE_SET * values
                self.scheme = "one_permutation" if large else "permutations"
            family = MinHashFamily(
                self.seed,
                tables=self.tables,
                K=self.K,
                sketch_bits=self.sketch_bits,
                scheme=self.scheme,
            )
        else:
            self.dim = None if isinstance(features, SetBatch) else features.shape[1]
            family = SignedRandomProjection(
                self.dim,
                self.seed,
                tables=self.tables,
                sketch_bits=self.sketch_bits,
                key_bits=self.key_bits,
            )
        self._family = family
        self._segments = Segments(
            HashedSegments(family, self._shape, self.threshold),
            self.capacity,
            settle=self._settle,
            directory=self._directory,
        )
        return self._segments

    # --- sealing beside a writer, see segments.py ------------------------------------------------

    @property
    def sealed(self) -> tuple[Sealed[Segment], ...]:
        """The sealed segments, largest first."""
        return self._segments.sealed if self._segments is not None else ()

    def next_merge(self, *, seal_all: bool = False) -> Merge[Segment, MutableSegment] | None:
        """What to seal or merge next, if anything is due; quick, for the writer.

        Args:
            seal_all: take the mutable segment too, though it is not full.
        """
        if self._segments is None:
            return None
        if seal_all:
            self._segments.freeze()
        return self._segments.next_merge()

    @property
    def frozen(self) -> int:
        """Full mutable segments that wait to be sealed."""
        return self._segments.frozen if self._segments is not None else 0

    def freeze(self) -> None:
        """Let the mutable segment wait to be sealed, full or not."""
        if self._segments is not None:
            self._segments.freeze()

    def next_seal(self) -> Merge[Segment, MutableSegment] | None:
        """The oldest full mutable segment alone, if there is one; quick, for the writer."""
        return self._segments.next_seal() if self._segments is not None else None

    def next_tier(self) -> Merge[Segment, MutableSegment] | None:
        """Sealed segments that are to become one, if any are; quick, for the writer."""
        return self._segments.next_tier() if self._segments is not None else None

    def finish(self, merge: Merge[Segment, MutableSegment], segment: Segment) -> None:
        """Put a built segment in the place of its sources; quick, for the writer."""
        assert self._segments is not None
        self._segments.finish(merge, segment)

    @property
    def parameters(self) -> dict[str, Any]:
        """All that :meth:`restored` needs beside the segments, as JSON values."""
        options = {name: getattr(self, name) for name in _OPTIONS}
        fixed = {"metric": self.metric, "seed": self.seed, "dim": self.dim}
        sparse = {"sparse": True} if self.sparse else {}
        hashed = {} if self.keep_features else {"keep_features": False}
        return options | fixed | sparse | hashed | {"next_id": self._next_id}

    @classmethod
    def restored(
        cls,
        parameters: dict[str, Any],
        segments: Sequence[tuple[int, Path]] = (),
        *,
        verify: bool = True,
        settle: bool = True,
    ) -> Self:
        """An index over segment files.

        Args:
            parameters: of the index that wrote them.
            segments: chunks and path of each file, largest first, as :attr:`sealed` had them.
            verify: compare all checksums first.
            settle: see the class.

        Raises:
            CorruptFileError: a file is damaged, or does not belong to these parameters.
        """
        options = _options_of(parameters)
        index = cls(parameters["metric"], parameters["seed"], settle=settle, **options)
        if segments or not index.keep_features:
            laid_out = index._lay_out_again(parameters)
            assert index._family is not None
            sealed = []
            for chunks, path in segments:
                segment = open_segment(Path(path), index._family, verify=verify)
                with unusable_is_corrupt(path):
                    index._check_segment(segment)
                sealed.append(Sealed(chunks, segment))
            laid_out.restore(sealed)
        index._next_id = int(parameters["next_id"])
        return index

    def _lay_out_again(self, parameters: dict[str, Any]) -> Segments[Segment, MutableSegment]:
        """Lay out an index whose first points are known to have had these parameters."""
        one_empty = np.zeros(2, np.int64), np.zeros(0, np.uint64)
        if self.metric == "jaccard":
            return self._lay_out(SetBatch(*one_empty))
        if parameters.get("sparse", False):
            return self._lay_out(SparseBatch(*one_empty, np.zeros(0, np.float32)))
        return self._lay_out(np.zeros((0, parameters["dim"] or 0), np.float32))

    def compact(self) -> None:
        """Merge everything into one sealed segment: fastest queries, removed points dropped."""
        if self._segments is not None:
            self._segments.compact()

    def remove(self, ids: Any) -> int:
        """Remove points by id; the number of those that were present."""
        if self._segments is None:
            return 0
        return self._segments.remove(rising(np.asarray(ids, np.int64).reshape(-1)))

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes by part: the selectors', sketches, ids, and features or hashes."""
        kept = "features" if self.keep_features else "hashes"
        total = {self.selector_type.part: 0, "sketches": 0, "ids": 0, kept: 0}
        for segment in self._searchable():
            for name in total:
                total[name] += segment.nbytes.get(name, 0)
        return total

    # --- files -----------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the index to a file, replacing it atomically.

        The points of the mutable segment are written as they are; loading hashes them again.
        """
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        segments = []
        sealed = self._segments.sealed if self._segments is not None else ()
        for number, entry in enumerate(sealed):
            segment = entry.segment
            arrays |= {f"{number}.{name}": array for name, array in segment.arrays.items()}
            group_size = segment.shape.group_size if isinstance(segment.shape, GroupShape) else 0
            segments.append({"chunks": entry.chunks, "group_size": group_size})
        unsealed = self._segments.unsealed() if self._segments is not None else None
        if unsealed is not None:
            arrays |= {f"mutable.{n}": a for n, a in _stored_arrays(*unsealed).items()}
        header = {"index": self.kind, **self.parameters, "segments": segments}
        write_arrays(Path(path), header, arrays)

    @classmethod
    def load(cls, path: str | Path, *, verify: bool = True) -> Self:
        """Map an index that :meth:`save` wrote.

        Args:
            path: the file; it must stay unchanged while the index is in use.
            verify: compare all checksums first.

        Raises:
            CorruptFileError: the file is damaged or of another kind.
        """
        header, arrays = read_arrays(Path(path), kind=cls.kind, verify=verify)
        with unusable_is_corrupt(path):
            return cls._from_file(header, arrays, _options_of(header))

    @classmethod
    def _from_file(
        cls,
        header: dict[str, Any],
        arrays: dict[str, np.ndarray[Any, Any]],
        parameters: dict[str, Any],
    ) -> Self:
        index = cls(header["metric"], header["seed"], **parameters)
        mutable = {
            n.removeprefix("mutable."): a for n, a in arrays.items() if n.startswith("mutable.")
        }
        if header["segments"] or mutable:
            index._restore(header, arrays)
        if mutable:
            index.add(_stored_from(mutable), mutable["ids"])
        index._next_id = int(header["next_id"])
        return index

    def _restore(self, header: dict[str, Any], arrays: dict[str, np.ndarray[Any, Any]]) -> None:
        segments = self._lay_out_again(header)
        sealed = []
        for number, entry in enumerate(header["segments"]):
            prefix = f"{number}."
            own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
            segment = Segment(own, entry["group_size"])
            self._check_segment(segment)
            sealed.append(Sealed(int(entry["chunks"]), segment))
        segments.restore(sealed)

    def _check_segment(self, segment: Segment) -> None:
        """Refuse a segment of a file that this index could not search."""
        selector = segment.selector
        if selector is not None and not isinstance(selector, self.selector_type):
            raise ValueError("a segment is of another kind of index")
        tables = self.tables if selector is None else selector.tables
        if (segment.hashes is None) != self.keep_features:
            raise ValueError("a segment holds features, or lacks them, against the parameters")
        if segment.hashes is not None:
            self.hashed(segment.hashed(np.zeros(0, np.int64)))
            return
        dim = None if segment.vectors is None else segment.vectors.shape[1]
        bits = (segment.coarse.shape[1] + segment.fine.shape[1]) * 8
        sparse = segment.values is not None
        own = (self.tables, self.sketch_bits, self.dim, self.sparse)
        if (tables, bits, dim, sparse) != own:
            raise ValueError("a segment does not fit the parameters of the index")


def _options_of(parameters: dict[str, Any]) -> dict[str, Any]:
    """What the constructor takes by name, of parameters that a file or a manifest keeps."""
    options = {name: parameters[name] for name in _OPTIONS}
    return options | {"keep_features": bool(parameters.get("keep_features", True))}


def _stored_arrays(ids: Int64Array, features: Stored) -> dict[str, np.ndarray[Any, Any]]:
    if isinstance(features, HashedBatch):
        hashes = {"keys": features.keys, "sketches": features.sketches, "order": features.order}
        return {"ids": ids} | hashes
    return {"ids": ids} | feature_arrays(features)


def _stored_from(arrays: dict[str, np.ndarray[Any, Any]]) -> Stored:
    if "keys" in arrays:
        return HashedBatch(arrays["keys"], arrays["sketches"], arrays["order"])
    return features_of(arrays)
