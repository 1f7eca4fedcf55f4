"""Sealed segments in an S3 emulator and in a local directory."""

from __future__ import annotations

from pathlib import Path

import pytest
from closeby.index.errors import CorruptFileError
from closeby.service.cluster.segment_store import SegmentStore, SegmentStoreError
from closeby.service.durable_files import checksum
from closeby.service.manifest import FileEntry

pytestmark = pytest.mark.cluster

PREFIX = "7/shard-0"


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SegmentStore:
    if request.param == "file":
        return SegmentStore(f"file://{tmp_path}/objects")
    return SegmentStore(request.getfixturevalue("bucket")())


def written(directory: Path, name: str, data: bytes) -> FileEntry:
    directory.mkdir(exist_ok=True)
    (directory / name).write_bytes(data)
    return FileEntry(name, *checksum(directory / name))


def test_a_file_comes_back_as_it_went(store: SegmentStore, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    there.mkdir()
    for size in (0, 1, 100_000, 12 << 20):
        file = written(
            here, f"segment-{size}", bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        )
        assert not store.has(PREFIX, file)
        store.put(PREFIX, here, file)
        assert store.has(PREFIX, file)
        store.fetch(PREFIX, there, file)
        assert (there / file.name).read_bytes() == (here / file.name).read_bytes()
    assert sorted(path.name for path in there.iterdir()) == sorted(p.name for p in here.iterdir())


def test_an_object_is_written_once(store: SegmentStore, tmp_path: Path) -> None:
    first = written(tmp_path / "a", "segment-1", b"one")
    store.put(PREFIX, tmp_path / "a", first)
    store.put(PREFIX, tmp_path / "a", first)
    # The same number by another process, with other contents, is another object.
    second = written(tmp_path / "b", "segment-1", b"two")
    store.put(PREFIX, tmp_path / "b", second)
    (tmp_path / "c").mkdir()
    store.fetch(PREFIX, tmp_path / "c", first)
    assert (tmp_path / "c" / "segment-1").read_bytes() == b"one"
    # An object of that name which is not this file is never taken for it.
    (tmp_path / "a" / "segment-1").write_bytes(b"longer")
    with pytest.raises(SegmentStoreError, match="another size"):
        store.put(PREFIX, tmp_path / "a", FileEntry("segment-1", 6, first.xxh3))


def test_what_is_missing_or_altered_is_told(store: SegmentStore, tmp_path: Path) -> None:
    file = written(tmp_path / "a", "segment-1", b"one" * 1000)
    there = tmp_path / "there"
    there.mkdir()
    with pytest.raises(SegmentStoreError, match="segment-1"):
        store.fetch(PREFIX, there, file)
    (tmp_path / "a" / "segment-1").write_bytes(b"two" * 1000)
    store.put(PREFIX, tmp_path / "a", file)
    with pytest.raises(CorruptFileError, match="not what was stored"):
        store.fetch(PREFIX, there, file)
    assert not list(there.iterdir())


def test_objects_are_removed(store: SegmentStore, tmp_path: Path) -> None:
    files = [written(tmp_path / "a", f"segment-{i}", b"%d" % i) for i in range(4)]
    for file in files:
        store.put(PREFIX, tmp_path / "a", file)
    store.put("8/shard-0", tmp_path / "a", files[0])
    store.delete(PREFIX, files[:1])
    store.delete(PREFIX, files[:1])
    assert [store.has(PREFIX, file) for file in files] == [False, True, True, True]
    store.delete_all(PREFIX)
    assert not any(store.has(PREFIX, file) for file in files)
    assert store.has("8/shard-0", files[0])


@pytest.mark.parametrize("url", ["nonsense", "s4://x", "s3://"])
def test_an_impossible_place_is_refused(url: str) -> None:
    with pytest.raises(SegmentStoreError, match=url):
        SegmentStore(url)
