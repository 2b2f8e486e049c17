"""Checkpoints of several shards: which are written when, and what becomes of one that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import trio
from trio.testing import MockClock

from cluster.ring.slots import SYSTEM, slot_of
from cluster.storage import StorageError
from resp_server.edge.disk import Disk
from resp_server.settings import load
from tests.front import Front

SHARDS = 4


class Rig:
    """A server of several shards whose checkpoints the edge writes."""

    def __init__(self, **flags: str) -> None:
        self.front = Front(settings=load({"shards": str(SHARDS), **flags}, {}))
        self.disk = Disk(self.front.server, self.front.storage)
        self.client = self.front.connect()

    def key_of(self, shard: int) -> bytes:
        """A key that the shard has."""
        slots = self.front.node.slot_shard
        return next(key for number in range(10_000) if slots[slot_of(key := b"%d" % number)] == shard)

    def set(self, shard: int, size_bytes: int = 1) -> None:
        assert self.client.call(b"SET", self.key_of(shard), b"x" * size_bytes) == [b"OK"]

    def index(self, shard: int) -> int:
        """The last entry of the shard's checkpoint in force."""
        return self.front.storage.load(shard).checkpoint_index


async def until(condition: Callable[[], bool]) -> None:
    """Lets time pass; a thread may take any of it."""
    while not condition():
        await trio.sleep(0.1)


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig(checkpoint_log_bytes="1mb")
    yield rig
    rig.disk.close()


@pytest.mark.trio
async def test_all_that_changed_is_written(rig: Rig) -> None:
    assert await rig.disk.checkpoint()
    first = {shard: rig.index(shard) for shard in range(SHARDS)}
    assert rig.index(SYSTEM)
    for shard in (1, 3):
        rig.set(shard)
    assert await rig.disk.checkpoint()
    assert [shard for shard in range(SHARDS) if rig.index(shard) > first[shard]] == [1, 3]
    assert [row.key for row in rig.front.storage.rows(1)] == [rig.key_of(1)]
    assert rig.front.node.next_checkpoint() is None
    assert rig.front.server.saving.last_ok
    assert not rig.front.server.saving.under_way


@pytest.mark.trio
async def test_where_the_log_is_longest_is_written_until_all_of_it_is_short_enough(
    rig: Rig, autojump_clock: MockClock
) -> None:
    await rig.disk.checkpoint()
    before = [rig.index(shard) for shard in range(SHARDS)]
    for shard, size_bytes in enumerate((300_000, 400_000, 200_000, 350_000)):
        rig.set(shard, size_bytes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.disk.checkpoint_when_wanted)
        await until(lambda: rig.index(1) > before[1] and not rig.front.server.saving.under_way)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert [rig.index(shard) > before[shard] for shard in range(SHARDS)] == [False, True, False, False]
    assert rig.front.node.bytes_since_checkpoint < 1024 * 1024


@pytest.mark.trio
async def test_one_that_fails_is_tried_again_and_the_one_before_stays(rig: Rig, autojump_clock: MockClock) -> None:
    await rig.disk.checkpoint()
    for shard in range(SHARDS):
        rig.set(shard)
    before = [rig.index(shard) for shard in range(SHARDS)]
    rig.front.storage.fail_next["finish_checkpoint"] = StorageError("full", definite=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.disk.checkpoint_when_wanted)
        assert rig.disk.want_checkpoint()
        assert not rig.disk.want_checkpoint(), "one is under way"
        await until(lambda: not rig.front.server.saving.under_way)
        assert [rig.index(shard) for shard in range(SHARDS)] == before
        assert not rig.front.server.saving.last_ok
        assert rig.disk.want_checkpoint()
        await until(lambda: not rig.front.server.saving.under_way)
        nursery.cancel_scope.cancel()
    assert all(rig.index(shard) > before[shard] for shard in range(SHARDS))
    assert rig.front.server.saving.last_ok
    assert [row.key for row in rig.front.storage.rows(2)] == [rig.key_of(2)], "what the failed one took is written"
