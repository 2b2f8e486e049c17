"""Commands that treat all kinds of values alike.

Deadlines are in `expiry`, KEYS and SCAN in `scanning`, OBJECT in `objects`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.machine.arguments import Options, integer
from cluster.machine.keyspace import STRING, Held
from cluster.machine.queue import Queue
from cluster.machine.reply import OK, CommandError, Reply, Status, syntax_error

if TYPE_CHECKING:
    from cluster.machine.machine import Machine

_STRING_TYPE = Status(STRING.decode())
_NO_TYPE = Status("none")


def delete(machine: Machine, args: list[bytes]) -> Reply:
    """DEL key [key …], and UNLINK: values are freed key by key either way"""
    remove = machine.keyspace.remove
    return sum([remove(key) for key in args[1:]])


def exists(machine: Machine, args: list[bytes]) -> Reply:
    """EXISTS key [key …], and TOUCH: nothing evicts by age of use, so being counted is all"""
    values = machine.keyspace.values
    return sum([key in values for key in args[1:]])


def type_(machine: Machine, args: list[bytes]) -> Reply:
    """TYPE key"""
    value = machine.keyspace.values.get(args[1])
    if value is None:
        return _NO_TYPE
    return _STRING_TYPE if type(value) is bytes else Status(kind_of(value).decode())


def kind_of(value: Held) -> bytes:
    """What TYPE answers for ``value``."""
    return STRING if isinstance(value, bytes) else value.kind


def rename(machine: Machine, args: list[bytes]) -> Reply:
    """RENAME key newkey"""
    _check_movable(machine, args[1])
    if args[1] != args[2]:
        machine.keyspace.move(args[1], args[2])
        machine.place(args[2])
    return OK


def renamenx(machine: Machine, args: list[bytes]) -> Reply:
    """RENAMENX key newkey"""
    _check_movable(machine, args[1])
    if args[2] in machine.keyspace.values:
        return 0
    machine.keyspace.move(args[1], args[2])
    machine.place(args[2])
    return 1


def _check_movable(machine: Machine, key: bytes) -> None:
    value = machine.keyspace.values.get(key)
    if value is None:
        raise CommandError("no such key")
    _check_whole(value)


def _check_whole(value: Held) -> None:
    if isinstance(value, Queue) and value.partition is not None:
        raise CommandError("a queue with partitions stays where it is: it cannot be renamed or copied")


def copy(machine: Machine, args: list[bytes]) -> Reply:
    """COPY source destination [DB 0] [REPLACE]"""
    replace = False
    options = Options(args, 3)
    for word in options:
        if word == b"REPLACE":
            replace = True
        elif word == b"DB":
            _check_database(options.value())
        else:
            raise syntax_error()
    keyspace, key, to = machine.keyspace, args[1], args[2]
    if key == to:
        raise CommandError("source and destination objects are the same")
    value = keyspace.values.get(key)
    if value is None or (to in keyspace.values and not replace):
        return 0
    _check_whole(value)
    keyspace.put(to, value if isinstance(value, bytes) else value.copy())
    keyspace.set_deadline(to, keyspace.deadlines.get(key))
    machine.place(to)
    return 1


def _check_database(text: bytes) -> None:
    number = integer(text)
    low, high = -(2**31), 2**31 - 1
    if not low <= number <= high:
        raise CommandError(f"value is out of range, value must between {low} and {high}")
    if number:
        raise CommandError("DB index is out of range")


def dbsize(machine: Machine, _args: list[bytes]) -> Reply:
    """DBSIZE"""
    return len(machine.keyspace) - len(machine.foreign)


def flush(machine: Machine, args: list[bytes]) -> Reply:
    """FLUSHALL [ASYNC | SYNC], and FLUSHDB: there is one database"""
    if len(args) > 2 or (len(args) == 2 and args[1].upper() not in (b"ASYNC", b"SYNC")):
        raise syntax_error()
    machine.keyspace.clear()
    return OK
