"""Every operation of the client, written once, as a flow; ``faces.py`` shows it in two ways."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
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
    snapshot_of,
    too_many_rows,
)
from .errors import (
    ApiError,
    ConflictError,
    InvalidInputError,
)
from .faces import Operation
from .flows import Flow, InFlight, Request, Response, Send, Task, exchange
from .inputs import (
    Ids,
    OneSet,
    OneVector,
    Payloads,
    PointLike,
    Row,
    Sets,
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
    Duplicate,
    JobInfo,
    JobState,
    Point,
    PointId,
    Points,
    QueryResult,
    QueryResults,
    Snapshot,
    UpsertResult,
)
from .session import Session
from .splitting import latest_by_id, query_body, split, upsert_body
from .wire import encode

C = TypeVar("C", bound="CollectionOperations[Any]", covariant=True)

Metric: TypeAlias = Literal["jaccard", "cosine", "ip"]
Index: TypeAlias = Literal[
    "auto",
    "flinng",
    "lsh",
    "maxip",
    "flat",
    "hnsw",
    "ivf",
    "binary_flat",
    "binary_hnsw",
    "binary_ivf",
]
OnDuplicate: TypeAlias = Literal["keep", "link", "skip", "reject"]
Progress: TypeAlias = Callable[[int, "int | None"], object]

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

        ``index`` names the engine, ``index_params`` are its parameters; ``"auto"`` chooses itself.

        ``target_recall`` (0..1) is the share of the true neighbours that queries should find,
        ``threshold`` the similarity from which on neighbours matter; what is None is left to the
        server.

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


class CollectionOperations(OptimizeOperations[J]):
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
        inputs = {"texts": texts, "sequences": sequences, "sets": sets, "vectors": vectors}
        source = point_rows(ids, inputs, payloads, points)
        batching = self._session.batching
        stored = _Tally(source.total, progress)
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
        inputs = {"text": text, "sequence": sequence, "set": set, "vector": vector}
        name, value = one_input(inputs)
        options = _query_options(limit, threshold, target_recall, with_payload)
        body = b'{"' + name.encode() + b'":' + value + b"," + options[1:]
        response = yield from self._session.call("POST", f"{self._path}/query", body)
        answer = self._session.read(response, "hits", "took_ms")
        return QueryResult(hits(answer), answer["took_ms"], answer.get("recall_estimate"))

    @Operation
    def query_batch(
        self,
        *,
        texts: Texts | None = None,
        sequences: Texts | None = None,
        sets: Sets | None = None,
        vectors: Vectors | None = None,
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
        inputs = {"texts": texts, "sequences": sequences, "sets": sets, "vectors": vectors}
        source = query_rows(inputs)
        options = _query_options(limit, threshold, target_recall, with_payload)
        batching = self._session.batching
        answers = _Answers(source.total, progress)
        yield InFlight(
            (
                Task(self._query_part(source.column, part, options))
                for part in split(source.rows, batching.queries, batching.body_bytes)
            ),
            batching.in_flight,
            answers.add,
        )
        return answers.in_order()

    # --- engines ---------------------------------------------------------------------------------

    @Operation
    def plan(self, *, memory_bytes: int | None = None) -> Flow[dict[str, Any]]:
        """Which engine suits the points that there are: a dictionary.

        ``"index"`` is the one to take and ``"why"``; ``"options"`` what each would cost and find
        (``us`` a query, ``bytes_per_point``, ``recall``), the best first; ``"engine"`` the one that
        the collection has. ``memory_bytes`` bounds features and index together.
        """
        bound = "" if memory_bytes is None else f"?memory_bytes={int(memory_bytes)}"
        response = yield from self._session.call("GET", f"{self._path}/plan{bound}", None)
        return dict(self._session.read(response, "index", "options"))

    @Operation
    def evaluate(
        self,
        *,
        sample: int | None = None,
        queries: Sequence[Any] | None = None,
        limit: int | None = None,
        target_recall: float | None = None,
        seed: int | None = None,
    ) -> Flow[J]:
        """Measure recall against exact search; the `Job` that does it.

        It asks for ``sample`` points of the collection (200), or for the inputs of ``queries``.
        The job's result has ``recall``, ``recall_near`` (of neighbours at the threshold),
        ``recall_estimate`` and ``drift``, what was measured less what was estimated.
        """
        wanted = {
            "sample": sample,
            "queries": None if queries is None else list(queries),
            "limit": limit,
            "target_recall": target_recall,
            "seed": seed,
        }
        return (yield from self._begin("evaluate", "/evaluate", wanted))

    @Operation
    def reindex(
        self,
        *,
        index: Index | str | None = None,
        index_params: Mapping[str, Any] | None = None,
        target_recall: float | None = None,
        threshold: float | None = None,
    ) -> Flow[J]:
        """Change engine or parameters; the `Job` that does it. Queries and writes go on meanwhile.

        What is None stays. With ``index="auto"`` the collection is planned anew.
        """
        wanted = {
            "index": index,
            "index_params": None if index_params is None else dict(index_params),
            "target_recall": target_recall,
            "threshold": threshold,
        }
        return (yield from self._begin("reindex", ":reindex", wanted))

    def _begin(self, name: str, where: str, wanted: Mapping[str, Any]) -> Flow[J]:
        given = {key: value for key, value in wanted.items() if value is not None}
        body = encode(given, field=name)
        response = yield from self._session.call("POST", f"{self._path}{where}", body)
        return self._job_type(self._session, self._session.read(response, "id", "state")["id"])

    # --- imports ---------------------------------------------------------------------------------

    @Operation
    def import_file(
        self,
        path: str | os.PathLike[str],
        *,
        on_server: bool = False,
        format: str | None = None,  # noqa: A002
        columns: Mapping[str, Any] | None = None,
        on_error: Literal["skip", "stop"] = "skip",
        on_duplicate: OnDuplicate | None = None,
        threshold: float | None = None,
        id_prefix: str | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> Flow[J]:
        """Import the points of a file; the `Job` that does it, to be waited for.

        The file is uploaded as it is read, ``progress(sent, total)`` told of its bytes; with
        ``on_server`` it is one of the server's, under its ``import_roots``. ``format`` is found by
        name and content unless given; ``columns`` are options of it (``{"column": "body"}``).
        A row that cannot be a point is left out and counted, or ends the job
        (``on_error="stop"``). ``id_prefix`` is put before each id. With
        ``on_duplicate`` points are tested against all earlier ones: near-duplicates of
        ``threshold`` similarity at least are kept, linked, skipped, or end the job.

        Raises InvalidInputError if the file cannot be read, ValidationError if it is not what it
        says, NotFoundError without the collection, RateLimitedError if too many jobs are waiting.
        """
        options = {
            "format": format,
            "columns": columns,
            "on_error": on_error,
            "on_duplicate": on_duplicate,
            "threshold": threshold,
            "id_prefix": id_prefix,
        }
        wanted = {name: value for name, value in options.items() if value is not None}
        where = f"{self._path}/imports"
        if on_server:
            body = encode({"path": os.fspath(path), **wanted}, field="import_file")
            response = yield from self._session.call("POST", where, body)
        else:
            response = yield from self._upload(where, Path(path), wanted, progress)
        return self._job_type(self._session, self._session.read(response, "id", "state")["id"])

    def _upload(
        self,
        where: str,
        path: Path,
        options: Mapping[str, Any],
        progress: Callable[[int, int], object] | None,
    ) -> Flow[Response]:
        # As parameters: strings as they are, the rest as JSON.
        params = {
            name: value if isinstance(value, str) else encode(value, field=name).decode()
            for name, value in options.items()
        }
        try:
            total = path.stat().st_size
            path.open("rb").close()
        except OSError as error:
            raise InvalidInputError(f"{path}: {error.strerror}", field="path") from error
        request = Request(
            "POST",
            where,
            path,
            {"filename": path.name, **params},
            "application/octet-stream",
            None if progress is None else lambda sent: progress(sent, total),
        )
        # Not repeated after a lost answer: that would import the file twice, to the same points.
        response: Response = yield Send(request)
        if response.status >= 400:
            raise api_error(response)
        return response

    @Operation
    def duplicates(
        self,
        threshold: float,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        keep: Literal["first", "last", "longest", "shortest"] = "first",
        target_recall: float | None = None,
        formats: Sequence[Literal["ndjson", "parquet"]] = ("ndjson",),
    ) -> Flow[J]:
        """Find all pairs of points whose similarity is ``threshold`` at least; the `Job` that does.

        ``job.wait().result`` has the counts, ``job.rows()`` a row for each pair: ``a``, ``b``,
        ``score``, and ``keep``, the point to keep of their cluster, by the rule ``keep``. Only
        points whose payload has the values of ``filter``; ``target_recall`` is the share of the
        pairs at the threshold that is to be found.

        Raises NotFoundError without the collection, ValidationError for a value out of range.
        """
        asked = {
            "threshold": threshold,
            "filter": None if filter is None else dict(filter),
            "keep": keep,
            "target_recall": target_recall,
            "formats": list(formats),
        }
        body = encode(
            {name: value for name, value in asked.items() if value is not None}, field="duplicates"
        )
        response = yield from self._session.call("POST", f"{self._path}/duplicates", body)
        return self._job_type(self._session, self._session.read(response, "id", "state")["id"])

    # --- snapshots -------------------------------------------------------------------------------

    @Operation
    def snapshot(self) -> Flow[Snapshot]:
        """Keep all points as they are at this moment, on the server; writes go on meanwhile.

        Raises NotFoundError without the collection.
        """
        # Not repeated after a lost answer: that would make a second one.
        response = yield Send(Request("POST", f"{self._path}/snapshots"))
        if response.status >= 400:
            raise api_error(response)
        return snapshot_of(self._session.read(response, "name", "points"))

    @Operation
    def list_snapshots(self) -> Flow[list[Snapshot]]:
        """The snapshots of the collection, oldest first, also after it was deleted."""
        response = yield from self._session.call("GET", f"{self._path}/snapshots")
        return [snapshot_of(one) for one in self._session.read(response, "snapshots")["snapshots"]]

    @Operation
    def download_snapshot(self, name: str) -> Flow[bytes]:
        """The snapshot as the bytes of a file, to be kept elsewhere; they lie in memory.

        Raises NotFoundError if there is none of that name.
        """
        response = yield from self._session.call("GET", self._snapshot(name))
        return response.content

    @Operation
    def upload_snapshot(self, name: str, content: bytes) -> Flow[Snapshot]:
        """Give the server a snapshot that was downloaded, here or from another server.

        Raises ValidationError if it is damaged; then nothing changes.
        """
        response = yield from self._session.call(
            "PUT", self._snapshot(name), content, media_type="application/octet-stream"
        )
        return snapshot_of(self._session.read(response, "name", "points"))

    @Operation
    def delete_snapshot(self, name: str) -> Flow[None]:
        """Remove a snapshot. Raises NotFoundError if there is none of that name."""
        yield from self._session.call("DELETE", self._snapshot(name))

    @Operation
    def restore_snapshot(
        self, name: str, *, into: str | None = None, replace: bool = False
    ) -> Flow[CollectionInfo]:
        """Make a collection of a snapshot: ``into`` another name, or this collection again.

        It is there once it is complete. Raises ConflictError if there is a collection of that name
        and ``replace`` is false, NotFoundError without the snapshot, ValidationError if it is
        damaged.
        """
        body = encode({"into": into, "replace": replace}, field="restore_snapshot")
        response = yield Send(Request("POST", f"{self._snapshot(name)}/restore", body))
        if response.status >= 400:
            raise api_error(response)
        return collection_info(self._session.read(response, "name", "count"))

    def _snapshot(self, name: str) -> str:
        if not isinstance(name, str) or name in ("", ".", ".."):
            raise InvalidInputError(f"{name!r} is no name of a snapshot", field="name")
        return f"{self._path}/snapshots/{quote(name, safe='')}"

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


class _Tally:
    """Counts what the requests of an upsert have stored, and tells the caller."""

    def __init__(self, total: int | None, progress: Progress | None) -> None:
        self.count = 0
        self.took_ms = 0.0
        self.duplicates: list[Duplicate] = []
        self._done = 0
        self._total = total
        self._progress = progress

    def add(self, outcome: tuple[int, UpsertResult]) -> None:
        rows, stored = outcome
        self._done += rows
        self.count += stored.upserted
        self.took_ms += stored.took_ms
        self.duplicates += stored.duplicates
        if self._progress is not None:
            self._progress(self._done, self._total)


class _Answers:
    """Gathers the results of a batch query, in whatever order they come."""

    def __init__(self, total: int | None, progress: Progress | None) -> None:
        self._results: dict[int, QueryResult] = {}
        self._total = total
        self._progress = progress

    def add(self, outcome: list[tuple[int, QueryResult]]) -> None:
        self._results.update(outcome)
        if self._progress is not None:
            self._progress(len(self._results), self._total)

    def in_order(self) -> QueryResults:
        results = [self._results[position] for position in sorted(self._results)]
        known = [one.recall_estimate for one in results if one.recall_estimate is not None]
        return QueryResults(
            results,
            sum(one.took_ms for one in results),
            sum(known) / len(known) if known and len(known) == len(results) else None,
        )


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
