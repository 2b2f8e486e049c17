"""Queues that are spread over shards: every one of those has a part, a queue of the same name.

The part in the shard of the queue's own key is the *first*; it is made by
Q.CREATE, and its settings are the queue's. The system group makes the queue's
*shape* known to every node: how many parts, and the settings, with a version
that grows. Nodes send their clients' commands to the parts, each with the
shape it goes by; so a part comes to be with its first message and takes on
new settings with the next command.

What is not sent to a part comes from a node that has not heard of it yet, and
is told to try again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cluster.machine import queue_lives, queues
from cluster.machine.letters import post
from cluster.machine.queue import PARTS_MAX, Partition, Queue, Settings
from cluster.machine.reply import CommandError, Reply

if TYPE_CHECKING:
    from cluster.machine.machine import Machine

CALL = b"_Q.PART"
SHAPED = b"_SYSTEM.QUEUE"
UNTAKE = b"_Q.UNTAKE"

READS = frozenset({b"Q.LEN", b"Q.INFO", b"Q.PEEK", b"Q.DEAD"})
MAKES = frozenset({b"Q.PUSH", b"Q.MPUSH"})
CONSUMERS = b"consumer-names"


class Shape(msgspec.Struct, array_like=True, frozen=True):
    """What a node has to know of such a queue."""

    version: int
    count: int
    settings: Settings


_encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Shape).decode
_decode_part = msgspec.msgpack.Decoder(tuple[int, Shape]).decode


def part_call(index: int, shape: Shape, args: list[bytes]) -> list[bytes]:
    """A Q. command as it goes to one part of its queue."""
    return [CALL, args[1], _encode((index, shape)), args[0].upper(), *args[2:]]


def part_of(receipt: bytes) -> int | None:
    """The part a receipt was given by; None for one that nobody gave."""
    digits = receipt.partition(b"-")[0]
    return int(digits) % PARTS_MAX if digits.isdigit() and len(digits) < 20 else None


def call(machine: Machine, args: list[bytes]) -> Reply:
    """Carries out a command made by `part_call`."""
    key, name, inner = args[1], args[3], [args[3], args[1], *args[4:]]
    index, shape = _decode_part(args[2])
    if name not in READS:
        _adopt(machine, key, Partition(index, shape.count, shape.version), shape.settings, makes=name in MAKES)
    machine.in_part = True
    try:
        if name == UNTAKE:
            return _untake(machine, inner)
        reply = machine.handler(name)(machine, inner)
    finally:
        machine.in_part = False
    if name == b"Q.INFO" and isinstance(reply, dict):
        queue = machine.keyspace.values[key]
        assert isinstance(queue, Queue)
        reply[CONSUMERS] = list(queue.consumers)
    return reply


def _adopt(machine: Machine, key: bytes, part: Partition, settings: Settings, *, makes: bool) -> None:
    """Makes the part, or changes its settings, where the shape is newer than what it knows."""
    queue = machine.keyspace.values.get(key)
    if queue is None and makes:
        if not machine.holds(key):
            machine.foreign[key] = None
        machine.keyspace.put(key, Queue(settings, partition=part))
    elif isinstance(queue, Queue):
        if queue.partition is None:
            raise CommandError("a queue of one part is in the place of this one's first: delete it")
        if queue.partition.version < part.version:
            machine.keyspace.touch(key)
            queue.settings, queue.partition = settings, part


def first_part(machine: Machine, settings: Settings) -> Partition | None:
    """The first part of a queue with these settings; None for one that is not spread."""
    count = min(settings.partitions, machine.shards)
    return Partition(0, count, machine.next_id()) if count > 1 else None


def publish(machine: Machine, key: bytes, queue: Queue) -> None:
    """Lets every node know of the shape of a queue of which this is the first part, if it is."""
    part = queue.partition
    if part is not None:
        shape = Shape(part.version, part.count, queue.settings)
        post(machine, [SHAPED, key, _encode(shape)], [])


def _untake(machine: Machine, args: list[bytes]) -> Reply:
    """Messages that nobody got to see go back to their places, as if they had never been taken."""
    queue = queues.find(machine, args[1])
    count = 0
    for receipt in args[2:]:
        message = queue.delivery(receipt) if queue is not None else None
        if queue is not None and message is not None:
            queue_lives.untake(machine, args[1], queue, message)
            count += 1
    return count
