"""One collection's points, searchable: the durable store, a featuriser and an engine.

A point's life::

    upsert ── features ── append to the store ── add to the engine ── acknowledge
              (no lock)    (group commit, fsync)  (in seq order)

The engine's ids are the seqs of log rows, so a hit names one immutable version of a point. What
the engine holds can be made again from the log at any time; that is what `load` does at start.

A shard knows nothing of HTTP and nothing of its siblings: `search_features` of several shards
(or of several parts of one) is merged with `closeby.index.merge_topk`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
import orjson
import structlog
from closeby.index import (
    Engine,
    Featurizer,
    FlatIndex,
    FlinngIndex,
    SetBatch,
    featurizer_from,
    merge_topk,
)
from closeby.index.errors import InvalidInputError

from .encoding import Features, decode_rows, encode_rows
from .errors import NotReadyError
from .live import LivePoints
from .store import CollectionRecord, Entry, LogRow, Op, Store, point_id, point_key

__all__ = ["Answer", "Hit", "Point", "PointBatch", "Search", "Shard"]

REPLAY_CHUNK = 10_000
"""Log rows read, decoded and added at a time when a shard is loaded."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PointBatch:
    """Points to upsert: ids, raw inputs, and payloads as compact JSON (None: no payload)."""

    ids: Sequence[int | str]
    inputs: Sequence[Any] | np.ndarray[Any, Any]
    payloads: Sequence[bytes | None] | None = None


class Point(NamedTuple):
    """A stored point; `value` is the input it was made from, `payload` compact JSON."""

    id: int | str
    value: Any
    payload: bytes | None


class Hit(NamedTuple):
    """A neighbour: `score` is a similarity, higher is nearer; `payload` is compact JSON."""

    id: int | str
    score: float
    payload: bytes | None


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked of each query: `limit` hits at most, of `threshold` similarity at least."""

    limit: int = 10
    threshold: float | None = None
    target_recall: float | None = None
    with_payload: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """Hits of each query, best first, and the recall that the engine expects (None: unknown)."""

    hits: list[list[Hit]]
    recall_estimate: float | None


@dataclass(slots=True)
class _Committed:
    """Rows of one request which are on disk and wait to enter the engine."""

    ids: Sequence[int | str]
    features: Features | None
    has_payload: Sequence[bool]
    first: int = 0
    deleted: int = 0
    applied: bool = False
    error: Exception | None = None

    @property
    def is_put(self) -> bool:
        return self.features is not None


@dataclass(slots=True)
class Progress:
    """How far the replay is: log rows done, of how many."""

    rows: int = 0
    total: int = 0


@dataclass(slots=True)
class _State:
    """What changes while the shard lives."""

    progress: Progress = field(default_factory=Progress)
    ready: bool = False
    fault: str | None = None


class Shard:
    """The points of one collection. All methods are thread-safe.

    `record.config` is a normalised configuration (`registry.CollectionConfig`).
    `max_set_elements` bounds the distinct elements of one set. Call `load` before anything else.
    """

    def __init__(
        self, store: Store, record: CollectionRecord, *, max_set_elements: int = 1_000_000
    ) -> None:
        self.record = record
        self.featurizer: Featurizer = featurizer_from(record.config["features"])
        self.metric: str = record.config["metric"]
        self._store = store
        self._max_set_elements = max_set_elements
        self._engine = _make_engine(record.config)
        self._live = LivePoints()
        self._state = _State()
        # Rows on disk which are not yet in the engine, in seq order; see _apply_committed.
        self._committed: deque[_Committed] = deque()
        self._apply_lock = threading.Lock()

    # --- state ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._live)

    @property
    def ready(self) -> bool:
        """Whether the log was replayed and the engine holds what the store holds."""
        return self._state.ready and self._state.fault is None

    @property
    def progress(self) -> Progress:
        """How far `load` is."""
        return self._state.progress

    @property
    def fault(self) -> str | None:
        """Why the shard cannot serve any more; None if it can."""
        return self._state.fault

    def load(self, stop: threading.Event | None = None) -> None:
        """Replay the log into the engine; `ready` afterwards.

        Returns early, not ready, once `stop` is set. Raises StoreUnavailableError if the store
        cannot be read; `fault` then says so.
        """
        try:
            self._replay(stop)
        except Exception as error:
            self._state.fault = str(error)
            raise

    def describe(self) -> dict[str, Any]:
        """Count, and what the engine says of itself."""
        engine = self._engine
        return {
            "count": len(self._live),
            "index_stats": {
                "engine": engine.kind,
                "points": len(engine),
                "bytes": {name: int(size) for name, size in engine.nbytes.items()},
                "explain": _plain(engine.explain()),
            },
        }

    # --- writing -------------------------------------------------------------------------------

    def upsert(self, batch: PointBatch) -> int:
        """Store points and make them searchable; the number of distinct ids.

        Of an id which is given twice the last one wins. On return the points are on disk and the
        next search finds them. Raises InvalidInputError with `row` (position in the batch) if an
        input cannot be used, and what `Store.append` raises; then nothing was stored.
        """
        self._check_ready()
        if len(batch.ids) == 0:
            return 0
        features = self._features(batch.inputs)
        payloads = batch.payloads or [None] * len(batch.ids)
        last = {point: row for row, point in enumerate(batch.ids)}
        rows = list(last.values())
        if len(rows) < len(batch.ids):
            features = _take(features, rows)
        sources = self._sources([batch.inputs[row] for row in rows])
        entries = [
            Entry(point_key(batch.ids[row]), Op.PUT, encoded, source, payloads[row])
            for row, encoded, source in zip(rows, encode_rows(features), sources, strict=True)
        ]
        self._write(
            entries,
            _Committed(list(last), features, [payloads[row] is not None for row in rows]),
        )
        return len(rows)

    def delete(self, ids: Sequence[int | str]) -> int:
        """Delete points; the number of those that existed. Durable and effective on return."""
        self._check_ready()
        known = [point for point in dict.fromkeys(ids) if self._live.seq(point) is not None]
        if not known:
            return 0
        entries = [Entry(point_key(point), Op.DELETE) for point in known]
        write = _Committed(known, None, [False] * len(known))
        self._write(entries, write)
        return write.deleted

    def _write(self, entries: list[Entry], write: _Committed) -> None:
        def on_commit(first: int) -> None:
            write.first = first
            self._committed.append(write)

        durable: Future[int] = self._store.append(self.record.id, entries, on_commit)
        durable.result()
        with self._apply_lock:
            if not write.applied:
                self._apply_committed()
        if write.error is not None:
            raise write.error

    def _apply_committed(self) -> None:
        """Bring all that is on disk into the engine; the caller holds the lock.

        Whoever comes first does it for all who wait, in one `add`: rows come in seq order, since
        the store's writer queues them as it commits them.
        """
        writes: list[_Committed] = []
        while self._committed:
            writes.append(self._committed.popleft())
        if not writes:
            return
        try:
            self._apply(writes)
        except Exception as error:
            # On disk but not in the engine: only a replay can mend that.
            self._state.fault = f"the engine failed: {error}"
            log.exception("engine_failed", collection=self.record.name)
            for write in writes:
                write.error = NotReadyError(
                    "the points are stored, but the collection must be loaded again before it"
                    " can be searched; restart the server"
                )
        for write in writes:
            write.applied = True

    def _apply(self, writes: list[_Committed]) -> None:
        latest: dict[int | str, int | None] = {}
        for write in writes:
            if write.is_put:
                seqs = range(write.first, write.first + len(write.ids))
                latest.update(zip(write.ids, seqs, strict=True))
                continue
            for point in write.ids:
                current = latest[point] if point in latest else self._live.seq(point)
                write.deleted += current is not None
                latest[point] = None
        batches: list[Features] = []
        added: list[int] = []
        for write in writes:
            if write.features is None:
                continue
            kept = [i for i, p in enumerate(write.ids) if latest[p] == write.first + i]
            for i in kept:
                self._live.announce(write.first + i, write.ids[i], has_payload=write.has_payload[i])
            added.extend(write.first + i for i in kept)
            whole = len(kept) == len(write.ids)
            batches.append(write.features if whole else _take(write.features, kept))
        self._replace(latest, batches, added)

    def _replace(
        self, latest: dict[int | str, int | None], batches: list[Features], added: list[int]
    ) -> None:
        """Add the new versions, then remove those they replace: no moment without the point."""
        if added:
            self._engine.add(_concat(batches), ids=np.array(added, np.int64))
        removed = []
        for point, seq in latest.items():
            before = self._live.seq(point)
            if before is not None:
                removed.append(before)
            self._live.settle(point, seq)
        if removed:
            self._engine.remove(np.array(removed, np.int64))

    def _replay(self, stop: threading.Event | None) -> None:
        progress = self._state.progress
        progress.total = self._store.count_rows(self.record.id)
        for rows in self._store.read_from(self.record.id, 0, REPLAY_CHUNK):
            if stop is not None and stop.is_set():
                return
            self._apply_rows(rows)
            progress.rows += len(rows)
            if progress.rows % (20 * REPLAY_CHUNK) == 0:
                log.info(
                    "replaying",
                    collection=self.record.name,
                    rows=progress.rows,
                    total=progress.total,
                )
        self._state.ready = True

    def _apply_rows(self, rows: list[LogRow]) -> None:
        ids = [point_id(row.point) for row in rows]
        latest: dict[int | str, int | None] = {
            point: row.seq if row.op == Op.PUT else None
            for point, row in zip(ids, rows, strict=True)
        }
        kept = []
        for point, row in zip(ids, rows, strict=True):
            if latest[point] == row.seq:
                self._live.announce(row.seq, point, has_payload=row.has_payload)
                kept.append(row)
        features = decode_rows([row.features or b"" for row in kept])
        self._replace(latest, [features], [row.seq for row in kept])

    # --- reading -------------------------------------------------------------------------------

    def get(self, ids: Sequence[int | str]) -> tuple[list[Point], list[int | str]]:
        """The points of `ids` in that order, and the ids which do not exist. Repeats count once."""
        self._check_ready()
        seqs = {point: self._live.seq(point) for point in dict.fromkeys(ids)}
        rows = self._store.get([seq for seq in seqs.values() if seq is not None])
        found: list[Point] = []
        missing: list[int | str] = []
        for point, seq in seqs.items():
            row = rows.get(seq) if seq is not None else None
            if row is None:
                missing.append(point)
            else:
                found.append(Point(point, self._value(row.features, row.source), row.payload))
        return found, missing

    def search(self, inputs: Sequence[Any] | np.ndarray[Any, Any], wanted: Search) -> Answer:
        """The nearest points of each raw input.

        Raises InvalidInputError with `row` if an input cannot be used.
        """
        self._check_ready()
        seqs, scores = self.search_features(self._features(inputs), wanted)
        recall = self._engine.recall_estimate(wanted.target_recall)
        return Answer(self._hits(seqs, scores, wanted), recall)

    def search_features(
        self, features: Features, wanted: Search
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Seqs int64 (q, limit) and scores float32 (q, limit), padded with -1 and NaN."""
        parts = [
            engine.search(
                features,
                wanted.limit,
                threshold=wanted.threshold,
                target_recall=wanted.target_recall,
            )
            for engine in (self._engine,)
        ]
        return parts[0] if len(parts) == 1 else merge_topk(parts, wanted.limit)

    def _hits(
        self, seqs: np.ndarray[Any, Any], scores: np.ndarray[Any, Any], wanted: Search
    ) -> list[list[Hit]]:
        found = [
            [(seq, score) for seq, score in zip(*pair, strict=True) if seq >= 0]
            for pair in zip(seqs.tolist(), scores.tolist(), strict=True)
        ]
        names: dict[int, int | str | None] = {}
        gone: list[int] = []
        asked: list[int] = []
        for seq in {seq for row in found for seq, _ in row}:
            names[seq], has_payload = self._live.version(seq)
            if names[seq] is None:
                gone.append(seq)
            elif has_payload:
                asked.append(seq)
        # A version which was replaced or deleted after the search: its row tells whose it was.
        # Score and payload are both of that version, so the hit is old but never mixed.
        payloads: dict[int, bytes] = {}
        for seq, row in self._store.get(gone).items() if gone else ():
            names[seq] = point_id(row.point)
            if wanted.with_payload and row.payload is not None:
                payloads[seq] = row.payload
        if wanted.with_payload and asked:
            payloads |= self._store.get_payloads(asked)
        return [_name(row, names, payloads) for row in found]

    # --- features ------------------------------------------------------------------------------

    def _features(self, inputs: Sequence[Any] | np.ndarray[Any, Any]) -> Features:
        """Features of raw inputs, each row of which can be stored and searched."""
        features: Features = self.featurizer.features(cast(Sequence[Any], inputs))
        # Checked only: what is stored is what was given, not what an engine makes of it.
        self._engine.check(features)
        name = self.featurizer.field
        empty = self.featurizer.empty_rows(features)
        if len(empty):
            raise InvalidInputError(_why_empty(self.featurizer.spec), field=name, row=int(empty[0]))
        if isinstance(features, SetBatch):
            sizes = np.diff(features.indptr)
            if len(sizes) and int(sizes.max()) > self._max_set_elements:
                raise InvalidInputError(
                    f"has {int(sizes.max())} distinct elements, the limit is"
                    f" {self._max_set_elements}",
                    field=name,
                    row=int(sizes.argmax()),
                    limit=self._max_set_elements,
                )
        return features

    def _sources(self, inputs: list[Any]) -> list[bytes | None]:
        """Raw inputs as they are kept, where the features alone do not give them back."""
        kind = self.featurizer.spec["kind"]
        if kind in ("shingles", "kmers"):
            return [text.encode() for text in inputs]
        if kind == "tokens":
            return [orjson.dumps(list(tokens)) for tokens in inputs]
        return [None] * len(inputs)

    def _value(self, features: bytes | None, source: bytes | None) -> Any:
        """The inverse of `_sources`: the input of a stored point."""
        if source is not None:
            is_json = self.featurizer.spec["kind"] == "tokens"
            return orjson.loads(source) if is_json else source.decode()
        decoded = decode_rows([features or b""])
        row = decoded.row(0) if isinstance(decoded, SetBatch) else decoded[0]
        return row.tolist()

    def _check_ready(self) -> None:
        if self.ready:
            return
        if self._state.fault is not None:
            raise NotReadyError(
                f"collection {self.record.name!r} cannot serve: {self._state.fault}"
            )
        progress = self._state.progress
        raise NotReadyError(
            f"collection {self.record.name!r} is being loaded: {progress.rows} of"
            f" {progress.total} log rows are done",
            retry_after=1,
        )


def _name(
    row: list[tuple[int, float]],
    names: dict[int, int | str | None],
    payloads: dict[int, bytes],
) -> list[Hit]:
    """Hits of one query. Of two versions of one point only the newer is kept."""
    newest: dict[int | str, int] = {}
    for seq, _ in row:
        point = names[seq]
        if point is not None:
            newest[point] = max(seq, newest.get(point, 0))
    hits = []
    for seq, score in row:
        point = names[seq]
        if point is not None and newest[point] == seq:
            hits.append(Hit(point, score, payloads.get(seq)))
    return hits


def _make_engine(config: dict[str, Any]) -> Engine:
    """The engine of a collection; "auto" means flinng for sets and flat for vectors."""
    name = config["index"]
    is_vector = config["features"]["kind"] == "vector"
    if name == "auto":
        name = "flat" if is_vector else "flinng"
    if name == "flat":
        return FlatIndex(metric=config["metric"])
    return FlinngIndex(
        metric=config["metric"],
        seed=config["seed"],
        target_recall=config["target_recall"],
        threshold=config["threshold"],
    )


def _take(features: Features, rows: list[int]) -> Features:
    if isinstance(features, SetBatch):
        return features.take(np.array(rows, np.int64))
    return features[np.array(rows, np.int64)]


def _concat(batches: list[Features]) -> Features:
    if len(batches) == 1:
        return batches[0]
    sets = [batch for batch in batches if isinstance(batch, SetBatch)]
    if sets:
        return SetBatch.concat(sets)
    return np.concatenate([batch for batch in batches if not isinstance(batch, SetBatch)])


def _why_empty(spec: dict[str, Any]) -> str:
    if spec["kind"] == "shingles":
        return f"is empty: it holds no shingle of {spec['unit']}s"
    if spec["kind"] == "kmers":
        return f"is empty: it holds no k-mer of {spec['k']} unambiguous letters"
    return "is an empty set, which is near to nothing"


def _plain(value: Any) -> Any:
    """`value` with NumPy scalars and tuples as plain JSON types; what is not finite is None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
