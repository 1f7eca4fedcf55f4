"""What the operations return: small, typed, immutable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypedDict, overload

PointId = int | str
Payload = dict[str, Any]


class Hit(NamedTuple):
    """One near neighbour. ``score`` is a similarity: higher is nearer."""

    id: PointId
    score: float
    payload: Payload | None


@dataclass(frozen=True)
class QueryResult:
    """The answer to one query: ``hits``, nearest first, at most ``limit`` of them.

    ``took_ms`` is the server's time in milliseconds. ``recall_estimate`` is the share (0..1) of the
    true neighbours that the index expects to have found, or None where it cannot tell.
    ``estimated`` says that scores are estimates: of a collection that keeps no features.
    """

    hits: list[Hit]
    took_ms: float
    recall_estimate: float | None
    estimated: bool = False


@dataclass(frozen=True)
class QueryResults(Sequence[QueryResult]):
    """The answers to a batch, in the order of the queries: a sequence of :class:`QueryResult`.

    ``took_ms`` is the server's time for all requests of the batch together; each result has its
    share of it. ``recall_estimate`` is the mean over the queries, or None.
    """

    results: list[QueryResult]
    took_ms: float
    recall_estimate: float | None

    @overload
    def __getitem__(self, index: int) -> QueryResult: ...
    @overload
    def __getitem__(self, index: slice) -> list[QueryResult]: ...
    def __getitem__(self, index: int | slice) -> QueryResult | list[QueryResult]:
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[QueryResult]:
        return iter(self.results)


class SparseVector(TypedDict):
    """A sparse vector: its dimensions, ascending, and the value of each."""

    indices: list[int]
    values: list[float]


@dataclass(frozen=True)
class Point:
    """A stored point. Of the five input fields, the one of the collection is not None.

    All are None where the collection keeps no features.
    """

    id: PointId
    payload: Payload | None = None
    text: str | None = None
    sequence: str | None = None
    set: list[int] | list[str] | None = None
    vector: list[float] | None = None
    sparse: SparseVector | None = None


@dataclass(frozen=True)
class Points(Sequence[Point]):
    """The points found, in the order of the ids asked for; ``missing`` are the ids not found."""

    points: list[Point]
    missing: list[PointId]

    @overload
    def __getitem__(self, index: int) -> Point: ...
    @overload
    def __getitem__(self, index: slice) -> list[Point]: ...
    def __getitem__(self, index: int | slice) -> Point | list[Point]:
        return self.points[index]

    def __len__(self) -> int:
        return len(self.points)

    def __iter__(self) -> Iterator[Point]:
        return iter(self.points)


class Duplicate(NamedTuple):
    """The point ``id`` is near the earlier point ``duplicate_of``; ``score``: how near."""

    id: PointId
    duplicate_of: PointId
    score: float


@dataclass(frozen=True)
class UpsertResult:
    """``upserted`` points are stored; ``took_ms`` is the server's time over all requests.

    ``duplicates`` of earlier points were found among them, in their order, with ``on_duplicate``.
    """

    upserted: int
    took_ms: float
    duplicates: list[Duplicate] = field(default_factory=list)


@dataclass(frozen=True)
class DeleteResult:
    """``deleted`` points were there and are gone; ids that were not there do not count."""

    deleted: int


class CollectionConfig(TypedDict, total=False):
    """What ``create_collection`` takes, as the server completed it."""

    metric: str
    features: dict[str, Any]
    index: str
    target_recall: float
    threshold: float
    seed: int
    store: str


@dataclass(frozen=True)
class CollectionInfo:
    """A collection as the server describes it.

    ``count`` points; ``config`` a dictionary (:class:`CollectionConfig`); ``ready`` False while the
    server still loads it; ``created_at`` RFC 3339; ``index_stats`` what the index says of itself.
    """

    name: str
    count: int
    config: CollectionConfig
    ready: bool
    created_at: str | None
    index_stats: Mapping[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of a collection: all ``points`` of one moment, in a file of ``bytes`` bytes.

    ``created_at`` is RFC 3339, ``config`` what the collection was created with.
    """

    name: str
    collection: str
    points: int
    bytes: int
    created_at: str
    config: CollectionConfig


JobState = Literal["queued", "running", "done", "failed", "cancelled"]


class JobProgress(NamedTuple):
    """How far a job is: ``done`` of ``total``, ``rate`` a second, ``eta_s`` seconds to go.

    None where nobody can tell; ``counters`` are the kind's own.
    """

    done: float = 0
    total: float | None = None
    rate: float | None = None
    eta_s: float | None = None
    counters: Mapping[str, Any] = {}


@dataclass(frozen=True)
class JobInfo:
    """A job as the server describes it.

    ``state`` is queued, running, done, failed or cancelled. ``result`` is what it answers once it
    is done; ``error`` has ``code`` and ``detail`` once it failed; ``errors`` is a sample of what
    was wrong with single rows. Times are RFC 3339.
    """

    id: str
    kind: str
    collection: str | None
    state: JobState
    progress: JobProgress
    params: Mapping[str, Any]
    result: Mapping[str, Any] | None
    error: Mapping[str, Any] | None
    errors: Sequence[Mapping[str, Any]]
    created_at: str | None
    started_at: str | None
    finished_at: str | None

    @property
    def finished(self) -> bool:
        """Whether it has come to its end, whichever."""
        return self.state not in ("queued", "running")


@dataclass(frozen=True)
class SelectResult:
    """Points chosen to represent ``points`` of them: ``ids`` in the order of choice.

    ``weights`` are all 1 / m. ``discrepancy[t]`` is the distance between the mean of the first
    t + 1 chosen ones and the target, ``random_discrepancy[t]`` that of t + 1 random ones (the mean
    of five draws). ``oracle`` is how they were found: ``"exact"`` or ``"index"``.
    """

    ids: list[PointId]
    weights: list[float]
    discrepancy: list[float]
    random_discrepancy: list[float]
    points: int
    oracle: str
    job_id: str


@dataclass(frozen=True)
class FrankWolfeResult:
    """A combination of few of ``points`` points: ``ids`` and ``weights``, heaviest first.

    ``objective`` is its squared distance to the target, ``gap`` how far at most the least possible
    one is below, which is proved if ``certified``; ``bound`` is a proved lower bound or None.
    ``status`` is ``"converged"`` or ``"max_iter"``. ``trace`` has a list for each of
    ``"iteration"``, ``"objective"``, ``"gap"``, ``"seconds"``, ``"atoms"``: 1,000 steps at most.
    """

    ids: list[PointId]
    weights: list[float]
    objective: float
    gap: float | None
    certified: bool
    bound: float | None
    status: str
    iterations: int
    trace: Mapping[str, Sequence[float | None]]
    points: int
    job_id: str
