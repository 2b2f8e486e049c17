"""A queue: its messages, the life of each, and the order they are handed out in.

Order. Every message has a *number* that grows with each push and is its place:
within one priority the lowest number goes first, and a message that comes back
takes its old place. Of a *group* only the *head*, its oldest living message,
may be ready to go; the others stand behind it wherever they are in their own
life, so a group that is busy costs nobody else a look at it. The heads and the
ungrouped that are ready stand in one `Line` for each priority.

A number is kept as eight bytes, high byte first: it sorts as the number does,
names the message's row in a checkpoint and is the detail of its alarms, all
with one object. What is derived (lines, groups, counts) is not stored.

Weak spots: members of a group that outlive their age behind a head that is
held for ever stay in the group's heap (50 bytes each) until that head goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush, merge
from itertools import chain, islice
from typing import ClassVar

import msgspec

from cluster.machine.line import Line, Number, ascending
from cluster.machine.message import DEAD, GONE, IN_FLIGHT, MOVES, READY, Message, State

SIGHTING = b"="
"""What the name of a sighting's part begins with; a message's part is its number, which never does."""

ORIGIN = b"<"
"""What the name of an origin's part begins with: it is restored after the message it is about."""

PARTS_MAX = 1024
"""Of a queue: as many as there may be shards. A number in a part is a multiple of this, and the part's index."""

MESSAGE_BYTES = 280
SIGHTING_BYTES = 300
QUEUE_BYTES = 2500


class Settings(msgspec.Struct, array_like=True, frozen=True):
    """The options of Q.CREATE; 0 means no limit, and no memory of ids for ``dedup_ms``."""

    partitions: int = 1
    visibility_ms: int = 30_000
    maxdeliveries: int = 16
    backoff_ms: tuple[int, int] = (100, 60_000)
    dlq: bytes | None = None
    maxlen: int = 0
    px_ms: int = 0
    dedup_ms: int = 300_000

    def pause_ms(self, deliveries: int) -> int:
        """How long a message rests after its ``deliveries``-th delivery failed."""
        least_ms, most_ms = self.backoff_ms
        return min(most_ms, least_ms << min(deliveries - 1, 62))


class Partition(msgspec.Struct, array_like=True, frozen=True):
    """Which part of a queue this is that is spread over ``count`` shards.

    ``version`` grows with its settings'; ``born`` was that of the queue when it was made.
    """

    index: int
    count: int
    version: int
    born: int = 0


class Counters(msgspec.Struct, array_like=True):
    """What happened since the queue was made. ``sent`` are dead letters pushed to the DLQ."""

    pushed: int = 0
    acked: int = 0
    redelivered: int = 0
    expired: int = 0
    sent: int = 0


class Header(msgspec.Struct, array_like=True):
    """The queue's own row."""

    settings: Settings
    counters: Counters
    partition: Partition | None = None


class Sighting(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An ID a client gave, and when: remembered for `Settings.dedup_ms`, however short the message's life."""

    id: bytes
    at_ms: int


class Origin(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Where a message came from that is a dead letter of another queue: what was known of it when it died there."""

    queue: bytes
    deliveries: int
    pushed_ms: int
    died_ms: int
    reason: bytes


class Queue:
    """The messages of one queue. Each verb of `MOVES` is a method of that name.

    Whoever calls a verb has announced the change to the keyspace before, and
    keeps the alarms. ``partition`` is there when others of this name are in other
    shards. ``living`` holds every message that is not dead, oldest
    first; ``counts`` has one number for each `State`; ``origins`` are of those that
    are dead letters of other queues.
    """

    kind: ClassVar[bytes] = b"queue"
    encoding: ClassVar[bytes] = b"queue"

    __slots__ = (
        "_burials",
        "_fading",
        "_groups",
        "_lines",
        "_payload_bytes",
        "_seen",
        "_sightings",
        "consumers",
        "counters",
        "counts",
        "dead",
        "living",
        "origins",
        "partition",
        "settings",
    )

    def __init__(
        self, settings: Settings, counters: Counters | None = None, partition: Partition | None = None
    ) -> None:
        self.settings = settings
        self.partition = partition
        self.counters = counters or Counters()
        self.counts = [0] * len(State)
        self.living: dict[Number, Message] = {}
        self.dead: dict[Number, Message] = {}
        self.origins: dict[Number, Origin] = {}
        self.consumers: dict[bytes, int] = {}  # who has how many in flight
        self._lines: dict[int, Line] = {}  # by priority, highest first
        self._groups: dict[bytes, list[Number]] = {}  # heaps
        self._burials = Line()
        self._sightings: dict[Number, Sighting] = {}
        self._seen: dict[bytes, Number] = {}  # id -> its last sighting
        self._fading: list[Number] = []  # heap of sightings
        self._payload_bytes = 0

    @property
    def maxlen(self) -> int:
        """How many may live here, 0 for any number: of a part, its share."""
        count = 1 if self.partition is None else self.partition.count
        return -(-self.settings.maxlen // count)

    # The life of a message

    def add(self, message: Message) -> None:
        """A message begins its life here, or goes on with it: after a checkpoint, in a copy.

        Messages that come back are added in the order of their numbers.
        """
        number = message.number
        self.counts[message.state] += 1
        self._payload_bytes += len(message.payload)
        if message.state is DEAD:
            self.dead[number] = message
            self._burials.add(number)
            return
        self.living[number] = message
        if message.state is IN_FLIGHT:
            self._count_consumer(message.note, 1)
        if message.group is not None:
            members = self._groups.get(message.group)
            if members is not None:
                heappush(members, number)
                return
            self._groups[message.group] = [number]
        if message.state is READY:
            self._enter(message)

    def wake(self, message: Message) -> None:
        """Its delay is over."""
        self._move(message, "wake")
        message.at_ms = 0
        if self._is_head(message):
            self._enter(message)

    def next(self) -> Message | None:
        """The ready message to hand out now, out of its line: the caller must `take` or `expire` it."""
        living = self.living
        for line in self._lines.values():
            while (number := line.pop()) is not None:
                message = living.get(number)
                if message is not None and message.state is READY:
                    return message
        return None

    def take(self, message: Message, consumer: bytes, until_ms: int) -> None:
        """It is handed to ``consumer``, whose receipt is good until ``until_ms``."""
        self._move(message, "take")
        if message.deliveries:
            self.counters.redelivered += 1
        message.deliveries += 1
        message.at_ms = until_ms
        message.note = consumer
        self._count_consumer(consumer, 1)

    def put_back(self, message: Message, until_ms: int) -> None:
        """It was not worked off, and rests until ``until_ms``."""
        self._move(message, "put_back")
        self._count_consumer(message.note, -1)
        message.at_ms = until_ms
        message.note = None

    def untake(self, message: Message) -> None:
        """The delivery did not happen."""
        self._move(message, "untake")
        self._count_consumer(message.note, -1)
        message.deliveries -= 1
        message.at_ms = 0
        message.note = None
        if self._is_head(message):
            self._enter(message)

    def acknowledge(self, message: Message) -> None:
        """It is done with."""
        self._move(message, "acknowledge")
        self.counters.acked += 1
        self._count_consumer(message.note, -1)
        self._remove(message)
        self.origins.pop(message.number, None)

    def bury(self, message: Message, now_ms: int, reason: bytes) -> None:
        """It is a dead letter of this queue now."""
        self._move(message, "bury")
        self._count_consumer(message.note, -1)
        self._remove(message)
        message.at_ms = now_ms
        message.note = reason
        self.origins.pop(message.number, None)  # where it died last is what counts
        self.dead[message.number] = message
        self._payload_bytes += len(message.payload)
        self._burials.add(message.number)

    def send_away(self, message: Message) -> None:
        """It is a dead letter and goes to another queue."""
        self._move(message, "send_away")
        self.counters.sent += 1
        self._count_consumer(message.note, -1)
        self._remove(message)
        self.origins.pop(message.number, None)

    def expire(self, message: Message) -> None:
        """It is past its age."""
        in_line = message.state is READY and self._is_head(message)
        self._move(message, "expire")
        self.counters.expired += 1
        self._remove(message)
        self.origins.pop(message.number, None)
        if in_line:
            self._lines[message.priority].leave(message.number, self.living)

    def oldest_dead(self) -> Message | None:
        """The dead letter with the lowest number."""
        number = next(self._burials.walk(), None)
        return None if number is None else self.dead[number]

    def redrive(self, message: Message) -> None:
        """The `oldest_dead` leaves; the caller adds what it becomes."""
        self._move(message, "redrive")
        self._unbury(message)

    def purge(self, message: Message) -> None:
        """The `oldest_dead` is dropped."""
        self._move(message, "purge")
        self._unbury(message)

    def emptied(self) -> Queue:
        """The same queue without a message; ids stay remembered. This one is left as it is."""
        queue = Queue(self.settings, msgspec.structs.replace(self.counters), self.partition)
        for number, sighting in self._sightings.items():
            queue.remember(number, sighting)
        return queue

    def _move(self, message: Message, verb: str) -> None:
        before = message.state
        after = MOVES[verb][before]
        self.counts[before] -= 1
        if after is not GONE:
            self.counts[after] += 1
        message.state = after

    def _enter(self, message: Message) -> None:
        line = self._lines.get(message.priority)
        if line is None:
            lines = {**self._lines, message.priority: Line()}
            self._lines = dict(sorted(lines.items(), reverse=True))
            line = self._lines[message.priority]
        line.add(message.number)

    def _remove(self, message: Message) -> None:
        """Takes a message from the living and lets the next of its group step forward."""
        del self.living[message.number]
        self._payload_bytes -= len(message.payload)
        if message.group is None or not self._is_head(message):
            return
        members = self._groups[message.group]
        while members and members[0] not in self.living:
            heappop(members)
        if not members:
            del self._groups[message.group]
        elif (head := self.living[members[0]]).state is READY:
            self._enter(head)

    def _unbury(self, message: Message) -> None:
        self._burials.pop()
        del self.dead[message.number]
        self._payload_bytes -= len(message.payload)

    def _is_head(self, message: Message) -> bool:
        return message.group is None or self._groups[message.group][0] == message.number

    def _count_consumer(self, consumer: bytes | None, change: int) -> None:
        name = consumer or b""
        count = self.consumers.get(name, 0) + change
        if count:
            self.consumers[name] = count
        else:
            del self.consumers[name]

    # Looking

    def delivery(self, receipt: bytes) -> Message | None:
        """The message in flight that ``receipt`` was given for, or None when it is stale or was never given."""
        digits = receipt.partition(b"-")[0]
        if not digits.isdigit() or len(digits) > 19:
            return None
        message = self.living.get(int(digits).to_bytes(8, "big"))
        if message is None or message.state is not IN_FLIGHT or message.receipt != receipt:
            return None
        return message

    def waiting(self) -> Iterator[Message]:
        """The ready messages in the order they would be handed out, were each acknowledged at once.

        What stands behind a group's busy or delayed head is not among them.
        """
        frontier: list[tuple[int, Number, Iterator[Number]]] = []

        def advance(source: Iterator[Number]) -> None:
            number = next(source, None)
            if number is not None:
                heappush(frontier, (-self.living[number].priority, number, source))

        for line in self._lines.values():
            advance(number for number in line.walk() if number in self.living)
        while frontier:
            _, number, source = heappop(frontier)
            message = self.living[number]
            yield message
            advance(source)
            if message.group is not None and self._is_head(message):
                advance(self._followers(message.group))

    def _followers(self, group: bytes) -> Iterator[Number]:
        """Those behind the head of a group, up to the first that is not ready."""
        for number in islice(ascending(self._groups[group]), 1, None):
            message = self.living.get(number)
            if message is not None:
                if message.state is not READY:
                    return
                yield number

    def buried(self) -> Iterator[Message]:
        """The dead letters kept here, oldest first."""
        return (self.dead[number] for number in self._burials.walk())

    def deaths(self) -> Iterator[Message]:
        """The dead letters that are here, oldest first: those kept, and those of other queues that live here."""
        return map(self._at, merge(self._burials.walk(), self.origins))

    def _at(self, number: Number) -> Message:
        return self.dead.get(number) or self.living[number]

    def oldest_ms(self) -> int | None:
        """When the oldest living message was pushed."""
        oldest = next(iter(self.living.values()), None)
        return None if oldest is None else oldest.pushed_ms

    def check(self) -> None:
        """Asserts what must always hold."""
        states = [message.state for message in chain(self.living.values(), self.dead.values())]
        assert self.counts == [states.count(state) for state in State]
        assert all(message.state is not DEAD for message in self.living.values())
        assert all(message.state is DEAD for message in self.dead.values())
        taken = [message.note for message in self.living.values() if message.state is IN_FLIGHT]
        assert sum(self.consumers.values()) == len(taken)
        assert list(self.living) == sorted(self.living)
        grouped = [message for message in self.living.values() if message.group is not None]
        assert all(self._is_head(message) for message in grouped if message.state is IN_FLIGHT)
        assert {message.group for message in grouped} == set(self._groups)
        assert self._sightings.keys() >= set(self._seen.values())
        assert self.origins.keys() <= self.living.keys()
        assert list(self.origins) == sorted(self.origins)

    # Remembered ids

    def saw(self, id: bytes, now_ms: int) -> bool:
        """Whether a message was pushed with this ID within the window that ends now."""
        number = self._seen.get(id)
        return number is not None and self._sightings[number].at_ms + self.settings.dedup_ms > now_ms

    def remember(self, number: Number, sighting: Sighting) -> None:
        """Message ``number`` was pushed with an ID."""
        self._sightings[number] = sighting
        self._seen[sighting.id] = max(number, self._seen.get(sighting.id, b""))
        heappush(self._fading, number)

    def faded(self, now_ms: int) -> Number | None:
        """The oldest sighting, if its window is over."""
        if self._fading and self._sightings[self._fading[0]].at_ms + self.settings.dedup_ms <= now_ms:
            return self._fading[0]
        return None

    def forget(self, number: Number) -> None:
        """Forgets the `faded` sighting."""
        heappop(self._fading)
        sighting = self._sightings.pop(number)
        if self._seen[sighting.id] == number:
            del self._seen[sighting.id]

    # A value of the keyspace

    def header(self) -> bytes:
        """Settings and counters."""
        return msgspec.msgpack.encode(Header(self.settings, self.counters, self.partition))

    def parts(self) -> Iterable[bytes]:
        """Every message's number and the names of all origins and sightings."""
        more = chain(map(ORIGIN.__add__, self.origins), map(SIGHTING.__add__, self._sightings))
        return chain(self.living, self.dead, more)

    def part(self, part: bytes) -> bytes | None:
        """One message, one origin or one sighting."""
        if part.startswith(SIGHTING):
            sighting = self._sightings.get(part[1:])
            return None if sighting is None else msgspec.msgpack.encode(sighting)
        if part.startswith(ORIGIN):
            origin = self.origins.get(part[1:])
            return None if origin is None else msgspec.msgpack.encode(origin)
        message = self.living.get(part) or self.dead.get(part)
        return None if message is None else msgspec.msgpack.encode(message)

    def restore_part(self, part: bytes, body: bytes) -> Message | None:
        """Takes back what `part` gave; the message, if it was one."""
        if part.startswith(SIGHTING):
            self.remember(part[1:], msgspec.msgpack.decode(body, type=Sighting))
            return None
        if part.startswith(ORIGIN):
            self.origins[part[1:]] = msgspec.msgpack.decode(body, type=Origin)
            return None
        message = msgspec.msgpack.decode(body, type=Message)
        self.add(message)
        return message

    def copy(self) -> Queue:
        """An exact copy: what is in flight is in flight in both, and its receipt is good once in each."""
        queue = self.emptied()
        for message in chain(self.living.values(), self.dead.values()):
            queue.add(msgspec.structs.replace(message))
        queue.origins.update(self.origins)
        return queue

    def size_bytes(self) -> int:
        """The payloads, and about what keeping them takes."""
        messages = len(self.living) + len(self.dead)
        return QUEUE_BYTES + self._payload_bytes + MESSAGE_BYTES * messages + SIGHTING_BYTES * len(self._sightings)
