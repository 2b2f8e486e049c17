"""How much may be sent: a token bucket that may be overdrawn by one piece, on Trio's clock."""

from __future__ import annotations

from collections.abc import Callable

import trio

BURST_S = 0.1
"""How long nothing has to be sent for the largest allowance to gather."""


class Allowance:
    """``rate`` gives the bytes a second; it may change at any time, and counts from then on."""

    def __init__(self, rate: Callable[[], int]) -> None:
        self._rate = rate
        self._left_bytes = 0.0
        self._as_of_s = 0.0

    def spend(self, size_bytes: int) -> None:
        """So much was sent."""
        self._gather()
        self._left_bytes -= size_bytes

    async def wait(self) -> None:
        """Returns when something may be sent."""
        self._gather()
        while self._left_bytes < 0:
            await trio.sleep(min(1.0, -self._left_bytes / self._rate()))  # by then the rate may be another
            self._gather()

    def _gather(self) -> None:
        now_s = trio.current_time()
        rate = self._rate()
        self._left_bytes = min(rate * BURST_S, self._left_bytes + rate * (now_s - self._as_of_s))
        self._as_of_s = now_s
