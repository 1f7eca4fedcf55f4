"""The shapes on the wire as models: strict checks on the cold routes, OpenAPI for all.

The hot routes check by hand (`wire`); their models here only describe.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, WithJsonSchema

from .collection_schemas import (
    STRICT,
    CollectionBody,
    CollectionInfo,
    CollectionList,
    IndexParams,
)
from .engines import IndexName

__all__ = ["MODELS", "schema_ref"]

PointId = Annotated[
    int | str,
    WithJsonSchema(
        {
            "description": 'A whole number or a string; 5 and "5" are two ids.',
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
                {"type": "string", "minLength": 1, "maxLength": 512},
            ],
        }
    ),
]
Element = Annotated[
    int | str,
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 2**64 - 1}, {"type": "string"}]}
    ),
]
SetInput = Annotated[list[Element], Field(min_length=1, max_length=1_000_000)]
VectorInput = Annotated[list[float], Field(min_length=1, max_length=65_536)]
Sparse = Annotated[
    dict[str, list[float]],
    WithJsonSchema(
        {
            "type": "object",
            "description": "A sparse vector: no index twice, as many values as indices.",
            "required": ["indices", "values"],
            "additionalProperties": False,
            "properties": {
                "indices": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 1_000_000,
                    "items": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
                },
                "values": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 1_000_000,
                    "items": {"type": "number"},
                },
            },
        }
    ),
]


Durable = Literal["fsync", "indexed", "none"]
OnDuplicate = Literal["keep", "link", "skip", "reject"]


class _Model(BaseModel):
    model_config = STRICT


class PointBody(_Model):
    """A point: an id and one of text, sequence, set, vector, sparse, as the collection holds."""

    id: PointId
    text: str = ""
    sequence: str = ""
    set: SetInput = []
    vector: VectorInput = []
    sparse: Sparse = {}
    payload: dict[str, Any] | None = None


class UpsertPoints(_Model):
    """Points one by one."""

    points: Annotated[list[PointBody], Field(min_length=1, max_length=10_000)]
    durability: Durable = "fsync"
    on_duplicate: OnDuplicate | None = None
    threshold: float | None = Field(None, gt=0, le=1, description="Needed with on_duplicate.")


class UpsertColumns(_Model):
    """Points as columns of equal length."""

    ids: Annotated[list[PointId], Field(min_length=1, max_length=10_000)]
    texts: list[str] = []
    sequences: list[str] = []
    sets: list[SetInput] = []
    vectors: list[VectorInput] = []
    sparse: list[Sparse] = []
    payloads: list[dict[str, Any] | None] | None = None
    durability: Durable = "fsync"
    on_duplicate: OnDuplicate | None = None
    threshold: float | None = Field(None, gt=0, le=1, description="Needed with on_duplicate.")


class DuplicateBody(_Model):
    """A point that came in and is near an earlier one."""

    id: PointId
    duplicate_of: PointId
    score: float


class UpsertAnswer(_Model):
    """Distinct points stored, as safe and as visible as `durability` says."""

    upserted: int
    took_ms: float
    duplicates: list[DuplicateBody] = Field(
        [], description="With on_duplicate: what each duplicate is near to."
    )


class IdsBody(_Model):
    """Ids to get or to delete."""

    ids: Annotated[list[PointId], Field(min_length=1, max_length=10_000)]


class DeleteBody(IdsBody):
    """Ids to delete."""

    durability: Durable = "fsync"


class PointsAnswer(_Model):
    """The points that exist, in the order asked for, and the ids that do not."""

    points: list[dict[str, Any]]
    missing: list[PointId]


class DeleteAnswer(_Model):
    """Points that existed and are gone."""

    deleted: int
    took_ms: float


class _Options(_Model):
    limit: int = Field(10, ge=1, le=1000, description="Hits at most; the answer may be shorter.")
    threshold: float | None = Field(None, description="Least similarity of a hit.")
    target_recall: float | None = Field(None, gt=0, le=1, description="Takes effect at once.")
    with_payload: bool = True
    strict: bool = Field(
        False, description="503 rather than an answer that misses a shard of the cluster."
    )


class QueryBody(_Options):
    """One of text, sequence, set, vector, sparse, as the collection holds."""

    text: str = ""
    sequence: str = ""
    set: SetInput = []
    vector: VectorInput = []
    sparse: Sparse = {}


class QueryBatchBody(_Options):
    """One of texts, sequences, sets, vectors, sparse, as the collection holds."""

    texts: Annotated[list[str], Field(min_length=1, max_length=1000)] = []
    sequences: Annotated[list[str], Field(min_length=1, max_length=1000)] = []
    sets: Annotated[list[SetInput], Field(min_length=1, max_length=1000)] = []
    vectors: Annotated[list[VectorInput], Field(min_length=1, max_length=1000)] = []
    sparse: Annotated[list[Sparse], Field(min_length=1, max_length=1000)] = []


class HitBody(_Model):
    """A neighbour; higher scores are nearer."""

    id: PointId
    score: float
    payload: dict[str, Any] | None


class HitsBody(_Model):
    """Hits of one query, best first."""

    hits: list[HitBody]


class ShardsBody(_Model):
    """How many shards of a cluster answered, and how many there are."""

    answered: int
    total: int


class QueryAnswer(HitsBody):
    """Hits, best first; `recall_estimate` is null where the engine cannot say."""

    recall_estimate: float | None
    took_ms: float
    estimated: bool = Field(False, description="Whether scores are estimates of sketches.")
    partial: bool = Field(False, description="Whether a shard is missing; of a cluster alone.")
    shards: ShardsBody | None = Field(None, description="Of a cluster alone.")


class QueryBatchAnswer(_Model):
    """Hits of each query, in the order of the queries."""

    results: list[HitsBody]
    recall_estimate: float | None
    took_ms: float
    estimated: bool = Field(False, description="Whether scores are estimates of sketches.")
    partial: bool = Field(False, description="Whether a shard is missing; of a cluster alone.")
    shards: ShardsBody | None = Field(None, description="Of a cluster alone.")


class SnapshotAnswer(_Model):
    """A snapshot; `config` is what its collection was created with."""

    name: str
    collection: str
    config: dict[str, Any]
    points: int
    bytes: int
    created_at: str


class SnapshotList(_Model):
    """The snapshots of a collection, oldest first."""

    snapshots: list[SnapshotAnswer]


class RestoreBody(_Model):
    """Where a snapshot is restored to."""

    into: str | None = Field(
        None, description="Name of the collection to make; default: the one it belongs to."
    )
    replace: bool = Field(False, description="Whether a collection of that name is replaced.")


class ImportBody(_Model):
    """A file of the server's that is to be imported; with an upload, the options are parameters."""

    path: str = Field(
        description="Absolute, or within one of the server's import_roots; or a URL under one"
        " of its import_urls.",
    )
    format: str | None = Field(None, max_length=32)
    columns: dict[str, Any] | None = None
    on_error: Literal["skip", "stop"] = "skip"
    on_duplicate: OnDuplicate | None = None
    threshold: float | None = Field(None, gt=0, le=1, description="Needed with on_duplicate.")
    id_prefix: str | None = Field(None, max_length=256)


class _OverPoints(_Model):
    """Which points a job of `closeby.optimize` takes."""

    filter: dict[str, Any] | None = Field(
        None,
        description="Only points whose payload has these values, in each field one of them.",
        examples=[{"lang": "en", "year": [2020, 2021]}],
    )
    exclude: Annotated[list[PointId], Field(max_length=10_000)] = []
    seed: int = Field(0, ge=0, le=2**63 - 1)


class SelectBody(_OverPoints):
    """Choose `m` points whose mean is near that of all (or near `target`)."""

    m: int = Field(ge=1, le=1_000_000, description="Points to choose.")
    target: VectorInput | None = Field(None, description="Mean to approach; default: of all.")
    unique: bool = Field(True, description="Choose no point twice.")
    oracle: Literal["auto", "exact", "index"] = Field(
        "auto", description="How the next point is found: exact compares all, index searches."
    )
    criterion: Literal["greedy", "inner"] = Field(
        "greedy",
        description="Which point is next: of least discrepancy, or of highest inner product.",
    )


class FrankWolfeBody(_OverPoints):
    """Approximate `target` by a combination of few points."""

    target: VectorInput
    signed: bool = Field(
        False, description="Weights of either sign, absolute sum at most `radius` (an l1 ball)."
    )
    radius: float = Field(1.0, ge=1e-9, le=1e9, description="What the weights add up to.")
    variant: Literal["fw", "pairwise", "bpcg"] = "bpcg"
    max_iter: int = Field(1_000, ge=1, le=100_000)
    tol: float = Field(1e-6, ge=0, le=1e36, description="Gap to stop at.")
    certify: Literal["never", "final", "always"] = "final"


class DuplicatesBody(_Model):
    """Which pairs of points are near-duplicates, and whom to keep of them."""

    threshold: float = Field(gt=0, le=1, description="Least similarity of a pair.")
    filter: dict[str, Any] | None = Field(
        None, description="Only points whose payload has these values."
    )
    keep: Literal["first", "last", "longest", "shortest"] = Field(
        "first", description="Of each cluster: by order of writing, or by elements of the set."
    )
    target_recall: float = Field(
        0.995, ge=0.5, le=0.9999, description="Share of the pairs at the threshold to be found."
    )
    formats: list[Literal["ndjson", "parquet"]] = Field(
        ["ndjson"], min_length=1, max_length=2, description="Of the result file."
    )


class EvaluateBody(_Model):
    """What recall is measured on."""

    sample: int = Field(200, ge=1, le=10_000, description="Points that are asked for.")
    queries: Annotated[list[Any], Field(min_length=1, max_length=1000)] | None = Field(
        None, description="Inputs to ask for instead of sampled points."
    )
    limit: int = Field(10, ge=1, le=100, description="Neighbours of each that are to be found.")
    target_recall: float | None = Field(None, ge=0.5, le=0.9999)
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Of the sample.")


class ReindexBody(_Model):
    """What is to change; the rest stays. With `auto` the collection is planned anew."""

    index: IndexName | None = None
    index_params: IndexParams | None = None
    target_recall: float | None = Field(None, ge=0.5, le=0.9999)
    threshold: float | None = Field(None, gt=0, le=1)


class PlanAnswer(_Model):
    """The engine to take, the one that there is, and what was predicted of each, best first."""

    index: str
    index_params: dict[str, Any]
    engine: str
    why: str
    target_recall: float
    threshold: float | None
    memory_bytes: int | None
    planned_for: int | None
    planned_again_at: int | None
    profile: dict[str, Any]
    options: list[dict[str, Any]]


class JobProgress(_Model):
    """How far a job is; `rate` a second, `eta_s` seconds, null where nobody can tell."""

    done: float
    total: float | None
    rate: float | None
    eta_s: float | None
    counters: dict[str, Any]


class JobErrorBody(_Model):
    """Why a job failed."""

    code: str
    detail: str


class JobAnswer(_Model):
    """A job and its state."""

    id: str
    kind: str
    collection: str | None
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    params: dict[str, Any]
    progress: JobProgress
    result: dict[str, Any] | None
    error: JobErrorBody | None
    errors: list[dict[str, Any]]
    cancel_requested: bool
    created_at: str
    started_at: str | None
    finished_at: str | None


class JobList(_Model):
    """One page of jobs, newest first; `next_cursor` is null on the last."""

    jobs: list[JobAnswer]
    next_cursor: str | None


class FieldErrorBody(BaseModel):
    """What is wrong with one field."""

    field: str
    message: str
    limit: float | None = None


class ProblemBody(BaseModel):
    """An error, after RFC 9457."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: list[FieldErrorBody]
    request_id: str


class HealthAnswer(_Model):
    """The process answers."""

    status: Literal["ok"]


class ReadyAnswer(_Model):
    """Whether every collection is loaded, and how far the loading is."""

    ready: bool
    collections: int
    loading: dict[str, dict[str, Any]]


MODELS: list[type[BaseModel]] = [
    CollectionBody,
    CollectionInfo,
    CollectionList,
    UpsertPoints,
    UpsertColumns,
    UpsertAnswer,
    IdsBody,
    DeleteBody,
    PointsAnswer,
    DeleteAnswer,
    QueryBody,
    QueryBatchBody,
    QueryAnswer,
    QueryBatchAnswer,
    SnapshotAnswer,
    SnapshotList,
    RestoreBody,
    DuplicatesBody,
    ImportBody,
    SelectBody,
    FrankWolfeBody,
    JobAnswer,
    EvaluateBody,
    ReindexBody,
    PlanAnswer,
    JobList,
    ProblemBody,
    HealthAnswer,
    ReadyAnswer,
]


def schema_ref(model: type[BaseModel]) -> dict[str, str]:
    """A reference to the schema of `model` within the OpenAPI document."""
    return {"$ref": f"#/components/schemas/{model.__name__}"}
