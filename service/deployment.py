"""One server's parts, without any HTTP: data directory, store, collections, worker threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import structlog

from .build_orders import BuildOrders
from .data_dir import DataDir
from .early_checks import EarlyChecks
from .errors import DataDirError
from .following import Following
from .jobs import JobRunner, Kind, owner_name
from .registry import Registry
from .replanning import Replanning
from .settings import Settings
from .shard import Sealing
from .snapshots import Snapshots
from .store import Store
from .upkeep import Upkeep
from .workers import Workers

__all__ = ["Deployment"]

ROLE = "server"
"""What the owners of jobs that run in a server are named by."""

log = structlog.get_logger(__name__)


def _all_kinds() -> Mapping[str, Kind]:
    from .job_kinds import KINDS  # they bring loaders and more: collections are loaded first

    return KINDS


def _own(kinds: Mapping[str, Kind], settings: Settings) -> dict[str, Kind]:
    """What the server itself does: what workers can do is left to them."""
    return {n: kind for n, kind in kinds.items() if kind.place == "server" or not settings.workers}


class Deployment:
    """Opens the store of `settings.data_dir`; `start` loads the collections in the background.

    Queries and writes have threads of their own: writes wait for the disk, and must not keep
    queries waiting. `kinds` are the jobs it can do. With `settings.read_only` another deployment
    writes to the directory, and this one follows it and changes nothing. `early` has begun to
    compare checksums. Raises StartupError.
    """

    alone = True
    """Whether there is one server of this store at a time."""

    def __init__(
        self,
        settings: Settings,
        kinds: Callable[[], Mapping[str, Kind]] = _all_kinds,
        early: EarlyChecks | None = None,
    ) -> None:
        self.settings = settings
        self._early = early
        self.api_key = settings.read_api_key()
        self._data_dir = None if settings.read_only else DataDir(settings.data_dir)
        try:
            self.store = self._open_store()
        except BaseException:
            self._release()
            raise
        try:
            self.build_orders = BuildOrders(self.store, settings.data_dir / "jobs")
            self.upkeep = Upkeep(lambda: self.registry.kept(), lambda: self.replanning.look())
            self.registry = self._open_registry()
            self.jobs = JobRunner(
                self.store,
                settings,
                lambda: _own(kinds(), settings),
                settings.data_dir / "jobs",
                owner=owner_name(ROLE),
                threads=settings.job_threads,
                registry=self.registry,
            )
            self.replanning = Replanning(
                self.registry,
                self.jobs,
                first=settings.replan_from,
                growth=settings.replan_growth if self.alone and not settings.read_only else 0.0,
                max_queued=settings.max_queued_jobs,
            )
            if self.alone and not settings.read_only:
                # Whoever had these died.
                self.jobs.jobs.release_owner(f"{ROLE}:")
                self.jobs.jobs.forget_hidden()
                self.jobs.remove_strays()
        except OSError as error:
            self.store.close()
            self._release()
            raise DataDirError(f"data directory {settings.data_dir}: {error.strerror}") from error
        except BaseException:
            self.store.close()
            self._release()
            raise
        refresh = self.registry.refresh if settings.read_only else None
        self._following = Following(self.store, self.registry.shards, refresh)
        self.workers = Workers(settings, self.store)
        self.snapshots = Snapshots(settings.data_dir / "snapshots")
        self.query_pool = ThreadPoolExecutor(settings.query_thread_count, "closeby-query")
        self.write_pool = ThreadPoolExecutor(settings.write_threads, "closeby-write")
        self._loader = threading.Thread(target=self._begin, name="closeby-load", daemon=True)
        self._started = False
        self._closed = False
        self.ending = threading.Event()
        """Set as soon as the server is to stop: answers that have no end of their own end then."""
        self.loaded = threading.Event()
        """Set once every collection serves, or has said why it cannot."""

    def _open_store(self) -> Store:
        settings = self.settings
        return Store.open_directory(settings.data_dir, read_only=settings.read_only)

    def _open_registry(self) -> Registry:
        settings = self.settings
        sealing = Sealing(
            settings.shards_dir,
            settings.segment_points,
            settings.verify_files,
            on_frozen=None if settings.read_only else self.upkeep.announce,
            builder=None if settings.read_only else self.build_orders,
        )
        if self._early is not None:
            sealing = replace(sealing, checked=self._early.passed)
        return Registry(
            self.store,
            max_set_elements=settings.max_set_elements,
            sealing=sealing,
            read_only=settings.read_only,
        )

    def start(self) -> None:
        """Begin to load the collections, once."""
        if self._started:
            return
        self._started = True
        self._loader.start()
        if not self.settings.read_only:
            self.upkeep.start()

    def _begin(self) -> None:
        """Load the collections, then start what can wait for that."""
        self._load()
        self.loaded.set()
        if not self.settings.read_only and not self.ending.is_set():
            self.jobs.start()
            self.workers.start()

    def _load(self) -> None:
        self.registry.load()
        if not self.ending.is_set():
            self._following.start()

    def delete_collection(self, name: str) -> None:
        """Delete a collection and cancel its jobs. Raises CollectionNotFoundError."""
        collection = self.registry.get(name).record.id
        self.registry.delete(name)
        self.jobs.jobs.cancel_collection(collection)

    def close(self) -> None:
        """Finish what is being done, seal, close the store and let go of the data directory."""
        if self._closed:
            return
        self._closed = True
        self.ending.set()
        self.registry.stop_loading()
        if self._started:
            self._loader.join()
        self.workers.stop()
        self.jobs.stop()
        self._following.stop()
        self.query_pool.shutdown()
        self.write_pool.shutdown()
        if not self.settings.read_only:
            self.upkeep.stop()
            self.registry.seal_tails()
        self.store.close()
        self._release()
        log.info("closed", data_dir=str(self.settings.data_dir))

    def _release(self) -> None:
        if self._data_dir is not None:
            self._data_dir.release()
