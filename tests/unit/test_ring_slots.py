"""Slots and the shards they are cut into."""

from __future__ import annotations

import pytest

from cluster.ring.slots import SHARDS_MAX, SLOTS, SYSTEM, ranges, shard_of_slots, slot_of


@pytest.mark.parametrize(
    ("key", "slot"),
    [(b"", 0), (b"123456789", 12739), (b"foo{bar}{zap}", 5061), (b"foo{}{bar}", 8363), (b"foo{{bar}}zap", 4015)],
)
def test_keys_have_redis_s_slots(key: bytes, slot: int) -> None:
    assert slot_of(key) == slot


@pytest.mark.parametrize("shards", [1, 2, 3, 7, 16, 32, 64, 100, 1000, SHARDS_MAX])
def test_the_ranges_are_equal_and_cover_every_slot_once(shards: int) -> None:
    cut = ranges(shards)
    assert len(cut) == shards < SYSTEM
    assert [slot for first, last in cut for slot in range(first, last + 1)] == list(range(SLOTS))
    sizes = [last - first + 1 for first, last in cut]
    assert max(sizes) - min(sizes) <= 1
    owners = shard_of_slots(shards)
    assert len(owners) == SLOTS
    assert all(owners[first] == owners[last] == shard for shard, (first, last) in enumerate(cut))


def test_one_shard_has_everything() -> None:
    assert ranges(1) == [(0, 16383)]
