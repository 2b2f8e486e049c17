"""ELECT.*, through the machine and on the wire."""

from __future__ import annotations

import pytest

from cluster.machine.reply import NULL_ARRAY, WAITING
from tests.unit.machines import Talk, error
from tests.unit.wire_front import WireFront


@pytest.fixture
def talk() -> Talk:
    return Talk()


# Campaigning


def test_one_leads_until_it_resigns(talk: Talk) -> None:
    assert talk("s", "ELECT.LEADER k") is NULL_ARRAY
    assert talk("s1", "ELECT.CAMPAIGN k a VALUE here") == 1
    assert talk("s2", "ELECT.CAMPAIGN k b") is None
    assert talk("s", "ELECT.LEADER k") == [b"a", 1, b"here"]
    assert talk("s", "ELECT.RESIGN k b") == 0
    assert talk("s", "ELECT.RESIGN k a TOKEN 2") == 0
    assert talk("s", "ELECT.RESIGN k a TOKEN 1") == 1
    assert talk("s", "ELECT.RESIGN k a") == 0
    assert talk("s", "ELECT.LEADER k") is NULL_ARRAY
    assert talk("s2", "ELECT.CAMPAIGN k b") == 2
    assert talk("s", "ELECT.LEADER k") == [b"b", 2, None]


def test_the_leader_campaigning_again_keeps_its_token_and_lives_on(talk: Talk) -> None:
    talk("s1", "ELECT.CAMPAIGN k a VALUE one PX 1000")
    for value in ("two", "three"):
        talk.pass_ms(900)
        assert talk("s1", f"ELECT.CAMPAIGN k a VALUE {value} PX 1000") == 1
    assert talk("s1", "ELECT.CAMPAIGN k a PX 1") == 1, "neither shorter nor without its value"
    talk.pass_ms(999)
    assert talk("s", "ELECT.LEADER k") == [b"a", 1, b"three"]
    assert talk("s", "ELECT.RESIGN k a") == 1, "however often it campaigned"
    assert len(talk.machine.clockwork) == 0


def test_candidates_are_elected_in_the_order_they_came(talk: Talk) -> None:
    talk("s1", "ELECT.CAMPAIGN k a SESSION")
    assert talk("s2", "ELECT.CAMPAIGN k b VALUE there BLOCK 0 PX 500") is WAITING
    assert talk("s3", "ELECT.CAMPAIGN k c BLOCK 100") is WAITING
    assert talk("s4", "ELECT.CAMPAIGN k d BLOCK 0") is WAITING
    talk.pass_ms(100)
    assert talk.woken() == [("s3", None)]
    talk.end("s1")
    assert talk.woken() == [("s2", 2)]
    assert talk("s", "ELECT.LEADER k") == [b"b", 2, b"there"]
    talk.pass_ms(500)
    assert talk.woken() == [("s4", 3)]


# Observing


def test_observers_hear_of_every_new_leader(talk: Talk) -> None:
    assert talk("o", "ELECT.OBSERVE k") is NULL_ARRAY
    assert [talk(f"o{number}", "ELECT.OBSERVE k BLOCK 0") for number in (1, 2)] == [WAITING, WAITING]
    talk("s1", "ELECT.CAMPAIGN k a VALUE here PX 500")
    assert talk.woken() == [("o1", [b"a", 1, b"here"]), ("o2", [b"a", 1, b"here"])]
    assert talk("o1", "ELECT.OBSERVE k TOKEN 0 BLOCK 0") == [b"a", 1, b"here"]
    assert talk("o1", "ELECT.OBSERVE k BLOCK 0") == [b"a", 1, b"here"]
    assert talk("o1", "ELECT.OBSERVE k TOKEN 1") is NULL_ARRAY
    assert talk("o1", "ELECT.OBSERVE k TOKEN 1 BLOCK 0") is WAITING
    assert talk("s2", "ELECT.CAMPAIGN k b BLOCK 0") is WAITING
    talk("s1", "ELECT.CAMPAIGN k a VALUE elsewhere PX 500")
    assert talk.woken() == [], "a new value is no new leader"
    talk.pass_ms(500)
    assert talk.woken() == [("s2", 2), ("o1", [b"b", 2, None])]


def test_nobody_leading_is_no_news_and_the_same_one_again_is(talk: Talk) -> None:
    talk("s1", "ELECT.CAMPAIGN k a")
    assert talk("o1", "ELECT.OBSERVE k TOKEN 1 BLOCK 0") is WAITING
    talk("s1", "ELECT.RESIGN k a")
    assert talk("o2", "ELECT.OBSERVE k TOKEN 1 BLOCK 100") is WAITING
    assert talk("o3", "ELECT.OBSERVE k BLOCK 0") is WAITING
    talk.pass_ms(100)
    assert talk.woken() == [("o2", NULL_ARRAY)]
    talk("s1", "ELECT.CAMPAIGN k a")
    assert talk.woken() == [("o1", [b"a", 2, None]), ("o3", [b"a", 2, None])]


def test_observers_do_not_stand_in_the_line_of_the_candidates(talk: Talk) -> None:
    talk("o1", "ELECT.OBSERVE k BLOCK 0")
    assert talk("s1", "ELECT.CAMPAIGN k a") == 1


# A value like others


@pytest.mark.parametrize("ending", ["time", "session", "DEL k", "FLUSHALL"])
def test_a_leadership_ends_as_a_hold_of_a_lock_does(talk: Talk, ending: str) -> None:
    talk("s1", f"ELECT.CAMPAIGN k a {'SESSION' if ending == 'session' else 'PX 100'}")
    talk("s2", "ELECT.CAMPAIGN k b SESSION BLOCK 0")
    if ending == "session":
        talk.end("s1")
    elif ending != "time":
        talk("s", ending)
    talk.pass_ms(100)
    assert talk.woken() == [("s2", 2)]
    talk.end("s2")
    assert len(talk.machine.keyspace) == len(talk.machine.clockwork) == len(talk.machine.sessions.origins()) == 0


def test_it_is_a_value_of_the_keyspace(talk: Talk) -> None:
    talk("s1", "ELECT.CAMPAIGN k a VALUE here")
    talk("s2", "ELECT.CAMPAIGN k b BLOCK 0")
    talk("o1", "ELECT.OBSERVE k TOKEN 1 BLOCK 0")
    assert str(talk("s", "TYPE k")) == "Status('election')"
    assert talk("s", "SCAN 0 COUNT 16384 TYPE election") == [b"0", [b"k"]]
    assert isinstance(talk("s", "MEMORY USAGE k"), int)
    assert error(talk("s", "COPY k other")) == "ERR an election cannot be copied or renamed"
    assert talk("s", "FENCE k 1 INCR n") == 1
    assert error(talk("s", "FENCE k 9 INCR n")).startswith("FENCED")
    again = talk.restored()
    for one in (talk, again):
        assert one("s", "ELECT.LEADER k") == [b"a", 1, b"here"]
        one.pass_ms(30_000)
        assert one.woken() == [("s2", 2), ("o1", [b"b", 2, None])]


@pytest.mark.parametrize("line", ["ELECT.CAMPAIGN k a VALUE new", "ELECT.CAMPAIGN k a PX 90000"])
def test_every_change_reaches_the_next_checkpoint(talk: Talk, line: str) -> None:
    talk("s", "ELECT.CAMPAIGN k a VALUE here")
    checkpoint, _ = talk.machine.begin_checkpoint()
    while checkpoint.slice(10):
        pass
    talk.machine.keyspace.end_checkpoint(durable=True)
    talk("s", line)
    checkpoint, ledger = talk.machine.begin_checkpoint()
    restored = Talk()
    restored.machine.restore(ledger, checkpoint.slice(10))
    for one in (talk, restored):
        one.pass_ms(29_999)
    assert restored("s", "ELECT.LEADER k") == talk("s", "ELECT.LEADER k")
    for one in (talk, restored):
        one.pass_ms(30_000)
    assert restored("s", "ELECT.LEADER k") == talk("s", "ELECT.LEADER k")


# Bad input


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("ELECT.CAMPAIGN k a VALUE", "ERR syntax error"),
        ("ELECT.CAMPAIGN k a PX 1 SESSION", "ERR syntax error"),
        ("ELECT.CAMPAIGN k a SHARED", "ERR syntax error"),
        ("ELECT.CAMPAIGN k a PX 0", "ERR invalid expire time in 'elect.campaign' command"),
        ("ELECT.CAMPAIGN k a BLOCK x", "ERR timeout is not an integer or out of range"),
        ("ELECT.RESIGN k a TOKEN x", "ERR value is not an integer or out of range"),
        ("ELECT.OBSERVE k TOKEN 99 BLOCK 0", "ERR TOKEN is not one that was given"),
        ("ELECT.OBSERVE k TOKEN -1", "ERR TOKEN is not one that was given"),
        ("ELECT.OBSERVE k TOKEN x", "ERR TOKEN is not one that was given"),
        ("ELECT.OBSERVE k BLOCK -1", "ERR timeout is negative"),
        ("ELECT.OBSERVE k 1", "ERR syntax error"),
    ],
)
def test_bad_arguments_are_refused_and_change_nothing(talk: Talk, line: str, text: str) -> None:
    assert error(talk("s", line)) == text
    assert len(talk.machine.keyspace) == len(talk.machine.waiters) == talk.machine.issued.counter == 0


@pytest.mark.parametrize("candidate", [b"", bytes(1 << 20)])
def test_a_candidate_of_no_bytes_or_a_million_is_refused(talk: Talk, candidate: bytes) -> None:
    assert error(talk("s", [b"ELECT.CAMPAIGN", b"k", candidate])).startswith("ERR candidate must be")
    assert len(talk.machine.keyspace) == 0


@pytest.mark.parametrize("line", ["ELECT.CAMPAIGN k a", "ELECT.RESIGN k a", "ELECT.LEADER k", "ELECT.OBSERVE k"])
def test_another_type_is_refused(talk: Talk, line: str) -> None:
    talk("s", "LATCH.ADD k 1")
    assert error(talk("s", line)).startswith("WRONGTYPE")


@pytest.mark.parametrize(("hello", "null"), [("HELLO 2", b"*-1\r\n"), ("HELLO 3", b"_\r\n")])
def test_on_the_wire(hello: str, null: bytes) -> None:
    front = WireFront()
    one, two = front.connect(), front.connect()
    front.send(two, hello)
    assert front.send(two, "ELECT.LEADER k") == null
    assert front.send(two, "ELECT.OBSERVE k") == null
    assert front.send(two, "ELECT.OBSERVE k BLOCK 0") == b""
    assert front.send(one, "ELECT.CAMPAIGN k a VALUE v SESSION") == b":1\r\n"
    assert front.send(two) == b"*3\r\n$1\r\na\r\n:1\r\n$1\r\nv\r\n"
    assert front.send(two, "ELECT.OBSERVE k TOKEN 1 BLOCK 50") == b""
    front.pass_time()
    assert front.send(two) == null
