from __future__ import annotations

import pytest
from closeby.service.cluster.placement import Placement, read_placement, replace_placement
from closeby.service.partitions import PARTITIONS
from closeby.service.store import Store

EVERYTHING = set(range(PARTITIONS))


def held(placement: Placement) -> list[int]:
    return sorted(partition for each in placement.shards.values() for partition in each)


@pytest.mark.parametrize("count", [1, 2, 3, 7, PARTITIONS])
def test_every_partition_is_held_once_and_shares_are_even(count: int) -> None:
    placement = Placement.even([f"s{i}" for i in range(count)])
    assert held(placement) == sorted(EVERYTHING)
    sizes = [len(each) for each in placement.shards.values()]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("names", [[], ["a", "a"], [str(i) for i in range(PARTITIONS + 1)]])
def test_impossible_clusters_are_refused(names: list[str]) -> None:
    with pytest.raises(ValueError, match="shards"):
        Placement.even(names)


def test_a_shard_that_joins_takes_its_share_and_nothing_else_moves() -> None:
    before = Placement.even(["a", "b", "c"])
    joining = before.with_joining("d")
    assert joining.shards == before.shards
    assert joining.held_by("d") == joining.joining["d"]
    assert len(joining.joining["d"]) == PARTITIONS // 4
    with pytest.raises(ValueError, match="joining"):
        joining.with_joining("e")

    after = joining.settled()
    assert (before.epoch, joining.epoch, after.epoch) == (1, 2, 3)
    assert held(after) == sorted(EVERYTHING)
    assert not after.joining
    for name in "abc":
        assert after.shards[name] == before.shards[name] - after.shards["d"]
    sizes = [len(each) for each in after.shards.values()]
    assert max(sizes) - min(sizes) <= 1


def test_shards_may_join_one_after_the_other() -> None:
    placement = Placement.even(["s0"])
    for i in range(1, 12):
        placement = placement.with_joining(f"s{i}").settled()
        assert held(placement) == sorted(EVERYTHING)
        sizes = [len(each) for each in placement.shards.values()]
        assert max(sizes) - min(sizes) <= max(1, PARTITIONS // (i + 1) // 8)


def test_the_placement_is_replaced_by_one_writer_at_a_time(store: Store) -> None:
    assert read_placement(store) is None
    first = Placement.even(["a", "b"])
    assert replace_placement(store, first)
    assert not replace_placement(store, first)
    assert read_placement(store) == first
    joining = first.with_joining("c")
    assert replace_placement(store, joining)
    assert not replace_placement(store, first.with_joining("d"))
    assert read_placement(store) == joining
    assert replace_placement(store, joining.settled())
    assert read_placement(store) == joining.settled()
