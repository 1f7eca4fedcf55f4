"""The engine of a collection: which would suit it, how well it finds, and changing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, Literal, TypeAlias

from .faces import Operation
from .flows import Flow
from .optimize import J
from .session import Session
from .wire import encode

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


class EngineOperations(Generic[J]):
    """What a client does with the engine of one collection."""

    _session: Session
    _path: str
    _job_type: type[J]

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
