"""What a route needs to answer: the deployment, the bounds, the metrics, the worker threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request

from .admission import Admission
from .deployment import Deployment
from .settings import Settings
from .telemetry import Metrics

__all__ = ["Service", "service_of"]

T = TypeVar("T")


@dataclass(slots=True)
class Service:
    """Kept in `app.state.service`. To be used from the event loop only."""

    settings: Settings
    deployment: Deployment
    admission: Admission
    metrics: Metrics
    watchers: int = 0
    """Streams of events that are open."""
    uploads: int = 0
    """Files that are being received."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count one more stream of events."""
        self.watchers += 1
        try:
            yield
        finally:
            self.watchers -= 1

    @contextmanager
    def uploading(self) -> Iterator[None]:
        """Count one more file that is being received."""
        self.uploads += 1
        try:
            yield
        finally:
            self.uploads -= 1

    async def read(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run a query in a query thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.deployment.query_pool, work, *arguments)

    async def write(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run a write in a write thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.deployment.write_pool, work, *arguments)


def service_of(request: Request) -> Service:
    """The service that answers `request`."""
    found: Service = request.app.state.service
    return found
