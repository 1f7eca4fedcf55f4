"""What callers may pass, and how what they may not is named."""

import json
import math
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from closeby.client import InvalidInputError
from closeby.client.inputs import id_list, point_rows, query_rows
from closeby.client.values import checked_id
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

NAN, INF = float("nan"), float("inf")


def values(**inputs: Any) -> list[Any]:
    return [json.loads(row.input_json) for row in query_rows(inputs).rows]


def refused(call: Any) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as caught:
        call()
    assert isinstance(caught.value, ValueError)
    return caught.value


@pytest.mark.parametrize(
    "vectors",
    [
        [[1.0, 2.0], [3.0, 4.0]],
        ((1, 2), (3, 4)),
        iter([[1, 2], [3, 4]]),
        (row for row in ([1, 2], np.array([3, 4]))),
        np.array([[1, 2], [3, 4]]),
        np.array([[1, 2], [3, 4]], np.float16),
        np.array([[1, 2], [3, 4]], ">f8"),
        np.array([[1, 3], [2, 4]], np.float32).T,
        np.array([[1, 0, 2, 0], [3, 0, 4, 0]], np.float64)[:, ::2],
        [np.array([1.0, 2.0]), np.array([0, 3.0, 0, 4.0])[1::2]],
        [range(1, 3), (3, 4)],
    ],
)
def test_vectors(vectors: Any) -> None:
    assert values(vectors=vectors) == [[1, 2], [3, 4]]


@given(hnp.arrays(np.float64, (3, 4), elements=st.floats(-1e30, 1e30)))
def test_arrays_are_sent_as_the_float32_that_the_server_makes_of_them(array: Any) -> None:
    sent = np.array(values(vectors=array))
    assert (sent.astype(np.float32) == array.astype(np.float32)).all()


@pytest.mark.parametrize(
    "sets",
    [
        [[1, 2], [3]],
        [np.array([1, 2]), np.array([3], np.uint64)],
        [(1, np.int64(2)), frozenset([3])],
        [range(1, 3), {3}],
        (np.array([0, 2, 3]), np.array([1, 2, 3])),
        ([0, 2, 3], [1, 2, 3]),
        scipy.sparse.csr_matrix(([1, 1, 1], ([0, 0, 1], [1, 2, 3])), shape=(2, 4)),
        scipy.sparse.coo_array(([1, 1, 1], ([0, 0, 1], [1, 2, 3])), shape=(2, 4)),
    ],
)
def test_sets_of_numbers(sets: Any) -> None:
    assert values(sets=sets) == [[1, 2], [3]]


@pytest.mark.parametrize("sets", [[["a", "b"], ["c"]], [np.array(["a", "b"]), ("c",)]])
def test_sets_of_tokens(sets: Any) -> None:
    assert values(sets=sets) == [["a", "b"], ["c"]]


def test_the_largest_element() -> None:
    assert values(sets=[[2**64 - 1], np.array([2**64 - 1], np.uint64)]) == [[2**64 - 1]] * 2


@pytest.mark.parametrize("form", [list, tuple, iter, np.array])
@pytest.mark.parametrize("column", ["texts", "sequences"])
def test_texts(form: Any, column: str) -> None:
    assert values(**{column: form(["a", "ü"])}) == ["a", "ü"]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (np.arange(3), [0, 1, 2]),
        (np.arange(3, dtype=np.uint8), [0, 1, 2]),
        (np.array(["a", "b"]), ["a", "b"]),
        ([np.int64(4), "x", 2**63 - 1], [4, "x", 2**63 - 1]),
        (range(2), [0, 1]),
        ({7: None}.keys(), [7]),
    ],
)
def test_ids(ids: Any, expected: list[Any]) -> None:
    found = id_list(ids)
    assert found == expected
    assert [type(one) for one in found] == [type(one) for one in expected]


@given(st.integers(0, 2**63 - 1) | st.text(min_size=1))
def test_an_id_is_taken_as_it_is(one: Any) -> None:
    assert checked_id(one) == one


@pytest.mark.parametrize("one", [-1, 2**63, True, 1.0, None, "", b"x", NAN, np.float64(1), []])
def test_ids_that_are_none(one: Any) -> None:
    error = refused(lambda: id_list([5, one]))
    assert (error.field, error.row) == ("ids", 1)
    assert "ids[1]" in str(error)


def wrong_vectors() -> list[Any]:
    array = np.zeros((5000, 3), np.float32)
    array[4321, 2] = NAN
    strided = np.asfortranarray(array)
    lists = [[0.0, 1.0], [0.0, 1.0], [INF, 1.0]]
    return [
        (array, 4321, "element 2 is nan"),
        (strided, 4321, "element 2 is nan"),
        (np.array([[0.0, 1e300]]), 0, r"element 1 is 1e\+300"),
        (lists, 2, "element 0 is inf"),
        ([[0.0], [INF, -INF]], 1, "element 0 is inf"),
        ([[1.0], np.array([1.0, NAN])], 1, "element 1 is nan"),
        ([[1.0], None], 1, "NoneType"),
        ([[1.0], ["2"]], 1, "element 0 is str '2'"),
        ([[1.0], "12"], 1, "must be a list or array"),
        ([[1.0], iter([1.0])], 1, "must be a list or array"),
        ([[1.0], [10**400]], 1, "finite"),
        ([[1.0], np.array([[1.0]])], 1, r"shape \(1, 1\)"),
        (np.zeros(3), None, "two dimensions"),
        (np.array([["a"]]), None, "not numbers"),
        (np.array([[True]]), None, "not numbers"),
        ("12", None, "must be a list"),
        (12, None, "must be a list"),
        (np.array(3.0), None, "two dimensions"),
        ({(1.0,)}, None, "order"),
    ]


@pytest.mark.parametrize(("vectors", "row", "fault"), wrong_vectors())
def test_vectors_that_are_none(vectors: Any, row: int | None, fault: str) -> None:
    error = refused(lambda: query_rows({"vectors": vectors}))
    assert (error.field, error.row) == ("vectors", row)
    assert error.args[0].startswith("vectors" if row is None else f"vectors[{row}]")
    with pytest.raises(InvalidInputError, match=fault):
        raise error


def test_sums_that_overflow_are_no_fault() -> None:
    large = [1.7e308, 1.7e308]
    assert not math.isfinite(sum(large))
    assert values(vectors=[large]) == [large]


@pytest.mark.parametrize(
    ("sets", "row", "fault"),
    [
        ([[1], [1.5]], 1, "element 0 is float 1.5"),
        ([[1], [True]], 1, "element 0 is bool"),
        ([[1], [None]], 1, "NoneType"),
        ([[1], 7], 1, "must be a list, set or array"),
        ([[1], "abc"], 1, "must be a list, set or array"),
        ([[1], iter([1])], 1, "must be a list, set or array"),
        ([[1], np.array([1.5])], 1, "integers or strings"),
        ([[1], np.array([-1])], 1, "negative"),
        ([[1], [2**64]], None, "cannot be sent"),
        (([1, 2], [3, 4]), None, "pass a list"),
        ((np.array([0, 9]), np.array([1])), None, "indptr"),
        ((np.array([0, 2, 1, 3]), np.array([1, 2, 3])), None, "indptr"),
    ],
)
def test_sets_that_are_none(sets: Any, row: int | None, fault: str) -> None:
    error = refused(lambda: list(query_rows({"sets": sets}).rows))
    assert error.field == "sets"
    if row is not None:
        assert error.row == row
    with pytest.raises(InvalidInputError, match=fault):
        raise error


@pytest.mark.parametrize("text", [None, 3, b"bytes", NAN, ["a"]])
def test_texts_that_are_none(text: Any) -> None:
    error = refused(lambda: query_rows({"texts": ["a", text]}))
    assert (error.field, error.row) == ("texts", 1)


def test_a_lone_surrogate_is_refused() -> None:
    error = refused(lambda: list(query_rows({"texts": ["a", "\ud800"]}).rows))
    assert (error.field, error.row) == ("texts", 1)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (({"texts": ["a"]}, [1, 2], None), "ids has 2, texts has 1"),
        (({"texts": ["a"]}, [1], [{}, {}]), "payloads has 2"),
        (({"texts": iter("ab")}, [1], None), "one ended after 1 rows"),
        (({"texts": ["a"]}, iter([1, 2]), None), "one ended after 1 rows"),
        (({"texts": ["a"]}, [1], iter([])), "one ended after 0 rows"),
        (({"texts": ["a"]}, None, None), "ids= is missing"),
        (({"texts": "a"}, [1], None), "must be a list"),
        (({"texts": ["a"]}, "1", None), "must be a list"),
        (({"texts": None, "sets": None}, [1], None), "exactly one of texts, sets"),
        (({"texts": ["a"], "sets": [[1]]}, [1], None), "texts and sets"),
        (({"texts": ["a"]}, [1], ["x"]), r"payloads\[0\] must be a dictionary"),
        (({"texts": ["a"]}, [1], [{"x": [1, NAN]}]), r"payloads\[0\]\.x\[1\] is not a finite"),
        (({"texts": ["a"]}, [1], [{"x": np.float32(INF)}]), r"payloads\[0\]\.x is not a finite"),
        (({"texts": ["a"]}, [1], [{1: 2}]), r"payloads\[0\] cannot be sent"),
        (({"texts": ["a"]}, [1], [{"x": object()}]), r"payloads\[0\] cannot be sent"),
    ],
)
def test_columns_that_do_not_fit(arguments: Any, fault: str) -> None:
    inputs, ids, payloads = arguments
    with pytest.raises(InvalidInputError, match=fault):
        list(point_rows(ids, inputs, payloads, None).rows)


@pytest.mark.parametrize(
    ("point", "fault"),
    [
        ({"text": "a"}, "has no id"),
        ({"id": 2}, "no input"),
        ({"id": 2, "text": "a", "set": [1]}, "text and set"),
        ({"id": 2, "txt": "a"}, "unknown field 'txt'"),
        ({"id": 2, "set": [1]}, "has a set, but the points before it have a text"),
        ({"id": -2, "text": "a"}, r"points\[1\]\.id is -2"),
        ({"id": 2, "text": 7}, r"points\[1\]\.text must be a string"),
        ({"id": 2, "text": "a", "payload": 3}, r"points\[1\]\.payload must be"),
        ({"id": 2, "text": "a", "payload": {"x": NAN}}, r"points\[1\]\.payload\.x is not"),
        (("id", 2), "must be a dictionary or a Point"),
    ],
)
@pytest.mark.parametrize("form", [list, iter])
def test_points_that_are_none(point: Any, fault: str, form: Any) -> None:
    points = form([{"id": 1, "text": "fine"}, point])
    with pytest.raises(InvalidInputError, match=fault) as caught:
        list(point_rows(None, {}, None, points).rows)
    assert (caught.value.field, caught.value.row) == ("points", 1)


def test_points_and_columns_exclude_each_other() -> None:
    with pytest.raises(InvalidInputError, match="leave out ids, texts"):
        point_rows([1], {"texts": ["a"]}, None, [{"id": 1, "text": "a"}])
    with pytest.raises(InvalidInputError, match="must be a list of points"):
        point_rows(None, {}, None, {"id": 1, "text": "a"})  # type: ignore[arg-type]


def test_a_late_fault_in_a_list_is_found_before_the_first_row() -> None:
    vectors = [[1.0]] * 10_000 + [[NAN]]
    assert (
        refused(lambda: point_rows(range(10_001), {"vectors": vectors}, None, None)).row == 10_000
    )
    extras = [{}] * 100 + [{"x": INF}]
    assert (
        refused(
            lambda: point_rows(range(101), {"texts": ["a"] * 101}, extras, None)  # type: ignore[arg-type]
        ).row
        == 100
    )


def test_arrays_without_numpy_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "numpy", None)
    with pytest.raises(InvalidInputError, match="NumPy is not installed; pass lists"):
        query_rows({"vectors": np.zeros((1, 2))})
    assert values(vectors=[[1.0, 2.0]]) == [[1, 2]]
    assert values(sets=([0, 1], [7])) == [[7]]
