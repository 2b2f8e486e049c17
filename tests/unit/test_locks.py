"""LOCK.*, driven through the machine by the table's records."""

from __future__ import annotations

import pytest

from cluster.machine.hold import REQUESTS_KEPT, TOKENS_KEPT, Issued
from cluster.machine.lock import Lock
from cluster.machine.machine import END_SESSION, Commands, Machine
from cluster.machine.reply import WAITING, CommandError, Reply
from resp_server.commands import keys, locks, strings

TABLE = {command.name.encode(): command for command in (*locks.COMMANDS, *keys.COMMANDS, *strings.COMMANDS)}
COMMANDS = Commands(
    {name: command.run for name, command in TABLE.items() if command.run is not None},
    {name: command.retry for name, command in TABLE.items() if command.retry is not None},
)
START_MS = 1_700_000_000_000


class Shard:
    """A machine with a hand on its clock; ``shard("s1", "LOCK.INFO k")`` is a command of session ``s1``."""

    def __init__(self) -> None:
        self.machine = Machine(COMMANDS)
        self.machine.begin(START_MS)

    def __call__(self, session: str, line: str) -> Reply:
        self.machine.origin = session.encode()
        args = line.encode().split()
        return self.machine.run(self.machine.handler(args[0]), args)

    def pass_ms(self, ms: int) -> None:
        self.machine.begin(self.machine.now_ms + ms)

    def end(self, session: str) -> None:
        self.machine.run(self.machine.handler(END_SESSION), [END_SESSION, session.encode()])

    def woken(self) -> list[tuple[str, Reply]]:
        woken = [(origin.decode(), reply) for origin, _, reply in self.machine.woken]
        self.machine.woken.clear()
        return woken

    def info(self, key: str = "k") -> dict[bytes, object]:
        info = self("reader", f"LOCK.INFO {key}")
        assert isinstance(info, dict)
        return info

    def holders(self, key: str = "k") -> list[tuple[bytes, int]]:
        holders = self.info(key)[b"holders"]
        assert isinstance(holders, list)
        return [(hold[b"owner"], hold[b"holds"]) for hold in holders]


@pytest.fixture
def shard() -> Shard:
    return Shard()


def error(reply: Reply) -> str:
    assert isinstance(reply, CommandError), reply
    return reply.line.decode()


def integer(reply: Reply) -> int:
    assert isinstance(reply, int), reply
    return reply


# Tokens


def test_the_first_token_is_one_and_every_hold_gets_a_greater_one(shard: Shard) -> None:
    assert shard("s", "LOCK.ACQUIRE k a") == 1
    assert shard("s", "LOCK.RELEASE k a") == 1
    assert shard("s", "LOCK.ACQUIRE k a") == 2
    shard.pass_ms(30_000)
    assert shard("s", "LOCK.ACQUIRE k b SHARED") == 3
    assert shard("s", "LOCK.ACQUIRE k c SHARED") == 4
    shard("s", "DEL k")
    assert shard("s", "LOCK.ACQUIRE k a") == 5


def test_a_free_lock_is_no_key_but_its_last_token_is_known(shard: Shard) -> None:
    shard("s", "LOCK.ACQUIRE k a SHARED")
    shard("s", "LOCK.ACQUIRE k b SHARED")
    shard("s", "LOCK.RELEASE k b")
    assert shard.info()[b"token"] == 2
    shard("s", "LOCK.RELEASE k a")
    assert shard("s", "EXISTS k") == 0
    assert shard.info() == {b"mode": b"free", b"token": 2, b"holders": [], b"waiters": []}
    assert shard.info("never")[b"token"] == 0
    shard("s", "LOCK.ACQUIRE k a")
    shard("s", "DEL k")
    assert shard.info()[b"token"] == 3


def test_the_memory_of_tokens_is_bounded_and_keeps_the_most_recent() -> None:
    issued = Issued()
    first = issued.issue(b"first")
    for number in range(4 * TOKENS_KEPT):
        issued.issue(b"%d" % number)
        issued.remember(b"first", first)
        assert len(issued.recent) <= 2 * TOKENS_KEPT
    assert issued.recent[b"first"] == first
    assert issued.recent[b"%d" % (4 * TOKENS_KEPT - 1)] == issued.counter
    assert b"0" not in issued.recent
    issued.issue(bytes(100_000))
    assert bytes(100_000) not in issued.recent


# Holding


def test_info_names_mode_holders_and_waiters(shard: Shard) -> None:
    shard("s1", "LOCK.ACQUIRE k a PX 5000")
    shard("s2", "LOCK.ACQUIRE k b BLOCK 0 ID SHARED")
    shard("s3", "LOCK.ACQUIRE k c SHARED BLOCK 900")
    shard.pass_ms(100)
    assert shard.info() == {
        b"mode": b"exclusive",
        b"token": 1,
        b"holders": [{b"owner": b"a", b"mode": b"exclusive", b"holds": 1, b"token": 1, b"ttl-ms": 4900, b"session": 0}],
        b"waiters": [
            {b"owner": b"b", b"mode": b"exclusive", b"waited-ms": 100},
            {b"owner": b"c", b"mode": b"shared", b"waited-ms": 100},
        ],
    }
    assert shard("s", "LOCK.OWNED a") == [b"k"]
    assert shard("s", "LOCK.OWNED b") == []


def test_acquiring_again_counts_up_with_the_same_token_and_never_shortens(shard: Shard) -> None:
    assert shard("s", "LOCK.ACQUIRE k a PX 5000") == 1
    assert shard("s", "LOCK.ACQUIRE k a SHARED PX 100") == 1
    assert shard.holders() == [(b"a", 2)]
    assert shard.info()[b"mode"] == b"exclusive"
    shard.pass_ms(4000)
    assert shard("s", "LOCK.ACQUIRE k a PX 2000") == 1
    assert [shard("s", "LOCK.RELEASE k a") for _ in range(2)] == [1, 1]
    shard.pass_ms(1999)
    assert shard.holders() == [(b"a", 1)]
    shard.pass_ms(1)
    assert shard.holders() == []
    assert shard("s", "LOCK.RELEASE k a") == 0


def test_a_resent_request_counts_nothing_up(shard: Shard) -> None:
    for _ in range(3):
        assert shard("s1", "LOCK.ACQUIRE k a ID r1 SESSION") == 1
    assert shard("s1", "LOCK.ACQUIRE k a ID r2 SESSION") == 1
    assert shard("s2", "LOCK.ACQUIRE k a ID r1 SESSION") == 1
    assert shard.holders() == [(b"a", 2)]
    shard.end("s1")  # the connection the first reply was lost on; the hold went to the one that sent it again
    assert shard.holders() == [(b"a", 2)]
    shard.end("s2")
    assert shard.holders() == []


def test_a_hold_remembers_a_bounded_number_of_requests(shard: Shard) -> None:
    for number in range(REQUESTS_KEPT + 1):
        shard("s", f"LOCK.ACQUIRE k a ID r{number}")
    shard("s", "LOCK.ACQUIRE k a ID r1")
    assert shard.holders() == [(b"a", REQUESTS_KEPT + 1)]
    shard("s", "LOCK.ACQUIRE k a ID r0")
    assert shard.holders() == [(b"a", REQUESTS_KEPT + 2)]


def test_a_request_resent_while_it_waits_is_one_hold(shard: Shard) -> None:
    shard("s1", "LOCK.ACQUIRE k a")
    assert shard("s2", "LOCK.ACQUIRE k b BLOCK 0 ID r") is WAITING
    assert shard("s3", "LOCK.ACQUIRE k b BLOCK 0 ID r") is WAITING
    shard("s1", "LOCK.RELEASE k a")
    assert shard.woken() == [("s2", 2), ("s3", 2)]
    assert shard.holders() == [(b"b", 1)]


def test_release_and_extend_want_the_holder_and_its_token(shard: Shard) -> None:
    assert shard("s", "LOCK.RELEASE k a") == 0
    assert shard("s", "LOCK.EXTEND k a PX 100") == 0
    shard("s", "LOCK.ACQUIRE k a PX 5000")
    assert shard("s", "LOCK.RELEASE k b") == 0
    assert shard("s", "LOCK.RELEASE k a TOKEN 2") == 0
    assert shard("s", "LOCK.EXTEND k a PX 100 TOKEN 2") == 0
    assert shard("s", "LOCK.EXTEND k a px 100 token 1") == 1
    shard.pass_ms(99)
    assert shard("s", "LOCK.EXTEND k a TOKEN 1 PX 100") == 1
    shard.pass_ms(99)
    assert shard("s", "LOCK.RELEASE k a TOKEN 1") == 1
    assert shard.info()[b"mode"] == b"free"


def test_downgrade_keeps_the_token_and_lets_sharers_in(shard: Shard) -> None:
    assert shard("s", "LOCK.DOWNGRADE k a") is None
    shard("s1", "LOCK.ACQUIRE k a")
    shard("s2", "LOCK.ACQUIRE k b SHARED BLOCK 0")
    assert shard("s", "LOCK.DOWNGRADE k b") is None
    assert shard("s1", "LOCK.DOWNGRADE k a") == 1
    assert shard("s1", "LOCK.DOWNGRADE k a") is None
    assert shard.woken() == [("s2", 2)]
    assert shard.holders() == [(b"a", 1), (b"b", 1)]


def test_break_removes_one_hold_or_all(shard: Shard) -> None:
    assert shard("s", "LOCK.BREAK k") == 0
    for owner in "abc":
        shard("s1", f"LOCK.ACQUIRE k {owner} SHARED SESSION")
    shard("s2", "LOCK.ACQUIRE k x BLOCK 0")
    assert shard("s", "LOCK.BREAK k nobody") == 0
    assert shard("s", "LOCK.BREAK k b") == 1
    assert shard.holders() == [(b"a", 1), (b"c", 1)]
    assert shard("s", "LOCK.BREAK k") == 2
    assert shard.woken() == [("s2", 4)]
    assert shard.machine.sessions.get(b"s1") is None


# Life


def test_a_hold_ends_before_anybody_else_is_granted(shard: Shard) -> None:
    shard("s1", "LOCK.ACQUIRE k a PX 100")
    assert shard("s2", "LOCK.ACQUIRE k b BLOCK 0 PX 50") is WAITING
    shard.pass_ms(250)
    assert shard.woken() == [("s2", 2)]
    assert shard.info()[b"holders"] == [
        {b"owner": b"b", b"mode": b"exclusive", b"holds": 1, b"token": 2, b"ttl-ms": 50, b"session": 0}
    ], "a waiter's life begins when it is granted"


def test_overdue_holds_are_gone_even_when_more_fell_due_than_one_entry_rings(shard: Shard) -> None:
    for number in range(3000):
        shard("s", f"LOCK.ACQUIRE k{number:04} a PX 100")
    shard.pass_ms(100)
    assert shard.machine.behind
    assert shard("s", "LOCK.EXTEND k2999 a PX 100") == 0
    assert shard("s", "LOCK.ACQUIRE k2998 b") == 3001


def test_a_session_hold_ends_with_its_session_and_not_before(shard: Shard) -> None:
    shard("s1", "LOCK.ACQUIRE k a SESSION")
    shard("s1", "LOCK.ACQUIRE k a PX 10")
    shard("s2", "LOCK.ACQUIRE k b BLOCK 0")
    shard.pass_ms(10**9)
    assert shard.info()[b"holders"] == [
        {b"owner": b"a", b"mode": b"exclusive", b"holds": 2, b"token": 1, b"ttl-ms": -1, b"session": 1}
    ]
    shard.end("s1")
    assert shard.woken() == [("s2", 2)]


def test_extend_makes_a_session_hold_end_by_time(shard: Shard) -> None:
    shard("s1", "LOCK.ACQUIRE k a SESSION")
    assert shard("s1", "LOCK.EXTEND k a PX 500") == 1
    assert shard.machine.sessions.get(b"s1") is None
    shard.end("s1")
    assert shard.holders() == [(b"a", 1)]
    shard.pass_ms(500)
    assert shard.holders() == []


def test_session_makes_a_timed_hold_end_with_the_session(shard: Shard) -> None:
    shard("s1", "LOCK.ACQUIRE k a PX 100")
    shard("s1", "LOCK.ACQUIRE k a SESSION")
    shard.pass_ms(10**6)
    assert shard.holders() == [(b"a", 2)]
    assert len(shard.machine.clockwork) == 0


def test_two_owners_of_one_session_end_together_and_are_forgotten_one_by_one(shard: Shard) -> None:
    shard("s1", "LOCK.ACQUIRE k a SHARED SESSION")
    shard("s1", "LOCK.ACQUIRE k b SHARED SESSION")
    shard("s1", "LOCK.RELEASE k a")
    session = shard.machine.sessions.get(b"s1")
    assert session is not None
    assert list(session.held) == [b"k"]
    shard("s1", "LOCK.ACQUIRE k a SHARED SESSION")
    shard.end("s1")
    assert shard.info()[b"mode"] == b"free"
    assert shard.machine.sessions.origins() == []


def test_a_deleted_lock_leaves_nothing_that_could_hurt_the_next_one(shard: Shard) -> None:
    shard("s1", "LOCK.ACQUIRE k a SESSION")
    shard("s2", "LOCK.ACQUIRE k b PX 200 BLOCK 0")
    assert shard("s", "DEL k") == 1
    assert shard.woken() == [("s2", 2)]
    shard.end("s1")
    assert shard.holders() == [(b"b", 1)]
    shard("s", "DEL k")
    shard("s2", "LOCK.ACQUIRE k b PX 10000")
    shard.pass_ms(200)  # the alarm of the hold that was deleted
    assert shard.holders() == [(b"b", 1)]


def test_a_string_over_a_lock_refuses_its_waiters(shard: Shard) -> None:
    shard("s1", "LOCK.ACQUIRE k a")
    shard("s2", "LOCK.ACQUIRE k b BLOCK 0")
    shard("s", "SET k text")
    [(session, reply)] = shard.woken()
    assert session == "s2"
    assert error(reply).startswith("WRONGTYPE")


def test_expire_on_a_lock_serves_its_waiters(shard: Shard) -> None:
    shard("s1", "LOCK.ACQUIRE k a SESSION")
    shard("s2", "LOCK.ACQUIRE k b BLOCK 0")
    assert shard("s", "PEXPIRE k 100") == 1
    shard.pass_ms(100)
    assert shard.woken() == [("s2", 2)]
    shard.pass_ms(20_000)
    assert shard.holders() == [(b"b", 1)], "the deadline was the old lock's"


def test_a_lock_is_not_copied(shard: Shard) -> None:
    shard("s1", "LOCK.ACQUIRE k a")
    assert error(shard("s", "COPY k other")) == "ERR a lock cannot be copied or renamed"


def test_pairs_leave_no_alarm_behind(shard: Shard) -> None:
    for _ in range(1000):
        shard("s1", "LOCK.ACQUIRE k a PX 5000")
        shard("s1", "LOCK.EXTEND k a PX 7000")
        shard("s2", "LOCK.ACQUIRE k b BLOCK 5000")
        shard("s1", "LOCK.ACQUIRE k a PX 9000")
        shard("s1", "LOCK.RELEASE k a")
        shard("s1", "LOCK.RELEASE k a")
        shard("s2", "LOCK.RELEASE k b")
    assert len(shard.machine.clockwork) == 0
    assert len(shard.machine.keyspace) == 0


@pytest.mark.parametrize(
    "line",
    [
        "LOCK.ACQUIRE k a SHARED PX 60000",
        "LOCK.ACQUIRE k c SHARED",
        "LOCK.RELEASE k a",
        "LOCK.RELEASE k b",
        "LOCK.EXTEND k a PX 5",
        "LOCK.BREAK k b",
        "LOCK.DOWNGRADE x a",
        "LOCK.ACQUIRE x a PX 60000",
    ],
)
def test_every_change_of_a_lock_reaches_the_next_checkpoint(shard: Shard, line: str) -> None:
    for setup in ("k a SHARED", "k a SHARED", "k b SHARED", "x a"):
        shard("s", f"LOCK.ACQUIRE {setup}")
    checkpoint, _ = shard.machine.begin_checkpoint()
    while checkpoint.slice(10):
        pass
    shard.machine.keyspace.end_checkpoint(durable=True)
    shard("s", line)
    checkpoint, ledger = shard.machine.begin_checkpoint()
    key = line.split()[1]
    [row] = checkpoint.slice(10)
    restored = Shard()
    restored.machine.restore(ledger, [row])
    assert restored.info(key) == shard.info(key)


# Waiting


def test_first_come_first_served_and_shared_does_not_overtake(shard: Shard) -> None:
    shard("s1", "LOCK.ACQUIRE k a SHARED")
    assert shard("s2", "LOCK.ACQUIRE k b BLOCK 0") is WAITING
    assert shard("s3", "LOCK.ACQUIRE k c SHARED") is None
    assert shard("s3", "LOCK.ACQUIRE k c SHARED BLOCK 0") is WAITING
    assert shard("s4", "LOCK.ACQUIRE k d SHARED BLOCK 0") is WAITING
    assert shard("s5", "LOCK.ACQUIRE k e BLOCK 0") is WAITING
    assert shard("s1", "LOCK.ACQUIRE k a SHARED") == 1, "a holder does not stand in the queue"
    shard("s1", "LOCK.RELEASE k a")
    assert shard.woken() == []
    shard("s1", "LOCK.RELEASE k a")
    assert shard.woken() == [("s2", 2)]
    shard("s2", "LOCK.RELEASE k b")
    assert shard.woken() == [("s3", 3), ("s4", 4)]


@pytest.mark.parametrize("leaving", ["timeout", "session"])
def test_sharers_behind_an_exclusive_waiter_go_on_when_it_leaves(shard: Shard, leaving: str) -> None:
    shard("s1", "LOCK.ACQUIRE k a SHARED")
    shard("s2", "LOCK.ACQUIRE k b BLOCK 100")
    shard("s3", "LOCK.ACQUIRE k c SHARED BLOCK 0")
    if leaving == "timeout":
        shard.pass_ms(100)
        assert shard.woken() == [("s2", None), ("s3", 2)]
    else:
        shard.end("s2")
        assert shard.woken() == [("s3", 2)]


def test_a_sole_sharer_is_upgraded_with_a_new_token(shard: Shard) -> None:
    assert shard("s1", "LOCK.ACQUIRE k a SHARED") == 1
    shard("s2", "LOCK.ACQUIRE k b BLOCK 0")
    assert shard("s1", "LOCK.ACQUIRE k a") == 2
    assert shard.holders() == [(b"a", 1)], "one release gives it all back"
    assert shard.info()[b"mode"] == b"exclusive"
    assert shard("s1", "LOCK.RELEASE k a TOKEN 1") == 0


def test_an_upgrade_is_served_before_other_waiters_and_a_second_one_is_a_deadlock(shard: Shard) -> None:
    shard("s1", "LOCK.ACQUIRE k a SHARED")
    shard("s2", "LOCK.ACQUIRE k b SHARED")
    shard("s3", "LOCK.ACQUIRE k c BLOCK 0")
    assert shard("s1", "LOCK.ACQUIRE k a") is None
    assert shard("s1", "LOCK.ACQUIRE k a BLOCK 0") is WAITING
    assert error(shard("s2", "LOCK.ACQUIRE k b BLOCK 0")) == (
        "DEADLOCK b waits for k held by a, a waits for k held by b"
    )
    shard("s2", "LOCK.RELEASE k b")
    assert shard.woken() == [("s1", 3)]


def test_who_waits_for_an_upgrade_and_loses_what_it_held_stands_in_line_like_others(shard: Shard) -> None:
    shard("s1", "LOCK.ACQUIRE k a SHARED")
    shard("s2", "LOCK.ACQUIRE k b SHARED")
    shard("s3", "LOCK.ACQUIRE k c BLOCK 0")
    shard("s1", "LOCK.ACQUIRE k a BLOCK 0")
    shard("s4", "LOCK.BREAK k a")
    assert [waiter.origin for waiter in shard.machine.waiters.at(b"k", Lock.kind)] == [b"s3", b"s1"]
    shard("s2", "LOCK.RELEASE k b")
    assert shard.woken() == [("s3", 3)]


def test_a_transaction_does_not_wait(shard: Shard) -> None:
    shard("s1", "LOCK.ACQUIRE k a")
    shard.machine.may_wait = False
    assert shard("s2", "LOCK.ACQUIRE k b BLOCK 0") is None
    assert len(shard.machine.waiters) == 0


# Deadlocks


def test_the_wait_that_closes_a_cycle_is_refused(shard: Shard) -> None:
    for number in "1234":
        shard(f"s{number}", f"LOCK.ACQUIRE k{number} o{number}")
    for number in "123":
        assert shard(f"s{number}", f"LOCK.ACQUIRE k{int(number) + 1} o{number} BLOCK 0") is WAITING
    assert shard("s4", "LOCK.ACQUIRE k1 o4") is None, "who does not wait closes no cycle"
    assert error(shard("s4", "LOCK.ACQUIRE k1 o4 BLOCK 0")) == (
        "DEADLOCK o4 waits for k1 held by o1, o1 waits for k2 held by o2, "
        "o2 waits for k3 held by o3, o3 waits for k4 held by o4"
    )
    assert len(shard.machine.waiters) == 3
    shard("s4", "LOCK.RELEASE k4 o4")
    assert [session for session, _ in shard.woken()] == ["s3"]


def test_a_wait_that_is_over_closes_no_cycle(shard: Shard) -> None:
    shard("s1", "LOCK.ACQUIRE k1 a SESSION")
    shard("s2", "LOCK.ACQUIRE k2 b SESSION")
    assert shard("s1", "LOCK.ACQUIRE k2 a BLOCK 100") is WAITING
    shard.pass_ms(100)
    assert shard("s2", "LOCK.ACQUIRE k1 b BLOCK 0") is WAITING


def test_a_cycle_closed_by_a_grant_fails_who_began_to_wait_last(shard: Shard) -> None:
    shard("s1", "LOCK.ACQUIRE k1 x")
    shard("s2", "LOCK.ACQUIRE k2 d")
    assert shard("c1", "LOCK.ACQUIRE k1 c BLOCK 0") is WAITING
    assert shard("c2", "LOCK.ACQUIRE k2 c BLOCK 0") is WAITING
    assert shard("s2", "LOCK.ACQUIRE k1 d BLOCK 0") is WAITING
    shard("s1", "LOCK.RELEASE k1 x")
    by_session = dict(shard.woken())
    assert by_session["c1"] == 3
    assert error(by_session["s2"]) == "DEADLOCK c waits for k2 held by d, d waits for k1 held by c"
    assert shard.machine.waiters.of(b"c2") is not None


def test_an_owners_own_waits_become_upgrades_when_it_is_granted_to_share(shard: Shard) -> None:
    shard("s1", "LOCK.ACQUIRE k x")
    shard("b1", "LOCK.ACQUIRE k b SHARED BLOCK 0")
    shard("s2", "LOCK.ACQUIRE k c BLOCK 0")
    shard("b2", "LOCK.ACQUIRE k b BLOCK 0")
    shard("s1", "LOCK.RELEASE k x")
    assert shard.woken() == [("b1", 2), ("b2", 3)]
    assert shard.holders() == [(b"b", 1)]


def test_the_index_of_waits_does_not_grow_with_waits_that_are_over(shard: Shard) -> None:
    shard("s1", "LOCK.ACQUIRE k a SESSION")
    for number in range(1000):
        shard("s2", f"LOCK.ACQUIRE k o{number} BLOCK 10")
        shard.pass_ms(10)
    assert len(shard.machine.lock_waits._by_owner) == 0


# Arguments


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("LOCK.ACQUIRE k a PX", "ERR syntax error"),
        ("LOCK.ACQUIRE k a WHAT", "ERR syntax error"),
        ("LOCK.ACQUIRE k a PX 1 PX 1", "ERR syntax error"),
        ("LOCK.ACQUIRE k a SHARED EXCLUSIVE", "ERR syntax error"),
        ("LOCK.ACQUIRE k a PX 1 SESSION", "ERR syntax error"),
        ("LOCK.ACQUIRE k a PX x", "ERR value is not an integer or out of range"),
        ("LOCK.ACQUIRE k a PX 0", "ERR invalid expire time in 'lock.acquire' command"),
        ("LOCK.ACQUIRE k a PX -1", "ERR invalid expire time in 'lock.acquire' command"),
        ("LOCK.ACQUIRE k a PX 9223372036854775807", "ERR invalid expire time in 'lock.acquire' command"),
        ("LOCK.ACQUIRE k a PX 9223372036854775808", "ERR value is not an integer or out of range"),
        ("LOCK.ACQUIRE k a BLOCK -1", "ERR timeout is negative"),
        ("LOCK.ACQUIRE k a BLOCK x", "ERR timeout is not an integer or out of range"),
        ("LOCK.ACQUIRE k a BLOCK 9223372036854775807", "ERR timeout is out of range"),
        ("LOCK.EXTEND k a PY 1", "ERR syntax error"),
        ("LOCK.EXTEND k a TOKEN 1", "ERR syntax error"),
        ("LOCK.EXTEND k a PX 0", "ERR invalid expire time in 'lock.extend' command"),
        ("LOCK.RELEASE k a TOKEN", "ERR syntax error"),
        ("LOCK.RELEASE k a TOKEN x", "ERR value is not an integer or out of range"),
        ("LOCK.BREAK k a b", "ERR syntax error"),
        ("LOCK.SCAN 0 TYPE string", "ERR syntax error"),
    ],
)
def test_bad_arguments_are_refused_and_change_nothing(shard: Shard, line: str, text: str) -> None:
    assert error(shard("s", line)) == text
    assert len(shard.machine.keyspace) == 0


@pytest.mark.parametrize(
    "line",
    [
        "LOCK.ACQUIRE k a",
        "LOCK.RELEASE k a",
        "LOCK.EXTEND k a PX 1",
        "LOCK.DOWNGRADE k a",
        "LOCK.BREAK k",
        "LOCK.INFO k",
    ],
)
def test_another_type_is_refused(shard: Shard, line: str) -> None:
    shard("s", "SET k text")
    assert error(shard("s", line)).startswith("WRONGTYPE")
    shard("s", "DEL k")
    shard("s", "LOCK.ACQUIRE k a")
    assert error(shard("s", "GET k")).startswith("WRONGTYPE")


def test_scan_walks_over_locks_only(shard: Shard) -> None:
    for number in range(50):
        shard("s", f"LOCK.ACQUIRE lock:{number} a")
        shard("s", f"SET text:{number} x")
    found: list[bytes] = []
    cursor = b"0"
    while True:
        reply = shard("s", f"LOCK.SCAN {cursor.decode()} MATCH *:1* COUNT 7")
        assert isinstance(reply, list)
        cursor, keys_met = reply
        found += keys_met
        if cursor == b"0":
            break
    assert sorted(found) == sorted(b"lock:%d" % number for number in range(50) if str(number)[0] == "1")
    assert isinstance(shard.machine.keyspace.values[found[0]], Lock)
