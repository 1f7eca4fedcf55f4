"""Maximum inner product search: the points of highest ⟨x, q⟩, of vectors of any norm.

::

    add ──► tail (compared exactly) ──full──► sealed segments of lists, merged in tiers
    search ──► tail and every segment ──► merge

An inner product is no distance: a long vector beats near ones, and graphs and cosine indexes fail
where norms vary. Lists around k-means centres know both, since the score of a centre and the spread
of its list bound what a point of it can reach (``maxip_lists``). How many lists a search reads is
measured when a segment is sealed (``maxip_effort``).

The paper's own construction, asymmetric transforms and LSH, is ``maxip_paper``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .batches import FloatArray, Int64Array
from .engine import Metric, check_ids, check_k, smallest_hit
from .errors import InvalidInputError, unusable_is_corrupt
from .files import read_arrays
from .maxip_contents import MaxIPContents
from .maxip_description import bytes_by_part, described, expected_recall
from .maxip_effort import Calibration, Curve, calibrate
from .maxip_files import contents_of, write_contents
from .maxip_gap import GapAnswer, first_above
from .maxip_input import SHORT, as_ids, check_turn, checked, lengthened
from .maxip_lists import Lists
from .maxip_segment import Answer, MaxIPSegment, MaxIPSegments, MaxIPTail, open_segment
from .places import rising
from .segments import Merge, Sealed, Segments
from .topk import merge_topk
from .tuning import check_target

DEFAULT_CAPACITY = 4_096
MAX_ROTATIONS = 16
# A search looks again while points are being updated, so often at most.
_LOOKS = 1_000
# What the constructor takes by name and a file keeps.
_OPTIONS = ("target_recall", "rotations", "capacity")

MaxIPMerge: TypeAlias = Merge[MaxIPSegment, MaxIPTail]


class MaxIPIndex:
    """Points of highest inner product with a query.

    Args:
        seed: of clustering and codes; equal seeds and calls give equal answers.
        target_recall: share of the true best ten that an answer should hold, .5 to .9999.
        rotations: independent sets of codes, which searches may take in turn; for sequences of
            queries that depend on earlier answers. Each adds about dim / 8 + 4 bytes a point.
        capacity: points that are compared exactly before they are sealed into lists.
        settle: seal and merge segments while adding; without it a worker does it, see
            :meth:`next_seal`.

    One thread may add, update and remove while any number of others search.

    Raises:
        InvalidInputError: a parameter out of range.
    """

    kind = "maxip"
    metric: Metric = "ip"

    def __init__(
        self,
        seed: int = 0,
        target_recall: float = 0.95,
        *,
        rotations: int = 1,
        capacity: int = DEFAULT_CAPACITY,
        settle: bool = True,
    ) -> None:
        for field, value, least in (
            ("seed", seed, 0),
            ("rotations", rotations, 1),
            ("capacity", capacity, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise InvalidInputError(f"{field} must be an integer from {least} on", field=field)
        self.seed = int(seed)
        self.target_recall = check_target(target_recall)
        if rotations > MAX_ROTATIONS:
            raise InvalidInputError(
                f"rotations must be from 1 to {MAX_ROTATIONS}",
                field="rotations",
                limit=MAX_ROTATIONS,
            )
        self.rotations = int(rotations)
        self.capacity = int(capacity)
        self.dim: int | None = None
        self._settle = settle
        self._next_id = 0
        self._updates = 0  # odd while one is under way
        self._segments: Segments[MaxIPSegment, MaxIPTail] | None = None

    def __len__(self) -> int:
        return len(self._segments) if self._segments is not None else 0

    def _searchable(self) -> list[MaxIPSegment | MaxIPTail]:
        return self._segments.searchable() if self._segments is not None else []

    def _lay_out(self, dim: int) -> Segments[MaxIPSegment, MaxIPTail]:
        self.dim = dim
        maker = MaxIPSegments(dim, self.seed, self.rotations)
        # Each segment that is searched costs a search of its own.
        self._segments = Segments(maker, self.capacity, settle=self._settle, whole_batches=True)
        return self._segments

    # --- writing ---------------------------------------------------------------------------------

    def check(self, batch: Any) -> FloatArray:
        """Vectors as this index stores them, float32 (n, dim).

        Raises:
            InvalidInputError: not finite, of another dimension, or of a norm above ``MAX_NORM``.
        """
        return checked(batch, self.dim)[0]

    def add(self, batch: Any, ids: Any = None) -> None:
        """Add points; a search finds them when this returns.

        Args:
            batch: float32 (n, dim).
            ids: int64 (n,), new ones; the next free numbers unless given.

        Raises:
            InvalidInputError: unusable vectors, or an id that is present or given twice.
        """
        vectors = self.check(batch)
        new_ids = check_ids(ids, len(vectors), self._next_id)
        if not len(vectors):
            return
        segments = self._segments or self._lay_out(vectors.shape[1])
        if ids is not None and int(new_ids.min()) < self._next_id:
            present = segments.first_present(new_ids)
            if present is not None:
                raise InvalidInputError(
                    f"id {present} is in the index already; update or remove it", field="ids"
                )
        self._next_id = max(self._next_id, int(new_ids.max()) + 1)
        segments.append(new_ids, vectors)

    def update(self, ids: Any, batch: Any) -> None:
        """Replace the vectors of points; searches find the new ones when this returns.

        Args:
            ids: an id, or int64 (n,); ids that are not in the index are added.
            batch: float32 (n, dim), or (dim,) for one id; norms may grow, nothing is rebuilt.

        Raises:
            InvalidInputError: unusable vectors or ids.
        """
        vectors = self.check(batch)
        changed = check_ids(np.atleast_1d(np.asarray(ids)), len(vectors), 0)
        if not len(vectors):
            return
        segments = self._segments or self._lay_out(vectors.shape[1])
        self._next_id = max(self._next_id, int(changed.max()) + 1)
        # A search meanwhile may see a point twice or not at all, and looks again (see search).
        self._updates += 1
        segments.replace(changed, vectors)
        self._updates += 1
        if self._settle:
            segments.settle()

    # --- sealing beside a writer, see segments.py ------------------------------------------------

    @property
    def sealed(self) -> tuple[Sealed[MaxIPSegment], ...]:
        """The sealed segments, largest first."""
        return self._segments.sealed if self._segments is not None else ()

    @property
    def frozen(self) -> int:
        """Full tails that wait to be sealed."""
        return self._segments.frozen if self._segments is not None else 0

    def freeze(self) -> None:
        """Let the tail wait to be sealed, full or not."""
        if self._segments is not None:
            self._segments.freeze()

    def next_seal(self) -> MaxIPMerge | None:
        """The oldest full tail alone, if there is one; quick, for the writer."""
        return self._segments.next_seal() if self._segments is not None else None

    def next_tier(self) -> MaxIPMerge | None:
        """Sealed segments that are to become one, if any are; quick, for the writer."""
        return self._segments.next_tier() if self._segments is not None else None

    def finish(self, merge: MaxIPMerge, segment: MaxIPSegment) -> None:
        """Put a built segment in the place of its sources; quick, for the writer."""
        assert self._segments is not None
        self._segments.finish(merge, segment)

    @property
    def parameters(self) -> dict[str, Any]:
        """All that :meth:`restored` needs beside the segments, as JSON values."""
        return self._options | {"seed": self.seed, "dim": self.dim, "next_id": self._next_id}

    @property
    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _OPTIONS}

    @classmethod
    def restored(
        cls,
        parameters: dict[str, Any],
        segments: Sequence[tuple[int, Path]] = (),
        *,
        verify: bool = True,
        settle: bool = True,
    ) -> MaxIPIndex:
        """An index over segment files.

        Args:
            parameters: of the index that wrote them.
            segments: chunks and path of each file, largest first, as :attr:`sealed` had them.
            verify: compare all checksums first.
            settle: see the class.

        Raises:
            CorruptFileError: a file is damaged, or does not belong to these parameters.
        """
        index = cls(
            parameters["seed"], settle=settle, **{name: parameters[name] for name in _OPTIONS}
        )
        if segments:
            dim = parameters["dim"]
            opened = [
                Sealed(chunks, open_segment(Path(path), dim, verify=verify))
                for chunks, path in segments
            ]
            index._lay_out(dim).restore(opened)
        index._next_id = int(parameters["next_id"])
        return index

    def compact(self) -> None:
        """Merge everything into one sealed segment: fastest queries, removed points dropped."""
        if self._segments is not None:
            self._segments.compact()

    def tune(self, queries: Any) -> None:
        """Measure how much must be read for queries like these, float32 (q, dim), q ≥ 30 or so.

        Without it the index measures itself with points and sums of points as queries.
        """
        sample = self.check(queries)
        if not len(sample):
            raise InvalidInputError("tuning needs at least one query", field="vector")
        self._recalibrate(lambda lists: calibrate(lists, self.seed, sample))

    def fix_effort(self, probes: int, candidates: int, kappa: float) -> None:
        """Let searches of the sealed points look at so much, whatever recall they ask for.

        For queries of which not the best ten are wanted but any good point.

        Args:
            probes: lists whose codes are scanned, of each segment.
            candidates: points compared by their bytes.
            kappa: spreads above its centre that a list is credited with, times √dim.

        Raises:
            InvalidInputError: one of them is out of range.
        """
        for name, value in (("probes", probes), ("candidates", candidates)):
            if value < 1:
                raise InvalidInputError(f"{name} must be at least 1", field=name)
        if not 0 <= kappa < np.inf:
            raise InvalidInputError("kappa must be finite and not negative", field="kappa")
        fixed = Calibration(kappa, (Curve(candidates, (probes,), (0.0,), (1.0,)),))
        self._recalibrate(lambda _: fixed)

    def _recalibrate(self, calibration_of: Callable[[Lists], Calibration]) -> None:
        if self._segments is None:
            return
        again = []
        for chunks, old in ((sealed.chunks, sealed.segment) for sealed in self.sealed):
            segment = MaxIPSegment(old.lists, calibration_of(old.lists), old.path)
            again.append(Sealed(chunks, segment))
        self._segments.restore(again)

    def remove(self, ids: Any) -> int:
        """Remove points by id; the number of those that were present.

        Raises:
            InvalidInputError: what is given are no integers.
        """
        if self._segments is None:
            return 0
        return self._segments.remove(rising(as_ids(ids)))

    def take(self, id_: int) -> FloatArray:
        """Remove one point and answer its vector, float32 (dim,).

        Raises:
            InvalidInputError: the id is not in the index.
        """
        return self._contents().take(as_ids([id_]))

    def fork(self) -> MaxIPIndex:
        """An index of the same points, sharing their memory, that can be changed on its own.

        It costs some ten bytes a point: for algorithms that take points out as they go.
        """
        other = MaxIPIndex(self.seed, settle=self._settle, **self._options)
        if self._segments is None or self.dim is None:
            return other
        segments = other._lay_out(self.dim)
        unsealed = self._segments.unsealed()
        segments.restore([Sealed(s.chunks, s.segment.fork()) for s in self._segments.sealed])
        if unsealed is not None:
            segments.append(*unsealed)
        other._next_id = self._next_id
        return other

    # --- searching -------------------------------------------------------------------------------

    def search(
        self,
        batch: Any,
        k: int,
        threshold: float | None = None,
        target_recall: float | None = None,
        *,
        turn: int = 0,
    ) -> tuple[Int64Array, FloatArray]:
        """The k points of highest inner product with each query, as far as they are found.

        Args:
            batch: float32 (q, dim).
            k: hits wanted for each query.
            threshold: least inner product of a hit.
            target_recall: reads more lists or fewer, from this query on.
            turn: which of the index's rotations to use, counted around.

        Returns:
            ids int64 (q, k) and exact inner products float32 (q, k) by falling score, then rising
            id; -1 and NaN after the last hit.

        Raises:
            InvalidInputError: unusable queries or parameters.
        """
        k = check_k(k)
        check_turn(turn)
        queries, squares = checked(batch, self.dim)
        floor = smallest_hit(self.metric, threshold)
        target = self.target_recall if target_recall is None else check_target(target_recall)
        if squares.min(initial=1.0) >= SHORT**2:
            return self._search(queries, k, floor, target, turn)
        # So short that products lose digits: asked as if they were longer.
        longer, exponents = lengthened(queries)
        ids, scores = self._search(longer, k, -np.inf, target, turn)
        scores = np.ldexp(scores, -exponents[:, None])
        hits = scores >= floor
        return np.where(hits, ids, -1), np.where(hits, scores, np.float32(np.nan))

    def _search(
        self, queries: FloatArray, k: int, floor: float, target: float, turn: int
    ) -> tuple[Int64Array, FloatArray]:
        for _ in range(_LOOKS):
            before = self._updates
            parts = [
                self._ask(segment, queries, k, floor, target, turn)[:2]
                for segment in self._searchable()
            ]
            if before == self._updates and before % 2 == 0:
                break
        if not parts:
            shape = (len(queries), k)
            return np.full(shape, -1, np.int64), np.full(shape, np.nan, np.float32)
        return merge_topk(parts, k)

    def _ask(
        self,
        segment: MaxIPSegment | MaxIPTail,
        queries: FloatArray,
        k: int,
        floor: float,
        target: float,
        turn: int,
    ) -> Answer:
        if isinstance(segment, MaxIPTail):
            return segment.search(queries, k, floor)
        return segment.search(queries, k, segment.effort(target, k), floor, turn)

    def search_gap(
        self, query: Any, base: float, need: float, *, turn: int = 0, certify: bool = False
    ) -> GapAnswer:
        """A point whose score exceeds `base` by at least `need`, found with as little as possible.

        Looks at few lists, then as many as `target_recall` asks for, then all codes, and stops as
        soon as a point will do: the oracle of a conditional-gradient step, whose query is the
        negative gradient, base the value of the present point and need the wanted progress.

        Args:
            query: float32 (dim,).
            base: what is subtracted from the score.
            need: least gap that is accepted.
            turn: which of the index's rotations to use, counted around.
            certify: where no gap suffices, compare all points; the answer is then exact.

        Returns:
            The best point met, whether or not its gap suffices.
        """
        queries, squares = checked(np.asarray(query).reshape(1, -1), self.dim)
        check_turn(turn)
        if np.isnan(base) or np.isnan(need):
            raise InvalidInputError("base and need must be numbers", field="need")
        if 0 < squares[0] < SHORT**2:  # products would lose digits
            longer, exponents = lengthened(queries)
            unit = 2.0 ** float(exponents[0])
            found = self.search_gap(longer, base * unit, need * unit, turn=turn, certify=certify)
            return replace(found, score=found.score / unit, gap=found.gap / unit)
        parts = self._searchable()
        met = first_above(parts, queries, base, need, self.target_recall, turn)
        if met.gap >= need or not certify or not len(self):
            return met
        best, score = self.exact_best(queries[0])
        return GapAnswer(best, score, score - base, True, met.scanned + len(self))

    def exact_best(self, query: npt.ArrayLike) -> tuple[int, float]:
        """Id and score of the best of all points, comparing each; -1 and -inf if there is none.

        Scores are compared in float32; all that rounding leaves in doubt, again in float64, so
        that no point has a higher inner product with `query`, float (dim,), than the one returned.

        Raises:
            InvalidInputError: an unusable query.
        """
        self.check(np.asarray(query).reshape(1, -1))
        # In float64 again: rounding the query could change which point is best.
        return self._contents().exact_best(np.asarray(query, np.float64).reshape(-1))

    def _contents(self) -> MaxIPContents:
        return MaxIPContents(self._searchable(), self.dim or 1)

    def points(self) -> tuple[Int64Array, FloatArray]:
        """All points by rising id: ids int64 (n,) and vectors float32 (n, dim); a copy."""
        return self._contents().points()

    def mean(self) -> npt.NDArray[np.float64]:
        """Mean of all points, float64 (dim,); zeros if there is none."""
        return self._contents().mean()

    def some_ids(self, count: int, seed: int = 0) -> list[int]:
        """Up to `count` ids at random, without repeats."""
        return self._contents().some_ids(count, seed)

    def vectors(self, ids: Any) -> FloatArray:
        """Vectors of points by id, float32 (n, dim).

        Raises:
            InvalidInputError: an id is not in the index.
        """
        return self._contents().vectors(as_ids(ids))

    # --- describing ------------------------------------------------------------------------------

    def recall_estimate(self, target_recall: float | None = None) -> float:
        """Expected share of the true best ten that an answer holds."""
        target = self.target_recall if target_recall is None else check_target(target_recall)
        return expected_recall(self._searchable(), len(self), target)

    def explain(self) -> dict[str, Any]:
        """What the index is, chose and promises, in words and numbers."""
        return {
            "index": self.kind,
            "metric": self.metric,
            "points": len(self),
            "dim": self.dim,
            "target_recall": self.target_recall,
            "predicted_recall": round(self.recall_estimate(), 4),
            "seed": self.seed,
            "rotations": self.rotations,
        } | described(self._searchable(), self.target_recall)

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes by part: ``"codes"``, ``"bytes"``, ``"lists"``, ``"ids"`` and ``"features"``."""
        return bytes_by_part(self._searchable())

    # --- files -----------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the index to a file, replacing it atomically.

        The points that are not sealed yet are written as they are.
        """
        unsealed = self._segments.unsealed() if self._segments is not None else None
        fixed = {"index": self.kind, "metric": self.metric}
        write_contents(Path(path), fixed | self.parameters, self.sealed, unsealed)

    @classmethod
    def load(cls, path: str | Path, *, verify: bool = True) -> MaxIPIndex:
        """Map an index that :meth:`save` wrote.

        Args:
            path: the file; it must stay unchanged while the index is in use.
            verify: compare all checksums first.

        Raises:
            CorruptFileError: the file is damaged or of another kind.
        """
        header, arrays = read_arrays(Path(path), kind=cls.kind, verify=verify)
        with unusable_is_corrupt(path):
            index = cls(header["seed"], **{name: header[name] for name in _OPTIONS})
            sealed, unsealed = contents_of(header, arrays)
            if sealed:
                index._lay_out(header["dim"]).restore(sealed)
            if unsealed is not None:
                index.add(unsealed[1], unsealed[0])
            index._next_id = int(header["next_id"])
        return index
