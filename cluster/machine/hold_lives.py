"""What ends a hold when its owner does not: a time, or the end of a session.

A hold is tied to exactly one of the two. Tying sets an alarm or notes the key
with the session, untying takes that back, and both stay true whatever is done
to the key from outside: an alarm that rings and a session that ends look
whether the hold they meant is still there.

A hold's life begins when it is granted. Acquiring again with ``PX`` lets it
live at least that much longer and never shortens it, so a nested acquire is
harmless; with ``SESSION`` it is tied to the session that asked last, which
also hands a hold over to the connection that resends a request. A SESSION hold
stays one when it is acquired again with ``PX``; only LOCK.EXTEND, which *sets*
the life, makes it end by time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.machine import lock_deadlocks
from cluster.machine.clockwork import Alarm
from cluster.machine.hold import Hold, Holding
from cluster.machine.lock import Lock

if TYPE_CHECKING:
    from cluster.machine.machine import Machine

HOLD = 2  # the alarm of a hold's end


def begin(machine: Machine, key: bytes, hold: Hold, px_ms: int | None) -> None:
    """A hold that is not tied to anything lives for ``px_ms`` from now, or (None) as long as the session served."""
    if px_ms is None:
        _end_with_session(machine, key, hold)
    else:
        _end_by_time(machine, key, hold, machine.now_ms + px_ms)


def prolong(machine: Machine, key: bytes, value: Holding, hold: Hold, px_ms: int | None) -> None:
    """The owner asked again, with this life."""
    if px_ms is None:
        if hold.origin != machine.origin:
            untie(machine, key, value, hold)
            _end_with_session(machine, key, hold)
    elif hold.ends_ms is not None and hold.ends_ms < machine.now_ms + px_ms:
        untie(machine, key, value, hold)
        _end_by_time(machine, key, hold, machine.now_ms + px_ms)


def reset(machine: Machine, key: bytes, value: Holding, hold: Hold, px_ms: int) -> None:
    """Sets how much longer the hold lives, whatever it was tied to."""
    untie(machine, key, value, hold)
    _end_by_time(machine, key, hold, machine.now_ms + px_ms)


def _end_by_time(machine: Machine, key: bytes, hold: Hold, ends_ms: int) -> None:
    hold.origin = b""
    hold.ends_ms = ends_ms
    machine.clockwork.set(ends_ms, Alarm(HOLD, key, hold.owner))


def _end_with_session(machine: Machine, key: bytes, hold: Hold) -> None:
    hold.ends_ms = None
    hold.origin = machine.origin
    machine.sessions.open(machine.origin).held[key] = None


def untie(machine: Machine, key: bytes, value: Holding, hold: Hold) -> None:
    """Calls off what would have ended the hold."""
    if hold.ends_ms is not None:
        machine.clockwork.cancel(hold.ends_ms, Alarm(HOLD, key, hold.owner))
        return
    session = machine.sessions.get(hold.origin)
    if session is None or any(other is not hold and other.origin == hold.origin for other in value.holders()):
        return
    session.held.pop(key, None)
    machine.sessions.forget_if_empty(hold.origin)


def end(machine: Machine, key: bytes, value: Holding, hold: Hold) -> None:
    """The owner holds nothing any more; a value without holders goes."""
    if len(value.holders()) > 1:
        untie(machine, key, value, hold)
        machine.keyspace.touch(key)
        value.leave(hold)
        machine.signal(key)
        if type(value) is Lock:
            lock_deadlocks.left(machine, key, hold.owner)
    else:
        if hold.ends_ms is None:  # an alarm is called off by `forget`
            untie(machine, key, value, hold)
        machine.issued.remember(key, value.token)
        machine.keyspace.remove(key)


def _hold_over(machine: Machine, alarm: Alarm, due_ms: int) -> None:
    value = machine.keyspace.values.get(alarm.key)
    if isinstance(value, Holding):
        hold = value.holder(alarm.detail)
        if hold is not None and hold.ends_ms == due_ms:
            end(machine, alarm.key, value, hold)


def expire_overdue(machine: Machine, key: bytes) -> None:
    """Ends the holds at ``key`` whose alarm is due and has not rung yet."""
    value = machine.keyspace.values.get(key)
    if isinstance(value, Holding):
        for hold in list(value.holders()):
            if hold.is_over(machine.now_ms):
                end(machine, key, value, hold)


def drop(machine: Machine, key: bytes, origin: bytes) -> None:
    """A session ended: what it held at ``key`` with SESSION ends with it."""
    value = machine.keyspace.values.get(key)
    if isinstance(value, Holding):
        for hold in list(value.holders()):
            if hold.origin == origin:
                end(machine, key, value, hold)


def forget(machine: Machine, key: bytes, value: Holding) -> None:
    """The value is no key any more: nothing is left for its holds' alarms to end.

    The owner may hold the next value of that key already, with an alarm for
    the same time; that one stays.
    """
    now = machine.keyspace.values.get(key)
    for hold in value.holders():
        if hold.ends_ms is None:
            continue
        again = now.holder(hold.owner) if now is not None and isinstance(now, Holding) else None
        if again is None or again.ends_ms != hold.ends_ms:
            machine.clockwork.cancel(hold.ends_ms, Alarm(HOLD, key, hold.owner))


def set_alarms(machine: Machine, key: bytes, value: Holding) -> None:
    """The value came from a checkpoint's row: sets its holds' alarms again."""
    for hold in value.holders():
        if hold.ends_ms is not None:
            machine.clockwork.set(hold.ends_ms, Alarm(HOLD, key, hold.owner))


RINGS: dict[int, Callable[[Machine, Alarm, int], None]] = {HOLD: _hold_over}
