"""Asking several shards at once, with a deadline.

A shard that did not answer in time is not asked again until it answers a probe: one dead shard
costs one deadline, not one a request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import structlog

__all__ = ["Fanout", "Link", "Pending"]

PROBE_SECONDS = 0.25
"""Pause between two probes of a shard."""
PROBE_DEADLINE = 10.0

log = structlog.get_logger(__name__)


class Pending(Protocol):
    """An answer on its way."""

    def result(self, timeout: float) -> Any:
        """The answer. Raises TimeoutError, or whatever went wrong."""
        ...


class Link(Protocol):
    """A way to a `ShardHost` in another process."""

    def send(self, method: str, *arguments: Any) -> Pending:
        """Call a method of the host."""
        ...


class Fanout:
    """Links to shards by name, made by `connect` when they are first needed. Thread-safe."""

    def __init__(self, connect: Callable[[str], Link]) -> None:
        self._connect = connect
        self._links: dict[str, Link] = {}
        self._suspects: set[str] = set()
        self._changing = threading.Lock()
        self._stop = threading.Event()

    def close(self) -> None:
        """Let probes end."""
        self._stop.set()

    @property
    def suspects(self) -> frozenset[str]:
        """Shards that did not answer in time and have not been heard of since."""
        return frozenset(self._suspects)

    def ask(
        self, shards: Iterable[str], method: str, *arguments: Any, deadline: float
    ) -> dict[str, Any]:
        """The answers, by shard, of those that answered within `deadline` seconds."""
        return self.ask_each(dict.fromkeys(shards, arguments), method, deadline=deadline)

    def ask_each(
        self, asked: dict[str, tuple[Any, ...]], method: str, *, deadline: float
    ) -> dict[str, Any]:
        """As `ask`, with arguments for each shard."""
        end = time.monotonic() + deadline
        waiting: dict[str, Pending] = {}
        for shard, arguments in asked.items():
            if shard in self._suspects:
                continue
            try:
                waiting[shard] = self._link(shard).send(method, *arguments)
            except Exception as error:  # whatever the transport raises, the shard is not there
                self._suspect(shard, error)
        answers: dict[str, Any] = {}
        for shard, pending in waiting.items():
            try:
                answers[shard] = pending.result(max(0.001, end - time.monotonic()))
            except TimeoutError as error:
                self._suspect(shard, error)
            except Exception as error:  # of the shard or on the way to it: the others go on
                log.debug("shard_failed", shard=shard, method=method, error=str(error)[:300])
        return answers

    def _link(self, shard: str) -> Link:
        link = self._links.get(shard)
        if link is None:
            link = self._links[shard] = self._connect(shard)
        return link

    def _suspect(self, shard: str, error: Exception) -> None:
        with self._changing:
            if shard in self._suspects:
                return
            self._suspects.add(shard)
        log.warning("shard_missing", shard=shard, error=str(error)[:300])
        name = f"closeby-probe-{shard}"
        threading.Thread(target=self._probe, args=(shard,), name=name, daemon=True).start()

    def _probe(self, shard: str) -> None:
        while not self._stop.wait(PROBE_SECONDS):
            try:
                self._link(shard).send("status").result(PROBE_DEADLINE)
            except Exception as error:  # still away
                log.debug("probe_failed", shard=shard, error=str(error)[:300])
                continue
            self._suspects.discard(shard)
            log.info("shard_back", shard=shard)
            return
