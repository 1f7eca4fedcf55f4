"""A whole server in this process: socket, deployment, HTTP."""

from __future__ import annotations

import gc
import socket

from .deployment import Deployment
from .early_checks import EarlyChecks
from .errors import AddressInUseError
from .logs import configure_logging
from .settings import Settings

__all__ = ["run_server"]


def run_server(settings: Settings, early: EarlyChecks | None = None) -> bool:
    """Serve until SIGTERM or SIGINT; False if HTTP could not start. Raises StartupError.

    `early` has begun to compare the checksums of the data directory's files.
    """
    configure_logging(settings.log_level, settings.log_format)
    listener = _listen(settings.host, settings.port)
    try:
        deployment = Deployment(settings, early=early)
    except BaseException:
        listener.close()
        raise
    try:
        deployment.start()
        # Files are mapped and checked meanwhile: HTTP takes a while to import.
        from .serving import open_front, serve

        front = open_front(settings, deployment)
        front.rest.add_done_callback(lambda _: _settle())
        return serve(settings, front, listener)
    finally:
        deployment.close()


def _settle() -> None:
    """All is imported, and stays: no collection of garbage looks through it again."""
    gc.collect()
    gc.freeze()
    gc.enable()


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
