"""One list of everything that falls due: expiries, lock lives, visibility, waits.

The model: an *alarm* is (kind, key, detail) with a due time in milliseconds of
the log's clock. Alarms are kept in buckets of about a second, so setting and
cancelling one costs a dictionary operation however many there are; only the
bucket the clock has reached is put in order. What has very many alarms, a queue,
has buckets of its own, in which an alarm is no more than its detail and due time:
that is 80 bytes less for every message that waits for its time. Alarms ring in
the order of (due time, alarm), which is the same on every replica whatever order
they were set in.

Whoever sets an alarm remembers its due time and gives it back to cancel.
An alarm in the front is forgotten, not searched for; what is left of it in the
heap neither rings nor counts.

Weak spot: very many alarms in one second are ordered at once when the clock
gets there.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import NamedTuple, TypeAlias

BUCKET_MS = 1024


class Alarm(NamedTuple):
    """What rings: a kind from `cluster.machine.alarms`, the key it is about, and which part of it."""

    kind: int
    key: bytes
    detail: bytes


Crowd: TypeAlias = "tuple[int, int, bytes]"
"""The number of a bucket, and the kind and key of all alarms in it: a plain tuple, which is made at every touch."""


class Clockwork:
    """Alarms by due time."""

    __slots__ = ("_buckets", "_crowd_order", "_crowds", "_front", "_front_bucket", "_front_due", "_order")

    def __init__(self) -> None:
        self._buckets: dict[int, dict[Alarm, int]] = {}
        self._order: list[int] = []  # heap of bucket numbers, each once while it exists
        self._crowds: dict[Crowd, dict[bytes, int]] = {}
        self._crowd_order: list[Crowd] = []  # heap likewise
        self._front: list[tuple[int, Alarm]] = []  # heap of what the clock has reached, forgotten ones among it
        self._front_due: dict[Alarm, int] = {}  # those of it that are still meant
        self._front_bucket = -1

    def set(self, due_ms: int, alarm: Alarm) -> None:
        """Rings ``alarm`` once the clock reaches ``due_ms``."""
        number = due_ms // BUCKET_MS
        if number <= self._front_bucket:
            heappush(self._front, (due_ms, alarm))
            self._front_due[alarm] = due_ms
            return
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = {}
            heappush(self._order, number)
        bucket[alarm] = due_ms

    def cancel(self, due_ms: int, alarm: Alarm) -> None:
        """Forgets an alarm set for ``due_ms``, if it has not rung."""
        number = due_ms // BUCKET_MS
        bucket = self._front_due if number <= self._front_bucket else self._buckets.get(number)
        if bucket is not None and bucket.get(alarm) == due_ms:
            del bucket[alarm]

    def set_one_of_many(self, due_ms: int, kind: int, key: bytes, detail: bytes) -> None:
        """As `set`, for a key with very many alarms of one kind."""
        number = due_ms // BUCKET_MS
        if number <= self._front_bucket:
            self.set(due_ms, Alarm(kind, key, detail))
            return
        name = (number, kind, key)
        crowd = self._crowds.get(name)
        if crowd is None:
            crowd = self._crowds[name] = {}
            heappush(self._crowd_order, name)
        crowd[detail] = due_ms

    def cancel_one_of_many(self, due_ms: int, kind: int, key: bytes, detail: bytes) -> None:
        """As `cancel`, for an alarm of `set_one_of_many`."""
        number = due_ms // BUCKET_MS
        if number <= self._front_bucket:
            self.cancel(due_ms, Alarm(kind, key, detail))
            return
        crowd = self._crowds.get((number, kind, key))
        if crowd is not None and crowd.get(detail) == due_ms:
            del crowd[detail]

    def next_due_ms(self, now_ms: int) -> int | None:
        """When to look again: at ``now_ms`` or before when something rings, never later than the first alarm."""
        first = self._first()
        begins_ms = self._next_bucket_ms()
        if first is None and begins_ms is not None and begins_ms <= now_ms:
            self._reach(now_ms // BUCKET_MS)
            first = self._first()
            begins_ms = self._next_bucket_ms()
        return begins_ms if first is None else first[0]

    def _next_bucket_ms(self) -> int | None:
        """When the first bucket that the clock has not reached begins."""
        if not self._crowd_order:
            return self._order[0] * BUCKET_MS if self._order else None
        number = self._crowd_order[0][0]
        return min(number, self._order[0]) * BUCKET_MS if self._order else number * BUCKET_MS

    def ring(self, now_ms: int) -> tuple[int, Alarm] | None:
        """Takes out the first alarm due at ``now_ms`` with its due time, or None when there is no more."""
        first = self._first()
        if first is None or first[0] > now_ms:
            self._reach(now_ms // BUCKET_MS)
            first = self._first()
        if first is None or first[0] > now_ms:
            return None
        del self._front_due[first[1]]
        return heappop(self._front)

    def _first(self) -> tuple[int, Alarm] | None:
        """The first alarm of the front that is still meant."""
        front, due = self._front, self._front_due
        while front:
            due_ms, alarm = front[0]
            if due.get(alarm) == due_ms:
                return front[0]
            heappop(front)
        return None

    def _reach(self, number: int) -> None:
        """Moves every bucket up to ``number`` into the ordered front."""
        if number <= self._front_bucket:
            return
        self._front_bucket = number
        reached: dict[Alarm, int] = {}
        while self._order and self._order[0] <= number:
            reached |= self._buckets.pop(heappop(self._order))
        while self._crowd_order and self._crowd_order[0][0] <= number:
            name = heappop(self._crowd_order)
            for detail, due_ms in self._crowds.pop(name).items():
                reached[Alarm(name[1], name[2], detail)] = due_ms
        if reached:
            self._front_due |= reached
            self._front += [(due_ms, alarm) for alarm, due_ms in reached.items()]
            heapify(self._front)

    def __len__(self) -> int:
        waiting = sum(map(len, self._buckets.values())) + sum(map(len, self._crowds.values()))
        return len(self._front_due) + waiting
