"""closeby.client: the Python client of a closeby server.

::

    from closeby.client import Client

    with Client("http://127.0.0.1:8080") as db:
        urls = db.create_collection(
            "urls", metric="jaccard", features={"kind": "shingles", "unit": "byte", "n": 4}
        )
        urls.upsert(ids=[1, 2], texts=["https://a.example/x", "https://a.example/y"])
        for hit in urls.query(text="https://a.example/x?", limit=10, threshold=0.5).hits:
            print(hit.id, hit.score)

`AsyncClient` has the same methods, awaited. How it is made::

    what users pass ──inputs──▶ rows ──splitting──▶ bodies ──operations──▶ flows ──drivers──▶ httpx

Everything up to the drivers is without I/O and written once; ``errors`` draws the tree of errors.
It needs httpx, uses orjson where that is installed, and takes NumPy arrays without needing NumPy.
"""

from ._version import __version__
from .clients import AsyncClient, AsyncCollection, AsyncJob, Client, Collection, Job
from .errors import (
    ApiError,
    ClientClosedError,
    ClosebyClientError,
    ConflictError,
    ConnectError,
    ConnectionLostError,
    FieldProblem,
    InvalidInputError,
    JobFailedError,
    JobTimeoutError,
    NotFoundError,
    RateLimitedError,
    RequestTimeoutError,
    ServerError,
    TooLargeError,
    TransportError,
    UnauthorizedError,
    UnexpectedAnswerError,
    ValidationError,
)
from .results import (
    CollectionConfig,
    CollectionInfo,
    DeleteResult,
    Duplicate,
    FrankWolfeResult,
    Hit,
    JobInfo,
    JobProgress,
    Point,
    PointId,
    Points,
    QueryResult,
    QueryResults,
    SelectResult,
    Snapshot,
    SparseVector,
    UpsertResult,
)
from .splitting import Batching

__all__ = [
    "ApiError",
    "AsyncClient",
    "AsyncCollection",
    "AsyncJob",
    "Batching",
    "Client",
    "ClientClosedError",
    "ClosebyClientError",
    "Collection",
    "CollectionConfig",
    "CollectionInfo",
    "ConflictError",
    "ConnectError",
    "ConnectionLostError",
    "DeleteResult",
    "Duplicate",
    "FieldProblem",
    "FrankWolfeResult",
    "Hit",
    "InvalidInputError",
    "Job",
    "JobFailedError",
    "JobInfo",
    "JobProgress",
    "JobTimeoutError",
    "NotFoundError",
    "Point",
    "PointId",
    "Points",
    "QueryResult",
    "QueryResults",
    "RateLimitedError",
    "RequestTimeoutError",
    "SelectResult",
    "ServerError",
    "Snapshot",
    "SparseVector",
    "TooLargeError",
    "TransportError",
    "UnauthorizedError",
    "UnexpectedAnswerError",
    "UpsertResult",
    "ValidationError",
    "__version__",
]
