"""What is held and waited for in a shard between two commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cluster.machine.hold import Hold, Holding
from cluster.machine.lock import Lock
from cluster.machine.semaphore import Semaphore
from tests.simulation.waiting import place

if TYPE_CHECKING:
    from cluster.machine.machine import Machine
    from cluster.machine.waiters import Waiter


class Had(NamedTuple):
    """A hold as it was between two commands."""

    token: int
    holds: int
    ends_ms: int | None
    origin: bytes


class Thing(NamedTuple):
    """What was held at one key: a lock ``alone`` or by sharers, a semaphore with ``places``, or an office."""

    kind: bytes
    alone: bool
    places: int
    by: dict[bytes, Had]


class Picture(NamedTuple):
    """All that is held in a shard, and who waits, with the order of the lines, between two commands."""

    things: dict[bytes, Thing]
    waits: dict[int, Waiter]
    places: dict[tuple[int, bytes], tuple[bool, int]]


NOTHING = Picture({}, {}, {})


def picture(machine: Machine) -> Picture:
    """What is held and waited for now."""
    things: dict[bytes, Thing] = {}
    for key, value in machine.keyspace.values.items():
        if isinstance(value, Holding):
            alone = isinstance(value, Lock) and value.exclusive is not None
            limit = value.limit if type(value) is Semaphore else 0
            holds = [
                *value.holders(),
                *(value.shared.values() if isinstance(value, Lock) and alone else ()),
            ]  # whatever should not be, too
            things[key] = Thing(value.kind, alone, limit, {hold.owner: _had(hold) for hold in holds})
    waits = {wait.number: wait for wait in machine.waiters.everyone()}
    places = {(wait.number, key): place(wait, key) for wait in waits.values() for key in wait.keys}
    return Picture(things, waits, places)


def _had(hold: Hold) -> Had:
    return Had(hold.token, hold.holds, hold.ends_ms, hold.origin)
