import threading

import faiss
import numpy as np
import pytest
from closeby.index import FlatIndex
from closeby.index.alive_points import rows_of
from closeby.index.baselines import (
    BinaryFlatIndex,
    BinaryHnswIndex,
    BinaryIvfIndex,
    HnswIndex,
    IvfIndex,
    structure_files,
)
from closeby.index.baselines.rebuilt import STRUCTURE_FROM
from closeby.index.batches import as_set_batch
from closeby.index.errors import CorruptFileError, InvalidInputError
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

POINTS = 3_600
ENGINES = {
    "hnsw": (HnswIndex, {"metric": "cosine"}),
    "hnsw-ip": (HnswIndex, {"metric": "ip"}),
    "ivf": (IvfIndex, {"metric": "cosine"}),
    "ivf-ip": (IvfIndex, {"metric": "ip"}),
    "ivf-pq": (IvfIndex, {"metric": "cosine", "codes": "pq", "pq_bytes": 8}),
    "ivf-rabitq": (IvfIndex, {"metric": "cosine", "codes": "rabitq"}),
    "binary_flat": (BinaryFlatIndex, {}),
    "binary_hnsw": (BinaryHnswIndex, {}),
    "binary_ivf": (BinaryIvfIndex, {}),
}


def vectors():
    """Around 250 centres, so that each has some twenty near neighbours."""
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((POINTS // 20, 32))
    noise = 0.4 * rng.standard_normal((POINTS, 32))
    return (centres[rng.integers(0, len(centres), POINTS)] + noise).astype(np.float32)


def sets():
    """Families of twenty, each of which keeps 30 to 60 elements of its first."""
    rng = np.random.default_rng(3)
    rows = []
    for _ in range(POINTS // 20):
        first = rng.integers(0, 2**63, 60, dtype=np.uint64)
        for kept in rng.integers(30, 61, 20):
            own = rng.integers(0, 2**63, 60 - kept, dtype=np.uint64)
            rows.append(np.concatenate((first[:kept], own)))
    return as_set_batch(rows).take(rng.permutation(POINTS))


@pytest.fixture(scope="module")
def data():
    return {"vectors": vectors(), "sets": sets()}


def points_for(name, data):
    return data["sets" if name.startswith("binary") else "vectors"]


def part(features, start, stop):
    return rows_of(features, np.arange(start, stop))


def made(name, **options):
    engine, fixed = ENGINES[name]
    return engine(**fixed | options)


@pytest.fixture(scope="module")
def built(data):
    """One index of each engine over all points but the first 100; not to be changed."""
    indexes = {}
    for name in ENGINES:
        indexes[name] = made(name)
        indexes[name].add(part(points_for(name, data), 100, POINTS))
    return indexes


def exact(metric, points, ids=None):
    index = FlatIndex(metric)
    index.add(points, ids)
    return index


def share_found(scores, truth):
    wanted = np.isfinite(truth)
    last = np.where(wanted, truth, np.inf).min(axis=1, keepdims=True)
    found = np.minimum((scores >= last - 1e-4).sum(axis=1), wanted.sum(axis=1))
    return found.sum() / wanted.sum()


@pytest.mark.parametrize("name", ENGINES)
def test_answers_meet_the_recall_asked_for(name, data, built):
    points = points_for(name, data)
    queries, index = part(points, 0, 100), built[name]
    truth = exact(index.metric, part(points, 100, POINTS)).search(queries, 10)[1]
    for target in (0.8, 0.95, 0.99):
        scores = index.search(queries, 10, target_recall=target)[1]
        promised = index.recall_estimate(target)
        found = share_found(scores, truth)
        assert found >= target - 0.05
        assert found == pytest.approx(promised, abs=0.05) or found > promised


@pytest.mark.parametrize("name", ENGINES)
def test_scores_are_exact_and_in_order(name, data, built):
    points = points_for(name, data)
    queries = part(points, 0, 20)
    ids, scores = built[name].search(queries, 10)
    flat = exact(built[name].metric, part(points, 100, POINTS))
    all_ids, all_scores = flat.search(queries, POINTS - 100)
    for row in range(20):
        known = dict(zip(all_ids[row].tolist(), all_scores[row].tolist(), strict=True))
        kept = ids[row] >= 0
        assert scores[row][kept].tolist() == pytest.approx([known[i] for i in ids[row][kept]])
        assert np.all(np.diff(scores[row][kept]) <= 0)


@pytest.mark.parametrize("name", ENGINES)
def test_a_threshold_shortens_answers(name, data, built):
    index, queries = built[name], part(points_for(name, data), 0, 30)
    ids, scores = index.search(queries, 20)
    limit = float(np.nanmedian(scores))
    cut_ids, cut = index.search(queries, 20, threshold=limit)
    for row in range(30):
        assert cut_ids[row][cut_ids[row] >= 0].tolist() == ids[row][scores[row] >= limit].tolist()
    assert np.all(np.isnan(cut) | (cut >= limit))


@pytest.mark.parametrize("name", ENGINES)
def test_removed_points_are_not_found_before_and_after_a_renewal(name, data):
    points = points_for(name, data)
    index = made(name, settle=False)
    ids = np.arange(POINTS) * 3 + 7
    index.add(points, ids)
    settle(index)
    gone = ids[: POINTS // 5]
    assert index.remove(gone) == len(gone)
    assert index.remove(gone) == 0
    assert index.next_renewal() is None
    kept = part(points, POINTS // 5, POINTS)
    flat = exact(index.metric, kept, ids[POINTS // 5 :])
    queries = part(points, 0, 60)  # removed, every one, and their neighbours in part
    truth = flat.search(queries, 10)[1]
    for _ in range(2):
        found, scores = index.search(queries, 10, target_recall=0.99)
        assert not np.isin(found, gone).any()
        assert share_found(scores, truth) > 0.9
        index.compact()
    assert index.explain()["removed"] == 0
    assert len(index) == POINTS - len(gone)


@pytest.mark.parametrize("name", ENGINES)
def test_saved_and_loaded_answers_alike(name, data, tmp_path):
    points = points_for(name, data)
    index = made(name, target_recall=0.9, seed=5)
    index.add(part(points, 0, 3_000))
    index.add(part(points, 3_000, 3_400))
    index.remove(np.arange(50))
    index.add(part(points, 0, 10), np.arange(10))  # ids that were removed live again
    path = tmp_path / "index.closeby"
    index.save(path)
    loaded = type(index).load(path)
    queries = part(points, 3_500, 3_550)
    for ours, theirs in zip(index.search(queries, 7), loaded.search(queries, 7), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert loaded.parameters == index.parameters
    assert len(loaded) == len(index) == 3_360
    assert loaded.recall_estimate() == index.recall_estimate()
    loaded.add(part(points, 3_500, 3_501))
    assert len(loaded) == 3_361


@pytest.mark.parametrize("name", ENGINES)
def test_a_structure_that_leads_to_points_that_are_gone_is_searched(name, data, tmp_path):
    """A structure of another process, over points that have been moved together since."""
    points = points_for(name, data)
    index = made(name, settle=False)
    index.add(points, np.arange(POINTS))
    settle(index)
    kept_ids = np.arange(0, POINTS, 2)
    index.save_structure(tmp_path / "structure")
    fewer = made(name, settle=False)
    kept = rows_of(points, kept_ids)
    fewer.add(kept, kept_ids)
    fewer.load_structure(tmp_path / "structure")
    flat = exact(index.metric, kept, kept_ids)
    queries = part(points, 1, 60)
    ids, scores = fewer.search(queries, 10, target_recall=0.99)
    assert np.isin(ids, [-1, *kept_ids]).all()
    assert share_found(scores, flat.search(queries, 10)[1]) > 0.8


@pytest.mark.parametrize("name", ["hnsw", "binary_ivf"])
def test_a_damaged_file_never_reaches_faiss(name, data, tmp_path, monkeypatch):
    index = made(name)
    index.add(part(points_for(name, data), 0, STRUCTURE_FROM))
    path = tmp_path / "index.closeby"
    index.save(path)
    whole = path.read_bytes()
    for reader in ("deserialize_index", "deserialize_index_binary"):
        monkeypatch.setattr(structure_files.faiss, reader, pytest.fail)
    for at in np.linspace(100, len(whole) - 70, 40).astype(int).tolist():
        damaged = bytearray(whole)
        damaged[at : at + 8] = bytes(byte ^ 255 for byte in damaged[at : at + 8])
        path.write_bytes(damaged)
        with pytest.raises(CorruptFileError):
            type(index).load(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptFileError):
        type(index).load(path)


def test_faiss_part_of_another_index_is_refused(data, tmp_path):
    from closeby.index.files import read_arrays, write_arrays

    path, other = tmp_path / "graph", tmp_path / "lists"
    for engine, where in ((HnswIndex(), path), (IvfIndex(), other)):
        engine.add(part(data["vectors"], 0, STRUCTURE_FROM))
        engine.save(where)
    header, arrays = read_arrays(path, "hnsw")
    foreign = read_arrays(other, "ivf")[1]["faiss"]
    nonsense = np.arange(1000).astype(np.uint8)
    for wrong in (foreign, nonsense, nonsense[:0]):
        changed = {name: array.copy() for name, array in arrays.items()} | {"faiss": wrong.copy()}
        write_arrays(tmp_path / "mixed", header, changed)
        with pytest.raises(CorruptFileError):
            HnswIndex.load(tmp_path / "mixed")


def settle(index):
    while (renewal := index.next_renewal()) is not None:
        renewal.run()
        index.finish(renewal)


@pytest.mark.parametrize("name", ["hnsw", "ivf", "binary_hnsw", "binary_ivf"])
def test_adding_bit_by_bit_keeps_the_recall(name, data):
    points = points_for(name, data)
    index = made(name, target_recall=0.95)
    for start in range(100, POINTS, 350):
        index.add(part(points, start, min(POINTS, start + 350)))
    told = index.explain()
    assert 0 < told["compared_exactly"] < STRUCTURE_FROM
    assert told["covered"] + told["compared_exactly"] == POINTS - 100
    truth = exact(index.metric, part(points, 100, POINTS)).search(part(points, 0, 100), 10)[1]
    scores = index.search(part(points, 0, 100), 10)[1]
    assert share_found(scores, truth) > 0.9


def test_a_renewal_takes_up_what_happened_meanwhile(data):
    points = data["vectors"]
    index = HnswIndex(settle=False)
    points = np.concatenate((points, -points[:1_000]))
    index.add(points[:4_400])
    settle(index)
    index.remove(np.arange(2_200))
    renewal = index.next_renewal()
    renewal.run()
    index.remove(np.arange(2_200, 2_300))
    index.add(points[:100], np.arange(100))
    index.add(points[4_400:4_500], np.arange(4_400, 4_500))
    index.remove([4_400])
    index.finish(renewal)
    assert index.explain()["covered"] == 2_200
    alive = np.concatenate((np.arange(100), np.arange(2_300, 4_400), np.arange(4_401, 4_500)))
    assert len(index) == len(alive)
    flat = exact("cosine", points[alive], alive)
    found = index.search(points[:300], 5, target_recall=0.99)
    assert np.isin(found[0], alive).all()
    assert share_found(found[1], flat.search(points[:300], 5)[1]) > 0.95


@pytest.mark.parametrize("name", ["hnsw", "ivf-pq", "binary_hnsw", "binary_ivf"])
def test_searches_go_on_while_points_come_and_go(name, data):
    points = points_for(name, data)
    index = made(name)
    index.add(part(points, 0, 2_000))
    wrong, stop = [], threading.Event()

    def ask():
        queries = part(points, 0, 8)
        while not stop.is_set():
            ids, scores = index.search(queries, 3)
            if not (scores[:, 0] > 0.99).all() or (np.diff(scores, axis=1) > 0).any():
                wrong.append((ids, scores))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for start in range(2_000, POINTS, 500):
        index.add(part(points, start, min(POINTS, start + 500)))
        index.remove(np.arange(start - 400, start - 100))
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


def test_few_points_are_compared_exactly(data):
    index = HnswIndex()
    index.add(data["vectors"][:500])
    told = index.explain()
    assert told["curve"] is None
    assert "every point is compared" in told["why"]
    assert index.recall_estimate(0.5) == 1.0
    np.testing.assert_array_equal(
        index.search(data["vectors"][500:520], 5)[0],
        exact("cosine", data["vectors"][:500]).search(data["vectors"][500:520], 5)[0],
    )


@pytest.mark.parametrize("name", ENGINES)
def test_empty_index_and_empty_batches(name, data):
    index, points = made(name), points_for(name, data)
    ids, scores = index.search(part(points, 0, 2), 3)
    assert ids.tolist() == [[-1] * 3] * 2
    assert np.all(np.isnan(scores))
    index.add(part(points, 0, 0))
    assert index.remove([1]) == 0
    assert index.next_renewal() is None
    assert index.recall_estimate() == 1.0
    assert index.search(part(points, 0, 0), 3)[0].shape == (0, 3)


def test_what_cannot_be_reached_is_said():
    # 2 bytes of product code cannot order random vectors, and 1 candidate a hit does not mend it.
    rng = np.random.default_rng(0)
    index = IvfIndex(codes="pq", pq_bytes=2, rerank=1, target_recall=0.99)
    index.add(rng.standard_normal((3_000, 32)).astype(np.float32))
    assert index.recall_estimate() < 0.6
    assert "beyond what it reaches" in index.explain()["why"]


def test_explain_and_bytes_tell_what_there_is(data, built):
    for name, index in built.items():
        told = index.explain()
        assert told["index"] == index.kind
        assert told["points"] == POINTS - 100
        assert told["covered"] == POINTS - 100
        assert told["curve"]["queries"] >= 32
        size = index.nbytes
        assert size[index.part] > 0
        wanted = 32 * 4 if index.metric != "jaccard" else 40 * 8
        assert size["features"] >= (POINTS - 100) * wanted, name


def test_the_curve_counts_neighbours_at_the_threshold(data):
    index = BinaryHnswIndex(threshold=0.5)
    index.add(data["sets"])
    assert index.explain()["curve"]["near"]
    far = BinaryHnswIndex(threshold=0.99)
    far.add(data["sets"])
    assert not far.explain()["curve"]["near"]


def test_threads_of_faiss_are_put_back(data):
    before = faiss.omp_get_max_threads()
    index = HnswIndex(threads=before + 1)
    index.add(data["vectors"][:STRUCTURE_FROM])
    index.search(data["vectors"][:3], 3)
    assert faiss.omp_get_max_threads() == before


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: HnswIndex("jaccard"), "metric"),
        (lambda: BinaryHnswIndex("cosine"), "metric"),
        (lambda: HnswIndex(M=2), "M must be a whole number from 4 to 128"),
        (lambda: HnswIndex(ef_construction=1.5), "ef_construction"),
        (lambda: HnswIndex(target_recall=0.2), "target_recall"),
        (lambda: HnswIndex(threshold=float("nan")), "threshold"),
        (lambda: IvfIndex(codes="sq"), "codes must be one of flat, pq, rabitq"),
        (lambda: IvfIndex(lists=0), "lists"),
        (lambda: IvfIndex(codes="pq", pq_bytes=5).add(np.ones((1, 32))), "divide the dimension 32"),
        (lambda: BinaryFlatIndex(sketch_bits=100), "sketch_bits"),
        (lambda: BinaryIvfIndex(scheme="two"), "scheme"),
        (lambda: BinaryIvfIndex(rerank=True), "rerank"),
    ],
)
def test_wrong_options(make, match):
    with pytest.raises(InvalidInputError, match=match):
        make()


def test_wrong_points(data):
    index = HnswIndex()
    index.add(data["vectors"][:10])
    with pytest.raises(InvalidInputError, match="id 5 is in the index"):
        index.add(data["vectors"][:1], ids=[5])
    with pytest.raises(InvalidInputError, match="32 dimensions"):
        index.add(np.ones((1, 8)))
    with pytest.raises(InvalidInputError, match="k must"):
        index.search(data["vectors"][:1], 0)
    assert len(index) == 10


class Life(RuleBasedStateMachine):
    """An engine against a dictionary and exact search; structures as small as can be."""

    name = "hnsw"

    def __init__(self):
        super().__init__()
        self.points = vectors() if self.name != "binary_ivf" else sets()
        self.index = made(self.name, settle=False, target_recall=0.99)
        self.rows = {}
        self.next = 0
        self.renewal = None

    @rule(count=st.sampled_from([1, 40, 1_500]))
    def add(self, count):
        stop = min(self.next + count, POINTS)
        new = np.arange(self.next, stop)
        self.index.add(rows_of(self.points, new), new + 10)
        self.rows |= {int(i) + 10: int(i) for i in new}
        self.next = stop

    @rule(share=st.sampled_from([0.05, 0.6]), seed=st.integers(0, 9))
    def remove(self, share, seed):
        ids = [i for i in self.rows if np.random.default_rng(seed + i).random() < share]
        assert self.index.remove(np.array(ids, np.int64)) == len(ids)
        for i in ids:
            del self.rows[i]

    @rule()
    def begin_renewal(self):
        if self.renewal is None:
            self.renewal = self.index.next_renewal()
            if self.renewal is not None:
                self.renewal.run()

    @rule()
    def end_renewal(self):
        if self.renewal is not None:
            self.index.finish(self.renewal)
            self.renewal = None

    @invariant()
    def answers_hold_what_is_there(self):
        assert len(self.index) == len(self.rows)
        queries = rows_of(self.points, np.arange(POINTS - 10, POINTS))
        ids, scores = self.index.search(queries, 5)
        assert {int(i) for i in ids.flat if i >= 0} <= self.rows.keys()
        if self.rows:
            order = np.array(sorted(self.rows.values()))
            flat = exact(self.index.metric, rows_of(self.points, order))
            truth = flat.search(queries, 5)[1]
            assert share_found(scores, truth) >= 0.6 or not np.isfinite(truth).any()


class LifeOfLists(Life):
    name = "binary_ivf"


for machine in (Life, LifeOfLists):
    machine.TestCase.settings = settings(
        max_examples=6,
        stateful_step_count=12,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
TestLife = Life.TestCase
TestLifeOfLists = LifeOfLists.TestCase
