"""Import a file into a collection: uploaded, or from a directory of the server."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from closeby.loaders import LoaderError, open_points
from closeby.service.bodies import read_body, read_model
from closeby.service.durable_files import sync_directory
from closeby.service.errors import (
    BodyTooLargeError,
    FieldError,
    ImportFileError,
    StoreUnavailableError,
    TooManyRequestsError,
    UnsupportedMediaTypeError,
    ValidationError,
)
from closeby.service.feature_keeping import require_features
from closeby.service.import_files import opened_under, safe_name
from closeby.service.import_urls import check_url, is_url
from closeby.service.imports import ImportOptions
from closeby.service.job_store import Job, new_job_id
from closeby.service.openapi import describe
from closeby.service.routes.collections import CollectionName
from closeby.service.routes.jobs import accepted
from closeby.service.schemas import ImportBody, JobAnswer
from closeby.service.service import Service, service_of
from closeby.service.shard import Shard
from fastapi import APIRouter, Request
from starlette.responses import Response

__all__ = ["router"]

router = APIRouter(
    prefix="/v1/collections/{collection}", tags=["imports"], default_response_class=Response
)

WRITE_BYTES = 1 << 20
"""An upload is written in parts of about this size."""
SIMPLE_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain", "")
"""What a web page of another origin may send without asking first: never taken for a file."""
ENDINGS = {
    "application/x-ndjson": "jsonl",
    "application/jsonl": "jsonl",
    "text/csv": "csv",
    "text/tab-separated-values": "tsv",
    "text/x-fasta": "fasta",
    "application/vnd.apache.parquet": "parquet",
    "application/vnd.apache.arrow.file": "arrow",
    "application/x-hdf5": "hdf5",
}
_PARAMETERS = {
    name: {"schema": {"type": "string"}, "description": text}
    for name, text in {
        "filename": "Name of an uploaded file, whose ending tells its format.",
        **{name: field.description or "" for name, field in ImportOptions.model_fields.items()},
    }.items()
}


@router.post(
    "/imports",
    status_code=202,
    openapi_extra=describe(
        {202: JobAnswer},
        body=(ImportBody,),
        problems=(
            "collection_not_found",
            "import_failed",
            "too_many_requests",
            "not_ready",
            "store_unavailable",
        ),
    )
    | {"parameters": [{"name": n, "in": "query", **each} for n, each in _PARAMETERS.items()]},
)
async def import_points(request: Request, collection: CollectionName) -> Response:
    """Import a file: the body itself, or, with a JSON body, one of the server's."""
    service = service_of(request)
    shard = service.deployment.registry.get(collection)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        async with service.admission.body(request) as body:
            job = await service.write(_import_path, service, shard, body)
        return accepted(job)
    if kind in SIMPLE_TYPES:
        raise UnsupportedMediaTypeError(
            f"Content-Type is {kind[:100]!r}; send a file as application/octet-stream (or as what"
            " it is), or JSON with a path"
        )
    asked: dict[str, Any] = dict(request.query_params)
    name = safe_name(asked.pop("filename", "") or f"upload.{ENDINGS.get(kind, 'bin')}")
    options = _options(asked)
    if service.uploads >= service.settings.max_queued_jobs:
        raise TooManyRequestsError(f"{service.uploads} files are being uploaded", retry_after=5)
    job_id = new_job_id()
    folder = service.deployment.jobs.folder / job_id
    try:
        with service.uploading():
            await _receive(request, service, folder / name)
        job = await service.write(_import_upload, service, shard, options, job_id, name)
    except BaseException:
        # Also when the request is cancelled: what was written goes.
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return accepted(job)


def _import_upload(
    service: Service, shard: Shard, options: ImportOptions, job_id: str, name: str
) -> Job:
    _look_into(service.deployment.jobs.folder / job_id / name, options)
    params = {"upload": name, "options": options.model_dump()}
    return _submit(service, shard, options, params, job_id)


def _import_path(service: Service, shard: Shard, body: bytes) -> Job:
    asked = read_body(body, ImportBody)
    options = read_model(asked.model_dump(exclude={"path"}), ImportOptions)
    if is_url(asked.path):
        check_url(service.settings.import_urls, asked.path)
        params = {"url": asked.path, "options": options.model_dump()}
        return _submit(service, shard, options, params, new_job_id())
    job_id = new_job_id()
    folder = service.deployment.jobs.folder / job_id
    folder.mkdir(parents=True)
    try:
        roots = service.settings.import_roots
        with opened_under(roots, asked.path, folder) as (path, identity):
            _look_into(path, options)
        params = {
            "path": asked.path,
            "file": identity.as_json(),
            "options": options.model_dump(),
        }
        return _submit(service, shard, options, params, job_id)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _submit(
    service: Service, shard: Shard, options: ImportOptions, params: dict[str, Any], job_id: str
) -> Job:
    if options.on_duplicate is not None:
        require_features(shard, "a test for duplicates", "on_duplicate")
    if options.on_duplicate is not None and shard.metric == "ip":
        raise ValidationError.of("on_duplicate", "is not for inner products")
    runner = service.deployment.jobs
    job = runner.jobs.submit(
        options.kind.name,
        params,
        collection=shard.record.id,
        collection_name=shard.record.name,
        job_id=job_id,
        max_queued=service.settings.max_queued_jobs,
    )
    runner.announce()
    return job


def _look_into(path: Path, options: ImportOptions) -> None:
    """Refuse a file that is not what it says before a job is made of it."""
    try:
        open_points(path, format=options.format, options=options.columns).close()
    except LoaderError as error:
        raise ImportFileError(error.reason) from error
    except OSError as error:
        raise ImportFileError(error.strerror or "it cannot be read") from error


async def _receive(request: Request, service: Service, path: Path) -> None:
    """Write the body to a file as it comes; it is on disk on return."""
    most = service.settings.max_import_bytes
    announced = request.headers.get("content-length", "0")
    if announced.isascii() and announced.isdigit() and int(announced) > most:
        raise _too_large(most)
    with contextlib.ExitStack() as stack:
        file: BinaryIO = stack.enter_context(await service.write(_create, path))
        size = waiting = 0
        parts: list[bytes] = []
        async for part in request.stream():
            size += len(part)
            waiting += len(part)
            if size > most:
                raise _too_large(most)
            parts.append(part)
            if waiting >= WRITE_BYTES:
                await service.write(_write, file, parts)
                parts, waiting = [], 0
        await service.write(_write, file, parts, True)
    if size == 0:
        raise ValidationError.of("body", "is empty; send the file as the body")


def _create(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True)
        return path.open("xb")
    except OSError as error:
        raise _unavailable(error) from error


def _write(file: BinaryIO, parts: list[bytes], last: bool = False) -> None:
    try:
        file.writelines(parts)
        if last:
            file.flush()
            os.fsync(file.fileno())
            sync_directory(Path(file.name).parent)
            sync_directory(Path(file.name).parent.parent)
    except OSError as error:
        raise _unavailable(error) from error


def _unavailable(error: OSError) -> StoreUnavailableError:
    return StoreUnavailableError(f"the file cannot be kept: {error.strerror}", retry_after=5)


def _too_large(most: int) -> BodyTooLargeError:
    return BodyTooLargeError(
        f"the file has more than {most} bytes; put it under one of the server's import_roots, or"
        " send it in parts",
        errors=[FieldError("body", f"the limit is {most} bytes", most)],
    )


def _options(asked: dict[str, Any]) -> ImportOptions:
    if "columns" in asked:
        try:
            asked["columns"] = orjson.loads(asked["columns"])
        except orjson.JSONDecodeError as error:
            raise ValidationError.of("columns", "is no JSON object") from error
    return read_model(asked, ImportOptions)
