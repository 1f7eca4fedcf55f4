"""Every operation of the client, written once, as a flow; ``faces.py`` shows it in two ways."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, Literal, TypeAlias, TypeVar
from urllib.parse import quote

from .answers import (
    api_error,
    collection_info,
    counted_from_caller,
    duplicates_of,
    hits,
    job_info,
    point,
    shared_results,
    too_many_rows,
)
from .engines import EngineOperations, Index
from .errors import (
    ApiError,
    ConflictError,
    InvalidInputError,
)
from .faces import Operation
from .flows import Flow, InFlight, Request, Task, exchange
from .gathering import Answers, Progress, Tally
from .imports import ImportOperations, OnDuplicate
from .inputs import (
    Ids,
    Payloads,
    PointLike,
    Row,
    Sets,
    Sparse,
    Texts,
    Vectors,
    id_list,
    one_input,
    point_rows,
    query_rows,
)
from .jobs import JOBS
from .optimize import J, OptimizeOperations
from .results import (
    CollectionInfo,
    DeleteResult,
    JobInfo,
    JobState,
    Point,
    PointId,
    Points,
    QueryResult,
    QueryResults,
    UpsertResult,
)
from .session import Session
from .snapshots import SnapshotOperations
from .sparse_values import OneSparse
from .splitting import latest_by_id, query_body, split, upsert_body
from .values import OneSet, OneVector
from .wire import encode

C = TypeVar("C", bound="CollectionOperations[Any]", covariant=True)

Metric: TypeAlias = Literal["jaccard", "cosine", "ip"]

_COLLECTIONS = "/v1/collections"


# --- the client ----------------------------------------------------------------------------------


class ClientOperations(Generic[C, J]):
    """What a client does with collections and jobs."""

    _session: Session
    _collection_type: type[C]
    _job_type: type[J]

    def collection(self, name: str) -> C:
        """A handle on the collection ``name``; asks the server nothing, so it always succeeds."""
        return self._collection_type(self._session, name)

    def job(self, job_id: str) -> J:
        """A handle on the job ``job_id``; asks the server nothing, so it always succeeds."""
        return self._job_type(self._session, job_id)

    @Operation
    def create_collection(
        self,
        name: str,
        *,
        metric: Metric | str,
        features: Mapping[str, Any],
        index: Index | str = "auto",
        index_params: Mapping[str, Any] | None = None,
        target_recall: float | None = None,
        threshold: float | None = None,
        seed: int | None = None,
        store: Literal["features", "none"] | str | None = None,
        exist_ok: bool = True,
    ) -> Flow[C]:
        """Create the collection ``name`` and return it.

        ``metric`` is ``"jaccard"`` for sets, ``"cosine"`` or ``"ip"`` for vectors. ``features``
        says how an input becomes what is compared::

            {"kind": "shingles", "unit": "byte" | "char" | "word", "n": 4}    text
            {"kind": "kmers", "k": 16, "canonical": True}                     sequence
            {"kind": "kmers", "alphabet": "protein", "k": 7}                  sequence
            {"kind": "ids"} or {"kind": "tokens"}                             set
            {"kind": "ngrams", "unit": "id" | "token", "n": 2}                set
            {"kind": "sketch", "positions": False}                            set
            {"kind": "vector", "dim": 768}                                    vector
            {"kind": "sparse", "dim": 1_000_000}                              sparse

        ``index`` names the engine, ``index_params`` are its parameters; ``"auto"`` chooses itself.

        ``target_recall`` (0..1) is the share of the true neighbours that queries should find,
        ``threshold`` the similarity from which on neighbours matter; what is None is left to the
        server.

        ``store="none"`` keeps hashes of the points in the place of their inputs: less disk, scores
        that are estimates, no inputs back.

        A collection that exists with the same configuration is returned as it is, points included,
        unless ``exist_ok=False``. Raises ConflictError if it exists with another configuration,
        ValidationError if the server refuses a value.
        """
        wanted = {
            "metric": metric,
            "features": dict(features),
            "index": index,
            "index_params": None if index_params is None else dict(index_params),
            "target_recall": target_recall,
            "threshold": threshold,
            "seed": seed,
            "store": store,
        }
        body = encode(
            {key: value for key, value in wanted.items() if value is not None},
            field="create_collection",
        )
        response = yield from self._session.call("PUT", _path(name), body)
        # 200 means that it was there; after a retry, the lost first try may have made it.
        if response.status == 200 and response.attempts == 1 and not exist_ok:
            raise ConflictError(
                f"409 collection_exists: the collection {name!r} exists already",
                status=409,
                code="collection_exists",
                detail=f"the collection {name!r} exists already",
            )
        self._session.read(response)
        return self.collection(name)

    @Operation
    def list_collections(self) -> Flow[list[CollectionInfo]]:
        """All collections, as the server describes them."""
        found: list[CollectionInfo] = []
        cursor: str | None = None
        while True:
            params = {} if cursor is None else {"cursor": cursor}
            response = yield from self._session.call("GET", _COLLECTIONS, params=params)
            page = self._session.read(response, "collections")
            found += [collection_info(item) for item in page["collections"]]
            cursor = page.get("next_cursor")
            if not cursor:
                return found

    @Operation
    def delete_collection(self, name: str) -> Flow[None]:
        """Delete the collection ``name`` and all of its points.

        Raises NotFoundError if it does not exist.
        """
        response = yield from exchange(Request("DELETE", _path(name)), self._session.retry)
        # Not found at a second try: the first one, whose answer was lost, did it.
        if response.status >= 400 and not (response.status == 404 and response.attempts > 1):
            raise api_error(response)

    @Operation
    def list_jobs(
        self, *, collection: str | None = None, state: JobState | None = None
    ) -> Flow[list[JobInfo]]:
        """All jobs that the server remembers, newest first; of one collection, in one state."""
        params = {"collection": collection, "state": state}
        wanted = {key: value for key, value in params.items() if value is not None}
        found: list[JobInfo] = []
        while True:
            response = yield from self._session.call("GET", JOBS, params=wanted)
            page = self._session.read(response, "jobs")
            found += [job_info(item) for item in page["jobs"]]
            if not page.get("next_cursor"):
                return found
            wanted["cursor"] = page["next_cursor"]


# --- a collection --------------------------------------------------------------------------------


class CollectionOperations(
    ImportOperations[J], EngineOperations[J], OptimizeOperations[J], SnapshotOperations
):
    """What a client does with the points of one collection."""

    _job_type: type[J]

    def __init__(self, session: Session, name: str) -> None:
        self._session = session
        self.name = name
        self._path = _path(name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r} at {self._session.url})"

    @Operation
    def info(self) -> Flow[CollectionInfo]:
        """The collection as the server describes it: ``count``, ``config`` and more.

        Raises NotFoundError if it does not exist.
        """
        response = yield from self._session.call("GET", self._path)
        return collection_info({"name": self.name, **self._session.read(response, "count")})

    @Operation
    def upsert(
        self,
        *,
        ids: Ids | None = None,
        texts: Texts | None = None,
        sequences: Texts | None = None,
        sets: Sets | None = None,
        vectors: Vectors | None = None,
        sparse: Sparse | None = None,
        payloads: Payloads | None = None,
        points: Iterable[PointLike] | None = None,
        on_duplicate: OnDuplicate | None = None,
        threshold: float | None = None,
        progress: Progress | None = None,
    ) -> Flow[UpsertResult]:
        """Store points; one whose id is there already replaces it, payload included.

        Give ``ids`` with one of the input columns (and ``payloads``: dictionaries or None), or
        give ``points``, dictionaries of ``id``, one input field and perhaps ``payload``.

        ===========  ========================================================================
        ids          integers 0..2**63-1 or non-empty strings
        texts        strings
        sequences    strings of letters (DNA, protein)
        sets         collections of integers 0..2**64-1, or of strings; a scipy CSR matrix;
                     ``(indptr, indices)``
        vectors      an (n, d) array, or n lists or arrays of d finite numbers
        sparse       n of ``(indices, values)`` or ``{index: value}``; a scipy matrix (n, d)
        ===========  ========================================================================

        Lists, NumPy arrays and generators are taken; generators are read as they are sent, in
        bounded memory. The call is split into requests (see Batching), several under way at once;
        ``progress(done, total)`` is called in the caller's thread as they are answered, ``total``
        None for generators. For one id given twice the last one wins, as if sent one by one.

        With ``on_duplicate`` each point is tested against all earlier ones first. Of those whose
        similarity is ``threshold`` (above 0, at most 1) or more the nearest is told in the
        result's ``duplicates``, and the point is stored (``"keep"``), stored with a
        ``duplicate_of`` in its payload (``"link"``), left out (``"skip"``), or ends the call with
        a ConflictError (``"reject"``: nothing of its request is stored). Requests then go one
        after the other.

        Raises InvalidInputError that names the row, for lists and arrays before anything is sent.
        After another error the points of some requests are stored; the same call may be repeated.
        """
        inputs = {
            "texts": texts,
            "sequences": sequences,
            "sets": sets,
            "vectors": vectors,
            "sparse": sparse,
        }
        source = point_rows(ids, inputs, payloads, points)
        batching = self._session.batching
        stored = Tally(source.total, progress)
        given = {"on_duplicate": on_duplicate, "threshold": threshold}
        options = encode(
            {name: value for name, value in given.items() if value is not None}, field="upsert"
        )
        yield InFlight(
            (
                Task(
                    self._upsert_part(source.column, part, options),
                    {row.id for row in part if row.id is not None},
                )
                for part in split(source.rows, batching.points, batching.body_bytes)
            ),
            # Which point is the earlier one is told by the order of the requests.
            batching.in_flight if on_duplicate is None else 1,
            stored.add,
        )
        return UpsertResult(stored.count, stored.took_ms, stored.duplicates)

    @Operation
    def get(self, *, ids: Ids) -> Flow[Points]:
        """The points with these ids, in their order: a sequence, with ``missing`` beside it."""
        wanted = id_list(ids)
        found: dict[PointId, Point] = {}

        def keep(answer: dict[str, Any]) -> None:
            found.update((one["id"], point(one)) for one in answer["points"])

        yield InFlight(
            self._by_ids(("points:get", "points"), wanted), self._session.batching.in_flight, keep
        )
        return Points(
            [found[one] for one in wanted if one in found],
            [one for one in wanted if one not in found],
        )

    @Operation
    def delete(self, *, ids: Ids) -> Flow[DeleteResult]:
        """Delete the points with these ids; those that are not there are no error."""
        deleted = 0

        def count(answer: dict[str, Any]) -> None:
            nonlocal deleted
            deleted += answer["deleted"]

        wanted = list(dict.fromkeys(id_list(ids)))
        yield InFlight(
            self._by_ids(("points:delete", "deleted"), wanted),
            self._session.batching.in_flight,
            count,
        )
        return DeleteResult(deleted)

    @Operation
    def query(
        self,
        *,
        text: str | None = None,
        sequence: str | None = None,
        set: OneSet | None = None,  # noqa: A002 - the name of the field
        vector: OneVector | None = None,
        sparse: OneSparse | None = None,
        limit: int = 10,
        threshold: float | None = None,
        target_recall: float | None = None,
        with_payload: bool = True,
    ) -> Flow[QueryResult]:
        """The nearest points to one input: at most ``limit`` hits, nearest first.

        Give the one input that the collection's features take. ``threshold`` leaves out hits of
        lower similarity; the answer is short when there are fewer, never padded. ``target_recall``
        (0..1) asks for more or less recall than the collection was created with.

        Raises NotFoundError without the collection, ValidationError for an input it cannot take.
        """
        inputs = {
            "text": text,
            "sequence": sequence,
            "set": set,
            "vector": vector,
            "sparse": sparse,
        }
        name, value = one_input(inputs)
        options = _query_options(limit, threshold, target_recall, with_payload)
        body = b'{"' + name.encode() + b'":' + value + b"," + options[1:]
        response = yield from self._session.call("POST", f"{self._path}/query", body)
        answer = self._session.read(response, "hits", "took_ms")
        return QueryResult(
            hits(answer),
            answer["took_ms"],
            answer.get("recall_estimate"),
            bool(answer.get("estimated", False)),
        )

    @Operation
    def query_batch(
        self,
        *,
        texts: Texts | None = None,
        sequences: Texts | None = None,
        sets: Sets | None = None,
        vectors: Vectors | None = None,
        sparse: Sparse | None = None,
        limit: int = 10,
        threshold: float | None = None,
        target_recall: float | None = None,
        with_payload: bool = True,
        progress: Progress | None = None,
    ) -> Flow[QueryResults]:
        """The nearest points to each of many inputs: a sequence of results, in their order.

        Takes the columns that ``upsert`` takes and the options that ``query`` takes. Split into
        requests, several under way at once; ``progress(done, total)`` is called as they are
        answered.
        """
        inputs = {
            "texts": texts,
            "sequences": sequences,
            "sets": sets,
            "vectors": vectors,
            "sparse": sparse,
        }
        source = query_rows(inputs)
        options = _query_options(limit, threshold, target_recall, with_payload)
        batching = self._session.batching
        answers = Answers(source.total, progress)
        yield InFlight(
            (
                Task(self._query_part(source.column, part, options))
                for part in split(source.rows, batching.queries, batching.body_bytes)
            ),
            batching.in_flight,
            answers.add,
        )
        return answers.in_order()

    # --- parts of a call -------------------------------------------------------------------------

    def _upsert_part(
        self, column: str, part: list[Row], options: bytes
    ) -> Flow[tuple[int, UpsertResult]]:
        """Send one part of an upsert; its number of rows, and what was stored."""
        rows = list(latest_by_id(part).values())
        answers = yield from self._halving(
            ("points:upsert", "upserted"), rows, lambda half: upsert_body(column, half, options)
        )
        return len(part), UpsertResult(
            sum(answer["upserted"] for _, answer in answers),
            sum(answer["took_ms"] for _, answer in answers),
            [one for _, answer in answers for one in duplicates_of(answer)],
        )

    def _query_part(
        self, column: str, part: list[Row], options: bytes
    ) -> Flow[list[tuple[int, QueryResult]]]:
        """Send one part of a batch query; each result with its position in the whole."""
        answers = yield from self._halving(
            ("query:batch", "results"), part, lambda half: query_body(column, half, options)
        )
        return [
            (row.position, result)
            for rows, answer in answers
            for row, result in zip(rows, shared_results(answer, len(rows)), strict=True)
        ]

    def _halving(
        self, asked: tuple[str, str], rows: list[Row], body: Callable[[list[Row]], bytes]
    ) -> Flow[list[tuple[list[Row], dict[str, Any]]]]:
        """Send ``rows``, in halves where the server finds them too large: rows and answer of each.

        ``asked`` is the action and the key that its answer has beside ``took_ms``.
        """
        action, needed = asked
        try:
            response = yield from self._session.call("POST", f"{self._path}/{action}", body(rows))
        except ApiError as error:
            if len(rows) == 1 or not too_many_rows(error, len(rows)):
                raise counted_from_caller(error, rows) from None
        else:
            return [(rows, self._session.read(response, needed, "took_ms"))]
        middle = len(rows) // 2
        first = yield from self._halving(asked, rows[:middle], body)
        second = yield from self._halving(asked, rows[middle:], body)
        return first + second

    def _by_ids(self, asked: tuple[str, str], ids: list[PointId]) -> Iterator[Task]:
        step = self._session.batching.points
        for start in range(0, len(ids), step):
            yield Task(self._some_by_ids(asked, ids[start : start + step]))

    def _some_by_ids(self, asked: tuple[str, str], ids: list[PointId]) -> Flow[dict[str, Any]]:
        action, needed = asked
        body = encode({"ids": ids}, field="ids")
        response = yield from self._session.call("POST", f"{self._path}/{action}", body)
        return self._session.read(response, needed)


def _path(name: str) -> str:
    if not isinstance(name, str) or name in ("", ".", ".."):
        raise InvalidInputError(
            f"a collection's name is a non-empty string, not {name!r}", field="name"
        )
    return f"{_COLLECTIONS}/{quote(name, safe='')}"


def _query_options(
    limit: int, threshold: float | None, target_recall: float | None, with_payload: bool
) -> bytes:
    options: dict[str, Any] = {"limit": limit, "with_payload": with_payload}
    if threshold is not None:
        options["threshold"] = threshold
    if target_recall is not None:
        options["target_recall"] = target_recall
    return encode(options, field="query")
