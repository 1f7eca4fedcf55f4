"""Asking several shards at once, with a deadline.

A shard that did not answer in time is not asked again until it answers a probe: one dead shard
costs one deadline, not one a request.

With hedging, a shard that is later than most of its answers are is asked once more, by a second
link, and whichever answer comes first counts. That helps where the first request met with
something of its own: a message that was lost, a connection that hangs, a process that is busy
where the shard has another one. It does not where the shard's only process is slow for all.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from .hedging import Hedging

__all__ = ["Fanout", "Link", "Pending"]

TAKE_SECONDS = 0.25
"""How long it may take to get hold of answers that came while a late shard was waited for."""
PROBE_SECONDS = 0.25
"""Pause between two probes of a shard."""
PROBE_DEADLINE = 3.0

log = structlog.get_logger(__name__)


POLL_SECONDS = 0.001
"""How long one of two answers is waited for before it is looked for the other."""
HEDGED = frozenset({"search", "live_seqs"})
"""Methods that may be asked twice."""


class Pending(Protocol):
    """An answer on its way."""

    def result(self, timeout: float) -> Any:
        """The answer. Raises TimeoutError, or whatever went wrong; may be called again."""
        ...

    def cancel(self) -> Any:
        """Nobody waits for the answer any more."""
        ...


class Link(Protocol):
    """A way to a `ShardHost` in another process."""

    def send(self, method: str, *arguments: Any) -> Pending:
        """Call a method of the host."""
        ...


@dataclass(slots=True)
class _Asked:
    """A request to a shard: when it was sent, and the second one, if there is one."""

    method: str
    arguments: tuple[Any, ...]
    begun: float
    first: Pending
    second: Pending | None = None


class Fanout:
    """Links to shards by name, made by `connect` when they are first needed. Thread-safe.

    `hedge_percentile`: of a shard's answers, as many come before it is asked again (None: never).
    """

    def __init__(
        self, connect: Callable[[str], Link], hedge_percentile: float | None = None
    ) -> None:
        self._connect = connect
        self._hedge_percentile = hedge_percentile
        self.hedging: dict[str, Hedging] = {}
        """By shard, of those that were asked."""
        self._turn = itertools.count()
        self._links: dict[str, Link] = {}
        self._second_links: dict[str, Link] = {}
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
        waiting: dict[str, _Asked] = {}
        for shard, arguments in asked.items():
            if shard in self._suspects:
                continue
            try:
                sent = self._link(shard).send(method, *arguments)
            except Exception as error:  # whatever the transport raises, the shard is not there
                self._suspect(shard, error)
            else:
                waiting[shard] = _Asked(method, arguments, time.monotonic(), sent)
        hedged = self._hedge_percentile is not None and method in HEDGED
        return self._hedged(waiting, end) if hedged else self._answers(waiting, end)

    def _answers(self, waiting: dict[str, _Asked], end: float) -> dict[str, Any]:
        """What has come by `end`, of the first or the second request, whichever is sooner.

        Shards are waited for in turn. Those behind a late one have had all that time to answer, but
        to fetch an answer through Ray takes longer than the nothing that is left of it.
        """
        answers: dict[str, Any] = {}
        after_a_late_one = end + TAKE_SECONDS
        for shard, one in waiting.items():
            try:
                answers[shard] = self._first_of(shard, one, end)
            except TimeoutError as error:
                self._suspect(shard, error)
                end = after_a_late_one
            except Exception as error:  # of the shard or on the way to it: the others go on
                log.debug("shard_failed", shard=shard, method=one.method, error=str(error)[:300])
        return answers

    def _first_of(self, shard: str, one: _Asked, end: float) -> Any:
        """Raises TimeoutError at the `end`, or what the last of both requests raised."""
        pair = [one.first] if one.second is None else [one.first, one.second]
        try:
            while len(pair) > 1:
                for each in tuple(pair):
                    left = end - time.monotonic()
                    try:
                        found = each.result(max(0.0, min(POLL_SECONDS, left)))
                    except TimeoutError:
                        if left <= 0:
                            raise
                    except Exception as error:  # the other one may still answer
                        log.debug("hedged_failed", shard=shard, error=str(error)[:300])
                        pair.remove(each)
                        break
                    else:
                        pair.remove(each)
                        if each is one.second:
                            self.hedging[shard].win()
                        return found
            found = pair[0].result(max(0.001, end - time.monotonic()))
            if pair.pop() is one.second:
                self.hedging[shard].win()
            return found
        finally:
            for each in pair:
                each.cancel()

    def _hedged(self, waiting: dict[str, _Asked], end: float) -> dict[str, Any]:
        """As `_answers`, with second requests to those that are late."""
        # In turn: the time of the one that is waited for first is its own, not that of others.
        names = list(waiting)
        turn = next(self._turn) % max(1, len(names))
        names = names[turn:] + names[:turn]
        answers: dict[str, Any] = {}
        late: dict[str, _Asked] = {}
        for place, shard in enumerate(names):
            one = waiting[shard]
            hedging = self.hedging.setdefault(shard, Hedging(self._hedge_percentile or 100.0))
            until = end if hedging.delay is None else min(end, one.begun + hedging.delay)
            try:
                answers[shard] = one.first.result(max(0.0, until - time.monotonic()))
            except TimeoutError:
                late[shard] = one
                if until < end and hedging.spend():
                    one.second = self._send_again(shard, one)
            except Exception as error:  # of the shard or on the way to it: the others go on
                log.debug("shard_failed", shard=shard, method=one.method, error=str(error)[:300])
            else:
                if place == 0:
                    hedging.note(time.monotonic() - one.begun)
        for shard, found in self._answers(late, end).items():
            answers[shard] = found
            if shard == names[0]:
                self.hedging[shard].note(time.monotonic() - late[shard].begun)
        return answers

    def _send_again(self, shard: str, one: _Asked) -> Pending | None:
        link = self._second_links.get(shard)
        try:
            if link is None:
                link = self._second_links[shard] = self._connect(shard)
            return link.send(one.method, *one.arguments)
        except Exception as error:  # the first one may still answer
            log.debug("hedge_failed", shard=shard, error=str(error)[:300])
            return None

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
