"""How far one follower is, as its leader sees it, and what may be sent to it now.

Probing: where the logs agree is not known; one append at a time, until it is
answered. Replicating: appends follow each other without waiting, as long as
not too much is on its way. Snapshot: the follower needs entries that are
gone here, and gets the checkpoint first.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

IN_FLIGHT_BYTES_MAX = 8 * 1024 * 1024
IN_FLIGHT_APPENDS_MAX = 256


class State(Enum):
    """What the leader is doing for the follower."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Progress:
    """One follower.

    ``match`` is known to agree and to be durable there, ``next`` is the next
    entry to send. ``told`` is the commit index it was last sent, ``awaited`` one
    that somebody there waits for. ``followed_us``
    is the latest time (of the leader's clock, when it was sent) that the
    follower confirmed; ``heard_ms`` is when anything last came from it.
    ``moved_ms`` is when an append was last answered or begun afresh.
    """

    __slots__ = (
        "_appends",
        "_probe_bytes",
        "awaited",
        "bytes",
        "followed_us",
        "heard_ms",
        "match",
        "moved_ms",
        "next",
        "state",
        "told",
        "waits",
    )

    def __init__(self, next_index: int, now_ms: float, match: int = 0) -> None:
        self.match = match
        self.next = next_index
        self.state = State.PROBE
        self.told = 0
        self.awaited = 0
        self.followed_us = 0
        self.heard_ms = now_ms
        self.moved_ms = now_ms
        self.waits = False  # a probe is on its way
        self.bytes = 0  # on their way
        self._probe_bytes = 0  # of the last probe
        self._appends: deque[tuple[int, int]] = deque()  # (last index, bytes)

    @property
    def open(self) -> bool:
        """Whether another append may be sent now."""
        if self.state is State.REPLICATE:
            return self.bytes < IN_FLIGHT_BYTES_MAX and len(self._appends) < IN_FLIGHT_APPENDS_MAX
        return self.state is State.PROBE and not self.waits

    def sent(self, last_index: int, size_bytes: int, now_ms: float) -> None:
        """An append that ends with ``last_index`` is on its way."""
        if not self._appends and not self.waits:
            self.moved_ms = now_ms
        if self.state is State.PROBE:
            self.waits = True
            self._probe_bytes = size_bytes
        else:
            self.next = last_index + 1
            self._appends.append((last_index, size_bytes))
            self.bytes += size_bytes

    def agreed(self, index: int, now_ms: float) -> bool:
        """The follower has all up to ``index``; whether that was news."""
        news = index > self.match
        self.match = max(self.match, index)
        self.moved_ms = now_ms
        while self._appends and self._appends[0][0] <= index:
            self.bytes -= self._appends.popleft()[1]
        if self.state is State.REPLICATE:
            self.next = max(self.next, self.match + 1)
        elif self.state is State.PROBE or news:
            self.state = State.REPLICATE
            self.waits = False
            self.next = self.match + 1
        return news

    def probe(self, next_index: int) -> None:
        """Where the logs agree must be found again, from ``next_index`` on."""
        self.state = State.PROBE
        self.next = max(next_index, self.match + 1)
        self.waits = False
        self._appends.clear()
        self.bytes = 0

    def lost(self) -> None:
        """What was on its way may not have arrived: it is to be sent again."""
        if self.state is State.REPLICATE:
            self.probe(self.match + 1)
        self.waits = False

    def send_snapshot(self) -> None:
        """Nothing is appended until the snapshot is installed."""
        self.probe(self.next)
        self.state = State.SNAPSHOT

    @property
    def unanswered(self) -> bool:
        """Whether an append is on its way."""
        return self.waits or bool(self._appends)

    @property
    def unanswered_bytes(self) -> int:
        """How much is on its way."""
        return self._probe_bytes if self.waits else self.bytes
