"""LOCK.*: acquire, give back, extend.

The rules, in the order they are asked:

* An owner that holds the lock and asks for the same or less gets its token
  again, at once, and must release once more. An ``ID`` that the hold has seen
  counts nothing up.
* A sole shared holder that asks for more is upgraded, at once or before
  everybody else who waits. That turns its hold into an exclusive one and
  counts nothing up. If its hold ends first, it stands in line like others.
* Anybody else is served in the order they came, so nobody is granted while
  another waits, even if both could share.
* Who asks for several locks gets all of them in one step or none, when these
  rules allow it for each. Meanwhile it stands in the line of every one, and
  whoever it comes before there waits behind it, for a free lock, too.
* Whoever begins to wait and thereby closes a cycle of owners is refused.

How long a hold lives is in `cluster.machine.hold_lives`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.machine import hold_lives, lock_deadlocks
from cluster.machine.hold import Hold
from cluster.machine.hold_requests import read_life_ms, read_options, read_token
from cluster.machine.lock import Lock
from cluster.machine.lock_requests import (
    EXTEND,
    RELEASE,
    Request,
    owner_at,
    parse_acquire,
    parse_macquire,
    wants_exclusive,
)
from cluster.machine.lock_waits import wanting
from cluster.machine.reply import NULL_ARRAY, WAITING, Reply, syntax_error, wrong_type
from cluster.machine.waiters import Waiter

if TYPE_CHECKING:
    from cluster.machine.machine import Machine


def find(machine: Machine, key: bytes) -> Lock | None:
    """The lock at ``key``, or None; ``-WRONGTYPE`` for another type."""
    value = machine.keyspace.values.get(key)
    if value is None or type(value) is Lock:
        return value
    raise wrong_type()


# Commands


def acquire(machine: Machine, args: list[bytes]) -> Reply:
    """LOCK.ACQUIRE key owner [SHARED | EXCLUSIVE] [PX ms | SESSION] [BLOCK ms] [ID request]."""
    request = parse_acquire(machine, args)
    tokens = _try(machine, request, None)
    if tokens is not None:
        return tokens[0]
    return None if request.block_ms is None else _wait(machine, request, args, request.block_ms)


def retry_acquire(machine: Machine, waiter: Waiter) -> Reply:
    """The turn of one who waits with LOCK.ACQUIRE."""
    tokens = _retry(machine, parse_acquire(machine, waiter.args), waiter)
    return WAITING if tokens is None else tokens[0]


def macquire(machine: Machine, args: list[bytes]) -> Reply:
    """LOCK.MACQUIRE numkeys key [key …] owner [as LOCK.ACQUIRE]: all of them or none."""
    request = parse_macquire(machine, args)
    tokens = _try(machine, request, None)
    if tokens is not None:
        return _in_order(request, tokens, args)
    if request.block_ms is None:
        return NULL_ARRAY
    return _wait(machine, request, args, request.block_ms, null_array=True)


def retry_macquire(machine: Machine, waiter: Waiter) -> Reply:
    """The turn, at one of its keys, of one who waits with LOCK.MACQUIRE."""
    request = parse_macquire(machine, waiter.args)
    tokens = _retry(machine, request, waiter)
    return WAITING if tokens is None else _in_order(request, tokens, waiter.args)


def _in_order(request: Request, tokens: list[int], args: list[bytes]) -> list[Reply]:
    """A token for every key as it was named."""
    token_of = dict(zip(request.keys, tokens, strict=True))
    return [token_of[key] for key in args[2 : owner_at(args)]]


def _wait(machine: Machine, request: Request, args: list[bytes], block_ms: int, *, null_array: bool = False) -> Reply:
    urgent = [key for key in request.keys if _is_upgrade(machine, key, request.owner, exclusive=request.exclusive)]
    reply = machine.wait(Lock.kind, request.keys, args, block_ms, null_array=null_array, urgent=urgent)
    waiter = machine.waiters.of(machine.origin)
    if reply is WAITING and waiter is not None:
        lock_deadlocks.refuse_cycle(machine, waiter, request.owner)
    return reply


def _is_upgrade(machine: Machine, key: bytes, owner: bytes, *, exclusive: bool) -> bool:
    """Whether the owner holds the lock and asks for more.

    Where it holds enough it stands in line like others: it may wait for other
    locks there, and who came before it waits for nothing of it.
    """
    lock = find(machine, key)
    return lock is not None and lock.holder(owner) is not None and not lock.suffices(owner, exclusive=exclusive)


def _retry(machine: Machine, request: Request, waiter: Waiter) -> list[int] | None:
    tokens = _try(machine, request, waiter)
    if tokens is not None:
        others = [other for other in machine.lock_waits.of(request.owner) if other is not waiter]
        if others:
            _owner_moved_on(machine, request, others)
    return tokens


def _owner_moved_on(machine: Machine, request: Request, others: list[Waiter]) -> None:
    """An owner was granted ``request`` while it waits in other sessions, too.

    A wait of its own for the same lock has become an upgrade, or has all it waits
    for and is served next. Those who wait for the lock wait for this owner now,
    which may close a cycle.
    """
    for waiter in others:
        exclusive = wants_exclusive(waiter.args, owner_at(waiter.args))
        new = [key for key in request.keys if key in waiter.keys and key not in waiter.urgent]
        if any(wanting(waiter, request.owner, machine.keyspace.values)):
            new = [key for key in new if _is_upgrade(machine, key, request.owner, exclusive=exclusive)]
        if new:
            machine.waiters.remove(waiter)
            waiter.urgent = [*waiter.urgent, *new]
            machine.waiters.add(waiter)
    lock_deadlocks.break_cycles(machine, request.owner)


def release(machine: Machine, args: list[bytes]) -> Reply:
    """LOCK.RELEASE key owner [TOKEN token]."""
    key = args[1]
    token = read_token(read_options(args, 3, RELEASE)) if len(args) > 3 else None
    lock = find(machine, key)
    hold = None if lock is None else lock.holder(args[2])
    if lock is None or hold is None or (token is not None and token != hold.token):
        return 0
    if hold.holds > 1:
        machine.keyspace.touch(key)
        hold.holds -= 1
    else:
        hold_lives.end(machine, key, lock, hold)
    return 1


def extend(machine: Machine, args: list[bytes]) -> Reply:
    """LOCK.EXTEND key owner PX ms [TOKEN token]: sets what is left of the hold's life, never adds to it."""
    key = args[1]
    found = read_options(args, 3, EXTEND)
    if b"PX" not in found:
        raise syntax_error()
    px_ms = read_life_ms(machine, found[b"PX"], "lock.extend")
    token = read_token(found)
    lock = find(machine, key)
    hold = None if lock is None else lock.holder(args[2])
    if lock is None or hold is None or (token is not None and token != hold.token):
        return 0
    machine.keyspace.touch(key)
    hold_lives.reset(machine, key, lock, hold, px_ms)
    return 1


def downgrade(machine: Machine, args: list[bytes]) -> Reply:
    """LOCK.DOWNGRADE key owner: the exclusive holder shares from now on, with the token it has."""
    key = args[1]
    lock = find(machine, key)
    hold = None if lock is None else lock.exclusive
    if lock is None or hold is None or hold.owner != args[2]:
        return None
    machine.keyspace.touch(key)
    lock.exclusive = None
    lock.shared = {hold.owner: hold}
    machine.signal(key)
    lock_deadlocks.has_less(machine, key, hold.owner)
    return hold.token


def break_(machine: Machine, args: list[bytes]) -> Reply:
    """LOCK.BREAK key [owner]: how many owners lost their hold, whatever it counted."""
    if len(args) > 3:
        raise syntax_error()
    key = args[1]
    lock = find(machine, key)
    if lock is None:
        return 0
    broken = [hold for hold in lock.holders() if len(args) < 3 or hold.owner == args[2]]
    for hold in broken:
        hold_lives.end(machine, key, lock, hold)
    return len(broken)


# Granting


def _try(machine: Machine, request: Request, waiter: Waiter | None) -> list[int] | None:
    """Grants what was asked, if the rules allow it now: the tokens, else None and nothing changed.

    ``waiter`` is the one that has been waiting for it, None when it is asked for the first time.
    """
    if len(request.keys) == 1:
        key = request.keys[0]
        lock = find(machine, key)
        return [_grant(machine, request, key, lock)] if _is_open(machine, request, key, lock, waiter) else None
    locks = [find(machine, key) for key in request.keys]  # all of them are looked at: one may be no lock at all
    for key, lock in zip(request.keys, locks, strict=True):
        if not _is_open(machine, request, key, lock, waiter):
            return None
    return [_grant(machine, request, key, lock) for key, lock in zip(request.keys, locks, strict=True)]


def _is_open(machine: Machine, request: Request, key: bytes, lock: Lock | None, waiter: Waiter | None) -> bool:
    if lock is not None:
        if lock.holder(request.owner) is not None:
            return not request.exclusive or lock.exclusive is not None or len(lock.shared) == 1
        if request.exclusive or lock.exclusive is not None:
            return False
    return machine.waiters.first(key, Lock.kind) is waiter


def _grant(machine: Machine, request: Request, key: bytes, lock: Lock | None) -> int:
    """Gives the owner what `_is_open` found open: the token."""
    hold = None if lock is None else lock.holder(request.owner)
    if lock is not None and hold is not None:
        return _again(machine, request, key, lock, hold)
    token = machine.issued.issue(key)
    hold = Hold(request.owner, token, 1, None, b"", () if request.id is None else (request.id,))
    if lock is None:
        lock = Lock(token, hold, {}) if request.exclusive else Lock(token, None, {hold.owner: hold})
        machine.keyspace.put(key, lock)
    else:
        machine.keyspace.touch(key)
        lock.token = token
        lock.shared[hold.owner] = hold
    machine.lock_waits.took(hold.owner, key)
    hold_lives.begin(machine, key, hold, request.px_ms)
    return token


def _again(machine: Machine, request: Request, key: bytes, lock: Lock, hold: Hold) -> int:
    """As `_grant`, for an owner that holds the lock already."""
    machine.keyspace.touch(key)
    is_upgrade = request.exclusive and lock.exclusive is None
    if is_upgrade:
        lock.token = hold.token = machine.issued.issue(key)
        lock.exclusive = hold
        lock.shared = {}
    if not hold.knows(request.id):
        hold.holds += not is_upgrade
    hold_lives.prolong(machine, key, lock, hold, request.px_ms)
    return hold.token


# Its place in the keyspace


def forget(machine: Machine, key: bytes, lock: Lock) -> None:
    """The lock is no key any more."""
    hold_lives.forget(machine, key, lock)
    for hold in lock.holders():
        lock_deadlocks.left(machine, key, hold.owner)


def restored(machine: Machine, key: bytes, lock: Lock) -> None:
    """The lock came from a checkpoint's row."""
    hold_lives.set_alarms(machine, key, lock)
    for hold in lock.holders():
        machine.lock_waits.took(hold.owner, key)
