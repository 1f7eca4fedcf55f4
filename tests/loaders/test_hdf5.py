import h5py
import numpy as np
import pytest
from closeby.loaders import DamagedFileError, WrongFormatError, open_points
from closeby.loaders.detect import detect
from closeby.loaders.report import Report
from closeby.loaders.source import Source

RNG = np.random.default_rng(7)
MATRIX = RNG.random((500, 9)).astype(np.float32)
SETS = [sorted(RNG.choice(1000, RNG.integers(1, 40), replace=False).tolist()) for _ in range(300)]


@pytest.fixture
def hdf5(tmp_path):
    """Write datasets to a file and give its path."""

    def write_file(name="a.hdf5", chunks=None, **datasets):
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            for key, values in datasets.items():
                file.create_dataset(key, data=values, chunks=chunks)
        return path

    return write_file


def sparse(sets):
    return {
        "train": np.concatenate(sets).astype(np.int64),
        "size_train": [len(one) for one in sets],
    }


def read(path, start_row=1, **options):
    """Points and report of a file that is read in this process."""
    report = Report(path, start_row=start_row)
    source = Source(path)
    batches = detect(source, options=options).read(source, report, 100)
    return [point for batch in batches for point in batch.points()], report


@pytest.mark.parametrize("name", ["a.hdf5", "a.h5", "no-extension"])
def test_rows_of_train_are_vectors(hdf5, name):
    path = hdf5(name, train=MATRIX, test=MATRIX[:3], neighbors=np.zeros((3, 5), int))
    points = [point for batch in open_points(path) for point in batch.points()]
    assert [point["id"] for point in points] == list(range(500))
    np.testing.assert_array_equal([point["vector"] for point in points], MATRIX)
    assert len(read(path, dataset="test")[0]) == 3


def test_sets_with_their_sizes(hdf5):
    path = hdf5(**sparse([*SETS, [], [7]]))
    points, report = read(path)
    assert [point["set"] for point in points] == [*SETS, [7]]
    assert [line for line, _ in report.samples] == [301]


def test_true_columns_are_sets(hdf5):
    points, _ = read(hdf5(train=MATRIX > 0.5))
    assert points[0] == {"id": 0, "set": np.flatnonzero(MATRIX[0] > 0.5).tolist()}


@pytest.mark.parametrize("start", [2, 250, 300, 301, 9999])
def test_reading_begins_at_any_row(hdf5, start):
    for path in (hdf5("a.h5", train=MATRIX, chunks=(7, 9)), hdf5("b.h5", **sparse(SETS))):
        whole, _ = read(path)
        assert read(path, start)[0] == whole[start - 1 :]


@pytest.mark.parametrize(
    ("datasets", "said"),
    [
        ({"base": MATRIX}, "no dataset 'train'; it has base"),
        ({"train": MATRIX[0]}, "shape"),
        ({"train": [b"text"]}, "not numbers"),
        ({"train": MATRIX, "size_train": [1]}, "one list each"),
        ({"train": [1.0, 2], "size_train": [2]}, "no integers"),
    ],
)
def test_files_of_another_layout_are_refused(hdf5, datasets, said):
    with pytest.raises(WrongFormatError, match=said):
        read(hdf5(**datasets))


def test_what_lies_in_other_files_is_refused(hdf5, tmp_path):
    secret = hdf5("secret.h5", train=MATRIX)
    (tmp_path / "raw").write_bytes(bytes(400))

    def refused(name, fill):
        with h5py.File(tmp_path / name, "w") as file:
            fill(file)
        with pytest.raises(WrongFormatError, match=r"link to elsewhere|lies in other files"):
            read(tmp_path / name)

    def link(file):
        file["train"] = h5py.ExternalLink(str(secret), "train")

    def soft(file):
        file["train"] = h5py.SoftLink("/other")

    def external(file):
        raw = [(str(tmp_path / "raw"), 0, 400)]
        file.create_dataset("train", (10, 10), np.float32, external=raw)

    def virtual(file):
        layout = h5py.VirtualLayout((500, 9), np.float32)
        layout[:] = h5py.VirtualSource(str(secret), "train", (500, 9))
        file.create_virtual_dataset("train", layout)

    for name, fill in {"l": link, "s": soft, "e": external, "v": virtual}.items():
        refused(f"{name}.h5", fill)


def test_sizes_that_lie_are_damage(hdf5):
    for sizes in ([2, 9], [2, -1, 2], [1, 1]):
        with pytest.raises(DamagedFileError):
            read(hdf5(train=[1, 2, 3], size_train=sizes))


def test_truncated_and_mislabelled_files_are_refused_at_once(hdf5, write):
    content = hdf5(train=MATRIX).read_bytes()
    for name, wrong in {"a.h5": content[:3000], "b.h5": b"text", "c.h5": content[:8]}.items():
        with pytest.raises(WrongFormatError):
            open_points(write(name, wrong))
