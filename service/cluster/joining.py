"""Adding and removing a shard while reads and writes go on.

    1. the placement names who will take which partitions; who has them goes on
    2. every shard has seen that, and removes nothing from the log any more
    3. a new shard starts, and reads its partitions from the log; those that are given the
       partitions of one that leaves make their contents anew, from the log too
    4. the next placement gives them the partitions; who had them forgets them

Each step can be repeated, and one that was cut short is taken up by calling again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

import structlog
from closeby.service.errors import StoreUnavailableError
from closeby.service.store import Store

from .build_log import BUILDING
from .fanout import Fanout
from .placement import Placement, files_key, read_placement, replace_placement

__all__ = ["join", "leave"]

ASK_SECONDS = 30.0
PAUSE_SECONDS = 0.2

log = structlog.get_logger(__name__)


def join(
    store: Store,
    fanout: Fanout,
    shard: str,
    start: Callable[[], None],
    stop: threading.Event | None = None,
) -> bool:
    """Make `shard` part of the cluster; `start` starts it. False if `stop` was set before the end.

    Raises ValueError if another shard is joining, StoreUnavailableError.
    """
    stop = stop or threading.Event()
    placement = _begin(store, shard)
    if shard in placement.shards:
        return True
    if not _all_know(fanout, placement, placement.shards, stop):
        return False
    start()
    log.info("joining", shard=shard, partitions=len(placement.joining[shard]))
    return _settle(store, fanout, placement, stop)


def leave(store: Store, fanout: Fanout, shard: str, stop: threading.Event | None = None) -> bool:
    """Give the partitions of `shard` to the others; afterwards nothing asks it any more.

    False if `stop` was set before the end. Raises ValueError if it is the last shard or others are
    coming or going, StoreUnavailableError.
    """
    stop = stop or threading.Event()
    placement = read_placement(store)
    if placement is None:
        raise ValueError("there is no cluster")
    if shard not in placement.shards:
        return True
    if placement.leaving != shard:
        placement = _replaced(store, placement.with_leaving(shard))
    # Also the one that leaves: it must not clear the log while others read old rows of it.
    if not _all_know(fanout, placement, placement.shards, stop):
        return False
    log.info("leaving", shard=shard, partitions=len(placement.shards[shard]))
    return _settle(store, fanout, placement, stop)


def _settle(store: Store, fanout: Fanout, placement: Placement, stop: threading.Event) -> bool:
    """Wait for those who take partitions, then let them answer alone."""
    for head in (0, None):
        # First loaded; then up to where the log ends at that moment.
        upto = store.head() if head is None else head
        while not all(
            _has_come(store, fanout, placement, name, upto) for name in placement.joining
        ):
            if stop.wait(PAUSE_SECONDS):
                return False
    settled = _replaced(store, placement.settled())
    log.info("settled", epoch=settled.epoch, shards=sorted(settled.shards))
    return _all_know(fanout, settled, settled.shards, stop)


def _replaced(store: Store, following: Placement) -> Placement:
    if not replace_placement(store, following):
        raise StoreUnavailableError("the placement was changed by somebody else")
    return following


def _begin(store: Store, shard: str) -> Placement:
    """The placement in which the shard is joining, or has joined."""
    placement = read_placement(store)
    if placement is None:
        raise ValueError("there is no cluster")
    if shard in placement.shards or shard in placement.joining:
        return placement
    return _replaced(store, placement.with_joining(shard))


def _all_know(
    fanout: Fanout, placement: Placement, shards: Iterable[str], stop: threading.Event
) -> bool:
    """Wait until every one of `shards`, also one that is away now, has seen the placement."""
    unaware = set(shards)
    while unaware:
        answers = fanout.ask(unaware, "refresh", deadline=ASK_SECONDS)
        unaware -= {name for name, epoch in answers.items() if epoch >= placement.epoch}
        if unaware and stop.wait(PAUSE_SECONDS):
            return False
    return True


def _has_come(store: Store, fanout: Fanout, placement: Placement, shard: str, head: int) -> bool:
    """Whether the shard holds all that it is to take, as far as `head` in the log."""
    keys = {
        record.id: files_key(shard, placement, record.config)
        for record in store.list_collections()
        if not record.name.startswith(BUILDING)
    }
    answer = fanout.ask([shard], "status", deadline=ASK_SECONDS).get(shard)
    return (
        answer is not None
        and answer.ready
        and all(answer.complete.get(number, -1) >= head for number in keys)
        and all(answer.keys.get(number) == key for number, key in keys.items())
    )
