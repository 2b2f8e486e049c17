"""Time, chance and the trace of one run: all that decides what happens next.

Time is in whole microseconds and goes from event to event. Every choice comes
from one seed, and events at the same time happen in the order they were
planned, so the same seed is the same run, byte for byte.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, NamedTuple

MS = 1000
SECOND = 1000 * MS

TRACE_KEPT = 4000
"""So many of the last events are kept for the report of a failing run."""


class Violation(AssertionError):
    """Something that must never happen did. ``rule`` is its short name."""

    def __init__(self, rule: str, what: str) -> None:
        super().__init__(f"{rule}: {what}")
        self.rule = rule


class Event(NamedTuple):
    """One line of the trace: who did what; ``about`` is rendered only when somebody reads it."""

    at_us: int
    who: str
    what: str
    about: Any


class World:
    """The queue of what is planned, the seed's chance, and the trace."""

    def __init__(self, seed: int, *, keep_all: bool = False) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.now_us = 0
        self.trace: deque[Event] = deque(maxlen=None if keep_all else TRACE_KEPT)
        self.stamp = 0
        self._planned: list[tuple[int, int, Callable[[], None]]] = []
        self._number = 0

    def at(self, when_us: int, what: Callable[[], None]) -> None:
        """Plans an event; one in the past happens next."""
        self._number += 1
        heappush(self._planned, (when_us, self._number, what))

    def after(self, delay_us: int, what: Callable[[], None]) -> None:
        """Plans an event some time from now."""
        self.at(self.now_us + delay_us, what)

    def step(self) -> bool:
        """Makes the next event happen; False when nothing is planned."""
        if not self._planned:
            return False
        when_us, _, what = heappop(self._planned)
        if when_us > self.now_us:
            self.now_us = when_us
        what()
        return True

    def tick(self) -> int:
        """Numbers what clients see, so that no two of it happen at the same time."""
        self.stamp += 1
        return self.stamp

    def note(self, who: str, what: str, about: Any = "") -> None:
        """Adds a line to the trace."""
        self.trace.append(Event(self.now_us, who, what, about))

    # Chance

    def happens(self, probability: float) -> bool:
        """Whether something of that probability happens."""
        return self.chance.random() < probability

    def between_us(self, least_us: int, most_us: int) -> int:
        """A time from the one to the other, short ones more often."""
        return least_us + int((most_us - least_us) * self.chance.random() ** 2)
