"""Which shard holds which partitions of every collection.

The placement is one row of the store, replaced as a whole; `epoch` counts its versions. While a
shard joins or leaves, the partitions that move are held twice: who will have them reads them, and
who had them goes on answering for them until the next epoch.

A shard that is given more than it had makes its files anew, from the log (`files_key`): those that
it has say nothing of older rows of other partitions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from closeby.service.partitions import PARTITIONS
from closeby.service.schema import placement as placement_table
from closeby.service.store import Store

__all__ = ["Placement", "files_key", "read_placement", "replace_placement"]

NAME = "placement"


@dataclass(frozen=True, slots=True)
class Placement:
    """`shards`: name -> the partitions that it answers for.

    `joining`: what a new shard will take, or others of the one that is `leaving`. `grown`: the
    epoch in which a shard was given more than it had, 0 unless named.
    """

    epoch: int
    shards: dict[str, frozenset[int]]
    joining: dict[str, frozenset[int]]
    leaving: str | None = None
    grown: dict[str, int] = field(default_factory=dict)

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
        epoch = self.epoch + 1
        # Also a new one: a shard of its name may have left, and its files may still be there.
        grown = self.grown | {shard: epoch}
        return replace(self, epoch=epoch, joining={shard: frozenset(taken)}, grown=grown)

    def with_leaving(self, shard: str) -> Placement:
        """The next epoch, in which those who hold least begin to take what `shard` has.

        Raises ValueError if it is no part of the cluster or its last one, or others come or go.
        """
        if shard not in self.shards or len(self.shards) == 1 or self.joining:
            raise ValueError(
                f"{shard} is not in the cluster, is its last shard, or others are coming or going"
            )
        sizes = {name: len(held) for name, held in self.shards.items() if name != shard}
        taken: dict[str, set[int]] = {}
        for partition in sorted(self.shards[shard]):
            smallest = min(sizes, key=lambda name: (sizes[name], name))
            sizes[smallest] += 1
            taken.setdefault(smallest, set()).add(partition)
        epoch = self.epoch + 1
        return replace(
            self,
            epoch=epoch,
            joining={name: frozenset(parts) for name, parts in taken.items()},
            leaving=shard,
            grown=self.grown | dict.fromkeys(taken, epoch),
        )

    def settled(self) -> Placement:
        """The next epoch, in which those who were taking partitions alone answer for them."""
        taken = frozenset().union(*self.joining.values())
        shards = {
            name: (held - taken) | self.joining.get(name, frozenset())
            for name, held in (dict.fromkeys(self.joining, frozenset[int]()) | self.shards).items()
            if name != self.leaving
        }
        grown = {name: epoch for name, epoch in self.grown.items() if name in shards}
        return Placement(self.epoch + 1, shards, {}, None, grown)

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return {
            "shards": {name: sorted(held) for name, held in self.shards.items()},
            "joining": {name: sorted(held) for name, held in self.joining.items()},
            "leaving": self.leaving,
            "grown": self.grown,
        }

    @classmethod
    def of_json(cls, epoch: int, body: dict[str, Any]) -> Placement:
        """The inverse of `to_json`."""
        return cls(
            epoch,
            {name: frozenset(held) for name, held in body["shards"].items()},
            {name: frozenset(held) for name, held in body["joining"].items()},
            # Rows from before shards could leave have neither.
            body.get("leaving"),
            body.get("grown", {}),
        )


def files_key(shard: str, placement: Placement, config: Mapping[str, Any]) -> str:
    """What the files of a shard's part of a collection are called by.

    Another engine, and more partitions than there were, mean other files.
    """
    grown, generation = placement.grown.get(shard, 0), config.get("generation", 0)
    return f"{shard}.{grown}.{generation}" if grown or generation else shard


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
