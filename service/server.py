"""A whole server in this process: socket, deployment, HTTP."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from types import FrameType

import uvicorn

from .deployment import Deployment
from .errors import AddressInUseError
from .logs import configure_logging
from .settings import Settings

__all__ = ["run_server"]


def run_server(settings: Settings) -> bool:
    """Serve until SIGTERM or SIGINT; False if HTTP could not start. Raises StartupError."""
    configure_logging(settings.log_level, settings.log_format)
    listener = _listen(settings.host, settings.port)
    try:
        deployment = Deployment(settings)
    except BaseException:
        listener.close()
        raise
    try:
        return _serve(settings, deployment, listener)
    finally:
        deployment.close()


def _serve(settings: Settings, deployment: Deployment, listener: socket.socket) -> bool:
    deployment.start()
    # Files are mapped and checked meanwhile: the web framework takes a while to import.
    from .app import create_app

    config = uvicorn.Config(
        create_app(settings, deployment),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=int(max(1, settings.shutdown_timeout)),
    )
    server = _Server(config, deployment)

    def ignore(_signal: int, _frame: FrameType | None) -> None:
        """Uvicorn raises the signal again after it has shut down: a clean stop exits with 0."""

    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, ignore)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(server.serve(sockets=[listener]))
    return server.started


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises AddressInUseError with one clear line."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise AddressInUseError(f"cannot listen on {host}: {error.strerror}") from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise AddressInUseError(
            f"cannot listen on {host} port {port}: {error.strerror}; another --port, or 0 for a"
            " free one, may do"
        ) from error
    listener.setblocking(False)
    return listener


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
