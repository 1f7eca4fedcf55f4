"""HTTP on a socket that listens already, until the process is told to end."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from types import FrameType

import uvicorn

from .deployment import Deployment
from .front import Front, guarded, open_service
from .settings import Settings
from .telemetry import Metrics

__all__ = ["open_front", "serve"]


def open_front(settings: Settings, deployment: Deployment) -> Front:
    """What answers by `deployment`, which is started."""
    return Front(open_service(settings, deployment, Metrics()))


def serve(settings: Settings, front: Front, listener: socket.socket) -> bool:
    """Answer until SIGTERM or SIGINT; False if HTTP could not start."""
    config = uvicorn.Config(
        guarded(front),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=int(max(1, settings.shutdown_timeout)),
    )
    server = _Server(config, front.state.service.deployment)

    def ignore(_signal: int, _frame: FrameType | None) -> None:
        """Uvicorn raises the signal again after it has shut down: a clean stop exits with 0."""

    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, ignore)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(server.serve(sockets=[listener]))
    return server.started


class _Server(uvicorn.Server):
    """Says where it listens, once it does; ends what has no end of its own when it stops."""

    def __init__(self, config: uvicorn.Config, deployment: Deployment) -> None:
        super().__init__(config)
        self._deployment = deployment

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._deployment.ending.set()
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            sys.stdout.write(f"closeby listens on http://{shown}:{port}\n")
            sys.stdout.flush()
