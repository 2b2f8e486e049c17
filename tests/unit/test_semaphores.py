"""SEM.*, through the machine and on the wire."""

from __future__ import annotations

import pytest

from cluster.machine.reply import WAITING
from tests.unit.machines import Talk, error
from tests.unit.wire_front import WireFront


@pytest.fixture
def talk() -> Talk:
    return Talk()


def held(talk: Talk) -> list[tuple[object, object]]:
    holders = talk.map("SEM.INFO k")[b"holders"]
    assert isinstance(holders, list)
    return [(hold[b"owner"], hold[b"count"]) for hold in holders]


# Places


def test_as_many_as_the_limit_hold_at_once(talk: Talk) -> None:
    assert [talk("s", f"SEM.ACQUIRE k {owner} LIMIT 2") for owner in "abc"] == [1, 2, None]
    assert talk("s", "SEM.RELEASE k a") == 1
    assert talk("s", "SEM.ACQUIRE k c LIMIT 2") == 3
    assert held(talk) == [(b"b", 1), (b"c", 1)]


def test_info_names_limit_holders_and_waiters(talk: Talk) -> None:
    assert talk.map("SEM.INFO k") == {b"limit": 0, b"held": 0, b"token": 0, b"holders": [], b"waiters": []}
    talk("s1", "SEM.ACQUIRE k a LIMIT 3 COUNT 2 PX 5000")
    talk("s2", "SEM.ACQUIRE k b LIMIT 3 SESSION")
    talk("s3", "SEM.ACQUIRE k c LIMIT 3 COUNT 2 BLOCK 0 ID COUNT")
    talk.pass_ms(100)
    assert talk.map("SEM.INFO k") == {
        b"limit": 3,
        b"held": 3,
        b"token": 2,
        b"holders": [
            {b"owner": b"a", b"count": 2, b"token": 1, b"ttl-ms": 4900, b"session": 0},
            {b"owner": b"b", b"count": 1, b"token": 2, b"ttl-ms": -1, b"session": 1},
        ],
        b"waiters": [{b"owner": b"c", b"count": 2, b"waited-ms": 100}],
    }


def test_asking_again_adds_to_the_hold_with_the_same_token_and_never_shortens_it(talk: Talk) -> None:
    assert talk("s", "SEM.ACQUIRE k a LIMIT 3 PX 5000") == 1
    assert talk("s", "SEM.ACQUIRE k a LIMIT 3 COUNT 2 PX 100") == 1
    assert talk("s", "SEM.ACQUIRE k a LIMIT 3") is None, "its own places count, too"
    assert held(talk) == [(b"a", 3)]
    talk.pass_ms(4999)
    assert held(talk) == [(b"a", 3)]
    talk.pass_ms(1)
    assert held(talk) == []


def test_a_resent_request_takes_nothing_and_prolongs(talk: Talk) -> None:
    for _ in range(3):
        assert talk("s", "SEM.ACQUIRE k a LIMIT 1 PX 1000 ID r") == 1
        talk.pass_ms(600)
    assert held(talk) == [(b"a", 1)]
    assert talk("s2", "SEM.ACQUIRE k b LIMIT 1 BLOCK 0 ID q") is WAITING
    assert talk("s3", "SEM.ACQUIRE k b LIMIT 1 BLOCK 0 ID q") is WAITING
    assert talk("s", "SEM.ACQUIRE k a LIMIT 1 PX 1000 ID r") == 1, "nor does it wait in line"
    talk("s", "SEM.RELEASE k a")
    assert talk.woken() == [("s2", 2), ("s3", 2)]
    assert held(talk) == [(b"b", 1)]


def test_release_gives_back_what_is_held_and_no_more(talk: Talk) -> None:
    assert talk("s", "SEM.RELEASE k a") == 0
    talk("s", "SEM.ACQUIRE k a LIMIT 5 COUNT 4")
    assert talk("s", "SEM.RELEASE k a TOKEN 9") == 0
    assert talk("s", "SEM.RELEASE k b") == 0
    assert talk("s", "SEM.RELEASE k a TOKEN 1 COUNT 3") == 3
    assert held(talk) == [(b"a", 1)]
    assert talk("s", "SEM.RELEASE k a COUNT 3") == 1
    assert talk("s", "EXISTS k") == 0
    assert len(talk.machine.clockwork) == 0


# The limit


def test_the_limit_of_the_latest_acquire_is_the_limit(talk: Talk) -> None:
    talk("s1", "SEM.ACQUIRE k a LIMIT 1")
    assert talk("s2", "SEM.ACQUIRE k b LIMIT 1 BLOCK 0") is WAITING
    assert talk("s3", "SEM.ACQUIRE k c LIMIT 2") is None, "who came first goes first"
    assert talk.woken() == [("s2", 2)]
    assert talk.map("SEM.INFO k")[b"limit"] == 2


def test_when_it_shrinks_nobody_loses_a_place_and_few_are_given(talk: Talk) -> None:
    for owner in "abc":
        talk("s", f"SEM.ACQUIRE k {owner} LIMIT 3")
    assert talk("s2", "SEM.ACQUIRE k d LIMIT 2 BLOCK 0") is WAITING
    assert held(talk) == [(b"a", 1), (b"b", 1), (b"c", 1)]
    talk("s", "SEM.RELEASE k a")
    assert talk.woken() == []
    talk("s", "SEM.RELEASE k b")
    assert talk.woken() == [("s2", 4)]


def test_who_waits_for_more_than_there_are_is_refused_when_it_shrinks(talk: Talk) -> None:
    talk("s1", "SEM.ACQUIRE k a LIMIT 3")
    assert talk("s2", "SEM.ACQUIRE k b LIMIT 3 COUNT 3 BLOCK 0") is WAITING
    assert talk("s3", "SEM.ACQUIRE k c LIMIT 3 BLOCK 0") is WAITING
    assert talk("s4", "SEM.ACQUIRE k d LIMIT 2") is None
    [(session, reply), after] = talk.woken()
    assert session == "s2"
    assert error(reply) == "ERR COUNT 3 is more than LIMIT 2"
    assert after == ("s3", 2), "and keeps nobody waiting"


def test_without_holders_the_latest_who_waits_says_the_limit(talk: Talk) -> None:
    talk("s1", "SEM.ACQUIRE k a LIMIT 1")
    for number, limit in ((2, 1), (3, 1), (4, 2)):
        talk(f"s{number}", f"SEM.ACQUIRE k o{number} LIMIT {limit} BLOCK 0")
    assert talk.woken() == [("s2", 2)]
    talk("s", "DEL k")
    assert talk.woken() == [("s3", 3), ("s4", 4)]
    assert talk.map("SEM.INFO k")[b"limit"] == 2


# Waiting and living


def test_who_wants_few_does_not_overtake_who_wants_many(talk: Talk) -> None:
    talk("s1", "SEM.ACQUIRE k a LIMIT 3 COUNT 2")
    assert talk("s2", "SEM.ACQUIRE k b LIMIT 3 COUNT 3 BLOCK 100") is WAITING
    assert talk("s3", "SEM.ACQUIRE k c LIMIT 3 BLOCK 0") is WAITING
    assert talk("s1", "SEM.ACQUIRE k a LIMIT 3") is None, "nor does a holder"
    talk("s1", "SEM.RELEASE k a")
    assert talk.woken() == []
    talk.pass_ms(100)
    assert talk.woken() == [("s2", None), ("s3", 2)]


def test_several_are_served_by_one_release(talk: Talk) -> None:
    talk("s1", "SEM.ACQUIRE k a LIMIT 3 COUNT 3")
    for number in (2, 3, 4, 5):
        talk(f"s{number}", f"SEM.ACQUIRE k o{number} LIMIT 3 BLOCK 0")
    talk("s1", "SEM.RELEASE k a COUNT 3")
    assert talk.woken() == [("s2", 2), ("s3", 3), ("s4", 4)]


@pytest.mark.parametrize("ending", ["time", "session", "DEL k", "FLUSHALL", "PEXPIRE k 50"])
def test_holds_end_as_those_of_locks_do(talk: Talk, ending: str) -> None:
    life = "SESSION" if ending == "session" else "PX 100"
    talk("s1", f"SEM.ACQUIRE k a LIMIT 2 COUNT 2 {life}")
    assert talk("s2", "SEM.ACQUIRE k b LIMIT 2 BLOCK 0 SESSION") is WAITING
    if ending == "session":
        talk.end("s1")
    elif ending != "time":
        talk("s", ending)
    talk.pass_ms(100)
    assert talk.woken() == [("s2", 2)]
    assert held(talk) == [(b"b", 1)]
    talk.end("s2")
    assert len(talk.machine.keyspace) == len(talk.machine.clockwork) == len(talk.machine.sessions.origins()) == 0


def test_overdue_holds_are_gone_even_when_more_fell_due_than_one_entry_rings(talk: Talk) -> None:
    for number in range(3000):
        talk("s", f"SEM.ACQUIRE k{number:04} a LIMIT 1 PX 100")
    talk.pass_ms(100)
    assert talk.machine.behind
    assert talk("s", "SEM.ACQUIRE k2999 b LIMIT 1") == 3001


def test_a_transaction_and_one_who_leaves_wait_for_nothing(talk: Talk) -> None:
    talk("s1", "SEM.ACQUIRE k a LIMIT 1")
    talk("s2", "SEM.ACQUIRE k b LIMIT 1 BLOCK 0")
    talk.end("s2")
    assert len(talk.machine.waiters) == 0
    talk.machine.may_wait = False
    assert talk("s2", "SEM.ACQUIRE k b LIMIT 1 BLOCK 0") is None
    assert len(talk.machine.waiters) == 0


def test_a_string_over_it_refuses_who_waits(talk: Talk) -> None:
    talk("s1", "SEM.ACQUIRE k a LIMIT 1")
    talk("s2", "SEM.ACQUIRE k b LIMIT 1 BLOCK 0")
    talk("s", "SET k text")
    [(_, reply)] = talk.woken()
    assert error(reply).startswith("WRONGTYPE")


# A value like others


def test_it_is_a_value_of_the_keyspace(talk: Talk) -> None:
    talk("s", "SEM.ACQUIRE k a LIMIT 1")
    talk("s", "LOCK.ACQUIRE lock a")
    assert str(talk("s", "TYPE k")) == "Status('semaphore')"
    assert talk("s", "SCAN 0 COUNT 16384 TYPE semaphore") == [b"0", [b"k"]]
    assert talk("s", "OBJECT ENCODING k") == b"semaphore"
    usage = talk("s", "MEMORY USAGE k")
    assert isinstance(usage, int)
    assert usage > 100
    assert error(talk("s", "COPY k other")) == "ERR a semaphore cannot be copied or renamed"
    assert error(talk("s", "RENAME k other")) == "ERR a semaphore cannot be copied or renamed"
    assert error(talk("s", "LOCK.ACQUIRE k a")).startswith("WRONGTYPE")
    assert talk("s", "FENCE k 1 INCR n") == 1
    assert error(talk("s", "FENCE k 2 INCR n")).startswith("FENCED")
    assert talk("s", "DEL k") == 1
    assert talk.map("SEM.INFO k")[b"token"] == 1, "its last token is remembered"


@pytest.mark.parametrize(
    "line",
    [
        "SEM.ACQUIRE k a LIMIT 9 PX 60000",
        "SEM.ACQUIRE k c LIMIT 3",
        "SEM.ACQUIRE k c LIMIT 1",
        "SEM.RELEASE k a",
        "SEM.RELEASE k a COUNT 2",
        "SEM.RELEASE k b",
    ],
)
def test_every_change_reaches_the_next_checkpoint(talk: Talk, line: str) -> None:
    talk("s", "SEM.ACQUIRE k a LIMIT 5 COUNT 2")
    talk("s", "SEM.ACQUIRE k b LIMIT 5 SESSION")
    talk("w", "SEM.ACQUIRE k d LIMIT 5 COUNT 5 BLOCK 0")
    checkpoint, _ = talk.machine.begin_checkpoint()
    while checkpoint.slice(10):
        pass
    talk.machine.keyspace.end_checkpoint(durable=True)
    talk("s", line)
    checkpoint, ledger = talk.machine.begin_checkpoint()
    [row] = checkpoint.slice(10)
    restored = Talk()
    restored.machine.restore(ledger, [row])
    assert restored.map("SEM.INFO k") == talk.map("SEM.INFO k")
    for one in (talk, restored):
        one.end("s")
        for _ in range(2):  # what is left, and then what was waiting for that
            one.pass_ms(10**9)
        assert len(one.machine.keyspace) == len(one.machine.waiters) == len(one.machine.sessions.origins()) == 0


# Bad input


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("SEM.ACQUIRE k a COUNT 1", "ERR syntax error"),
        ("SEM.ACQUIRE k a LIMIT 1 LIMIT 1", "ERR syntax error"),
        ("SEM.ACQUIRE k a LIMIT 1 SHARED", "ERR syntax error"),
        ("SEM.ACQUIRE k a LIMIT 1 PX 1 SESSION", "ERR syntax error"),
        ("SEM.ACQUIRE k a LIMIT 0", "ERR value is out of range, must be positive"),
        ("SEM.ACQUIRE k a LIMIT -3", "ERR value is out of range, must be positive"),
        ("SEM.ACQUIRE k a LIMIT x", "ERR value is not an integer or out of range"),
        ("SEM.ACQUIRE k a LIMIT 9223372036854775808", "ERR value is not an integer or out of range"),
        ("SEM.ACQUIRE k a LIMIT 2 COUNT 0", "ERR value is out of range, must be positive"),
        ("SEM.ACQUIRE k a LIMIT 2 COUNT 3", "ERR COUNT 3 is more than LIMIT 2"),
        ("SEM.ACQUIRE k a LIMIT 2 PX 0", "ERR invalid expire time in 'sem.acquire' command"),
        ("SEM.ACQUIRE k a LIMIT 2 PX 9223372036854775807", "ERR invalid expire time in 'sem.acquire' command"),
        ("SEM.ACQUIRE k a LIMIT 2 BLOCK -1", "ERR timeout is negative"),
        ("SEM.RELEASE k a COUNT 0", "ERR value is out of range, must be positive"),
        ("SEM.RELEASE k a TOKEN x", "ERR value is not an integer or out of range"),
        ("SEM.RELEASE k a WHAT", "ERR syntax error"),
    ],
)
def test_bad_arguments_are_refused_and_change_nothing(talk: Talk, line: str, text: str) -> None:
    assert error(talk("s", line)) == text
    assert len(talk.machine.keyspace) == talk.machine.issued.counter == 0
    talk("s", "SEM.ACQUIRE k a LIMIT 5 COUNT 5 PX 900")
    before = talk.map("SEM.INFO k")
    assert error(talk("s", line)) == text
    assert talk.map("SEM.INFO k") == before


@pytest.mark.parametrize("owner", [b"", bytes(1 << 20)])
def test_an_owner_of_no_bytes_or_a_million_is_refused(talk: Talk, owner: bytes) -> None:
    assert error(talk("s", [b"SEM.ACQUIRE", b"k", owner, b"LIMIT", b"1"])).startswith("ERR owner must be")
    assert len(talk.machine.keyspace) == 0


@pytest.mark.parametrize("line", ["SEM.ACQUIRE k a LIMIT 1", "SEM.RELEASE k a", "SEM.INFO k"])
def test_another_type_is_refused(talk: Talk, line: str) -> None:
    talk("s", "LOCK.ACQUIRE k a")
    assert error(talk("s", line)).startswith("WRONGTYPE")


def test_on_the_wire() -> None:
    front = WireFront(lock_default_ttl="7000")
    one, two = front.connect(), front.connect()
    assert front.send(one, "SEM.ACQUIRE k a LIMIT 1") == b":1\r\n"
    assert b"ttl-ms\r\n:7000\r\n" in front.send(one, "SEM.INFO k"), "the setting's life"
    assert front.send(two, "SEM.ACQUIRE k b LIMIT 1") == b"$-1\r\n"
    assert front.send(two, "SEM.ACQUIRE k b LIMIT 1 BLOCK 0") == b""
    assert front.send(one, "MULTI", "SEM.RELEASE k a", "SEM.ACQUIRE k a LIMIT 1 BLOCK 0", "EXEC").endswith(
        b"*2\r\n:1\r\n$-1\r\n"
    )
    assert front.send(two) == b":2\r\n"
    assert front.ask("COMMAND GETKEYS SEM.ACQUIRE k a LIMIT 1") == b"*1\r\n$1\r\nk\r\n"
