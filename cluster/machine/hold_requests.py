"""What clients may write after the commands that take, give back and prolong a hold of whatever kind."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from cluster.machine.arguments import INTEGER_MAX, Options, integer
from cluster.machine.reply import CommandError, syntax_error

if TYPE_CHECKING:
    from cluster.machine.machine import Machine

DEFAULT_TTL_MS = 30_000
"""The life of a hold when the command does not say; part of the state machine, so not a setting of a node."""

NAME_BYTES_MAX = 4096
"""How long an owner, a candidate or the ``ID`` of a request may be: every hold keeps its own."""

LIFE = {b"PX": True, b"SESSION": False}
"""The options that say how long a hold lives."""

_same_few_integers = lru_cache(256)(integer)  # clients use the same lives again and again


def read_options(args: list[bytes], start: int, known: dict[bytes, bool]) -> dict[bytes, bytes]:
    """The options from ``start`` on; ``known`` says of each word whether a value follows it."""
    found: dict[bytes, bytes] = {}
    words = Options(args, start)
    for word in words:
        if word in found or word not in known:
            raise syntax_error()
        found[word] = words.value() if known[word] else b""
    return found


def check_name(name: bytes, what: str) -> None:
    """Refuses a name that is empty or too long to be kept with every hold."""
    if not 0 < len(name) <= NAME_BYTES_MAX:
        raise CommandError(f"{what} must be 1 to {NAME_BYTES_MAX} bytes long")


def read_px_ms(machine: Machine, found: dict[bytes, bytes], command: str) -> int | None:
    """The life that ``PX`` or ``SESSION`` among the options asks for: milliseconds, or None for the session's."""
    if b"PX" in found:
        if b"SESSION" in found:
            raise syntax_error()
        return read_life_ms(machine, found[b"PX"], command)
    if b"SESSION" not in found:
        return DEFAULT_TTL_MS
    if not machine.origin:
        raise CommandError("SESSION needs a client's session")
    return None


def read_life_ms(machine: Machine, text: bytes, command: str) -> int:
    """The value of ``PX``; Redis's error unless it is positive and ends within 64 bits."""
    px_ms = _same_few_integers(text)
    if not 0 < px_ms <= INTEGER_MAX - machine.now_ms:
        raise CommandError(f"invalid expire time in '{command}' command")
    return px_ms


def read_block_ms(machine: Machine, found: dict[bytes, bytes]) -> int | None:
    """The value of ``BLOCK``, 0 for ever; None: do not wait."""
    if b"BLOCK" not in found:
        return None
    block_ms = integer(found[b"BLOCK"], "timeout is not an integer or out of range")
    if block_ms < 0:
        raise CommandError("timeout is negative")
    if block_ms > INTEGER_MAX - machine.now_ms:
        raise CommandError("timeout is out of range")
    return block_ms


def read_token(found: dict[bytes, bytes]) -> int | None:
    """The value of ``TOKEN`` among the options found, if it is there."""
    return integer(found[b"TOKEN"]) if b"TOKEN" in found else None


def read_positive(text: bytes) -> int:
    """How many: Redis's error unless it is a positive integer."""
    number = integer(text)
    if number < 1:
        raise CommandError("value is out of range, must be positive")
    return number
