"""What ends a hold when its owner does not: a time, or the end of a session.

A hold is tied to exactly one of the two. Tying sets an alarm or notes the key
with the session, untying takes that back, and both stay true whatever is done
to the key from outside: an alarm that rings and a session that ends look
whether the hold they meant is still there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from cluster.machine.clockwork import Alarm
from cluster.machine.lock import Hold, Lock

if TYPE_CHECKING:
    from cluster.machine.machine import Machine

HOLD = 2  # the alarm of a hold's end

_decode = msgspec.msgpack.Decoder(Lock).decode


def end_by_time(machine: Machine, key: bytes, hold: Hold, ends_ms: int) -> None:
    """Ties a hold that is not tied to anything to a time of the log."""
    hold.origin = b""
    hold.ends_ms = ends_ms
    machine.clockwork.set(ends_ms, Alarm(HOLD, key, hold.owner))


def end_with_session(machine: Machine, key: bytes, hold: Hold) -> None:
    """Ties a hold that is not tied to anything to the session being served."""
    hold.ends_ms = None
    hold.origin = machine.origin
    machine.sessions.open(machine.origin).locks[key] = None


def untie(machine: Machine, key: bytes, lock: Lock, hold: Hold) -> None:
    """Calls off what would have ended the hold."""
    if hold.ends_ms is not None:
        machine.clockwork.cancel(hold.ends_ms, Alarm(HOLD, key, hold.owner))
        return
    session = machine.sessions.get(hold.origin)
    if session is None or any(other is not hold and other.origin == hold.origin for other in lock.holders()):
        return
    session.locks.pop(key, None)
    machine.sessions.forget_if_empty(hold.origin)


def end(machine: Machine, key: bytes, lock: Lock, hold: Hold) -> None:
    """The owner holds nothing any more; a lock without holders goes."""
    untie(machine, key, lock, hold)
    if len(lock.shared) > 1:
        machine.keyspace.touch(key)
        del lock.shared[hold.owner]
        machine.signal(key)
    else:
        machine.locks.remember(key, lock.token)
        machine.keyspace.remove(key)


def _hold_over(machine: Machine, alarm: Alarm, due_ms: int) -> None:
    lock = machine.keyspace.values.get(alarm.key)
    if type(lock) is Lock:
        hold = lock.holder(alarm.detail)
        if hold is not None and hold.ends_ms == due_ms:
            end(machine, alarm.key, lock, hold)


def expire_overdue(machine: Machine, key: bytes) -> None:
    """Ends the holds at ``key`` whose alarm is due and has not rung yet."""
    lock = machine.keyspace.values.get(key)
    if type(lock) is Lock:
        for hold in list(lock.holders()):
            if hold.is_over(machine.now_ms):
                end(machine, key, lock, hold)


def drop(machine: Machine, key: bytes, origin: bytes) -> None:
    """A session ended: what it held of ``key`` with SESSION ends with it."""
    lock = machine.keyspace.values.get(key)
    if type(lock) is Lock:
        for hold in list(lock.holders()):
            if hold.origin == origin:
                end(machine, key, lock, hold)


def forget(machine: Machine, key: bytes, lock: Lock) -> None:
    """The lock is no key any more: nothing is left for its holds' alarms to end."""
    for hold in lock.holders():
        if hold.ends_ms is not None:
            machine.clockwork.cancel(hold.ends_ms, Alarm(HOLD, key, hold.owner))


def restore(machine: Machine, key: bytes, body: bytes) -> Lock:
    """A lock from its checkpoint row, its alarms set again."""
    lock = _decode(body)
    for hold in lock.holders():
        if hold.ends_ms is not None:
            machine.clockwork.set(hold.ends_ms, Alarm(HOLD, key, hold.owner))
    return lock


RINGS: dict[int, Callable[[Machine, Alarm, int], None]] = {HOLD: _hold_over}
