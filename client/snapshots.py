"""Snapshots of a collection."""

from __future__ import annotations

from urllib.parse import quote

from .answers import api_error, collection_info, snapshot_of
from .errors import InvalidInputError
from .faces import Operation
from .flows import Flow, Request, Send
from .results import CollectionInfo, Snapshot
from .session import Session
from .wire import encode


class SnapshotOperations:
    """What a client does with the snapshots of one collection."""

    _session: Session
    _path: str

    @Operation
    def snapshot(self) -> Flow[Snapshot]:
        """Keep all points as they are at this moment, on the server; writes go on meanwhile.

        Raises NotFoundError without the collection.
        """
        # Not repeated after a lost answer: that would make a second one.
        response = yield Send(Request("POST", f"{self._path}/snapshots"))
        if response.status >= 400:
            raise api_error(response)
        return snapshot_of(self._session.read(response, "name", "points"))

    @Operation
    def list_snapshots(self) -> Flow[list[Snapshot]]:
        """The snapshots of the collection, oldest first, also after it was deleted."""
        response = yield from self._session.call("GET", f"{self._path}/snapshots")
        return [snapshot_of(one) for one in self._session.read(response, "snapshots")["snapshots"]]

    @Operation
    def download_snapshot(self, name: str) -> Flow[bytes]:
        """The snapshot as the bytes of a file, to be kept elsewhere; they lie in memory.

        Raises NotFoundError if there is none of that name.
        """
        response = yield from self._session.call("GET", self._snapshot(name))
        return response.content

    @Operation
    def upload_snapshot(self, name: str, content: bytes) -> Flow[Snapshot]:
        """Give the server a snapshot that was downloaded, here or from another server.

        Raises ValidationError if it is damaged; then nothing changes.
        """
        response = yield from self._session.call(
            "PUT", self._snapshot(name), content, media_type="application/octet-stream"
        )
        return snapshot_of(self._session.read(response, "name", "points"))

    @Operation
    def delete_snapshot(self, name: str) -> Flow[None]:
        """Remove a snapshot. Raises NotFoundError if there is none of that name."""
        yield from self._session.call("DELETE", self._snapshot(name))

    @Operation
    def restore_snapshot(
        self, name: str, *, into: str | None = None, replace: bool = False
    ) -> Flow[CollectionInfo]:
        """Make a collection of a snapshot: ``into`` another name, or this collection again.

        It is there once it is complete. Raises ConflictError if there is a collection of that name
        and ``replace`` is false, NotFoundError without the snapshot, ValidationError if it is
        damaged.
        """
        body = encode({"into": into, "replace": replace}, field="restore_snapshot")
        response = yield Send(Request("POST", f"{self._snapshot(name)}/restore", body))
        if response.status >= 400:
            raise api_error(response)
        return collection_info(self._session.read(response, "name", "count"))

    def _snapshot(self, name: str) -> str:
        if not isinstance(name, str) or name in ("", ".", ".."):
            raise InvalidInputError(f"{name!r} is no name of a snapshot", field="name")
        return f"{self._path}/snapshots/{quote(name, safe='')}"
