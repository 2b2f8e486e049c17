"""Snapshots of several shards at the edge: whose turn it is, how fast they go, and replicas that are given up."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from cluster.raft.messages import Chunk
from cluster.storage import Entry, HardState, MemoryStorage, Snapshot, StorageError
from resp_server.edge import snapshots
from resp_server.edge.snapshots import Snapshots
from tests.unit.storages import entry, keys, row, write_checkpoint

ROWS = [row(b"%03d" % number, body=b"x" * 1000) for number in range(100)]


class Side:
    """The snapshots of one shard as its core has them: who is due, what came, and what became of it."""

    def __init__(self, sending: Callable[[str], None]) -> None:
        self.dues: list[tuple[str, int | None, int]] = []
        self.pieces: deque[Chunk] = deque()
        self.sent: list[tuple[str, int, float]] = []  # to whom, which piece, when
        self.to: list[str] = []
        self.anew: list[str] = []
        self._sending = sending
        self.put_off_count = 0
        self.abandoned_s: list[float] = []

    @property
    def coming(self) -> bool:
        return bool(self.pieces)

    def due(self) -> list[tuple[str, int | None, int]]:
        return self.dues

    def receivers(self) -> list[str]:
        return self.to

    def send(self, peer: str, chunk: Chunk) -> None:
        """Every piece is answered at once, so that the next is due."""
        self._sending(peer)
        self.sent.append((peer, chunk.position, trio.current_time()))
        self.dues = [due for due in self.dues if due[0] != peer]
        if not chunk.last:
            self.dues.append((peer, chunk.index, chunk.position + 1))

    def begin_anew(self, peer: str) -> None:
        self.anew.append(peer)
        self.dues = [due for due in self.dues if due[0] != peer]

    def next_to_store(self) -> tuple[Chunk, bytes] | None:
        return (self.pieces.popleft(), b"ledger") if self.pieces else None

    def put_off(self) -> None:
        self.put_off_count += len(self.pieces)
        self.pieces.clear()

    def abandon(self) -> None:
        self.abandoned_s.append(trio.current_time())


class Shard:
    def __init__(self, number: int, order: list[tuple[int, str]]) -> None:
        self.number = number
        self.snapshots = Side(lambda peer: order.append((number, peer)))


class Node:
    """A core with three shards that has whatever a test gives it."""

    def __init__(self) -> None:
        self.order: list[tuple[int, str]] = []  # (of which shard, to whom) pieces were sent
        self.shards = [Shard(number, self.order) for number in range(3)]
        self.stored: list[tuple[int, int, bool]] = []
        self.giving_up: list[int] = []
        self.given_up: list[int] = []
        self.stirred: list[int] = []
        self.moving = True

    def each(self) -> Iterator[Shard]:
        return iter(self.shards)

    def stir(self, shard: Shard) -> None:
        self.stirred.append(shard.number)

    def chunk_stored(self, number: int, chunk: Chunk, *, stored: bool) -> None:
        self.stored.append((number, chunk.position, stored))

    def to_drop(self) -> list[int]:
        return list(self.giving_up)

    def ledger_of_dropped(self, number: int) -> bytes:
        return b"without us"

    def dropped(self, number: int) -> None:
        self.giving_up = [one for one in self.giving_up if one != number]
        self.given_up.append(number)


class Disk:
    def __init__(self) -> None:
        self.keyspace = trio.Lock()
        self.rings = 0

    def ring(self) -> None:
        self.rings += 1


class Rig:
    """The edge's part, around a core and a disk that a test moves."""

    def __init__(self) -> None:
        self.node = Node()
        self.storage = MemoryStorage()
        self.disk = Disk()
        self.bandwidth = 1_000_000_000
        self.moving = Snapshots(cast(Any, self.node), self.storage, cast(Any, self.disk), lambda: self.bandwidth)

    def of(self, number: int) -> Side:
        return self.node.shards[number].snapshots

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.moving.run)
            yield
            nursery.cancel_scope.cancel()

    async def look(self) -> None:
        """The end of a turn, and all that follows from it."""
        self.moving.look()
        await settled()


async def settled() -> None:
    """Until threads and tasks have nothing more to do at this time.

    To Trio a task whose thread works is blocked, so threads are looked for as well.
    """
    threads = trio.to_thread.current_default_thread_limiter()
    await wait_all_tasks_blocked()
    while threads.borrowed_tokens:
        await trio.sleep(0.001)
        await wait_all_tasks_blocked()


@pytest.fixture
def rig() -> Rig:
    return Rig()


def pieces(index: int, count: int) -> list[Chunk]:
    """A snapshot that comes in, in so many pieces of one row."""
    return [
        Chunk(
            1,
            index,
            1,
            number,
            b"" if number else b"ledger",
            [(b"%d" % number, b"", b"s", None, b"v")],
            number == count - 1,
        )
        for number in range(count)
    ]


@pytest.mark.trio
async def test_snapshots_that_go_out_take_turns(rig: Rig) -> None:
    for shard in (0, 2):
        write_checkpoint(rig.storage, *ROWS, shard=shard)
    rig.bandwidth = 500_000  # pieces of a 62 kB
    rig.of(0).dues = [("n2", None, 0), ("n3", None, 0)]
    rig.of(2).dues = [("n2", None, 0)]
    rig.of(0).to, rig.of(2).to = ["n2", "n3"], ["n2"]
    async with rig.running():
        rig.moving.look()
        with trio.fail_after(10):
            while len(rig.node.order) < 6:
                await trio.sleep(0.01)
    assert rig.node.order == [(0, "n2"), (0, "n3"), (2, "n2")] * 2


@pytest.mark.trio
async def test_no_more_goes_out_than_may(rig: Rig) -> None:
    write_checkpoint(rig.storage, *ROWS)
    rig.bandwidth = 200_000
    rig.of(0).dues = [("n2", None, 0)]
    rig.of(0).to = ["n2"]
    async with rig.running():
        rig.moving.look()
        with trio.fail_after(10):
            while rig.of(0).dues:
                await trio.sleep(0.01)
    times = [at_s for _, _, at_s in rig.of(0).sent]
    assert len(times) == 4
    assert times[-1] - times[0] > 0.2, "all but the last piece, less what had gathered, takes so long"
    assert rig.moving._readings[0, "n2"].index == 1
    assert set(rig.node.stirred) == {0}, "a piece leaves with the next turn"


@pytest.mark.trio
async def test_a_view_is_given_up_when_nobody_is_sent_it_any_more(rig: Rig) -> None:
    write_checkpoint(rig.storage, *ROWS)
    rig.of(0).dues, rig.of(0).to = [("n2", None, 0)], ["n2"]
    async with rig.running():
        await rig.look()
        assert list(rig.moving._readings) == [(0, "n2")]
        rig.of(0).to = []
        await rig.look()
        assert not rig.moving._readings


@pytest.mark.trio
async def test_a_thread_that_stands_still_is_waited_for(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = rig.storage.snapshot

    def late(shard: int) -> Snapshot | None:
        time.sleep(0.3)
        return snapshot(shard)

    monkeypatch.setattr(rig.storage, "snapshot", late)
    rig.of(1).dues, rig.of(1).to = [("n2", None, 0)], ["n2"]
    async with rig.running():
        await rig.look()
        assert rig.of(1).anew == ["n2"]


@pytest.mark.trio
async def test_without_a_checkpoint_there_is_nothing_to_send(rig: Rig) -> None:
    rig.of(1).dues, rig.of(1).to = [("n2", None, 0)], ["n2"]
    async with rig.running():
        await rig.look()
    assert rig.of(1).anew == ["n2"]


@pytest.mark.trio
async def test_one_snapshot_is_stored_at_a_time_and_the_others_keep_nothing(rig: Rig) -> None:
    first, second = pieces(9, 3), pieces(7, 1)
    async with rig.running():
        rig.of(0).pieces.append(first[0])
        await rig.look()
        for piece in (first[1], first[2]):
            rig.of(1).pieces.append(second[0])
            await rig.look()
            assert not rig.of(1).pieces
            rig.of(0).pieces.append(piece)
            await rig.look()
        assert rig.node.stored == [(0, 0, True), (0, 1, True), (0, 2, True)]
        assert rig.of(1).put_off_count == 2
        rig.of(1).pieces.append(second[0])
        await rig.look()
        assert not rig.disk.keyspace.locked()
    assert (keys(rig.storage, 0), keys(rig.storage, 1)) == ([b"0", b"1", b"2"], [b"0"])
    assert list(rig.storage.entries(0, 1)) == [Entry(0, 9, 1, b"")]


@pytest.mark.trio
@pytest.mark.parametrize(("others", "patience_s"), [(False, snapshots.ABANDONED_S), (True, snapshots.IN_THE_WAY_S)])
async def test_what_comes_only_in_part_does_not_stand_in_the_way(
    rig: Rig, autojump_clock: MockClock, others: bool, patience_s: float
) -> None:
    async with rig.running():
        rig.of(0).pieces.append(pieces(9, 2)[0])
        rig.moving.look()
        while not rig.node.stored:
            await trio.sleep(0.1)
        stored_s = rig.moving._stored_s
        while not rig.of(0).abandoned_s:
            if others:
                rig.of(1).pieces.append(pieces(7, 2)[0])
                rig.moving.look()
            await trio.sleep(1)
        (abandoned_s,) = rig.of(0).abandoned_s
        assert patience_s <= abandoned_s - stored_s <= patience_s + 2
        while others and (1, 0, True) not in rig.node.stored:
            await trio.sleep(1)
        assert rig.disk.keyspace.locked() == others


@pytest.mark.trio
async def test_a_snapshot_that_cannot_be_stored_lets_go_of_the_disk(rig: Rig) -> None:
    rig.storage.fail_next["write_rows"] = StorageError("full", definite=True)
    async with rig.running():
        rig.of(0).pieces.append(pieces(9, 2)[0])
        await rig.look()
        assert rig.node.stored == [(0, 0, False)]
        assert not rig.disk.keyspace.locked()


def having(rig: Rig, shard: int) -> None:
    """A replica on the disk."""
    rig.storage.append([entry(index, shard=shard) for index in range(1, 5)], [(shard, HardState(3, "n2"))])
    write_checkpoint(rig.storage, row(b"a"), shard=shard, index=2)


@pytest.mark.trio
async def test_a_replica_that_is_given_up_leaves_its_vote(rig: Rig) -> None:
    having(rig, 1)
    having(rig, 2)
    rig.node.giving_up = [1]
    async with rig.running():
        await rig.look()
        assert rig.node.giving_up == []
    found = rig.storage.load(1)
    assert (found.hard_state, found.ledger, found.last_index) == (HardState(3, "n2"), b"without us", 0)
    assert (keys(rig.storage, 1), keys(rig.storage, 2)) == ([], [b"a"])


@pytest.mark.trio
async def test_giving_up_is_brought_to_its_end(rig: Rig, autojump_clock: MockClock) -> None:
    """It failed half way, and meanwhile nobody wants it any more: but what is gone is gone."""
    having(rig, 1)
    rig.node.giving_up = [1]
    rig.storage.fail_next["reset_log"] = StorageError("full", definite=True)
    async with rig.running():
        rig.moving.look()
        while "reset_log" in rig.storage.fail_next:
            await trio.sleep(0.1)
        rig.node.giving_up = []
        while not rig.node.given_up:
            await trio.sleep(0.1)
    assert rig.node.given_up == [1]
    assert list(rig.storage.entries(1, 1)) == []


@pytest.mark.trio
async def test_a_replica_is_given_up_behind_the_snapshot_that_comes_in(rig: Rig) -> None:
    having(rig, 1)
    first = pieces(9, 2)
    async with rig.running():
        rig.of(0).pieces.append(first[0])
        await rig.look()
        rig.node.giving_up = [1]
        await rig.look()
        assert rig.node.giving_up == [1]
        rig.of(0).pieces.append(first[1])
        await rig.look()
        await rig.look()
        assert rig.node.giving_up == []
