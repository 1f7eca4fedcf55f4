"""Which points there are is right at every moment, also while they move into a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from closeby.service.live import LivePoints
from closeby.service.points_file import Names, PointsFile
from closeby.service.store import point_key


def sealed(path: Path, points: dict[int, int]) -> PointsFile:
    """A file of points: seq to id."""
    seqs = np.array(list(points), np.int64)
    keys = [point_key(point) for point in points.values()]
    return PointsFile.write(path, seqs, [Names.of(seqs, keys, [False] * len(keys))])


def put(live: LivePoints, seq: int, point: int) -> None:
    live.announce(seq, point, has_payload=False)
    live.settle({point: seq}, live.seqs([point]))


def test_points_on_their_way_into_a_file_count_once(tmp_path: Path) -> None:
    live = LivePoints()
    for seq in range(10):
        put(live, seq, 100 + seq)
    file = sealed(tmp_path / "a", {seq: 100 + seq for seq in range(8)})
    counted = []

    def moving() -> Iterator[int]:
        for seq in range(8):
            counted.append(len(live))
            yield seq

    live.publish(file, [], moving())
    assert counted == [10] * 8
    assert len(live) == 10
    assert live.all_seqs().tolist() == [*range(10)]


def test_the_count_follows_every_change(tmp_path: Path) -> None:
    live = LivePoints()
    live.restore([sealed(tmp_path / "a", {1: 11, 2: 12, 3: 13})])
    assert len(live) == 3
    put(live, 4, 11)  # a sealed point, replaced
    put(live, 5, 15)
    assert len(live) == 4
    put(live, 6, 15)  # a recent one, replaced
    assert len(live) == 4
    gone = [12, 15, 99]  # there is no 99
    live.settle(dict.fromkeys(gone), live.seqs(gone))
    assert len(live) == 2 == len(live.all_seqs())
    merged = sealed(tmp_path / "b", {3: 13, 4: 11})
    live.publish(merged, live.sealed, [4])
    assert len(live) == 2 == merged.alive
    assert live.seqs([11, 12, 13, 15]) == {11: 4, 13: 3}
