"""Sealed files: what is found again, and that damage is an error and never an answer."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closeby.index.errors import CorruptFileError, UnsupportedVersionError
from closeby.service import sealing as sealing_module
from closeby.service.app import create_app
from closeby.service.early_checks import EarlyChecks
from closeby.service.errors import StoreUnavailableError, TooManyRequestsError
from closeby.service.manifest import FileEntry, Manifest, SegmentEntry
from closeby.service.points_file import Names, PointsFile, key_hashes
from closeby.service.sealed_files import SealedFiles, read_marks
from closeby.service.settings import Settings
from closeby.service.shard import PointBatch, Sealing, Search, Shard
from closeby.service.store import CollectionRecord, Durability, Store

GOLDEN = Path(__file__).parent / "golden" / "v1"
CONFIG: dict[str, Any] = {
    "metric": "jaccard",
    "features": {"kind": "ids"},
    "index": "flinng",
    "target_recall": 0.95,
    "threshold": 0.5,
    "seed": 0,
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open_directory(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def record(store: Store) -> CollectionRecord:
    return store.create_collection("a", CONFIG)


def load(store: Store, record: CollectionRecord, tmp_path: Path, **options: Any) -> Shard:
    shard = Shard(store, record, sealing=Sealing(tmp_path / "1", 16, **options))
    shard.load()
    return shard


def fill(shard: Shard, start: int, stop: int) -> None:
    ids = list(range(start, stop))
    shard.upsert(PointBatch(ids, [[i, i + 1, 2**40 + i] for i in ids]))


def seal(shard: Shard) -> None:
    while shard.seal() or shard.merge():
        pass


def check(shard: Shard, present: list[int], absent: list[int]) -> None:
    found, missing = shard.get([*present, *absent])
    assert [point.id for point in found] == present
    assert missing == absent
    for i in present:
        hits = shard.search([[i, i + 1, 2**40 + i]], Search(limit=1)).hits[0]
        assert [(hit.id, hit.score) for hit in hits] == [(i, 1.0)]
    assert len(shard) == len(present)


@pytest.fixture
def sealed(store: Store, record: CollectionRecord, tmp_path: Path) -> Shard:
    shard = load(store, record, tmp_path)
    fill(shard, 0, 40)
    shard.delete([3, 39])
    seal(shard)
    shard.delete([4])
    fill(shard, 40, 58)
    shard.seal()
    return shard


def test_sealed_points_are_found_again_without_their_log(
    sealed: Shard, store: Store, record: CollectionRecord, tmp_path: Path
) -> None:
    shard = load(store, record, tmp_path)
    # 48 of 58 points fill three segments; what is replayed lies behind them.
    assert shard.progress.total < 15
    present = [i for i in range(58) if i not in (3, 4, 39)]
    check(shard, present, [3, 4, 39])


def test_files_that_no_manifest_lists_are_removed(
    sealed: Shard, store: Store, record: CollectionRecord, tmp_path: Path
) -> None:
    for name in ("segment-00000099", "points-00000099.partial", "MANIFEST.partial"):
        (tmp_path / "1" / name).write_bytes(b"left over")
    load(store, record, tmp_path)
    manifest = Manifest.read(tmp_path / "1")
    assert manifest is not None
    listed = {file.name for file in manifest.files()} | {"MANIFEST"}
    assert {path.name for path in (tmp_path / "1").iterdir()} == listed


def test_every_altered_byte_of_the_manifest_is_noticed(sealed: Shard, tmp_path: Path) -> None:
    path = tmp_path / "1" / "MANIFEST"
    content = path.read_bytes()
    assert Manifest.parse(str(path), content) == Manifest.read(tmp_path / "1")
    altered = [
        content[:at] + bytes([content[at] ^ flip]) + content[at + 1 :]
        for at in range(len(content))
        for flip in (1, 0x20, 0x80)
    ]
    for damaged in (*altered, *(content[:size] for size in range(len(content))), content + b" "):
        with pytest.raises(CorruptFileError, match="MANIFEST"):
            Manifest.parse(str(path), damaged)


def test_damaged_files_are_named_and_never_searched(
    sealed: Shard, store: Store, record: CollectionRecord, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    manifest = Manifest.read(tmp_path / "1")
    assert manifest is not None
    for entry in manifest.files():
        path = tmp_path / "1" / entry.name
        content = path.read_bytes()
        places = [0, 9, 17, len(content) - 1, *rng.integers(0, len(content), 12).tolist()]
        for at in places:
            path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
            shard = Shard(store, record, sealing=Sealing(tmp_path / "1", 16))
            with pytest.raises(CorruptFileError, match=entry.name):
                shard.load()
            assert not shard.ready
            assert entry.name in (shard.fault or "")
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(CorruptFileError, match=entry.name):
            load(store, record, tmp_path)
        path.unlink()
        with pytest.raises(CorruptFileError, match="missing"):
            load(store, record, tmp_path)
        path.write_bytes(content)
    # What the message says to do brings everything back.
    shutil.rmtree(tmp_path / "1")
    shard = load(store, record, tmp_path)
    check(shard, [i for i in range(58) if i not in (3, 4, 39)], [3, 4, 39])


def test_what_was_compared_early_is_what_is_whole(
    sealed: Shard, store: Store, record: CollectionRecord, tmp_path: Path
) -> None:
    folder = tmp_path / "1"
    files = sealed_manifest(folder).files()
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "MANIFEST").write_bytes(b"damaged, which is no matter for other folders")
    assert set(compared_early(tmp_path).passed(folder)) == set(files)
    assert not compared_early(tmp_path).passed(tmp_path / "0")
    assert not compared_early(tmp_path / "nothing here").passed(folder)

    damaged = folder / files[1].name
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 4]))
    early = compared_early(tmp_path)
    assert set(early.passed(folder)) == {*files} - {files[1]}
    shard = Shard(store, record, sealing=Sealing(folder, 16, checked=early.passed))
    with pytest.raises(CorruptFileError, match=damaged.name):
        shard.load()
    damaged.write_bytes(content)
    load(store, record, tmp_path, checked=compared_early(tmp_path).passed)


def sealed_manifest(folder: Path) -> Manifest:
    manifest = Manifest.read(folder)
    assert manifest is not None
    return manifest


def compared_early(shards: Path) -> EarlyChecks:
    """Checks that were not cut short."""
    early = EarlyChecks(shards)
    deadline = time.monotonic() + 10
    while any(thread.name == "closeby-early" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return early


def test_a_newer_manifest_is_refused_by_name(sealed: Shard, tmp_path: Path) -> None:
    path = tmp_path / "1" / "MANIFEST"
    path.write_bytes(path.read_bytes().replace(b"manifest 1", b"manifest 2", 1))
    with pytest.raises(UnsupportedVersionError, match="upgrade closeby"):
        Manifest.read(tmp_path / "1")


def test_a_folder_of_another_collection_is_refused(
    sealed: Shard, store: Store, tmp_path: Path
) -> None:
    other = store.create_collection("other", CONFIG)
    with pytest.raises(CorruptFileError, match="collection number"):
        load(store, other, tmp_path)


def test_files_of_version_1_are_read_for_ever(tmp_path: Path) -> None:
    """Written once, with the first version; never again."""
    manifest = Manifest.read(GOLDEN)
    assert manifest == Manifest(
        7,
        3,
        123,
        {"seed": 0},
        (
            SegmentEntry(
                1,
                4,
                FileEntry("segment-00000001", 5, "00000000000000ff"),
                FileEntry("points-00000002", 6, "0123456789abcdef"),
            ),
        ),
        None,
    )
    points = PointsFile.open(GOLDEN / "points-00000002")
    assert points.seqs.tolist() == [4, 8, 100]
    keys = ["5", '"5"', '"ü"']
    assert [points.key(row) for row in range(3)] == keys
    assert [points.has_payload(row) for row in range(3)] == [True, False, True]
    hashes = key_hashes(keys)
    assert points.find(hashes, keys) == {"5": 4, '"5"': 8, '"ü"': 100}
    marks = read_marks(GOLDEN / "marks-00000003")
    assert {name: dead.tolist()[:3] for name, dead in marks.items()} == {
        "points-00000002": [False, True, True]
    }


def test_writing_golden_files_gives_the_same_bytes(tmp_path: Path) -> None:
    names = Names.of(np.array([4, 8, 100]), ["5", '"5"', '"ü"'], [True, False, True])
    PointsFile.write(tmp_path / "points", names.seqs, [names])
    assert (tmp_path / "points").read_bytes() == (GOLDEN / "points-00000002").read_bytes()
    dead = {"points-00000002": np.array([False, True, True])}
    files = SealedFiles(tmp_path / "shard", 7)
    files.publish([], dead, 123, {"seed": 0})
    assert files.manifest.marks is not None
    written = tmp_path / "shard" / files.manifest.marks.name
    assert written.read_bytes() == (GOLDEN / "marks-00000003").read_bytes()


def test_what_is_not_waited_for_is_visible_soon(
    store: Store, record: CollectionRecord, tmp_path: Path
) -> None:
    shard = load(store, record, tmp_path)
    shard.upsert(PointBatch([1], [[1, 2]]), Durability.INDEXED)
    assert shard.search([[1, 2]], Search()).hits[0][0].id == 1
    shard.upsert(PointBatch([2], [[5, 6]]), Durability.NONE)
    assert shard.delete([1], Durability.NONE) == 1
    deadline = time.monotonic() + 10
    while len(shard) != 1 or not shard.search([[5, 6]], Search()).hits[0]:
        assert time.monotonic() < deadline
    assert shard.search([[1, 2]], Search()).hits[0] == []


def test_what_was_not_synced_is_synced_within_a_second(store: Store, record: Any) -> None:
    from closeby.service.store import Entry, Op

    store.append(record.id, [Entry("1", Op.DELETE)], durable=False).result()
    assert store._group_commit.unsynced
    deadline = time.monotonic() + 10
    while store._group_commit.unsynced:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_writers_wait_while_segments_are_sealed(
    store: Store, record: CollectionRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing_module, "ROOM_SECONDS", 0.05)
    announced: list[int] = []
    shard = load(store, record, tmp_path, on_frozen=lambda: announced.append(1))
    fill(shard, 0, 32)
    assert announced
    with pytest.raises(TooManyRequestsError) as refused:
        fill(shard, 32, 33)
    assert refused.value.retry_after
    shard.seal()
    fill(shard, 32, 33)
    check(shard, [*range(33)], [33])


def test_writes_go_on_for_a_while_where_nothing_can_be_sealed(
    store: Store, record: CollectionRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing_module, "MAX_FROZEN_IN_NEED", 4)
    shard = load(store, record, tmp_path, on_frozen=lambda: None)
    fill(shard, 0, 32)
    folder = tmp_path / "1"
    folder.rename(tmp_path / "away")
    with pytest.raises(OSError, match="No such file"):
        shard.seal()
    fill(shard, 32, 64)
    with pytest.raises(StoreUnavailableError, match="cannot be sealed"):
        fill(shard, 64, 65)
    check(shard, [*range(64)], [64])
    (tmp_path / "away").rename(folder)
    seal(shard)
    fill(shard, 64, 65)
    check(load(store, record, tmp_path), [*range(65)], [])


def test_a_writer_that_waits_goes_on_as_soon_as_sealing_fails(
    store: Store, record: CollectionRecord, tmp_path: Path
) -> None:
    shard = load(store, record, tmp_path, on_frozen=lambda: None)
    fill(shard, 0, 32)
    (tmp_path / "1").rename(tmp_path / "away")
    writer = threading.Thread(target=fill, args=(shard, 32, 33))
    writer.start()
    writer.join(0.1)
    assert writer.is_alive()
    with pytest.raises(OSError, match="No such file"):
        shard.seal()
    writer.join(sealing_module.ROOM_SECONDS / 2)
    assert not writer.is_alive()
    check(shard, [*range(33)], [33])


def test_a_deleted_collection_leaves_no_files_also_after_a_crash(tmp_path: Path) -> None:
    testclient = pytest.importorskip("starlette.testclient")
    settings = Settings(data_dir=tmp_path, segment_points=16)
    with testclient.TestClient(create_app(settings)) as http:
        http.put("/v1/collections/a", json={"features": {"kind": "ids"}})
        sets = [[i, i + 1] for i in range(40)]
        body = {"ids": list(range(40)), "sets": sets, "durability": "indexed"}
        assert http.post("/v1/collections/a/points:upsert", json=body).status_code == 200
        assert http.delete("/v1/collections/a").status_code == 204
        assert [*(tmp_path / "shards").iterdir()] == []
    (tmp_path / "shards" / "99").mkdir()
    with testclient.TestClient(create_app(settings)):
        assert [*(tmp_path / "shards").iterdir()] == []


@pytest.mark.parametrize("wrong", ["FSYNC", "sync", 1, None])
def test_durability_is_one_of_three_words(tmp_path: Path, wrong: Any) -> None:
    testclient = pytest.importorskip("starlette.testclient")
    with testclient.TestClient(create_app(Settings(data_dir=tmp_path))) as http:
        http.put("/v1/collections/a", json={"features": {"kind": "ids"}})
        for action, body in (
            ("upsert", {"ids": [1], "sets": [[1]]}),
            ("upsert", {"points": [{"id": 1, "set": [1]}]}),
            ("delete", {"ids": [1]}),
        ):
            path = f"/v1/collections/a/points:{action}"
            answer = http.post(path, json=body | {"durability": wrong})
            assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "durability")
            for word in ("fsync", "indexed", "none"):
                assert http.post(path, json=body | {"durability": word}).status_code == 200


def test_a_seal_in_progress_leaves_no_folder_of_a_collection_that_is_gone(
    store: Store, record: CollectionRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = load(store, record, tmp_path)
    fill(shard, 0, 17)
    write = PointsFile.write

    def late(*args: Any) -> PointsFile:
        # Whoever removes the folder does so before this file is there.
        shutil.rmtree(tmp_path / "1")
        (tmp_path / "1").mkdir()
        shard.close()
        return write(*args)

    monkeypatch.setattr(PointsFile, "write", late)
    with pytest.raises((StoreUnavailableError, OSError)):
        shard.seal()
    assert not (tmp_path / "1").exists()
