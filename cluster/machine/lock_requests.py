"""What a client may write after LOCK.ACQUIRE, LOCK.MACQUIRE, LOCK.RELEASE and LOCK.EXTEND."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cluster.machine.arguments import integer
from cluster.machine.hold_requests import (
    DEFAULT_TTL_MS,
    LIFE,
    check_name,
    read_block_ms,
    read_life_ms,
    read_options,
    read_px_ms,
)
from cluster.machine.reply import CommandError, syntax_error

if TYPE_CHECKING:
    from cluster.machine.machine import Machine

MACQUIRE = b"LOCK.MACQUIRE"

ACQUIRE = {b"SHARED": False, b"EXCLUSIVE": False, **LIFE, b"BLOCK": True, b"ID": True}
RELEASE = {b"TOKEN": True}
EXTEND = {b"PX": True, b"TOKEN": True}


class Request(msgspec.Struct, gc=False):
    """What LOCK.ACQUIRE or LOCK.MACQUIRE was asked. ``px_ms`` None: SESSION; ``block_ms`` None: do not wait."""

    keys: list[bytes]
    owner: bytes
    exclusive: bool
    px_ms: int | None
    block_ms: int | None
    id: bytes | None


def owner_at(args: list[bytes]) -> int:
    """Where the owner stands; behind it are the options."""
    return 2 if args[0].upper() != MACQUIRE else 2 + _count(args)


def _count(args: list[bytes]) -> int:
    """The ``numkeys`` of LOCK.MACQUIRE; an owner must be left behind the keys."""
    count = integer(args[1], "numkeys should be greater than 0")
    if count < 1:
        raise CommandError("numkeys should be greater than 0")
    if count > len(args) - 3:
        raise CommandError("Number of keys can't be greater than number of args")
    return count


def parse_acquire(machine: Machine, args: list[bytes]) -> Request:
    """Reads LOCK.ACQUIRE; `CommandError` for what is unknown, doubled, contradictory or out of range."""
    owner = args[2]
    check_name(owner, "owner")
    if len(args) == 3:
        return Request([args[1]], owner, True, DEFAULT_TTL_MS, None, None)
    if len(args) == 5 and args[3].upper() == b"PX":
        return Request([args[1]], owner, True, read_life_ms(machine, args[4], "lock.acquire"), None, None)
    return _parse(machine, args, [args[1]], 2, "lock.acquire")


def parse_macquire(machine: Machine, args: list[bytes]) -> Request:
    """Reads LOCK.MACQUIRE, as `parse_acquire`; a key that is named twice is one key."""
    at = owner_at(args)
    check_name(args[at], "owner")
    return _parse(machine, args, list(dict.fromkeys(args[2:at])), at, "lock.macquire")


def _parse(machine: Machine, args: list[bytes], keys: list[bytes], at: int, command: str) -> Request:
    found = read_options(args, at + 1, ACQUIRE)
    if b"SHARED" in found and b"EXCLUSIVE" in found:
        raise syntax_error()
    px_ms = read_px_ms(machine, found, command)
    block_ms = read_block_ms(machine, found)
    if b"ID" in found:
        check_name(found[b"ID"], "ID")
    return Request(keys, args[at], b"SHARED" not in found, px_ms, block_ms, found.get(b"ID"))


def wants_exclusive(args: list[bytes], at: int) -> bool:
    """Whether a call whose owner stands at ``at`` asks for the lock alone."""
    return len(args) == at + 1 or b"SHARED" not in read_options(args, at + 1, ACQUIRE)
