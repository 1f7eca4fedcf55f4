import io
import zipfile

import numpy as np
import pytest
import scipy.sparse
from closeby.loaders import (
    DamagedFileError,
    FileTooLargeError,
    Limits,
    Npz,
    WrongFormatError,
    open_points,
)

RNG = np.random.default_rng(5)
MATRIX = RNG.random((3000, 7)).astype(np.float32)
SPARSE = scipy.sparse.random(2000, 50, density=0.05, format="csr", random_state=5)


def npz(*, compressed=False, **arrays) -> bytes:
    out = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(out, **arrays)
    return out.getvalue()


def csr(matrix, *, compressed=True) -> bytes:
    out = io.BytesIO()
    scipy.sparse.save_npz(out, matrix, compressed=compressed)
    return out.getvalue()


def read(path, **options):
    reader = open_points(path, **options)
    return [point for batch in reader for point in batch.points()], reader.report


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", ["a.npz", "no-extension"])
def test_rows_of_a_matrix_are_vectors(write, name, compressed):
    points, _ = read(write(name, npz(compressed=compressed, vectors=MATRIX, other=np.eye(3))))
    assert [point["id"] for point in points] == list(range(3000))
    np.testing.assert_array_equal([point["vector"] for point in points], MATRIX)


def test_ids_of_numbers_and_of_strings(write):
    for ids in (np.array([5, 7, 5], np.uint16), np.array(["a", "b", "a"])):
        points, report = read(write("a.npz", npz(x=np.eye(3), ids=ids)))
        assert [point["id"] for point in points] == ids[:2].tolist()
        assert [line for line, _ in report.samples] == [3]


def test_a_matrix_is_named_where_there_are_several(write):
    path = write("a.npz", npz(a=np.eye(2), b=np.eye(3)))
    with pytest.raises(WrongFormatError, match="2 matrices of numbers; name one"):
        open_points(path)
    assert len(read(path, format=Npz("b"))[0]) == 3


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", [scipy.sparse.csr_matrix, scipy.sparse.csr_array])
def test_rows_of_a_sparse_matrix_are_sets_of_columns(write, compressed, kind):
    matrix = kind(SPARSE)
    matrix.data[:5] = 0  # stored zeros are no elements
    points, report = read(write("a.npz", csr(matrix, compressed=compressed)))
    expected = {i: set(np.flatnonzero(row)) for i, row in enumerate(matrix.toarray()) if row.any()}
    assert {point["id"]: set(point["set"]) for point in points} == expected
    assert report.bad == 2000 - len(expected) > 0


def test_rows_with_their_values_are_sparse_vectors(write):
    matrix = SPARSE.copy()
    matrix.data[:5] = 0
    matrix.data[10] = np.inf
    points, report = read(write("a.npz", csr(matrix)), options={"values": True})
    assert len(points) + report.bad == 2000
    for point in points:
        row = np.zeros(50)
        row[point["sparse"]["indices"]] = point["sparse"]["values"]
        np.testing.assert_array_equal(row, matrix[point["id"]].toarray()[0])
    assert sum("not finite" in row.reason for row in report.samples) == 1
    with pytest.raises(WrongFormatError, match="has no values"):
        open_points(
            write("b.npz", npz(indptr=[0, 1], hashes=np.arange(1))), options={"values": True}
        )


def test_sketches_are_sets_of_their_hashes(write):
    hashes = RNG.integers(0, 2**64 - 1, 100, np.uint64, endpoint=True)
    content = npz(indptr=np.arange(0, 101, 10), hashes=hashes, ids=np.arange(10, 20))
    points, _ = read(write("a.npz", content))
    assert [point["id"] for point in points] == list(range(10, 20))
    assert [h for point in points for h in point["set"]] == hashes.tolist()


@pytest.mark.parametrize("compressed", [False, True])
def test_a_second_reader_goes_on_where_the_first_one_ended(write, compressed):
    for content in (
        csr(SPARSE, compressed=compressed),
        npz(compressed=compressed, x=MATRIX),
        npz(compressed=compressed, x=MATRIX, ids=np.arange(3000) % 1700),
    ):
        path = write("a.npz", content)
        whole, report = read(path)
        reader = open_points(path, batch_size=1200)
        given = list(next(reader).points())
        rest, later = read(path, start_row=reader.next_row)
        assert given + rest == whole
        assert reader.report.bad + later.bad == report.bad
        assert read(path, start_row=10**6)[0] == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (npz(x=np.ones(3)), "0 matrices"),
        (npz(x=np.array([{}], object)), "0 matrices"),
        (npz(x=np.asfortranarray(np.ones((3, 2)))), "0 matrices"),
        (npz(indptr=[0, 1]), "has no array 'indices'"),
        (npz(indptr=[1, 2], indices=[1, 2]), "does not begin with 0"),
        (npz(indptr=[0.0, 2], indices=[1, 2]), "'indptr' is float64"),
        (npz(indptr=[0, 2], indices=[1, 2], data=[1]), "1 values for 2 indices"),
        (npz(x=np.eye(3), ids=[1, 2]), "2 ids for 3 rows"),
        (npz(x=np.eye(3), ids=np.array([{}] * 3, object)), "not numbers"),
        (csr(SPARSE.tocsc()), "csc.*save it as CSR"),
        (csr(SPARSE)[:500], "not a zip file"),
        (b"PK\x03\x04" + bytes(100), "not a zip file"),
        (b"text", "no zip file"),
    ],
)
def test_archives_of_no_use_are_refused_at_once(write, content, said):
    with pytest.raises(WrongFormatError, match=said):
        open_points(write("a.npz", content))


@pytest.mark.parametrize(
    ("indptr", "line"), [([0, 2, 1, 4], 2), ([0, 2, 3, 9], 3), ([0, 2, 3, 3], 4)]
)
def test_offsets_that_fall_or_lie_are_damage_after_the_sound_rows(write, indptr, line):
    reader = open_points(write("a.npz", npz(indptr=indptr, indices=[1, 2, 3, 4])))
    assert len(next(reader)) == min(line - 1, 2)
    with pytest.raises(DamagedFileError) as raised:
        next(reader)
    assert raised.value.line == line


def test_flipped_bytes_are_damage(write):
    content = bytearray(npz(x=MATRIX))
    content[len(content) // 2] ^= 0xFF
    with pytest.raises(DamagedFileError, match="CRC"):
        read(write("a.npz", bytes(content)))


def test_an_archive_may_be_no_larger_than_the_limit(write):
    path = write("a.npz", npz(compressed=True, x=np.zeros((100_000, 10))))
    assert path.stat().st_size < 20_000
    with pytest.raises(FileTooLargeError):
        open_points(path, limits=Limits(total=1_000_000))


def test_members_that_need_much_memory_to_decompress_are_refused(write):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x.npy", npz(x=np.eye(3)))
    with pytest.raises(WrongFormatError, match="something else than deflate"):
        open_points(write("a.npz", out.getvalue()))
