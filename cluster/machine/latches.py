"""LATCH.*: a count of things to be done, and those who wait until it is zero, like Go's WaitGroup.

A latch at zero is no key: whoever adds makes it, the last who is done removes
it, and one that was never made is at zero. So is one that was deleted or has expired.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from cluster.machine.arguments import INTEGER_MAX
from cluster.machine.hold_requests import read_block_ms, read_options, read_positive
from cluster.machine.reply import WAITING, CommandError, Reply, wrong_type
from cluster.machine.waiters import Waiter
from cluster.machine.whole import Whole

if TYPE_CHECKING:
    from cluster.machine.machine import Machine

WAIT = {b"BLOCK": True}


class Latch(Whole, array_like=True, gc=False):
    """A latch that is not at zero."""

    kind: ClassVar[bytes] = b"latch"
    encoding: ClassVar[bytes] = b"latch"

    count: int

    def copy(self) -> Latch:
        """An independent latch."""
        return Latch(self.count)

    def size_bytes(self) -> int:
        """About how much memory it takes."""
        return 64


def _find(machine: Machine, key: bytes) -> Latch | None:
    value = machine.keyspace.values.get(key)
    if value is None or type(value) is Latch:
        return value
    raise wrong_type()


def add(machine: Machine, args: list[bytes]) -> Reply:
    """LATCH.ADD key n: the new count."""
    key = args[1]
    number = read_positive(args[2])
    latch = _find(machine, key)
    if latch is None:
        machine.keyspace.put(key, Latch(number))
        return number
    if number > INTEGER_MAX - latch.count:
        raise CommandError("increment or decrement would overflow")
    machine.keyspace.touch(key)
    latch.count += number
    return latch.count


def done(machine: Machine, args: list[bytes]) -> Reply:
    """LATCH.DONE key [n]: the new count."""
    key = args[1]
    number = read_positive(args[2]) if len(args) > 2 else 1
    latch = _find(machine, key)
    count = 0 if latch is None else latch.count
    if latch is None or number > count:
        raise CommandError(f"the latch is at {count} and cannot go below zero")
    if number == count:
        machine.keyspace.remove(key)
        return 0
    machine.keyspace.touch(key)
    latch.count -= number
    return latch.count


def wait(machine: Machine, args: list[bytes]) -> Reply:
    """LATCH.WAIT key [BLOCK ms]: 1 at zero."""
    block_ms = read_block_ms(machine, read_options(args, 2, WAIT))
    if _find(machine, args[1]) is None:
        return 1
    return None if block_ms is None else machine.wait(Latch.kind, [args[1]], args, block_ms)


def retry_wait(machine: Machine, waiter: Waiter) -> Reply:
    """LATCH.WAIT of one who waits."""
    return 1 if _find(machine, waiter.args[1]) is None else WAITING


def count(machine: Machine, args: list[bytes]) -> Reply:
    """LATCH.COUNT key"""
    latch = _find(machine, args[1])
    return 0 if latch is None else latch.count


def info(machine: Machine, args: list[bytes]) -> Reply:
    """LATCH.INFO key"""
    latch = _find(machine, args[1])
    return {
        b"count": 0 if latch is None else latch.count,
        b"waiters": len(machine.waiters.at(args[1], Latch.kind)),
    }
