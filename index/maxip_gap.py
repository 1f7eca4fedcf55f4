"""One point that exceeds a bar, found with as little as possible.

::

    few lists ──► as many as the target recall asks for ──► all codes

The oracle of a conditional-gradient step: any point that promises enough progress will do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .batches import FloatArray
from .maxip_effort import MIN_FINALS
from .maxip_lists import MaxIPEffort
from .maxip_segment import MaxIPSegment, MaxIPTail
from .topk import merge_topk


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


def first_above(
    parts: Sequence[MaxIPSegment | MaxIPTail],
    query: FloatArray,
    base: float,
    need: float,
    target: float,
    turn: int,
) -> GapAnswer:
    """The first point met whose gap is at least `need`, or the best of all that were met.

    Args:
        parts: what is searched.
        query: float32 (1, dim).
        base: what is subtracted from a score.
        need: least gap that is accepted.
        target: recall that the second look is for.
        turn: which rotation's codes to scan.
    """
    best, scanned = (-1, -np.inf), 0
    for effort_of in (_few, _usual, _all):
        found, score, read = _best_with(parts, query, effort_of, target, turn)
        scanned += read
        if score > best[1]:
            best = (found, score)
        if best[1] - base >= need:
            break
    return GapAnswer(best[0], best[1], best[1] - base, False, scanned)


def _best_with(
    parts: Sequence[MaxIPSegment | MaxIPTail],
    query: FloatArray,
    effort_of: Callable[[MaxIPSegment, float], MaxIPEffort],
    target: float,
    turn: int,
) -> tuple[int, float, int]:
    """Id, score and points read of the best point under an effort; -1 and -inf if none."""
    answers, read = [], 0
    for segment in parts:
        if isinstance(segment, MaxIPTail):
            answer = segment.search(query, 1, -np.inf)
        else:
            effort = effort_of(segment, target)
            answer = segment.search(query, 1, effort, -np.inf, turn)
        answers.append(answer[:2])
        read += int(answer[2][0])
    if not answers:
        return -1, -np.inf, 0
    ids, scores = merge_topk(answers, 1)
    if ids[0, 0] < 0:
        return -1, -np.inf, read
    return int(ids[0, 0]), float(scores[0, 0]), read


# One point is wanted and not ten: so fewer are compared.
def _few(segment: MaxIPSegment, target: float) -> MaxIPEffort:
    effort = segment.effort(target, 1)
    return MaxIPEffort(max(1, effort.probes // 8), MIN_FINALS, MIN_FINALS // 2, effort.kappa)


def _usual(segment: MaxIPSegment, target: float) -> MaxIPEffort:
    effort = segment.effort(target, 1)
    candidates = max(2 * MIN_FINALS, effort.candidates // 4)
    return MaxIPEffort(effort.probes, candidates, MIN_FINALS // 2, effort.kappa)


def _all(segment: MaxIPSegment, target: float) -> MaxIPEffort:
    effort = segment.effort(target, 1)
    return MaxIPEffort(segment.lists.lists, effort.candidates, MIN_FINALS, effort.kappa)
