"""The OpenAPI document, and requests made from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from closeby.service.settings import Settings

EXPECTED = {
    "/v1/collections/{collection}/imports": {"post"},
    "/v1/collections/{collection}/duplicates": {"post"},
    "/v1/jobs": {"get"},
    "/v1/jobs/{job}": {"get"},
    "/v1/jobs/{job}:cancel": {"post"},
    "/v1/jobs/{job}/events": {"get"},
    "/v1/jobs/{job}/result": {"get"},
    "/healthz": {"get"},
    "/readyz": {"get"},
    "/metrics": {"get"},
    "/v1/collections": {"get"},
    "/v1/collections/{collection}": {"get", "put", "delete"},
    "/v1/collections/{collection}/points:upsert": {"post"},
    "/v1/collections/{collection}/points:get": {"post"},
    "/v1/collections/{collection}/points:delete": {"post"},
    "/v1/collections/{collection}/query": {"post"},
    "/v1/collections/{collection}/plan": {"get"},
    "/v1/collections/{collection}/evaluate": {"post"},
    "/v1/collections/{collection}:reindex": {"post"},
    "/v1/collections/{collection}/query:batch": {"post"},
    "/v1/collections/{collection}/select": {"post"},
    "/v1/collections/{collection}/frank_wolfe": {"post"},
    "/v1/collections/{collection}/snapshots": {"get", "post"},
    "/v1/collections/{collection}/snapshots/{snapshot}": {"get", "put", "delete"},
    "/v1/collections/{collection}/snapshots/{snapshot}/restore": {"post"},
}
WITHOUT_JSON = {
    ("/v1/jobs/{job}:cancel", "post"),
    ("/v1/collections/{collection}/snapshots", "post"),
    ("/v1/collections/{collection}/snapshots/{snapshot}", "put"),
}


@pytest.fixture(scope="module")
def document(http: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = http.get("/openapi.json").json()
    return found


def test_every_endpoint_is_described(document: dict[str, Any]) -> None:
    assert {path: {*item} for path, item in document["paths"].items()} == EXPECTED
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert operation["description"]
            if (path, method) not in WITHOUT_JSON and method in ("post", "put"):
                content = operation["requestBody"]["content"]
                assert "$ref" in str(content["application/json"]["schema"])
                assert {"400", "413", "415", "422"} <= {*operation["responses"]}
            for status, response in operation["responses"].items():
                if int(status) >= 400 and "ReadyAnswer" not in str(response):
                    assert [*response["content"]] == ["application/problem+json"]


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]

    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    found = {*references(document)}
    assert found
    for reference in found:
        assert reference.removeprefix("#/components/schemas/") in schemas


@pytest.mark.slow
def test_no_generated_request_gets_an_undocumented_answer(tmp_path: Path, serve: Any) -> None:
    # Imported here: it takes long, and only this test needs it.
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st
    from schemathesis import checks

    with serve(Settings(data_dir=tmp_path, max_body_bytes=100_000)) as http:
        http.put("/v1/collections/a", json={"features": {"kind": "shingles"}})
        http.put("/v1/collections/b", json={"features": {"kind": "vector", "dim": 2}})
        points = {"ids": [*range(30)], "vectors": [[1.0, i] for i in range(30)]}
        http.post("/v1/collections/b/points:upsert", json=points).raise_for_status()
        schema = schemathesis.openapi.from_url(f"{str(http.base_url).rstrip('/')}/openapi.json")
        checks.load_all_checks()
        wanted = checks.CHECKS.get_by_names(
            [
                "not_a_server_error",
                "status_code_conformance",
                "content_type_conformance",
                "response_schema_conformance",
            ]
        )
        strategies = [found.ok().as_strategy() for found in schema.get_all_operations()]

        @settings(
            max_examples=250,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=[*HealthCheck],
        )
        @given(st.one_of(strategies), st.sampled_from(["a", "b", None]))
        def check(case: Any, collection: str | None) -> None:
            if collection is not None and "collection" in case.path_parameters:
                case.path_parameters["collection"] = collection
            if case.method != "DELETE" or collection is None:
                case.call_and_validate(checks=wanted)

        check()
        assert http.get("/healthz").status_code == 200
        assert 'status="500"' not in http.get("/metrics").text
