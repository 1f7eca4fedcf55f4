import gzip

import pytest
from closeby.loaders import BadRowError, DamagedFileError, Fasta, Limits, fasta, open_points


def read(path, **options):
    reader = open_points(path, **options)
    points = [point for batch in reader for point in batch.points()]
    assert reader.report.points == len(points)
    return points, reader.report


def bad_lines(report):
    return [line for line, _ in report.samples]


def test_names_descriptions_and_sequences_over_lines(write):
    points, report = read(write("a.fasta", b"\n>a first gene\nACGT\nacgt\n\nNN\r\n>b\r\nAC\r\n"))
    assert points == [
        {"id": "a", "sequence": "ACGTacgtNN", "payload": {"description": "first gene"}},
        {"id": "b", "sequence": "AC"},
    ]
    assert report.bad == 0


def test_later_record_of_a_name_is_reported(write):
    points, report = read(write("a.fa", b">a\nAC\n>b\nAC\n>a\nGG\n"))
    assert [(point["id"], point["sequence"]) for point in points] == [("a", "AC"), ("b", "AC")]
    assert bad_lines(report) == [5]
    assert "earlier row" in report.samples[0].reason


def test_positions_as_ids_keep_both_records_of_a_name(write):
    points, report = read(write("a.fa", b">a x\nAC\n>\nAC\n>a\nGG\n"), format=Fasta(ids="position"))
    assert [(point["id"], point["payload"]) for point in points] == [
        (0, {"name": "a", "description": "x"}),
        (2, {"name": "a"}),
    ]
    assert bad_lines(report) == [3]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b">bad\n", "is empty"),
        (b">bad\n\n\n", "is empty"),
        (b">\nACGT\n", "no name"),
        (b">bad\nAC<html>\n", "'<' in its sequence"),
        (b">bad\nAC GT\n", "' ' in its sequence"),
        (b">bad\nAC\xffGT\n", "in its sequence"),
        (b">b\xffd\nACGT\n", "not UTF-8"),
        (b">" + b"n" * 513 + b"\nACGT\n", "513 bytes"),
    ],
)
@pytest.mark.parametrize("last", [False, True])
def test_bad_record_is_reported_and_the_others_read(write, record, reason, last):
    content = b">a\nAC\nGT\n" + record + (b"" if last else b">c\nAA\n")
    points, report = read(write("a.fasta", content))
    assert [point["id"] for point in points] == (["a"] if last else ["a", "c"])
    assert bad_lines(report) == [4]
    assert reason in report.samples[0].reason
    with pytest.raises(BadRowError, match="line 4"):
        read(write("a.fasta", content), on_error="stop")


def test_protein_letters_stops_and_gaps_are_sequence(write):
    points, report = read(write("a.faa", b">p\nMKV-LX*\n"))
    assert (points[0]["sequence"], report.bad) == ("MKV-LX*", 0)


@pytest.mark.parametrize("lines", [1, 20])
def test_record_over_the_limit_is_one_bad_row(write, lines):
    long = b">long\n" + b"\n".join([b"A" * (2000 // lines)] * lines) + b"\n"
    path = write("a.fasta", b">a\nAC\n" + long + b">c\nGT\n" + long.replace(b"long", b"d"))
    points, report = read(path, limits=Limits(record=1000))
    assert [point["id"] for point in points] == ["a", "c"]
    assert bad_lines(report) == [3, 3 + lines + 1 + 2]


def test_fastq_quality_lines_may_begin_with_at(write):
    content = b"@r1 x\nACGT\n+\n@@@@\n\n@r2\nAC\n+r2\n@>\n"
    points, report = read(write("a.fq", content))
    assert [(point["id"], point["sequence"]) for point in points] == [("r1", "ACGT"), ("r2", "AC")]
    assert report.bad == 0


def test_fastq_goes_on_after_a_bad_record(write):
    content = b"@r1\nACGT\n+\nII\n@r2\nAC\n+\nII\nACAC\nrubbish\n@r3\nGT\n+\nII\n@r4\nGT\n"
    points, report = read(write("a.fastq", content))
    assert [point["id"] for point in points] == ["r2", "r3"]
    assert sorted(bad_lines(report)) == [1, 9, 15]
    with pytest.raises(BadRowError, match="line 1:"):
        read(write("a.fastq", content), on_error="stop")


def test_records_are_the_same_however_they_fall_into_blocks(write, monkeypatch):
    records = [b">r%d\n%s\n" % (number, b"ACGT" * (number % 50 + 1)) for number in range(500)]
    records[77] = b">empty\n"
    path = write("a.fasta", b"".join(records))
    whole = read(path)
    monkeypatch.setattr(fasta, "BLOCK_BYTES", 300)
    assert read(path) == whole
    assert (len(whole[0]), whole[1].bad) == (499, 1)


def test_truncated_gzip_gives_what_was_sound_and_then_an_error(write):
    content = b"".join(b">r%d\n%s\n" % (number, b"ACGT" * 15) for number in range(60_000))
    reader = open_points(write("a.fasta.gz", gzip.compress(content)[:-10]))
    read_before = []

    def read_on():
        for batch in reader:
            read_before.extend(batch.ids)

    with pytest.raises(DamagedFileError):
        read_on()
    assert read_before == [f"r{number}" for number in range(len(read_before))]
    assert 50_000 < len(read_before) <= 60_000
