"""Linearizable reads without a log entry (dissertation, section 6.4).

A read may be served from the state at the leader's commit index, once it is
sure that the leader still was one after the read came in. With a lease that is
known already; else (ReadIndex) it is known when a majority has answered a
heartbeat sent after that.

Both count from when a heartbeat was *sent*, on the leader's own clock: a
follower that answered it votes for nobody else for one election timeout from
when it came there, which is later.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple


class Asked(NamedTuple):
    """Reads up to ``number`` of ``author``, a node in one run, that wait for heartbeats from ``after_us`` on."""

    author: bytes
    number: int
    index: int  # type: ignore[assignment]  # an entry's index, not tuple.index
    after_us: int


class Reads:
    """The reads that wait until a majority has confirmed the leader."""

    __slots__ = ("_asked",)

    def __init__(self) -> None:
        self._asked: deque[Asked] = deque()

    def ask(self, asked: Asked) -> None:
        """Another one; times do not go back."""
        self._asked.append(asked)

    @property
    def newest_us(self) -> int:
        """The heartbeat the newest one waits for; 0 for none."""
        return self._asked[-1].after_us if self._asked else 0

    def confirmed(self, followed_us: int) -> list[Asked]:
        """Those that may be served, a majority having followed since ``followed_us``."""
        found = []
        while self._asked and self._asked[0].after_us <= followed_us:
            found.append(self._asked.popleft())
        return found

    def asked_by(self, author: bytes) -> int:
        """The last number of ``author`` that waits; 0 for none."""
        return max((asked.number for asked in self._asked if asked.author == author), default=0)

    def __len__(self) -> int:
        return len(self._asked)
