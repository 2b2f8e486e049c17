"""Strings that hold a number: INCR, DECR and their kin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.machine import longdouble
from cluster.machine.arguments import INTEGER_MAX, INTEGER_MIN, integer
from cluster.machine.reply import CommandError, Reply

if TYPE_CHECKING:
    from cluster.machine.machine import Machine


def incr(machine: Machine, args: list[bytes]) -> Reply:
    """INCR key"""
    return _add(machine, args[1], 1)


def decr(machine: Machine, args: list[bytes]) -> Reply:
    """DECR key"""
    return _add(machine, args[1], -1)


def incrby(machine: Machine, args: list[bytes]) -> Reply:
    """INCRBY key increment"""
    return _add(machine, args[1], integer(args[2]))


def decrby(machine: Machine, args: list[bytes]) -> Reply:
    """DECRBY key decrement"""
    decrement = integer(args[2])
    if decrement == INTEGER_MIN:
        raise CommandError("decrement would overflow")
    return _add(machine, args[1], -decrement)


def _add(machine: Machine, key: bytes, amount: int) -> int:
    keyspace = machine.keyspace
    old = keyspace.string(key)
    if old is not None:
        amount += integer(old)
        if not INTEGER_MIN <= amount <= INTEGER_MAX:
            raise CommandError("increment or decrement would overflow")
    keyspace.put(key, b"%d" % amount)
    return amount


def incrbyfloat(machine: Machine, args: list[bytes]) -> Reply:
    """INCRBYFLOAT key increment"""
    old = machine.keyspace.string(args[1])
    try:
        total = longdouble.add(longdouble.parse(b"0" if old is None else old), longdouble.parse(args[2]))
    except ValueError:
        raise CommandError("value is not a valid float") from None
    if total is None:
        raise CommandError("increment would produce NaN or Infinity")
    value = longdouble.text(total)
    machine.keyspace.put(args[1], value)
    return value
