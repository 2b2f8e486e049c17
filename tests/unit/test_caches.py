"""What the replicated state knows of caches: who may hold lines, and what each of them wrote back."""

from __future__ import annotations

import pytest

from cluster.machine import caches
from cluster.machine.caches import CLOSE, HOME, JOIN, NO_DEADLINE, WRITE_BACK, Cache
from cluster.machine.reply import OK, Reply
from resp_server.commands.table import Table
from tests.unit.machines import START_MS, Talk

ANN, BOB = b"n1.d.run1", b"n2.d.run1"


class Shard(Talk):
    """A machine, and what the leader has the log say to it."""

    def say(self, *args: bytes | int) -> Reply:
        words = [b"%d" % one if isinstance(one, int) else one for one in args]
        self.machine.origin = b""
        return self.machine.run(self.machine.handler(words[0]), words)

    def write_back(self, author: bytes, number: int, *cells: bytes) -> Reply:
        return self.say(WRITE_BACK, author, number, *cells)

    @property
    def known(self) -> dict[bytes, Cache]:
        return self.machine.caches.known


@pytest.fixture
def shard() -> Shard:
    return Shard()


def test_a_cache_joins(shard: Shard) -> None:
    assert shard.say(JOIN, ANN, 1) is OK
    assert shard.say(JOIN, BOB, 5) is OK
    assert shard.known == {ANN: Cache(1, 1), BOB: Cache(5, 5)}
    assert shard.machine.caches.open() == [ANN, BOB]


def test_joining_again_with_an_old_number_does_nothing(shard: Shard) -> None:
    shard.say(JOIN, ANN, 1)
    shard.write_back(ANN, 2, b"k", b"v", NO_DEADLINE)
    shard.say(CLOSE, ANN, 1)
    for number in (1, 2):
        assert shard.say(JOIN, ANN, number) is OK
        assert shard.known == {ANN: Cache(1, 2, is_open=False)}
    shard.say(JOIN, ANN, 3)
    assert shard.known == {ANN: Cache(3, 3)}


def test_a_node_in_another_run_takes_the_place_of_its_former_one(shard: Shard) -> None:
    shard.say(JOIN, ANN, 1)
    shard.say(JOIN, BOB, 1)
    shard.say(JOIN, b"n1.d.run2", 1)
    assert list(shard.known) == [BOB, b"n1.d.run2"]
    assert shard.write_back(ANN, 2, b"k", b"v", NO_DEADLINE) == 0
    assert shard("ann", "EXISTS k") == 0


def test_names_that_begin_alike_are_others(shard: Shard) -> None:
    shard.say(JOIN, b"n1.d.run1", 1)
    shard.say(JOIN, b"n11.d.run1", 1)
    assert len(shard.known) == 2


def test_write_backs_are_carried_out_in_order_and_once(shard: Shard) -> None:
    shard.say(JOIN, ANN, 7)
    assert shard.write_back(ANN, 9, b"k", b"later", NO_DEADLINE) == 0
    assert shard.write_back(ANN, 7, b"k", b"earlier", NO_DEADLINE) == 0
    assert shard.write_back(ANN, 8, b"k", b"v", NO_DEADLINE, b"l", b"w", NO_DEADLINE) == 1
    shard("ann", "SET k plain")
    assert shard.write_back(ANN, 8, b"k", b"v", NO_DEADLINE) == 0, "it was sent twice"
    assert shard("ann", "MGET k l") == [b"plain", b"w"]
    assert shard.known[ANN] == Cache(7, 8)


def test_a_cache_that_was_closed_writes_nothing_back(shard: Shard) -> None:
    shard.say(JOIN, ANN, 1)
    assert shard.say(CLOSE, ANN, 1) is OK
    assert shard.machine.caches.open() == []
    assert shard.write_back(ANN, 2, b"k", b"v", NO_DEADLINE) == 0
    assert shard("ann", "EXISTS k") == 0
    shard.say(JOIN, ANN, 3)
    assert shard.say(CLOSE, ANN, 1) is OK, "that was meant for the one before"
    assert shard.machine.caches.open() == [ANN]
    assert shard.write_back(ANN, 4, b"k", b"v", NO_DEADLINE) == 1


def test_nobody_is_closed_or_writes_who_never_joined(shard: Shard) -> None:
    assert shard.say(CLOSE, ANN, 1) is OK
    assert shard.write_back(ANN, 1, b"k", b"v", NO_DEADLINE) == 0
    assert shard.known == {}


def test_a_life_is_written_back_too(shard: Shard) -> None:
    shard.say(JOIN, ANN, 1)
    shard("ann", "SET lasting v PX 5")
    shard("ann", "SET over v")
    ends, over = b"%d" % (START_MS + 60_000), b"%d" % START_MS
    shard.write_back(ANN, 2, b"k", b"v", ends, b"lasting", b"w", NO_DEADLINE, b"over", b"w", over)
    assert [shard("ann", f"PTTL {key}") for key in ("k", "lasting", "over")] == [60_000, -1, -2]
    shard.pass_ms(60_000)
    assert shard("ann", "MGET k lasting over") == [None, b"w", None]


def test_whatever_was_there_is_replaced(shard: Shard) -> None:
    shard.say(JOIN, ANN, 1)
    shard("ann", "LOCK.ACQUIRE k ann")
    shard.write_back(ANN, 2, b"k", b"v", NO_DEADLINE)
    assert shard("ann", "GET k") == b"v"
    assert shard("ann", "LOCK.OWNED ann") == []


def test_who_waits_for_the_key_is_served(shard: Shard) -> None:
    shard.say(JOIN, ANN, 1)
    shard("bob", "CACHE.FETCH k")
    shard("cid", "CACHE.FETCH k")
    shard.write_back(ANN, 2, b"k", b"v", NO_DEADLINE)
    assert shard.woken() == [("cid", [b"v", None])]


def test_the_leader_that_grants_lines(shard: Shard) -> None:
    assert shard.say(HOME, ANN, 500) is OK
    assert shard.say(HOME, BOB, 700) is OK
    assert (shard.machine.caches.home, shard.machine.caches.lease_ms) == (BOB, 700)


def test_a_checkpoint_keeps_all_of_it(shard: Shard) -> None:
    shard.say(HOME, BOB, 700)
    shard.say(JOIN, ANN, 1)
    shard.say(JOIN, BOB, 4)
    shard.write_back(ANN, 2, b"k", b"v", NO_DEADLINE)
    shard.say(CLOSE, BOB, 4)
    again = shard.restored().machine
    assert again.caches == shard.machine.caches
    assert again.caches == caches.Caches({ANN: Cache(1, 2), BOB: Cache(4, 4, is_open=False)}, BOB, 700)


def test_clients_cannot_say_it() -> None:
    for name in caches.HANDLERS:
        assert Table().get(name) is None
