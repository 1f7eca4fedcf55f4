"""Segments of a MaxIP index: sealing beside a writer, files, and searches meanwhile."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closeby.index import CorruptFileError, MaxIPIndex
from closeby.index.files import read_arrays, write_arrays
from closeby.index.maxip_segment import KIND


def vectors(n: int, seed: int = 0, dim: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def unsettled(points: np.ndarray, capacity: int = 100) -> MaxIPIndex:
    index = MaxIPIndex(seed=3, capacity=capacity, settle=False)
    for start in range(0, len(points), 30):
        index.add(points[start : start + 30])
    return index


def exact_ids(points: np.ndarray, queries: np.ndarray, k: int) -> list[list[int]]:
    return np.argsort(-(queries @ points.T), axis=1, kind="stable")[:, :k].tolist()


def seal_all(index: MaxIPIndex, folder: Path) -> list[tuple[int, Path]]:
    """What a worker does: seal, merge, and know the files."""
    index.freeze()
    while (merge := index.next_seal() or index.next_tier()) is not None:
        path = folder / f"{len(list(folder.iterdir()))}.closeby"
        segment = merge.build(path)
        assert segment.path == path
        index.finish(merge, segment)
    return [(s.chunks, s.segment.path) for s in index.sealed if s.segment.path is not None]


def test_a_worker_seals_and_the_files_make_the_index_again(tmp_path: Path) -> None:
    points = vectors(730)
    index = unsettled(points)
    assert index.frozen == 7
    queries = vectors(20, 1)
    before = index.search(queries, 5)
    assert before[0].tolist() == exact_ids(points, queries, 5)
    files = seal_all(index, tmp_path)
    assert index.frozen == 0
    assert [chunks for chunks, _ in files] == [8]
    again = MaxIPIndex.restored(index.parameters, files, settle=False)
    for each in (index, again):
        for got, expected in zip(each.search(queries, 5), before, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert again.remove([5, 999]) == 1
    assert len(again) == 729
    again.add(points[:1])
    assert again.search(points[:1], 800)[0].max() == 730


def test_what_is_removed_while_a_segment_is_built_stays_removed(tmp_path: Path) -> None:
    points = vectors(200)
    index = unsettled(points)
    first = index.next_seal()
    assert first is not None
    segment = first.build(tmp_path / "first")
    assert index.remove([7, 150]) == 2
    index.finish(first, segment)
    assert index.search(points[7:8], 200)[0].max() == 199
    assert not {7, 150} & set(index.search(points[7:8], 200)[0][0].tolist())
    assert len(index) == 198


def test_a_segment_of_which_all_is_removed_goes_away(tmp_path: Path) -> None:
    index = unsettled(vectors(100))
    assert index.remove(np.arange(100)) == 100
    assert seal_all(index, tmp_path) == []
    assert len(index) == 0
    assert (index.search(vectors(2), 3)[0] == -1).all()


def test_a_batch_becomes_one_segment_whatever_its_size() -> None:
    index = MaxIPIndex(capacity=100)
    index.add(vectors(950))
    assert [len(sealed.segment) for sealed in index.sealed] == [950]
    for start in range(0, 300, 50):
        index.add(vectors(50, start))
    assert sum(len(sealed.segment) for sealed in index.sealed) == 1_250
    index.compact()
    assert len(index.sealed) == 1


def test_updates_never_lose_a_point_from_sight(tmp_path: Path) -> None:
    """Searches beside updates, sealing and merging find every point exactly once."""
    points = vectors(600)
    index = MaxIPIndex(seed=1, capacity=64, settle=False)
    index.add(points)
    faults: list[Any] = []
    stop = threading.Event()

    def search() -> None:
        while not stop.is_set():
            ids, _ = index.search(points[:3], 600, target_recall=0.9999)
            for row in ids:
                if sorted(row.tolist()) != list(range(600)):
                    faults.append(row)

    searchers = [threading.Thread(target=search) for _ in range(2)]
    for thread in searchers:
        thread.start()
    rng = np.random.default_rng(0)
    for round_ in range(12):
        chosen = rng.choice(600, 40, replace=False)
        points[chosen] = vectors(40, round_)
        index.update(chosen, points[chosen])
        if round_ % 3 == 0:
            folder = tmp_path / str(round_)
            folder.mkdir()
            seal_all(index, folder)
    stop.set()
    for thread in searchers:
        thread.join()
    assert not faults
    ids, stored = index.points()
    np.testing.assert_array_equal(ids, np.arange(600))
    np.testing.assert_array_equal(stored, points)


@pytest.mark.parametrize("wrong", ["dimension", "starts", "calibration", "codes"])
def test_files_that_do_not_fit_are_corrupt(tmp_path: Path, wrong: str) -> None:
    index = unsettled(vectors(100))
    files = seal_all(index, tmp_path)
    parameters = index.parameters
    header, arrays = read_arrays(files[0][1], KIND)
    header = {"index": KIND, "calibration": header["calibration"]}
    if wrong == "dimension":
        parameters = parameters | {"dim": 13}
    elif wrong == "starts":
        arrays = arrays | {"starts": arrays["starts"] + 1}
    elif wrong == "calibration":
        header["calibration"] = {"kappa": 1.0, "curves": []}
    else:
        arrays = {name: array for name, array in arrays.items() if name != "codes0"}
    path = tmp_path / "changed"
    write_arrays(path, header, arrays)
    with pytest.raises(CorruptFileError):
        MaxIPIndex.restored(parameters, [(1, path)])
