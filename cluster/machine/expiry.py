"""Deadlines of keys: the EXPIRE and TTL families, and the times SET and GETEX take.

A deadline is a time of the log's clock in milliseconds. One that is past when
it is given deletes the key at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.machine.arguments import INTEGER_MAX, INTEGER_MIN, integer
from cluster.machine.reply import CommandError, Reply

if TYPE_CHECKING:
    from cluster.machine.machine import Machine

TIMES = {b"EX": (1000, True), b"PX": (1, True), b"EXAT": (1000, False), b"PXAT": (1, False)}
"""Options that give a time: its unit in milliseconds, and whether it counts from now."""


def future(machine: Machine, command: bytes, option: bytes, time: bytes) -> int:
    """The deadline one of `TIMES` means; an error unless it is positive."""
    unit_ms, from_now = TIMES[option]
    span_ms = integer(time) * unit_ms
    deadline_ms = span_ms + machine.now_ms if from_now else span_ms
    if span_ms <= 0 or span_ms > INTEGER_MAX or deadline_ms > INTEGER_MAX:
        raise _invalid_time(command)
    return deadline_ms


def end_at(machine: Machine, key: bytes, deadline_ms: int | None) -> None:
    """Makes ``key``, which is there, end then, or never; now, if that is past."""
    keyspace = machine.keyspace
    if deadline_ms is not None and deadline_ms <= machine.now_ms:
        keyspace.remove(key)
    else:
        keyspace.set_deadline(key, deadline_ms)


def _invalid_time(command: bytes) -> CommandError:
    return CommandError(b"invalid expire time in '%b' command" % command.lower())


# Setting


def expire(machine: Machine, args: list[bytes]) -> Reply:
    """EXPIRE key seconds [NX | XX | GT | LT]"""
    return _expire(machine, args, 1000, machine.now_ms)


def pexpire(machine: Machine, args: list[bytes]) -> Reply:
    """PEXPIRE key milliseconds [NX | XX | GT | LT]"""
    return _expire(machine, args, 1, machine.now_ms)


def expireat(machine: Machine, args: list[bytes]) -> Reply:
    """EXPIREAT key unix-seconds [NX | XX | GT | LT]"""
    return _expire(machine, args, 1000, 0)


def pexpireat(machine: Machine, args: list[bytes]) -> Reply:
    """PEXPIREAT key unix-milliseconds [NX | XX | GT | LT]"""
    return _expire(machine, args, 1, 0)


def _expire(machine: Machine, args: list[bytes], unit_ms: int, from_ms: int) -> int:
    conditions = _conditions(args[3:]) if len(args) > 3 else ()
    span_ms = integer(args[2]) * unit_ms
    deadline_ms = span_ms + from_ms
    if not INTEGER_MIN <= span_ms <= INTEGER_MAX or deadline_ms > INTEGER_MAX:
        raise _invalid_time(args[0])
    key = args[1]
    if key not in machine.keyspace.values:
        return 0
    old_ms = machine.keyspace.deadlines.get(key)
    if not all(_holds(condition, old_ms, deadline_ms) for condition in conditions):
        return 0
    end_at(machine, key, deadline_ms)
    return 1


def _conditions(words: list[bytes]) -> tuple[bytes, ...]:
    found = tuple(word.upper() for word in words)
    for word, condition in zip(words, found, strict=True):
        if condition not in (b"NX", b"XX", b"GT", b"LT"):
            raise CommandError(b"Unsupported option " + word)
    if b"NX" in found and any(condition != b"NX" for condition in found):
        raise CommandError("NX and XX, GT or LT options at the same time are not compatible")
    if b"GT" in found and b"LT" in found:
        raise CommandError("GT and LT options at the same time are not compatible")
    return found


def _holds(condition: bytes, old_ms: int | None, new_ms: int) -> bool:
    """Whether ``condition`` lets ``new_ms`` replace ``old_ms``; no deadline is later than any."""
    if condition == b"NX":
        return old_ms is None
    if condition == b"XX":
        return old_ms is not None
    if condition == b"GT":
        return old_ms is not None and new_ms > old_ms
    return old_ms is None or new_ms < old_ms


def persist(machine: Machine, args: list[bytes]) -> Reply:
    """PERSIST key"""
    if args[1] not in machine.keyspace.deadlines:
        return 0
    machine.keyspace.set_deadline(args[1], None)
    return 1


# Asking


def ttl(machine: Machine, args: list[bytes]) -> Reply:
    """TTL key: seconds left, -1 without a deadline, -2 without the key"""
    return _seconds(_left(machine, args[1], machine.now_ms))


def pttl(machine: Machine, args: list[bytes]) -> Reply:
    """PTTL key: milliseconds left, -1, -2"""
    return _left(machine, args[1], machine.now_ms)


def expiretime(machine: Machine, args: list[bytes]) -> Reply:
    """EXPIRETIME key: the deadline in Unix seconds, -1, -2"""
    return _seconds(_left(machine, args[1], 0))


def pexpiretime(machine: Machine, args: list[bytes]) -> Reply:
    """PEXPIRETIME key: the deadline in Unix milliseconds, -1, -2"""
    return _left(machine, args[1], 0)


def _left(machine: Machine, key: bytes, from_ms: int) -> int:
    deadline_ms = machine.keyspace.deadlines.get(key)
    if deadline_ms is None:
        return -1 if key in machine.keyspace.values else -2
    return max(deadline_ms - from_ms, 0)


def _seconds(span_ms: int) -> int:
    return span_ms if span_ms < 0 else (span_ms + 500) // 1000
