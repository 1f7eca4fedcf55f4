"""Sparse vectors in every form that callers have them in, and against a real server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from closeby.client import AsyncClient, Client, InvalidInputError
from closeby.client.inputs import one_input, point_rows, query_rows

MATRIX = scipy.sparse.csr_matrix(([1.5, 2, 3], ([0, 0, 1], [1, 4, 2])), shape=(2, 6))
SENT = [{"indices": [1, 4], "values": [1.5, 2]}, {"indices": [2], "values": [3]}]


@pytest.mark.parametrize(
    "sparse",
    [
        MATRIX,
        scipy.sparse.coo_array(MATRIX),
        scipy.sparse.csr_array((np.array([1, 0.5, 2, 3]), [1, 1, 4, 2], [0, 3, 4]), (2, 6)),
        [([1, 4], [1.5, 2]), {2: 3}],
        [{np.int64(1): 1.5, 4: np.float32(2)}, SENT[1]],
        [(np.array([1, 4], ">i4"), np.array([9, 1.5, 9, 2])[1::2]), (range(2, 3), (3,))],
        iter([MATRIX[0], MATRIX[1]]),
    ],
    ids=["csr", "coo", "repeats", "pair", "dictionary", "arrays", "rows"],
)
def test_all_forms_are_sent_as_one(sparse: Any) -> None:
    rows = query_rows({"sparse": sparse})
    assert rows.column == "sparse"
    assert [json.loads(row.input_json) for row in rows.rows] == SENT


def test_one_vector_is_a_query() -> None:
    for vector in (MATRIX[0], ([1, 4], [1.5, 2]), {1: 1.5, 4: 2}, SENT[0]):
        name, encoded = one_input({"sparse": vector, "set": None})
        assert (name, json.loads(encoded)) == ("sparse", SENT[0])


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ([1, 2, 3], "must be (indices, values)"),
        ("ab", "must be (indices, values)"),
        (([1, 2], [1]), "2 indices for 1 values"),
        (([1, -2], [1, 1]), "index -2 is negative"),
        ((np.array([1, -2]), [1, 1]), "index -2 is negative"),
        (([1.5], [1]), "index float 1.5 is not a whole number"),
        (([True], [1]), "not a whole number"),
        (([3, 3], [1, 1]), "has an index twice"),
        (({3: float("nan")}), "finite"),
        (([3], np.array([np.inf])), "finite"),
        (([3], ["x"]), "not a number"),
        (MATRIX, "must be one row of a matrix, not 2"),
    ],
)
def test_what_is_none_is_refused_by_row(vector: Any, message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        query_rows({"sparse": [{1: 1}, vector]})
    assert (caught.value.field, caught.value.row) == ("sparse", 1)
    assert message in str(caught.value)
    with pytest.raises(InvalidInputError) as caught:
        point_rows(None, {}, None, [{"id": 1, "sparse": vector}])
    assert (caught.value.field, caught.value.row) == ("points", 0)


def test_a_collection_on_a_server(server: Any) -> None:
    matrix = scipy.sparse.random(60, 900, 0.03, "csr", random_state=2) + scipy.sparse.eye(60, 900)
    features = {"kind": "sparse", "dim": 900}
    with Client(server.url) as db:
        docs = db.create_collection("sparse-docs", metric="cosine", features=features)
        assert docs.upsert(ids=range(60), sparse=matrix.tocsr()).upserted == 60
        assert docs.query(sparse=matrix.tocsr()[7], limit=1).hits[0].id == 7
        results = docs.query_batch(sparse=matrix.tocsr()[:5], limit=1)
        assert [result.hits[0].id for result in results] == [*range(5)]
        point = docs.get(ids=[7]).points[0]
        assert point.sparse is not None
        np.testing.assert_array_equal(point.sparse["indices"], matrix.tocsr()[7].indices)
        np.testing.assert_allclose(point.sparse["values"], matrix.tocsr()[7].data, 1e-6)
        # What was got goes back in.
        assert docs.upsert(points=[point]).upserted == 1
        assert docs.query(sparse=point.sparse, limit=1).hits[0].score == pytest.approx(1, abs=1e-6)

    async def asked() -> Any:
        async with AsyncClient(server.url) as remote:
            here = remote.collection("sparse-docs")
            await here.upsert(ids=["x"], sparse=[{5: 2.0, 899: 1.0}])
            return await here.query(sparse=([5, 899], [4, 2]), limit=1)

    assert asyncio.run(asked()).hits[0].id == "x"
