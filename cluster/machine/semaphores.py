"""SEM.*: a number of places, each held by one owner at a time.

The rules:

* The limit is what the latest SEM.ACQUIRE said, whether it was granted or not;
  a semaphore nobody holds or waits for has none. When it shrinks, nobody loses
  a place: places are given again once fewer than the new limit are held. One
  who waits for more places than there are at its turn is refused.
* Places are given in the order they were asked for: who asks for few does not
  overtake one who waits for many.
* An owner has one hold, with one token and one life, that counts its places.
  Asking for more of them it stands in line like everybody else, and gets its
  token again. An ``ID`` that its hold has seen takes no place, but prolongs
  the life as asking again does.

How long a hold lives is in `cluster.machine.hold_lives`. Those who wait for
places are not looked at for deadlocks: which holder they wait for is open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cluster.machine import hold_lives
from cluster.machine.hold import Hold
from cluster.machine.hold_requests import (
    LIFE,
    check_name,
    read_block_ms,
    read_options,
    read_positive,
    read_px_ms,
    read_token,
)
from cluster.machine.reply import WAITING, CommandError, Reply, syntax_error, wrong_type
from cluster.machine.semaphore import Semaphore
from cluster.machine.waiters import Waiter

if TYPE_CHECKING:
    from cluster.machine.machine import Machine

ACQUIRE = {b"LIMIT": True, b"COUNT": True, **LIFE, b"BLOCK": True, b"ID": True}
RELEASE = {b"COUNT": True, b"TOKEN": True}


class Request(msgspec.Struct, gc=False):
    """What SEM.ACQUIRE was asked. ``px_ms`` None: SESSION; ``block_ms`` None: do not wait."""

    key: bytes
    owner: bytes
    limit: int
    count: int
    px_ms: int | None
    block_ms: int | None
    id: bytes | None


def _parse(machine: Machine, args: list[bytes]) -> Request:
    owner = args[2]
    check_name(owner, "owner")
    found = read_options(args, 3, ACQUIRE)
    if b"LIMIT" not in found:
        raise syntax_error()
    limit = read_positive(found[b"LIMIT"])
    count = read_positive(found[b"COUNT"]) if b"COUNT" in found else 1
    _check_count(count, limit)
    px_ms = read_px_ms(machine, found, "sem.acquire")
    if b"ID" in found:
        check_name(found[b"ID"], "ID")
    return Request(args[1], owner, limit, count, px_ms, read_block_ms(machine, found), found.get(b"ID"))


def _check_count(count: int, limit: int) -> None:
    if count > limit:
        raise CommandError(f"COUNT {count} is more than LIMIT {limit}")


def _find(machine: Machine, key: bytes) -> Semaphore | None:
    value = machine.keyspace.values.get(key)
    if value is None or type(value) is Semaphore:
        return value
    raise wrong_type()


# Commands


def acquire(machine: Machine, args: list[bytes]) -> Reply:
    """SEM.ACQUIRE key owner LIMIT n [COUNT k] [PX ms | SESSION] [BLOCK ms] [ID request]"""
    request = _parse(machine, args)
    key = request.key
    semaphore = _find(machine, key)
    if semaphore is not None and semaphore.limit != request.limit:
        machine.keyspace.touch(key)
        semaphore.limit = request.limit
        machine.signal(key)
    token = _try(machine, request, semaphore, request.limit, None)
    if token is not None or request.block_ms is None:
        return token
    return machine.wait(Semaphore.kind, [key], args, request.block_ms)


def retry_acquire(machine: Machine, waiter: Waiter) -> Reply:
    """The turn of one who waits with SEM.ACQUIRE."""
    request = _parse(machine, waiter.args)
    semaphore = _find(machine, request.key)
    limit = _latest_limit(machine, request.key) if semaphore is None else semaphore.limit
    token = _try(machine, request, semaphore, limit, waiter)
    if token is None:
        _check_count(request.count, limit)
        return WAITING
    return token


def _latest_limit(machine: Machine, key: bytes) -> int:
    """The limit of a semaphore that nobody holds, but somebody waits for."""
    latest = machine.waiters.last(key, Semaphore.kind)
    assert latest is not None
    return _parse(machine, latest.args).limit


def release(machine: Machine, args: list[bytes]) -> Reply:
    """SEM.RELEASE key owner [COUNT k] [TOKEN token]: how many places were given back."""
    key = args[1]
    found = read_options(args, 3, RELEASE)
    count = read_positive(found[b"COUNT"]) if b"COUNT" in found else 1
    token = read_token(found)
    semaphore = _find(machine, key)
    hold = None if semaphore is None else semaphore.holder(args[2])
    if semaphore is None or hold is None or (token is not None and token != hold.token):
        return 0
    if count < hold.holds:
        machine.keyspace.touch(key)
        hold.holds -= count
        semaphore.used -= count
        machine.signal(key)
        return count
    count = hold.holds
    hold_lives.end(machine, key, semaphore, hold)
    return count


def info(machine: Machine, args: list[bytes]) -> Reply:
    """SEM.INFO key"""
    key = args[1]
    semaphore = _find(machine, key)
    now_ms = machine.now_ms
    holds = [] if semaphore is None else semaphore.living(now_ms)
    return {
        b"limit": semaphore.limit if semaphore is not None and holds else 0,
        b"held": sum(hold.holds for hold in holds),
        b"token": machine.issued.recent.get(key, 0) if semaphore is None else semaphore.token,
        b"holders": [
            {
                b"owner": hold.owner,
                b"count": hold.holds,
                b"token": hold.token,
                b"ttl-ms": hold.ttl_ms(now_ms),
                b"session": int(hold.ends_ms is None),
            }
            for hold in holds
        ],
        b"waiters": [_describe_wait(waiter, now_ms) for waiter in machine.waiters.at(key, Semaphore.kind)],
    }


def _describe_wait(waiter: Waiter, now_ms: int) -> dict[bytes, bytes | int]:
    count = read_options(waiter.args, 3, ACQUIRE).get(b"COUNT", b"1")
    return {b"owner": waiter.args[2], b"count": int(count), b"waited-ms": now_ms - waiter.since_ms}


# Granting


def _try(
    machine: Machine, request: Request, semaphore: Semaphore | None, limit: int, waiter: Waiter | None
) -> int | None:
    """Gives the places asked for, if the rules allow it now: the token, else None and nothing changed.

    ``waiter`` is the one that has been waiting for it, None when it is asked for the first time.
    """
    key = request.key
    hold = None if semaphore is None else semaphore.holder(request.owner)
    if semaphore is not None and hold is not None and request.id is not None and request.id in hold.requests:
        machine.keyspace.touch(key)
        hold_lives.prolong(machine, key, semaphore, hold, request.px_ms)
        return hold.token
    used = 0 if semaphore is None else semaphore.used
    if machine.waiters.first(key, Semaphore.kind) is not waiter or request.count > limit - used:
        return None
    if semaphore is None:
        semaphore = Semaphore(0, limit, 0, {})
        hold = _join(machine, request, semaphore)
        machine.keyspace.put(key, semaphore)
        hold_lives.begin(machine, key, hold, request.px_ms)
        return hold.token
    machine.keyspace.touch(key)
    if hold is None:
        hold = _join(machine, request, semaphore)
        hold_lives.begin(machine, key, hold, request.px_ms)
        return hold.token
    hold.knows(request.id)
    hold.holds += request.count
    semaphore.used += request.count
    hold_lives.prolong(machine, key, semaphore, hold, request.px_ms)
    return hold.token


def _join(machine: Machine, request: Request, semaphore: Semaphore) -> Hold:
    token = semaphore.token = machine.issued.issue(request.key)
    ids = () if request.id is None else (request.id,)
    hold = semaphore.by_owner[request.owner] = Hold(request.owner, token, request.count, None, b"", ids)
    semaphore.used += request.count
    return hold
