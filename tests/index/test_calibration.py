"""What a segment's sample says of its group tests, against counting by hand and against search."""

from __future__ import annotations

import numpy as np
import pytest
from closeby.index import FlatIndex, FlinngIndex, _native, featurizer_from
from closeby.index.calibration import BREADTHS, SAMPLE, Calibration, _binomial_tail
from closeby.loaders import samples

from tests import oracle


def empty() -> Calibration:
    made = Calibration.of_arrays(
        {name: np.zeros(shape, dtype) for name, (dtype, shape) in Calibration.shapes().items()}
    )
    assert made is not None
    return made


def test_binomial_tail_is_that_of_the_definition() -> None:
    more, exactly = _binomial_tail(10, np.array([0.3, 0.9]))
    drawn = np.random.default_rng(0).binomial(10, [[0.3], [0.9]], (2, 200_000))
    for c in range(11):
        np.testing.assert_allclose(exactly[:, c], (drawn == c).mean(axis=1), atol=0.005)
        np.testing.assert_allclose(more[:, c], (drawn > c).mean(axis=1), atol=0.005)


def counts_of(bitmaps: np.ndarray, cells: int, keys: np.ndarray) -> np.ndarray:
    """Tests that each cell passes, by the bits themselves."""
    bits = np.unpackbits(bitmaps, axis=2, bitorder="little")
    shift = 32 - (bitmaps.shape[1].bit_length() - 1)
    rows = (bits[t, int(key) >> shift, :cells].astype(int) for t, key in enumerate(keys))
    return np.asarray(sum(rows))


@pytest.mark.parametrize("name", _native.instruction_sets())
def test_ranked_cells_are_those_of_the_bitmaps(name: str) -> None:
    random = np.random.default_rng(3)
    _native.use_instruction_set(name)
    try:
        for tables, cells in ((1, 1), (9, 100), (33, 700)):
            bitmaps = random.integers(0, 256, (tables, 8, 96), dtype=np.uint8)
            keys = random.integers(0, 1 << 32, (3, tables), dtype=np.uint32)
            chosen = np.append(random.integers(0, cells, (3, 6)), [[-1]] * 3, axis=1)
            histogram, passed, places = _native.ranked_cells(bitmaps, cells, keys, chosen)
            for row in range(3):
                counts = counts_of(bitmaps, cells, keys[row])
                expected = np.bincount(counts, minlength=tables + 1)
                assert histogram[row].tolist() == expected.tolist()
                assert passed[row, :-1].tolist() == counts[chosen[row, :-1]].tolist()
                assert passed[row, -1] == 0
                assert places[row].tolist() == oracle.cell_places(
                    counts.tolist(), chosen[row].tolist()
                )
    finally:
        _native.use_instruction_set("best")
    with pytest.raises(ValueError, match="one key"):
        _native.ranked_cells(bitmaps, cells, keys[:, :-1].copy(), chosen)
    with pytest.raises(ValueError, match="a bit for each cell"):
        _native.ranked_cells(bitmaps, 96 * 8 + 1, keys, chosen)
    for wrong in (-2, cells):
        with pytest.raises(ValueError, match="cells, or -1"):
            _native.ranked_cells(bitmaps, cells, keys, np.full((3, 1), wrong))
    with pytest.raises(ValueError, match="for each query"):
        _native.ranked_cells(bitmaps, cells, keys, chosen[:2])


def test_rivals_are_the_best_other_cells() -> None:
    random = np.random.default_rng(5)
    bitmaps = (random.random((16, 4, 512, 8)) < 0.3).astype(np.uint8)
    packed = np.packbits(bitmaps, axis=3, bitorder="little")[..., 0]
    keys = random.integers(0, 1 << 32, (SAMPLE, 16), dtype=np.uint32)
    own = random.integers(0, 4096, SAMPLE)
    calibration = empty()
    calibration.measure(packed, 4096, keys, own)
    for row in (0, 100, 255):
        counts = counts_of(packed, 4096, keys[row])
        assert calibration.chance[row] == pytest.approx(counts.mean() / 16)
        counts[own[row]] = 0
        ordered = np.sort(counts)[::-1]
        for column, breadth in enumerate(BREADTHS.tolist()):
            rank = min(breadth, 4095)
            rival = ordered[rank - 1]
            assert calibration.rivals[row, column] == rival
            assert calibration.above[row, column] == pytest.approx((counts > rival).sum() / rank)
            assert calibration.tied[row, column] == pytest.approx((counts == rival).sum() / rank)


def test_recall_rises_with_breadth_and_similarity_and_breadth_is_its_inverse() -> None:
    random = np.random.default_rng(6)
    index = FlinngIndex()
    index.add([random.integers(0, 1 << 20, 30) for _ in range(10_000)])
    index.compact()
    calibration = index.sealed[0].segment.selector.calibration
    by_similarity = np.array([calibration.recalls(s, index.tables) for s in (0.1, 0.3, 0.6, 1.0)])
    assert (np.diff(by_similarity, axis=0) >= -1e-9).all()
    assert (np.diff(by_similarity, axis=1) >= -1e-9).all()
    assert by_similarity[-1, 0] > 0.999
    for target in (0.6, 0.9, 0.99):
        breadth = calibration.breadth([0.2, 0.3], index.tables, target)
        reached = calibration.recall([0.2, 0.3], index.tables, breadth)
        assert reached >= target - 1e-9 or breadth == BREADTHS[0]


def test_predicted_recall_is_what_a_search_finds() -> None:
    """Neighbours planted at one similarity, in clusters of rivals: never promised, not found."""
    random = np.random.default_rng(8)
    shared = random.integers(0, 1 << 40, (200, 30), dtype=np.uint64)
    points = [
        np.concatenate([shared[i % 200], random.integers(0, 1 << 40, 30, dtype=np.uint64)])
        for i in range(30_000)
    ]
    index = FlinngIndex(threshold=0.6)
    index.add(points)
    index.compact()
    segment = index.sealed[0].segment
    chosen = random.choice(30_000, 1_000, replace=False)
    kept = 45  # of 60 elements: J = 45 / 75 = .6
    rows = [
        np.concatenate([points[i][7 : 7 + kept], random.integers(0, 1 << 40, 60 - kept)])
        for i in chosen
    ]
    queries = index.hash([row.astype(np.uint64) for row in rows])
    for breadth in (32, 128):
        positions, _ = segment._view.candidates(queries.keys, queries.sketches, breadth, 8192)
        found = [i in segment.ids[p[p >= 0]] for i, p in zip(chosen, positions, strict=True)]
        predicted = segment.selector.calibration.recall([0.6], index.tables, breadth)
        # The sample is of points, which their clusters rival more than these changed queries.
        assert predicted - 0.03 <= np.mean(found) <= predicted + 0.12


def test_asking_for_more_recall_finds_more_of_real_neighbours() -> None:
    features = featurizer_from({"kind": "shingles", "unit": "byte", "n": 4})
    urls = [text.split("://", 1)[-1] for text in samples.urls()][:20_000]
    points = features.features(urls)
    exact, index = FlatIndex(), FlinngIndex()
    exact.add(points)
    index.add(points)
    index.compact()
    queries = points.take(np.arange(0, 20_000, 20))
    truth, similarity = exact.search(queries, 11, threshold=0.5)
    recalls = []
    for target in (0.6, 0.95, 0.999):
        ids, _ = index.search(queries, 11, threshold=0.5, target_recall=target)
        hits = sum(len(set(a[a >= 0]) & set(b[b >= 0])) for a, b in zip(ids, truth, strict=True))
        recalls.append(hits / (similarity >= 0.5).sum())
    assert recalls[0] <= recalls[1] <= recalls[2]
    assert recalls[1] >= 0.95


def test_a_recall_asked_for_again_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine asks for the same with each query, and the sum over the sample takes a while."""
    random = np.random.default_rng(9)
    index = FlinngIndex()
    index.add([random.integers(0, 1 << 20, 30) for _ in range(9_000)])
    index.compact()
    index.search([[1, 2, 3]], 1)
    estimate = index.recall_estimate()

    def again(*_: object) -> None:
        pytest.fail("the sample was summed up again")

    monkeypatch.setattr(Calibration, "recalls", again)
    index.search([[4, 5, 6]], 1)
    assert index.recall_estimate() == estimate
