"""LATCH.*, through the machine and on the wire."""

from __future__ import annotations

import pytest

from cluster.machine.reply import WAITING
from tests.unit.machines import Talk, error
from tests.unit.wire_front import WireFront


@pytest.fixture
def talk() -> Talk:
    return Talk()


def test_it_counts_up_and_down_and_is_no_key_at_zero(talk: Talk) -> None:
    assert talk("s", "LATCH.COUNT k") == 0
    assert talk("s", "LATCH.ADD k 3") == 3
    assert talk("s", "LATCH.ADD k 2") == 5
    assert talk("s", "LATCH.DONE k") == 4
    assert talk("s", "LATCH.DONE k 3") == 1
    assert talk("s", "LATCH.COUNT k") == 1
    assert talk("s", "LATCH.DONE k") == 0
    assert talk("s", "EXISTS k") == 0


def test_everybody_who_waits_goes_on_at_zero(talk: Talk) -> None:
    assert talk("s1", "LATCH.WAIT k BLOCK 0") == 1, "a latch nobody added to is at zero"
    talk("s", "LATCH.ADD k 2")
    assert talk("s1", "LATCH.WAIT k") is None
    assert [talk(f"s{number}", "LATCH.WAIT k BLOCK 0") for number in (1, 2)] == [WAITING, WAITING]
    assert talk.map("LATCH.INFO k") == {b"count": 2, b"waiters": 2}
    talk("s", "LATCH.DONE k")
    assert talk.woken() == []
    talk("s", "LATCH.DONE k")
    assert talk.woken() == [("s1", 1), ("s2", 1)]
    assert talk.map("LATCH.INFO k") == {b"count": 0, b"waiters": 0}


def test_time_is_up(talk: Talk) -> None:
    talk("s", "LATCH.ADD k 1")
    assert talk("s1", "LATCH.WAIT k BLOCK 100") is WAITING
    talk.pass_ms(100)
    assert talk.woken() == [("s1", None)]


@pytest.mark.parametrize("ending", ["DEL k", "FLUSHALL", "PEXPIRE k 0", "RENAME k other"])
def test_one_that_went_away_is_at_zero(talk: Talk, ending: str) -> None:
    talk("s", "LATCH.ADD k 1")
    talk("s1", "LATCH.WAIT k BLOCK 0")
    talk("s", ending)
    assert talk.woken() == [("s1", 1)]


def test_it_is_a_value_of_the_keyspace(talk: Talk) -> None:
    talk("s", "LATCH.ADD k 3")
    talk("w", "LATCH.WAIT k BLOCK 0")
    assert str(talk("s", "TYPE k")) == "Status('latch')"
    assert talk("s", "SCAN 0 COUNT 16384 TYPE latch") == [b"0", [b"k"]]
    assert isinstance(talk("s", "MEMORY USAGE k"), int)
    assert talk("s", "COPY k j") == 1
    assert talk("s", "LATCH.DONE j") == 2
    again = talk.restored()
    for one in (talk, again):
        assert [one("s", "LATCH.COUNT k"), one("s", "LATCH.COUNT j")] == [3, 2]
        one("s", "LATCH.DONE k 3")
        assert one.woken() == [("w", 1)]


@pytest.mark.parametrize("line", ["LATCH.ADD k 1", "LATCH.DONE k"])
def test_every_change_reaches_the_next_checkpoint(talk: Talk, line: str) -> None:
    talk("s", "LATCH.ADD k 5")
    checkpoint, _ = talk.machine.begin_checkpoint()
    while checkpoint.slice(10):
        pass
    talk.machine.keyspace.end_checkpoint(durable=True)
    talk("s", line)
    checkpoint, ledger = talk.machine.begin_checkpoint()
    restored = Talk()
    restored.machine.restore(ledger, checkpoint.slice(10))
    assert restored("s", "LATCH.COUNT k") == talk("s", "LATCH.COUNT k")


def test_a_string_over_it_refuses_who_waits(talk: Talk) -> None:
    talk("s", "LATCH.ADD k 1")
    talk("s1", "LATCH.WAIT k BLOCK 0")
    talk("s", "SET k text")
    [(_, reply)] = talk.woken()
    assert error(reply).startswith("WRONGTYPE")
    for line in ("LATCH.ADD k 1", "LATCH.DONE k", "LATCH.WAIT k", "LATCH.COUNT k", "LATCH.INFO k"):
        assert error(talk("s", line)).startswith("WRONGTYPE")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("LATCH.ADD k 0", "ERR value is out of range, must be positive"),
        ("LATCH.ADD k -1", "ERR value is out of range, must be positive"),
        ("LATCH.ADD k x", "ERR value is not an integer or out of range"),
        ("LATCH.ADD k 9223372036854775806", "ERR increment or decrement would overflow"),
        ("LATCH.DONE k 3", "ERR the latch is at 2 and cannot go below zero"),
        ("LATCH.DONE j", "ERR the latch is at 0 and cannot go below zero"),
        ("LATCH.DONE k 0", "ERR value is out of range, must be positive"),
        ("LATCH.WAIT k BLOCK", "ERR syntax error"),
        ("LATCH.WAIT k BLOCK -1", "ERR timeout is negative"),
        ("LATCH.WAIT k 5", "ERR syntax error"),
    ],
)
def test_bad_arguments_are_refused_and_change_nothing(talk: Talk, line: str, text: str) -> None:
    talk("s", "LATCH.ADD k 2")
    assert error(talk("s", line)) == text
    assert talk("s", "LATCH.COUNT k") == 2
    assert len(talk.machine.keyspace) == 1
    assert len(talk.machine.waiters) == 0


def test_on_the_wire() -> None:
    front = WireFront()
    one, two = front.connect(), front.connect()
    assert front.send(one, "LATCH.ADD k 1") == b":1\r\n"
    assert front.send(two, "LATCH.WAIT k") == b"$-1\r\n"
    assert front.send(two, "LATCH.WAIT k BLOCK 0", "PING") == b""
    assert front.send(one, "LATCH.DONE k 2").startswith(b"-ERR the latch is at 1")
    assert front.send(one, "LATCH.DONE k x").startswith(b"-ERR value is not an integer")
    front.send(one, "LATCH.DONE k")
    assert front.send(two).startswith(b":1\r\n")
