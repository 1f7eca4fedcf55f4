"""Every kind of job there is."""

from __future__ import annotations

from .duplicate_jobs import DUPLICATES
from .evaluation import EVALUATE
from .imports import IMPORT, IMPORT_TESTED
from .jobs import Kind
from .optimize_jobs import FRANK_WOLFE, SELECT
from .reindexing import REINDEX

__all__ = ["KINDS"]

_ALL: tuple[Kind, ...] = (
    IMPORT,
    IMPORT_TESTED,
    DUPLICATES,
    SELECT,
    FRANK_WOLFE,
    EVALUATE,
    REINDEX,
)

KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}
