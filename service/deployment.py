"""One server's parts, without any HTTP: data directory, store, collections, worker threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import structlog

from .data_dir import DataDir
from .errors import DataDirError
from .registry import Registry
from .settings import Settings
from .shard import Sealing
from .snapshots import Snapshots
from .store import Store
from .upkeep import Upkeep

__all__ = ["Deployment"]

log = structlog.get_logger(__name__)


class Deployment:
    """Opens the store of `settings.data_dir`; `start` loads the collections in the background.

    Queries and writes have threads of their own: writes wait for the disk, and must not keep
    queries waiting. Raises StartupError.
    """

    def __init__(self, settings: Settings) -> None:
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

    def start(self) -> None:
        """Begin to load the collections."""
        self._started = True
        self._loader.start()
        self.upkeep.start()

    def close(self) -> None:
        """Finish what is being done, seal, close the store and let go of the data directory."""
        if self._closed:
            return
        self._closed = True
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
