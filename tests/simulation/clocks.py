"""One node's clocks: a wall clock that is wrong and jumps, and a monotonic one that runs too fast or too slow."""

from __future__ import annotations

from math import ceil

START_WALL_MS = 1_700_000_000_000
DRIFT = 0.05
"""How much faster or slower than it should a monotonic clock runs at the most."""


class Clock:
    """``rate`` is local microseconds to one of the world's; ``ahead_ms`` how far the wall clock is off."""

    __slots__ = ("_started_us", "ahead_ms", "rate")

    def __init__(self, rate: float, ahead_ms: int) -> None:
        self.rate = rate
        self.ahead_ms = ahead_ms
        self._started_us = 0

    def boot(self, now_us: int) -> None:
        """The monotonic clock begins anew."""
        self._started_us = now_us

    def change_rate(self, rate: float, now_us: int) -> None:
        """Runs at another rate from now on."""
        shown_us = self.monotonic_ms(now_us) * 1000
        self.rate = rate
        self._started_us = now_us - round(shown_us / rate)

    def monotonic_ms(self, now_us: int) -> float:
        """What the monotonic clock shows at the world's ``now_us``."""
        return (now_us - self._started_us) * self.rate / 1000

    def wall_ms(self, now_us: int) -> int:
        """What the wall clock shows."""
        return START_WALL_MS + now_us // 1000 + self.ahead_ms

    def us_of_monotonic(self, monotonic_ms: float) -> int:
        """The first microsecond of the world at which the monotonic clock shows that time."""
        return self._started_us + ceil(monotonic_ms * 1000 / self.rate)

    def us_of_wall(self, wall_ms: int) -> int:
        """The microsecond of the world at which the wall clock shows that time, unless it jumps before."""
        return (wall_ms - START_WALL_MS - self.ahead_ms) * 1000
