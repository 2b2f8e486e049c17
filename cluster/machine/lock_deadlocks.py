"""Deadlocks within a shard: broken in the entry that closes them, counted, and shown by LOCK.GRAPH.

A cycle can be closed by a wait that begins, by a grant to an owner that waits
elsewhere, and, where somebody waits for several keys, by the end of a hold:
its owner waits for that key, too, from then on. The victim is the waiter of
the cycle that began to wait last.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from cluster.deadlock import Edge, Step, describe, find_cycle, steps
from cluster.machine.lock import Lock
from cluster.machine.lock_waits import owner_of, wanting
from cluster.machine.reply import CommandError, Reply
from cluster.machine.waiters import Waiter

if TYPE_CHECKING:
    from cluster.machine.machine import Machine


class Broken(msgspec.Struct, array_like=True):
    """The deadlocks broken so far: how many, and of the last one the cycle in words, the victim, its key and when."""

    count: int = 0
    cycle: bytes = b""
    victim: bytes = b""
    key: bytes = b""
    at_ms: int = 0


def refuse_cycle(machine: Machine, waiter: Waiter, owner: bytes) -> None:
    """A wait began: raises ``-DEADLOCK``, the wait being over, when it closes a cycle.

    An owner that holds nothing is waited for by nobody.
    """
    if machine.lock_waits.held_by(owner) and (cycle := _cycle(machine, owner)):
        machine.waiters.remove(waiter)  # nobody began to wait later than this one
        raise _broken(machine, cycle, waiter)


def break_cycles(machine: Machine, owner: bytes) -> None:
    """Fails waiters until no cycle goes through the owner."""
    while cycle := _cycle(machine, owner):
        victim = max((wait for step in steps(cycle) for wait in _waits(machine, step)), key=lambda wait: wait.number)
        machine.waiters.remove(victim)
        for key in victim.keys:
            machine.signal(key)
        machine.woken.append((victim.origin, victim.number, _broken(machine, cycle, victim)))


def left(machine: Machine, key: bytes, owner: bytes) -> None:
    """The owner does not hold the lock at ``key`` any more, unless it holds the next one there already."""
    lock = machine.keyspace.values.get(key)
    if type(lock) is Lock and lock.holder(owner) is not None:
        return
    machine.lock_waits.gave_up(owner, key)
    has_less(machine, key, owner)


def has_less(machine: Machine, key: bytes, owner: bytes) -> None:
    """The owner's hold of ``key`` is over or became shared: it may wait for ``key``, too, and others behind it."""
    waits = machine.lock_waits.of(owner)
    if waits and any(len(wait.keys) > 1 and key in wait.keys for wait in waits):
        owners = dict.fromkeys(owner_of(wait) for wait in machine.waiters.everyone() if wait.kind == Lock.kind)
        for one in owners:
            if machine.lock_waits.held_by(one):
                break_cycles(machine, one)


def _waits(machine: Machine, step: Step) -> Iterable[Waiter]:
    return (wait for wait in machine.lock_waits.of(step.waiter) if step.key in wait.keys)


def _cycle(machine: Machine, owner: bytes) -> list[Edge]:
    return find_cycle(owner, lambda one: machine.lock_waits.edges(one, machine.keyspace.values))


def _broken(machine: Machine, cycle: list[Edge], victim: Waiter) -> CommandError:
    """Keeps account of a deadlock; what its victim is told."""
    owner = owner_of(victim)
    key = next((step.key for step in steps(cycle) if step.waiter == owner), victim.keys[0])
    text = describe(cycle)
    machine.deadlocks = Broken(machine.deadlocks.count + 1, text, owner, key, machine.now_ms)
    return CommandError(text, "DEADLOCK")


# LOCK.GRAPH


def graph(machine: Machine, args: list[bytes]) -> Reply:
    """LOCK.GRAPH: who waits for whom in this shard, and the last deadlock."""
    last = machine.deadlocks
    return {
        b"edges": [edge for waiter in machine.waiters.everyone() for edge in _shown(machine, waiter)],
        b"deadlocks": last.count,
        b"last": None
        if not last.count
        else {b"cycle": last.cycle, b"victim": last.victim, b"key": last.key, b"time-ms": last.at_ms},
    }


def _shown(machine: Machine, waiter: Waiter) -> Iterable[dict[bytes, bytes]]:
    """An edge to every holder; where nobody holds the key, to who is to get it first and waits for others, too."""
    if waiter.kind != Lock.kind:
        return
    owner = owner_of(waiter)
    for key in wanting(waiter, owner, machine.keyspace.values):
        before = list(machine.lock_waits.holders_before(waiter, owner, key, machine.keyspace.values))
        if not before:
            before = [owner_of(other) for other in machine.waiters.wide_before(waiter, key)[:1]]
        for holder in before:
            yield {b"waiter": owner, b"holder": holder, b"key": key}
