import pytest
from closeby.loaders import Delimited, Limits, WrongFormatError, open_points


def read(path, **options):
    reader = open_points(path, **options)
    return [point for batch in reader for point in batch.points()], reader.report


def test_csv_with_quotes_ids_and_payload(write):
    text = b'\xef\xbb\xbfid,text,year\r\na,"one, ""two""\r\nthree",1999\r\nb,plain,2000\r\n'
    points, report = read(write("a.csv", text))
    assert points == [
        {"id": "a", "text": 'one, "two"\nthree', "payload": {"year": "1999"}},
        {"id": "b", "text": "plain", "payload": {"year": "2000"}},
    ]
    assert report.bad == 0


def test_tsv_knows_no_quotes_and_counts_lines_for_ids(write):
    points, _ = read(write("a.tsv.txt.tsv", b'sequence\tn\nAC"GT\t1\n\nTTTT\t2\n'))
    assert [(point["id"], point["sequence"]) for point in points] == [(2, 'AC"GT'), (4, "TTTT")]


def test_the_column_can_be_named_or_be_the_only_one(write):
    path = write("a.csv", b"n,gloss\n1,entity\n")
    assert read(path, format=Delimited("gloss"))[0][0]["text"] == "entity"
    assert read(write("b.csv", b"smiles\nCCO\n"))[0] == [{"id": 2, "text": "CCO"}]


def test_bad_rows_are_reported_with_their_lines(write):
    rows = b'id,text\na,ok\nb\nc,x,y\nd, \n\xff,e\na,again\nf,"x"y"\n"g,open\nnever closed\n'
    points, report = read(write("a.csv", rows))
    assert [point["id"] for point in points] == ["a"]
    assert [(row.line, row.reason.split(":")[0]) for row in report.samples] == [
        (3, "has 1 fields, and the header 2"),
        (4, "has 3 fields, and the header 2"),
        (5, "its 'text' is empty"),
        (6, "is not UTF-8"),
        (7, "its id 'a' is that of an earlier row"),
        (8, "has quotes that make no sense"),
        (10, "has 1 fields, and the header 2"),
    ]


def test_a_quote_that_is_never_closed_is_one_bad_row(write):
    points, report = read(write("a.csv", b'text\nok\n"open\nand on\n'))
    assert len(points) == 1
    assert report.samples == [(3, "has a quote that is never closed")]


def test_an_open_quote_takes_no_more_than_a_record_may(write):
    rows = b'text\n"open\n' + b"line\n" * 100 + b"last\n"
    points, report = read(write("a.csv", rows), limits=Limits(record=50))
    assert report.samples[0].line == 2
    assert points[-1]["text"] == "last"


@pytest.mark.parametrize("head", [b"\0\1\2", b"a,b\n1,2\n", b"PAR1\0"])
def test_mislabelled_files_are_refused_at_once(write, head):
    with pytest.raises(WrongFormatError):
        open_points(write("a.csv", head))


def test_an_empty_file_has_no_points(write):
    assert read(write("a.csv", b""))[0] == []
