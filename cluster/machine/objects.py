"""What a value is like inside: OBJECT and MEMORY USAGE."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cluster.machine.arguments import Options, integer, is_integer
from cluster.machine.keyspace import Held
from cluster.machine.reply import CommandError, Reply, syntax_error

if TYPE_CHECKING:
    from cluster.machine.machine import Machine

EMBEDDED_BYTES_MAX = 44
"""How long a string Redis stores inside its object's header."""

_SLOT_BYTES = 150  # of the key's places in the dictionaries of values and of its bucket, at their usual load
_DEADLINE_BYTES = 350  # the deadline's own number and place, and the alarm with its place


def encoding(machine: Machine, args: list[bytes]) -> Reply:
    """OBJECT ENCODING key; a string's is what Redis gives it after SET, however it came about here"""
    value = machine.keyspace.values.get(args[2])
    if not isinstance(value, bytes):
        return None if value is None else value.encoding
    if is_integer(value):
        return b"int"
    return b"embstr" if len(value) <= EMBEDDED_BYTES_MAX else b"raw"


def refcount(machine: Machine, args: list[bytes]) -> Reply:
    """OBJECT REFCOUNT key: 1, for no two keys share a value"""
    return 1 if args[2] in machine.keyspace.values else None


def freq(machine: Machine, args: list[bytes]) -> Reply:
    """OBJECT FREQ key: an error, as in Redis while nothing is evicted by frequency of use"""
    if args[2] not in machine.keyspace.values:
        return None
    raise CommandError(
        "An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching "
        "between policies at runtime LRU and LFU data will take some time to adjust."
    )


def idletime(machine: Machine, args: list[bytes]) -> Reply:
    """OBJECT IDLETIME key: an error, for reads leave no trace and writes are not dated"""
    if args[2] not in machine.keyspace.values:
        return None
    raise CommandError("No maxmemory policy evicts by idle time, idle time not tracked.")


def memory_usage(machine: Machine, args: list[bytes]) -> Reply:
    """MEMORY USAGE key [SAMPLES count]: about how many bytes the key takes; ``count`` makes no difference"""
    options = Options(args, 3)
    for word in options:
        if word != b"SAMPLES" or integer(options.value()) < 0:
            raise syntax_error()
    key = args[2]
    value = machine.keyspace.values.get(key)
    if value is None:
        return None
    deadline_bytes = _DEADLINE_BYTES if key in machine.keyspace.deadlines else 0
    return sys.getsizeof(key) + _size_bytes(value) + _SLOT_BYTES + deadline_bytes


def _size_bytes(value: Held) -> int:
    return sys.getsizeof(value) if isinstance(value, bytes) else value.size_bytes()
