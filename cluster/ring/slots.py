"""The key space, cut: a key has a slot, a shard is a range of slots."""

from __future__ import annotations

from cluster.machine.slots import SLOTS, slot_of

__all__ = ["SHARDS_MAX", "SLOTS", "SYSTEM", "ranges", "shard_of_slots", "slot_of"]

SHARDS_MAX = 1024

SYSTEM = SLOTS
"""The number of the system group, which every node is in: past any shard's."""


def ranges(shards: int) -> list[tuple[int, int]]:
    """The first and last slot of each shard; their sizes differ by one slot at most."""
    assert 1 <= shards <= SHARDS_MAX
    return [(shard * SLOTS // shards, (shard + 1) * SLOTS // shards - 1) for shard in range(shards)]


def shard_of_slots(shards: int) -> list[int]:
    """The shard of each slot."""
    return [shard for shard, (first, last) in enumerate(ranges(shards)) for _ in range(first, last + 1)]
