"""One server's parts, without any HTTP: data directory, store, collections, worker threads."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import structlog

from .data_dir import DataDir
from .errors import DataDirError
from .job_kinds import KINDS
from .jobs import JobRunner, Kind, owner_name
from .registry import Registry
from .settings import Settings
from .shard import Sealing
from .snapshots import Snapshots
from .store import Store
from .upkeep import Upkeep

__all__ = ["Deployment"]

ROLE = "server"
"""What the owners of jobs that run in a server are named by."""

log = structlog.get_logger(__name__)


class Deployment:
    """Opens the store of `settings.data_dir`; `start` loads the collections in the background.

    Queries and writes have threads of their own: writes wait for the disk, and must not keep
    queries waiting. `kinds` are the jobs it can do. Raises StartupError.
    """

    def __init__(self, settings: Settings, kinds: Mapping[str, Kind] = KINDS) -> None:
        self.settings = settings
        self.api_key = settings.read_api_key()
        self._data_dir = DataDir(settings.data_dir)
        try:
            self.store = Store.open_directory(settings.data_dir)
        except BaseException:
            self._data_dir.release()
            raise
        try:
            self.upkeep = Upkeep(lambda: self.registry.kept())
            sealing = Sealing(
                settings.data_dir / "shards",
                settings.segment_points,
                settings.verify_files,
                self.upkeep.announce,
            )
            self.registry = Registry(
                self.store, max_set_elements=settings.max_set_elements, sealing=sealing
            )
            self.jobs = JobRunner(
                self.store,
                settings,
                kinds,
                settings.data_dir / "jobs",
                owner=owner_name(ROLE),
                threads=settings.job_threads,
                registry=self.registry,
            )
            # Whoever had these died: there is one server at a time.
            self.jobs.jobs.release_owner(f"{ROLE}:")
            self.jobs.remove_strays()
        except OSError as error:
            self.store.close()
            self._data_dir.release()
            raise DataDirError(f"data directory {settings.data_dir}: {error.strerror}") from error
        except BaseException:
            self.store.close()
            self._data_dir.release()
            raise
        self.snapshots = Snapshots(settings.data_dir / "snapshots")
        self.query_pool = ThreadPoolExecutor(settings.query_thread_count, "closeby-query")
        self.write_pool = ThreadPoolExecutor(settings.write_threads, "closeby-write")
        self._loader = threading.Thread(target=self.registry.load, name="closeby-load", daemon=True)
        self._started = False
        self._closed = False
        self.ending = threading.Event()
        """Set as soon as the server is to stop: answers that have no end of their own end then."""

    def start(self) -> None:
        """Begin to load the collections."""
        self._started = True
        self._loader.start()
        self.upkeep.start()
        self.jobs.start()

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
        self.jobs.stop()
        self.registry.stop_loading()
        if self._started:
            self._loader.join()
        self.query_pool.shutdown()
        self.write_pool.shutdown()
        self.upkeep.stop()
        self.registry.seal_tails()
        self.store.close()
        self._data_dir.release()
        log.info("closed", data_dir=str(self.settings.data_dir))
