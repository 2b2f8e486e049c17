"""LOCK.INFO, LOCK.OWNED, LOCK.SCAN: looking at locks. LOCK.GRAPH is in `cluster.machine.lock_deadlocks`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.machine import scanning
from cluster.machine.hold import Hold
from cluster.machine.lock import Lock
from cluster.machine.lock_requests import owner_at, wants_exclusive
from cluster.machine.locks import find
from cluster.machine.reply import Reply, syntax_error
from cluster.machine.waiters import Waiter

if TYPE_CHECKING:
    from cluster.machine.machine import Machine


def info(machine: Machine, args: list[bytes]) -> Reply:
    """LOCK.INFO key."""
    key = args[1]
    lock = find(machine, key)
    now_ms = machine.now_ms
    holds = [] if lock is None else [_describe_hold(lock, hold, now_ms) for hold in lock.living(now_ms)]
    return {
        b"mode": lock.mode if lock is not None and holds else b"free",
        b"token": machine.issued.recent.get(key, 0) if lock is None else lock.token,
        b"holders": holds,
        b"waiters": [_describe_wait(waiter, now_ms) for waiter in machine.waiters.at(key, Lock.kind)],
    }


def owned(machine: Machine, args: list[bytes]) -> Reply:
    """LOCK.OWNED owner."""
    owner, now_ms = args[1], machine.now_ms
    values = machine.keyspace.values

    def is_owned(key: bytes) -> bool:
        lock = values.get(key)
        hold = lock.holder(owner) if type(lock) is Lock else None
        return hold is not None and not hold.is_over(now_ms)

    return list(filter(is_owned, scanning.living(machine, machine.lock_waits.held_by(owner))))


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
        b"ttl-ms": hold.ttl_ms(now_ms),
        b"session": int(hold.ends_ms is None),
    }


def _describe_wait(waiter: Waiter, now_ms: int) -> dict[bytes, bytes | int]:
    at = owner_at(waiter.args)
    return {
        b"owner": waiter.args[at],
        b"mode": b"exclusive" if wants_exclusive(waiter.args, at) else b"shared",
        b"waited-ms": now_ms - waiter.since_ms,
    }
