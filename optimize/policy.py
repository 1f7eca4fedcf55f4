"""Policy gradient over many actions: one Frank-Wolfe step a state, all states at once.

Xu, Song, Shrivastava 2021: the policy of a state is a point π of the hull of the actions. A step
looks for the action of greatest ⟨a - π, ∇Q(π)⟩, an inner product search, and moves towards it:
π ← π + α (a - π).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from closeby.index import InvalidInputError, MaxIPIndex

from .atoms import MatrixAtoms
from .objective import a_function, answer, number, resumed, share, whole
from .trace import Array, Callback, Ids, Recorder, Status, Trace

GradQ: TypeAlias = Callable[[Any, Array], tuple[Any, Any]]
"""(states, policies (s, d)) -> (values (s,), gradients by the action (s, d))."""

_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True, eq=False)
class PolicyResult:
    """Policies of all states.

    Attributes:
        ids: int64 (s, steps + 1), actions in the order in which they were taken up.
        weights: float64 (s, steps + 1), theirs; each row sums to 1.
        point: float64 (s, d), the policies.
        values: float64 (s,), Q of the policies.
        gap: float64 (s,), ⟨a - π, ∇Q⟩ of the best action: an upper bound of what is missing to the
            best policy if `certified` and Q is concave.
        certified: all actions were compared for `gap`.
        status: "converged", "max_iter" or "stopped".
        trace: columns "objective" (mean of Q), "gap" (mean), "seconds", "atoms".
    """

    ids: Ids
    weights: Array
    point: Array
    values: Array
    gap: Array
    certified: bool
    status: Status
    trace: Trace


def policy_gradient(
    grad_q: GradQ,
    actions: Any,
    states: Any,
    max_iter: int = 50,
    step: float | Callable[[int], float] | None = None,
    tol: float = 0.0,
    certify: Literal["never", "final"] = "never",
    callback: Callback | None = None,
    *,
    target_recall: float | None = None,
    start: PolicyResult | None = None,
) -> PolicyResult:
    """Improve the policy of each state by steps towards its best action.

    Args:
        grad_q: (states, policies float64 (s, d)) -> (values (s,), gradients (s, d)), to maximise.
        actions: a ``MaxIPIndex`` of the actions, or a matrix (n, d), which is read whole each step.
        states: anything with a length; handed to `grad_q` as it is.
        max_iter: steps.
        step: α, a number or a function of the iteration; 2 / (t + 2) unless given.
        tol: stop when the mean gap is at most this.
        certify: "final" compares all actions for the gap that is returned.
        callback: called with a ``Progress`` after each step; a true answer stops.
        target_recall: of the index's searches.
        start: the result of an earlier call with the same actions and states, to go on from.

    Raises:
        InvalidInputError: unusable actions or parameters.
        ObjectiveError: values or gradients of the wrong shape or not finite.
    """
    if certify not in ("never", "final"):
        raise InvalidInputError("certify must be never or final", field="certify")
    if not hasattr(states, "__len__") or not len(states):
        raise InvalidInputError("at least one state is needed", field="states")
    a_function(grad_q, "grad_q")
    a_function(callback or grad_q, "callback")
    whole(max_iter, "max_iter", 0)
    if number(tol, "tol") < 0:
        raise InvalidInputError("tol must not be negative", field="tol")
    resumed(start, PolicyResult)
    oracle = _Actions(actions, target_recall)
    length = _length_of(step)
    recorder = Recorder(callback, start.trace if start is not None else None)
    oracle.read = recorder.atoms
    begin = recorder.first
    if start is None:
        count = len(states)
        _, first = _evaluate(grad_q, states, np.tile(oracle.any(), (count, 1)), 0)
        ids, weights = [oracle.best(first, 0)], [np.ones(count)]
        policies = oracle.vectors(ids[0])
    else:
        _check_start(start, len(states), oracle.dim)
        ids, weights = list(start.ids.T), list(start.weights.T)
        policies = start.point
    status: Status = "max_iter"
    values, gradients = _evaluate(grad_q, states, policies, begin)
    for t in range(begin, begin + max_iter):
        chosen = oracle.best(gradients, t + 1)
        vectors = oracle.vectors(chosen)
        gaps = np.einsum("sd,sd->s", gradients, vectors - policies)
        # An inexact search may offer an action worse than the policy: that state stays.
        alpha = np.where(gaps > 0, length(t), 0.0)
        policies = policies + alpha[:, None] * (vectors - policies)
        weights = [w * (1 - alpha) for w in weights]
        weights.append(alpha)
        ids.append(chosen)
        recorder.atoms = oracle.read
        stop = recorder.step(t, float(values.mean()), float(np.maximum(gaps, 0).mean()))
        values, gradients = _evaluate(grad_q, states, policies, t + 1)
        if stop:
            status = "stopped"
            break
        if np.maximum(gaps, 0).mean() <= tol:
            status = "converged"
            break
    chosen = (
        oracle.exact(gradients) if certify == "final" else oracle.best(gradients, begin + max_iter)
    )
    gaps = np.einsum("sd,sd->s", gradients, oracle.vectors(chosen) - policies)
    return PolicyResult(
        np.stack(ids, axis=1), np.stack(weights, axis=1), policies, values,
        np.maximum(gaps, 0), certify == "final" or oracle.index is None, status, recorder.trace,
    )  # fmt: skip


def _check_start(start: PolicyResult, states: int, dim: int) -> None:
    if start.point.shape != (states, dim):
        raise InvalidInputError(
            f"start must be of {states} states and actions of dimension {dim}", field="start"
        )


def _length_of(step: float | Callable[[int], float] | None) -> Callable[[int], float]:
    if callable(step):
        return lambda t: share(step(t))
    if step is None:
        return lambda t: 2 / (t + 2)
    if not 0 < number(step, "step") <= 1:
        raise InvalidInputError("step must be above 0 and at most 1", field="step")
    fixed = float(step)
    return lambda _: fixed


def _evaluate(grad_q: GradQ, states: Any, policies: Array, t: int) -> tuple[Array, Array]:
    shapes = (policies.shape[:1], policies.shape)
    return answer(grad_q, states, policies.copy(), shapes=shapes, at=t)


class _Actions:
    """Where the best actions of many directions are looked for."""

    def __init__(self, actions: Any, target_recall: float | None) -> None:
        self.index = actions if isinstance(actions, MaxIPIndex) else None
        self.rows: npt.NDArray[Any] | None = None
        if self.index is None:
            checked = actions if isinstance(actions, MatrixAtoms) else MatrixAtoms(actions)
            self.rows = checked.rows
        if self.index is not None and not len(self.index):
            raise InvalidInputError("the index of actions is empty", field="actions")
        self.dim = self.vectors(np.array([self._first()])).shape[1]
        self._target = target_recall
        self.read = 0

    def _first(self) -> int:
        return 0 if self.index is None else self.index.some_ids(1)[0]

    def any(self) -> Array:
        """Any action, float64 (d,)."""
        return np.asarray(self.vectors(np.array([self._first()]))[0], np.float64)

    def best(self, directions: Array, turn: int) -> Ids:
        """Ids of the actions of highest score, as far as they are found, int64 (s,)."""
        if self.index is None:
            return self.exact(directions)
        ids, _ = self.index.search(_unit(directions), 1, target_recall=self._target, turn=turn)
        self.read += len(directions)
        return np.asarray(ids[:, 0], np.int64)

    def exact(self, directions: Array) -> Ids:
        """The same, comparing all actions."""
        if self.rows is not None:
            blocks = [(np.arange(len(self.rows)), self.rows)]
        else:
            assert self.index is not None
            blocks = [self.index.points()]
        best = np.full(len(directions), -np.inf)
        chosen = np.zeros(len(directions), np.int64)
        units = _unit(directions)
        for ids, rows in blocks:
            for at in range(0, len(rows), _ROWS_AT_ONCE):
                scores = units.astype(rows.dtype) @ rows[at : at + _ROWS_AT_ONCE].T
                places = scores.argmax(axis=1)
                high = scores[np.arange(len(scores)), places]
                better = high > best
                best[better], chosen[better] = high[better], ids[at + places[better]]
            self.read += len(rows) * len(directions)
        return chosen

    def vectors(self, ids: Ids) -> Array:
        if self.rows is not None:
            return self.rows[ids].astype(np.float64)
        assert self.index is not None
        return self.index.vectors(ids).astype(np.float64)


def _unit(directions: Array) -> npt.NDArray[np.float32]:
    # By the greatest entry first: squares of huge ones overflow, of tiny ones vanish.
    peaks = np.abs(directions).max(axis=1, keepdims=True)
    scaled = directions / np.where(peaks > 0, peaks, 1)
    norms = np.linalg.norm(scaled, axis=1, keepdims=True)
    return (scaled / np.where(norms > 0, norms, 1)).astype(np.float32)
