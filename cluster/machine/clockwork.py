"""One list of everything that falls due: expiries, lock lives, visibility, waits.

The model: an *alarm* is (kind, key, detail) with a due time in milliseconds of
the log's clock. Alarms are kept in buckets of about a second, so setting and
cancelling one costs a dictionary operation however many there are; only the
bucket the clock has reached is put in order. Alarms ring in the order of
(due time, alarm), which is the same on every replica whatever order they were
set in.

Whoever sets an alarm remembers its due time and gives it back to cancel.
An alarm in the front bucket is not searched for: it rings and is recognised as
stale by its owner, so owners must check that what rings is still meant.

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

    __slots__ = ("_buckets", "_front", "_front_bucket", "_order")

    def __init__(self) -> None:
        self._buckets: dict[int, dict[Alarm, int]] = {}
        self._order: list[int] = []  # heap of bucket numbers, each once while it exists
        self._front: list[tuple[int, Alarm]] = []  # heap of what the clock has reached
        self._front_bucket = -1

    def set(self, due_ms: int, alarm: Alarm) -> None:
        """Rings ``alarm`` once the clock reaches ``due_ms``."""
        number = due_ms // BUCKET_MS
        if number <= self._front_bucket:
            heappush(self._front, (due_ms, alarm))
            return
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = {}
            heappush(self._order, number)
        bucket[alarm] = due_ms

    def cancel(self, due_ms: int, alarm: Alarm) -> None:
        """Forgets an alarm set for ``due_ms``; one that is about to ring may still do so."""
        bucket = self._buckets.get(due_ms // BUCKET_MS)
        if bucket is not None and bucket.get(alarm) == due_ms:
            del bucket[alarm]

    def next_due_ms(self, now_ms: int) -> int | None:
        """When to look again: at ``now_ms`` or before when something rings, never later than the first alarm."""
        if not self._front:
            if not self._order:
                return None
            if self._order[0] * BUCKET_MS > now_ms:
                return self._order[0] * BUCKET_MS
            self._reach(now_ms // BUCKET_MS)
            return self.next_due_ms(now_ms)
        return self._front[0][0]

    def ring(self, now_ms: int) -> tuple[int, Alarm] | None:
        """Takes out the first alarm due at ``now_ms`` with its due time, or None when there is no more."""
        if not self._front or self._front[0][0] > now_ms:
            self._reach(now_ms // BUCKET_MS)
        if self._front and self._front[0][0] <= now_ms:
            return heappop(self._front)
        return None

    def _reach(self, number: int) -> None:
        """Moves every bucket up to ``number`` into the ordered front."""
        if number <= self._front_bucket:
            return
        reached: list[tuple[int, Alarm]] = []
        while self._order and self._order[0] <= number:
            bucket = self._buckets.pop(heappop(self._order))
            reached += [(due_ms, alarm) for alarm, due_ms in bucket.items()]
        if reached:
            self._front += reached
            heapify(self._front)
        # Only what is behind the clock is the front: a bucket that is still to
        # come must go on being cancelled in place.
        self._front_bucket = number

    def __len__(self) -> int:
        return len(self._front) + sum(map(len, self._buckets.values()))
