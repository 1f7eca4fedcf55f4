"""Which part of a cluster a point belongs to.

A point's partition is its id's xxh3-64 modulo `PARTITIONS`, for ever; which shard holds a partition
is said by a map that can change (`cluster.placement`).
"""

from __future__ import annotations

import xxhash

__all__ = ["PARTITIONS", "partition_of"]

PARTITIONS = 256
"""Of every collection; more shards than this are of no use."""


def partition_of(key: str) -> int:
    """The partition of a point whose id is `key` as canonical JSON (`store.point_key`)."""
    return xxhash.xxh3_64_intdigest(key.encode()) % PARTITIONS
