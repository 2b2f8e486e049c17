"""The rules of waiting: nobody waits for what is free for it, in its place in line, or in a cycle.

They are asked of a shard between two commands, when everything has been
followed up and whatever is due has rung.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from cluster.machine.elections import OBSERVER, Election
from cluster.machine.latches import Latch
from cluster.machine.lock import Lock
from cluster.machine.semaphore import Semaphore
from tests.simulation.waiting import Graph, add_shard, asks_alone, has_enough, holds, in_cycles, owner_in, place
from tests.simulation.world import Violation

if TYPE_CHECKING:
    from cluster.machine.machine import Machine
    from cluster.machine.waiters import Waiter
    from tests.simulation.pictures import Picture

Lines: TypeAlias = "dict[tuple[bytes, bytes], list[Waiter]]"
"""Who waits, by key and kind, in the order of their turns."""


def judge_waits(shard: int, machine: Machine, now: Picture) -> None:
    """Raises `Violation` where somebody waits who should not, or in the wrong place."""
    lines = _lines(machine, now)
    locks = [wait for wait in now.waits.values() if wait.kind == Lock.kind]
    for wait in locks:
        _judge_upgrade(machine, wait, lines)
        if all(_is_open(machine, wait, key, lines) for key in wait.keys):
            raise Violation("nobody waits for a free lock", f"{wait} in shard {shard}")
    if locks:
        graph: Graph = {}
        add_shard(graph, shard, machine, locks)
        if found := in_cycles(graph):
            raise Violation("every cycle is broken", f"{found} in {graph} of {locks}")
    for (key, kind), line in lines.items():
        _judge_others(machine, key, kind, line)
    if not machine.behind:
        for key, thing in now.things.items():
            if any(had.ends_ms is not None and had.ends_ms <= machine.log_ms for had in thing.by.values()):
                raise Violation("what is over is gone", f"{key!r} is {thing} at {machine.log_ms}")


def _lines(machine: Machine, now: Picture) -> Lines:
    lines: Lines = {}
    for wait in now.waits.values():
        for key in wait.keys:
            lines.setdefault((key, wait.kind), []).append(wait)
    for (key, kind), line in lines.items():
        line.sort(key=lambda wait, key=key: place(wait, key))  # type: ignore[misc]
        if line != machine.waiters.at(key, kind):
            raise Violation("first come, first served", f"the line at {key!r} is {machine.waiters.at(key, kind)}")
    return lines


def _judge_upgrade(machine: Machine, wait: Waiter, lines: Lines) -> None:
    """Who shares a lock and wants it alone is before all who have nothing of it."""
    owner, alone = owner_in(wait.args), asks_alone(wait.args)
    for key in wait.keys:
        if not holds(machine, key, owner) or has_enough(machine.keyspace.values[key], owner, alone=alone):
            continue
        line = lines[key, Lock.kind]
        for other in line[: line.index(wait)]:
            if not (holds(machine, key, owner_in(other.args)) or key in other.urgent):
                raise Violation("upgrades first", f"{wait} stands behind {other} at {key!r}")


def _is_open(machine: Machine, wait: Waiter, key: bytes, lines: Lines) -> bool:
    """Whether the rules let the wait have the lock now."""
    owner, alone = owner_in(wait.args), asks_alone(wait.args)
    lock = machine.keyspace.values.get(key)
    if type(lock) is Lock and lock.holder(owner) is not None:
        return has_enough(lock, owner, alone=alone) or len(lock.holders()) == 1
    if lines[key, Lock.kind][0] is not wait:
        return False
    return lock is None or (type(lock) is Lock and not alone and lock.exclusive is None)


def _judge_others(machine: Machine, key: bytes, kind: bytes, line: list[Waiter]) -> None:
    """Nobody waits for places, offices or latches that are free for it, or for news that are there."""
    value, first = machine.keyspace.values.get(key), line[0]
    if kind == Semaphore.kind:
        wanted = int(first.args[first.args.index(b"COUNT") + 1]) if b"COUNT" in first.args else 1
        free = wanted if value is None else value.limit - value.used if type(value) is Semaphore else 0
        if wanted <= free:
            raise Violation("nobody waits for a free place", f"{first}, and {free} are free")
    elif kind in (Election.kind, Latch.kind):
        if value is None:
            raise Violation("nobody waits for what is free", f"{first}")
    elif kind == OBSERVER and type(value) is Election and not value.leader.is_over(machine.log_ms):
        for wait in line:
            known = int(wait.args[wait.args.index(b"TOKEN") + 1]) if b"TOKEN" in wait.args else -1
            if known != value.leader.token:
                raise Violation("whoever observes is told", f"{wait}, and {value.leader} leads")
