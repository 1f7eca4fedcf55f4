"""Which engine holds the points of a collection: made from its configuration, and renewed.

An engine is either sealed by somebody else (`sealing`), or renewed here: FAISS's structures, which
are built beside the searches and put in place at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, get_args, runtime_checkable

from closeby.index import Engine, FlatIndex, FlinngIndex, LshIndex, MaxIPIndex
from closeby.index.errors import InvalidInputError

from .contents import Contents
from .sealing import Sealing

__all__ = [
    "ENGINES",
    "EngineKind",
    "IndexName",
    "as_asked",
    "check_engine",
    "chosen",
    "keeps_features",
    "make_engine",
    "renew",
]

if TYPE_CHECKING:
    from closeby.index.baselines import Renewal

IndexName = Literal[
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
"""What `index` of a configuration may be."""

_GRAPH = ("M", "ef_construction")
_TABLES = ("tables", "K", "sketch_bits", "scheme", "expected_points")


@dataclass(frozen=True, slots=True)
class EngineKind:
    """An engine that a collection can have.

    `options`: what may stand in `index_params`. `seals`: its segments are sealed into files.
    `sparse`: it takes sparse vectors too, by cosine and by inner product as far as it has them.
    """

    make: Any
    metrics: tuple[str, ...]
    options: tuple[str, ...]
    seals: bool = False
    sparse: bool = False


@runtime_checkable
class _Renewed(Protocol):
    """An engine whose structure is built anew now and then (`baselines.RebuiltIndex`)."""

    def next_renewal(self) -> Renewal | None: ...

    def finish(self, renewal: Renewal) -> None: ...


def _faiss(name: str) -> Callable[..., Any]:
    """An engine of FAISS, which takes long to import: a start without one does not wait for it."""

    def make(**options: Any) -> Any:
        from closeby.index import baselines

        return getattr(baselines, name)(**options)

    return make


ENGINES: dict[str, EngineKind] = {
    "flinng": EngineKind(FlinngIndex, ("jaccard", "cosine"), _TABLES, seals=True, sparse=True),
    "lsh": EngineKind(LshIndex, ("jaccard", "cosine"), _TABLES, seals=True, sparse=True),
    "maxip": EngineKind(MaxIPIndex, ("ip",), ("rotations",), seals=True),
    "flat": EngineKind(FlatIndex, ("jaccard", "cosine", "ip"), (), seals=True, sparse=True),
    "hnsw": EngineKind(_faiss("HnswIndex"), ("cosine", "ip"), _GRAPH),
    "ivf": EngineKind(
        _faiss("IvfIndex"), ("cosine", "ip"), ("codes", "lists", "pq_bytes", "rerank")
    ),
    "binary_flat": EngineKind(_faiss("BinaryFlatIndex"), ("jaccard",), ("sketch_bits",)),
    "binary_hnsw": EngineKind(
        _faiss("BinaryHnswIndex"), ("jaccard",), ("sketch_bits", *_GRAPH, "rerank")
    ),
    "binary_ivf": EngineKind(
        _faiss("BinaryIvfIndex"), ("jaccard",), ("sketch_bits", "lists", "rerank")
    ),
}
_UNPLANNED = {"jaccard": "flinng", "cosine": "flat", "ip": "maxip"}
assert {"auto", *ENGINES} == set(get_args(IndexName))


def chosen(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and parameters of the engine of a configuration.

    "auto" is what its last plan chose; before the first, flinng for sets, maxip for vectors by
    inner product (few of which it compares exactly), flat for others and for sparse vectors.
    """
    if config["index"] != "auto":
        return config["index"], dict(config.get("index_params", {}))
    plan = config.get("plan")
    if plan is not None:
        return plan["index"], dict(plan["index_params"])
    sparse = config["features"]["kind"] == "sparse"
    return "flat" if sparse else _UNPLANNED[config["metric"]], {}


def as_asked(config: Mapping[str, Any]) -> dict[str, Any]:
    """A stored configuration without what the service has noted in it itself."""
    return {key: value for key, value in config.items() if key not in ("plan", "generation")}


def check_engine(config: Mapping[str, Any]) -> None:
    """Raise InvalidInputError, which names the field, if a configuration cannot be had."""
    given = config.get("index_params", {})
    if config["index"] == "auto":
        if given:
            raise InvalidInputError(
                "auto chooses the parameters itself; name an engine to give them",
                field="index_params",
            )
        return
    name, metric = config["index"], config["metric"]
    kind = ENGINES[name]
    sparse = config["features"]["kind"] == "sparse"
    if metric not in kind.metrics or (sparse and not kind.sparse):
        fitting = (
            n for n, k in ENGINES.items() if metric in k.metrics and (k.sparse or not sparse)
        )
        what = f"sparse vectors by {metric}" if sparse else f"by {metric}"
        raise InvalidInputError(
            f"{name} does not search {what}; take one of {', '.join(['auto', *fitting])}",
            field="index",
        )
    unknown = sorted(given.keys() - set(kind.options))
    if unknown:
        known = ", ".join(kind.options) or "none"
        raise InvalidInputError(
            f"{name} has no such parameter; known are: {known}", field=f"index_params.{unknown[0]}"
        )
    dim = config["features"].get("dim")
    size = given.get("pq_bytes")
    try:
        make_engine(config, None)
    except InvalidInputError as error:
        if error.field in given:
            raise InvalidInputError(
                str(error), field=f"index_params.{error.field}", limit=error.limit
            ) from error
        raise
    except (ArithmeticError, TypeError, ValueError) as error:
        raise InvalidInputError(
            f"there is no such {name} for this threshold and target_recall: {error}",
            field="index_params",
        ) from error
    if size is not None and dim % size:
        raise InvalidInputError(
            f"must divide the dimension {dim}", field="index_params.pq_bytes", limit=dim
        )


def make_engine(config: Mapping[str, Any], sealing: Sealing | None) -> Engine:
    """The engine of a collection, empty.

    `sealing` None: nobody seals or renews it, so it does it itself.
    """
    name, given = chosen(config)
    kind = ENGINES[name]
    if kind.make is FlatIndex:
        capacity = None if sealing is None else sealing.segment_points
        return FlatIndex(config["metric"], capacity=capacity)
    options: dict[str, Any] = {"settle": sealing is None, **given}
    if kind.seals and sealing is not None:
        options["capacity"] = sealing.segment_points
    if kind.make is not MaxIPIndex:
        options["metric"] = config["metric"]
        # Of inner products no least one is known from which on neighbours matter.
        options["threshold"] = None if config["metric"] == "ip" else config["threshold"]
    keep_features = keeps_features(config)
    if not keep_features:
        options["keep_features"] = False
    made = kind.make(seed=config["seed"], target_recall=config["target_recall"], **options)
    if not keep_features:
        spec = config["features"]
        made.lay_out(spec.get("dim"), sparse=spec["kind"] == "sparse")
    return cast(Engine, made)


def keeps_features(config: Mapping[str, Any]) -> bool:
    """Whether features of the points are stored, not their hashes alone."""
    return config.get("store") != "none"


def renew(contents: Contents, lock: threading.Lock) -> bool:
    """Build what an engine needs built, beside its searches; False if nothing is due.

    `lock` is that of the contents.
    """
    engine = contents.engine
    if not isinstance(engine, _Renewed):
        return False
    with lock:
        renewal = engine.next_renewal()
    if renewal is None:
        return False
    renewal.run()
    with lock:
        engine.finish(renewal)
    return True
