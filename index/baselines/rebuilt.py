"""An index whose structure is never changed but replaced: FAISS's, which cannot do both at once.

    add ──► points, in order of arrival ──► [ covered by FAISS's structure | tail ]
    search ──► structure ► candidates ► exact comparison ─┐
               tail: every point compared ────────────────┴─► merge

When the tail is long, a copy of the structure takes it in; when many points were removed or the
structure was trained on too few, it is built anew. That takes seconds to minutes (a
:class:`Renewal`), needs no lock, and ends in one assignment: searches see either all of the old or
all of the new.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
from closeby.index.batches import Batch, FloatArray, Int64Array, SetBatch
from closeby.index.buffers import marked
from closeby.index.engine import Metric, check_batch, check_ids, check_k, check_metric, smallest_hit
from closeby.index.errors import InvalidInputError, unusable_is_corrupt
from closeby.index.files import read_arrays, write_arrays
from closeby.index.points import Points, PointsView
from closeby.index.topk import merge_topk
from closeby.index.tuning import check_target

from . import structure_files
from .choices import Choices, whole
from .measuring import measure
from .structure import Asked, Structure, add_all, alive_at, faiss_threads

# Points below which every query compares all: a structure would not be faster.
STRUCTURE_FROM = 2_048
# The tail is taken in when it has so many points and so large a part of the covered ones.
TAIL, TAIL_SHARE = 2_048, 1 / 64
# The structure is built anew when so large a part of its points was removed.
GARBAGE_SHARE = 1 / 4
# Points kept out to measure recall; fewer where comparing them with all would take too long.
SAMPLE, LEAST_SAMPLE, SAMPLE_COMPARISONS = 128, 32, 20_000_000
# The curve is measured anew when the structure has grown by so much.
MEASURE_AGAIN = 1.25


@dataclass(frozen=True, eq=False)
class _View:
    """What a search reads; replaced as a whole."""

    points: PointsView
    structure: Structure | None


@dataclass(eq=False)
class Renewal:
    """A structure that is to take the place of the present one, and of the tail.

    Made by :meth:`RebuiltIndex.next_renewal`; `run` takes the time and needs no lock.
    """

    index: RebuiltIndex
    source: Points
    view: PointsView
    before: Structure | None
    taken: Int64Array | None = None
    """Places in the view of the points that were taken over, where the points move together."""
    points: Points | None = None
    structure: Structure | None = None

    def run(self) -> None:
        """Build the structure."""
        view, before = self.view, self.before
        if before is None:
            self.taken = marked(view.alive)
            self.points = Points()
            if not len(self.taken):
                return
            self.points.append(view.ids[self.taken], view.take(self.taken))
            moved = self.points.view()
            assert moved is not None
            view = moved
        if len(view) >= STRUCTURE_FROM:
            self.structure = self.index._build(view, before)


class RebuiltIndex(Choices):
    """What the engines of FAISS share; see the module.

    Args:
        metric: one of the engine's.
        seed: of sketches, training and samples.
        target_recall: share of the neighbours that an answer should hold.
        threshold: least similarity of the neighbours that count for it; all of the nearest ten
            unless given, and where there are hardly any.
        threads: of FAISS while a structure is built. More than one make a graph depend on chance.
        settle: renew within :meth:`add` and :meth:`remove`; otherwise whoever calls
            :meth:`next_renewal` and :meth:`finish` does it.

    """

    def __init__(
        self,
        metric: Metric,
        seed: int,
        *,
        target_recall: float,
        threshold: float | None,
        threads: int,
        settle: bool,
    ) -> None:
        self.metric: Metric = check_metric(metric, self.metrics)
        self.seed = int(seed)
        self.target_recall = check_target(target_recall)
        if threshold is not None and not np.isfinite(threshold):
            raise InvalidInputError("threshold must be a finite number", field="threshold")
        self.threshold = None if threshold is None else float(threshold)
        self.threads = whole("threads", threads, 1, 1024)
        self._settles = settle
        self._points = Points()
        self._view: _View | None = None

    # --- points ----------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._points)

    def check(self, batch: Any) -> Batch:
        """The batch as this index stores and searches it; see :func:`engine.check_batch`."""
        return check_batch(batch, self.metric, self._points.dim)

    def add(self, batch: Any, ids: Any = None) -> None:
        """Add points; a search finds them when this returns.

        Args:
            batch: n sets, or float32 (n, dim).
            ids: int64 (n,), new ones; the next free numbers unless given.

        Raises:
            InvalidInputError: unusable features, or an id that is present or given twice.
        """
        features = self.check(batch)
        new_ids = check_ids(ids, len(features), self._points.next_id)
        self._points.refuse_present(new_ids)
        if not len(features):
            return
        if not len(self._points):
            self._check_first(features)
        self._points.append(new_ids, features)
        self._publish(self._view.structure if self._view is not None else None)
        if self._settles:
            self._settle()

    def remove(self, ids: Any) -> int:
        """Remove points by id; the number of those that were present."""
        places = self._points.remove(ids)
        if self._view is not None and self._view.structure is not None:
            self._view.structure.remove(places)
        if self._settles and len(places):
            self._settle()
        return len(places)

    def _publish(self, structure: Structure | None) -> None:
        points = self._points.view()
        self._view = None if points is None else _View(points, structure)

    # --- renewing --------------------------------------------------------------------------------

    def next_renewal(self) -> Renewal | None:
        """What is to be built next, if anything; quick, for the writer."""
        if self._view is None:
            return None
        points, structure = self._view.points, self._view.structure
        covered = 0 if structure is None else len(structure)
        removed = len(points) - len(self._points)
        removed += 0 if structure is None else structure.gone
        if removed > max(TAIL, GARBAGE_SHARE * len(points)):
            return Renewal(self, self._points, points, None)
        if len(points) - covered < max(TAIL, TAIL_SHARE * covered):
            return None
        if structure is None or self._must_retrain(structure, len(points)):
            return Renewal(self, self._points, points, None)
        return Renewal(self, self._points, points, structure)

    def finish(self, renewal: Renewal) -> None:
        """Take a renewal up that has run; quick, for the writer."""
        assert renewal.source is self._points
        if renewal.points is not None:
            self._move_together(renewal, renewal.points)
        elif renewal.structure is not None:
            gone = np.flatnonzero(~renewal.view.alive[: len(renewal.structure)])
            renewal.structure.remove(gone)
        self._publish(renewal.structure)

    def _move_together(self, renewal: Renewal, points: Points) -> None:
        """The points without those that are gone, and with those that came since."""
        now = self._points.view()
        assert now is not None
        assert renewal.taken is not None
        gone = points.remove(now.ids[renewal.taken[~now.alive[renewal.taken]]])
        if renewal.structure is not None:
            renewal.structure.remove(gone)
        came = marked(now.alive[len(renewal.view) :]) + len(renewal.view)
        if len(came):
            points.append(now.ids[came], now.take(came))
        self._points = points

    def _settle(self) -> None:
        while (renewal := self.next_renewal()) is not None:
            renewal.run()
            self.finish(renewal)

    def compact(self) -> None:
        """Build the structure anew over all points: fastest queries, removed points dropped."""
        if self._view is None:
            return
        renewal = Renewal(self, self._points, self._view.points, None)
        renewal.run()
        self.finish(renewal)

    def _build(self, view: PointsView, before: Structure | None) -> Structure:
        """A structure over all points of a view: of its own, or the one of before and the rest."""
        covered = 0 if before is None else len(before)
        new = np.arange(covered, len(view))
        is_due = before is None or len(view) >= MEASURE_AGAIN * before.measured_at
        kept_out = self._sample(view, new) if is_due else new[:0]
        first = np.setdiff1d(new, kept_out, assume_unique=True)
        old = np.zeros(0, np.int64) if before is None else before.places
        codes = self._codes(view.take(first))
        with faiss_threads(self.threads):
            faiss_index = self._empty(codes) if before is None else self._clone(before.faiss_index)
            add_all(faiss_index, codes)
            if before is None or is_due:
                asked = Asked.unfinished(view, faiss_index, np.concatenate((old, first)))
                curve = measure(
                    asked,
                    kept_out,
                    self._breadths(len(view)),
                    self._ask,
                    self.metric,
                    self.threshold,
                )
                add_all(faiss_index, self._codes(view.take(kept_out)))
            else:
                curve = before.curve
        places = np.concatenate((old, first, kept_out))
        measured_at = len(view) if before is None or is_due else before.measured_at
        trained_at = len(view) if before is None else before.trained_at
        return Structure.of(faiss_index, places, len(view), curve, measured_at, trained_at)

    def _sample(self, view: PointsView, new: Int64Array) -> Int64Array:
        size = min(SAMPLE, max(LEAST_SAMPLE, SAMPLE_COMPARISONS // len(view)), len(new) // 8)
        return np.sort(np.random.default_rng(self.seed).choice(new, size, replace=False))

    # --- searching -------------------------------------------------------------------------------

    def search(
        self,
        batch: Any,
        k: int,
        threshold: float | None = None,
        target_recall: float | None = None,
    ) -> tuple[Int64Array, FloatArray]:
        """The k most similar points of each query, as far as the structure leads to them.

        Args:
            batch: q sets, or float32 (q, dim).
            k: hits wanted for each query.
            threshold: least similarity of a hit.
            target_recall: looks farther or less far, for these queries.

        Returns:
            ids int64 (q, k) and exact similarities float32 (q, k) by falling score, then rising
            id; -1 and NaN after the last hit.

        Raises:
            InvalidInputError: unusable queries or parameters.
        """
        k = check_k(k)
        queries = self.check(batch)
        floor = smallest_hit(self.metric, threshold)
        target = self.target_recall if target_recall is None else check_target(target_recall)
        view = self._view
        if view is None or not len(queries):
            shape = (len(queries), k)
            return np.full(shape, -1, np.int64), np.full(shape, np.nan, np.float32)
        parts = []
        covered = 0
        if view.structure is not None:
            covered = len(view.structure)
            parts.append(self._search_structure(view, view.structure, queries, k, floor, target))
        if covered < len(view.points):
            parts.append(view.points.since(covered).search(queries, k, floor))
        return merge_topk(parts, k)

    def _search_structure(
        self,
        view: _View,
        structure: Structure,
        queries: Batch,
        k: int,
        floor: float,
        target: float,
    ) -> tuple[Int64Array, FloatArray]:
        breadth = max(structure.curve.breadth(target, k), self._least_breadth(k))
        asked = Asked(
            view.points,
            structure.faiss_index,
            structure.places,
            structure.kept,
            structure.removed[0],
        )
        with faiss_threads(1):
            return self._ask(asked, queries, k, floor, breadth)

    def _ask(
        self, asked: Asked, queries: Batch, k: int, floor: float, breadth: int
    ) -> tuple[Int64Array, FloatArray]:
        """Ask the structure, and compare what it answers exactly."""
        points, places = asked.points, asked.places
        ids = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), np.nan, np.float32)
        wanted = min(self._candidates(breadth, k), len(places))
        extra = asked.removed and not self.masks
        if extra:
            # One removed point in four of those met, and more where that was not enough.
            wanted = min(wanted + wanted // 3 + 8, len(places))
        masked = asked.removed and self.masks
        how = self._how(breadth, faiss.IDSelectorBitmap(asked.kept) if masked else None)
        codes = self._codes(queries)
        rows = np.arange(len(queries))
        while len(rows):
            found = asked.faiss_index.search(codes[rows], wanted, params=how)[1]
            short = []
            for row, met in zip(rows.tolist(), found, strict=True):
                at = places[met[met >= 0]]
                at = at[alive_at(points, at)]
                if len(at) < k and extra and np.count_nonzero(met >= 0) == wanted < len(places):
                    short.append(row)
                    continue
                score = points.similarity_to(queries, row, at)
                kept = np.flatnonzero(score >= floor)
                order = kept[np.lexsort((points.ids[at[kept]], -score[kept]))[:k]]
                ids[row, : len(order)] = points.ids[at[order]]
                scores[row, : len(order)] = score[order]
            rows = np.array(short, np.int64)
            wanted = min(4 * wanted, len(places))
        return ids, scores

    # --- describing ------------------------------------------------------------------------------

    def recall_estimate(self, target_recall: float | None = None) -> float:
        """Expected share of the neighbours that an answer of ten holds, from the measured curve."""
        target = self.target_recall if target_recall is None else check_target(target_recall)
        view = self._view
        if view is None or view.structure is None or not len(self):
            return 1.0
        structure = view.structure
        share = min(1.0, (len(structure) - structure.removed[0]) / len(self))
        breadth = max(structure.curve.breadth(target, 10), self._least_breadth(10))
        return min(1.0, 1 - share * (1 - structure.curve.recall(breadth, 10)))

    def explain(self) -> dict[str, Any]:
        """What the index is, chose and promises, in words and numbers."""
        structure = self._view.structure if self._view is not None else None
        told: dict[str, Any] = {
            "index": self.kind,
            "metric": self.metric,
            "points": len(self),
            "target_recall": self.target_recall,
            "threshold": self.threshold,
            "predicted_recall": round(self.recall_estimate(), 4),
            "seed": self.seed,
            **{name: getattr(self, name) for name in self.options},
            "covered": 0 if structure is None else len(structure),
            "removed": 0 if structure is None else structure.removed[0],
            "compared_exactly": len(self._view.points)
            - (0 if structure is None else len(structure))
            if self._view is not None
            else 0,
            "nbytes": self.nbytes,
        }
        if structure is None:
            why = f"fewer than {STRUCTURE_FROM:,} points: every point is compared"
            return told | {"curve": None, "why": why}
        breadth = max(structure.curve.breadth(self.target_recall, 10), self._least_breadth(10))
        told |= {
            "breadth": breadth,
            "measured_us": round(structure.curve.time(breadth, 10), 1),
            "curve": structure.curve.as_json(),
            "why": self._why(),
        }
        if structure.curve.recall(breadth, 10) < self.target_recall - 0.005:
            told["why"] += (
                "; the recall asked for is beyond what it reaches on these points, and "
                "predicted_recall says what it gives"
            )
        return told

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes by part: the structure's, ``"ids"`` and ``"features"``."""
        structure = self._view.structure if self._view is not None else None
        own = 0 if structure is None else self._structure_bytes(structure.faiss_index)
        points = self._points.nbytes
        ids = points["ids"] + (0 if structure is None else structure.nbytes)
        return {self.part: own, "ids": ids, "features": points["features"]}

    # --- files -----------------------------------------------------------------------------------

    @property
    def parameters(self) -> dict[str, Any]:
        """The constructor's arguments by name, but `settle`, as JSON values."""
        fixed: dict[str, Any] = {
            "metric": self.metric,
            "seed": self.seed,
            "target_recall": self.target_recall,
        }
        fixed |= {"threshold": self.threshold, "threads": self.threads}
        return fixed | {name: getattr(self, name) for name in self.options}

    def save(self, path: str | Path) -> None:
        """Write the index to a file, replacing it atomically; the structure as FAISS writes it."""
        header: dict[str, Any] = {"index": self.kind, "parameters": self.parameters}
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        view = self._view
        if view is not None:
            features = view.points.features
            arrays |= {"ids": view.points.ids, "alive": view.points.alive}
            if isinstance(features, SetBatch):
                arrays |= {"indptr": features.indptr, "elements": features.indices}
            else:
                arrays["vectors"] = features
        if view is not None and view.structure is not None:
            arrays["places"] = view.structure.places
            header["covered"] = len(view.structure)
            structure_files.write(view.structure, header, arrays)
        write_arrays(Path(path), header, arrays)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read an index that :meth:`save` wrote.

        All checksums are compared before FAISS sees a byte: its reader trusts what it reads.

        Raises:
            CorruptFileError: the file is damaged or of another kind.
        """
        header, arrays = read_arrays(Path(path), kind=cls.kind)
        with unusable_is_corrupt(path):
            index = cls(**header["parameters"])
            if "ids" in arrays:
                features: Batch = (
                    SetBatch(arrays["indptr"], np.asarray(arrays["elements"], np.uint64))
                    if "indptr" in arrays
                    else arrays["vectors"]
                )
                ids = np.asarray(arrays["ids"], np.int64)
                index._points = Points.restored(
                    ids, np.asarray(arrays["alive"], bool), index.check(features)
                )
                structure = None
                if "faiss" in arrays:
                    places = np.array(arrays["places"], np.int64)
                    covered = int(header.get("covered", len(places)))
                    structure = index._read_structure(header, arrays, places, covered)
                index._publish(structure)
        return index

    # --- the structure alone, for a start that has the points from elsewhere ----------------------

    @property
    def structure_points(self) -> int:
        """Points that the structure covers; 0: there is none."""
        view = self._view
        return 0 if view is None or view.structure is None else len(view.structure)

    def save_structure(self, path: str | Path) -> int:
        """Write the structure to a file, replacing it atomically; the points that it covers.

        Searches and the writer may go on. Raises OSError.
        """
        view = self._view
        if view is None or view.structure is None:
            return 0
        structure = view.structure
        header: dict[str, Any] = {"index": f"{self.kind} structure", "parameters": self.parameters}
        places = structure.places
        ids = np.where(places >= 0, view.points.ids[np.maximum(places, 0)], -1)
        arrays: dict[str, np.ndarray[Any, Any]] = {"ids": ids}
        structure_files.write(structure, header, arrays)
        write_arrays(Path(path), header, arrays)
        return len(structure)

    def load_structure(self, path: str | Path) -> int:
        """Take up a structure that :meth:`save_structure` wrote; the points that it covers.

        The index has points already, in order of their ids, and no structure. All checksums are
        compared before FAISS sees a byte. Points that the file does not know are in no structure,
        those that are gone are masked.

        Raises:
            CorruptFileError: the file is damaged, of another kind, or of other points.
            OSError: it cannot be opened.
        """
        header, arrays = read_arrays(Path(path), kind=f"{self.kind} structure")
        with unusable_is_corrupt(path):
            view = self._points.view()
            if view is None:
                raise ValueError("there are no points")
            if self.structure_points:
                raise ValueError("there is a structure already")
            fixed = ("metric", "seed", *(name for name in self.options if name != "scheme"))
            known = header["parameters"]
            if any(known[name] != self.parameters[name] for name in fixed):
                raise ValueError("the structure was built with other parameters")
            self._adopt(known)
            places, covered = structure_files.places_of(np.array(arrays["ids"], np.int64), view)
            structure = self._read_structure(header, arrays, places, covered)
            self._publish(structure)
        return len(structure)

    def _read_structure(
        self,
        header: dict[str, Any],
        arrays: dict[str, np.ndarray[Any, Any]],
        places: Int64Array,
        covered: int,
    ) -> Structure:
        view = self._points.view()
        assert view is not None
        code = self._codes(view.take(np.zeros(1, np.int64)))
        return structure_files.read(header, arrays, places, covered, view, code, self._faiss_type())
