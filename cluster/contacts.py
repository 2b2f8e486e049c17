"""The failure detector: when each peer was last heard, and how long its answers take.

A leader's heartbeats are answered anyway; nodes that do not lead ping the
others now and then, so that every node knows of every other. Raft does not go
by this: it is for people, and for whoever wants to know whom to ask.
"""

from __future__ import annotations

from cluster.raft.messages import Alive, Ping

PING_BEATS = 2
"""Heartbeat intervals between two pings."""

REACHABLE_TIMEOUTS = 2
"""A peer not heard for so many election timeouts counts as unreachable."""


class Contacts:
    """What was heard of whom, in milliseconds of the node's own clock."""

    __slots__ = ("_heard_ms", "_next_ping_ms", "_round_trip_us", "matches")

    def __init__(self) -> None:
        self._heard_ms: dict[str, float] = {}
        self._round_trip_us: dict[str, int] = {}
        self._next_ping_ms = 0.0
        self.matches: dict[str, int] = {}  # what the leader last said to be durable where

    def heard(self, peer: str, now_ms: float) -> None:
        """A message of the peer came."""
        self._heard_ms[peer] = now_ms

    def answered(self, peer: str, message: Alive, now_ms: float) -> None:
        """The peer answered a heartbeat or a ping."""
        if message.sent_us:
            self._round_trip_us[peer] = max(0, int(now_ms * 1000) - message.sent_us)

    def pings(self, now_ms: float, interval_ms: float) -> Ping | None:
        """What to send everybody now, if it is time."""
        if now_ms < self._next_ping_ms:
            return None
        self._next_ping_ms = now_ms + interval_ms * PING_BEATS
        return Ping(0, int(now_ms * 1000))

    @property
    def next_ping_ms(self) -> float:
        """When `pings` has something next."""
        return self._next_ping_ms

    def silent_ms(self, peer: str, now_ms: float) -> float | None:
        """How long the peer has not been heard; None: never was."""
        heard_ms = self._heard_ms.get(peer)
        return None if heard_ms is None else now_ms - heard_ms

    def round_trip_us(self, peer: str) -> int | None:
        """Of the last answer."""
        return self._round_trip_us.get(peer)
