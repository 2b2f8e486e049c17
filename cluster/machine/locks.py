"""LOCK.*: acquire, give back, extend, look.

The rules, in the order they are asked:

* An owner that holds the lock and asks for the same or less gets its token
  again, at once, and must release once more. An ``ID`` that the hold has seen
  counts nothing up.
* A sole shared holder that asks for more is upgraded, at once or before
  everybody else who waits. That turns its hold into an exclusive one and
  counts nothing up.
* Anybody else is served in the order they came, so nobody is granted while
  another waits, even if both could share.
* Whoever begins to wait and thereby closes a cycle of owners is refused.

A hold's life begins when it is granted. Acquiring again with ``PX`` lets it
live at least that much longer and never shortens it, so a nested acquire is
harmless; with ``SESSION`` it is tied to the session that asked last, which
also hands a hold over to the connection that resends a request. A SESSION hold
stays one when it is acquired again with ``PX``; only EXTEND, which *sets* the
life, makes it end by time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.deadlock import Edge, describe, find_cycle
from cluster.machine import scanning
from cluster.machine.lock import REQUESTS_KEPT, Hold, Issued, Lock
from cluster.machine.lock_lives import (
    RINGS,
    drop,
    end,
    end_by_time,
    end_with_session,
    expire_overdue,
    forget,
    restore,
    untie,
)
from cluster.machine.lock_requests import (
    ACQUIRE,
    EXTEND,
    RELEASE,
    Request,
    life_ms,
    options,
    parse_acquire,
    parse_token,
)
from cluster.machine.lock_waits import LockWaits
from cluster.machine.reply import WAITING, CommandError, Reply, syntax_error, wrong_type
from cluster.machine.waiters import Waiter

if TYPE_CHECKING:
    from cluster.machine.machine import Machine

__all__ = ["RINGS", "Issued", "Lock", "LockWaits", "drop", "expire_overdue", "forget", "restore"]


def _find(machine: Machine, key: bytes) -> Lock | None:
    value = machine.keyspace.values.get(key)
    if value is None or type(value) is Lock:
        return value
    raise wrong_type()


# Commands


def acquire(machine: Machine, args: list[bytes]) -> Reply:
    """LOCK.ACQUIRE key owner [SHARED | EXCLUSIVE] [PX ms | SESSION] [BLOCK ms] [ID request]."""
    request = parse_acquire(machine, args)
    token = _try(machine, request, is_first=False)
    if token is not None or request.block_ms is None:
        return token
    lock = _find(machine, request.key)
    is_upgrade = lock is not None and lock.holder(request.owner) is not None
    reply = machine.wait(Lock.kind, [request.key], args, request.block_ms, urgent=is_upgrade)
    waiter = machine.waiters.of(machine.origin)
    if reply is WAITING and waiter is not None:
        machine.lock_waits.note(waiter)
        if cycle := _cycle(machine, request.owner):
            machine.waiters.remove(waiter)  # nobody began to wait later than this one
            raise _deadlock(cycle)
    return reply


def retry_acquire(machine: Machine, waiter: Waiter) -> Reply:
    """The turn of one who waits with LOCK.ACQUIRE."""
    request = parse_acquire(machine, waiter.args)
    token = _try(machine, request, is_first=True)
    if token is None:
        return WAITING
    others = [other for other in machine.lock_waits.of(request.owner) if other is not waiter]
    if others:
        _owner_moved_on(machine, request, others)
    return token


def release(machine: Machine, args: list[bytes]) -> Reply:
    """LOCK.RELEASE key owner [TOKEN token]."""
    key = args[1]
    token = parse_token(options(args, RELEASE)) if len(args) > 3 else None
    lock = _find(machine, key)
    hold = None if lock is None else lock.holder(args[2])
    if lock is None or hold is None or (token is not None and token != hold.token):
        return 0
    if hold.holds > 1:
        machine.keyspace.touch(key)
        hold.holds -= 1
    else:
        end(machine, key, lock, hold)
    return 1


def extend(machine: Machine, args: list[bytes]) -> Reply:
    """LOCK.EXTEND key owner PX ms [TOKEN token]: sets what is left of the hold's life, never adds to it."""
    key = args[1]
    found = options(args, EXTEND)
    if b"PX" not in found:
        raise syntax_error()
    px_ms = life_ms(machine, found[b"PX"], "lock.extend")
    token = parse_token(found)
    lock = _find(machine, key)
    hold = None if lock is None else lock.holder(args[2])
    if lock is None or hold is None or (token is not None and token != hold.token):
        return 0
    machine.keyspace.touch(key)
    untie(machine, key, lock, hold)
    end_by_time(machine, key, hold, machine.now_ms + px_ms)
    return 1


def downgrade(machine: Machine, args: list[bytes]) -> Reply:
    """LOCK.DOWNGRADE key owner: the exclusive holder shares from now on, with the token it has."""
    key = args[1]
    lock = _find(machine, key)
    hold = None if lock is None else lock.exclusive
    if lock is None or hold is None or hold.owner != args[2]:
        return None
    machine.keyspace.touch(key)
    lock.exclusive = None
    lock.shared = {hold.owner: hold}
    machine.signal(key)
    return hold.token


def break_(machine: Machine, args: list[bytes]) -> Reply:
    """LOCK.BREAK key [owner]: how many owners lost their hold, whatever it counted."""
    if len(args) > 3:
        raise syntax_error()
    key = args[1]
    lock = _find(machine, key)
    if lock is None:
        return 0
    broken = [hold for hold in lock.holders() if len(args) < 3 or hold.owner == args[2]]
    for hold in broken:
        end(machine, key, lock, hold)
    return len(broken)


def info(machine: Machine, args: list[bytes]) -> Reply:
    """LOCK.INFO key."""
    key = args[1]
    lock = _find(machine, key)
    now_ms = machine.now_ms
    holds = [] if lock is None else [_describe_hold(lock, hold, now_ms) for hold in lock.living(now_ms)]
    return {
        b"mode": lock.mode if lock is not None and holds else b"free",
        b"token": machine.locks.recent.get(key, 0) if lock is None else lock.token,
        b"holders": holds,
        b"waiters": [_describe_wait(waiter, now_ms) for waiter in machine.waiters.at(key, Lock.kind)],
    }


def owned(machine: Machine, args: list[bytes]) -> Reply:
    """LOCK.OWNED owner: walks the whole keyspace."""
    owner, now_ms = args[1], machine.now_ms
    values = machine.keyspace.values

    def is_owned(key: bytes) -> bool:
        lock = values[key]
        hold = lock.holder(owner) if type(lock) is Lock else None
        return hold is not None and not hold.is_over(now_ms)

    return list(filter(is_owned, scanning.living(machine, values)))


def scan(machine: Machine, args: list[bytes]) -> Reply:
    """LOCK.SCAN cursor [MATCH pattern] [COUNT n]: SCAN over locks."""
    if any(word.upper() == b"TYPE" for word in args[2::2]):
        raise syntax_error()
    return scanning.scan(machine, [*args, b"TYPE", Lock.kind])


def _describe_hold(lock: Lock, hold: Hold, now_ms: int) -> dict[bytes, bytes | int]:
    return {
        b"owner": hold.owner,
        b"mode": lock.mode,
        b"holds": hold.holds,
        b"token": hold.token,
        b"ttl-ms": -1 if hold.ends_ms is None else max(0, hold.ends_ms - now_ms),
        b"session": int(hold.ends_ms is None),
    }


def _describe_wait(waiter: Waiter, now_ms: int) -> dict[bytes, bytes | int]:
    return {
        b"owner": waiter.args[2],
        b"mode": b"exclusive" if _wants_exclusive(waiter) else b"shared",
        b"waited-ms": now_ms - waiter.since_ms,
    }


# Granting


def _try(machine: Machine, request: Request, *, is_first: bool) -> int | None:
    """Grants what was asked, if the rules allow it now: the token, else None and nothing changed.

    ``is_first`` says that nobody who waits came before.
    """
    key = request.key
    lock = _find(machine, key)
    hold = None if lock is None else lock.holder(request.owner)
    if lock is not None and hold is not None:
        return _again(machine, request, lock, hold)
    if not is_first and machine.waiters.first(key, Lock.kind) is not None:
        return None
    if lock is not None and (request.exclusive or lock.exclusive is not None):
        return None
    token = machine.locks.issue(key)
    hold = Hold(request.owner, token, 1, None, b"", () if request.id is None else (request.id,))
    if lock is None:
        lock = Lock(token, hold, {}) if request.exclusive else Lock(token, None, {hold.owner: hold})
        machine.keyspace.put(key, lock)
    else:
        machine.keyspace.touch(key)
        lock.token = token
        lock.shared[hold.owner] = hold
    if request.px_ms is None:
        end_with_session(machine, key, hold)
    else:
        end_by_time(machine, key, hold, machine.now_ms + request.px_ms)
    return token


def _again(machine: Machine, request: Request, lock: Lock, hold: Hold) -> int | None:
    """As `_try`, for an owner that holds the lock already."""
    is_upgrade = request.exclusive and lock.exclusive is None
    if is_upgrade and len(lock.shared) > 1:
        return None
    key = request.key
    machine.keyspace.touch(key)
    if is_upgrade:
        lock.token = hold.token = machine.locks.issue(key)
        lock.exclusive = hold
        lock.shared = {}
    if request.id is None or request.id not in hold.requests:
        hold.holds += not is_upgrade
        if request.id is not None:
            hold.requests = (*hold.requests, request.id)[-REQUESTS_KEPT:]
    if request.px_ms is None:
        if hold.origin != machine.origin:
            untie(machine, key, lock, hold)
            end_with_session(machine, key, hold)
    elif hold.ends_ms is not None and hold.ends_ms < machine.now_ms + request.px_ms:
        untie(machine, key, lock, hold)
        end_by_time(machine, key, hold, machine.now_ms + request.px_ms)
    return hold.token


def _wants_exclusive(waiter: Waiter) -> bool:
    return b"SHARED" not in options(waiter.args, ACQUIRE)


# Deadlocks


def _cycle(machine: Machine, owner: bytes) -> list[Edge]:
    return find_cycle(owner, lambda one: machine.lock_waits.edges(one, machine.keyspace))


def _deadlock(cycle: list[Edge]) -> CommandError:
    return CommandError(describe(cycle), "DEADLOCK")


def _owner_moved_on(machine: Machine, request: Request, others: list[Waiter]) -> None:
    """An owner was granted ``request`` while it waits in other sessions, too.

    A wait of its own for the same lock has become an upgrade, and those who
    wait for the lock wait for this owner now, which may close a cycle.
    """
    for waiter in others:
        if request.key in waiter.keys and not waiter.urgent:
            machine.waiters.remove(waiter)
            waiter.urgent = True
            machine.waiters.add(waiter)
    while cycle := _cycle(machine, request.owner):
        waits = [w for edge in cycle for w in machine.lock_waits.of(edge.waiter) if edge.key in w.keys]
        victim = max(waits, key=lambda waiter: waiter.number)
        machine.waiters.remove(victim)
        for key in victim.keys:
            machine.signal(key)
        machine.woken.append((victim.origin, victim.number, _deadlock(cycle)))
