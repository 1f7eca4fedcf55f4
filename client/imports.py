"""Files into a collection, and near-duplicates out of it: both as jobs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, TypeAlias

from .answers import api_error
from .errors import InvalidInputError
from .faces import Operation
from .flows import Flow, Request, Response, Send
from .optimize import J
from .session import Session
from .wire import encode

OnDuplicate: TypeAlias = Literal["keep", "link", "skip", "reject"]


class ImportOperations(Generic[J]):
    """What a client does with files of points, and with points that are near one another."""

    _session: Session
    _path: str
    _job_type: type[J]

    @Operation
    def import_file(
        self,
        path: str | os.PathLike[str],
        *,
        on_server: bool = False,
        format: str | None = None,  # noqa: A002
        columns: Mapping[str, Any] | None = None,
        on_error: Literal["skip", "stop"] = "skip",
        on_duplicate: OnDuplicate | None = None,
        threshold: float | None = None,
        id_prefix: str | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> Flow[J]:
        """Import the points of a file; the `Job` that does it, to be waited for.

        The file is uploaded as it is read, ``progress(sent, total)`` told of its bytes; with
        ``on_server`` it is one of the server's, under its ``import_roots``. ``format`` is found by
        name and content unless given; ``columns`` are options of it (``{"column": "body"}``).
        A row that cannot be a point is left out and counted, or ends the job
        (``on_error="stop"``). ``id_prefix`` is put before each id. With
        ``on_duplicate`` points are tested against all earlier ones: near-duplicates of
        ``threshold`` similarity at least are kept, linked, skipped, or end the job.

        Raises InvalidInputError if the file cannot be read, ValidationError if it is not what it
        says, NotFoundError without the collection, RateLimitedError if too many jobs are waiting.
        """
        options = {
            "format": format,
            "columns": columns,
            "on_error": on_error,
            "on_duplicate": on_duplicate,
            "threshold": threshold,
            "id_prefix": id_prefix,
        }
        wanted = {name: value for name, value in options.items() if value is not None}
        where = f"{self._path}/imports"
        if on_server:
            body = encode({"path": os.fspath(path), **wanted}, field="import_file")
            response = yield from self._session.call("POST", where, body)
        else:
            response = yield from self._upload(where, Path(path), wanted, progress)
        return self._job_type(self._session, self._session.read(response, "id", "state")["id"])

    def _upload(
        self,
        where: str,
        path: Path,
        options: Mapping[str, Any],
        progress: Callable[[int, int], object] | None,
    ) -> Flow[Response]:
        # As parameters: strings as they are, the rest as JSON.
        params = {
            name: value if isinstance(value, str) else encode(value, field=name).decode()
            for name, value in options.items()
        }
        try:
            total = path.stat().st_size
            path.open("rb").close()
        except OSError as error:
            raise InvalidInputError(f"{path}: {error.strerror}", field="path") from error
        request = Request(
            "POST",
            where,
            path,
            {"filename": path.name, **params},
            "application/octet-stream",
            None if progress is None else lambda sent: progress(sent, total),
        )
        # Not repeated after a lost answer: that would import the file twice, to the same points.
        response: Response = yield Send(request)
        if response.status >= 400:
            raise api_error(response)
        return response

    @Operation
    def duplicates(
        self,
        threshold: float,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        keep: Literal["first", "last", "longest", "shortest"] = "first",
        target_recall: float | None = None,
        formats: Sequence[Literal["ndjson", "parquet"]] = ("ndjson",),
    ) -> Flow[J]:
        """Find all pairs of points whose similarity is ``threshold`` at least; the `Job` that does.

        ``job.wait().result`` has the counts, ``job.rows()`` a row for each pair: ``a``, ``b``,
        ``score``, and ``keep``, the point to keep of their cluster, by the rule ``keep``. Only
        points whose payload has the values of ``filter``; ``target_recall`` is the share of the
        pairs at the threshold that is to be found.

        Raises NotFoundError without the collection, ValidationError for a value out of range.
        """
        asked = {
            "threshold": threshold,
            "filter": None if filter is None else dict(filter),
            "keep": keep,
            "target_recall": target_recall,
            "formats": list(formats),
        }
        body = encode(
            {name: value for name, value in asked.items() if value is not None}, field="duplicates"
        )
        response = yield from self._session.call("POST", f"{self._path}/duplicates", body)
        return self._job_type(self._session, self._session.read(response, "id", "state")["id"])
