"""Sealed segments in object storage: written once, fetched by shards that start elsewhere.

An object's name ends with the xxh3 of its bytes, so two processes that write the same name write
the same bytes, and what a crash left behind never stands in the way.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import obstore
import xxhash
from closeby.index.errors import CorruptFileError
from closeby.service.durable_files import PARTIAL, remove, sync_directory
from closeby.service.errors import ImportFileError
from closeby.service.import_files import safe_name
from closeby.service.manifest import FileEntry

__all__ = ["SegmentStore", "SegmentStoreError", "download"]

LARGEST_AT_ONCE = 1 << 30
"""Larger files go up in parts, which no object storage can make conditional."""


class SegmentStoreError(OSError):
    """Object storage did not do what was asked."""


class SegmentStore:
    """Objects below `url`: `s3://bucket/path`, `file:///directory`, or what obstore knows else.

    Credentials and endpoint of object storage are taken from where its own tools take them
    (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, …). Raises SegmentStoreError.
    """

    def __init__(self, url: str) -> None:
        options = {"mkdir": True} if url.startswith("file://") else {}
        try:
            self._store = obstore.store.from_url(url, **options)
        except (obstore.exceptions.BaseError, ValueError) as error:
            raise SegmentStoreError(f"{url}: {error}") from error

    def put(self, prefix: str, directory: Path, file: FileEntry) -> None:
        """Upload a file that is not there yet; on return it is durable."""
        key = _key(prefix, file)
        try:
            if file.size <= LARGEST_AT_ONCE:
                obstore.put(self._store, key, directory / file.name, mode="create")
            elif not self.has(prefix, file):
                obstore.put(self._store, key, directory / file.name)
        except obstore.exceptions.AlreadyExistsError:
            if not self.has(prefix, file):
                raise SegmentStoreError(f"{key} exists with another size") from None
        except (obstore.exceptions.BaseError, OSError) as error:
            raise SegmentStoreError(f"{key} cannot be stored: {_first_line(error)}") from error

    def has(self, prefix: str, file: FileEntry) -> bool:
        """Whether the object is there, in full."""
        try:
            return int(obstore.head(self._store, _key(prefix, file))["size"]) == file.size
        except FileNotFoundError:
            return False
        except (obstore.exceptions.BaseError, OSError) as error:
            raise SegmentStoreError(_first_line(error)) from error

    def fetch(self, prefix: str, directory: Path, file: FileEntry) -> None:
        """Download a file and compare its checksum; it is there in full or not at all.

        Raises CorruptFileError if the object is not what was stored.
        """
        key, path = _key(prefix, file), directory / file.name
        temporary = path.with_name(path.name + PARTIAL)
        digest, size = xxhash.xxh3_64(), 0
        try:
            with temporary.open("wb") as out:
                for part in obstore.get(self._store, key).stream():
                    digest.update(part)
                    size += len(part)
                    out.write(part)
                out.flush()
                os.fsync(out.fileno())
            if (size, digest.hexdigest()) != (file.size, file.xxh3):
                raise CorruptFileError("the object is not what was stored", path=key)
            temporary.replace(path)
            sync_directory(directory)
        except (obstore.exceptions.BaseError, OSError) as error:
            raise SegmentStoreError(f"{key} cannot be fetched: {_first_line(error)}") from error
        finally:
            remove([temporary])

    def delete(self, prefix: str, files: Iterable[FileEntry]) -> None:
        """Remove these objects, if they are there."""
        self._delete([_key(prefix, file) for file in files])

    def delete_all(self, prefix: str) -> None:
        """Remove all objects below `prefix`."""
        try:
            pages = list(obstore.list(self._store, prefix))
        except (obstore.exceptions.BaseError, OSError) as error:
            raise SegmentStoreError(f"{prefix}: {_first_line(error)}") from error
        self._delete([item["path"] for page in pages for item in page])

    def _delete(self, keys: list[str]) -> None:
        try:
            for key in keys:
                with contextlib.suppress(FileNotFoundError):
                    obstore.delete(self._store, key)
        except (obstore.exceptions.BaseError, OSError) as error:
            raise SegmentStoreError(f"objects cannot be removed: {_first_line(error)}") from error


def download(url: str, folder: Path) -> Path:
    """An object of any kind as a file in `folder`. Raises ImportFileError."""
    place, _, name = url.rpartition("/")
    path = folder / safe_name(name)
    try:
        store = obstore.store.from_url(place)
        with path.open("wb") as out:
            for part in obstore.get(store, name).stream():
                out.write(part)
    except FileNotFoundError as error:
        raise ImportFileError(f"{url}: there is no such object") from error
    except (obstore.exceptions.BaseError, OSError, ValueError) as error:
        raise ImportFileError(f"{url} cannot be fetched: {_first_line(error)}") from error
    return path


def _key(prefix: str, file: FileEntry) -> str:
    return f"{prefix}/{file.name}-{file.xxh3}"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
