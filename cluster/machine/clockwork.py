"""One list of everything that falls due: expiries, lock lives, visibility, waits.

The model: an *alarm* is (kind, key, detail) with a due time in milliseconds of
the log's clock. Alarms are kept in buckets of about a second, so setting and
cancelling one costs a dictionary operation however many there are; only the
bucket the clock has reached is put in order. Alarms ring in the order of
(due time, alarm), which is the same on every replica whatever order they were
set in.

Whoever sets an alarm remembers its due time and gives it back to cancel.
An alarm in the front is forgotten, not searched for; what is left of it in the
heap neither rings nor counts.

Weak spot: very many alarms in one second are ordered at once when the clock
gets there.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import NamedTuple

BUCKET_MS = 1024


class Alarm(NamedTuple):
    """What rings: a kind from `cluster.machine.alarms`, the key it is about, and which part of it."""

    kind: int
    key: bytes
    detail: bytes


class Clockwork:
    """Alarms by due time."""

    __slots__ = ("_buckets", "_front", "_front_bucket", "_front_due", "_order")

    def __init__(self) -> None:
        self._buckets: dict[int, dict[Alarm, int]] = {}
        self._order: list[int] = []  # heap of bucket numbers, each once while it exists
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

    def next_due_ms(self, now_ms: int) -> int | None:
        """When to look again: at ``now_ms`` or before when something rings, never later than the first alarm."""
        first = self._first()
        if first is None and self._order and self._order[0] * BUCKET_MS <= now_ms:
            self._reach(now_ms // BUCKET_MS)
            first = self._first()
        if first is not None:
            return first[0]
        return self._order[0] * BUCKET_MS if self._order else None

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
        if reached:
            self._front_due |= reached
            self._front += [(due_ms, alarm) for alarm, due_ms in reached.items()]
            heapify(self._front)

    def __len__(self) -> int:
        return len(self._front_due) + sum(map(len, self._buckets.values()))
