"""The parts of an ingress: store, collections over all shards, jobs, worker threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog
from closeby.index.errors import ClosebyError
from closeby.service.deployment import Deployment
from closeby.service.errors import StartupError
from closeby.service.registry import Registry
from closeby.service.settings import Settings
from closeby.service.store import Store

from .collection import ClusterState
from .fanout import Fanout, Link
from .placement import Placement, read_placement
from .registry import ClusterRegistry

__all__ = ["ClusterDeployment"]

REFRESH_SECONDS = 1.0
"""How often the placement, the list of collections and their counts are read."""
PLACEMENT_SECONDS = 60.0
"""How long an ingress waits for the placement at its start."""

log = structlog.get_logger(__name__)


class ClusterDeployment(Deployment):
    """An ingress of the cluster whose store is at `store_url`.

    `connect` gives a link to a shard by its name; shards are given `deadline` seconds.
    `settings.data_dir` is the ingress's own: results of jobs, snapshots. Raises StartupError.
    """

    alone = False

    def __init__(
        self,
        settings: Settings,
        store_url: str,
        connect: Callable[[str], Link],
        deadline: float,
        hedge_percentile: float | None = None,
    ) -> None:
        self._store_url = store_url
        self._fanout = Fanout(connect, hedge_percentile)
        self._deadline = deadline
        self._stop_following = threading.Event()
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        # Worker processes share a directory with their server, not a database.
        super().__init__(settings.model_copy(update={"workers": 0}))
        self._follower = threading.Thread(target=self._follow, name="closeby-follow", daemon=True)

    def _open_store(self) -> Store:
        return Store(self._store_url)

    def _open_registry(self) -> Registry:
        self.state = ClusterState(
            self._fanout, self._await_placement(), self._read_placement, self._deadline
        )
        limit = self.settings.max_set_elements
        return ClusterRegistry(self.store, self.state, max_set_elements=limit)

    def start(self) -> None:
        """See `Deployment.start`."""
        super().start()
        self._follower.start()

    def _load(self) -> None:
        """Nothing: the shards load and follow the log."""

    def close(self) -> None:
        """See `Deployment.close`."""
        self._stop_following.set()
        if self._follower.is_alive():
            self._follower.join()
        super().close()
        self._fanout.close()

    def _read_placement(self) -> Placement:
        found = read_placement(self.store)
        if found is None:
            raise StartupError("the cluster has no placement yet; see `closeby cluster up`")
        return found

    def _await_placement(self) -> Placement:
        end = time.monotonic() + PLACEMENT_SECONDS
        while True:
            try:
                return self._read_placement()
            except StartupError:
                if time.monotonic() > end:
                    raise
            time.sleep(0.2)

    def _follow(self) -> None:
        registry = self.registry
        assert isinstance(registry, ClusterRegistry)
        while not self._stop_following.wait(REFRESH_SECONDS):
            try:
                self.state.refresh()
                registry.refresh()
                registry.count()
            except ClosebyError as error:
                log.warning("follow_failed", error=str(error))
