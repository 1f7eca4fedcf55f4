from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from closeby.index import SetBatch, SparseBatch, as_set_batch
from closeby.index.hashed import HashedBatch
from closeby.service.encoding import decode_features, decode_rows, encode_rows
from closeby.service.errors import StoreUnavailableError, ValidationError
from hypothesis import given
from hypothesis import strategies as st

sets = st.lists(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=8), max_size=8)


@given(sets)
def test_sets_survive(rows: list[list[int]]) -> None:
    batch = as_set_batch(rows)
    found = decode_rows(encode_rows(batch))
    assert isinstance(found, SetBatch)
    assert [found.row(i).tolist() for i in range(len(found))] == [sorted({*r}) for r in rows]


def test_rows_of_both_widths_can_be_read_together() -> None:
    small, large = as_set_batch([[1, 2]]), as_set_batch([[3, 2**63]])
    rows = encode_rows(small) + encode_rows(large)
    assert len(rows[0]) < len(rows[1])
    found = decode_rows(rows)
    assert isinstance(found, SetBatch)
    assert [found.row(i).tolist() for i in range(2)] == [[1, 2], [3, 2**63]]


def test_vectors_survive_bit_for_bit() -> None:
    vectors = np.random.default_rng(1).normal(size=(5, 7)).astype(np.float32)
    found = decode_rows(encode_rows(vectors))
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float32
    assert found.tobytes() == vectors.tobytes()


def test_the_bytes_are_fixed() -> None:
    assert encode_rows(as_set_batch([[1, 2]]))[0].hex() == (
        "010100000200000050542d890100000002000000"
    )


def test_every_flipped_bit_is_noticed() -> None:
    row = encode_rows(as_set_batch([[7, 2**40]]))[0]
    ignored = {2, 3}  # the two zero bytes of the header mean nothing yet
    for at in range(len(row)):
        for bit in range(8):
            flipped = bytearray(row)
            flipped[at] ^= 1 << bit
            if at in ignored:
                continue
            with pytest.raises(StoreUnavailableError, match="damaged"):
                decode_rows([bytes(flipped)])
    for length in range(len(row)):
        with pytest.raises(StoreUnavailableError, match="damaged"):
            decode_rows([row[:length]])


@pytest.mark.parametrize("key_type", [np.uint16, np.uint32])
def test_hashes_survive_bit_for_bit_and_every_flipped_bit_is_noticed(key_type: Any) -> None:
    rng = np.random.default_rng(2)
    batch = HashedBatch(
        rng.integers(0, 1 << 16, (3, 5)).astype(key_type),
        rng.integers(0, 256, (3, 16), np.uint8),
        rng.integers(0, 1 << 32, (3, 2), np.uint32),
    )
    rows = encode_rows(batch)
    assert [len(row) for row in rows] == [12 + 5 * np.dtype(key_type).itemsize + 16 + 8] * 3
    found = decode_rows(rows)
    assert isinstance(found, HashedBatch)
    for name in ("keys", "sketches", "order"):
        before, after = getattr(batch, name), getattr(found, name)
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(before, after)
    for at in range(len(rows[0])):
        for bit in range(8):
            flipped = bytearray(rows[0])
            flipped[at] ^= 1 << bit
            with pytest.raises(StoreUnavailableError, match="damaged"):
                decode_rows([bytes(flipped)])
    with pytest.raises(StoreUnavailableError, match="hashes and others"):
        decode_rows([*rows, *encode_rows(as_set_batch([[1]]))])
    with pytest.raises(ValidationError, match="keeps no features"):
        decode_features(rows)


def test_the_bytes_of_hashes_are_fixed() -> None:
    batch = HashedBatch(
        np.array([[1, 0xABCD]], np.uint16),
        np.full((1, 16), 7, np.uint8),
        np.array([[5, 6]], np.uint32),
    )
    (row,) = encode_rows(batch)
    assert row.hex() == (
        "0105100002000000" + "e7b64f32" + "0100cdab" + "07" * 16 + "0500000006000000"
    )


def test_vectors_of_two_dimensions_are_not_mixed() -> None:
    rows = encode_rows(np.ones((1, 2), np.float32)) + encode_rows(np.ones((1, 3), np.float32))
    with pytest.raises(StoreUnavailableError, match="dimensions"):
        decode_rows(rows)


def test_sparse_vectors_survive_bit_for_bit() -> None:
    batch = SparseBatch(
        np.array([0, 2, 2, 3]),
        np.array([3, 2**32 - 1, 9], np.uint64),
        np.array([0.1, -1e-40, 3e38], np.float32),
    )
    rows = encode_rows(batch)
    assert [len(row) for row in rows] == [12 + 16, 12, 12 + 8]
    assert rows[2].hex() == "0104000001000000" + rows[2][8:12].hex() + "09000000" + "e6b1617f"
    found = decode_rows(rows)
    assert isinstance(found, SparseBatch)
    assert found.indptr.tolist() == batch.indptr.tolist()
    assert found.indices.tolist() == batch.indices.tolist()
    assert found.values.tobytes() == batch.values.tobytes()
    with pytest.raises(StoreUnavailableError, match="sparse vectors and others"):
        decode_rows([*rows, *encode_rows(as_set_batch([[1]]))])
