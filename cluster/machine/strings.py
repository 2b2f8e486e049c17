"""Strings: plain ``bytes``, read and written whole or in part. Counting is in `counters`, LCS in `lcs`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.machine.arguments import Options, integer
from cluster.machine.expiry import TIMES, end_at, future
from cluster.machine.reply import OK, CommandError, Reply, syntax_error, wrong_type

if TYPE_CHECKING:
    from cluster.machine.machine import Machine

STRING_BYTES_MAX = 512 * 1024 * 1024
"""How long a string may grow: Redis's default ``proto-max-bulk-len``, fixed here so that all replicas agree."""


# Reading


def get(machine: Machine, args: list[bytes]) -> Reply:
    """GET key"""
    value = machine.keyspace.values.get(args[1])
    if value is None or type(value) is bytes:
        return value
    raise wrong_type()


def mget(machine: Machine, args: list[bytes]) -> Reply:
    """MGET key [key …]; what is not a string counts as missing"""
    values = machine.keyspace.values
    return [value if type(value := values.get(key)) is bytes else None for key in args[1:]]


def strlen(machine: Machine, args: list[bytes]) -> Reply:
    """STRLEN key"""
    return len(machine.keyspace.string(args[1]) or b"")


def getrange(machine: Machine, args: list[bytes]) -> Reply:
    """GETRANGE key start end, both included, negative from the end; SUBSTR is its old name"""
    start, end = integer(args[2]), integer(args[3])
    value = machine.keyspace.string(args[1]) or b""
    if start < 0 and end < 0 and start > end:
        return b""
    size = len(value)
    start = max(start + size, 0) if start < 0 else start
    end = max(end + size, 0) if end < 0 else end  # so an end before the string means its first byte
    return value[start : end + 1]


# Setting


def set_(machine: Machine, args: list[bytes]) -> Reply:
    """SET key value [NX | XX] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]"""
    if len(args) > 3:
        return _set_with_options(machine, args)
    keyspace = machine.keyspace
    key = args[1]
    keyspace.put(key, args[2])
    if key in keyspace.deadlines:
        keyspace.set_deadline(key, None)
    return OK


def _set_with_options(machine: Machine, args: list[bytes]) -> Reply:
    condition = life = time = b""
    wants_old = False
    options = Options(args, 3)
    for word in options:
        if word in (b"NX", b"XX") and condition in (b"", word):
            condition = word
        elif word == b"GET":
            wants_old = True
        elif word == b"KEEPTTL" and life in (b"", word):
            life = word
        elif word in TIMES and life in (b"", word):
            life, time = word, options.value()
        else:
            raise syntax_error()

    keyspace, key = machine.keyspace, args[1]
    deadline_ms = None
    if life in TIMES:
        deadline_ms = future(machine, args[0], life, time)
    elif life:
        deadline_ms = keyspace.deadlines.get(key)
    old = keyspace.string(key) if wants_old else None
    if condition and (key in keyspace.values) == (condition == b"NX"):
        return old
    _put(machine, key, args[2], deadline_ms)
    return old if wants_old else OK


def _put(machine: Machine, key: bytes, value: bytes, deadline_ms: int | None) -> None:
    machine.keyspace.put(key, value)
    end_at(machine, key, deadline_ms)


def setex(machine: Machine, args: list[bytes]) -> Reply:
    """SETEX key seconds value"""
    _put(machine, args[1], args[3], future(machine, args[0], b"EX", args[2]))
    return OK


def psetex(machine: Machine, args: list[bytes]) -> Reply:
    """PSETEX key milliseconds value"""
    _put(machine, args[1], args[3], future(machine, args[0], b"PX", args[2]))
    return OK


def setnx(machine: Machine, args: list[bytes]) -> Reply:
    """SETNX key value"""
    if args[1] in machine.keyspace.values:
        return 0
    machine.keyspace.put(args[1], args[2])
    return 1


def getset(machine: Machine, args: list[bytes]) -> Reply:
    """GETSET key value"""
    old = machine.keyspace.string(args[1])
    _put(machine, args[1], args[2], None)
    return old


def mset(machine: Machine, args: list[bytes]) -> Reply:
    """MSET key value [key value …]"""
    if not len(args) & 1:
        raise _odd(args)
    keyspace = machine.keyspace
    put, deadlines = keyspace.put, keyspace.deadlines
    words = iter(args)
    next(words)
    for key in words:
        put(key, next(words))
        if key in deadlines:
            keyspace.set_deadline(key, None)
    return OK


def msetnx(machine: Machine, args: list[bytes]) -> Reply:
    """MSETNX key value [key value …]: all, or none when one of the keys is there"""
    if not len(args) & 1:
        raise _odd(args)
    keyspace = machine.keyspace
    if any(key in keyspace.values for key in args[1::2]):
        return 0
    for key, value in zip(args[1::2], args[2::2], strict=True):
        keyspace.put(key, value)
    return 1


def _odd(args: list[bytes]) -> CommandError:
    return CommandError(b"wrong number of arguments for '%b' command" % args[0].lower())


# Reading and changing


def getdel(machine: Machine, args: list[bytes]) -> Reply:
    """GETDEL key"""
    old = machine.keyspace.string(args[1])
    machine.keyspace.remove(args[1])
    return old


def getex(machine: Machine, args: list[bytes]) -> Reply:
    """GETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST]"""
    life = time = b""
    options = Options(args, 2)
    for word in options:
        if word == b"PERSIST" and life in (b"", word):
            life = word
        elif word in TIMES and life in (b"", word):
            life, time = word, options.value()
        else:
            raise syntax_error()
    value = machine.keyspace.string(args[1])
    if value is not None and life:
        end_at(machine, args[1], future(machine, args[0], life, time) if life in TIMES else None)
    return value


def append(machine: Machine, args: list[bytes]) -> Reply:
    """APPEND key value"""
    old = machine.keyspace.string(args[1]) or b""
    _check_length(len(old) + len(args[2]))
    machine.keyspace.put(args[1], old + args[2])
    return len(old) + len(args[2])


def setrange(machine: Machine, args: list[bytes]) -> Reply:
    """SETRANGE key offset value; a gap before ``offset`` is filled with zero bytes"""
    offset, piece = integer(args[2]), args[3]
    if offset < 0:
        raise CommandError("offset is out of range")
    old = machine.keyspace.string(args[1]) or b""
    if not piece:
        return len(old)
    _check_length(offset + len(piece))
    value = old[:offset].ljust(offset, b"\0") + piece + old[offset + len(piece) :]
    machine.keyspace.put(args[1], value)
    return len(value)


def _check_length(length: int) -> None:
    if length > STRING_BYTES_MAX:
        raise CommandError("string exceeds maximum allowed size (proto-max-bulk-len)")
