"""Adding a shard while reads and writes go on.

    1. the placement names the new shard and the partitions that it will take; who has them goes on
    2. every shard has seen that, and removes nothing from the log any more
    3. the new shard starts: reads its partitions from the log, follows it, is ready
    4. the next placement gives it the partitions; the others forget them

Each step can be repeated, and one that was cut short is taken up by calling again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog
from closeby.service.errors import StoreUnavailableError
from closeby.service.store import Store

from .fanout import Fanout
from .placement import Placement, read_placement, replace_placement

__all__ = ["join"]

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
    if not _all_know(fanout, placement, stop):
        return False
    start()
    log.info("joining", shard=shard, partitions=len(placement.joining[shard]))
    for head in (0, None):
        # First loaded; then up to where the log ends at that moment.
        upto = store.head() if head is None else head
        while not _has_come(store, fanout, shard, upto):
            if stop.wait(PAUSE_SECONDS):
                return False
    settled = placement.settled()
    if not replace_placement(store, settled):
        raise StoreUnavailableError("the placement was changed by somebody else")
    log.info("joined", shard=shard, epoch=settled.epoch)
    return _all_know(fanout, settled, stop)


def _begin(store: Store, shard: str) -> Placement:
    """The placement in which the shard is joining, or has joined."""
    placement = read_placement(store)
    if placement is None:
        raise ValueError("there is no cluster")
    if shard in placement.shards or shard in placement.joining:
        return placement
    following = placement.with_joining(shard)
    if not replace_placement(store, following):
        raise StoreUnavailableError("the placement was changed by somebody else")
    return following


def _all_know(fanout: Fanout, placement: Placement, stop: threading.Event) -> bool:
    """Wait until every shard, also one that is away now, has seen the placement."""
    unaware = set(placement.shards)
    while unaware:
        answers = fanout.ask(unaware, "refresh", deadline=ASK_SECONDS)
        unaware -= {name for name, epoch in answers.items() if epoch >= placement.epoch}
        if unaware and stop.wait(PAUSE_SECONDS):
            return False
    return True


def _has_come(store: Store, fanout: Fanout, shard: str, head: int) -> bool:
    """Whether the shard has loaded every collection and has come as far as `head` in the log."""
    numbers = {record.id for record in store.list_collections()}
    answer = fanout.ask([shard], "status", deadline=ASK_SECONDS).get(shard)
    return (
        answer is not None
        and answer.ready
        and all(answer.complete.get(number, -1) >= head for number in numbers)
    )
