import datetime
import decimal
import io

import numpy as np
import pyarrow as pa
import pytest
from closeby.loaders import (
    Arrow,
    BadRowError,
    DamagedFileError,
    FormatOptionError,
    MissingExtraError,
    Parquet,
    WrongFormatError,
    confinement,
    open_points,
)
from closeby.loaders.detect import detect
from closeby.loaders.report import Report
from closeby.loaders.source import Source
from pyarrow import feather, ipc, parquet


def as_parquet(table: pa.Table, rows: int = 3, **options) -> bytes:
    out = io.BytesIO()
    parquet.write_table(table, out, row_group_size=rows, **options)
    return out.getvalue()


def as_arrow(table: pa.Table, rows: int = 3) -> bytes:
    out = io.BytesIO()
    with ipc.new_file(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return out.getvalue()


def as_stream(table: pa.Table, rows: int = 3) -> bytes:
    out = io.BytesIO()
    with ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return out.getvalue()


def as_feather(table: pa.Table, rows: int = 3) -> bytes:
    out = io.BytesIO()
    feather.write_feather(table, out, compression="zstd", chunksize=rows)
    return out.getvalue()


EVERY = [
    pytest.param("a.parquet", as_parquet, id="parquet"),
    pytest.param("a.arrow", as_arrow, id="arrow"),
    pytest.param("a.arrows", as_stream, id="stream"),
    pytest.param("a.feather", as_feather, id="feather"),
]
TEXTS = pa.table(
    {
        "id": ["a", "b", "c", "b", "e", None, "", "h"],
        "text": ["one", "two", None, "again", " ", "six", "seven", "eight"],
        "n": pa.array([1, 2, 3, 4, 5, 6, 7, None], pa.int32()),
    }
)


def read(path, *, start_row=1, size=1000, on_error="skip", **options):
    """Points and report of a file that is read in this process."""
    report = Report(path, on_error, start_row)
    source = Source(path)
    batches = detect(source, options=options).read(source, report, size)
    return [point for batch in batches for point in batch.points()], report


@pytest.mark.parametrize(("name", "write_table"), EVERY)
def test_texts_with_ids_and_payload(write, name, write_table):
    path = write(name, write_table(TEXTS))
    points, report = read(path)
    assert points == [
        {"id": "a", "text": "one", "payload": {"n": 1}},
        {"id": "b", "text": "two", "payload": {"n": 2}},
        {"id": "h", "text": "eight"},
    ]
    assert [line for line, _ in report.samples] == [3, 4, 5, 6, 7]
    assert [why.split()[-1] for _, why in report.samples] == [
        "string",
        "row",
        "empty",
        "one",
        "allowed",
    ]
    with pytest.raises(BadRowError, match="line 3: its 'text' is no string"):
        read(path, on_error="stop")


@pytest.mark.parametrize(("name", "write_table"), EVERY)
def test_a_second_reader_goes_on_where_the_first_one_ended(write, name, write_table):
    table = pa.table({"id": [i % 40 for i in range(50)], "text": [f"text {i}" for i in range(50)]})
    for chosen in (table, table.drop_columns(["id"])):
        path = write(name, write_table(chosen, 7))
        whole, report = read(path)
        bad = {row.line for row in report.samples}
        lines = [line for line in range(1, 51) if line not in bad]
        for start in (1, 2, 8, 20, 50, 51, 1000):
            rest, later = read(path, start_row=start)
            before = [point for point, line in zip(whole, lines, strict=True) if line < start]
            assert before + rest == whole
            assert sum(row.line < start for row in report.samples) + later.bad == report.bad
    first = open_points(path, batch_size=8)
    second = open_points(path, start_row=(next(first), first.next_row)[1])
    assert [line for batch in second for line in batch.lines] == list(range(9, 51))


@pytest.mark.parametrize(
    ("column", "options", "field", "expected"),
    [
        (pa.array(["ACGT", "GGA"]), {"field": "sequence"}, "sequence", ["ACGT", "GGA"]),
        (pa.array(["x", "y"]).dictionary_encode(), {}, "text", ["x", "y"]),
        (pa.array(["x", "y"], pa.large_string()), {}, "text", ["x", "y"]),
        (pa.array([[3, 1], [2**63]], pa.list_(pa.uint64())), {}, "set", [[3, 1], [2**63]]),
        (pa.array([["a"], ["b", "c"]]), {}, "set", [["a"], ["b", "c"]]),
        (pa.array([[0.5, 1], [2, 3]], pa.list_(pa.float32(), 2)), {}, "vector", [[0.5, 1], [2, 3]]),
        (pa.array([[1, 2], [3, 4]]), {"field": "vector"}, "vector", [[1.0, 2.0], [3.0, 4.0]]),
        (pa.array([[0.25], [1]], pa.large_list(pa.float16())), {}, "vector", [[0.25], [1.0]]),
    ],
)
@pytest.mark.parametrize("write_table", [as_parquet, as_arrow])
def test_every_type_that_can_be_a_value(write, write_table, column, options, field, expected):
    path = write("a.bin", write_table(pa.table({"key": ["k", "l"], "what": column})))
    options = {"column": "what", "id": "key", **options}
    points, _ = read(path, **options)
    assert points == [{"id": "k", field: expected[0]}, {"id": "l", field: expected[1]}]


@pytest.mark.parametrize("write_table", [as_parquet, as_arrow])
def test_bad_lists_are_bad_rows(write, write_table):
    sets = pa.array([[1], [], None, [-1], [2, None], [5]])
    vectors = pa.array([[1.0], [], None, [np.nan], [2, None], [np.inf]])
    points, report = read(write("a.bin", write_table(pa.table({"set": sets}))))
    assert [point["id"] for point in points] == [0, 5]
    assert [line for line, _ in report.samples] == [2, 3, 4, 5]
    points, report = read(write("b.bin", write_table(pa.table({"vector": vectors}))))
    assert [point["id"] for point in points] == [0]
    assert report.bad == 5


def test_payloads_are_what_json_holds(write):
    moment = datetime.datetime(2024, 5, 1, 12, 30, tzinfo=datetime.UTC)
    table = pa.table(
        {
            "text": ["a"],
            "flag": [True],
            "tags": [["x", "y"]],
            "where": [{"lat": 1.5}],
            "when": pa.array([moment], pa.timestamp("us", "UTC")),
            "day": [datetime.date(2024, 5, 1)],
            "price": [decimal.Decimal("1.50")],
            "raw": [b"\xff"],
            "nothing": pa.array([None], pa.int8()),
        }
    )
    path = write("a.parquet", as_parquet(table))
    ((point,), _) = read(path)
    assert point["payload"].pop("when").startswith("2024-05-01 12:30:00")
    assert point["payload"] == {
        "flag": True,
        "tags": ["x", "y"],
        "where": {"lat": 1.5},
        "day": "2024-05-01",
        "price": "1.50",
    }
    ((point,), _) = read(path, payload=["flag"])
    assert point["payload"] == {"flag": True}
    with pytest.raises(WrongFormatError, match="'raw' of binary is no payload"):
        read(path, payload=["raw"])


def test_strings_that_are_not_utf8_are_bad_rows(write):
    raw = pa.array([b"good", b"b\xff\xfed", b"fine"])
    texts = pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2])
    for name, table in {
        "value": pa.table({"text": texts}),
        "payload": pa.table({"text": ["a", "b", "c"], "other": texts}),
        "id": pa.table({"text": ["a", "b", "c"], "id": texts}),
    }.items():
        points, report = read(write(f"{name}.parquet", as_parquet(table)))
        assert (len(points), [line for line, _ in report.samples]) == (2, [2])


@pytest.mark.parametrize(
    ("table", "options", "said"),
    [
        (pa.table({"n": [1]}), {}, "has no column text, sequence, set, vector; it has n"),
        (pa.table({"text": ["x"]}), {"column": "body"}, "has no column body"),
        (pa.table({"text": [1]}), {}, "'text' of int64 is no text"),
        (pa.table({"vector": ["x"]}), {}, "'vector' of string is no vector"),
        (pa.table({"text": ["x"], "id": [1.5]}), {}, "its ids are double"),
        (pa.table({"text": ["x"]}), {"id": "key"}, "has no column key"),
        (pa.table({"text": ["x"]}), {"payload": ["lang"]}, "has no column lang"),
    ],
)
def test_tables_of_no_use_are_refused_at_once(write, table, options, said):
    for name, content in (("a.parquet", as_parquet(table)), ("a.arrow", as_arrow(table))):
        with pytest.raises(WrongFormatError, match=said):
            read(write(name, content), **options)


def test_what_the_reader_refuses_is_refused_at_once(write):
    with pytest.raises(WrongFormatError, match="has no column text"):
        open_points(write("a.parquet", as_parquet(pa.table({"n": [1]}))))


@pytest.mark.parametrize(
    "options", [{"colunm": "x"}, {"column": 1}, {"field": "txt"}, {"payload": "x"}]
)
def test_options_that_do_not_exist_are_refused(write, options):
    with pytest.raises(FormatOptionError, match="parquet"):
        open_points(write("a.parquet", as_parquet(TEXTS)), options=options)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.parquet", b"PAR1 is how it begins"),
        ("a.parquet", as_arrow(TEXTS)),
        ("a.parquet", as_parquet(TEXTS)[:-10]),
        ("a.parquet", b"text\n"),
        ("a.arrow", as_parquet(TEXTS)),
        ("a.arrow", as_arrow(TEXTS)[:300]),
        ("a.arrow", b"ARROW1\0\0"),
        ("a.arrow", b"\xff\xff\xff\xff\xff\xff\xff\x7f"),
        ("a.feather", b"FEA1" + bytes(100)),
    ],
)
def test_files_that_are_not_what_they_say_are_refused_at_once(write, name, content):
    with pytest.raises(WrongFormatError):
        open_points(write(name, content))


def test_compressed_files_are_refused(write):
    content = pa.compress(as_parquet(TEXTS), "gzip", asbytes=True)
    with pytest.raises(WrongFormatError, match="decompress it first"):
        open_points(write("a.parquet.gz", content))


def test_a_missing_package_is_named(write, monkeypatch):
    monkeypatch.setattr(confinement, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"needs pyarrow: pip install 'closeby\[files\]'"):
        open_points(write("a.parquet", as_parquet(TEXTS)))


def test_a_stream_that_breaks_off_is_damaged_after_its_sound_rows(write):
    table = pa.table({"text": ["some text " * 50] * 40})
    reader = open_points(write("a.arrows", as_stream(table, 10)[:-6000]))
    assert len(next(reader)) in (10, 20, 30)
    with pytest.raises(DamagedFileError):
        list(reader)


def test_what_becomes_of_the_reader_is_damage(write, monkeypatch):
    path = write("a.parquet", as_parquet(pa.table({"text": ["some text"] * 50_000})))
    for limit, said in ((confinement.STALL_SECONDS, "SIGKILL"), (0.0, "stood still")):
        reader = open_points(path)
        next(reader)
        monkeypatch.setattr(confinement, "STALL_SECONDS", limit)
        process = reader._batches._process
        if said == "SIGKILL":
            process.kill()
        with pytest.raises(DamagedFileError, match=said):
            list(reader)
        assert process.poll() is not None


def test_a_reader_that_is_not_wanted_any_more_ends(write):
    path = write("a.parquet", as_parquet(pa.table({"text": ["x"] * 50_000})))
    reader = open_points(path)
    process = reader._batches._process
    del reader
    assert process.poll() is not None
    reader = open_points(path)
    next(reader)
    reader.close()
    assert reader._batches._process.poll() is not None
    assert list(reader) == []


def test_content_tells_the_format(write):
    assert isinstance(open_points(write("parquet", as_parquet(TEXTS))).format, Parquet)
    assert isinstance(open_points(write("arrow", as_arrow(TEXTS))).format, Arrow)
