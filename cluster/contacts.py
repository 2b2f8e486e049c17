"""Who is there: what was last heard of each node, and what every node tells every other about itself.

Once in an election timeout a node tells every other that it
is there (`Presence`), and at once when it begins or ceases to lead
a shard. So everybody knows whom to ask for which shard, and who is silent.
"""

from __future__ import annotations

from collections.abc import Iterable

from cluster.raft.messages import Presence

REACHABLE_TIMEOUTS = 2
"""A peer not heard for so many election timeouts counts as unreachable."""


class Contacts:
    """What was heard of whom, in milliseconds of the node's own clock."""

    __slots__ = ("_echo_us", "_heard_ms", "_next_ms", "_round_trip_us", "interval_ms")

    def __init__(self, interval_ms: float) -> None:
        self.interval_ms = interval_ms
        self._heard_ms: dict[str, float] = {}
        self._round_trip_us: dict[str, int] = {}
        self._echo_us: dict[str, tuple[int, int]] = {}  # what the peer's last presence said, and when it came
        self._next_ms = 0.0

    def heard(self, peer: str, now_ms: float) -> None:
        """A message of the peer came."""
        self._heard_ms[peer] = now_ms

    def heard_ms(self, peer: str) -> float | None:
        """When a message of the peer last came; None: never."""
        return self._heard_ms.get(peer)

    def present(self, peer: str, message: Presence, came_ms: float) -> None:
        """The peer is there."""
        came_us = int(came_ms * 1000)
        self._echo_us[peer] = (message.sent_us, came_us)
        if message.echo_us:
            self._round_trip_us[peer] = max(0, came_us - message.echo_us - message.held_us)

    def presences(
        self, peers: Iterable[str], leads: list[tuple[int, int]], now_ms: float
    ) -> list[tuple[str, Presence]]:
        """What to tell whom; ``leads`` are the shards this node leads, and in which terms."""
        self._next_ms = (now_ms // self.interval_ms + 1) * self.interval_ms  # with the beats, in one frame
        now_us = int(now_ms * 1000)
        found = []
        for peer in peers:
            echo_us, came_us = self._echo_us.get(peer, (0, now_us))
            found.append((peer, Presence(0, now_us, echo_us, now_us - came_us, leads)))
        return found

    @property
    def next_presence_ms(self) -> float:
        """When everybody is to be told again."""
        return self._next_ms

    def hurry(self) -> None:
        """There is news, or somebody may have missed it: everybody is told at once."""
        self._next_ms = 0.0

    def silent_ms(self, peer: str, now_ms: float) -> float | None:
        """How long the peer has not been heard; None: never was."""
        heard_ms = self._heard_ms.get(peer)
        return None if heard_ms is None else now_ms - heard_ms

    def round_trip_us(self, peer: str) -> int | None:
        """Of the last answer."""
        return self._round_trip_us.get(peer)
