import gzip

import pytest
from closeby.index.errors import ClosebyError
from closeby.loaders import (
    BadRowError,
    Fasta,
    Jsonl,
    Lines,
    UnknownFormatError,
    WrongFormatError,
    open_points,
    points,
)
from closeby.loaders.detect import FORMATS
from closeby.loaders.report import SAMPLED_ROWS

FASTA = b">a\nACGT\n"
FASTQ = b"@a\nACGT\n+\nIIII\n"
JSONL = b'{"text": "x"}\n'


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.fna", FASTA, Fasta),
        ("a.FASTA", FASTA, Fasta),
        ("a.fastq.gz", gzip.compress(FASTQ, mtime=0), Fasta),
        ("a.jsonl", JSONL, Jsonl),
        ("a.txt", b"text\n", Lines),
        ("a.txt", FASTA, Lines),
        ("genes", FASTA, Fasta),
        ("reads", FASTQ, Fasta),
        ("a.export", JSONL, Jsonl),
        ("empty.fasta", b"", Fasta),
    ],
)
def test_format_by_name_and_content(write, name, content, kind):
    assert isinstance(open_points(write(name, content)).format, kind)


@pytest.mark.parametrize("kind", FORMATS)
def test_empty_file_has_no_points(write, kind):
    reader = open_points(write(f"a.{kind.extensions[0]}", b""))
    assert (list(reader), reader.report.rows) == ([], 0)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.fasta", JSONL),
        ("a.fasta", b"<!doctype html>\n"),
        ("a.fasta", b"@a\nACGT\n@b\nACGT\n"),
        ("a.fa", b">\x00\x01"),
        ("a.jsonl", FASTA),
        ("a.jsonl", b"[1, 2]\n"),
        ("a.jsonl", b'{\n  "pretty": "printed"\n}\n'),
        ("a.txt", b"PAR1\x15\x00\x15"),
        ("a.txt", "utf-16".encode("utf-16")),
    ],
)
def test_file_that_is_not_what_it_says_is_refused_at_once(write, name, content):
    with pytest.raises(WrongFormatError, match=r"a\.\w+: is no \w+ file"):
        open_points(write(name, content))


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"\x7fELF\x02", b"PK\x03\x04" + bytes(60), b""])
def test_unclear_file_is_refused_with_what_to_do(write, content):
    with pytest.raises(UnknownFormatError, match=r"name one.*\.fasta") as raised:
        open_points(write("a.dat", content))
    assert isinstance(raised.value, ClosebyError)


def test_format_named_by_the_caller(write):
    path = write("a.dat", b"text\n")
    assert isinstance(open_points(path, format="lines").format, Lines)
    with pytest.raises(UnknownFormatError, match="lines"):
        open_points(path, format="avro")
    with pytest.raises(WrongFormatError):
        open_points(path, format="fasta")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_points(tmp_path / "none.txt")
    with pytest.raises(IsADirectoryError):
        open_points(tmp_path)


def test_batches_are_bounded_in_points_and_in_weight(write, monkeypatch):
    path = write("a.txt", b"0123456789\n" * 25)
    assert [len(batch) for batch in open_points(path, batch_size=10)] == [10, 10, 5]
    monkeypatch.setattr(points, "BATCH_WEIGHT", 40)
    assert [len(batch) for batch in open_points(path, batch_size=10)] == [4] * 6 + [1]


def test_report_counts_all_and_samples_the_first(write):
    reader = open_points(write("a.jsonl", JSONL + b"[]\n" * 100))
    assert sum(map(len, reader)) == 1
    assert (reader.report.bad, len(reader.report.samples)) == (100, SAMPLED_ROWS)
    assert reader.bytes_read == reader.bytes_total > 0


def test_stop_names_file_and_line(write):
    reader = open_points(write("a.jsonl", JSONL + b"oops\n"), on_error="stop")
    with pytest.raises(BadRowError, match=r"a\.jsonl: line 2: is not JSON") as raised:
        list(reader)
    assert raised.value.line == 2


@pytest.mark.parametrize("wrong", [{"on_error": "ignore"}, {"batch_size": 0}])
def test_options_are_held(write, wrong):
    with pytest.raises(ValueError, match=r"it (can|must) be"):
        open_points(write("a.txt", b"x"), **wrong)
