"""How a store of an older closeby becomes one of this: one step for each version of the schema.

1   the first
2   `partition` in the log; rows from before have none and are found by their point
3   the table `cleared`
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

__all__ = ["SCHEMA_VERSION", "migrate"]


def _add_partition(connection: sa.Connection) -> None:
    connection.execute(sa.text("ALTER TABLE log ADD COLUMN partition SMALLINT"))


def _nothing(_: sa.Connection) -> None:
    """New tables are made before."""


_STEPS: dict[int, Callable[[sa.Connection], None]] = {1: _add_partition, 2: _nothing}
"""By the version that each step starts from."""

SCHEMA_VERSION = len(_STEPS) + 1


def migrate(connection: sa.Connection, version: int) -> None:
    """Bring tables of `version` up to date; new tables are there already."""
    for step in range(version, SCHEMA_VERSION):
        _STEPS[step](connection)
