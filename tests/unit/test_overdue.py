"""What is over but could not end yet: no read shows it, and no read makes it end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cluster.machine.machine import ALARMS_PER_ENTRY
from cluster.machine.reply import CommandError
from tests.front import Client, Front, recovered, state

OVER: tuple[tuple[str, object], ...] = (
    ("GET key", None),
    ("MGET key lives key", [None, b"1", None]),
    ("EXISTS key lives", 1),
    ("TTL key", -2),
    ("TYPE key", b"none"),
    ("OBJECT ENCODING key", None),
    ("CACHE.GET key", None),
    ("KEYS *e*", [b"lives", b"written"]),
    ("SCAN 0 MATCH key COUNT 16384", [b"0", []]),
    ("EXISTS lock", 0),
    ("LOCK.INFO lock", [b"mode", b"free", b"token", 1, b"holders", [], b"waiters", []]),
    ("LOCK.OWNED ann", []),
    ("SEM.INFO sem", [b"limit", 0, b"held", 0, b"token", 2, b"holders", [], b"waiters", []]),
    ("ELECT.LEADER vote", None),
    ("EXISTS sem vote", 0),
    ("LOCK.SCAN 0 COUNT 16384", [b"0", []]),
)


def words(text: str) -> list[bytes]:
    return text.encode().split(b" ")


def fill(front: Front) -> Client:
    client = front.connect()
    lock, sem, vote = "LOCK.ACQUIRE lock ann", "SEM.ACQUIRE sem ann LIMIT 1", "ELECT.CAMPAIGN vote ann"
    for text in ("SET key 1 PX 100", "SET lives 1", *(f"{hold} PX 100" for hold in (lock, sem, vote))):
        client.call(*words(text))
    client.call(*words("SET written 1"))
    return client


def in_an_outage(read: list[bytes]) -> tuple[Front, Any]:
    """Nothing can be logged when it is asked."""
    front = Front()
    client = fill(front)
    front.server.refuse_writes(CommandError("full", "MISCONF"))
    front.advance(1000)
    (reply,) = client.call(*read)
    assert client.call(*read) == [reply], "it did not change what comes next"
    return front, reply


def fall_behind(front: Front) -> None:
    """More is due than an entry rings, and than the next one will."""
    crowd = front.connect()
    for number in range(2 * ALARMS_PER_ENTRY):
        crowd.ask([b"SET", b"%d" % number, b"", b"PX", b"50"])
    front.finish()
    front.now_ms += 200
    front.node.advance(front.now_ms, front.now_ms)
    front.finish()
    assert front.machine.behind


def behind_a_write(read: list[bytes]) -> tuple[Front, Any]:
    """It follows a write in its entry, which cannot ring all that is due."""
    front = Front()
    client = fill(front)
    fall_behind(front)
    client.ask(words("SET written 2"))
    client.ask(read)
    front.finish()
    _, reply = client.replies()
    return front, reply


def in_a_transaction(read: list[bytes]) -> tuple[Front, Any]:
    """It is one of the commands of an EXEC that also writes."""
    front = Front()
    client = fill(front)
    client.call(b"MULTI")
    fall_behind(front)
    for command in (words("SET written 2"), read):
        client.ask(command)
    *_, (_, reply) = client.call(b"EXEC")
    return front, reply


@pytest.mark.parametrize("asked", [in_an_outage, behind_a_write, in_a_transaction], ids=lambda way: way.__name__)
@pytest.mark.parametrize(("read", "expected"), OVER, ids=[read for read, _ in OVER])
def test_a_read_hides_it_and_leaves_it(
    asked: Callable[[list[bytes]], tuple[Front, Any]], read: str, expected: object
) -> None:
    front, reply = asked(words(read))
    assert (sorted(reply) if read.startswith("KEYS") else reply) == expected
    keyspace = front.machine.keyspace
    if read.startswith("CACHE.") and b"key" not in keyspace.values:
        return  # the cache had to join first: that took entries, which ring
    assert {b"key", b"lock", b"lives"} <= keyspace.values.keys()
    assert b"key" in keyspace.deadlines
    assert state(recovered(front.storage)) == state(front.machine)
    front.server.refuse_writes(None)
    front.advance(0)
    assert keyspace.values.keys() == {b"lives", b"written"}, "its alarms ring all the same"


def test_a_shared_lock_shows_the_holds_that_live() -> None:
    front = Front()
    client = front.connect()
    for text in ("LOCK.ACQUIRE lock ann SHARED PX 100", "LOCK.ACQUIRE lock bob SHARED PX 5000"):
        client.call(*words(text))
    front.server.refuse_writes(CommandError("full", "MISCONF"))
    front.advance(1000)
    (reply,) = client.call(*words("LOCK.INFO lock"))
    assert reply[1] == b"shared"
    assert [hold[1] for hold in reply[5]] == [b"bob"]
    assert reply[5][0][9] == 4000
    assert client.call(*words("LOCK.OWNED ann")) == [[]]
    assert client.call(*words("LOCK.OWNED bob")) == [[b"lock"]]


def test_reads_go_by_the_clock_and_the_state_by_the_log() -> None:
    front = Front()
    client = front.connect()
    client.call(*words("SET key 1 PX 9000"))
    front.advance(4000)
    assert client.call(*words("PTTL key")) == [5000]
    node, machine = front.node, front.machine
    front.shard.submit(None, machine.handler(b"SET"), words("SET later 1 PX 100"))
    work = node.ready()
    assert work is not None
    node.advance(front.now_ms + 60, front.now_ms + 60)
    node.persisted(work)
    node.apply()
    assert machine.keyspace.deadlines[b"later"] == front.now_ms + 100, "the time of its entry"
    node.advance(front.now_ms + 60, front.now_ms + 60)
    assert client.call(*words("PTTL later")) == [40]
