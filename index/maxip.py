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

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _maxip
from .batches import FloatArray, Int64Array, as_dense_batch
from .buffers import Column
from .engine import Metric, check_ids, check_k, smallest_hit
from .errors import CorruptFileError, InvalidInputError
from .files import read_arrays, write_arrays
from .maxip_effort import MIN_CANDIDATES, Calibration, calibrate
from .maxip_lists import CodeSet, Lists, MaxIPEffort, longest_norm
from .topk import merge_topk
from .tuning import check_target

DEFAULT_CAPACITY = 4_096
MAX_ROTATIONS = 16
# Inner products of vectors up to this norm are finite in float32.
MAX_NORM = 1e18
_QUERIES_AT_ONCE = 256
_EXACT_BLOCK = 262_144


@dataclass(frozen=True)
class GapAnswer:
    """What :meth:`MaxIPIndex.search_gap` found.

    Attributes:
        id: the point, -1 if the index is empty.
        score: its inner product with the query.
        gap: score - base.
        exact: no point has a higher score.
        scanned: points whose code or vector was read.
    """

    id: int
    score: float
    gap: float
    exact: bool
    scanned: int


@dataclass(frozen=True, eq=False)
class _Segment:
    lists: Lists
    calibration: Calibration

    def effort(self, target: float, k: int) -> MaxIPEffort:
        effort = self.calibration.effort(target, self.lists.dim)
        return MaxIPEffort(effort.probes, max(effort.candidates, 4 * k), effort.kappa)


@dataclass(frozen=True, eq=False)
class _Tail:
    """Points that are in no segment yet, in order of arrival."""

    ids: Int64Array
    alive: npt.NDArray[np.bool_]
    vectors: FloatArray


@dataclass(frozen=True, eq=False)
class _State:
    """What a search reads; replaced as a whole."""

    segments: tuple[_Segment, ...] = ()
    tail: _Tail | None = None


class MaxIPIndex:
    """Points of highest inner product with a query.

    Args:
        seed: of clustering and codes; equal seeds and calls give equal answers.
        target_recall: share of the true best ten that an answer should hold, .5 to .9999.
        rotations: independent sets of codes, which searches may take in turn; for sequences of
            queries that depend on earlier answers. Each adds about dim / 8 + 4 bytes a point.
        capacity: points that are compared exactly before they are sealed into lists.

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
    ) -> None:
        self.seed = int(seed)
        self.target_recall = check_target(target_recall)
        if not 1 <= rotations <= MAX_ROTATIONS:
            raise InvalidInputError(
                f"rotations must be from 1 to {MAX_ROTATIONS}",
                field="rotations",
                limit=MAX_ROTATIONS,
            )
        if capacity < 1:
            raise InvalidInputError("capacity must be positive", field="capacity")
        self.rotations = int(rotations)
        self.capacity = int(capacity)
        self.dim: int | None = None
        self._next_id = 0
        self._updates = 0
        self._new_tail()
        self._state = _State()

    def _new_tail(self) -> None:
        self._tail_ids = Column(np.int64)
        self._tail_alive = Column(np.bool_)
        self._tail_vectors = Column(np.float32, (self.dim or 1,))
        self._tail_rows: dict[int, int] = {}

    def __len__(self) -> int:
        state = self._state
        sealed = sum(int(segment.lists.alive().sum()) for segment in state.segments)
        return sealed + (int(state.tail.alive.sum()) if state.tail is not None else 0)

    # --- writing ---------------------------------------------------------------------------------

    def check(self, batch: Any) -> FloatArray:
        """Vectors as this index stores them, float32 (n, dim).

        Raises:
            InvalidInputError: not finite, of another dimension, or of a norm above ``MAX_NORM``.
        """
        vectors = as_dense_batch(batch, self.dim)
        if len(vectors):
            norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
            longest = int(norms.argmax())
            if norms[longest] > MAX_NORM:
                raise InvalidInputError(
                    f"a vector's norm must be at most {MAX_NORM:g}, or inner products overflow",
                    field="vector",
                    row=longest,
                )
        return vectors

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
        if ids is not None and int(new_ids.min()) < self._next_id:
            present = new_ids[self._present(new_ids)]
            if len(present):
                raise InvalidInputError(
                    f"id {present[0]} is in the index already; update or remove it", field="ids"
                )
        self._append(new_ids, vectors)

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
        before = self._state
        old_rows = [self._tail_rows[i] for i in changed.tolist() if i in self._tail_rows]
        # A search between these steps may see a point twice, and looks again (see search).
        self._updates += 1
        self._append(changed, vectors, stale=np.array(old_rows, np.int64))
        for segment in before.segments:
            places = segment.lists.find(changed)
            segment.lists.remove(places[places >= 0])

    def _append(
        self, ids: Int64Array, vectors: FloatArray, stale: Int64Array | None = None
    ) -> None:
        if self.dim is None:
            self.dim = vectors.shape[1]
            self._new_tail()
        self._next_id = max(self._next_id, int(ids.max()) + 1)
        first = len(self._tail_ids)
        if first + len(ids) >= self.capacity:
            self._seal(ids, vectors, stale)
            return
        self._tail_ids.append(ids)
        self._tail_vectors.append(vectors)
        self._tail_alive.append(np.ones(len(ids), bool))
        tail = _Tail(
            self._tail_ids.snapshot(), self._tail_alive.snapshot(), self._tail_vectors.snapshot()
        )
        self._state = _State(self._state.segments, tail)
        if stale is not None:
            tail.alive[stale] = False
        self._tail_rows.update(zip(ids.tolist(), range(first, first + len(ids)), strict=True))

    def _seal(self, ids: Int64Array, vectors: FloatArray, stale: Int64Array | None) -> None:
        """Build a segment of the tail, the given points, and all segments that are not larger."""
        state = self._state
        parts = [(ids, vectors)]
        if state.tail is not None:
            kept = state.tail.alive.copy()
            if stale is not None:
                kept[stale] = False
            parts.append((state.tail.ids[kept], state.tail.vectors[kept]))
        segments = list(state.segments)
        replaced = stale is not None
        while segments and segments[-1].lists.points <= 2 * sum(len(part[0]) for part in parts):
            lists = segments.pop().lists
            places = np.flatnonzero(lists.alive())
            if replaced:
                places = places[~np.isin(lists.ids[places], ids)]
            parts.append((lists.ids[places], lists.vectors[places]))
        built = self._build(parts)
        self._state = _State((*segments, *built), None)
        self._new_tail()

    def _build(self, parts: list[tuple[Int64Array, FloatArray]]) -> tuple[_Segment, ...]:
        ids = np.concatenate([part[0] for part in parts])
        if not len(ids):
            return ()
        vectors = np.concatenate([part[1] for part in parts]) if len(parts) > 1 else parts[0][1]
        lists = Lists.build(ids, vectors, self.seed, self.rotations)
        return (_Segment(lists, calibrate(lists, self.seed)),)

    def compact(self) -> None:
        """Merge everything into one sealed segment: fastest queries, removed points dropped."""
        state = self._state
        parts = [
            (segment.lists.ids[alive], segment.lists.vectors[alive])
            for segment in state.segments
            for alive in (segment.lists.alive(),)
        ]
        if state.tail is not None:
            parts.append((state.tail.ids[state.tail.alive], state.tail.vectors[state.tail.alive]))
        self._state = _State(self._build(parts) if parts else (), None)
        self._new_tail()

    def tune(self, queries: Any) -> None:
        """Measure how much must be read for queries like these, float32 (q, dim), q ≥ 30 or so.

        Without it the index measures itself with points and sums of points as queries.
        """
        checked = self.check(queries)
        if not len(checked):
            raise InvalidInputError("tuning needs at least one query", field="vector")
        segments = tuple(
            _Segment(s.lists, calibrate(s.lists, self.seed, checked)) for s in self._state.segments
        )
        self._state = _State(segments, self._state.tail)

    def remove(self, ids: Any) -> int:
        """Remove points by id; the number of those that were present."""
        wanted = np.unique(np.atleast_1d(np.asarray(ids, np.int64)))
        removed = 0
        state = self._state
        for i in wanted.tolist():
            row = self._tail_rows.pop(i, None)
            if row is not None and state.tail is not None:
                state.tail.alive[row] = False
                removed += 1
        for segment in state.segments:
            places = segment.lists.find(wanted)
            places = places[places >= 0]
            segment.lists.remove(places)
            removed += len(places)
        return removed

    def fork(self) -> MaxIPIndex:
        """An index of the same points, sharing their memory, that can be changed on its own.

        It costs some ten bytes a point: for algorithms that take points out as they go.
        """
        other = MaxIPIndex(
            self.seed, self.target_recall, rotations=self.rotations, capacity=self.capacity
        )
        state = self._state
        other.dim = self.dim
        other._new_tail()
        other._state = _State(
            tuple(_Segment(s.lists.fork(), s.calibration) for s in state.segments)
        )
        if state.tail is not None and state.tail.alive.any():
            alive = state.tail.alive.copy()
            other._append(state.tail.ids[alive], state.tail.vectors[alive])
        other._next_id = self._next_id
        return other

    def _present(self, ids: Int64Array) -> npt.NDArray[np.bool_]:
        present = np.fromiter((i in self._tail_rows for i in ids.tolist()), bool, len(ids))
        for segment in self._state.segments:
            present |= segment.lists.find(ids) >= 0
        return present

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
        queries = self.check(batch)
        floor = smallest_hit(self.metric, threshold)
        target = self.target_recall if target_recall is None else check_target(target_recall)
        while True:
            state = self._state
            parts = []
            if state.tail is not None or not state.segments:
                parts.append(_search_tail(state.tail, queries, k, floor))
            for segment in state.segments:
                effort = segment.effort(target, k)
                parts.append(segment.lists.search(queries, k, effort, floor, turn)[:2])
            ids, scores = merge_topk(parts, k)
            if not self._updates or not _has_repeats(ids):
                return ids, scores

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
        queries = self.check(np.asarray(query).reshape(1, -1))
        best, scanned = (-1, -np.inf), 0
        for effort in (_few, _usual, _all):
            found, score, read = self._best_with(queries, effort, turn)
            scanned += read
            if score > best[1]:
                best = (found, score)
            if best[1] - base >= need:
                return GapAnswer(best[0], best[1], best[1] - base, False, scanned)
        if certify and len(self):
            found, score = self.exact_best(queries[0])
            return GapAnswer(found, score, score - base, True, scanned + len(self))
        return GapAnswer(best[0], best[1], best[1] - base, False, scanned)

    def _best_with(self, queries: FloatArray, effort_of: Any, turn: int) -> tuple[int, float, int]:
        """Id, score and points read of the best point under an effort; -1 and -inf if none."""
        state = self._state
        parts = [_search_tail(state.tail, queries, 1, -np.inf)]
        read = len(state.tail.ids) if state.tail is not None else 0
        for segment in state.segments:
            ids, scores, scanned = segment.lists.search(
                queries, 1, effort_of(segment, self.target_recall), -np.inf, turn
            )
            parts.append((ids, scores))
            read += int(scanned[0])
        ids, scores = merge_topk(parts, 1)
        return (
            (int(ids[0, 0]), float(scores[0, 0]), read) if ids[0, 0] >= 0 else (-1, -np.inf, read)
        )

    def exact_best(self, query: npt.ArrayLike) -> tuple[int, float]:
        """Id and score of the best of all points, comparing each; -1 and -inf if there is none.

        Scores are compared in float32; all that rounding leaves in doubt, again in float64, so
        that no point has a higher inner product with `query`, float (dim,), than the one returned.
        """
        exact = np.asarray(query, np.float64)
        rough = exact.astype(np.float32)
        best, best_id = -np.inf, -1
        # Most by which a float32 sum of dim products misses, for the longest point.
        doubt = 2 * (len(exact) + 2) * 2.0**-24 * float(np.linalg.norm(exact)) * self._longest()
        for ids, alive, vectors in self._blocks():
            scores = np.where(alive, vectors @ rough, -np.inf)
            near = np.flatnonzero(scores >= max(float(scores.max()), best) - 2 * doubt)
            if not len(near) or not alive[near].any():
                continue
            precise = np.where(alive[near], vectors[near].astype(np.float64) @ exact, -np.inf)
            at = int(np.lexsort((ids[near], -precise))[0])
            if (precise[at], -ids[near[at]]) > (best, -best_id):
                best, best_id = float(precise[at]), int(ids[near[at]])
        return best_id, best

    def _longest(self) -> float:
        """A bound of the norms of all points."""
        state = self._state
        norms = [segment.lists.longest for segment in state.segments]
        return max([*norms, longest_norm(state.tail.vectors) if state.tail is not None else 0.0])

    def _blocks(
        self,
    ) -> Iterator[tuple[Int64Array, npt.NDArray[np.bool_], FloatArray]]:
        """All points in blocks: ids, which are alive, vectors."""
        state = self._state
        if state.tail is not None and len(state.tail.ids):
            yield state.tail.ids, state.tail.alive, state.tail.vectors
        for segment in state.segments:
            lists = segment.lists
            alive = lists.alive()
            for at in range(0, len(lists.ids), _EXACT_BLOCK):
                part = slice(at, at + _EXACT_BLOCK)
                yield lists.ids[part], alive[part], lists.vectors[part]

    def points(self) -> tuple[Int64Array, FloatArray]:
        """All points by rising id: ids int64 (n,) and vectors float32 (n, dim); a copy."""
        blocks = [(ids[alive], vectors[alive]) for ids, alive, vectors in self._blocks()]
        if not blocks:
            return np.zeros(0, np.int64), np.zeros((0, self.dim or 1), np.float32)
        ids = np.concatenate([block[0] for block in blocks])
        order = np.argsort(ids, kind="stable")
        return ids[order], np.concatenate([block[1] for block in blocks])[order]

    def mean(self) -> npt.NDArray[np.float64]:
        """Mean of all points, float64 (dim,); zeros if there is none."""
        total, count = np.zeros(self.dim or 1), 0
        for _, alive, vectors in self._blocks():
            total += np.where(alive[:, None], vectors, 0).sum(axis=0, dtype=np.float64)
            count += int(alive.sum())
        return np.asarray(total / max(count, 1), np.float64)

    def some_ids(self, count: int, seed: int = 0) -> list[int]:
        """Up to `count` ids at random, without repeats."""
        rng = np.random.default_rng(seed)
        drawn: set[int] = set()
        blocks = [(ids, alive) for ids, alive, _ in self._blocks()]
        total = sum(int(alive.sum()) for _, alive in blocks)
        wanted = np.sort(rng.choice(total, min(count, total), replace=False))
        for ids, alive in blocks:
            points = ids[alive]
            here, wanted = wanted[wanted < len(points)], wanted[wanted >= len(points)] - len(points)
            drawn.update(points[here].tolist())
        return sorted(drawn)

    def vectors(self, ids: Any) -> FloatArray:
        """Vectors of points by id, float32 (n, dim).

        Raises:
            InvalidInputError: an id is not in the index.
        """
        wanted = np.atleast_1d(np.asarray(ids, np.int64))
        state = self._state
        out = np.empty((len(wanted), self.dim or 1), np.float32)
        missing = np.ones(len(wanted), bool)
        for segment in state.segments:
            places = segment.lists.find(wanted)
            here = places >= 0
            out[here] = segment.lists.vectors[places[here]]
            missing &= ~here
        for at in np.flatnonzero(missing):
            row = self._tail_rows.get(int(wanted[at]))
            if row is None or state.tail is None:
                raise InvalidInputError(f"id {wanted[at]} is not in the index", field="ids")
            out[at] = state.tail.vectors[row]
        return out

    # --- describing ------------------------------------------------------------------------------

    def recall_estimate(self, target_recall: float | None = None) -> float:
        """Expected share of the true best ten that an answer holds."""
        target = self.target_recall if target_recall is None else check_target(target_recall)
        state = self._state
        total = max(1, len(self))
        estimate = 0.0
        sealed = 0
        for segment in state.segments:
            alive = int(segment.lists.alive().sum())
            sealed += alive
            probes = segment.effort(target, 1).probes
            estimate += alive / total * segment.calibration.recall_of(probes)
        return min(1.0, estimate + (total - sealed) / total)

    def explain(self) -> dict[str, Any]:
        """What the index is, chose and promises, in words and numbers."""
        state = self._state
        return {
            "index": self.kind,
            "metric": self.metric,
            "points": len(self),
            "dim": self.dim,
            "target_recall": self.target_recall,
            "predicted_recall": round(self.recall_estimate(), 4),
            "seed": self.seed,
            "rotations": self.rotations,
            "unsealed": int(state.tail.alive.sum()) if state.tail is not None else 0,
            "segments": [self._explain_segment(segment) for segment in state.segments],
            "nbytes": self.nbytes,
            "why": (
                "lists are ranked by the score of their centre and their spread, their points by "
                "1-bit codes, and the best of those exactly; how many was measured on samples"
            ),
        }

    def _explain_segment(self, segment: _Segment) -> dict[str, Any]:
        effort = segment.effort(self.target_recall, 10)
        return {
            "points": segment.lists.points,
            "removed": segment.lists.points - int(segment.lists.alive().sum()),
            "lists": segment.lists.lists,
            "probes": effort.probes,
            "candidates": effort.candidates,
            "kappa": segment.calibration.kappa,
        }

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes by part: ``"codes"``, ``"lists"``, ``"ids"`` and ``"features"``."""
        total = {
            "codes": 0,
            "lists": 0,
            "ids": self._tail_ids.nbytes + self._tail_alive.nbytes,
            "features": self._tail_vectors.nbytes,
        }
        for segment in self._state.segments:
            for name, size in segment.lists.nbytes.items():
                total[name] += size
        return total

    # --- files -----------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the index to a file, replacing it atomically."""
        state = self._state
        arrays: dict[str, npt.NDArray[Any]] = {}
        for number, segment in enumerate(state.segments):
            arrays |= {f"{number}.{n}": a for n, a in _arrays_of(segment.lists).items()}
        if state.tail is not None:
            alive = state.tail.alive.copy()
            arrays |= {
                "tail.ids": state.tail.ids[alive],
                "tail.vectors": state.tail.vectors[alive],
            }
        header = {
            "index": self.kind,
            "metric": self.metric,
            "seed": self.seed,
            "target_recall": self.target_recall,
            "rotations": self.rotations,
            "capacity": self.capacity,
            "dim": self.dim,
            "next_id": self._next_id,
            "segments": [segment.calibration.as_json() for segment in state.segments],
        }
        write_arrays(Path(path), header, arrays)

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
        try:
            index = cls(
                header["seed"],
                header["target_recall"],
                rotations=header["rotations"],
                capacity=header["capacity"],
            )
            index.dim = header["dim"]
            index._new_tail()
            segments = tuple(
                _Segment(_lists_from(arrays, number), Calibration.from_json(calibration))
                for number, calibration in enumerate(header["segments"])
            )
            index._state = _State(segments)
            if len(arrays.get("tail.ids", ())):
                index._append(arrays["tail.ids"], arrays["tail.vectors"])
            index._next_id = int(header["next_id"])
        except (KeyError, TypeError, ValueError) as fault:
            raise CorruptFileError(f"not a usable index: {fault}", path=str(path)) from fault
        return index


# Efforts of search_gap, which wants one point and not ten: so fewer are compared exactly.
def _few(segment: _Segment, target: float) -> MaxIPEffort:
    effort = segment.effort(target, 1)
    return MaxIPEffort(max(1, effort.probes // 8), MIN_CANDIDATES // 2, effort.kappa)


def _usual(segment: _Segment, target: float) -> MaxIPEffort:
    effort = segment.effort(target, 1)
    return MaxIPEffort(effort.probes, max(MIN_CANDIDATES, effort.candidates // 4), effort.kappa)


def _all(segment: _Segment, target: float) -> MaxIPEffort:
    effort = segment.effort(target, 1)
    return MaxIPEffort(segment.lists.lists, effort.candidates, effort.kappa)


def _search_tail(
    tail: _Tail | None, queries: FloatArray, k: int, floor: float
) -> tuple[Int64Array, FloatArray]:
    """The k best of the unsealed points, by comparing all of them."""
    ids = np.full((len(queries), k), -1, np.int64)
    scores = np.full((len(queries), k), np.nan, np.float32)
    if tail is None:
        return ids, scores
    rows = np.flatnonzero(tail.alive)
    vectors = tail.vectors[rows] if len(rows) < len(tail.ids) else tail.vectors
    points = tail.ids[rows]
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        products = _maxip.products(vectors, queries[start : start + _QUERIES_AT_ONCE])
        for row, product in enumerate(products, start):
            good = np.flatnonzero(product >= floor)
            if len(good) > k:
                kth = np.partition(product[good], len(good) - k)[len(good) - k]
                good = good[product[good] >= kth]
            best = good[np.lexsort((points[good], -product[good]))[:k]]
            ids[row, : len(best)] = points[best]
            scores[row, : len(best)] = product[best]
    return ids, scores


def _has_repeats(ids: Int64Array) -> bool:
    ordered = np.sort(ids, axis=1)
    return bool(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any())


def _arrays_of(lists: Lists) -> dict[str, npt.NDArray[Any]]:
    arrays: dict[str, npt.NDArray[Any]] = {
        "ids": lists.ids,
        "vectors": lists.vectors,
        "centroids": lists.centroids,
        "spreads": lists.spreads,
        "starts": lists.starts,
    }
    for number, code_set in enumerate(lists.code_sets):
        arrays |= {
            f"signs{number}": code_set.signs,
            f"codes{number}": code_set.codes,
            f"factors{number}": code_set.factors,
        }
    return arrays


def _lists_from(arrays: dict[str, npt.NDArray[Any]], number: int) -> Lists:
    own = {n.removeprefix(f"{number}."): a for n, a in arrays.items() if n.startswith(f"{number}.")}
    code_sets = tuple(
        # Removals mark factors and spreads, so they are copied.
        CodeSet(own[f"signs{i}"], own[f"codes{i}"], np.array(own[f"factors{i}"]))
        for i in range(sum(name.startswith("codes") for name in own))
    )
    return Lists(
        own["ids"],
        own["vectors"],
        own["centroids"],
        np.array(own["spreads"]),
        own["starts"],
        code_sets,
    )
