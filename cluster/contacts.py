"""Who is there: what was last heard of each node, and what every node tells every other about itself.

Once in an election timeout a node tells every other that it
is there (`Presence`), and at once when it begins or ceases to lead
a shard. So everybody knows whom to ask for which shard, and who is silent.

Two nodes are *in touch* while each hears the other: a presence that came says
which of this node's own the peer has heard. One that sends and hears nothing
is no better off than one that is cut off, and neither are its clients.
"""

from __future__ import annotations

from collections.abc import Iterable

from cluster.raft.messages import Presence

REACHABLE_TIMEOUTS = 2
"""A peer not heard for so many election timeouts counts as unreachable."""

IN_TOUCH_INTERVALS = 3
"""What a peer heard last was sent at most so many intervals ago, else it does not hear this node: it takes two."""


FOREVER_MS = float("inf")


class Contacts:
    """What was heard of whom, in milliseconds of the node's own clock.

    ``sending`` are peers to whom something large is still on its way out of this
    node: what it was sent is not lost while that lasts, and not repeated.
    """

    __slots__ = ("_echo_us", "_heard_ms", "_in_touch_ms", "_next_ms", "_round_trip_us", "interval_ms", "sending")

    def __init__(self, interval_ms: float) -> None:
        self.interval_ms = interval_ms
        self.sending: dict[str, None] = {}
        self._heard_ms: dict[str, float] = {}
        self._round_trip_us: dict[str, int] = {}
        self._in_touch_ms: dict[str, float] = {}
        # What the peer's last presence said, when it came, and whether it showed that it hears this node.
        self._echo_us: dict[str, tuple[int, int, bool]] = {}
        self._next_ms = 0.0

    def heard(self, peer: str, now_ms: float) -> None:
        """A message of the peer came."""
        self._heard_ms[peer] = now_ms

    def heard_ms(self, peer: str) -> float | None:
        """When a message of the peer last came; None: never."""
        return self._heard_ms.get(peer)

    def hears(self, peer: str, since_ms: float) -> bool:
        """Whether a message of the peer came after that."""
        return self._heard_ms.get(peer, -FOREVER_MS) > since_ms

    def present(self, peer: str, message: Presence, came_ms: float) -> None:
        """The peer is there."""
        came_us = int(came_ms * 1000)
        age_us = came_us - message.echo_us
        both_ways = bool(message.echo_us) and 0 <= age_us <= IN_TOUCH_INTERVALS * self.interval_ms * 1000
        if both_ways:
            self.touched(peer, came_ms)
        self._echo_us[peer] = (message.sent_us, came_us, both_ways)
        if message.echo_us:
            self._round_trip_us[peer] = max(0, came_us - message.echo_us - message.held_us)

    def touched(self, peer: str, now_ms: float) -> None:
        """What came of the peer shows that it hears this node, or brought commands of its clients."""
        self._in_touch_ms[peer] = max(now_ms, self._in_touch_ms.get(peer, 0.0))

    def in_touch_ms(self, peer: str) -> float:
        """When that last was so; 0: never."""
        return self._in_touch_ms.get(peer, 0.0)

    def out_of_touch(self, since_ms: float) -> dict[str, float]:
        """The peers of which that was not so after ``since_ms`` any more, and when it last was."""
        return {peer: at_ms for peer, at_ms in self._in_touch_ms.items() if at_ms <= since_ms}

    def presences(
        self,
        peers: Iterable[str],
        leads: list[tuple[int, int]],
        now_ms: float,
        *,
        doubts: list[tuple[int, int]],
        session_timeout_ms: int,
    ) -> list[tuple[str, Presence]]:
        """What to tell whom: the shards this node leads, in which terms, with what doubts (see `Presence`)."""
        self._next_ms = (now_ms // self.interval_ms + 1) * self.interval_ms  # with the beats, in one frame
        now_us = int(now_ms * 1000)
        found = []
        for peer in peers:
            echo_us, came_us, both_ways = self._echo_us.get(peer, (0, now_us, False))
            held_us = now_us - came_us
            found.append((peer, Presence(0, now_us, echo_us, held_us, leads, both_ways, doubts, session_timeout_ms)))
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
