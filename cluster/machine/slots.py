"""Redis Cluster's 16384 slots: which of them a key falls into, and what is in one."""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from cluster.machine.arguments import integer
from cluster.machine.reply import CommandError, Reply
from cluster.machine.scanning import living

if TYPE_CHECKING:
    from cluster.machine.machine import Machine

SLOTS = 16384


def slot_of(key: bytes) -> int:
    """The slot of ``key``; of ``a{tag}b`` only the first ``tag`` counts, unless it is empty."""
    _, brace, rest = key.partition(b"{")
    tag, closed, _ = rest.partition(b"}")
    return crc_hqx(tag if brace and closed and tag else key, 0) % SLOTS


def count_keys(machine: Machine, args: list[bytes]) -> Reply:
    """CLUSTER COUNTKEYSINSLOT slot"""
    slot = integer(args[2])
    if not 0 <= slot < SLOTS:
        raise CommandError("Invalid slot")
    return sum(1 for _ in _keys_in(machine, slot))


def keys(machine: Machine, args: list[bytes]) -> Reply:
    """CLUSTER GETKEYSINSLOT slot count"""
    slot, count = integer(args[2]), integer(args[3])
    if not 0 <= slot < SLOTS or count < 0:
        raise CommandError("Invalid slot or number of keys")
    return list(islice(_keys_in(machine, slot), count))


def _keys_in(machine: Machine, slot: int) -> Iterator[bytes]:
    return (key for key in living(machine, machine.keyspace.values) if slot_of(key) == slot)
