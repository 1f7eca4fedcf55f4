"""Choosing and combining points of a collection: the jobs `select` and `frank_wolfe`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from .answers import api_error
from .errors import UnexpectedAnswerError
from .faces import Operation
from .flows import Flow, Request, Send
from .jobs import JobOperations
from .results import FrankWolfeResult, JobInfo, PointId, SelectResult
from .session import Session
from .values import OneVector, checked_id, encoded_vector
from .wire import decode, encode

J = TypeVar("J", bound=JobOperations, covariant=True)

Oracle: TypeAlias = Literal["auto", "exact", "index"]
Criterion: TypeAlias = Literal["greedy", "inner"]
Variant: TypeAlias = Literal["fw", "pairwise", "bpcg"]
Certify: TypeAlias = Literal["never", "final", "always"]
Filter: TypeAlias = Mapping[str, Any]
"""``{"lang": "en", "year": [2020, 2021]}``: values of payloads, of each field one of them."""


class OptimizeOperations(Generic[J]):
    """What a client does with the points of one collection as a whole."""

    _session: Session
    _path: str
    _job_type: type[J]

    @Operation
    def select(
        self,
        m: int,
        *,
        target: OneVector | None = None,
        filter: Filter | None = None,  # noqa: A002 - the name of the field
        exclude: Iterable[PointId] = (),
        unique: bool = True,
        oracle: Oracle = "auto",
        criterion: Criterion = "greedy",
        seed: int = 0,
        progress: Callable[[JobInfo], object] | None = None,
        timeout: float | None = None,
    ) -> Flow[SelectResult]:
        """Choose ``m`` points that represent all: their mean approaches that of all.

        ``target`` is another mean to approach. Only points that match ``filter`` are represented
        and chosen; those of ``exclude`` are not chosen. ``unique=False`` lets points be chosen
        again. ``oracle="exact"`` compares all points at each choice, ``"index"`` searches.
        ``criterion="inner"`` takes the point of highest inner product with what is missing, for
        which a collection by inner product is searched in its own index.

        Waits for the job, ``progress(info)`` told of it; ``start_select`` does not wait.

        Raises ValidationError for what cannot be done, JobFailedError, JobTimeoutError after
        ``timeout`` seconds (the job goes on).
        """
        body = _select_body(m, target, filter, exclude, unique, oracle, criterion, seed)
        info, rows = yield from self._run("select", body, progress, timeout)
        return SelectResult(
            [row["id"] for row in rows],
            [row["weight"] for row in rows],
            [row["discrepancy"] for row in rows],
            [row["random_discrepancy"] for row in rows],
            _result(info)["points"],
            _result(info)["oracle"],
            info.id,
        )

    @Operation
    def start_select(
        self,
        m: int,
        *,
        target: OneVector | None = None,
        filter: Filter | None = None,  # noqa: A002
        exclude: Iterable[PointId] = (),
        unique: bool = True,
        oracle: Oracle = "auto",
        criterion: Criterion = "greedy",
        seed: int = 0,
    ) -> Flow[J]:
        """Begin what ``select`` does; the `Job`, whose ``rows`` are the points chosen."""
        body = _select_body(m, target, filter, exclude, unique, oracle, criterion, seed)
        return (yield from self._start("select", body))

    @Operation
    def frank_wolfe(
        self,
        target: OneVector,
        *,
        signed: bool = False,
        radius: float = 1.0,
        variant: Variant = "bpcg",
        max_iter: int = 1_000,
        tol: float = 1e-6,
        certify: Certify = "final",
        filter: Filter | None = None,  # noqa: A002
        exclude: Iterable[PointId] = (),
        seed: int = 0,
        progress: Callable[[JobInfo], object] | None = None,
        timeout: float | None = None,
    ) -> Flow[FrankWolfeResult]:
        """Approximate ``target`` by a combination of few points, of least squared distance.

        Weights are positive and add up to ``radius``; with ``signed`` they are of either sign with
        an absolute sum of at most ``radius``. Stops after ``max_iter`` steps or at a gap of
        ``tol``; ``certify`` says when all points are compared to prove the gap. ``filter`` and
        ``exclude`` leave points out.

        Waits as ``select`` does, and raises the same; ``start_frank_wolfe`` does not wait.
        """
        body = _frank_wolfe_body(
            target, signed, radius, variant, max_iter, tol, certify, filter, exclude, seed
        )
        info, rows = yield from self._run("frank_wolfe", body, progress, timeout)
        result = _result(info)
        return FrankWolfeResult(
            [row["id"] for row in rows],
            [row["weight"] for row in rows],
            result["objective"],
            result["gap"],
            result["certified"],
            result["bound"],
            result["status"],
            result["iterations"],
            result["trace"],
            result["points"],
            info.id,
        )

    @Operation
    def start_frank_wolfe(
        self,
        target: OneVector,
        *,
        signed: bool = False,
        radius: float = 1.0,
        variant: Variant = "bpcg",
        max_iter: int = 1_000,
        tol: float = 1e-6,
        certify: Certify = "final",
        filter: Filter | None = None,  # noqa: A002
        exclude: Iterable[PointId] = (),
        seed: int = 0,
    ) -> Flow[J]:
        """Begin what ``frank_wolfe`` does; the `Job`, whose ``rows`` are the points with weight."""
        body = _frank_wolfe_body(
            target, signed, radius, variant, max_iter, tol, certify, filter, exclude, seed
        )
        return (yield from self._start("frank_wolfe", body))

    def _start(self, kind: str, body: bytes) -> Flow[J]:
        # Not repeated after a lost answer: that would begin a second one.
        response = yield Send(Request("POST", f"{self._path}/{kind}", body))
        if response.status >= 400:
            raise api_error(response)
        return self._job_type(self._session, self._session.read(response, "id", "state")["id"])

    def _run(
        self,
        kind: str,
        body: bytes,
        progress: Callable[[JobInfo], object] | None,
        timeout: float | None,
    ) -> Flow[tuple[JobInfo, list[dict[str, Any]]]]:
        job = yield from self._start(kind, body)
        info = yield from job._finished(progress, timeout)
        content = yield from job._content("ndjson")
        try:
            rows = [decode(line) for line in content.splitlines()]
        except ValueError as error:
            raise UnexpectedAnswerError(f"the result of job {job.id} is damaged") from error
        return info, rows


def _result(info: JobInfo) -> Mapping[str, Any]:
    return info.result or {}


def _select_body(
    m: int,
    target: OneVector | None,
    matching: Filter | None,
    exclude: Iterable[PointId],
    unique: bool,
    oracle: Oracle,
    criterion: Criterion,
    seed: int,
) -> bytes:
    options = {
        "m": m, "unique": unique, "oracle": oracle, "criterion": criterion, "seed": seed
    }  # fmt: skip
    return _body(options, target, matching, exclude)


def _frank_wolfe_body(
    target: OneVector,
    signed: bool,
    radius: float,
    variant: Variant,
    max_iter: int,
    tol: float,
    certify: Certify,
    matching: Filter | None,
    exclude: Iterable[PointId],
    seed: int,
) -> bytes:
    options = {
        "signed": signed,
        "radius": radius,
        "variant": variant,
        "max_iter": max_iter,
        "tol": tol,
        "certify": certify,
        "seed": seed,
    }
    return _body(options, target, matching, exclude)


def _body(
    options: dict[str, Any],
    target: OneVector | None,
    matching: Filter | None,
    exclude: Iterable[PointId],
) -> bytes:
    if matching is not None:
        options["filter"] = dict(matching)
    options["exclude"] = [checked_id(one, "exclude", row) for row, one in enumerate(exclude)]
    body = encode(options, field="body")
    if target is None:
        return body
    return b'{"target":' + encoded_vector(target, "target") + b"," + body[1:]
