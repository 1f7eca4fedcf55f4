"""Every kind of job there is."""

from __future__ import annotations

from .duplicate_jobs import DUPLICATES
from .imports import IMPORT
from .jobs import Kind
from .optimize_jobs import FRANK_WOLFE, SELECT

__all__ = ["KINDS"]

_ALL: tuple[Kind, ...] = (IMPORT, DUPLICATES, SELECT, FRANK_WOLFE)

KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}
