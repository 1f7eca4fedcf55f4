from closeby.loaders import Limits, Lines, after_scheme, open_points


def read(path, **options):
    reader = open_points(path, **options)
    return [point for batch in reader for point in batch.points()], reader.report


def test_ids_are_line_numbers_and_blank_lines_are_left_out(write):
    points, report = read(write("a.txt", b"first\r\n\r\n  \nfourth\n"))
    assert points == [{"id": 1, "text": "first"}, {"id": 4, "text": "fourth"}]
    assert (report.points, report.bad, report.rows) == (2, 0, 2)


def test_urls_lose_their_scheme_and_keep_it_in_the_payload(write):
    points, _ = read(write("a.txt", b"https://a.gov/b\nwww.c.gov\n"), format=Lines(urls=True))
    assert points == [
        {"id": 1, "text": "a.gov/b", "payload": {"url": "https://a.gov/b"}},
        {"id": 2, "text": "www.c.gov", "payload": {"url": "www.c.gov"}},
    ]


def test_only_a_scheme_at_the_beginning_goes():
    assert after_scheme("git+ssh://host/x") == "host/x"
    assert after_scheme("a.gov/go?to=http://b.gov") == "a.gov/go?to=http://b.gov"


def test_not_utf8_and_too_long_are_bad_rows(write):
    content = b"good\nb\xff\xfed\n" + b"x" * 100 + b"\nalso good\n"
    points, report = read(write("a.txt", content), limits=Limits(record=50))
    assert [point["id"] for point in points] == [1, 4]
    assert [line for line, _ in report.samples] == [2, 3]
    assert "not UTF-8" in report.samples[0].reason
    assert "longer than 50 bytes" in report.samples[1].reason
