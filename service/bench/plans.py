"""Which engines are measured, with which parameters, in which order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from closeby.index.tuning import MAX_TARGET, MIN_TARGET
from closeby.service.engines import ENGINES

from .errors import BenchError

__all__ = [
    "Build", "Job", "builds_for", "check_engines", "check_names", "check_target",
    "check_threshold", "jobs",
]  # fmt: skip

THRESHOLDS: dict[str, float | None] = {"jaccard": 0.5, "cosine": 0.8, "ip": None}
MIDDLE = 0.95
TARGETS = (0.5, 0.8, 0.9, 0.95, 0.99)
# Engines that compare with everything have nothing to trade.
EXACT = ("flat",)
_VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "flinng": ({"target_recall": 0.8}, {"target_recall": 0.99}, {"K": 2}, {"sketch_bits": 256}),
    "lsh": ({"target_recall": 0.8}, {"target_recall": 0.99}),
    "maxip": ({"rotations": 2},),
    "hnsw": ({"M": 32, "ef_construction": 200},),
    "ivf": ({"codes": "rabitq"}, {"codes": "pq"}),
    "binary_flat": ({"sketch_bits": 256},),
    "binary_hnsw": ({"M": 32, "ef_construction": 200},),
    "binary_ivf": ({"sketch_bits": 256},),
}


@dataclass(frozen=True)
class Build:
    """An engine with its parameters; `target_recall` is that which it is made for."""

    engine: str
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Both in one line."""
        return " ".join([self.engine, *(f"{k}={v}" for k, v in self.parameters.items())])


@dataclass(frozen=True)
class Job:
    """One build, and the values of `target_recall` that it is asked with."""

    build: Build
    targets: tuple[float, ...]


def check_names(names: str | None) -> None:
    """Refuse an unknown engine before anything is read. Raises BenchError."""
    for name in [] if names is None else names.split(","):
        if name.strip() not in ENGINES:
            raise BenchError(f"there is no engine {name.strip()!r}; there are {', '.join(ENGINES)}")


def check_engines(names: str | None, metric: str) -> list[str]:
    """The engines to be measured: those named, comma-separated, or all of the metric.

    Raises:
        BenchError: one does not search by the metric.
    """
    fit = [name for name, kind in ENGINES.items() if metric in kind.metrics]
    if names is None:
        return fit
    chosen = list(dict.fromkeys(name.strip() for name in names.split(",")))
    for name in chosen:
        if name not in fit:
            raise BenchError(f"{name} does not search by {metric}; take {', '.join(fit)}")
    return chosen


def check_target(target: float) -> float:
    """The recall that the report looks for. Raises BenchError."""
    if not MIN_TARGET <= target <= MAX_TARGET:
        raise BenchError(
            f"--target-recall {target:g} cannot be promised; take {MIN_TARGET} to {MAX_TARGET} "
            "(the engine flat compares with every point, and has all)"
        )
    return target


def check_threshold(threshold: float | None, metric: str) -> float | None:
    """The least similarity that counts as near: as given, or that of the metric.

    Raises:
        BenchError: no similarity by the metric, or not one that counts, can be that.
    """
    if threshold is None:
        return THRESHOLDS[metric]
    if metric != "ip" and not 0 < threshold <= 1:
        raise BenchError(
            f"--threshold {threshold:g} is no similarity by {metric}; take more than 0, at most 1"
        )
    return threshold


def builds_for(engine: str, planned: dict[str, Any] | None) -> list[Build]:
    """All builds of an engine: its defaults, what the planner would give it, and variants."""
    builds = [Build(engine)]
    if planned:
        builds.append(Build(engine, planned))
    return builds + [Build(engine, variant) for variant in _VARIANTS.get(engine, ())]


def jobs(engines: list[str], planned: dict[str, dict[str, Any]], target: float) -> list[Job]:
    """What is measured, in an order that leaves a useful result wherever it is stopped.

    First every engine with its defaults at one recall, then each over its range of recall, then
    other builds.
    """
    everything = tuple(sorted({*TARGETS, target}))
    rest = tuple(at for at in everything if at != MIDDLE)
    first, second, third = [], [], []
    for engine in engines:
        default, *others = builds_for(engine, planned.get(engine))
        first.append(Job(default, (MIDDLE,)))
        if engine in EXACT:
            continue
        second.append(Job(default, rest))
        third += [Job(build, everything) for build in others]
    return first + second + third
