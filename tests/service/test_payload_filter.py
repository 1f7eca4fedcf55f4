"""Which payloads match, and what is no filter."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from closeby.service.errors import ValidationError
from closeby.service.payload_filter import PayloadFilter

PAYLOAD = {"lang": "en", "year": 2021, "kept": True, "none": None, "many": ["a"], "part": {"b": 1}}


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        ({"lang": "en"}, True),
        ({"lang": ["de", "en"], "year": 2021.0}, True),
        ({"lang": "en", "year": 2020}, False),
        ({"kept": True}, True),
        ({"kept": 1}, False),
        ({"year": True}, False),
        ({"none": None}, True),
        ({"absent": None}, False),
        ({"many": "a"}, False),
        ({"part": "b"}, False),
    ],
)
def test_matching(wanted: dict[str, Any], matches: bool) -> None:
    assert PayloadFilter.parse(wanted).matches(orjson.dumps(PAYLOAD)) is matches
    assert not PayloadFilter.parse(wanted).matches(None)


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ([], "filter"),
        ({}, "filter"),
        ("lang", "filter"),
        ({"a": {"b": 1}}, "filter.a"),
        ({"a": []}, "filter.a"),
        ({"a": [[1]]}, "filter.a"),
        ({"a": list(range(1_001))}, "filter.a"),
        ({f"f{i}": 1 for i in range(33)}, "filter"),
    ],
)
def test_what_is_no_filter(wanted: Any, field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        PayloadFilter.parse(wanted)
    assert caught.value.errors[0].field == field
