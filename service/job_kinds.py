"""Every kind of job there is."""

from __future__ import annotations

from .imports import IMPORT
from .jobs import Kind

__all__ = ["KINDS"]

_ALL: tuple[Kind, ...] = (IMPORT,)

KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}
