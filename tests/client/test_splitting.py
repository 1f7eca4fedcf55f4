"""Cutting calls into requests: nothing lost, nothing reordered, bounds kept."""

import json
from itertools import pairwise
from typing import Any

import pytest
from closeby.client import Batching
from closeby.client.inputs import Row, point_rows, query_rows
from closeby.client.splitting import latest_by_id, query_body, split, upsert_body
from hypothesis import given
from hypothesis import strategies as st

rows_of_sizes = st.lists(st.integers(0, 60), max_size=60).map(
    lambda sizes: [Row(at, at, b"1", b"x" * size, b"null") for at, size in enumerate(sizes)]
)


@given(rows=rows_of_sizes, most_rows=st.integers(1, 10), most_bytes=st.integers(64, 400))
def test_split_keeps_rows_order_and_bounds(
    rows: list[Row], most_rows: int, most_bytes: int
) -> None:
    parts = list(split(iter(rows), most_rows, most_bytes))
    assert [row for part in parts for row in part] == rows
    for part in parts:
        assert 1 <= len(part) <= most_rows
        assert len(part) == 1 or len(upsert_body("texts", part)) <= most_bytes
    for part, following in pairwise(parts):  # greedy: the next row would not have fitted
        size = 64 + sum(row.size for row in part)
        assert len(part) == most_rows or size + following[0].size > most_bytes


def test_split_reads_no_further_than_it_must() -> None:
    read: list[int] = []

    def endless() -> Any:
        at = 0
        while True:
            read.append(at)
            yield Row(at, at, b"1", b'"x"', b"null")
            at += 1

    parts = split(endless(), 10, 10_000)
    next(parts)
    next(parts)
    assert len(read) == 21


def test_of_rows_with_one_id_the_last_is_sent() -> None:
    rows = [
        Row(at, one, b"", str(at).encode(), b"") for at, one in enumerate(["a", 1, "a", 1, "b"])
    ]
    assert {one: row.position for one, row in latest_by_id(rows).items()} == {"a": 2, 1: 3, "b": 4}


json_scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text()
json_scalars |= st.floats(allow_nan=False, allow_infinity=False)
payloads = st.none() | st.dictionaries(
    st.text(), st.recursive(json_scalars, lambda inner: st.lists(inner), max_leaves=5)
)
points = st.lists(
    st.tuples(st.integers(0, 2**63 - 1) | st.text(min_size=1), st.text(), payloads), max_size=20
)


@given(points)
def test_bodies_say_what_was_given(points: list[tuple[Any, str, Any]]) -> None:
    ids = [one for one, _, _ in points]
    texts = [text for _, text, _ in points]
    extras = [payload for _, _, payload in points]
    by_columns = list(point_rows(ids, {"texts": texts}, extras, None).rows)
    as_points = [{"id": one, "text": text, "payload": extra} for one, text, extra in points]
    by_points = list(point_rows(None, {}, None, as_points).rows)
    assert by_points == by_columns
    body = json.loads(upsert_body("texts", by_columns))
    assert body["ids"] == ids
    assert body["texts"] == texts
    assert body.get("payloads", [None] * len(ids)) == extras
    assert len(upsert_body("texts", by_columns)) <= 64 + sum(row.size for row in by_columns)


def test_the_body_of_a_batch_query() -> None:
    rows = list(query_rows({"texts": ["a", 'b"']}).rows)
    body = json.loads(query_body("texts", rows, b'{"limit":3}'))
    assert body == {"texts": ["a", 'b"'], "limit": 3}


@pytest.mark.parametrize("wrong", [0, -1, 2.5, True, None])
def test_batching_refuses_what_is_no_size(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"batching\.in_flight"):
        Batching(in_flight=wrong)
