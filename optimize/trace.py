"""What a solver reports: as it runs, and at its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]
Ids: TypeAlias = npt.NDArray[np.int64]
Status: TypeAlias = Literal["converged", "max_iter", "stopped"]


@dataclass(frozen=True)
class Progress:
    """One step, as a callback sees it.

    Attributes:
        iteration: from 0.
        objective: value at the point before the step.
        gap: the gap that the step was taken for; an upper bound of the error only if certified.
        seconds: since the start.
        atoms: atoms that were read so far, codes of them included.
    """

    iteration: int
    objective: float
    gap: float
    seconds: float
    atoms: int


Callback: TypeAlias = Callable[[Progress], bool | None]
"""Called after each step; a true answer stops the solver."""


@dataclass
class Trace:
    """All steps of a run, and of the run that it resumes."""

    steps: list[Progress] = field(default_factory=list)

    def __getitem__(self, name: str) -> Array:
        """A column, float64 (steps,): "objective", "gap", "seconds" or "atoms"."""
        return np.array([getattr(step, name) for step in self.steps], np.float64)

    def __len__(self) -> int:
        return len(self.steps)


class Recorder:
    """Keeps the trace of one run and asks the callback whether to go on."""

    def __init__(self, callback: Callback | None, before: Trace | None = None) -> None:
        self.trace = Trace(list(before.steps) if before is not None else [])
        self.first = self.trace.steps[-1].iteration + 1 if self.trace.steps else 0
        self.atoms = self.trace.steps[-1].atoms if self.trace.steps else 0
        self._callback = callback
        earlier = self.trace.steps[-1].seconds if self.trace.steps else 0.0
        self._started = time.perf_counter() - earlier

    def step(self, iteration: int, objective: float, gap: float) -> bool:
        """Record a step; True if the callback wants to stop."""
        seconds = time.perf_counter() - self._started
        progress = Progress(iteration, objective, gap, seconds, self.atoms)
        self.trace.steps.append(progress)
        return bool(self._callback(progress)) if self._callback is not None else False


@dataclass(frozen=True, eq=False)
class FrankWolfeResult:
    """Where a Frank-Wolfe run ended.

    Attributes:
        ids: int64 (m,), the atoms with weight, rising.
        weights: float64 (m,), positive with sum 1; with signed atoms of either sign, absolute sum
            at most 1.
        point: float64 (d,), the weighted sum of the atoms.
        objective: value at `point`.
        gap: upper bound of objective - minimum if `certified`, else the solver's estimate of it.
        certified: all atoms were compared at `point`, in float32 if they come from an index.
        bound: a certified lower bound of the minimum, the best that was met; -inf if none was.
        status: "converged" (gap at most tol), "max_iter" or "stopped" (by the callback).
        trace: columns "objective", "gap", "seconds", "atoms".
    """

    ids: Ids
    weights: Array
    point: Array
    objective: float
    gap: float
    certified: bool
    bound: float
    status: Status
    trace: Trace
