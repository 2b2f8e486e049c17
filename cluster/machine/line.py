"""The order in which the messages of one priority wait: lowest number first.

Almost all of them come in order and stand in a plain queue; those that come
back to their old place stand in a heap beside it. Leaving from the middle
never searches: what left stays until it is popped, and is swept out once half
of the line may be like it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterator
from heapq import heapify, heappop, heappush
from typing import TypeAlias

Number: TypeAlias = bytes
"""A message's number as eight bytes, high byte first, so that it sorts as the number does."""


class Line:
    """Numbers to pop. One that left may still be popped; the owner recognises it."""

    __slots__ = ("_fresh", "_returned", "_stale")

    def __init__(self) -> None:
        self._fresh: deque[Number] = deque()
        self._returned: list[Number] = []
        self._stale = 0

    def add(self, number: Number) -> None:
        """Takes its place."""
        if not self._fresh or number > self._fresh[-1]:
            self._fresh.append(number)
        else:
            heappush(self._returned, number)

    def pop(self) -> Number | None:
        """The lowest number, taken out."""
        if self._returned and (not self._fresh or self._returned[0] < self._fresh[0]):
            return heappop(self._returned)
        return self._fresh.popleft() if self._fresh else None

    def leave(self, number: Number, living: Container[Number]) -> None:
        """``number`` left, and is not among the ``living`` any more."""
        if self._fresh and self._fresh[0] == number:
            self._fresh.popleft()
            return
        self._stale += 1
        if self._stale * 2 > len(self._fresh) + len(self._returned):
            self._fresh = deque(number for number in self._fresh if number in living)
            self._returned = [number for number in self._returned if number in living]
            heapify(self._returned)
            self._stale = 0

    def walk(self) -> Iterator[Number]:
        """The numbers in order, each found when asked for; the line must not change meanwhile."""
        fresh = iter(self._fresh)
        first = next(fresh, None)
        for number in ascending(self._returned):
            while first is not None and first < number:
                yield first
                first = next(fresh, None)
            yield number
        if first is not None:
            yield first
            yield from fresh


def ascending(heap: list[Number]) -> Iterator[Number]:
    """A heap's items in order, at O(log k) for the k-th, leaving the heap alone."""
    frontier = [(heap[0], 0)] if heap else []
    while frontier:
        number, at = heappop(frontier)
        yield number
        for child in (2 * at + 1, 2 * at + 2):
            if child < len(heap):
                heappush(frontier, (heap[child], child))
