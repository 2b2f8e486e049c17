"""Planted bugs in the rules of queues: see mutations.py."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import msgspec

from cluster.machine import letters, queue_lives, queues
from cluster.machine.machine import Machine
from cluster.machine.message import Message, State
from cluster.machine.queue import Counters, Queue, Settings
from cluster.machine.reply import Reply
from cluster.machine.waiters import Waiter, Waiters
from resp_server import partitions
from tests.simulation import queue_scripts
from tests.simulation.deadlocks import ON_FOUR
from tests.simulation.mutation import CRASHES, Mutation, Patch

# A delivery


def stale_receipt_counts() -> Patch:
    """A receipt is good for any later delivery of its message, too."""

    def delivery(queue: Queue, receipt: bytes) -> Message | None:
        number = int(receipt.partition(b"-")[0]).to_bytes(8, "big")
        message = queue.living.get(number)
        return message if message is not None and message.state is State.IN_FLIGHT else None

    return patch.object(Queue, "delivery", delivery)


def deliveries_not_counted() -> Patch:
    """What comes back is handed out as if it were for the first time."""
    put_back = Queue.put_back

    def forgetful(queue: Queue, message: Message, until_ms: int) -> None:
        put_back(queue, message, until_ms)
        message.deliveries = 0

    return patch.object(Queue, "put_back", forgetful)


def back_off_is_the_same() -> Patch:
    """However often a message failed, it rests for the least time."""
    return patch.object(Settings, "pause_ms", lambda settings, deliveries: settings.backoff_ms[0])


def time_is_never_up() -> Patch:
    """The first delivery of a message has no end but an acknowledgement or a refusal."""
    give_back = queue_lives.give_back

    def keeps(machine: Machine, key: bytes, queue: Queue, message: Message, reason: bytes, *delay_ms: Any) -> None:
        if reason != queue_lives.TIMED_OUT or message.deliveries > 1:
            give_back(machine, key, queue, message, reason, *delay_ms)

    return patch.object(queue_lives, "give_back", keeps)


# Order


def next_of_a_busy_group() -> Patch:
    """The next of a group is handed out while its head is in flight."""
    take = Queue.take

    def lets_go(queue: Queue, message: Message, consumer: bytes, until_ms: int) -> None:
        take(queue, message, consumer, until_ms)
        if message.group is not None:
            for other in queue.living.values():
                if other.group == message.group and other.state is State.READY:
                    queue._enter(other)
                    return

    return patch.object(Queue, "take", lets_go)


def priority_is_ignored() -> Patch:
    """First in, first out, whatever the priority."""
    enter = Queue._enter

    def in_line(queue: Queue, message: Message) -> None:
        priority, message.priority = message.priority, 0
        enter(queue, message)
        message.priority = priority

    return patch.object(Queue, "_enter", in_line)


def next_of_a_group_wakes_nobody() -> Patch:
    """Who waits is not looked at when the head of a group leaves."""
    return patch.object(queue_lives, "_wake_group", lambda machine, key, message: None)


def nobody_is_woken_by_what_comes_back() -> Patch:
    """Who waits is not looked at when a delay is over."""

    def silently(machine: Machine, key: bytes, queue: Queue, message: Message) -> None:
        with patch.object(queue_lives, "_wake_consumers", lambda machine, key: None):
            wake(machine, key, queue, message)

    wake = queue_lives._wake
    return patch.object(queue_lives, "_wake", silently)


def last_come_first_served() -> Patch:
    """Of those who wait for a message the last gets it."""
    first = Waiters.first

    def last(waiters: Waiters, key: bytes, kind: bytes) -> Waiter | None:
        return waiters.last(key, kind) if kind == Queue.kind else first(waiters, key, kind)

    return patch.object(Waiters, "first", last)


# What is remembered


def ids_forgotten_in_checkpoints() -> Patch:
    """A replica that comes from a checkpoint has seen no id."""
    restore_part = Queue.restore_part

    def forgets(queue: Queue, part: bytes, body: bytes) -> Message | None:
        return None if part.startswith(b"=") else restore_part(queue, part, body)

    return patch.object(Queue, "restore_part", forgets)


def counts_forgotten_in_checkpoints() -> Patch:
    """A replica that comes from a checkpoint counts from nothing."""

    restore = queues.restore

    def restored(machine: Machine, key: bytes, body: bytes) -> Queue:
        queue = restore(machine, key, body)
        queue.counters = Counters()
        return queue

    return patch.object(queues, "restore", restored)


def alarms_lost_in_checkpoints() -> Patch:
    """In a replica that comes from a checkpoint nothing is ever due."""

    def silent(machine: Machine, key: bytes, part: bytes, body: bytes) -> None:
        queue = machine.keyspace.values[key]
        assert isinstance(queue, Queue)
        queue.restore_part(part, body)

    return patch.object(queues, "restore_part", silent)


def delay_measured_anew() -> Patch:
    """A replica that comes from a checkpoint has a message rest from then on."""
    restore_part = Queue.restore_part

    def anew(queue: Queue, part: bytes, body: bytes) -> Message | None:
        message = restore_part(queue, part, body)
        if message is not None and message.state is State.DELAYED:
            message.at_ms += 50
        return message

    return patch.object(Queue, "restore_part", anew)


def ids_never_fade() -> Patch:
    """An ID is taken for one that was seen, however long ago that was."""
    return patch.object(Queue, "saw", lambda queue, given, now_ms: given in queue._seen)


# The dead


def one_delivery_more() -> Patch:
    """A message dies one delivery too late."""
    give_back = queue_lives.give_back

    def again(machine: Machine, key: bytes, queue: Queue, message: Message, reason: bytes, *delay_ms: Any) -> None:
        settings = queue.settings
        queue.settings = msgspec.structs.replace(settings, maxdeliveries=settings.maxdeliveries + 1)
        give_back(machine, key, queue, message, reason, *delay_ms)
        queue.settings = settings

    return patch.object(queue_lives, "give_back", again)


def refused_letter_is_dropped() -> Patch:
    """A dead letter that its DLQ does not take is gone."""

    def drop(machine: Machine, args: list[bytes]) -> Reply:
        machine.letters.pop(int(args[1]), None)
        return 0

    return patch.object(letters, "refused", drop)


# Parts


def untaken_is_lost() -> Patch:
    """What one part gave to somebody who had been answered by another one is dropped."""

    def drop(machine: Machine, key: bytes, queue: Queue, message: Message) -> None:
        queue_lives.acknowledge(machine, key, queue, message)
        queue.counters.acked -= 1

    return patch.object(queue_lives, "untake", drop)


def one_part_is_never_asked() -> Patch:
    """The last part of a queue is left out by those who take."""
    popping = partitions.popping

    def some(parts: list[partitions.Part]) -> partitions.Steps:
        return popping(sorted(parts, key=lambda part: part[0])[:-1])

    return patch.object(partitions, "popping", some)


def handed_out_past_its_age() -> Patch:
    """What is past its age is handed out all the same."""
    return patch.object(queue_lives, "_is_past_age", lambda machine, message: False)


BY_THE_RULES = ("queues answer by the rules", "queues are as the rules have them")
SERVED = ("whoever waits is served in turn", "first come, first served")
SNAPSHOTS = ("checkpoint", "lag", *CRASHES)

OF_QUEUES: tuple[Mutation, ...] = (
    Mutation(stale_receipt_counts, BY_THE_RULES),
    Mutation(deliveries_not_counted, BY_THE_RULES),
    Mutation(back_off_is_the_same, BY_THE_RULES),
    Mutation(time_is_never_up, (*BY_THE_RULES, *SERVED)),
    Mutation(next_of_a_busy_group, (*BY_THE_RULES, "queue.check")),
    Mutation(priority_is_ignored, (*BY_THE_RULES, *SERVED)),
    Mutation(next_of_a_group_wakes_nobody, (*BY_THE_RULES, *SERVED), seed=4),
    Mutation(nobody_is_woken_by_what_comes_back, (*BY_THE_RULES, *SERVED)),
    Mutation(last_come_first_served, SERVED),
    Mutation(ids_forgotten_in_checkpoints, ("equal states",), SNAPSHOTS, seed=2),
    Mutation(counts_forgotten_in_checkpoints, ("equal states",), SNAPSHOTS, seed=2),
    Mutation(alarms_lost_in_checkpoints, ("equal states",), SNAPSHOTS, seed=2),
    Mutation(delay_measured_anew, ("equal states",), SNAPSHOTS, seed=2),
    Mutation(ids_never_fade, BY_THE_RULES),
    Mutation(one_delivery_more, BY_THE_RULES),
    Mutation(handed_out_past_its_age, BY_THE_RULES),
    Mutation(
        refused_letter_is_dropped,
        (*BY_THE_RULES, "letters arrive"),
        script=queue_scripts.refused_in_another_shard,
        shape=ON_FOUR,
    ),
    Mutation(untaken_is_lost, (*BY_THE_RULES, "queue.check"), script=queue_scripts.two_parts_at_once, shape=ON_FOUR),
    Mutation(one_part_is_never_asked, ("progress",), shape=ON_FOUR),
)
"""All of them."""
