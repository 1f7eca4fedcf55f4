"""The service's exceptions: one tree, one stable `code` for each leaf.

    ClosebyError                              (closeby.index)
    ├── InvalidInputError                     an input which cannot be featurised or searched
    └── ServiceError
        ├── RequestError                      the caller can do something about it
        │   ├── MalformedJsonError            malformed_json
        │   ├── UnauthorizedError             unauthorized
        │   ├── ReadOnlyError                 read_only
        │   ├── NotFoundError                 not_found
        │   │   ├── CollectionNotFoundError   collection_not_found
        │   │   ├── JobNotFoundError          job_not_found
        │   │   ├── NoJobResultError          job_result_not_found
        │   │   └── SnapshotNotFoundError     snapshot_not_found
        │   ├── MethodNotAllowedError         method_not_allowed
        │   ├── CollectionExistsError         collection_exists
        │   ├── JobNotFinishedError           job_not_finished
        │   ├── NearDuplicateError            near_duplicate
        │   ├── BodyTooLargeError             body_too_large
        │   ├── UnsupportedMediaTypeError     unsupported_media_type
        │   ├── ValidationError               validation_error
        │   ├── SnapshotDamagedError          snapshot_damaged
        │   ├── ImportFileError               import_failed
        │   └── TooManyRequestsError          too_many_requests
        ├── UnavailableError                  the service cannot do it now; a retry may succeed
        │   ├── NotReadyError                 not_ready
        │   ├── ShardUnavailableError         shard_unavailable
        │   └── StoreUnavailableError         store_unavailable
        ├── JobInterruptedError               never on the wire: a job must stop where it is
        │   ├── JobCancelledError             somebody asked for it
        │   ├── JobStoppedError               this process ends; another one goes on
        │   └── LeaseLostError                another process has taken the job over
        └── StartupError                      never on the wire: one line on stderr, exit code 1
            ├── DataDirError                  missing rights, not a directory, newer format
            ├── DataDirLockedError            another server uses the directory
            └── AddressInUseError             the port is taken

What is none of these is a defect of ours and is answered as `internal_error`. How a code looks on
the wire is decided in `problem`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from closeby.index.errors import ClosebyError

__all__ = [
    "AddressInUseError",
    "BodyTooLargeError",
    "CollectionExistsError",
    "CollectionNotFoundError",
    "DataDirError",
    "DataDirLockedError",
    "FieldError",
    "ImportFileError",
    "JobCancelledError",
    "JobInterruptedError",
    "JobNotFinishedError",
    "JobNotFoundError",
    "JobStoppedError",
    "LeaseLostError",
    "MalformedJsonError",
    "MethodNotAllowedError",
    "NearDuplicateError",
    "NoJobResultError",
    "NotFoundError",
    "NotReadyError",
    "ReadOnlyError",
    "RequestError",
    "ServiceError",
    "ShardUnavailableError",
    "SnapshotDamagedError",
    "SnapshotNotFoundError",
    "StartupError",
    "StoreUnavailableError",
    "TooManyRequestsError",
    "UnauthorizedError",
    "UnavailableError",
    "UnsupportedMediaTypeError",
    "ValidationError",
]


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field of a request.

    `field` is a path such as `points[3].vector`; `limit` is the bound that was passed, if the
    fault is one of size.
    """

    field: str
    message: str
    limit: int | float | None = None


class ServiceError(ClosebyError):
    """Base of all errors raised by the service; `detail` is fit for the caller's eyes."""

    code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        self.retry_after = retry_after


class RequestError(ServiceError):
    """The request cannot be done as it stands."""


class MalformedJsonError(RequestError):
    """The body is not JSON."""

    code = "malformed_json"


class UnauthorizedError(RequestError):
    """The API key is missing or wrong."""

    code = "unauthorized"


class ReadOnlyError(RequestError):
    """This server only reads."""

    code = "read_only"


class NotFoundError(RequestError):
    """No such path."""

    code = "not_found"


class CollectionNotFoundError(NotFoundError):
    """No collection of that name."""

    code = "collection_not_found"


class JobNotFoundError(NotFoundError):
    """No job of that id."""

    code = "job_not_found"


class NoJobResultError(NotFoundError):
    """The job made no file of the kind asked for."""

    code = "job_result_not_found"


class JobNotFinishedError(RequestError):
    """The job has no result yet, or will have none."""

    code = "job_not_finished"


class SnapshotNotFoundError(NotFoundError):
    """No snapshot of that name."""

    code = "snapshot_not_found"


class SnapshotDamagedError(RequestError):
    """A snapshot is cut short, altered, or no snapshot at all; nothing was changed."""

    code = "snapshot_damaged"


class ImportFileError(RequestError):
    """The file of an import cannot be read, or is not one for this collection."""

    code = "import_failed"


class MethodNotAllowedError(RequestError):
    """The path exists, the method does not."""

    code = "method_not_allowed"


class CollectionExistsError(RequestError):
    """A collection of that name exists with another configuration."""

    code = "collection_exists"


class NearDuplicateError(RequestError):
    """Points are near-duplicates and were to be rejected then; nothing was stored."""

    code = "near_duplicate"


class BodyTooLargeError(RequestError):
    """The body is larger than the server accepts."""

    code = "body_too_large"


class UnsupportedMediaTypeError(RequestError):
    """The body is not of a kind that the server reads."""

    code = "unsupported_media_type"


class ValidationError(RequestError):
    """The body is JSON but not what the endpoint takes; `errors` names the fields."""

    code = "validation_error"

    @classmethod
    def of(cls, field: str, message: str, limit: int | float | None = None) -> ValidationError:
        """An error about one field."""
        return cls(f"{field}: {message}", errors=[FieldError(field, message, limit)])


class TooManyRequestsError(RequestError):
    """More work is waiting than the server takes on; come back after `retry_after` seconds."""

    code = "too_many_requests"


class UnavailableError(ServiceError):
    """The service cannot do it now."""


class NotReadyError(UnavailableError):
    """The collection is still being loaded."""

    code = "not_ready"


class ShardUnavailableError(UnavailableError):
    """A shard of the cluster does not answer, and the request cannot do without it."""

    code = "shard_unavailable"


class StoreUnavailableError(UnavailableError):
    """The durable store refused; nothing of the write was kept."""

    code = "store_unavailable"


class JobInterruptedError(ServiceError):
    """A job must stop where it is; raised in the job's own thread."""


class JobCancelledError(JobInterruptedError):
    """Somebody asked for it."""


class JobStoppedError(JobInterruptedError):
    """This process ends; the job goes on elsewhere or later, from its checkpoint."""


class LeaseLostError(JobInterruptedError):
    """The lease ran out and another process has taken the job over."""


class StartupError(ServiceError):
    """The server cannot start."""


class DataDirError(StartupError):
    """The data directory cannot be used."""


class DataDirLockedError(StartupError):
    """Another server uses the data directory."""


class AddressInUseError(StartupError):
    """The address cannot be listened on."""
