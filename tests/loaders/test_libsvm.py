import pytest
from closeby.loaders import Libsvm, WrongFormatError, open_points


def read(path, **options):
    reader = open_points(path, **options)
    return [point for batch in reader for point in batch.points()], reader.report


CONTENT = (
    b"# written by hand\n"
    b"+1 3:1 7:0.5 9:0\n"
    b"-1 qid:4 1:2e3 # a remark\n"
    b"\n"
    b"1,5 2:1 18446744073709551615:-.5\n"
    b"8:1\n"
)


@pytest.mark.parametrize("name", ["a.libsvm", "a.svmlight", "a.svm", "no-extension"])
def test_features_that_are_not_zero_are_sets(write, name):
    points, report = read(write(name, CONTENT))
    assert points == [
        {"id": 2, "set": [3, 7], "payload": {"label": 1.0}},
        {"id": 3, "set": [1], "payload": {"label": -1.0, "qid": 4}},
        {"id": 5, "set": [2, 2**64 - 1], "payload": {"label": "1,5"}},
        {"id": 6, "set": [8]},
    ]
    assert report.bad == 0


@pytest.mark.parametrize(
    "line",
    [
        b"1",
        b"1 3:0",
        b"1 3",
        b"1 -3:1",
        b"1 +3:1",
        b"1 3:nan",
        b"1 3:inf",
        b"1 3:1_0",
        b"1 3_0:1",
        b"1 18446744073709551616:1",
        b"x 3:1",
        b"1 3:1:1",
        b"1 a:1",
        b"1 3:",
        b"1 :3",
        b"\xff 3:1",
    ],
)
def test_bad_rows(write, line):
    points, report = read(write("a.svm", b"1 1:1\n" + line + b"\n1 2:1\n"))
    assert [point["id"] for point in points] == [1, 3]
    assert [row.line for row in report.samples] == [2]


def test_reading_begins_at_any_line(write):
    assert [point["id"] for point in read(write("a.svm", CONTENT), start_row=3)[0]] == [3, 5, 6]


@pytest.mark.parametrize("content", [b"plain text\n", b'{"text": 1}\n', b">a\nACGT\n", b"\x00\x01"])
def test_files_that_are_not_what_they_say_are_refused_at_once(write, content):
    with pytest.raises(WrongFormatError, match="no libsvm file"):
        open_points(write("a.svm", content))


def test_other_text_is_not_taken_for_it():
    for head in (b"10:30 is the time\n", b"a b:1\n", b"1 2 3\n", b"https://a.b:80/\n", b""):
        assert not Libsvm().recognises(head)


def test_a_first_line_longer_than_the_head(write):
    line = b"1 " + b" ".join(b"%d:1" % i for i in range(40_000)) + b"\n"
    (point,) = read(write("a.svm", line))[0]
    assert point["set"] == list(range(40_000))


def test_with_their_values_lines_are_sparse_vectors(write):
    points, report = read(write("a.svm", CONTENT + b"1 4:0\n"), options={"values": True})
    assert [point["sparse"] for point in points] == [
        {"indices": [3, 7], "values": [1, 0.5]},
        {"indices": [1], "values": [2000]},
        {"indices": [2, 2**64 - 1], "values": [1, -0.5]},
        {"indices": [8], "values": [1]},
    ]
    assert report.bad == 1


def test_defaults_are_for_formats_that_have_them(write):
    path = write("a.svm", CONTENT)
    assert "sparse" in read(path, defaults={"values": True, "array": "x"})[0][0]
    assert "set" in read(path, defaults={"values": True}, options={"values": False})[0][0]
    assert read(write("a.txt", b"one\n"), defaults={"values": True})[0] == [
        {"id": 1, "text": "one"}
    ]
