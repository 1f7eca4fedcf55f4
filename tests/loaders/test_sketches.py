import gzip

import orjson
import pytest
from closeby.loaders import DamagedFileError, Limits, Sourmash, WrongFormatError, open_points


def sketch(hashes, ksize=31, **more):
    return {"num": 0, "ksize": ksize, "seed": 42, "mins": hashes, "md5sum": f"m{ksize}", **more}


def signature(name, *sketches, **more):
    return {"class": "sourmash_signature", "name": name, "signatures": list(sketches), **more}


def read(path, **options):
    reader = open_points(path, **options)
    return [point for batch in reader for point in batch.points()], reader.report


FILE = orjson.dumps(
    [
        signature("one", sketch([1, 2**63]), sketch([5], ksize=21)),
        signature("", sketch([3]), filename="two.fa"),
        signature("three", sketch([])),
        signature("four", sketch([-1]), sketch(None), sketch("x"), 7),
    ]
)


@pytest.mark.parametrize("name", ["a.sig", "a.sig.gz", "no-extension"])
def test_sketches_are_sets(write, name):
    points, report = read(write(name, gzip.compress(FILE) if name.endswith("gz") else FILE))
    payload = {"ksize": 31, "num": 0, "seed": 42, "md5sum": "m31"}
    assert points == [
        {"id": "one", "set": [1, 2**63], "payload": payload},
        {"id": "two.fa", "set": [3], "payload": payload},
    ]
    assert [line for line, _ in report.samples] == [2, 4, 5, 6, 7, 8]


def test_one_size_of_several(write):
    points, _ = read(write("a.sig", FILE), format=Sourmash(ksize=21))
    assert [point["set"] for point in points] == [[5]]


def test_reading_begins_at_any_sketch(write):
    assert [point["id"] for point in read(write("a.sig", FILE), start_row=2)[0]] == ["two.fa"]


@pytest.mark.parametrize("content", [b"{}", b"text", b"[1]", b'[{"signatures": 1}]', b"[]  ["])
def test_files_that_are_not_what_they_say_are_refused_at_once(write, content):
    with pytest.raises((WrongFormatError, DamagedFileError)):
        open_points(write("a.sig", content))


def test_truncated_and_too_long_files_are_refused_at_once(write):
    with pytest.raises(DamagedFileError, match="no JSON"):
        open_points(write("a.sig", FILE[:-20]))
    with pytest.raises(WrongFormatError, match="longer than 50 bytes"):
        open_points(write("a.sig", FILE), limits=Limits(record=50))
