"""When a request is sent a second time: as late as the slowest of its kind usually answer.

A second request costs the shard a second search, so it is sent when all but a few of the shard's
answers would have come (Dean and Barroso, The Tail at Scale, CACM 56(2), 2013: the 95th
percentile costs about 5 % more requests), and to few enough that a shard that is slow throughout
is not asked twice for everything.
"""

from __future__ import annotations

import threading
from collections import deque

import numpy as np

__all__ = ["Hedging"]

WINDOW = 512
"""Answers of a shard that its percentile is taken of."""
LEAST_ANSWERS = 50
"""Before so many it is not known what is late."""
RENEWED_EVERY = 32
"""Answers after which the percentile is taken anew."""
LEAST_SECONDS = 0.002
"""Sooner than this nothing is sent again: the way there takes as long."""
EARNED = 0.1
"""Second requests for each first one, in the long run."""
LARGEST_CREDIT = 10.0


class Hedging:
    """Of one shard and method: how long its answers take, and what may be sent again.

    `percentile` in (0, 100). Thread-safe.
    """

    def __init__(self, percentile: float) -> None:
        self._percentile = percentile
        self._lock = threading.Lock()
        self._seconds: deque[float] = deque(maxlen=WINDOW)
        self._noted = 0
        self._delay: float | None = None
        self._credit = 0.0
        self.sent = 0
        """Second requests."""
        self.won = 0
        """Second requests that answered first."""

    @property
    def delay(self) -> float | None:
        """Seconds after which to send again; None while it is not known."""
        return self._delay

    def note(self, seconds: float) -> None:
        """An answer took so long, since its first request was sent."""
        with self._lock:
            self._seconds.append(seconds)
            self._noted += 1
            self._credit = min(LARGEST_CREDIT, self._credit + EARNED)
            if len(self._seconds) >= LEAST_ANSWERS and self._noted % RENEWED_EVERY == 0:
                late = float(np.percentile(np.array(self._seconds), self._percentile))
                self._delay = max(LEAST_SECONDS, late)

    def spend(self) -> bool:
        """Whether one more may be sent; it counts as sent then."""
        with self._lock:
            if self._credit < 1:
                return False
            self._credit -= 1
            self.sent += 1
            return True

    def win(self) -> None:
        """The second request answered first."""
        with self._lock:
            self.won += 1
