"""Kernel herding: points whose mean approaches a target, one after another.

Welling 2009. Herding is Frank-Wolfe on ½|w - μ|² with steps 1 / (t + 1), so that every point
chosen has the same weight (Bach, Lacoste-Julien, Obozinski 2012). The next point is the one of
highest inner product with r = (t + 1) μ - Σ Φ(x), the sum over the points chosen so far.

Where norms vary that is one of the longest points, a poor step: "greedy", the default here, takes
the point that leaves the least discrepancy, of highest ⟨Φ(x), r⟩ - |Φ(x)|²/2. Where all norms are
equal both are the same.

Least now is not least in the end. Where norms have a long tail, greedy choice takes short points
and leaves what only long ones can mend. Relaxation ω from 1 to below 2 goes further than the
nearest point, as over-relaxation does for systems of equations: ⟨Φ(x), r⟩ - |Φ(x)|²/(2ω).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from closeby.index import InvalidInputError, MaxIPIndex

from .atoms import MatrixAtoms
from .nearest import NearestSumIndex, half_squares, length
from .objective import a_function, finite_vector, resumed, whole
from .trace import Array, Callback, Ids, Recorder, Status, Trace

# Where the index is asked: fewer lists than for search, since the next step mends a poor choice.
TARGET_RECALL = 0.7
_ROWS_AT_ONCE = 65_536
_SUMMED_AT_ONCE = 4_096


@dataclass(frozen=True)
class RandomFourier:
    """Features of which inner products approximate a Gaussian kernel (Rahimi, Recht 2007).

    k(x, y) = exp(-|x - y|² / (2 bandwidth²)); more features, better approximation.

    Args:
        bandwidth: of the kernel; the median distance of a sample unless given.
        features: number of features.
        seed: of the frequencies.
    """

    bandwidth: float | None = None
    features: int = 256
    seed: int = 0

    def __call__(self, points: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Features float32 (n, features) of points (n, d)."""
        rows = MatrixAtoms(points).rows
        bandwidth = self.bandwidth if self.bandwidth is not None else self._median(rows)
        whole(self.features, "features", 1)
        if not (np.isfinite(bandwidth) and bandwidth > 0):
            raise InvalidInputError("bandwidth must be positive", field="kernel")
        rng = np.random.default_rng(self.seed)
        frequencies = rng.standard_normal((rows.shape[1], self.features)) / bandwidth
        shifts = rng.uniform(0, 2 * np.pi, self.features)
        out = np.empty((len(rows), self.features), np.float32)
        for at in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[at : at + _ROWS_AT_ONCE].astype(np.float64)
            out[at : at + len(part)] = np.cos(part @ frequencies + shifts)
        out *= np.float32(np.sqrt(2 / self.features))
        return out

    def _median(self, rows: npt.NDArray[Any]) -> float:
        rng = np.random.default_rng(self.seed)
        a, b = rng.integers(len(rows), size=(2, 500))
        distances = np.linalg.norm(rows[a].astype(np.float64) - rows[b], axis=1)
        return float(np.median(distances[distances > 0])) if (distances > 0).any() else 1.0


Kernel: TypeAlias = Literal["linear"] | RandomFourier
Criterion: TypeAlias = Literal["greedy", "inner"]


@dataclass(frozen=True, eq=False)
class HerdingResult:
    """Points chosen.

    Attributes:
        ids: int64 (m,), in the order of choice; rows of the matrix, or ids of the index.
        weights: float64 (m,), all 1 / m.
        point: float64 (d,), the mean of their features.
        discrepancy: float64 (m,), |mean of the first t + 1 points - target|.
        gap: the Frank-Wolfe gap that the last point was chosen with; an estimate, not a bound.
        status: "converged" (all m chosen) or "stopped" (by the callback).
        trace: columns "objective" (½ discrepancy²), "gap", "seconds", "atoms".
    """

    ids: Ids
    weights: Array
    point: Array
    discrepancy: Array
    gap: float
    status: Status
    trace: Trace


def herding(
    features: Any,
    m: int,
    target: npt.ArrayLike | None = None,
    unique: bool = True,
    *,
    criterion: Criterion = "greedy",
    relaxation: float = 1.0,
    kernel: Kernel = "linear",
    oracle: Literal["ladder", "exact", "subset"] | None = None,
    subset: int = 1_000,
    seed: int = 0,
    callback: Callback | None = None,
    start: HerdingResult | None = None,
) -> HerdingResult:
    """Choose points whose mean represents a target.

    Args:
        features: matrix (n, d), or a ``MaxIPIndex`` or ``NearestSumIndex`` of the points (then with
            kernel "linear"). The latter saves building one at each call.
        m: points to choose, at most n if `unique`.
        target: mean to approach, (d,) in the space of the features; that of all points unless
            given.
        unique: choose no point twice.
        criterion: "greedy" (the point that leaves the least discrepancy) or "inner" (Welling's, of
            the highest inner product).
        relaxation: of the greedy criterion, at least 1 and below 2. 1.5 leaves about half as much
            after thousands of choices where norms have a long tail, and a little more after few.
        kernel: "linear", or ``RandomFourier`` to match distributions rather than means.
        oracle: "ladder" (an index; built of a matrix if need be), "exact" (all points, each time)
            or "subset" (the best of `subset` points drawn anew each time). By default "ladder" for
            an index and "exact" for a matrix.
        subset: see oracle.
        seed: of the index that is built, or of the subsets.
        callback: called with a ``Progress`` after each choice; a true answer stops.
        start: the result of an earlier call, to go on from.

    Raises:
        InvalidInputError: unusable features, target or m.
    """
    whole(subset, "subset", 1)
    whole(seed, "seed", 0)
    a_function(callback or herding, "callback")
    resumed(start, HerdingResult)
    if criterion not in ("greedy", "inner"):
        raise InvalidInputError("criterion must be greedy or inner", field="criterion")
    if not _is_relaxation(relaxation):
        raise InvalidInputError("relaxation must be at least 1 and below 2", field="relaxation")
    nearest: NearestSumIndex | None = None
    index: MaxIPIndex | None
    rows: npt.NDArray[Any] | None
    if isinstance(features, NearestSumIndex):
        if criterion != "greedy" or kernel != "linear" or oracle not in (None, "ladder"):
            raise InvalidInputError("this index is for greedy, linear herding", field="features")
        nearest = features
        index, rows = nearest.index, None
    else:
        index, rows = _points(features, kernel, oracle, seed, criterion)
        if criterion == "greedy" and (index is not None or oracle == "ladder"):
            nearest = NearestSumIndex(index if index is not None else rows, seed)
            index, rows = nearest.index, None
    run = _Herd(index, rows, unique, oracle == "subset", subset, seed, nearest)
    _check_m(m, len(rows) if rows is not None else len(index or ()), unique)
    run.relaxation = float(relaxation)
    if rows is not None and criterion == "greedy":
        run.halves = half_squares(rows) / run.relaxation
    run.mean = _target(target, run.dim, run)
    return run.choose(m, callback, start)


def random_discrepancy(
    features: npt.ArrayLike,
    m: int,
    target: npt.ArrayLike | None = None,
    unique: bool = True,
    *,
    draws: int = 5,
    seed: int = 0,
) -> Array:
    """What choosing at random gives: |mean of t + 1 points - target|, float64 (m,).

    The mean over `draws` sequences of points, to stand beside ``HerdingResult.discrepancy``.
    Parameters are those of :func:`herding`, but for a matrix alone.

    Raises:
        InvalidInputError: as :func:`herding`.
    """
    rows = MatrixAtoms(features).rows
    _check_m(m, len(rows), unique)
    run = _Herd(None, rows, unique, random=True, subset=1, seed=seed)
    mean = _target(target, rows.shape[1], run)
    total: Array = np.zeros(m)
    for draw in range(draws):
        rng = np.random.default_rng((seed, draw))
        total += _curve(rows, rng.choice(len(rows), m, replace=not unique), mean)
    return np.asarray(total / draws, np.float64)


def _curve(rows: npt.NDArray[Any], order: Ids, mean: Array) -> Array:
    """|mean of the first t + 1 rows of an order - mean|, a few rows at a time."""
    distances = np.empty(len(order))
    total = np.zeros_like(mean)
    for at in range(0, len(order), _SUMMED_AT_ONCE):
        part = order[at : at + _SUMMED_AT_ONCE]
        sums = total + np.cumsum(rows[part], axis=0, dtype=np.float64)
        total = sums[-1]
        counts = np.arange(at + 1, at + len(part) + 1)
        distances[at : at + len(part)] = np.linalg.norm(sums / counts[:, None] - mean, axis=1)
    return distances


def _is_relaxation(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value < 2


def _check_m(m: int, count: int, unique: bool) -> None:
    if whole(m, "m", 1) > count and unique:
        raise InvalidInputError(f"m must be from 1 to {count}", field="m", limit=count)


def _points(
    features: Any, kernel: Kernel, oracle: str | None, seed: int, criterion: Criterion
) -> tuple[MaxIPIndex | None, npt.NDArray[Any] | None]:
    """An index to ask, or rows to read, or both."""
    if oracle not in (None, "ladder", "exact", "subset"):
        raise InvalidInputError("oracle must be ladder, exact or subset", field="oracle")
    if kernel != "linear" and not isinstance(kernel, RandomFourier):
        raise InvalidInputError("kernel must be linear or RandomFourier", field="kernel")
    if isinstance(features, MaxIPIndex):
        if kernel != "linear":
            raise InvalidInputError("an index needs kernel linear", field="kernel")
        if not len(features):
            raise InvalidInputError("the index is empty", field="features")
        if oracle in (None, "ladder"):
            return features, None
        ids, points = features.points()
        if not np.array_equal(ids, np.arange(len(ids))):
            raise InvalidInputError(
                "this oracle needs ids that count from 0; give the matrix", field="oracle"
            )
        return None, points
    rows: npt.NDArray[Any] = (
        kernel(features) if isinstance(kernel, RandomFourier) else MatrixAtoms(features).rows
    )
    if oracle != "ladder" or criterion == "greedy":
        return None, rows
    index = MaxIPIndex(seed)
    index.add(rows)
    return index, rows


def _target(target: npt.ArrayLike | None, dim: int, run: _Herd) -> Array:
    if target is None:
        return run.all_mean()
    return finite_vector(target, dim, "target")


class _Herd:
    """One call of :func:`herding`."""

    def __init__(
        self,
        index: MaxIPIndex | None,
        rows: npt.NDArray[Any] | None,
        unique: bool,
        random: bool,
        subset: int,
        seed: int,
        nearest: NearestSumIndex | None = None,
    ) -> None:
        self._nearest = nearest
        if nearest is not None:
            self.dim = nearest.dim
        else:
            self.dim = rows.shape[1] if rows is not None else int(index.dim or 0) if index else 0
        self.halves: Array | None = None
        self.relaxation = 1.0
        # Of a fork, chosen points can be taken out without anybody else's noticing.
        self.index = index.fork() if index is not None and unique else index
        self.rows, self.unique = rows, unique
        self.mean: Array = np.zeros(0)
        self._random = random
        self._subset = subset
        self._rng = np.random.default_rng(seed)
        self._free = np.ones(len(rows), bool) if rows is not None else np.zeros(0, bool)
        self.read = 0

    def all_mean(self) -> Array:
        """Mean of all points."""
        if self.rows is not None:
            return np.asarray(self.rows.mean(axis=0, dtype=np.float64), np.float64)
        assert self.index is not None
        return self.index.mean()[: self.dim]

    def choose(
        self, m: int, callback: Callback | None, start: HerdingResult | None
    ) -> HerdingResult:
        recorder = Recorder(callback, start.trace if start is not None else None)
        ids = start.ids.tolist() if start is not None else []
        discrepancy = start.discrepancy.tolist() if start is not None else []
        total = start.point * len(ids) if start is not None else np.zeros_like(self.mean)
        for i in ids:
            self._mark(i)
        self.read = recorder.atoms
        gap = start.gap if start is not None else np.inf
        status: Status = "converged"
        while len(ids) < m:
            t = len(ids)
            direction = (t + 1) * self.mean - total
            chosen = self._next(direction, t)
            vector = self._take(chosen)
            ids.append(chosen)
            # ⟨μ - w, Φ(x) - w⟩ at the mean w of the points before.
            point = total / t if t else np.zeros_like(total)
            gap = float((self.mean - point) @ (vector - point))
            total = total + vector
            error = length(total / (t + 1) - self.mean)
            discrepancy.append(error)
            recorder.atoms = self.read
            if recorder.step(t, error**2 / 2, gap):
                status = "stopped"
                break
        return HerdingResult(
            np.array(ids, np.int64), np.full(len(ids), 1 / max(1, len(ids))),
            total / max(1, len(ids)), np.array(discrepancy), gap, status, recorder.trace,
        )  # fmt: skip

    def _mark(self, i: int) -> None:
        if not self.unique:
            return
        if len(self._free):
            self._free[i] = False
        if self.index is not None:
            self.index.remove([i])

    def _take(self, i: int) -> Array:
        """A point's vector; nobody chooses it again if points are chosen once."""
        if self.unique and self.index is not None and self.rows is None:
            return np.asarray(self.index.take(i)[: self.dim], np.float64)
        vector = self._vector(i)
        self._mark(i)
        return vector

    def _vector(self, i: int) -> Array:
        if self.rows is not None:
            return np.asarray(self.rows[i], np.float64)
        assert self.index is not None
        return np.asarray(self.index.vectors([i])[0, : self.dim], np.float64)

    def _next(self, direction: Array, turn: int) -> int:
        if self._nearest is not None:
            asked = self._nearest.query(direction, self.relaxation)
            return self._from_index(asked.astype(np.float32), turn)
        scale = length(direction) or 1.0
        query = direction / scale
        if self._random:
            return self._from_subset(query, scale)
        if self.index is not None:
            return self._from_index(query.astype(np.float32), turn)
        return self._from_all(query, scale)

    def _from_index(self, query: npt.NDArray[np.float32], turn: int) -> int:
        assert self.index is not None
        ids, _ = self.index.search(query[None], 1, target_recall=TARGET_RECALL, turn=turn)
        self.read += 1
        return int(ids[0, 0]) if ids[0, 0] >= 0 else self.index.exact_best(query)[0]

    def _from_subset(self, query: Array, scale: float) -> int:
        assert self.rows is not None
        rows = self._rng.integers(len(self.rows), size=self._subset)
        if self.unique:
            free = rows[self._free[rows]]
            rows = free if len(free) else np.flatnonzero(self._free)
        self.read += len(rows)
        scores = self.rows[rows] @ query.astype(self.rows.dtype)
        if self.halves is not None:
            scores = scores - self.halves[rows] / scale
        return int(rows[scores.argmax()])

    def _from_all(self, query: Array, scale: float) -> int:
        assert self.rows is not None
        scores = self.rows @ query.astype(self.rows.dtype)
        if self.halves is not None:
            scores = scores - self.halves / scale
        self.read += len(self.rows)
        if self.unique:
            scores[~self._free] = -np.inf
        return int(scores.argmax())
