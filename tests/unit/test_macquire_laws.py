"""Laws of several locks at once, over histories hypothesis makes up.

Every session has one owner of the same name. After each act the machine is
compared with copies of it that came from a checkpoint, so that restoring at
any point is one of the laws; and with one that looks for no deadlocks: there,
whoever does not wait gives back all it holds until nobody else can go on, and
who is left over is deadlocked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.machine import lock_deadlocks
from cluster.machine.lock import Lock
from cluster.machine.lock_requests import owner_at, wants_exclusive
from cluster.machine.machine import END_SESSION
from cluster.machine.reply import CommandError, Reply
from tests.unit.machines import Talk

KEYS = (b"k1", b"k2", b"k3")
OWNERS = (b"a", b"b", b"c", b"d")

Act: TypeAlias = "tuple[int, bytes, list[bytes]]"  # the pause before it, the session, the command


@st.composite
def acts(draw: st.DrawFn) -> Act:
    pause_ms = draw(st.sampled_from([0, 0, 0, 0, 0, 0, 0, 30, 2000]))
    owner, key = draw(st.sampled_from(OWNERS)), draw(st.sampled_from(KEYS))
    name = draw(st.sampled_from([b"LOCK.MACQUIRE"] * 6 + [b"LOCK.ACQUIRE"] * 3 + [b"LOCK.RELEASE"] * 4 + RARELY))
    match name:
        case b"LOCK.MACQUIRE" | b"LOCK.ACQUIRE":
            keys = draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=3, unique=True))
            named = [b"%d" % len(keys), *keys] if name == b"LOCK.MACQUIRE" else [key]
            mode = draw(st.sampled_from([b"SHARED", b"EXCLUSIVE"]))
            life = draw(st.sampled_from([[b"SESSION"], [b"PX", b"60"], [b"PX", b"9000"], [b"PX", b"9000"]]))
            block = draw(st.sampled_from([[], [b"BLOCK", b"0"], [b"BLOCK", b"0"], [b"BLOCK", b"0"], [b"BLOCK", b"50"]]))
            args = [name, *named, owner, mode, *life, *block]
        case b"LOCK.BREAK" | b"DEL":
            args = [name, key]
        case b"_SESSION.END":
            args = [name, owner]
        case _:
            args = [name, key, owner]
    return pause_ms, owner, args


RARELY = [b"LOCK.DOWNGRADE", b"LOCK.BREAK", b"DEL", END_SESSION]
HISTORIES = st.lists(acts(), min_size=10, max_size=35)


def plain(reply: object) -> object:
    return (reply.code, reply.message) if isinstance(reply, CommandError) else reply


def told(talk: Talk, act: Act) -> tuple[object, list[tuple[str, object]]]:
    """What an act is answered, and who is woken by it and the pause before it."""
    pause_ms, session, args = act
    talk.pass_ms(pause_ms)
    reply: Reply = None
    if args[0] == END_SESSION or talk.machine.waiters.of(session) is None:  # a session that waits says nothing
        reply = talk(session.decode(), args)
    return plain(reply), [(origin, plain(woken)) for origin, woken in talk.woken()]


def seen(talk: Talk) -> list[Any]:
    """All that can be looked at."""
    graph = talk.map("LOCK.GRAPH")
    return [*(talk.map(f"LOCK.INFO {key.decode()}") for key in KEYS), graph]


@contextmanager
def nobody_looks_for_deadlocks() -> Iterator[None]:
    def nothing(*_args: object) -> None:
        """No cycle is found."""

    with patch.object(lock_deadlocks, "refuse_cycle", nothing), patch.object(lock_deadlocks, "break_cycles", nothing):
        yield


def deadlocked(talk: Talk) -> list[bytes]:
    """Who waits still after whoever does not wait gave back all it holds, until nobody new was served."""
    machine = talk.machine
    while machine.waiters.everyone():
        waiting = {waiter.origin for waiter in machine.waiters.everyone()}
        gave_back = 0
        for key in KEYS:
            for hold in list(lock.holders()) if isinstance(lock := machine.keyspace.values.get(key), Lock) else []:
                if hold.owner not in waiting:
                    talk("drain", [b"LOCK.BREAK", key, hold.owner])
                    gave_back += 1
        if not gave_back:
            break
    return sorted(waiter.origin for waiter in machine.waiters.everyone())


def can_be_served(talk: Talk, waiter: Any) -> bool:
    """Whether the rules, read afresh, allow a grant to one who waits."""
    machine = talk.machine
    at = owner_at(waiter.args)
    owner, exclusive = waiter.args[at], wants_exclusive(waiter.args, at)

    def is_open(key: bytes) -> bool:
        lock = machine.keyspace.values.get(key)
        first = machine.waiters.at(key, Lock.kind)[0] is waiter
        if lock is None:
            return first
        assert isinstance(lock, Lock)
        holders = [hold.owner for hold in lock.holders()]
        if owner in holders:
            return lock.mode == b"exclusive" or not exclusive or len(holders) == 1
        return first and not exclusive and lock.mode == b"shared"

    return all(map(is_open, waiter.keys))


def check_state(talk: Talk) -> None:
    machine = talk.machine
    for key in KEYS:
        info = talk.map(f"LOCK.INFO {key.decode()}")
        holders = info[b"holders"]
        assert isinstance(holders, list)
        assert info[b"mode"] != b"exclusive" or len(holders) == 1
        assert len({hold[b"token"] for hold in holders}) == len(holders)
        for hold in holders:
            assert key in machine.lock_waits.held_by(hold[b"owner"])
    for waiter in machine.waiters.everyone():
        assert not can_be_served(talk, waiter), waiter
    held = [(owner, key) for owner in OWNERS for key in machine.lock_waits.held_by(owner)]
    for owner, key in held:
        lock = machine.keyspace.values.get(key)
        assert isinstance(lock, Lock)
        assert lock.holder(owner) is not None


def check_order(before: list[Any], after: list[Any], holders_before: set[tuple[bytes, bytes]], talk: Talk) -> None:
    """Whoever came to hold a key was before everybody who waits for it still."""
    left = {waiter.number for waiter in before} - {waiter.number for waiter in after}
    for served in (waiter for waiter in before if waiter.number in left):
        owner = served.args[owner_at(served.args)]
        for key in served.keys:
            lock = talk.machine.keyspace.values.get(key)
            is_new = isinstance(lock, Lock) and lock.holder(owner) is not None and (owner, key) not in holders_before
            if is_new and key not in served.urgent:
                assert all(waiter.number > served.number for waiter in after if key in waiter.keys)


def holds(talk: Talk) -> set[tuple[bytes, bytes]]:
    values = talk.machine.keyspace.values
    return {(hold.owner, key) for key in KEYS if isinstance(lock := values.get(key), Lock) for hold in lock.holders()}


def run(history: list[Act], check: Callable[[Talk, Act], None]) -> Talk:
    talk = Talk()
    for act in history:
        check(talk, act)
    return talk


@given(HISTORIES)
@settings(max_examples=120, deadline=None)
def test_order_exclusion_restoring_and_no_lost_wake_up(history: list[Act]) -> None:
    def check(talk: Talk, act: Act) -> None:
        copy = talk.restored()
        waiting, held, counter = talk.machine.waiters.everyone(), holds(talk), talk.machine.issued.counter
        answer = told(talk, act)
        assert told(copy, act) == answer
        assert seen(copy) == seen(talk)
        check_state(talk)
        check_order(waiting, talk.machine.waiters.everyone(), held, talk)
        new = [reply for reply in (answer[0], *(reply for _, reply in answer[1])) if isinstance(reply, list)]
        assert all(0 < token <= talk.machine.issued.counter for tokens in new for token in tokens)
        assert talk.machine.issued.counter >= counter

    talk = run(history, check)
    for owner in OWNERS:
        talk("end", [END_SESSION, owner])
    for key in KEYS:
        talk("end", [b"LOCK.BREAK", key])
    machine = talk.machine
    assert len(machine.waiters) == len(machine.keyspace) == len(machine.sessions.origins()) == 0
    assert not machine.lock_waits._held
    assert not machine.waiters._wide
    talk.pass_ms(100_000)
    assert len(machine.clockwork) == 0


@given(HISTORIES)
@settings(max_examples=120, deadline=None)
def test_every_deadlock_is_broken_and_nobody_fails_without_one(history: list[Act]) -> None:
    def check(talk: Talk, act: Act) -> None:
        with nobody_looks_for_deadlocks():
            blind = talk.restored()
            told(blind, act)
            stuck = deadlocked(blind)
        reply, woken = told(talk, act)
        failed = [one[1] for one in (reply, *(reply for _, reply in woken)) if isinstance(one, tuple)]
        assert bool(failed) == bool(stuck), (act, stuck)
        rest = talk.restored()
        with nobody_looks_for_deadlocks():
            assert deadlocked(rest) == []
        for text in failed:
            assert all(word.count(" waits for ") == 1 for word in text.split(", "))

    run(history, check)


def test_the_laws_see_a_deadlock() -> None:
    with nobody_looks_for_deadlocks():
        talk = Talk()
        talk("a", "LOCK.ACQUIRE k2 a")
        talk("b", "LOCK.MACQUIRE 2 k1 k2 b BLOCK 0")
        talk("a", "LOCK.ACQUIRE k1 a BLOCK 0")
        talk("c", "LOCK.ACQUIRE k3 c")
        assert deadlocked(talk) == [b"a", b"b"]
        assert talk.woken() == []
