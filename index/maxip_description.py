"""What the parts of a MaxIP index are, chose and promise, in words and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .maxip_segment import MaxIPSegment, MaxIPTail

_WHY = (
    "lists are ranked by the score of their centre and their spread, their points by 1-bit codes, "
    "the best of those by a byte a coordinate, and the best of those exactly; how many was "
    "measured on samples"
)


def expected_recall(parts: Sequence[MaxIPSegment | MaxIPTail], points: int, target: float) -> float:
    """Expected share of the true best ten among `points` that an answer holds."""
    if not points:
        return 1.0
    estimate = 0.0
    for part in parts:
        reached = 1.0 if isinstance(part, MaxIPTail) else min(target, part.calibration.best)
        estimate += (len(part) - part.removed) / points * reached
    return min(1.0, estimate)


def described(parts: Sequence[MaxIPSegment | MaxIPTail], target: float) -> dict[str, Any]:
    """The parts of :meth:`MaxIPIndex.explain` that segments and tails have to say."""
    tails = [part for part in parts if isinstance(part, MaxIPTail)]
    segments = [part for part in parts if isinstance(part, MaxIPSegment)]
    return {
        "unsealed": sum(len(tail) - tail.removed for tail in tails),
        "segments": [_segment(segment, target) for segment in segments],
        "nbytes": bytes_by_part(parts),
        "why": _WHY,
    }


def _segment(segment: MaxIPSegment, target: float) -> dict[str, Any]:
    effort = segment.effort(target, 10)
    return {
        "points": len(segment),
        "removed": segment.removed,
        "lists": segment.lists.lists,
        "probes": effort.probes,
        "candidates": effort.candidates,
        "kappa": segment.calibration.kappa,
        "best_recall": segment.calibration.best,
    }


def bytes_by_part(parts: Sequence[MaxIPSegment | MaxIPTail]) -> dict[str, int]:
    """Bytes by part: ``"codes"``, ``"bytes"``, ``"lists"``, ``"ids"`` and ``"features"``."""
    total = {"codes": 0, "bytes": 0, "lists": 0, "ids": 0, "features": 0}
    for part in parts:
        sizes = part if isinstance(part, MaxIPTail) else part.lists
        for name, size in sizes.nbytes.items():
            total[name] += size
    return total
