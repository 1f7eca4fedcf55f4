"""A server's first steps, before most of it is imported."""

from __future__ import annotations

import gc
import sys
from types import ModuleType
from typing import cast

from .early_checks import EarlyChecks
from .settings import Settings

__all__ = ["launch"]

SWITCH_SECONDS = 0.0001
"""How long a thread may keep the interpreter from others: a query waits for it several times."""


def launch(settings: Settings) -> bool:
    """Serve until SIGTERM or SIGINT; False if HTTP could not start. Raises StartupError."""
    # What is imported stays: looking for garbage among it would take a tenth of the start.
    gc.disable()
    sys.setswitchinterval(SWITCH_SECONDS)
    early = None
    if settings.verify_files and not settings.read_only:
        early = EarlyChecks(settings.shards_dir)
    _import_structlog()
    from .server import run_server  # half a second, in which files are checked

    return run_server(settings, early)


def _import_structlog() -> None:
    """Without rich, which it takes for coloured tracebacks where it is installed.

    No log of ours has them, and a fifteenth of a start would go into importing it.
    """
    if "rich" in sys.modules:
        return
    hidden: dict[str, ModuleType | None] = cast("dict[str, ModuleType | None]", sys.modules)
    hidden["rich"] = None
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]
