"""Create, list, download, upload, delete and restore snapshots."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any, BinaryIO

import orjson
from closeby.service.bodies import read_body
from closeby.service.collection_schemas import CollectionInfo
from closeby.service.engines import as_asked
from closeby.service.errors import BodyTooLargeError, FieldError
from closeby.service.openapi import describe
from closeby.service.registry import Registry
from closeby.service.routes.collections import (
    CollectionName,
    configuration,
    describe_shard,
)
from closeby.service.schemas import RestoreBody, SnapshotAnswer, SnapshotList
from closeby.service.service import Service, service_of
from closeby.service.shard import Shard
from closeby.service.snapshots import SnapshotInfo, Snapshots, read_rows, verify
from closeby.service.store import Durability
from fastapi import APIRouter, Path, Request
from starlette.responses import Response, StreamingResponse

__all__ = ["router"]

router = APIRouter(
    prefix="/v1/collections/{collection}/snapshots",
    tags=["snapshots"],
    default_response_class=Response,
)

SnapshotName = Annotated[str, Path(description="Name of the snapshot.")]
PART = 1 << 20
BINARY = "application/octet-stream"


@router.post(
    "",
    status_code=201,
    openapi_extra=describe(
        {201: SnapshotAnswer},
        problems=("collection_not_found", "not_ready", "store_unavailable"),
    ),
)
async def create_snapshot(request: Request, collection: CollectionName) -> Response:
    """Write a snapshot of all points as they are now; writes go on meanwhile."""
    service = service_of(request)
    shard = service.deployment.registry.get(collection)
    info = await service.write(_create, service.deployment.snapshots, shard)
    return _json(_answer(collection, info), 201)


@router.get("", openapi_extra=describe({200: SnapshotList}, problems=("validation_error",)))
async def list_snapshots(request: Request, collection: CollectionName) -> Response:
    """The snapshots of a collection, which may have been deleted since."""
    service = service_of(request)
    found = await service.read(service.deployment.snapshots.list, collection)
    return _json({"snapshots": [_answer(collection, info) for info in found]})


@router.get(
    "/{snapshot}",
    openapi_extra={
        "responses": describe({}, problems=("snapshot_not_found", "validation_error"))["responses"]
        | {
            "200": {
                "description": "The snapshot as a file",
                "content": {BINARY: {"schema": {"type": "string", "format": "binary"}}},
            }
        }
    },
)
async def download_snapshot(
    request: Request, collection: CollectionName, snapshot: SnapshotName
) -> Response:
    """The snapshot as a file."""
    service = service_of(request)
    file = await service.read(service.deployment.snapshots.open, collection, snapshot)
    size = file.seek(0, 2)
    file.seek(0)
    return StreamingResponse(_parts(file), media_type=BINARY, headers={"content-length": str(size)})


@router.put(
    "/{snapshot}",
    status_code=201,
    openapi_extra=describe(
        {201: SnapshotAnswer},
        problems=("body_too_large", "snapshot_damaged", "store_unavailable", "validation_error"),
    )
    | {
        "requestBody": {
            "required": True,
            "content": {BINARY: {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload_snapshot(
    request: Request, collection: CollectionName, snapshot: SnapshotName
) -> Response:
    """Take a snapshot that was downloaded before; one that is damaged is refused."""
    service = service_of(request)
    info = await _receive(request, service, collection, snapshot)
    return _json(_answer(collection, info), 201)


@router.delete(
    "/{snapshot}",
    status_code=204,
    openapi_extra=describe(
        {}, problems=("snapshot_not_found", "store_unavailable", "validation_error")
    ),
)
async def delete_snapshot(
    request: Request, collection: CollectionName, snapshot: SnapshotName
) -> Response:
    """Remove a snapshot."""
    service = service_of(request)
    await service.write(service.deployment.snapshots.delete, collection, snapshot)
    return Response(status_code=204)


@router.post(
    "/{snapshot}/restore",
    openapi_extra=describe(
        {201: CollectionInfo},
        body=(RestoreBody,),
        problems=(
            "snapshot_not_found",
            "snapshot_damaged",
            "collection_exists",
            "too_many_requests",
            "store_unavailable",
        ),
    ),
    status_code=201,
)
async def restore_snapshot(
    request: Request, collection: CollectionName, snapshot: SnapshotName
) -> Response:
    """Make a collection of a snapshot. It is there when it is complete, and not before."""
    service = service_of(request)
    async with service.admission.body(request) as body:
        asked = read_body(body, RestoreBody)
    shard = await service.write(_restore, service, collection, snapshot, asked)
    return _json(await service.read(describe_shard, shard), 201)


def _create(snapshots: Snapshots, shard: Shard) -> SnapshotInfo:
    with shard.points_now() as points:
        return snapshots.create(shard.record.name, shard.record.config, points)


def _restore(service: Service, collection: str, snapshot: str, asked: RestoreBody) -> Shard:
    registry: Registry = service.deployment.registry
    with service.deployment.snapshots.open(collection, snapshot) as file:
        # All of it is checked before anything is made.
        meta = verify(file)
        config = configuration(orjson.dumps(as_asked(meta["config"])), service)

        def fill(shard: Shard) -> None:
            file.seek(0)
            for entries in read_rows(file):
                for start in range(0, len(entries), service.settings.max_points):
                    part = entries[start : start + service.settings.max_points]
                    shard.put_rows(part, Durability.INDEXED)
            service.deployment.store.sync()

        return registry.restore(asked.into or collection, config, fill, replace=asked.replace)


async def _receive(
    request: Request, service: Service, collection: str, snapshot: str
) -> SnapshotInfo:
    """Write the body to a file as it comes, check it, give it its name."""
    most = service.settings.max_snapshot_bytes
    loop = asyncio.get_running_loop()
    received = service.deployment.snapshots.receive(collection, snapshot)
    file = await service.write(received.__enter__)
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise BodyTooLargeError(
                    f"the snapshot has more than {most} bytes",
                    errors=[FieldError("body", f"the limit is {most} bytes", most)],
                )
            await service.write(file.write, part)
    except BaseException as error:
        # Also when the request is cancelled: what was written goes.
        raise await loop.run_in_executor(None, _leave, received, error) from error
    await service.write(received.__exit__, None, None, None)
    return await service.read(service.deployment.snapshots.info, collection, snapshot)


def _leave(received: Any, error: BaseException) -> BaseException:
    """Remove what was written; the error as the caller is to see it."""
    try:
        received.__exit__(type(error), error, error.__traceback__)
    except BaseException as seen:
        return seen
    return error


def _parts(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while part := file.read(PART):
            yield part


def _answer(collection: str, info: SnapshotInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "collection": collection,
        "config": info.config,
        "points": info.points,
        "bytes": info.bytes,
        "created_at": info.created_at,
    }


def _json(body: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
