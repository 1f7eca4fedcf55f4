"""Changing the engine of a collection: another is built from the log, then takes over at once.

Queries and writes go on meanwhile. The configuration is stored before the new one takes over, so
whenever the process dies, the next start has one of the two, whole, since all is made of the log.
"""

from __future__ import annotations

import threading
from typing import Any

from .engines import chosen
from .errors import NotReadyError
from .evaluation import plan_for
from .jobs import JobContext, Kind
from .shard import Shard

__all__ = ["REINDEX"]


class _Interruption(threading.Event):
    """Asks the job whether it is to go on, whoever looks."""

    def __init__(self, context: JobContext) -> None:
        super().__init__()
        self._context = context

    def is_set(self) -> bool:
        """Raises what `JobContext.check` raises."""
        self._context.check()
        return False


def _reindex(context: JobContext) -> dict[str, Any]:
    shard = context.shard()
    # Two at once would build in the same folder.
    if not shard.changing_engine.acquire(blocking=False):
        raise NotReadyError("the engine of the collection is being changed", retry_after=1)
    try:
        return _change(context, shard)
    finally:
        shard.changing_engine.release()


def _change(context: JobContext, shard: Shard) -> dict[str, Any]:
    before = chosen(shard.record.config)
    config = dict(shard.record.config)
    asked = {key: value for key, value in context.params.items() if value is not None}
    if "index" in asked:
        config.pop("index_params", None)
        config.pop("plan", None)
    config |= asked
    if not config.get("index_params"):
        config.pop("index_params", None)
    why = "as asked"
    if config["index"] == "auto":
        from closeby.index import planner  # brings FAISS, for which no start should wait

        found = plan_for(shard)
        why = found.why
        keep = shard.record.config["index"] == "auto" and not planner.is_worth_changing(
            found, before[0]
        )
        name, params = before if keep else (found.index, found.index_params)
        config["plan"] = {"index": name, "index_params": params, "points": len(shard), "why": why}
    context.progress(0, len(shard))
    changed = chosen(config) != before or any(
        config[name] != shard.record.config[name] for name in ("target_recall", "threshold")
    )
    context.registry.reindex(shard, config, _Interruption(context), rebuild=changed)
    context.progress(len(shard), len(shard))
    name, params = chosen(config)
    return {
        "engine": name,
        "index_params": params,
        "before": before[0],
        "changed": changed,
        "why": why,
    }


REINDEX = Kind("reindex", "server", _reindex)
