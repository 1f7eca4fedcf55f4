"""JSON by orjson and by the standard library: the same values, the same refusals."""

import json
from datetime import UTC, date, datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from closeby.client import InvalidInputError, wire


@pytest.fixture(params=["orjson", "json"])
def encode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    if request.param == "json":
        monkeypatch.setattr(wire, "_orjson_dumps", None)
    else:
        assert wire._orjson_dumps is not None
    return wire.encode


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        ({"a": [1, 2.5, None, True, "ü"]}, {"a": [1, 2.5, None, True, "ü"]}),
        ({"null": None}, {"null": None}),
        ("null", "null"),
        (2**64 - 1, 2**64 - 1),
        (-(2**63), -(2**63)),
        (
            {"x": np.float32(0.5), "n": np.int8(3), "b": np.bool_(True)},
            {"x": 0.5, "n": 3, "b": True},
        ),
        (np.arange(6).reshape(2, 3)[:, ::2], [[0, 2], [3, 5]]),
        (np.array(["a"]), ["a"]),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (MappingProxyType({"a": (1, 2)}), {"a": [1, 2]}),
    ],
)
def test_values(encode: Any, value: Any, meaning: Any) -> None:
    encoded = encode(value, field="payload")
    assert json.loads(encoded) == meaning
    assert wire.decode(encoded) == meaning


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (float("nan"), r"payloads\[3\] is not a finite number"),
        ({"a": [0, float("-inf")]}, r"payloads\[3\]\.a\[1\] is not a finite"),
        ({"a": None, "b": {"c": float("inf")}}, r"payloads\[3\]\.b\.c is not a finite"),
        ({"a": np.array([1.0, np.nan])}, r"payloads\[3\]\.a\[1\] is not a finite"),
        ({"a": np.float16("nan")}, r"payloads\[3\]\.a is not a finite"),
        ({1: "a"}, "cannot be sent as JSON"),
        ({"a": {None: 1}}, "cannot be sent as JSON"),
        (2**64, "cannot be sent as JSON"),
        ([-(2**63) - 1], "cannot be sent as JSON"),
        ("\ud800", "cannot be sent as JSON"),
        (object(), "cannot be sent as JSON"),
        (b"bytes", "cannot be sent as JSON"),
        ({1, 2}, "cannot be sent as JSON"),
    ],
)
def test_refusals(encode: Any, value: Any, fault: str) -> None:
    with pytest.raises(InvalidInputError, match=fault) as caught:
        encode(value, field="payloads", row=3)
    assert (caught.value.field, caught.value.row) == ("payloads", 3)


def test_endless_nesting_is_refused(encode: Any) -> None:
    nested: list[Any] = []
    nested.append(nested)
    with pytest.raises(InvalidInputError):
        encode(nested, field="payload")


@pytest.mark.parametrize("content", [b"", b"<html>", b'{"a":', b"\xff"])
def test_what_is_no_json(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        wire.decode(content)
