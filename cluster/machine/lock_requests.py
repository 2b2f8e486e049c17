"""What a client may write after LOCK.ACQUIRE, LOCK.RELEASE and LOCK.EXTEND."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from cluster.machine.arguments import INTEGER_MAX, Options, integer
from cluster.machine.reply import CommandError, syntax_error

if TYPE_CHECKING:
    from cluster.machine.machine import Machine

DEFAULT_TTL_MS = 30_000
"""The life of a hold when the command does not say; part of the state machine, so not a setting of a node."""


class Request(msgspec.Struct, gc=False):
    """What LOCK.ACQUIRE was asked. ``px_ms`` None: SESSION; ``block_ms`` None: do not wait."""

    key: bytes
    owner: bytes
    exclusive: bool
    px_ms: int | None
    block_ms: int | None
    id: bytes | None


_same_few_integers = lru_cache(256)(integer)  # clients use the same lives again and again

ACQUIRE = {b"SHARED": False, b"EXCLUSIVE": False, b"PX": True, b"SESSION": False, b"BLOCK": True, b"ID": True}
RELEASE = {b"TOKEN": True}
EXTEND = {b"PX": True, b"TOKEN": True}


def options(args: list[bytes], known: dict[bytes, bool]) -> dict[bytes, bytes]:
    """The options after key and owner; ``known`` says of each word whether a value follows it."""
    found: dict[bytes, bytes] = {}
    words = Options(args, 3)
    for word in words:
        if word in found or word not in known:
            raise syntax_error()
        found[word] = words.value() if known[word] else b""
    return found


def parse_acquire(machine: Machine, args: list[bytes]) -> Request:
    """Reads LOCK.ACQUIRE; `CommandError` for options that are unknown, doubled, contradictory or out of range."""
    if len(args) == 3:
        return Request(args[1], args[2], True, DEFAULT_TTL_MS, None, None)
    if len(args) == 5 and args[3].upper() == b"PX":
        return Request(args[1], args[2], True, life_ms(machine, args[4], "lock.acquire"), None, None)
    found = options(args, ACQUIRE)
    if (b"SHARED" in found and b"EXCLUSIVE" in found) or (b"PX" in found and b"SESSION" in found):
        raise syntax_error()
    px_ms: int | None = DEFAULT_TTL_MS
    if b"PX" in found:
        px_ms = life_ms(machine, found[b"PX"], "lock.acquire")
    elif b"SESSION" in found:
        if not machine.origin:
            raise CommandError("SESSION needs a client's session")
        px_ms = None
    block_ms = _block_ms(machine, found[b"BLOCK"]) if b"BLOCK" in found else None
    return Request(args[1], args[2], b"SHARED" not in found, px_ms, block_ms, found.get(b"ID"))


def life_ms(machine: Machine, text: bytes, command: str) -> int:
    """The value of ``PX``; Redis's error unless it is positive and ends within 64 bits."""
    px_ms = _same_few_integers(text)
    if not 0 < px_ms <= INTEGER_MAX - machine.now_ms:
        raise CommandError(f"invalid expire time in '{command}' command")
    return px_ms


def _block_ms(machine: Machine, text: bytes) -> int:
    block_ms = integer(text, "timeout is not an integer or out of range")
    if block_ms < 0:
        raise CommandError("timeout is negative")
    if block_ms > INTEGER_MAX - machine.now_ms:
        raise CommandError("timeout is out of range")
    return block_ms


def parse_token(found: dict[bytes, bytes]) -> int | None:
    """The value of ``TOKEN`` among the options found, if it is there."""
    return integer(found[b"TOKEN"]) if b"TOKEN" in found else None
