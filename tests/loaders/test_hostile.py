"""Damaged and hostile files of every format: a typed error or fewer rows, and nothing else."""

import gzip
import io
import lzma
from contextlib import suppress

import h5py
import numpy as np
import orjson
import pyarrow as pa
import pytest
import scipy.sparse
from closeby.loaders import Limits, LoaderError, confinement, open_points
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyarrow import ipc, parquet

RNG = np.random.default_rng(11)
TABLE = pa.table(
    {
        "id": [f"row {i}" for i in range(60)],
        "text": [f"some text {i % 7}" for i in range(60)],
        "n": pa.array([i if i % 5 else None for i in range(60)]),
        "tags": [["x", "y"][: i % 3] for i in range(60)],
    }
)


def as_npy(array) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def as_parquet(**options) -> bytes:
    out = io.BytesIO()
    parquet.write_table(TABLE, out, row_group_size=25, **options)
    return out.getvalue()


def as_arrow(new=ipc.new_file) -> bytes:
    out = io.BytesIO()
    with new(out, TABLE.schema, options=ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(TABLE, max_chunksize=25)
    return out.getvalue()


def as_hdf5(**options) -> bytes:
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        file.create_dataset("train", data=RNG.random((60, 5)), **options)
    return out.getvalue()


def as_sets_in_hdf5() -> bytes:
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        file.create_dataset("train", data=np.arange(120))
        file.create_dataset("size_train", data=np.full(60, 2))
    return out.getvalue()


def as_csr() -> bytes:
    out = io.BytesIO()
    matrix = scipy.sparse.random(60, 30, density=0.2, format="csr", random_state=1)
    scipy.sparse.save_npz(out, matrix)
    return out.getvalue()


def as_npz() -> bytes:
    out = io.BytesIO()
    np.savez(out, vectors=RNG.random((60, 4)), ids=np.arange(60))
    return out.getvalue()


LINES = b"".join(b"a line of text %d\n" % i for i in range(200))
JSONL = b"".join(orjson.dumps({"id": i, "text": f"text {i}"}) + b"\n" for i in range(60))
SIGNATURES = orjson.dumps([{"name": str(i), "signatures": [{"mins": [i, 9]}]} for i in range(60)])
READ_HERE = {
    "a.txt": LINES,
    "a.txt.gz": gzip.compress(LINES, mtime=0),
    "a.txt.xz": lzma.compress(LINES),
    "a.txt.zst": pa.compress(LINES, "zstd", asbytes=True),
    "a.jsonl": JSONL,
    "a.fasta": b"".join(b">name%d words\nACGTACGT\nAC\n" % i for i in range(60)),
    "a.fastq": b"".join(b"@name%d\nACGT\n+\nIIII\n" % i for i in range(60)),
    "a.csv": b"id,text,n\n" + b"".join(b'%d,"a, ""text""",5\n' % i for i in range(60)),
    "a.libsvm": b"".join(b"1 %d:1 9000:0.5 # x\n" % i for i in range(60)),
    "a.sig": SIGNATURES,
    "a.npy": as_npy(RNG.random((60, 4))),
    "a.npz": as_npz(),
    "csr.npz": as_csr(),
    "a.fvecs": b"".join(np.int32(3).tobytes() + np.ones(3, "<f4").tobytes() for _ in range(60)),
}
READ_ELSEWHERE = {
    "a.parquet": as_parquet(),
    "plain.parquet": as_parquet(compression="none", use_dictionary=False),
    "a.arrow": as_arrow(),
    "a.arrows": as_arrow(ipc.new_stream),
    "a.hdf5": as_hdf5(),
    "chunked.hdf5": as_hdf5(chunks=(7, 5), compression="gzip"),
    "sets.hdf5": as_sets_in_hdf5(),
}

damages = st.tuples(
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=6),
    st.one_of(st.just(1.0), st.floats(0, 1)),
)


def damaged(content: bytes, damage) -> bytes:
    """Some bytes changed, and the end cut off."""
    flips, share = damage
    held = bytearray(content)
    for place, bits in flips:
        held[int(place * len(held))] ^= bits
    return bytes(held[: max(1, int(share * len(held)))])


def read(path) -> None:
    """Read what there is; only a LoaderError may come of it."""
    with suppress(LoaderError):
        reader = open_points(path, limits=Limits(total=10_000_000, memory=512 << 20))
        for batch in reader:
            assert len(batch.ids) == len(batch.values) == len(batch.payloads) == len(batch.lines)
            assert all(
                first < later for first, later in zip(batch.lines, batch.lines[1:], strict=False)
            )
        assert reader.report.points <= 200


@pytest.mark.parametrize(("name", "content"), (READ_HERE | READ_ELSEWHERE).items())
def test_sound_files_are_read_to_their_end(write, name, content):
    reader = open_points(write(name, content))
    assert sum(map(len, reader)) in (60, 200)
    assert reader.report.bad == 0
    assert reader.bytes_read == reader.bytes_total


quick = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize("name", READ_HERE)
@quick
@given(damage=damages)
def test_damaged_files_give_errors_and_nothing_else(write, name, damage):
    read(write(name, damaged(READ_HERE[name], damage)))


@pytest.mark.parametrize("name", READ_ELSEWHERE)
@settings(quick, max_examples=3)
@given(damage=damages)
def test_damaged_files_end_no_process_but_their_reader(write, monkeypatch, name, damage):
    monkeypatch.setattr(confinement, "STALL_SECONDS", 60.0)
    read(write(name, damaged(READ_ELSEWHERE[name], damage)))


@pytest.mark.slow
@pytest.mark.parametrize("name", READ_ELSEWHERE)
@settings(quick, max_examples=30)
@given(damage=damages)
def test_many_damaged_files_end_no_process_but_their_reader(write, monkeypatch, name, damage):
    monkeypatch.setattr(confinement, "STALL_SECONDS", 60.0)
    read(write(name, damaged(READ_ELSEWHERE[name], damage)))


def test_a_file_that_needs_too_much_memory_is_refused(write):
    """4,000 equal texts of 1 MiB: 4 GiB from a few KiB of Parquet, in one dictionary."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 4_000), ["x" * (1 << 20)])
    out = io.BytesIO()
    parquet.write_table(pa.table({"text": text}), out)
    path = write("bomb.parquet", out.getvalue())
    assert path.stat().st_size < 1 << 20
    with pytest.raises(LoaderError, match=r"memory|alloc"):
        sum(map(len, open_points(path, limits=Limits(memory=256 << 20))))
