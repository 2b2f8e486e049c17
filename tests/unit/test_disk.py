"""Commits that may or may not have happened, and entries no row can hold."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import cached_property

import pytest
from trio.testing import MockClock

from cluster import clients
from cluster.node import Work
from cluster.storage import StorageError
from resp_server.edge import disk
from resp_server.edge.disk import Disk
from tests.front import Client, Front


class DiskFront(Front):
    """A front whose commits go through the edge's own disk work."""

    def make_durable(self, work: Work) -> None:
        assert self.disk.commit(work, here=True)

    @cached_property
    def disk(self) -> Disk:
        """The edge's work on the front's storage."""
        return Disk(self.server, self.storage)

    async def mend(self) -> None:
        """Waits until the disk is whole again, and does what is due then."""
        await self.disk.mend()
        self.finish()

    def break_disk(self, *, survives: bool) -> None:
        """The next commit fails in a way that leaves open whether it happened; it ``survives`` or not."""
        self.storage.fail_next["append"] = StorageError("I/O error", definite=False)
        self.storage.uncertain_survives = survives


@pytest.fixture
def front() -> Iterator[DiskFront]:
    """A server without sockets whose disk work is the edge's."""
    front = DiskFront()
    yield front
    front.disk.close()


def code(client: Client, *words: bytes) -> str:
    """The code of the error that a command ends with."""
    return str(client.call(*words)[0]).partition(" ")[0]


@pytest.mark.trio
@pytest.mark.parametrize("survives", [True, False])
async def test_an_uncertain_write_happens_once_the_disk_is_mended(
    front: DiskFront, autojump_clock: MockClock, survives: bool
) -> None:
    client = front.connect()
    front.break_disk(survives=survives)
    assert code(client, b"SET", b"a", b"1") == "UNCERTAIN"
    assert code(client, b"SET", b"b", b"1") == "MISCONF"
    assert client.call(b"GET", b"a") == [None], "nobody sees it before it is certain"
    await front.mend()
    assert client.call(b"EXISTS", b"a", b"b") == [1]
    assert client.call(b"GET", b"a") == [b"1"]
    assert client.call(b"INCR", b"c") == [1]


@pytest.mark.trio
async def test_nobody_waits_by_an_uncertain_command(front: DiskFront, autojump_clock: MockClock) -> None:
    """Whoever was told -UNCERTAIN goes on; a lock given to it then would be lost on it."""
    holder, doubtful, second = front.connect(), front.connect(), front.connect()
    holder.call(b"LOCK.ACQUIRE", b"lock", b"ann")
    front.break_disk(survives=True)
    assert code(doubtful, b"LOCK.ACQUIRE", b"lock", b"bob", b"BLOCK", b"0") == "UNCERTAIN"
    await front.mend()
    assert doubtful.call(b"PING") == [b"PONG"]
    assert second.call(b"LOCK.ACQUIRE", b"lock", b"cid", b"BLOCK", b"0") == []
    holder.call(b"LOCK.RELEASE", b"lock", b"ann")
    assert len(second.replies()) == 1
    assert doubtful.replies() == []
    assert doubtful.call(b"LOCK.ACQUIRE", b"lock", b"bob", b"BLOCK", b"5") == []
    front.advance(5)
    assert doubtful.replies() == [None]


@pytest.mark.trio
async def test_a_session_that_ended_uncertainly_is_over(front: DiskFront, autojump_clock: MockClock) -> None:
    client, other = front.connect(), front.connect()
    client.call(b"LOCK.ACQUIRE", b"lock", b"ann", b"SESSION")
    front.break_disk(survives=False)
    front.disconnect(client)
    await front.mend()
    assert other.call(b"EXISTS", b"lock") == [0]


def test_an_entry_too_large_for_a_row(front: DiskFront, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused as a whole, and nothing else is."""
    monkeypatch.setattr(clients, "BATCH_BYTES_MAX", 1000)
    client = front.connect()
    client.call(b"MULTI")
    for number in range(100):
        client.call(b"SET", b"%d" % number, b"x" * 10)
    assert code(client, b"EXEC") == "ERR"
    assert client.call(b"DBSIZE") == [0]
    assert client.call(b"SET", b"a", b"1") == [b"OK"]


class SlowDisk:
    """The edge's disk work where every commit goes to the writer."""

    def __init__(self, front: DiskFront, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(disk, "QUICK_NS", 0)
        self.front = front
        self.disk = front.disk
        self.writer = threading.Thread(target=self.disk._write)
        self.writer.start()

    def begin(self) -> None:
        """Ends the turn: its entry is on its way."""
        work = self.front.node.ready()
        assert work is not None
        assert not self.disk.commit(work)
        assert self.disk.under_way

    def end(self) -> None:
        """Waits for the writer and hands out what it brings."""
        self.disk.bell.setblocking(True)
        self.disk.collect()
        self.front.dispatcher.deliver(self.front.node.apply())

    def close(self) -> None:
        """Ends the writer."""
        self.disk._works.put(None)
        self.writer.join()


@pytest.fixture
def slow(front: DiskFront, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    slow = SlowDisk(front, monkeypatch)
    yield slow
    slow.close()


def test_what_comes_while_a_commit_is_under_way_is_the_next_entry(slow: SlowDisk) -> None:
    first, second = slow.front.connect(), slow.front.connect()
    first.ask([b"SET", b"a", b"1"])
    slow.begin()
    first.ask([b"GET", b"a"])
    second.ask([b"INCR", b"a"])
    second.ask([b"DBSIZE"])
    assert second.replies() == [], "a read behind an unanswered write waits for its place"
    slow.end()
    assert first.replies() == [b"OK"]
    slow.begin()
    slow.end()
    assert first.replies() == [b"1"]
    assert second.replies() == [2, 1]


def test_a_commit_that_fails_takes_what_came_meanwhile_with_it(slow: SlowDisk) -> None:
    first, second = slow.front.connect(), slow.front.connect()
    slow.front.break_disk(survives=False)
    first.ask([b"SET", b"a", b"1"])
    slow.begin()
    second.ask([b"SET", b"b", b"1"])
    slow.end()
    assert str(first.replies()[0]).startswith("UNCERTAIN")
    assert str(second.replies()[0]).startswith("MISCONF"), "it never reached the disk"
    assert first.session.pending == second.session.pending == 0
