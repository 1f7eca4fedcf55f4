import gzip
import lzma
import sys
import tracemalloc

import pyarrow
import pytest
from closeby.loaders.errors import (
    DamagedFileError,
    FileTooLargeError,
    MissingExtraError,
    WrongFormatError,
)
from closeby.loaders.source import CHUNK_BYTES, Limits, Source


def zstd(content: bytes) -> bytes:
    return pyarrow.compress(content, "zstd", asbytes=True)


TEXT = b"".join(b"line %d of the text\n" % number for number in range(50_000))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", TEXT),
        ("a.txt.gz", gzip.compress(TEXT, mtime=0)),
        ("a.txt.xz", lzma.compress(TEXT)),
        (
            "two-members.txt.gz",
            gzip.compress(TEXT[:1000], mtime=0) + gzip.compress(TEXT[1000:], mtime=0),
        ),
        ("two-streams.txt.xz", lzma.compress(TEXT[:1000]) + lzma.compress(TEXT[1000:])),
        ("padded.txt.gz", gzip.compress(TEXT, mtime=0) + bytes(512)),
        ("padded.txt.xz", lzma.compress(TEXT) + bytes(512)),
        ("a.txt.zst", zstd(TEXT)),
        ("two-frames.txt.zst", zstd(TEXT[:1000]) + zstd(TEXT[1000:])),
        ("compression-not-named.txt", gzip.compress(TEXT, mtime=0)),
    ],
)
def test_every_compression_gives_the_same_bytes(write, name, content):
    source = Source(write(name, content))
    assert source.suffix == "txt"
    assert b"".join(source.chunks()) == TEXT
    assert source.bytes_read == source.bytes_total == len(content)
    assert source.head == TEXT[: len(source.head)]
    assert [line for _, line in source.lines()] == TEXT.splitlines()


@pytest.mark.parametrize("length", [CHUNK_BYTES, 2 * CHUNK_BYTES, 2 * CHUNK_BYTES + 1])
def test_content_of_whole_chunks_is_read_to_its_end(write, length):
    source = Source(write("a.gz", gzip.compress(bytes(length))))
    assert sum(map(len, source.chunks())) == length


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, zstd])
def test_truncated_stream_is_damaged_and_not_short(write, compress):
    path = write("a.bin", compress(TEXT)[:-20])
    with pytest.raises(DamagedFileError, match="truncated"):
        list(Source(path).chunks())


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
def test_flipped_byte_is_damage_with_the_line_reached(write, compress):
    content = bytearray(compress(TEXT))
    content[-30 if compress is gzip.compress else len(content) // 2] ^= 0xFF
    with pytest.raises(DamagedFileError) as raised:
        list(Source(write("a.bin", bytes(content))).chunks())
    assert 1 <= raised.value.line <= 50_001


def test_name_that_promises_another_compression_is_refused(write):
    with pytest.raises(WrongFormatError, match=r"named \.gz"):
        Source(write("a.txt.gz", b"plain text\n"))
    with pytest.raises(WrongFormatError, match=r"named \.zst"):
        Source(write("a.txt.zst", gzip.compress(b"text\n")))
    with pytest.raises(WrongFormatError, match=r"named \.xz"):
        Source(write("a.txt.xz", gzip.compress(b"text\n")))


def test_unread_compression_is_refused_by_name(write):
    with pytest.raises(WrongFormatError, match="bzip2"):
        Source(write("a.txt", b"BZh91AY&SY rest"))


def test_xz_that_asks_for_too_much_memory_is_damaged(write):
    big_dictionary = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
    path = write("a.txt.xz", lzma.compress(b"small", filters=big_dictionary))
    with pytest.raises(DamagedFileError, match=r"[Mm]emory"):
        Source(path)


@pytest.mark.parametrize("compress", [gzip.compress, zstd])
def test_bomb_is_dropped_piece_by_piece(write, compress):
    """64 MiB in one line from 64 KiB of gzip or 2 KiB of zstd: read within a few MiB."""
    path = write(
        "bomb.txt.gz" if compress is gzip.compress else "bomb.txt.zst",
        compress(bytes(64 << 20) + b"\nafter\n"),
    )
    source = Source(path, Limits(record=1 << 20))
    tracemalloc.start()
    lines = list(source.lines())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert lines == [(1, None), (2, b"after")]
    assert peak < 8 << 20


def test_zstd_without_pyarrow_says_what_to_install(write, monkeypatch):
    path = write("a.txt.zst", zstd(TEXT))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'closeby\[files\]'"):
        Source(path)


@pytest.mark.parametrize("start", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 7, len(TEXT)])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_chunks_begin_where_they_are_wanted(write, compress, start):
    source = Source(write("a.txt", compress(TEXT)))
    assert b"".join(source.chunks(start)) == TEXT[start:]
    assert source.bytes_read == source.bytes_total


def test_total_bound_is_kept(write):
    path = write("a.txt.gz", gzip.compress(TEXT))
    assert sum(map(len, Source(path, Limits(total=len(TEXT))).chunks())) == len(TEXT)
    with pytest.raises(FileTooLargeError):
        list(Source(path, Limits(total=len(TEXT) - 1)).chunks())


def test_line_ends_and_byte_order_mark(write):
    source = Source(write("a.txt", b"\xef\xbb\xbfone\r\n\r\ntwo\nthree"))
    assert list(source.lines()) == [(1, b"one"), (2, b""), (3, b"two"), (4, b"three")]


@pytest.mark.parametrize("longest", [CHUNK_BYTES - 1, CHUNK_BYTES, 3 * CHUNK_BYTES + 5])
def test_lines_over_chunk_bounds_are_whole(write, longest):
    content = b"a\n" + b"b" * longest + b"\nc"
    limits = Limits(record=longest)
    assert list(Source(write("a.txt", content), limits).lines()) == [
        (1, b"a"),
        (2, b"b" * longest),
        (3, b"c"),
    ]
    shorter = Limits(record=longest - 1)
    assert list(Source(write("a.txt", content), shorter).lines())[1] == (2, None)


def test_file_without_content(write):
    source = Source(write("a.txt", b""))
    assert (source.head, list(source.chunks()), list(source.lines())) == (b"", [], [])
