"""A closeby server small enough to see through, behind httpx's mock transport."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from closeby.client import AsyncClient, Client

SINGULAR = {"texts": "text", "sequences": "sequence", "sets": "set", "vectors": "vector"}


class FakeServer:
    """Stores points in dictionaries; scores by shared letters or elements; remembers requests.

    ``script`` holds answers to give instead, first come first served: an httpx.Response, an
    exception to raise, or None for the usual answer. ``slow(body)`` gives seconds to wait.
    """

    def __init__(self) -> None:
        self.collections: dict[str, dict[str, Any]] = {}
        self.points: dict[str, dict[Any, dict[str, Any]]] = {}
        self.requests: list[httpx.Request] = []
        self.script: list[httpx.Response | Exception | None] = []
        self.slow: Callable[[dict[str, Any]], float] = lambda body: 0.0
        self.max_rows = 10_000
        self.too_many_status = 413
        self.under_way = 0
        self.most_under_way = 0
        self._lock = threading.Lock()

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(request.content) for request in self.requests if request.content]

    def answer(self, request: httpx.Request) -> httpx.Response:
        request.read()
        wait = self._enter(request)
        if wait:
            time.sleep(wait)
        return self._leave(request)

    async def answer_async(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        wait = self._enter(request)
        if wait:
            await asyncio.sleep(wait)
        return self._leave(request)

    def _enter(self, request: httpx.Request) -> float:
        with self._lock:
            self.requests.append(request)
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        return self.slow(json.loads(request.content)) if request.content else 0.0

    def _leave(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            self.under_way -= 1
            scripted = self.script.pop(0) if self.script else None
            if isinstance(scripted, Exception):
                raise scripted
            return scripted or self._usual(request)

    def _usual(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/v1/collections":
            return self._list(request)
        match = re.fullmatch(r"/v1/collections/([^/]+)(?:/(.*))?", path)
        assert match, path
        name, action = match[1], match[2]
        if action is None and request.method == "PUT":
            return self._create(name, json.loads(request.content))
        if name not in self.collections:
            return problem(404, "collection_not_found", f"no collection {name!r}")
        if action is None:
            return self._collection(request.method, name)
        return self._points(action, self.points[name], json.loads(request.content))

    def _create(self, name: str, config: dict[str, Any]) -> httpx.Response:
        known = self.collections.get(name)
        if known is not None and known != config:
            return problem(409, "collection_exists", f"{name!r} has another configuration")
        self.collections[name] = config
        self.points.setdefault(name, {})
        return httpx.Response(201 if known is None else 200, json=self._described(name))

    def _described(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            **self.collections[name],
            "count": len(self.points[name]),
            "created_at": "2026-01-02T03:04:05Z",
            "index_stats": {"engine": "fake"},
        }

    def _collection(self, method: str, name: str) -> httpx.Response:
        if method == "GET":
            return httpx.Response(200, json=self._described(name))
        del self.collections[name], self.points[name]
        return httpx.Response(204)

    def _list(self, request: httpx.Request) -> httpx.Response:
        names = sorted(self.collections)
        start = int(request.url.params.get("cursor", "0"))
        following = str(start + 2) if start + 2 < len(names) else None
        page = [self._described(name) for name in names[start : start + 2]]
        return httpx.Response(200, json={"collections": page, "next_cursor": following})

    def _points(self, action: str, points: dict[Any, Any], body: Any) -> httpx.Response:
        rows = max((len(value) for value in body.values() if isinstance(value, list)), default=0)
        if action != "query" and rows > self.max_rows:
            return self._too_many(next(key for key, value in body.items() if value))
        if action == "points:upsert":
            (column,) = set(body) & set(SINGULAR)
            payloads = body.get("payloads", [None] * len(body["ids"]))
            for one, value, payload in zip(body["ids"], body[column], payloads, strict=True):
                points[one] = {"id": one, SINGULAR[column]: value, "payload": payload}
            return httpx.Response(200, json={"upserted": len(body["ids"]), "took_ms": 1.0})
        if action == "points:get":
            found = [points[one] for one in reversed(body["ids"]) if one in points]
            missing = [one for one in body["ids"] if one not in points]
            return httpx.Response(200, json={"points": found, "missing": missing})
        if action == "points:delete":
            gone = [points.pop(one, None) for one in body["ids"]]
            return httpx.Response(200, json={"deleted": sum(one is not None for one in gone)})
        timing = {"recall_estimate": 0.97, "took_ms": 2.0}
        if action == "query:batch":
            (column,) = set(body) & set(SINGULAR)
            results = [
                {"hits": self._nearest(points, SINGULAR[column], one, body)} for one in body[column]
            ]
            return httpx.Response(200, json={"results": results, **timing})
        assert action == "query", action
        (field,) = set(body) & set(SINGULAR.values())
        return httpx.Response(
            200, json={"hits": self._nearest(points, field, body[field], body), **timing}
        )

    def _too_many(self, field: str) -> httpx.Response:
        if self.too_many_status == 413:
            return problem(413, "body_too_large", "too large")
        fault = {"field": field, "message": "has too many items", "limit": self.max_rows}
        return problem(422, "validation_error", "too many", errors=[fault])

    def _nearest(
        self, points: dict[Any, Any], field: str, value: Any, options: dict[str, Any]
    ) -> list[dict[str, Any]]:
        wanted = set(value)
        scored = []
        for point in points.values():
            held = set(point[field])
            score = len(wanted & held) / max(1, len(wanted | held))
            if score >= options.get("threshold", 0.0):
                hit = {"id": point["id"], "score": score}
                scored.append(
                    hit | ({"payload": point["payload"]} if options["with_payload"] else {})
                )
        return sorted(scored, key=lambda hit: -hit["score"])[: options["limit"]]


def problem(
    status: int, code: str, detail: str, headers: dict[str, str] | None = None, **more: Any
) -> httpx.Response:
    """A problem document as the server words it."""
    body = {
        "type": "about:blank",
        "title": code,
        "status": status,
        "code": code,
        "detail": detail,
        "errors": [],
        "request_id": "r-1",
    }
    return httpx.Response(
        status,
        json=body | more,
        headers={"content-type": "application/problem+json", **(headers or {})},
    )


@pytest.fixture(name="problem")
def problem_fixture() -> Callable[..., httpx.Response]:
    return problem


class Faces:
    """Makes clients of one kind, blocking or asyncio, and lets tests call both alike."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._loop = asyncio.new_event_loop() if kind == "async" else None
        self._made: list[Any] = []

    def client(self, server: FakeServer | Callable[..., Any], **options: Any) -> Any:
        """A client whose transport is ``server``, or a callable on requests."""
        if isinstance(server, FakeServer):
            handler = server.answer if self.kind == "sync" else server.answer_async
        else:
            handler = server
        kind = Client if self.kind == "sync" else AsyncClient
        transport = httpx.MockTransport(handler)
        url = options.pop("url", "http://closeby.test:8080")
        made = kind(url, transport=transport, **options)
        self._made.append(made)
        return made

    def run(self, outcome: Any) -> Any:
        """The outcome of a call: itself, or awaited."""
        if self._loop is not None and inspect.isawaitable(outcome):
            return self._loop.run_until_complete(outcome)
        return outcome

    def close(self) -> None:
        for made in self._made:
            self.run(made.close())
        if self._loop is not None:
            self._loop.close()


@pytest.fixture(params=["sync", "async"])
def faces(request: pytest.FixtureRequest) -> Iterator[Faces]:
    made = Faces(request.param)
    yield made
    made.close()


@pytest.fixture
def fake() -> FakeServer:
    return FakeServer()


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between retries, which tests do not sit through."""
    taken: list[float] = []

    async def nap(seconds: float) -> None:
        taken.append(seconds)

    monkeypatch.setattr("closeby.client.drivers.time.sleep", taken.append)
    monkeypatch.setattr("closeby.client.drivers.asyncio.sleep", nap)
    return taken
