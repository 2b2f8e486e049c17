"""The Q. commands: at-least-once queues as values of the keyspace.

The rules of a queue are in `cluster.machine.queue`, what one message goes
through in `cluster.machine.queue_lives`.

A queue is made by Q.CREATE or its first push and stays, empty too, until it is
deleted: it has settings, counters and remembered ids to keep. When it is
deleted or expires, its messages and receipts end with it, and those who wait
for it go on waiting for the next queue of that name, as Redis's BLPOP does;
they also wait while the key holds another type.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from cluster.machine import queue_lives, queue_parts
from cluster.machine.arguments import bounded
from cluster.machine.glob import matcher
from cluster.machine.message import DEAD, DELAYED, IN_FLIGHT, READY, Message
from cluster.machine.queue import SIGHTING, Origin, Queue, Settings, Sighting
from cluster.machine.queue_lives import RINGS, placed, restore, restore_part
from cluster.machine.queue_options import (
    MS_MAX,
    PLAIN_POP,
    PLAIN_PUSH,
    NackOptions,
    Words,
    describe,
    read_dead,
    read_nack,
    read_peek,
    read_pop,
    read_push,
    read_redrive,
    read_settings,
)
from cluster.machine.reply import NULL_ARRAY, OK, WAITING, CommandError, Reply, syntax_error, wrong_type

if TYPE_CHECKING:
    from cluster.machine.machine import Machine
    from cluster.machine.waiters import Waiter

__all__ = ["RINGS", "Queue", "forget", "placed", "restore", "restore_part"]

REFUSED = b"refused"
REFUSED_FOR_GOOD = b"refused for good"


# Settings


def create(machine: Machine, args: list[bytes]) -> Reply:
    """Q.CREATE queue [PARTITIONS n] [VISIBILITY ms] … as `Settings`"""
    key = args[1]
    settings = read_settings(args, key, Settings())
    known = machine.keyspace.values.get(key)
    if isinstance(known, Queue):
        raise CommandError("Target queue already exists.", "BUSYKEY")
    if known is not None:
        raise wrong_type()
    queue = Queue(settings, partition=queue_parts.first_part(machine, settings))
    machine.keyspace.put(key, queue)
    queue_lives.note_dlq(machine, settings)
    queue_parts.publish(machine, key, queue)
    return OK


def config(machine: Machine, args: list[bytes]) -> Reply:
    """Q.CONFIG queue [option value …]: new settings hold for what happens from now on."""
    key = args[1]
    queue = find(machine, key)
    if len(args) == 2:
        return NULL_ARRAY if queue is None else describe(queue.settings)
    if queue is None:
        raise CommandError("no such key")
    settings = read_settings(args, key, queue.settings)
    if settings.partitions != queue.settings.partitions:
        raise CommandError("PARTITIONS cannot be changed: make another queue")
    machine.keyspace.touch(key)
    queue.settings = settings
    queue_lives.note_dlq(machine, settings)
    if queue.partition is not None:
        queue.partition = msgspec.structs.replace(queue.partition, version=machine.next_id())
        queue_parts.publish(machine, key, queue)
    return OK


# Pushing


def push(machine: Machine, args: list[bytes]) -> Reply:
    """Q.PUSH queue payload [ID id] [DELAY ms] [PRIORITY 0-255] [GROUP g] [PX ms]"""
    options = read_push(args) if len(args) > 3 else PLAIN_PUSH
    key = args[1]
    queue = find(machine, key)
    if queue is not None and options.given_id is not None and queue.saw(options.given_id, machine.now_ms):
        return options.given_id
    queue = _with_room(machine, key, queue, 1)
    queue_lives.forget_faded(machine, key, queue)
    message = queue_lives.push(machine, key, queue, args[2], options)
    if options.given_id is not None and queue.settings.dedup_ms:
        machine.keyspace.touch(key, SIGHTING + message.number)
        queue.remember(message.number, Sighting(options.given_id, machine.now_ms))
    return message.id


def mpush(machine: Machine, args: list[bytes]) -> Reply:
    """Q.MPUSH queue payload [payload …]"""
    key = args[1]
    payloads = args[2:]
    queue = _with_room(machine, key, find(machine, key), len(payloads))
    return [queue_lives.push(machine, key, queue, payload, PLAIN_PUSH).id for payload in payloads]


def _with_room(machine: Machine, key: bytes, queue: Queue | None, count: int) -> Queue:
    """The queue, made if there is none; -QUEUEFULL if ``count`` more do not fit."""
    if queue is None:
        queue = Queue(Settings())
        machine.keyspace.put(key, queue)
    elif queue.maxlen and len(queue.living) + count > queue.maxlen:
        text = f"the queue holds {len(queue.living)} of MAXLEN {queue.maxlen} messages"
        raise CommandError(f"{text}: take some out or raise it with Q.CONFIG", "QUEUEFULL")
    return queue


# Taking


def pop(machine: Machine, args: list[bytes]) -> Reply:
    """Q.POP queue [COUNT n] [BLOCK ms] [VISIBILITY ms] [CONSUMER name]"""
    options = read_pop(args) if len(args) > 2 else PLAIN_POP
    key = args[1]
    queue = find(machine, key)
    if queue is not None and (taken := queue_lives.take(machine, key, queue, options)):
        return taken
    if options.block_ms is None:
        return NULL_ARRAY
    return machine.wait(Queue.kind, (key,), args, options.block_ms, null_array=True)


def retry_pop(machine: Machine, waiter: Waiter) -> Reply:
    """Q.POP of one who waits for a message."""
    key = waiter.args[1]
    queue = machine.keyspace.values.get(key)
    if not isinstance(queue, Queue):
        return WAITING
    return queue_lives.take(machine, key, queue, read_pop(waiter.args)) or WAITING


# Ending a delivery


def ack(machine: Machine, args: list[bytes]) -> Reply:
    """Q.ACK queue receipt [receipt …]"""
    key = args[1]
    queue = find(machine, key)
    if queue is None:
        return 0
    count = 0
    for receipt in args[2:]:
        message = queue.delivery(receipt)
        if message is not None:
            queue_lives.acknowledge(machine, key, queue, message)
            count += 1
    return count


def nack(machine: Machine, args: list[bytes]) -> Reply:
    """Q.NACK queue receipt [DELAY ms] [DEAD] [REASON text]"""
    key = args[1]
    options = read_nack(args)
    queue = find(machine, key)
    message = queue.delivery(args[2]) if queue is not None else None
    if queue is None or message is None:
        return 0
    if options.is_dead:
        queue_lives.give_up(machine, key, queue, message, _reason(options, REFUSED_FOR_GOOD))
    else:
        queue_lives.give_back(machine, key, queue, message, _reason(options, REFUSED), options.delay_ms)
    return 1


def _reason(options: NackOptions, usual: bytes) -> bytes:
    return usual if options.reason is None else options.reason


def extend(machine: Machine, args: list[bytes]) -> Reply:
    """Q.EXTEND queue receipt ms"""
    key = args[1]
    visibility_ms = bounded(args[3], 1, MS_MAX)
    queue = find(machine, key)
    message = queue.delivery(args[2]) if queue is not None else None
    if message is None:
        return 0
    queue_lives.extend(machine, key, message, visibility_ms)
    return 1


# Looking


def length(machine: Machine, args: list[bytes]) -> Reply:
    """Q.LEN queue: the ready ones, those behind a busy head of their group included."""
    queue = find(machine, args[1])
    return 0 if queue is None else queue.counts[READY]


def info(machine: Machine, args: list[bytes]) -> Reply:
    """Q.INFO queue

    ``dead`` counts those kept and those sent to the DLQ; ``oldest-ms`` is the
    age of the oldest message that is not dead, 0 for none; ``consumers`` are
    the different names (without CONSUMER: connections) that have a message in
    flight.
    """
    queue = find(machine, args[1])
    if queue is None:
        return NULL_ARRAY
    counts, counters, oldest_ms = queue.counts, queue.counters, queue.oldest_ms()
    return {
        b"ready": counts[READY],
        b"delayed": counts[DELAYED],
        b"in-flight": counts[IN_FLIGHT],
        b"dead": counts[DEAD] + counters.sent,
        b"pushed": counters.pushed,
        b"acked": counters.acked,
        b"redelivered": counters.redelivered,
        b"expired": counters.expired,
        b"oldest-ms": 0 if oldest_ms is None else machine.now_ms - oldest_ms,
        b"consumers": len(queue.consumers),
        b"partitions": queue.settings.partitions,
        b"nodes": machine.nodes,
        **describe(queue.settings),
    }


def peek(machine: Machine, args: list[bytes]) -> Reply:
    """Q.PEEK queue [COUNT n] [DEAD]: without COUNT, up to `PEEK_COUNT`."""
    count, is_dead = read_peek(args)
    queue = find(machine, args[1])
    if queue is None:
        return NULL_ARRAY
    messages = queue.buried() if is_dead else queue.waiting()
    return [[None, message.payload, message.deliveries, message.id] for message in islice(messages, count)]


def dead(machine: Machine, args: list[bytes]) -> Reply:
    """Q.DEAD queue [COUNT n]: without COUNT, up to `PEEK_COUNT`. Times are of the log they died in."""
    key, count = args[1], read_dead(args)
    queue = find(machine, key)
    if queue is None:
        return NULL_ARRAY
    return [_death(key, queue, message) for message in islice(queue.deaths(), count)]


def _death(key: bytes, queue: Queue, message: Message) -> Reply:
    origin = queue.origins.get(message.number)
    if origin is None:
        origin = Origin(key, message.deliveries, message.pushed_ms, message.at_ms, message.note or b"")
    return {
        b"id": message.id,
        b"payload": message.payload,
        b"queue": origin.queue,
        b"deliveries": origin.deliveries,
        b"pushed-ms": origin.pushed_ms,
        b"died-ms": origin.died_ms,
        b"reason": origin.reason,
    }


def list_(machine: Machine, args: list[bytes]) -> Reply:
    """Q.LIST [MATCH pattern]: names in the order of their bytes."""
    matches = None
    options = Words(args, 1)
    for word in options:
        if word != b"MATCH":
            raise syntax_error()
        matches = matcher(options.value())
    queues = sorted(key for key, value in machine.keyspace.values.items() if isinstance(value, Queue))
    return [key for key in queues if matches is None or matches(key)]


# Dead letters and clearing


def redrive(machine: Machine, args: list[bytes]) -> Reply:
    """Q.REDRIVE queue [COUNT n]: lowest number first, and no more than MAXLEN has room for.

    Each goes to the end of the queue as a new message, with its id, priority,
    group and age limit, and no deliveries yet.
    """
    count = read_redrive(args)
    key = args[1]
    queue = find(machine, key)
    if queue is None:
        return 0
    if queue.maxlen:
        count = min(count, queue.maxlen - len(queue.living))
    driven = 0
    while driven < count and (dead := queue.oldest_dead()) is not None:
        queue_lives.redrive(machine, key, queue, dead)
        driven += 1
    return driven


def purge(machine: Machine, args: list[bytes]) -> Reply:
    """Q.PURGE queue [DEAD]: settings, counters and remembered ids stay."""
    key = args[1]
    if len(args) > 2 and (len(args) > 3 or args[2].upper() != b"DEAD"):
        raise syntax_error()
    queue = find(machine, key)
    if queue is None:
        return 0
    dropped = len(queue.dead)
    if len(args) > 2:
        while (dead := queue.oldest_dead()) is not None:
            machine.keyspace.touch(key, dead.number)
            queue.purge(dead)
        return dropped
    queue_lives.empty(machine, key, queue)
    return dropped + len(queue.living)


def forget(machine: Machine, key: bytes, queue: Queue) -> None:
    """The queue is not at ``key`` any more."""
    queue_lives.forget(machine, key, queue)
    queue_parts.left(machine, key, queue)


def find(machine: Machine, key: bytes) -> Queue | None:
    """The queue at ``key``, or None; ``-WRONGTYPE`` for another type.

    ``-TRYAGAIN`` for one that has more parts than this one, of which whoever asks does not know.
    """
    value = machine.keyspace.values.get(key)
    if value is None:
        return None
    if type(value) is not Queue:
        raise wrong_type()
    if value.partition is not None and not machine.in_part:
        raise CommandError("the queue's partitions are not known here yet: ask again in a moment", "TRYAGAIN")
    return value
