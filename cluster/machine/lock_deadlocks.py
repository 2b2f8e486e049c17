"""Deadlocks: those within a shard are broken in the entry that closes them; all are counted, and shown by LOCK.GRAPH.

A cycle can be closed by a wait that begins, by a grant to an owner that waits
elsewhere, and, where somebody waits for several keys, by the end of a hold:
its owner waits for that key, too, from then on. The victim is the waiter of
the cycle that began to wait last.

A cycle over several shards is found elsewhere (cluster/detector.py), which asks
each shard whether its part of it stands, and then one of them to fail the victim.
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


STANDING = b"_LOCK.STANDING"
FAIL = b"_LOCK.FAIL"


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
        _end(machine, victim, _broken(machine, cycle, victim))


def _end(machine: Machine, victim: Waiter, error: CommandError) -> None:
    machine.end_wait(victim)
    machine.woken.append((victim.origin, victim.number, error))


def left(machine: Machine, key: bytes, owner: bytes) -> None:
    """The owner does not hold the lock at ``key`` any more, unless it holds the next one there already."""
    lock = machine.keyspace.values.get(key)
    if type(lock) is Lock and lock.holder(owner) is not None:
        return
    machine.lock_waits.gave_up(owner, key)
    _no_upgrade(machine, key, owner)
    has_less(machine, key, owner)


def _no_upgrade(machine: Machine, key: bytes, owner: bytes) -> None:
    """The owner's waits for more of what it held are those of one who has nothing, in their places by age."""
    moved = [wait for wait in machine.lock_waits.of(owner) if key in wait.urgent]
    for wait in moved:
        machine.waiters.remove(wait)
        wait.urgent = [other for other in wait.urgent if other != key]
        machine.waiters.add(wait)
    if moved:
        machine.signal(key)
        break_cycles(machine, owner)


def has_less(machine: Machine, key: bytes, owner: bytes) -> None:
    """The owner's hold of ``key`` is over or became shared: it may wait for ``key``, too, and others behind it."""
    waits = machine.lock_waits.of(owner)
    if waits and any(len(wait.keys) > 1 and key in wait.keys for wait in waits):
        owners = dict.fromkeys(owner_of(wait) for wait in machine.waiters.everyone() if wait.kind == Lock.kind)
        for one in owners:
            if machine.lock_waits.held_by(one):
                break_cycles(machine, one)


# Cycles over several shards


class Link(msgspec.Struct, array_like=True, frozen=True):
    """One step of a cycle: a wait, by its session and number, for a key that an owner holds with this token.

    Where that owner is not its holder but stands before the wait in line
    (``behind``), ``token`` is the number of that owner's wait.
    """

    origin: bytes
    number: int
    key: bytes
    other: bytes
    token: int
    behind: bool = False


_encode_links = msgspec.msgpack.Encoder().encode
_decode_links = msgspec.msgpack.Decoder(list[Link]).decode


def standing(links: list[Link]) -> list[bytes]:
    """The command that asks whether all of these stand: a read, 1 or 0."""
    return [STANDING, _encode_links(links)]


def failing(links: list[Link], cycle: bytes) -> list[bytes]:
    """The command that fails the wait of the first of these if all of them stand; 1 if it did.

    ``cycle`` is the whole of it in words.
    """
    return [FAIL, _encode_links(links), cycle]


def is_standing(machine: Machine, args: list[bytes]) -> Reply:
    """See `standing`."""
    return int(all(_stands(machine, link) for link in _decode_links(args[1])))


def fail(machine: Machine, args: list[bytes]) -> Reply:
    """See `failing`."""
    links = _decode_links(args[1])
    if not all(_stands(machine, link) for link in links):
        return 0
    victim = machine.waiters.of(links[0].origin)
    assert victim is not None, "it stands"
    _end(machine, victim, _counted(machine, args[2], victim, links[0].key))
    return 1


def _stands(machine: Machine, link: Link) -> bool:
    waiter = machine.waiters.of(link.origin)
    if waiter is None or waiter.number != link.number or waiter.kind != Lock.kind:
        return False
    values, owner = machine.keyspace.values, owner_of(waiter)
    if link.key not in wanting(waiter, owner, values):
        return False
    if link.behind:
        return any(other.number == link.token for other in machine.waiters.wide_before(waiter, link.key))
    lock = values.get(link.key)
    hold = lock.holder(link.other) if type(lock) is Lock else None
    if hold is None or hold.token != link.token or hold.is_over(machine.now_ms):
        return False
    return link.other in machine.lock_waits.holders_before(waiter, owner, link.key, values)


def _waits(machine: Machine, step: Step) -> Iterable[Waiter]:
    return (wait for wait in machine.lock_waits.of(step.waiter) if step.key in wait.keys)


def _cycle(machine: Machine, owner: bytes) -> list[Edge]:
    return find_cycle(owner, lambda one: machine.lock_waits.edges(one, machine.keyspace.values))


def _broken(machine: Machine, cycle: list[Edge], victim: Waiter) -> CommandError:
    """Keeps account of a deadlock; what its victim is told."""
    owner = owner_of(victim)
    key = next((step.key for step in steps(cycle) if step.waiter == owner), victim.keys[0])
    return _counted(machine, describe(cycle), victim, key)


def _counted(machine: Machine, cycle: bytes, victim: Waiter, key: bytes) -> CommandError:
    machine.deadlocks = Broken(machine.deadlocks.count + 1, cycle, owner_of(victim), key, machine.now_ms)
    return CommandError(cycle, "DEADLOCK")


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
