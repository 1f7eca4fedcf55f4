"""Damaged, cut, foreign and hostile files: refused by name, or harmless; never a wrong answer."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from closeby.index import (
    CorruptFileError,
    FlatIndex,
    FlinngIndex,
    UnsupportedVersionError,
    as_set_batch,
    calibration,
    segment,
    tuning,
)
from closeby.index.files import ALIGNMENT, read_arrays, write_arrays

SETS = as_set_batch([[i, i + 1, i + 2, 2 * i + 40] for i in range(24)])
VECTORS = np.random.default_rng(1).standard_normal((24, 8)).astype(np.float32)


def flat() -> FlatIndex:
    index = FlatIndex()
    index.add(SETS)
    return index


def flinng(metric: Any = "jaccard") -> FlinngIndex:
    """A sealed segment, a mutable one, and removed points."""
    index = FlinngIndex(metric, 5, tables=8, sketch_bits=128, capacity=16)
    index.add(SETS.slice(0, 22) if metric == "jaccard" else VECTORS[:22])
    index.remove([3, 21])
    return index


MAKERS: dict[str, Callable[[], Any]] = {
    "flat": flat,
    "flinng": flinng,
    "flinng-cosine": lambda: flinng("cosine"),
}


@pytest.fixture(params=MAKERS)
def made(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: Any) -> tuple[Any, Path]:
    """An index and the file that it was saved to."""
    if request.param == "flinng":
        monkeypatch.setattr(tuning, "SCAN_BELOW", 8)  # so that small segments have bitmaps
        for module in (calibration, segment):  # small arrays: each byte of the file is tried
            monkeypatch.setattr(module, "SAMPLE", 4)
    index = MAKERS[request.param]()
    path = tmp_path / "index.closeby"
    index.save(path)
    return index, path


def answers(index: Any) -> list[np.ndarray]:
    queries = SETS if index.metric == "jaccard" else VECTORS
    return [*index.search(queries, 5), np.array(len(index))]


def assert_same(ours: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_file_gives_the_same_answers(made: tuple[Any, Path]) -> None:
    index, path = made
    loaded = type(index).load(path)
    assert_same(answers(loaded), answers(index))
    again = path.with_name("again")
    loaded.save(again)
    assert_same(answers(type(index).load(again)), answers(index))


def test_every_flipped_byte_is_detected_or_harmless(made: tuple[Any, Path]) -> None:
    """Both engines load through read_arrays, which is quick enough to be asked for every byte."""
    index, path = made
    good = path.read_bytes()
    header, arrays = read_arrays(path, index.kind)
    expected = {name: array.tobytes() for name, array in arrays.items()}
    del arrays
    harmless, named = 0, []
    for at in range(len(good)):
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([good[at] ^ 1 << at % 8]))
        try:
            if at % 97 == 0:
                type(index).load(path)
            got, arrays = read_arrays(path, index.kind)
        except CorruptFileError as error:
            named.append(error.path)
        else:
            assert got == header
            assert {name: array.tobytes() for name, array in arrays.items()} == expected
            harmless += 1
        with path.open("r+b") as file:
            file.seek(at)
            file.write(good[at : at + 1])
    assert harmless <= ALIGNMENT * (len(expected) + 1), "only padding may change unnoticed"
    assert set(named) == {str(path)}


def test_every_cut_is_detected_or_harmless(made: tuple[Any, Path]) -> None:
    index, path = made
    expected = answers(index)
    size = path.stat().st_size
    offsets = []
    for length in reversed(range(size)):
        os.truncate(path, length)
        try:
            if length % 97 == 0:
                type(index).load(path)
            read_arrays(path, index.kind)
        except CorruptFileError as error:
            offsets.append(error.offset)
        else:
            assert size - length < ALIGNMENT, "only padding may be missing"
            assert_same(answers(type(index).load(path)), expected)
    assert len(offsets) >= size - ALIGNMENT
    assert all(0 <= offset <= size for offset in offsets)


def test_bytes_behind_the_end_are_harmless(made: tuple[Any, Path]) -> None:
    index, path = made
    path.write_bytes(path.read_bytes() + b"more")
    assert_same(answers(type(index).load(path)), answers(index))


def test_a_newer_version_is_named(made: tuple[Any, Path]) -> None:
    index, path = made
    data = bytearray(path.read_bytes())
    data[8:12] = struct.pack("<I", 2)
    path.write_bytes(data)
    with pytest.raises(UnsupportedVersionError, match=r"version 2.*upgrade"):
        type(index).load(path)


def test_another_kind_is_named(made: tuple[Any, Path]) -> None:
    index, path = made
    other = FlinngIndex if index.kind == "flat" else FlatIndex
    with pytest.raises(CorruptFileError, match=f"kind '{index.kind}', not '{other.kind}'"):
        other.load(path)


@pytest.mark.parametrize("cls", [FlatIndex, FlinngIndex])
@pytest.mark.parametrize(
    "content", [b"", b"x", b"PK\3\4" * 99, b"closeby", b"closeby\n", b"\0" * 999]
)
def test_other_files_are_refused(cls: Any, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(CorruptFileError):
        cls.load(path)


@pytest.mark.parametrize("cls", [FlatIndex, FlinngIndex])
def test_missing_files_and_directories_are_errors_of_the_system(cls: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        cls.load(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        cls.load(tmp_path)


def test_a_file_is_replaced_whole(made: tuple[Any, Path]) -> None:
    """Saving over a file that is mapped changes neither the mapped index nor leaves a part file."""
    index, path = made
    loaded = type(index).load(path)
    before = answers(loaded)
    smaller = type(index)(index.metric)
    smaller.save(path)
    assert_same(answers(loaded), before)
    assert len(type(index).load(path)) == 0
    assert [p.name for p in path.parent.iterdir()] == [path.name]


# --- arrays --------------------------------------------------------------------------------------


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    arrays = {
        "bytes": np.arange(7, dtype=np.uint8),
        "empty": np.zeros((0, 5), np.float32),
        "matrix": np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2],
        "cube": np.arange(24, dtype=np.uint16).reshape(2, 3, 4),
        "long": np.array([2**64 - 1], np.uint64),
        "flags": np.array([True, False]),
    }
    path = tmp_path / "file"
    write_arrays(path, {"index": "test", "free": {"a": [1, "ä"]}}, arrays)
    header, got = read_arrays(path, "test")
    assert header["free"] == {"a": [1, "ä"]}
    assert got.keys() == arrays.keys()
    for name, array in arrays.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array)
        assert not got[name].flags.writeable
        assert got[name].ctypes.data % ALIGNMENT == 0 or not array.size


def test_without_verification_only_the_header_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_arrays(path, {"index": "test"}, {"a": np.ones(100, np.uint8)})
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptFileError, match="array 'a' is damaged"):
        read_arrays(path, "test")
    read_arrays(path, "test", verify=False)


# --- headers with a right checksum that describe nonsense ----------------------------------------


def rewrite(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the header of a file and give it the right checksum."""
    data = path.read_bytes()
    length = struct.unpack_from("<I", data, 12)[0]
    header = json.loads(data[24 : 24 + length])
    header = change(header) or header
    text = json.dumps(header).encode()
    start = -(-(24 + length) // 64) * 64
    body = data[start:]
    prefix = struct.pack("<8sIIQ", b"closeby\n", 1, len(text), xxhash.xxh3_64_intdigest(text))
    path.write_bytes(prefix + text + b"\0" * (-(24 + len(text)) % 64) + body)


def change_ids(**changed: Any) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        name = "ids" if "ids" in header["arrays"] else "0.ids"
        header["arrays"][name] |= changed

    return change


HOSTILE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no object": lambda h: [1, 2],
    "no arrays": lambda h: h.pop("arrays") and None,
    "arrays is a list": lambda h: h.update(arrays=[]),
    "array is a number": lambda h: h["arrays"].update(ids=5),
    "all arrays missing": lambda h: h.update(arrays={}),
    "ids missing": lambda h: [h["arrays"].pop(n) for n in list(h["arrays"]) if "ids" in n] and None,
    "sketches or features missing": lambda h: h["arrays"].pop(sorted(h["arrays"])[-1]) and None,
    "no metric": lambda h: h.pop("metric") and None,
    "other metric": lambda h: h.update(metric="manhattan"),
    "metric of other features": lambda h: h.update(
        metric="cosine" if h["metric"] == "jaccard" else "jaccard"
    ),
    "negative offset": change_ids(offset=-64),
    "far offset": change_ids(offset=2**62),
    "offset is text": change_ids(offset="0"),
    "offset between": change_ids(offset=0.5),
    "negative shape": change_ids(shape=[-1]),
    "two negative shapes": change_ids(shape=[-2, -4]),
    "huge shape": change_ids(shape=[2**62]),
    "shape that wraps around": change_ids(shape=[2**32, 2**32]),
    "shape is a number": change_ids(shape=8),
    "shape is text": change_ids(shape=["8"]),
    "object type": change_ids(dtype="|O"),
    "no type": change_ids(dtype=None),
    "list as type": change_ids(dtype=["<i8"]),
    "no checksum": lambda h: [a.pop("xxh3") for a in h["arrays"].values()] and None,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_header_that_describes_nonsense_is_refused(made: tuple[Any, Path], name: str) -> None:
    index, path = made
    rewrite(path, HOSTILE[name])
    with pytest.raises(CorruptFileError):
        type(index).load(path)


FLINNG_HOSTILE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no tables": lambda h: h.update(tables=0),
    "other tables": lambda h: h.update(tables=16),
    "tables is text": lambda h: h.update(tables="8"),
    "other sketch bits": lambda h: h.update(sketch_bits=512),
    "K of 0": lambda h: h.update(K=0),
    "no seed": lambda h: h.pop("seed") and None,
    "seed is text": lambda h: h.update(seed="x"),
    "capacity of 0": lambda h: h.update(capacity=0),
    "unknown scheme": lambda h: h.update(scheme="third"),
    "segments is a number": lambda h: h.update(segments=3),
    "too many segments": lambda h: h.update(segments=[*h["segments"], h["segments"][0]]),
    "group size 0": lambda h: [s.update(group_size=0) for s in h["segments"]] and None,
    "group size -1": lambda h: [s.update(group_size=-1) for s in h["segments"]] and None,
    "group size of 2^32": lambda h: [s.update(group_size=2**32) for s in h["segments"]] and None,
    "group size too small": lambda h: [s.update(group_size=1, n=1) for s in h["segments"]] and None,
    "no next id": lambda h: h.pop("next_id") and None,
    "next id is text": lambda h: h.update(next_id="seven"),
}


@pytest.mark.parametrize("name", FLINNG_HOSTILE)
def test_a_flinng_header_that_describes_nonsense_is_refused_or_harmless(
    name: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(tuning, "SCAN_BELOW", 8)
    path = tmp_path / "index"
    flinng().save(path)
    rewrite(path, FLINNG_HOSTILE[name])
    try:
        loaded = FlinngIndex.load(path)
    except CorruptFileError:
        return
    assert name in ("group size too small",)
    answers(loaded)  # maybe other hits, but no crash


@pytest.mark.parametrize("kind", ["flat", "flinng"])
@pytest.mark.parametrize("wrong", [2**40, -(2**40), -1])
@pytest.mark.parametrize("at", [0, 3, -1])
def test_offsets_that_point_elsewhere_are_refused(
    kind: str, wrong: int, at: int, tmp_path: Path
) -> None:
    """The checksum is right, the offsets of the elements are not: nothing may be read there."""
    path = tmp_path / "index"
    MAKERS[kind]().save(path)
    header, arrays = read_arrays(path, kind)
    name = "indptr" if kind == "flat" else "0.indptr"
    changed = np.array(arrays[name])
    changed[at] = wrong
    del header["arrays"]
    write_arrays(path, header, arrays | {name: changed})
    cls = FlatIndex if kind == "flat" else FlinngIndex
    with pytest.raises(CorruptFileError):
        cls.load(path)
