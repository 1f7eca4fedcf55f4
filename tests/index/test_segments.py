"""How points move through segments: the binary digits, merges beside a writer, removed points."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from closeby.index import MinHashFamily, SetBatch, as_set_batch, tuning
from closeby.index.alive_points import AlivePoints, JoinedPoints
from closeby.index.mutable_segment import MutableSegment
from closeby.index.segment import Segment
from closeby.index.segment_files import HashedSegments
from closeby.index.segments import Segments
from closeby.index.views import HashedQueries

TABLES = 8
FAMILY = MinHashFamily(3, tables=TABLES, sketch_bits=128)
LAYOUT = partial(tuning.group_shape, tables=TABLES)


def sets(start: int, stop: int) -> Any:
    """Sets that share nothing: each finds itself alone."""
    return as_set_batch([[i, i + 10**6, i + 2 * 10**6] for i in range(start, stop)])


def segments_of(points: int, *, settle: bool = True, capacity: int = 10) -> Segments:
    segments = Segments(HashedSegments(FAMILY, LAYOUT, 0.5), capacity, settle=settle)
    if points:
        segments.append(np.arange(points), sets(0, points))
    return segments


def found(segments: Segments, points: int) -> list[int]:
    """Ids of the first `points` sets that a search of all segments finds, with repeats."""
    queries = HashedQueries.of(sets(0, points), FAMILY)
    ids: list[int] = []
    for segment in segments.searchable():
        shape = segment.shape
        effort = tuning.Effort(len(segment) if shape else 1, max(10, points))
        answer, scores = segment.search(queries, effort, 3, 0.9)
        assert (scores[answer >= 0] == 1).all()
        ids += answer[answer >= 0].tolist()
    return sorted(ids)


def chunks(segments: Segments) -> list[int]:
    return [sealed.chunks for sealed in segments.sealed]


@pytest.fixture(params=[8, 8_192], ids=["bitmaps", "scan"])
def scan_below(request: pytest.FixtureRequest, monkeypatch: Any) -> int:
    monkeypatch.setattr(tuning, "SCAN_BELOW", request.param)
    return int(request.param)


@pytest.mark.parametrize("points", [0, 1, 9, 10, 11, 20, 35, 130, 137])
@pytest.mark.parametrize("step", [1, 7, 10, 200])
def test_sealed_segments_are_the_digits_of_the_capacities(
    points: int, step: int, scan_below: int
) -> None:
    segments = segments_of(0)
    for start in range(0, points, step):
        stop = min(points, start + step)
        segments.append(np.arange(start, stop), sets(start, stop))
    full = points // 10
    assert chunks(segments) == [1 << b for b in reversed(range(8)) if full >> b & 1]
    assert [len(s) for s in segments.searchable()] == [
        *(10 * c for c in chunks(segments)),
        *([points % 10] if points % 10 else []),
    ]
    assert len(segments) == points
    if points:
        assert found(segments, points) == list(range(points))


def test_merges_may_wait_and_be_built_beside_a_writer(scan_below: int) -> None:
    """Between any two steps every point is found exactly once."""
    segments = segments_of(37, settle=False)
    assert segments.sealed == ()
    expected = set(range(37))
    assert found(segments, 37) == sorted(expected)
    added = 37
    while (merge := segments.next_merge()) is not None:
        built = merge.build()
        gone = min(expected)  # removed after the merge has read it
        assert segments.remove(np.array([gone])) == 1
        expected.discard(gone)
        if added < 60:
            segments.append(np.arange(added, added + 4), sets(added, added + 4))
            expected |= set(range(added, added + 4))
            added += 4
        assert found(segments, added) == sorted(expected)
        segments.finish(merge, built)
        assert found(segments, added) == sorted(expected)
        assert len(segments) == len(expected)
    assert sum(chunks(segments)) == added // 10


def test_a_point_replaced_while_its_segment_is_merged_is_found_once(scan_below: int) -> None:
    segments = segments_of(20, settle=False)
    merge = segments.next_merge()
    assert merge is not None
    built = merge.build()
    assert segments.remove(np.array([4])) == 1
    segments.append(np.array([4]), sets(4, 5))
    segments.finish(merge, built)
    assert found(segments, 20) == list(range(20))
    # And the other way round: removed and added again before the merge, in two of its sources.
    segments = segments_of(15, settle=False)
    assert segments.remove(np.array([4, 12])) == 2
    segments.append(np.array([4, 12]), as_set_batch([sets(4, 5).row(0), sets(12, 13).row(0)]))
    segments.append(np.arange(15, 20), sets(15, 20))
    while (merge := segments.next_merge()) is not None:
        segments.finish(merge, merge.build())
    assert found(segments, 20) == list(range(20))


def test_a_segment_of_mostly_removed_points_is_cleaned(scan_below: int) -> None:
    segments = segments_of(40)
    segments.remove(np.arange(0, 21))
    assert [s.removed for s in segments.searchable()] == [21]
    segments.settle()
    assert [s.removed for s in segments.searchable()] == [0]
    assert found(segments, 40) == list(range(21, 40))
    segments.remove(np.arange(21, 40))
    segments.settle()
    assert len(segments) == 0
    assert found(segments, 40) == []
    segments.append(np.arange(0, 40), sets(0, 40))
    assert found(segments, 40) == list(range(40))


def test_compacting_leaves_one_segment(scan_below: int) -> None:
    segments = segments_of(77)
    segments.remove(np.arange(5, 77, 9))
    segments.compact()
    (sealed,) = segments.sealed
    assert sealed.chunks == 8
    assert (len(sealed.segment), sealed.segment.removed) == (69, 0)
    segments.append(np.arange(100, 133), sets(100, 133))
    assert chunks(segments) == [8, 2, 1]
    assert len(segments) == 69 + 33
    segments_of(0).compact()


def test_ids_are_known_until_removed(scan_below: int) -> None:
    segments = segments_of(25)
    assert segments.first_present(np.array([99, 24])) == 24
    assert segments.first_present(np.array([99, 7])) == 7
    assert segments.first_present(np.array([25, 99])) is None
    assert segments.remove(np.array([7, 24, 99])) == 2
    assert segments.remove(np.array([7, 24, 99])) == 0
    assert segments.first_present(np.array([7, 24])) is None
    unsealed = segments.unsealed()
    assert unsealed is not None
    assert unsealed[0].tolist() == [20, 21, 22, 23]


def test_points_of_several_parts_are_taken_in_any_order() -> None:
    parts = [
        AlivePoints.of(np.arange(a, b), sets(a, b)) for a, b in [(0, 3), (3, 3), (3, 9), (9, 9)]
    ]
    joined = JoinedPoints(parts)
    assert joined.ids.tolist() == list(range(9))
    rows = np.array([8, 0, 4, 4, 2, 3])
    taken = joined.take(rows)
    assert isinstance(taken, SetBatch)
    assert [taken.row(i)[0] for i in range(6)] == rows.tolist()
    assert len(joined.take(rows[:0])) == 0


# --- one segment ---------------------------------------------------------------------------------


def test_a_sealed_segment_holds_its_points(scan_below: int) -> None:
    ids = np.random.default_rng(1).permutation(100).astype(np.int64) * 3
    batch = sets(0, 100)
    segment = Segment.build([AlivePoints.of(ids, batch)], FAMILY, LAYOUT, threshold=0.5)
    assert len(segment) == 100
    assert sorted(segment.ids.tolist()) == sorted(ids.tolist())
    assert (segment.shape is None) == (segment.selector is None) == (scan_below > 100)
    alive = segment.alive()
    features = alive.take(np.arange(100))
    assert isinstance(features, SetBatch)
    for row, name in enumerate(alive.ids):
        (source,) = np.flatnonzero(ids == name)
        assert features.row(row).tolist() == batch.row(source).tolist()
    assert segment.contains(np.array([0, 1, 3, 300])).tolist() == [True, False, True, False]
    assert segment.remove(np.array([0, 1, 3])).tolist() == [0, 3]
    assert segment.removed == 2
    assert segment.dead_ids().tolist() in ([0, 3], [3, 0])
    assert len(segment.alive().ids) == 98
    assert sum(segment.nbytes.values()) > 0


def test_elements_above_32_bits_and_below(scan_below: int) -> None:
    """Elements are stored in 4 bytes where all of them fit, and come back the same."""
    for big in (2**32 - 1, 2**32, 2**64 - 1):
        batch = as_set_batch([[0, big], [big], [1, 2]])
        segment = Segment.build(
            [AlivePoints.of(np.arange(3), batch)], FAMILY, LAYOUT, threshold=0.5
        )
        alive = segment.alive()
        features = alive.take(np.argsort(alive.ids))
        assert isinstance(features, SetBatch)
        assert features.indices.dtype == np.uint64
        assert [features.row(i).tolist() for i in range(3)] == [[0, big], [big], [1, 2]]
        assert segment.nbytes["features"] == 4 * 8 + 5 * (4 if big < 2**32 else 8)
        queries = HashedQueries.of(batch, FAMILY)
        ids, scores = segment.search(queries, tuning.Effort(1, 10), 1, 0.1)
        assert ids.ravel().tolist() == [0, 1, 2]
        assert (scores == 1).all()


def test_a_mutable_segment_is_searchable_after_every_point(scan_below: int) -> None:
    segment = MutableSegment(FAMILY, 40, sets(0, 0), LAYOUT, 0.5)
    assert len(segment) == 0
    for i in range(40):
        point = sets(i, i + 1)
        segment.append(np.array([i + 7]), point, *FAMILY.hash(point))
        queries = HashedQueries.of(sets(0, i + 1), FAMILY)
        effort = tuning.Effort(max(1, len(segment)), 50)
        ids, _ = segment.search(queries, effort, 1, 0.9)
        assert ids.ravel().tolist() == list(range(7, i + 8))
    assert segment.remove(np.array([7, 8, 100])).tolist() == [7, 8]
    assert segment.contains(np.array([7, 9])).tolist() == [False, True]
    assert segment.alive().ids.tolist() == list(range(9, 47))
