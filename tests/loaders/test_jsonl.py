import pytest
from closeby.loaders import BadRowError, Jsonl, open_points


def read(path, **options):
    reader = open_points(path, **options)
    return [point for batch in reader for point in batch.points()], reader.report


def test_rows_of_every_kind(write):
    content = (
        b'{"id": "a", "text": "one", "payload": {"x": 1}}\r\n\n'
        b'{"text": "two", "lang": "en"}\n'
        b'{"id": 7, "text": "three", "lang": "de", "payload": {"x": 1}}'
    )
    points, report = read(write("a.jsonl", content))
    assert points == [
        {"id": "a", "text": "one", "payload": {"x": 1}},
        {"id": 3, "text": "two", "payload": {"lang": "en"}},
        {"id": 7, "text": "three", "payload": {"lang": "de", "x": 1}},
    ]
    assert report.bad == 0


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("text", '"a"', ["1", "null", "[]", '""']),
        ("sequence", '"ACGT"', ["false", '" "']),
        ("set", "[0, 18446744073709551615]", ["[-1]", "[1.5]", "[true]", '[1, "a"]', "{}", "[]"]),
        ("set", '["a", "b"]', ["[null]", '"ab"']),
        (
            "sparse",
            '{"indices": [3, 0], "values": [1, -2.5]}',
            [
                "[1]",
                '{"indices": [1]}',
                '{"indices": [1], "values": [1, 2]}',
                '{"indices": [-1], "values": [1]}',
                '{"indices": [1.5], "values": [1]}',
                '{"indices": [1], "values": ["1"]}',
                '{"indices": [], "values": []}',
            ],
        ),
        ("vector", "[1, 2.5, -3e4]", ["[true]", '["1"]', "[]", "[null]", "1", "[[1]]", "[NaN]"]),
    ],
)
def test_field_is_found_and_its_type_held(write, field, good, bad):
    rows = [f'{{"{field}": {value}}}' for value in [good, *bad, good]]
    reader = open_points(write("a.jsonl", "\n".join(rows).encode()))
    assert [batch.field for batch in reader] == [field]
    assert reader.report.points == 2
    assert [line for line, _ in reader.report.samples] == list(range(2, len(rows)))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"{", "not JSON"),
        (b'"text"', "no object"),
        (b'{"id": 1}', "'text' is not there"),
        (b'{"id": 1.5, "text": "x"}', "'id'"),
        (b'{"id": true, "text": "x"}', "'id'"),
        (b'{"id": "", "text": "x"}', "0 bytes"),
        (b'{"id": -1, "text": "x"}', "-1"),
        (b'{"id": "a", "text": "x"}', "earlier row"),
        (b'{"text": "x", "payload": [1]}', "'payload'"),
        (b'{"text": "\xff"}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_bad_row(write, row, reason):
    content = b'{"id": "a", "text": "x"}\n' + row + b'\n{"id": "b", "text": "x"}\n'
    points, report = read(write("a.jsonl", content))
    assert [point["id"] for point in points] == ["a", "b"]
    assert [line for line, _ in report.samples] == [2]
    assert reason in report.samples[0].reason
    with pytest.raises(BadRowError, match="line 2"):
        read(write("a.jsonl", content), on_error="stop")


def test_text_and_integer_of_one_look_are_two_ids(write):
    points, report = read(write("a.jsonl", b'{"id": "1", "text": "x"}\n{"id": 1, "text": "x"}\n'))
    assert ([point["id"] for point in points], report.bad) == (["1", 1], 0)


def test_field_under_another_name(write):
    path = write("a.jsonl", b'{"id": "n1", "gloss": "a thing", "text": 5}\n')
    points, _ = read(path, format=Jsonl("text", key="gloss"))
    assert points == [{"id": "n1", "text": "a thing", "payload": {"text": 5}}]


def test_file_without_any_field_is_all_bad(write):
    points, report = read(write("a.jsonl", b'{"a": 1}\n{"b": 2}\n'))
    assert (points, report.bad) == ([], 2)
