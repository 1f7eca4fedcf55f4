import gzip
import io
import struct

import numpy as np
import pytest
from closeby.loaders import DamagedFileError, WrongFormatError, open_points


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def vecs(array) -> bytes:
    return b"".join(struct.pack("<i", len(row)) + row.tobytes() for row in array)


def read(path):
    reader = open_points(path)
    ids, rows = [], []
    for batch in reader:
        assert batch.field == "vector"
        ids += batch.ids
        rows += batch.values
    return ids, np.array(rows), reader.report


@pytest.mark.parametrize(
    ("name", "dtype", "encode"),
    [
        ("a.npy", "<f4", npy),
        ("a.npy", ">f8", npy),
        ("a.npy", "u1", npy),
        ("no-extension", "<f2", npy),
        ("a.fvecs", "<f4", vecs),
        ("a.bvecs", "u1", vecs),
        ("a.ivecs", "<i4", vecs),
    ],
)
@pytest.mark.parametrize("shape", [(3, 2), (5000, 37)])
def test_rows_are_the_array(write, name, dtype, encode, shape):
    array = (np.random.default_rng(0).random(shape) * 200).astype(dtype)
    ids, rows, _ = read(write(name, encode(array)))
    assert ids == list(range(len(array)))
    np.testing.assert_array_equal(rows, array.astype(float))
    zipped = write(name + ".gz" if "." in name else "b", gzip.compress(encode(array)))
    np.testing.assert_array_equal(read(zipped)[1], rows)


def test_rows_that_are_not_finite_are_reported(write):
    array = np.ones((4, 3), np.float32)
    array[1, 0], array[3, 2] = np.nan, np.inf
    ids, _, report = read(write("a.npy", npy(array)))
    assert ids == [0, 2]
    assert [row.line for row in report.samples] == [2, 4]


@pytest.mark.parametrize(("name", "encode"), [("a.npy", npy), ("a.fvecs", vecs)])
def test_a_truncated_file_is_damaged_after_its_sound_rows(write, name, encode):
    content = encode(np.ones((10, 4), np.float32))
    reader = open_points(write(name, content[:-5]))
    assert len(next(reader)) == 9
    with pytest.raises(DamagedFileError, match="truncated"):
        next(reader)


def test_bytes_behind_an_array_are_damage(write):
    with pytest.raises(DamagedFileError, match="more bytes"):
        read(write("a.npy", npy(np.ones((2, 2))) + b"x"))


def test_vectors_of_two_dimensions_are_damage(write):
    content = vecs(np.ones((3, 2), np.float32)) + vecs(np.ones((1, 3), np.float32)) + bytes(8)
    with pytest.raises(DamagedFileError, match="dimension 2"):
        read(write("a.fvecs", content))


def header(text: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (npy(np.array([[{}]])), "holds object"),
        (npy(np.array([["a"]])), "not numbers"),
        (npy(np.ones(3)), "shape"),
        (npy(np.asfortranarray(np.ones((3, 2)))), "column by column"),
        (b"text,but no array\n", "does not begin"),
        (header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 2)}"), "shape"),
        (header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (9, 99999999999)}"), "shape"),
        (header(b"__import__('os').abort()"), "damaged"),
        (header(b"(" * 5000), "damaged"),
        (header(b"[1]"), "damaged"),
    ],
)
def test_hostile_and_mislabelled_arrays_are_refused_at_once(write, content, said):
    with pytest.raises(WrongFormatError, match=said):
        open_points(write("a.npy", content))


@pytest.mark.parametrize("content", [b"ab", struct.pack("<i", -1), struct.pack("<i", 1 << 30)])
def test_hostile_vecs_are_refused_at_once(write, content):
    with pytest.raises(WrongFormatError):
        open_points(write("a.fvecs", content))
