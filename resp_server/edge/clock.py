"""The node's time: the wall clock's, except that it never goes back."""

from __future__ import annotations

import time


class Clock:
    """Milliseconds since 1970 that always advance at least as fast as time passes.

    It follows the wall clock forward; when that jumps back, time goes on from
    where it was at the pace of the monotonic clock, so lives and deadlines
    keep their length and nothing that ended begins again. ``monotonic_ns`` is
    the monotonic clock when it was last looked at.
    """

    __slots__ = ("_last_ns", "monotonic_ns")

    def __init__(self, not_before_ms: int) -> None:
        self._last_ns = not_before_ms * 1_000_000
        self.monotonic_ns = time.monotonic_ns()

    def now_ms(self) -> int:
        """The time now."""
        monotonic_ns = time.monotonic_ns()
        self._last_ns += monotonic_ns - self.monotonic_ns
        self.monotonic_ns = monotonic_ns
        wall_ns = time.time_ns()
        if wall_ns > self._last_ns:
            self._last_ns = wall_ns
        return self._last_ns // 1_000_000
