"""Queues that are spread over shards: every one of those has a part, a queue of the same name.

The part in the shard of the queue's own key is the *first*; it is made by
Q.CREATE, and its settings are the queue's. The system group makes the queue's
*shape* known to every node: how many parts, and the settings, with a version
that grows. Nodes send their clients' commands to the parts, each with the
shape it goes by; so a part comes to be with its first message and takes on
new settings with the next command.

What is not sent to a part comes from a node that has not heard of it yet, and
is told to try again.

When the first part goes, by whatever command or because its time is over, the
queue is gone: a letter takes the others with it, part by part, and the shape
last, so that a node that has no shape any more finds no part either. Where a
part was, or could have been, its shard remembers as of which version it is
gone: what is sent by an older shape is told to try again, and makes no part
that nobody would look into.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cluster.machine import queue_lives, queues
from cluster.machine.letters import post
from cluster.machine.queue import PARTS_MAX, Partition, Queue, Settings
from cluster.machine.reply import NULL_ARRAY, OK, CommandError, Reply

if TYPE_CHECKING:
    from cluster.machine.keyspace import Held
    from cluster.machine.machine import Machine

CALL = b"_Q.PART"
SHAPED = b"_SYSTEM.QUEUE"
UNTAKE = b"_Q.UNTAKE"
DROP = b"_Q.DROP"

REMEMBERED_MS = 24 * 3_600_000
"""How long it is remembered that a queue is gone: longer than a node is without news while it can ask other nodes."""

READS = frozenset({b"Q.LEN", b"Q.INFO", b"Q.PEEK", b"Q.DEAD"})
MAKES = frozenset({b"Q.PUSH", b"Q.MPUSH"})
CONSUMERS = b"consumer-names"


class Shape(msgspec.Struct, array_like=True, frozen=True):
    """What a node has to know of such a queue. One that has no parts is gone, since ``gone_ms``."""

    version: int
    count: int
    settings: Settings
    born: int = 0
    gone_ms: int = 0


class Dropped(msgspec.Struct, array_like=True, frozen=True):
    """That all of a queue up to ``version`` is gone from a shard, and since when."""

    version: int
    at_ms: int


_encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Shape).decode
_decode_part = msgspec.msgpack.Decoder(tuple[int, Shape]).decode
_decode_drop = msgspec.msgpack.Decoder(tuple[int, int, int]).decode


def part_call(index: int, shape: Shape, args: list[bytes]) -> list[bytes]:
    """A Q. command as it goes to one part of its queue."""
    return [CALL, args[1], _encode((index, shape)), args[0].upper(), *args[2:]]


def dlq_in(args: list[bytes]) -> bytes | None:
    """Where the dead letters go of the queue that a command made by `part_call` is for."""
    return _decode_part(args[2])[1].settings.dlq


def part_of(receipt: bytes) -> int | None:
    """The part a receipt was given by; None for one that nobody gave."""
    digits = receipt.partition(b"-")[0]
    return int(digits) % PARTS_MAX if digits.isdigit() and len(digits) < 20 else None


def shard_of(part: int, count: int, home: int, shards: int) -> int:
    """Where a part is: evenly spaced from the shard of the queue's key on."""
    return (home + part * shards // count) % shards


def call(machine: Machine, args: list[bytes]) -> Reply:
    """Carries out a command made by `part_call`."""
    key, name, inner = args[1], args[3], [args[3], args[1], *args[4:]]
    index, shape = _decode_part(args[2])
    hidden = []
    if name not in READS:
        part = Partition(index, shape.count, shape.version, shape.born)
        _adopt(machine, key, part, shape.settings, makes=name in MAKES)
    elif _is_older(machine.keyspace.values.get(key), shape.born):
        hidden = machine.keyspace.hide([key])
    machine.in_part = True
    try:
        if name == UNTAKE:
            return untake(machine, inner)
        reply = machine.handler(name)(machine, inner)
    finally:
        machine.in_part = False
        machine.keyspace.show(hidden)
    if name == b"Q.INFO" and isinstance(reply, dict):
        queue = machine.keyspace.values[key]
        assert isinstance(queue, Queue)
        reply[CONSUMERS] = list(queue.consumers)
    return reply


def _adopt(machine: Machine, key: bytes, part: Partition, settings: Settings, *, makes: bool) -> None:
    """Makes the part, or changes its settings, where the shape is newer than what it knows."""
    if _is_older(machine.keyspace.values.get(key), part.born):
        machine.keyspace.remove(key)
        machine.settle()
    queue = machine.keyspace.values.get(key)
    dropped = machine.dropped.get(key)
    if dropped is not None and part.version < dropped.version and not isinstance(queue, Queue):
        raise CommandError("the queue was deleted, which is not known here yet: ask again in a moment", "TRYAGAIN")
    if queue is None and makes:
        if not machine.holds(key):
            machine.foreign[key] = None
        machine.keyspace.put(key, Queue(settings, partition=part))
        queue_lives.note_dlq(machine, settings)
    elif isinstance(queue, Queue):
        if queue.partition is None:
            raise CommandError("a queue of one part is in the place of this one's first: delete it")
        if queue.partition.version < part.version:
            machine.keyspace.touch(key)
            queue.settings, queue.partition = settings, part
            queue_lives.note_dlq(machine, settings)


def first_part(machine: Machine, settings: Settings) -> Partition | None:
    """The first part of a queue with these settings; None for one that is not spread."""
    count = min(settings.partitions, machine.shards)
    if count < 2:
        return None
    version = machine.next_id()
    return Partition(0, count, version, version)


def publish(machine: Machine, key: bytes, queue: Queue) -> None:
    """Lets every node know of the shape of a queue of which this is the first part, if it is."""
    part = queue.partition
    if part is not None:
        post(machine, published(key, Shape(part.version, part.count, queue.settings, part.born)), [])


def published(key: bytes, shape: Shape) -> list[bytes]:
    """The command by which the system group knows of a shape; a second time it changes nothing."""
    return [SHAPED, key, _encode(shape)]


# Its end


def _is_older(value: Held | None, born: int) -> bool:
    """Whether this is a part of a queue that was deleted before the one of now was made."""
    return isinstance(value, Queue) and value.partition is not None and value.partition.version < born


def left(machine: Machine, key: bytes, queue: Queue) -> None:
    """A queue that was at ``key`` is not there any more: if it was the first part of one, the others go after it."""
    part, value = queue.partition, machine.keyspace.values.get(key)
    born = value.partition.born if isinstance(value, Queue) and value.partition is not None else None
    if part is None or part.index or part.born == born:  # it was emptied
        return
    version = machine.next_id()
    _note_dropped(machine, key, version)
    _go_on(machine, key, 1, part.count, version)


def drop(machine: Machine, args: list[bytes]) -> Reply:
    """Takes away one part, whatever of that version or an older one is there, and sees to it that the next follows."""
    key, (index, count, version) = args[1], _decode_drop(args[2])
    queue = machine.keyspace.values.get(key)
    known = queue.partition if isinstance(queue, Queue) else None
    if known is None or known.version < version:
        if known is not None:
            machine.keyspace.remove(key)
        _note_dropped(machine, key, version)
    _go_on(machine, key, index + 1, count, version)
    return OK


def _go_on(machine: Machine, key: bytes, index: int, count: int, version: int) -> None:
    if index < count:
        post(machine, [DROP, key, _encode((index, count, version))], [])
    else:
        post(machine, [SHAPED, key, _encode(Shape(version, 0, Settings()))], [])


def dropped_part(args: list[bytes]) -> tuple[int, int]:
    """Which part a letter of `drop` is for, of how many."""
    index, count, _ = _decode_drop(args[2])
    return index, count


def _note_dropped(machine: Machine, key: bytes, version: int) -> None:
    """Remembers it, and lets those who wait there ask again, of whatever will be there then."""
    dropped = machine.dropped
    known = dropped.pop(key, None)
    dropped[key] = Dropped(max(version, 0 if known is None else known.version), machine.now_ms)
    while (oldest := next(iter(dropped))) != key and dropped[oldest].at_ms + REMEMBERED_MS < machine.now_ms:
        del dropped[oldest]
    while (waiter := machine.waiters.first(key, Queue.kind)) is not None:
        machine.end_wait(waiter)
        machine.woken.append((waiter.origin, waiter.number, NULL_ARRAY))


def untake(machine: Machine, args: list[bytes]) -> Reply:
    """Messages that nobody got to see go back to their places, as if they had never been taken."""
    queue = queues.find(machine, args[1])
    count = 0
    for receipt in args[2:]:
        message = queue.delivery(receipt) if queue is not None else None
        if queue is not None and message is not None:
            queue_lives.untake(machine, args[1], queue, message)
            count += 1
    return count
