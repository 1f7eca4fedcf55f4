"""Frank-Wolfe over the convex hull of atoms, and two variants that converge faster.

    fw          towards one atom, from everything else
    pairwise    weight moves from the worst atom held to the best one found (Lacoste-Julien,
                Jaggi 2015)
    bpcg        weight moves between atoms already held while that pays, else a Frank-Wolfe step
                (blended pairwise conditional gradients, Tsuji, Tanaka, Pokutta 2022)

The atom of a step comes from the ladder of oracles (``ladder``), the length of a step from a line
search that is exact for quadratics, or from the paper's formula.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from closeby.index import InvalidInputError, MaxIPIndex

from .atoms import Atoms, Found, atoms_from
from .ladder import ORACLES, SUBSET, Ladder, OracleName
from .objective import a_function, answer, number, resumed, share, whole
from .trace import Array, Callback, FrankWolfeResult, Recorder, Status

Objective: TypeAlias = Callable[[Array], tuple[float, Any]]
Variant: TypeAlias = Literal["fw", "pairwise", "bpcg"]
Certify: TypeAlias = Literal["never", "final", "always"]
Step: TypeAlias = Literal["search", "classic", "paper"] | Callable[[int], float]

VARIANTS: tuple[Variant, ...] = ("fw", "pairwise", "bpcg")
CERTIFY: tuple[Certify, ...] = ("never", "final", "always")
_DROP = 1e-13  # weights below are rounding
_REFRESH = 64  # steps after which the point is summed anew from its atoms
_SEARCH_STEPS = 12


def frank_wolfe(
    fun: Objective,
    atoms: Any,
    variant: Variant = "bpcg",
    step: Step = "search",
    max_iter: int = 1_000,
    tol: float = 1e-6,
    certify: Certify = "final",
    callback: Callback | None = None,
    *,
    signed: bool = False,
    oracle: OracleName | None = None,
    subset: int = SUBSET,
    seed: int = 0,
    c: float = 1.0,
    start: FrankWolfeResult | None = None,
) -> FrankWolfeResult:
    """Minimise a smooth convex function over the convex hull of atoms.

    Args:
        fun: point float64 (d,) -> (value, gradient (d,)).
        atoms: a ``MaxIPIndex`` whose points are the atoms, or a matrix (n, d), which is read whole
            wherever an atom is looked for beyond the pool.
        variant: "fw", "pairwise" or "bpcg".
        step: "search" (line search), "classic" (2 / (t + 2)), "paper" (2 / (c (t + 2)), at most 1)
            or a function of the iteration; steps other than "search" need variant "fw".
        max_iter: most steps of this call.
        tol: stop when the Frank-Wolfe gap is at most this.
        certify: "never" (no proof: the gap returned is an estimate), "final" (convergence is
            declared, and the gap returned, only after comparing all atoms) or "always" (the gap
            that steps aim for, too, is lowered only after comparing all atoms).
        callback: called with a ``Progress`` after each step; a true answer stops.
        signed: atoms and their negatives, so weights may be negative (the ℓ1 ball).
        oracle: "ladder" (the default for an index), "lazy" (the default for a matrix), "exact" or
            "subset"; see ``ladder``.
        subset: atoms of the subset that the ladder looks at, or of oracle "subset".
        seed: of that subset.
        c: approximation factor of the paper's step.
        start: the result of an earlier call over the same atoms, to go on from.

    Raises:
        InvalidInputError: unusable atoms or parameters.
        ObjectiveError: a value or gradient of the wrong shape or not finite.
    """
    _check(variant, step, certify, max_iter, tol, c)
    a_function(fun, "fun")
    a_function(callback or fun, "callback")
    whole(subset, "subset", 1)
    whole(seed, "seed", 0)
    resumed(start, FrankWolfeResult)
    atom_set = atoms_from(atoms, signed=signed)
    if oracle is None:
        oracle = "ladder" if isinstance(atoms, MaxIPIndex) else "lazy"
    if oracle not in ORACLES:
        raise InvalidInputError(f"oracle must be one of {', '.join(ORACLES)}", field="oracle")
    run = _Run(
        fun, atom_set, Ladder(atom_set, oracle, seed, subset), variant, step, c, tol, certify,
        Recorder(callback, start.trace if start is not None else None), signed,
    )  # fmt: skip
    run.begin(start)
    return run.go(max_iter)


def _check(variant: Any, step: Any, certify: Any, max_iter: int, tol: float, c: float) -> None:
    if variant not in VARIANTS:
        raise InvalidInputError(f"variant must be one of {', '.join(VARIANTS)}", field="variant")
    if certify not in CERTIFY:
        raise InvalidInputError(f"certify must be one of {', '.join(CERTIFY)}", field="certify")
    if not callable(step) and step not in ("search", "classic", "paper"):
        raise InvalidInputError("step must be search, classic, paper or a function", field="step")
    if step != "search" and variant != "fw":
        raise InvalidInputError(f'variant {variant} needs step="search"', field="step")
    whole(max_iter, "max_iter", 0)
    if number(tol, "tol") < 0:
        raise InvalidInputError("tol must not be negative", field="tol")
    if not 0 < number(c, "c") <= 1:
        raise InvalidInputError("c must be above 0 and at most 1", field="c")


class _Active:
    """The atoms that carry weight, and the point that they make."""

    def __init__(self, dim: int) -> None:
        self.keys: list[int] = []
        self.rows: Array = np.zeros((16, dim))
        self.weights: Array = np.zeros(16)

    @property
    def count(self) -> int:
        return len(self.keys)

    def place(self, key: int, vector: Array) -> int:
        """Row of an atom, added with weight 0 if it is new."""
        if key in self.keys:
            return self.keys.index(key)
        if self.count == len(self.rows):
            self.rows = np.vstack([self.rows, np.zeros_like(self.rows)])
            self.weights = np.concatenate([self.weights, np.zeros_like(self.weights)])
        self.rows[self.count], self.weights[self.count] = vector, 0.0
        self.keys.append(key)
        return self.count - 1

    def drop_empty(self) -> None:
        held = self.weights[: self.count]
        if held.min() >= _DROP:
            return
        kept = np.flatnonzero(held >= _DROP)
        self.rows[: len(kept)] = self.rows[kept]
        self.weights[: len(kept)] = held[kept] / held[kept].sum()
        self.keys = [self.keys[i] for i in kept]

    def point(self) -> Array:
        return np.asarray(self.weights[: self.count] @ self.rows[: self.count], np.float64)


@dataclass(eq=False)
class _Run:
    """One call of the solver."""

    fun: Objective
    atoms: Atoms
    ladder: Ladder
    variant: Variant
    step: Step
    c: float
    tol: float
    certify: Certify
    recorder: Recorder
    signed: bool

    def begin(self, start: FrankWolfeResult | None) -> None:
        """At an earlier result, or at the best atom seen from any one."""
        self.iteration = self.recorder.first
        self.bound = start.bound if start is not None else -np.inf
        self.active = _Active(self.atoms.dim)
        self.fresh = 0
        if start is not None:
            self._resume(start)
        else:
            self.w = self.atoms.vector(self.atoms.first())
            _, gradient = self._evaluate(self.w)
            found = self.ladder.find(-gradient, 0.0, np.inf)
            key = found.key if found.key >= 0 else self.atoms.first()
            self.active.weights[self.active.place(key, self.atoms.vector(key))] = 1.0
            self.w = self.active.point()
        # No gap has been met yet: the first search takes what its best rung finds.
        self.phi = np.inf

    def _resume(self, start: FrankWolfeResult) -> None:
        if len(start.point) != self.atoms.dim:
            raise InvalidInputError("start must be over atoms of the same dimension", field="start")
        for i, weight in zip(start.ids.tolist(), start.weights.tolist(), strict=True):
            key = 2 * i + (weight < 0) if self.signed else i
            self.active.weights[self.active.place(key, self.atoms.vector(key))] += abs(weight)
        slack = 1.0 - float(self.active.weights.sum())
        if self.signed and slack > _DROP:
            # Opposite atoms had cancelled: give both the weight that they had.
            first = self.atoms.first()
            for key in (first, first + 1):
                self.active.weights[self.active.place(key, self.atoms.vector(key))] += slack / 2
        self.w = self.active.point()

    def go(self, max_iter: int) -> FrankWolfeResult:
        status: Status = "max_iter"
        gap, certified = np.inf, False
        last = self.iteration + max_iter
        value, gradient = self._evaluate(self.w)
        while self.iteration < last:
            found = self._target(value, gradient)
            if found is None:
                gap, certified = self.phi, self.certify != "never"
                status = "converged"
                break
            target, taken_for = found
            self._move(target, value, gradient)
            stop = self._record(value, taken_for)
            value, gradient = self._evaluate(self.w)
            if stop:
                status = "stopped"
                break
        if status != "converged":
            gap, certified = self.phi, False
            if self.certify != "never":
                gap, certified = self._exact_gap(value, gradient)[1], True
                status = "converged" if gap <= self.tol and status == "max_iter" else status
        return self._result(value, gap, certified, status)

    # --- where to go -----------------------------------------------------------------------------

    def _target(self, value: float, gradient: Array) -> tuple[int | None, float] | None:
        """The atom to step towards (None: between atoms held) and its gap; None if converged."""
        direction = -gradient
        base = float(direction @ self.w)
        if self.variant == "bpcg" and self.active.count > 1:
            scores = self.active.rows[: self.active.count] @ direction
            local = float(scores.max() - scores.min())
            if np.isfinite(self.phi) and local >= max(self.phi, self.tol):
                return None, local
        if self.ladder.oracle == "exact":
            return self._accept_exact(value, gradient)
        # While φ is unknown the need is infinite: the ladder answers with the best it can find.
        found = self.ladder.find(direction, base, self.phi / 2)
        gap = self._true_gap(found, direction)
        if found.exact:
            return self._accept(found, gap, value)
        if self.ladder.oracle == "subset":
            return (found.key, gap) if gap > 0 else (self.active.keys[0], 0.0)
        if gap < self.phi / 2:
            # Nothing met offers φ/2. φ is halved until the best that was met will do.
            if self.certify == "always":
                return self._accept_exact(value, gradient)
            self.phi = max(gap, self.tol)
        if gap > self.tol:
            return found.key, gap
        return None if self.certify == "never" else self._accept_exact(value, gradient)

    def _accept_exact(self, value: float, gradient: Array) -> tuple[int | None, float] | None:
        found, gap = self._exact_gap(value, gradient)
        return self._accept(found, gap, value)

    def _exact_gap(self, value: float, gradient: Array) -> tuple[Found, float]:
        found = self.ladder.best(-gradient)
        gap = max(0.0, self._true_gap(found, -gradient))
        self.bound = max(self.bound, value - gap)
        return found, gap

    def _accept(self, found: Found, gap: float, value: float) -> tuple[int | None, float] | None:
        """A step by the best of all atoms, unless it shows that the point is good enough."""
        self.bound = max(self.bound, value - max(0.0, gap))
        self.phi = max(0.0, gap)
        if gap <= self.tol:
            return None
        return found.key, gap

    def _true_gap(self, found: Found, direction: Array) -> float:
        """⟨direction, atom - point⟩ of the atom itself, in float64."""
        if found.key < 0:
            return -np.inf
        return float(direction @ (self.atoms.vector(found.key) - self.w))

    # --- how far ---------------------------------------------------------------------------------

    def _move(self, target: int | None, value: float, gradient: Array) -> None:
        active = self.active
        scores = active.rows[: active.count] @ -gradient
        away = int(scores.argmin())
        if target is not None and self.variant != "pairwise":
            vector = self.atoms.vector(target)
            place = active.place(target, vector)
            along = vector - self.w
            gamma = self._length(along, 1.0, value, gradient)
            active.weights[: active.count] *= 1 - gamma
            active.weights[place] += gamma
        else:
            if target is None:
                place = int(scores.argmax())
            else:
                place = active.place(target, self.atoms.vector(target))
            along = active.rows[place] - active.rows[away]
            most = float(active.weights[away])
            gamma = self._length(along, most, value, gradient)
            active.weights[away] = 0.0 if gamma == most else active.weights[away] - gamma
            active.weights[place] += gamma
        self.w = self.w + gamma * along
        self.fresh += 1
        dropped = active.count
        active.drop_empty()
        if dropped != active.count or self.fresh % _REFRESH == 0:
            self.w = active.point()

    def _length(self, along: Array, most: float, value: float, gradient: Array) -> float:
        t = self.iteration
        if callable(self.step):
            return share(self.step(t))
        if self.step == "classic":
            return 2 / (t + 2)
        if self.step == "paper":  # η = 2 / (c (t + 2)): Xu, Song, Shrivastava 2021
            return min(1.0, 2 / (self.c * (t + 2)))
        return self._line_search(along, most, value, float(gradient @ along))

    def _line_search(self, along: Array, most: float, value: float, slope: float) -> float:
        """A step length by the secant rule on the slope, exact for quadratics."""
        if slope >= 0:
            return 0.0
        low, slope_low = 0.0, slope
        high = most
        best, best_value = 0.0, value
        trial = most
        for _ in range(_SEARCH_STEPS):
            trial_value, trial_gradient = self._evaluate(self.w + trial * along)
            trial_slope = float(trial_gradient @ along)
            if trial_value <= best_value + 1e-13 * abs(best_value):
                best, best_value = trial, trial_value
            if trial == most and trial_slope <= 0:
                return most  # falling all the way
            if abs(trial_slope) <= 1e-3 * abs(slope) and best == trial:
                return trial
            if trial_slope > 0:
                high = trial
                secant = low + (trial - low) * slope_low / (slope_low - trial_slope)
            else:
                low, slope_low = trial, trial_slope
                secant = (low + high) / 2
            trial = secant if low < secant < high else (low + high) / 2
        return best

    # --- bookkeeping -----------------------------------------------------------------------------

    def _evaluate(self, w: Array) -> tuple[float, Array]:
        # A copy, so that a function that writes into its argument does not move the point.
        shapes = ((), (self.atoms.dim,))
        value, gradient = answer(self.fun, w.copy(), shapes=shapes, at=self.iteration)
        return float(value), gradient

    def _record(self, value: float, gap: float) -> bool:
        self.recorder.atoms += self.ladder.read
        self.ladder.read = 0
        stop = self.recorder.step(self.iteration, value, gap)
        self.iteration += 1
        return stop

    def _result(
        self, value: float, gap: float, certified: bool, status: Status
    ) -> FrankWolfeResult:
        weights: dict[int, float] = {}
        for key, weight in zip(self.active.keys, self.active.weights.tolist(), strict=False):
            name, sign = (key >> 1, -1 if key & 1 else 1) if self.signed else (key, 1)
            weights[name] = weights.get(name, 0.0) + sign * weight
        ids = np.array(sorted(weights), np.int64)
        return FrankWolfeResult(
            ids, np.array([weights[i] for i in ids.tolist()]), self.w, value, gap, certified,
            self.bound, status, self.recorder.trace,
        )  # fmt: skip
