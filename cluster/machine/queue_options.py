"""What the Q. commands may be told, read with Redis's strictness."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import msgspec

from cluster.machine.arguments import Options, bounded, integer
from cluster.machine.queue import Settings
from cluster.machine.reply import CommandError, Reply, syntax_error

MS_MAX = 2**48  # any time a client may name; far beyond that is a mistake
PARTITIONS_MAX = 16384
PEEK_COUNT = 10
WORDS_BYTES_MAX = 200
"""Options of Q.POP that are longer, by a CONSUMER's long name, are not remembered."""
REASON_BYTES_MAX = 4096


class Words(Options):
    """Options of which each may be given once."""

    __slots__ = ()

    def __iter__(self) -> Iterator[bytes]:
        seen: list[bytes] = []
        for word in super().__iter__():
            if word in seen:
                raise syntax_error()
            seen.append(word)
            yield word


class Limits(NamedTuple):
    """A setting that is one integer, and what it may be."""

    field: str
    low: int
    high: int


LIMITS = {
    b"PARTITIONS": Limits("partitions", 1, PARTITIONS_MAX),
    b"VISIBILITY": Limits("visibility_ms", 1, MS_MAX),
    b"MAXDELIVERIES": Limits("maxdeliveries", 1, MS_MAX),
    b"MAXLEN": Limits("maxlen", 0, MS_MAX),
    b"PX": Limits("px_ms", 0, MS_MAX),
    b"DEDUP": Limits("dedup_ms", 0, MS_MAX),
}


class PushOptions(NamedTuple):
    """The options of Q.PUSH; ``px_ms`` 0 means the queue's own."""

    given_id: bytes | None = None
    delay_ms: int = 0
    priority: int = 0
    group: bytes | None = None
    px_ms: int = 0


class NackOptions(NamedTuple):
    """The options of Q.NACK; ``delay_ms`` None means the back-off, ``reason`` None the usual one."""

    delay_ms: int | None = None
    is_dead: bool = False
    reason: bytes | None = None


class PopOptions(NamedTuple):
    """The options of Q.POP.

    ``most`` is COUNT; ``block_ms`` None means do not wait; ``visibility_ms`` 0
    means the queue's own, ``consumer`` None the client's connection.
    """

    most: int = 1
    block_ms: int | None = None
    visibility_ms: int = 0
    consumer: bytes | None = None


PLAIN_PUSH = PushOptions()
PLAIN_POP = PopOptions()


def read_settings(args: list[bytes], key: bytes, settings: Settings) -> Settings:
    """``settings`` with the changes that follow the key of Q.CREATE or Q.CONFIG; an empty DLQ means none."""
    changes: dict[str, object] = {}
    options = Words(args, 2)
    for word in options:
        if word == b"BACKOFF":
            least_ms = bounded(options.value(), 0, MS_MAX)
            changes["backoff_ms"] = (least_ms, bounded(options.value(), least_ms, MS_MAX))
        elif word == b"DLQ":
            changes["dlq"] = options.value() or None
        elif word in LIMITS:
            field, low, high = LIMITS[word]
            changes[field] = bounded(options.value(), low, high)
        else:
            raise syntax_error()
    if changes.get("dlq") == key:
        raise CommandError("a queue cannot be its own DLQ: name another queue, or '' for none")
    return msgspec.structs.replace(settings, **changes)


def describe(settings: Settings) -> dict[bytes, Reply]:
    """The settings under the names of their options, in lower case."""
    return {
        b"partitions": settings.partitions,
        b"visibility": settings.visibility_ms,
        b"maxdeliveries": settings.maxdeliveries,
        b"backoff": list(settings.backoff_ms),
        b"dlq": settings.dlq,
        b"maxlen": settings.maxlen,
        b"px": settings.px_ms,
        b"dedup": settings.dedup_ms,
    }


def read_push(args: list[bytes]) -> PushOptions:
    """What follows the payload of Q.PUSH."""
    given_id: bytes | None = None
    group: bytes | None = None
    delay_ms = priority = px_ms = 0
    options = Words(args, 3)
    for word in options:
        value = options.value()
        if word == b"ID":
            given_id = value
        elif word == b"DELAY":
            delay_ms = bounded(value, 0, MS_MAX)
        elif word == b"PRIORITY":
            priority = bounded(value, 0, 255)
        elif word == b"GROUP":
            group = value
        elif word == b"PX":
            px_ms = integer(value)
            if not 0 < px_ms <= MS_MAX:
                raise CommandError("invalid expire time in 'q.push' command")
        else:
            raise syntax_error()
    return PushOptions(given_id, delay_ms, priority, group, px_ms)


def read_pop(args: list[bytes]) -> PopOptions:
    """What follows the key of Q.POP."""
    words = tuple(args[2:])
    return _known_pop_options(words) if sum(map(len, words)) <= WORDS_BYTES_MAX else _pop_options(words)


def _pop_options(words: tuple[bytes, ...]) -> PopOptions:
    count = 1
    block_ms: int | None = None
    visibility_ms = 0
    consumer: bytes | None = None
    options = Words(list(words), 0)
    for word in options:
        value = options.value()
        if word == b"COUNT":
            count = read_count(value)
        elif word == b"BLOCK":
            error = "timeout is negative" if value[:1] == b"-" else "timeout is not an integer or out of range"
            block_ms = bounded(value, 0, MS_MAX, error)
        elif word == b"VISIBILITY":
            visibility_ms = bounded(value, 1, MS_MAX)
        elif word == b"CONSUMER":
            consumer = value
        else:
            raise syntax_error()
    return PopOptions(count, block_ms, visibility_ms, consumer)


_known_pop_options = lru_cache(maxsize=256)(_pop_options)
"""Consumers say the same again and again, and reading it takes a third of what a Q.POP takes."""


def read_nack(args: list[bytes]) -> NackOptions:
    """What follows the receipt of Q.NACK."""
    delay_ms: int | None = None
    is_dead = False
    reason: bytes | None = None
    options = Words(args, 3)
    for word in options:
        if word == b"DELAY":
            delay_ms = bounded(options.value(), 0, MS_MAX)
        elif word == b"DEAD":
            is_dead = True
        elif word == b"REASON":
            reason = options.value()
            if len(reason) > REASON_BYTES_MAX:
                raise CommandError(f"REASON must be at most {REASON_BYTES_MAX} bytes long")
        else:
            raise syntax_error()
    return NackOptions(delay_ms, is_dead, reason)


def read_dead(args: list[bytes]) -> int:
    """What follows the key of Q.DEAD: how many."""
    return _read_only_count(args, PEEK_COUNT)


def read_peek(args: list[bytes]) -> tuple[int, bool]:
    """What follows the key of Q.PEEK: how many, and whether dead letters."""
    count, is_dead = PEEK_COUNT, False
    options = Words(args, 2)
    for word in options:
        if word == b"COUNT":
            count = read_count(options.value())
        elif word == b"DEAD":
            is_dead = True
        else:
            raise syntax_error()
    return count, is_dead


def read_redrive(args: list[bytes]) -> int:
    """What follows the key of Q.REDRIVE: how many."""
    return _read_only_count(args, MS_MAX)


def _read_only_count(args: list[bytes], count: int) -> int:
    options = Words(args, 2)
    for word in options:
        if word != b"COUNT":
            raise syntax_error()
        count = read_count(options.value())
    return count


def read_count(value: bytes) -> int:
    """A COUNT, which is at least 1."""
    count = integer(value)
    if count < 1:
        raise CommandError("value is out of range, must be positive")
    return count
