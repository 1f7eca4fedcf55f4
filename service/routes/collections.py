"""Create, describe, list and delete collections."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Any

import orjson
from closeby.index import featurizer_from
from closeby.index.errors import InvalidInputError
from closeby.service.bodies import read_body
from closeby.service.collection_schemas import (
    NAME_PATTERN,
    CollectionBody,
    CollectionInfo,
    CollectionList,
)
from closeby.service.engines import as_asked, check_engine
from closeby.service.errors import ValidationError
from closeby.service.feature_keeping import without_features
from closeby.service.openapi import describe
from closeby.service.service import Service, service_of
from closeby.service.shard import Shard
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

__all__ = ["CollectionName", "check_name", "configuration", "describe_shard", "router"]

router = APIRouter(prefix="/v1/collections", tags=["collections"], default_response_class=Response)

CollectionName = Annotated[str, Path(description="Name of the collection.")]
_NAME = re.compile(NAME_PATTERN.strip("^$"))


@router.get("", openapi_extra=describe({200: CollectionList}, problems=("validation_error",)))
async def list_collections(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000, description="Collections a page.")] = 100,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
) -> Response:
    """All collections, by name, a page at a time."""
    service = service_of(request)
    after = None if cursor is None else _read_cursor(cursor)
    shards, more = service.deployment.registry.page(limit, after)
    body = {
        "collections": await service.read(lambda: [describe_shard(shard) for shard in shards]),
        "next_cursor": _cursor(shards[-1].record.name) if more and shards else None,
    }
    return _json(body)


@router.put(
    "/{collection}",
    openapi_extra=describe(
        {200: CollectionInfo, 201: CollectionInfo},
        body=(CollectionBody,),
        problems=("collection_exists", "store_unavailable", "too_many_requests"),
    ),
)
async def create_collection(request: Request, collection: CollectionName) -> Response:
    """Create a collection: 201; 200 if it exists with the same configuration."""
    service = service_of(request)
    check_name(collection, "collection")
    async with service.admission.body(request) as body:
        config = configuration(body, service)
        try:
            shard, created = await service.write(
                service.deployment.registry.create, collection, config
            )
        except InvalidInputError as error:
            raise ValidationError.of(error.field or "body", str(error), error.limit) from error
    return _json(await service.read(describe_shard, shard), 201 if created else 200)


@router.get(
    "/{collection}",
    openapi_extra=describe({200: CollectionInfo}, problems=("collection_not_found",)),
)
async def get_collection(request: Request, collection: CollectionName) -> Response:
    """Configuration, count and state of a collection."""
    service = service_of(request)
    shard = service.deployment.registry.get(collection)
    return _json(await service.read(describe_shard, shard))


@router.delete(
    "/{collection}",
    status_code=204,
    openapi_extra=describe({}, problems=("collection_not_found", "store_unavailable")),
)
async def delete_collection(request: Request, collection: CollectionName) -> Response:
    """Delete a collection with all its points; its jobs are cancelled."""
    service = service_of(request)
    await service.write(service.deployment.delete_collection, collection)
    return Response(status_code=204)


def check_name(name: str, field: str) -> None:
    """Refuse what cannot be the name of a collection. Raises ValidationError."""
    if not _NAME.fullmatch(name):
        raise ValidationError.of(
            field,
            "the name must be 1 to 128 of A-Z a-z 0-9 _ . - and begin with a letter or digit",
            128,
        )


def configuration(body: bytes, service: Service) -> dict[str, Any]:
    """The normalised configuration of a collection. Raises ValidationError."""
    asked = read_body(body, CollectionBody)
    try:
        spec = featurizer_from(asked.features).spec
    except InvalidInputError as error:
        raise ValidationError.of(error.field or "features", str(error), error.limit) from error
    is_vector = spec["kind"] in ("vector", "sparse")
    most = service.settings.max_dim
    if spec["kind"] == "vector" and spec["dim"] > most:
        raise ValidationError.of("features.dim", f"is {spec['dim']}, the limit is {most}", most)
    metric = asked.metric or ("cosine" if is_vector else "jaccard")
    if is_vector == (metric == "jaccard"):
        raise ValidationError.of(
            "metric",
            "sets are compared by jaccard, vectors by cosine or ip; this collection holds"
            f" {'vectors' if is_vector else 'sets'}",
        )
    threshold = (0.8 if metric == "cosine" else 0.5) if asked.threshold is None else asked.threshold
    config: dict[str, Any] = {
        "metric": metric,
        "features": spec,
        "index": asked.index,
        "target_recall": float(asked.target_recall),
        "threshold": float(threshold),
        "seed": asked.seed,
    }
    if asked.index_params:
        config["index_params"] = asked.index_params
    try:
        check_engine(config)
        if asked.store == "none":
            config = without_features(config)
    except InvalidInputError as error:
        raise ValidationError.of(error.field or "index_params", str(error), error.limit) from error
    return config


def describe_shard(shard: Shard) -> dict[str, Any]:
    """A collection as it is answered."""
    record = shard.record
    return {
        "name": record.name,
        "index_params": {},
        "store": "features",
        **as_asked(record.config),
        **shard.describe(),
        "ready": shard.ready,
        "created_at": record.created_at,
    }


def _json(body: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")


def _cursor(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> str:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError) as error:
        raise ValidationError.of("cursor", "is not a cursor; take `next_cursor`") from error
