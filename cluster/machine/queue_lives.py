"""A message's way through a queue, with all that goes with it.

Each step announces the change to the keyspace, takes it on the `Queue`, keeps
the message's alarms and wakes those who wait for a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cluster.machine.clockwork import Alarm
from cluster.machine.letters import post
from cluster.machine.line import Number
from cluster.machine.message import DEAD, DELAYED, IN_FLIGHT, READY, Message
from cluster.machine.queue import ORIGIN, PARTS_MAX, SIGHTING, Header, Origin, Queue, Settings
from cluster.machine.queue_options import PopOptions, PushOptions
from cluster.machine.reply import OK, Reply, wrong_type

if TYPE_CHECKING:
    from cluster.machine.machine import Machine

DUE = 3  # the alarm of a delay's or a visibility's end
AGE = 4  # the alarm of a message's age limit

FORGET_MAX = 16  # remembered ids let go by one push: more than one, so that they become fewer
TIMED_OUT = b"timed out"


def push(machine: Machine, key: bytes, queue: Queue, payload: bytes, options: PushOptions) -> Message:
    """A new message; whether it is a duplicate or there is room is the caller's to know."""
    machine.keyspace.touch(key)
    queue.counters.pushed += 1
    now_ms = machine.now_ms
    delay_ms = options.delay_ms
    message = Message(
        number=_next_number(machine, queue),
        payload=payload,
        pushed_ms=now_ms,
        state=DELAYED if delay_ms else READY,
        at_ms=now_ms + delay_ms if delay_ms else 0,
        expires_ms=_age_limit(now_ms, options.px_ms or queue.settings.px_ms),
        priority=options.priority,
        group=options.group,
        given_id=options.given_id,
    )
    _add(machine, key, queue, message)
    return message


def _next_number(machine: Machine, queue: Queue) -> Number:
    """A number that grows; that of a part tells which part it is (`part_of`)."""
    number = machine.next_id()
    if queue.partition is not None:
        number = number * PARTS_MAX + queue.partition.index
    return number.to_bytes(8, "big")


def _age_limit(now_ms: int, px_ms: int) -> int | None:
    return now_ms + px_ms if px_ms else None


def _add(machine: Machine, key: bytes, queue: Queue, message: Message) -> None:
    """A new message joins the queue."""
    machine.keyspace.touch(key, message.number)
    queue.add(message)
    _arm(machine, key, message)
    _wake_consumers(machine, key)


def forget_faded(machine: Machine, key: bytes, queue: Queue) -> None:
    """Lets go of a few ids whose window is over."""
    for _ in range(FORGET_MAX):
        number = queue.faded(machine.now_ms)
        if number is None:
            return
        machine.keyspace.touch(key, SIGHTING + number)
        queue.forget(number)


def take(machine: Machine, key: bytes, queue: Queue, options: PopOptions) -> list[Reply]:
    """Up to ``most`` messages as Q.POP answers them; empty when none is ready."""
    now_ms, touch = machine.now_ms, machine.keyspace.touch
    until_ms = now_ms + (options.visibility_ms or queue.settings.visibility_ms)
    consumer = machine.origin if options.consumer is None else options.consumer
    taken: list[Reply] = []
    while len(taken) < options.most and (message := queue.next()) is not None:
        if _is_past_age(machine, message):
            _expire(machine, key, queue, message)
            continue
        if message.deliveries:
            touch(key)
        touch(key, message.number)
        queue.take(message, consumer, until_ms)
        machine.clockwork.set_one_of_many(until_ms, DUE, key, message.number)
        taken.append([message.receipt, message.payload, message.deliveries, message.id])
    return taken


def acknowledge(machine: Machine, key: bytes, queue: Queue, message: Message) -> None:
    """A delivery succeeded."""
    _touch_both(machine, key, message)
    _touch_origin(machine, key, queue, message)
    _disarm(machine, key, message)
    queue.acknowledge(message)
    _wake_group(machine, key, message)


def untake(machine: Machine, key: bytes, queue: Queue, message: Message) -> None:
    """A delivery that reached nobody is none: the message is ready in its old place."""
    _touch_both(machine, key, message)
    machine.clockwork.cancel_one_of_many(message.at_ms, DUE, key, message.number)
    queue.untake(message)
    if _is_past_age(machine, message):
        _expire(machine, key, queue, message)
    else:
        _wake_consumers(machine, key)


def extend(machine: Machine, key: bytes, message: Message, visibility_ms: int) -> None:
    """A message in flight stays so for ``visibility_ms`` from now."""
    machine.keyspace.touch(key, message.number)
    machine.clockwork.cancel_one_of_many(message.at_ms, DUE, key, message.number)
    message.at_ms = machine.now_ms + visibility_ms
    machine.clockwork.set_one_of_many(message.at_ms, DUE, key, message.number)


def redrive(machine: Machine, key: bytes, queue: Queue, dead: Message) -> None:
    """The oldest dead letter goes to the end of its queue as a new message with the same id."""
    machine.keyspace.touch(key, dead.number)
    queue.redrive(dead)
    age_ms = 0 if dead.expires_ms is None else dead.expires_ms - dead.pushed_ms
    message = Message(
        number=_next_number(machine, queue),
        payload=dead.payload,
        pushed_ms=machine.now_ms,
        state=READY,
        expires_ms=_age_limit(machine.now_ms, age_ms),
        priority=dead.priority,
        group=dead.group,
        given_id=dead.id,
    )
    _add(machine, key, queue, message)


def empty(machine: Machine, key: bytes, queue: Queue) -> None:
    """Drops every message at once: a queue without them takes this one's place."""
    for message in queue.living.values():
        _disarm(machine, key, message)
    machine.keyspace.put(key, queue.emptied())


def give_back(
    machine: Machine, key: bytes, queue: Queue, message: Message, reason: bytes, delay_ms: int | None = None
) -> None:
    """A delivery failed: the message rests ``delay_ms``, by default as its back-off says, or dies."""
    if message.deliveries >= queue.settings.maxdeliveries:
        give_up(machine, key, queue, message, reason)
        return
    if delay_ms is None:
        delay_ms = queue.settings.pause_ms(message.deliveries)
    _touch_both(machine, key, message)
    machine.clockwork.cancel_one_of_many(message.at_ms, DUE, key, message.number)
    queue.put_back(message, machine.now_ms + delay_ms)
    if delay_ms and not _is_past_age(machine, message):
        machine.clockwork.set_one_of_many(message.at_ms, DUE, key, message.number)
    else:
        _wake(machine, key, queue, message)


def give_up(machine: Machine, key: bytes, queue: Queue, message: Message, reason: bytes) -> None:
    """The message is a dead letter: of this queue, or of its DLQ where that is a queue or can become one."""
    _touch_both(machine, key, message)
    _touch_origin(machine, key, queue, message)
    _disarm(machine, key, message)
    dlq = queue.settings.dlq
    origin = Origin(key, message.deliveries, message.pushed_ms, machine.now_ms, reason)
    if dlq is None or dlq == key:
        queue.bury(message, machine.now_ms, reason)
    elif not machine.holds(dlq):
        body = msgspec.msgpack.encode(message)
        queue.send_away(message)
        post(machine, [ARRIVE, dlq, body, msgspec.msgpack.encode(origin)], [COME_BACK, key, body, reason])
    elif (target := _found(machine, dlq)) is None:
        queue.bury(message, machine.now_ms, reason)
    else:
        queue.send_away(message)
        _take_in(machine, dlq, target, message, origin)
    _wake_group(machine, key, message)


def note_dlq(machine: Machine, settings: Settings) -> None:
    """A queue has these settings: where its dead letters go a queue may come to be without being named."""
    if settings.dlq is not None:
        machine.dlqs[settings.dlq] = None


def _found(machine: Machine, key: bytes) -> Queue | None:
    """The queue at ``key``, made if there is nothing; None where there is something else."""
    value = machine.keyspace.values.get(key)
    if value is None:
        value = Queue(Settings())
        machine.keyspace.put(key, value)
    return value if isinstance(value, Queue) else None


def _take_in(machine: Machine, key: bytes, queue: Queue, dead: Message, origin: Origin) -> None:
    """A dead letter of another queue becomes a message of this one, with its id, and what is known of its death."""
    options = PushOptions(given_id=dead.id, priority=dead.priority, group=dead.group)
    message = push(machine, key, queue, dead.payload, options)
    machine.keyspace.touch(key, ORIGIN + message.number)
    queue.origins[message.number] = origin


# Dead letters for a queue in another shard

ARRIVE = b"_Q.ARRIVE"
COME_BACK = b"_Q.COMEBACK"

_decode_message = msgspec.msgpack.Decoder(Message).decode
_decode_origin = msgspec.msgpack.Decoder(Origin).decode


def arrive(machine: Machine, args: list[bytes]) -> Reply:
    """A dead letter comes from another shard; ``-WRONGTYPE`` where there is no room for a queue."""
    queue = _found(machine, args[1])
    if queue is None:
        raise wrong_type()
    _take_in(machine, args[1], queue, _decode_message(args[2]), _decode_origin(args[3]))
    return OK


def come_back(machine: Machine, args: list[bytes]) -> Reply:
    """It was not taken there: it stays with its queue, if that is still there."""
    queue = machine.keyspace.values.get(args[1])
    if not isinstance(queue, Queue):
        return 0
    sent = _decode_message(args[2])
    number = _next_number(machine, queue)
    machine.keyspace.touch(args[1])
    machine.keyspace.touch(args[1], number)
    queue.counters.sent -= 1
    at_ms, reason = machine.now_ms, args[3]
    queue.add(msgspec.structs.replace(sent, number=number, given_id=sent.id, state=DEAD, at_ms=at_ms, note=reason))
    return 1


def _wake(machine: Machine, key: bytes, queue: Queue, message: Message) -> None:
    """A delay is over; whoever calls it has touched the message."""
    if _is_past_age(machine, message):
        _expire(machine, key, queue, message)
    else:
        queue.wake(message)
        _wake_consumers(machine, key)


def _expire(machine: Machine, key: bytes, queue: Queue, message: Message) -> None:
    _touch_both(machine, key, message)
    _touch_origin(machine, key, queue, message)
    _disarm(machine, key, message)
    queue.expire(message)
    _wake_group(machine, key, message)


def _is_past_age(machine: Machine, message: Message) -> bool:
    return message.expires_ms is not None and message.expires_ms <= machine.now_ms


def _touch_both(machine: Machine, key: bytes, message: Message) -> None:
    """The message and the queue's counters are about to change."""
    machine.keyspace.touch(key)
    machine.keyspace.touch(key, message.number)


def _touch_origin(machine: Machine, key: bytes, queue: Queue, message: Message) -> None:
    """The message is about to leave the living, and where it came from is forgotten with it."""
    if message.number in queue.origins:
        machine.keyspace.touch(key, ORIGIN + message.number)


def _wake_group(machine: Machine, key: bytes, message: Message) -> None:
    """``message`` left, and the next of its group may be ready to go."""
    if message.group is not None:
        _wake_consumers(machine, key)


def _wake_consumers(machine: Machine, key: bytes) -> None:
    if machine.waiters.first(key, Queue.kind) is not None:
        machine.signal(key)


def _arm(machine: Machine, key: bytes, message: Message) -> None:
    """Sets the alarms of a living message."""
    if message.at_ms:
        machine.clockwork.set_one_of_many(message.at_ms, DUE, key, message.number)
    if message.expires_ms is not None:
        machine.clockwork.set_one_of_many(message.expires_ms, AGE, key, message.number)


def _disarm(machine: Machine, key: bytes, message: Message) -> None:
    """Cancels the alarms of a living message."""
    if message.at_ms:
        machine.clockwork.cancel_one_of_many(message.at_ms, DUE, key, message.number)
    if message.expires_ms is not None:
        machine.clockwork.cancel_one_of_many(message.expires_ms, AGE, key, message.number)


def _due(machine: Machine, alarm: Alarm, due_ms: int) -> None:
    key = alarm.key
    queue = machine.keyspace.values.get(key)
    message = queue.living.get(alarm.detail) if isinstance(queue, Queue) else None
    if not isinstance(queue, Queue) or message is None or message.at_ms != due_ms:
        return
    if message.state is IN_FLIGHT:
        give_back(machine, key, queue, message, TIMED_OUT)
    else:
        machine.keyspace.touch(key, message.number)
        _wake(machine, key, queue, message)


def _aged(machine: Machine, alarm: Alarm, due_ms: int) -> None:
    key = alarm.key
    queue = machine.keyspace.values.get(key)
    message = queue.living.get(alarm.detail) if isinstance(queue, Queue) else None
    if not isinstance(queue, Queue) or message is None or message.expires_ms != due_ms:
        return
    if message.state is not IN_FLIGHT:
        _expire(machine, key, queue, message)


RINGS = {DUE: _due, AGE: _aged}
"""What to do when an alarm of these kinds rings."""


def placed(machine: Machine, key: bytes) -> None:
    """A queue came to stand at ``key`` by RENAME or COPY: its alarms must too."""
    queue = machine.keyspace.values[key]
    assert isinstance(queue, Queue)
    for message in queue.living.values():
        _arm(machine, key, message)
    _wake_consumers(machine, key)


def forget(machine: Machine, key: bytes, queue: Queue) -> None:
    """The queue is no key any more: nothing is left for its messages' alarms to do."""
    if key not in machine.keyspace.values:  # not one that was only emptied
        machine.foreign.pop(key, None)
    for message in queue.living.values():
        _disarm(machine, key, message)


def restore(machine: Machine, key: bytes, body: bytes) -> Queue:
    """A queue from its header's row; its parts follow."""
    header = msgspec.msgpack.decode(body, type=Header)
    if not machine.holds(key):
        machine.foreign[key] = None
    note_dlq(machine, header.settings)
    return Queue(header.settings, header.counters, header.partition)


def restore_part(machine: Machine, key: bytes, part: bytes, body: bytes) -> None:
    """One part of the queue at ``key``, with its alarms. Parts come in the order of their names."""
    queue = machine.keyspace.values[key]
    assert isinstance(queue, Queue)
    message = queue.restore_part(part, body)
    if message is not None and message.state is not DEAD:
        _arm(machine, key, message)
