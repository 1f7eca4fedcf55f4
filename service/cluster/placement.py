"""Which shard holds which partitions of every collection.

The placement is one row of the store, replaced as a whole; `epoch` counts its versions. While a
shard joins, the partitions that it will take are held twice: it reads them, and those who had them
go on answering for them until the next epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from closeby.service.partitions import PARTITIONS
from closeby.service.schema import placement as placement_table
from closeby.service.store import Store

__all__ = ["Placement", "read_placement", "replace_placement"]

NAME = "placement"


@dataclass(frozen=True, slots=True)
class Placement:
    """`shards`: name -> the partitions that it answers for; `joining`: what a new one will take."""

    epoch: int
    shards: dict[str, frozenset[int]]
    joining: dict[str, frozenset[int]]

    @classmethod
    def even(cls, names: Sequence[str]) -> Placement:
        """The first placement: partitions in turn. Raises ValueError."""
        if not 1 <= len(set(names)) == len(names) <= PARTITIONS:
            raise ValueError(f"a cluster has 1 to {PARTITIONS} shards, each of another name")
        count = len(names)
        shards = {n: frozenset(range(i, PARTITIONS, count)) for i, n in enumerate(names)}
        return cls(1, shards, {})

    def held_by(self, shard: str) -> frozenset[int]:
        """What a shard reads of the log."""
        return self.shards.get(shard, frozenset()) | self.joining.get(shard, frozenset())

    def with_joining(self, shard: str) -> Placement:
        """The next epoch, in which `shard` begins to take its share from those who hold most.

        Raises ValueError if it is part of the cluster, or another one is joining.
        """
        if shard in self.shards or self.joining:
            raise ValueError(f"{shard} is in the cluster, or another shard is joining it")
        share = PARTITIONS // (len(self.shards) + 1)
        if share == 0:
            raise ValueError(f"a cluster has at most {PARTITIONS} shards")
        left = {name: sorted(held) for name, held in self.shards.items()}
        taken = []
        for _ in range(share):
            largest = max(left, key=lambda name: (len(left[name]), name))
            taken.append(left[largest].pop())
        return Placement(self.epoch + 1, self.shards, {shard: frozenset(taken)})

    def settled(self) -> Placement:
        """The next epoch, in which who was joining alone answers for what it took."""
        taken = frozenset().union(*self.joining.values())
        shards = {name: held - taken for name, held in self.shards.items()}
        return Placement(self.epoch + 1, shards | self.joining, {})

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return {
            "shards": {name: sorted(held) for name, held in self.shards.items()},
            "joining": {name: sorted(held) for name, held in self.joining.items()},
        }

    @classmethod
    def of_json(cls, epoch: int, body: dict[str, Any]) -> Placement:
        """The inverse of `to_json`."""
        return cls(
            epoch,
            {name: frozenset(held) for name, held in body["shards"].items()},
            {name: frozenset(held) for name, held in body["joining"].items()},
        )


def read_placement(store: Store) -> Placement | None:
    """The placement now; None before there is one. Raises StoreUnavailableError."""
    with store.reading() as connection:
        row = connection.execute(sa.select(placement_table)).first()
    return None if row is None else Placement.of_json(row.epoch, row.body)


def replace_placement(store: Store, after: Placement) -> bool:
    """Make `after` the placement, if the one before it is the one of the epoch before.

    False if somebody else was faster. Raises StoreUnavailableError.
    """
    values = {"epoch": after.epoch, "body": after.to_json()}

    def run(connection: sa.Connection) -> bool:
        if after.epoch == 1:
            if connection.execute(sa.select(placement_table)).first() is not None:
                return False
            connection.execute(placement_table.insert().values(name=NAME, **values))
            return True
        mine = placement_table.c.epoch == after.epoch - 1
        return connection.execute(placement_table.update().where(mine).values(values)).rowcount == 1

    return bool(store.transact(run))
