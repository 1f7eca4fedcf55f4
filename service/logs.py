"""Where logs go, and how they look."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TextIO, cast

import structlog

__all__ = ["configure_logging"]


class _Lossy:
    """A stream whose failures are nobody's: a line that a full disk does not take is lost.

    Whoever logs has something else to do, such as the one thread that writes to the store.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write what can be written."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def configure_logging(level: str, style: str) -> None:
    """Logs go to stderr: one JSON object a line, or text for people."""
    stream = cast(TextIO, _Lossy(sys.stderr))
    threshold = getattr(logging, level.upper())
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if style == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last = [structlog.processors.format_exc_info] if style == "json" else []
    structlog.configure(
        processors=[*shared, *last, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    # The server's own few lines (uvicorn, sqlalchemy) in the same shape.
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=[*shared, *last])
    )
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)
