"""Rows of integers are read out of a JSON body as a whole JSON parser reads them, or not at all."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from closeby.index.json_rows import take_integer_rows
from hypothesis import given
from hypothesis import strategies as st

integers = st.integers(0, 300) | st.integers(0, 2**64 - 1) | st.just(2**64 - 1)
rows = st.lists(st.lists(integers, max_size=5), max_size=5)
anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 99) | st.floats(-2, 2) | st.text('"\\{}[],:aé\n'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
layouts = st.sampled_from([{"separators": (",", ":")}, {}, {"indent": 1}, {"ensure_ascii": False}])


def check(body: bytes) -> bool:
    """Whether the rows are taken; if so, both parts together are what the body says."""
    taken = take_integer_rows(body, "sets")
    if taken is None:
        return False
    rest, found = taken
    try:
        other = orjson.loads(rest)
    except orjson.JSONDecodeError:
        with pytest.raises(orjson.JSONDecodeError):
            orjson.loads(body)
        return False
    assert other["sets"] is None
    assert other | {"sets": [row.tolist() for row in found]} == orjson.loads(body)
    return True


@given(rows, st.dictionaries(st.text(max_size=4), anything, max_size=4), layouts, st.integers(0, 4))
def test_rows_among_anything(sets: Any, others: Any, layout: Any, place: int) -> None:
    others.pop("sets", None)
    fields = list(others.items())
    fields.insert(place, ("sets", sets))
    body = json.dumps(dict(fields), **layout).encode()
    taken = check(body)
    assert taken or any("\\" in json.dumps(key, **layout) for key in others)


@given(rows, anything, layouts, st.data())
def test_damaged_bodies(sets: Any, other: Any, layout: Any, data: Any) -> None:
    body = bytearray(json.dumps({"ids": other, "sets": sets, "x": 1}, **layout).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        change = data.draw(st.sampled_from(["cut", "put", "drop"]))
        if change == "cut":
            del body[at + 1 :]
        elif change == "drop" and len(body) > 1:
            del body[at]
        else:
            body[at : at + 1] = bytes(
                [data.draw(st.sampled_from(b'0123456789-.eE"\\{}[],: \n\xff'))]
            )
    check(bytes(body))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"sets":null}',
        b'{"sets":[1]}',
        b'{"sets":[[1],2]}',
        b'{"sets":[[-1]]}',
        b'{"sets":[[1.0]]}',
        b'{"sets":[[1e3]]}',
        b'{"sets":[[01]]}',
        b'{"sets":[[true]]}',
        b'{"sets":[["1"]]}',
        b'{"sets":[[1,]]}',
        b'{"sets":[[1],]}',
        b'{"sets":[[18446744073709551616]]}',
        b'{"sets":[[99999999999999999999999]]}',
        b'{"sets":[[1]],"sets":[[2]]}',
        b'{"sets":[[1]],"s\\u0065ts":[[2]]}',
        b'{"other":{"sets":[[1]]}}',
        b'{"sets":[[1]]',
        b'{"sets',
        b'{"a":"\\',
        b'{"a":]}',
    ],
)
def test_what_is_not_plain_is_left_to_a_parser(body: bytes) -> None:
    assert take_integer_rows(body, "sets") is None


def test_empty_lists_and_the_largest_number() -> None:
    rest, found = take_integer_rows(
        b' { "sets" : [ [ ] , [ 18446744073709551615 , 0 ] ] } ', "sets"
    )
    assert rest == b' { "sets" : null } '
    assert [row.tolist() for row in found] == [[], [2**64 - 1, 0]]
    assert take_integer_rows(b'{"sets":[]}', "sets") == (b'{"sets":null}', [])
