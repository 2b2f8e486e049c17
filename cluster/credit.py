"""Until when this node may keep its clients' sessions: the shards' leaders do not end them before.

A leader ends the sessions of a node that it has not been in touch with for
``session-timeout`` (silence.py). The node must have closed those clients by
then, without being told. So it keeps a *credit* for every shard: a time on its
own clock from which on whoever leads the shard counts its silence, or from
later on. Credit comes from

- its own presences: a leader that says when one of them came, and that it
  showed both hear each other, counts from then at the earliest. A leader may
  have been followed by another and not know; so it says how long ago it was
  still certain to lead. The next one counts from when it began, which was later;
- leading the shard itself, for the same reason;
- its own start, for all shards: what a client asked after that reached no
  leader before, and a leader counts from there as well.

Nine tenths of the timeout after the credit the shard *lapses*. The last tenth
is for clocks that differ in pace. docs/architecture.md has the whole argument.
"""

from __future__ import annotations

from cluster.raft.messages import Presence

SHARE = 0.9
"""The part of the timeout after which a node closes its clients."""

HELD_SHARE = 0.9
"""What another node measured took at least this part of it on this node's clock."""

FOREVER_MS = float("inf")


class Credit:
    """One node's credit for each of so many ``shards``, in milliseconds of its own monotonic clock.

    ``timeout_ms`` is the node's own; where others say they have a shorter one it goes by that.
    ``next_ms`` is when the next shard lapses, or somewhat earlier.
    """

    def __init__(self, shards: int, timeout_ms: float) -> None:
        self.keep_ms = timeout_ms * SHARE
        self.next_ms = 0.0
        self._timeout_ms = timeout_ms
        self._timeouts_ms: dict[str, int] = {}  # of others, as they last said
        self._began_ms: float | None = None
        self._credit_ms = [0.0] * shards

    def note(self, number: int, at_ms: float) -> None:
        """Nobody who may end sessions in that shard (the system's has none) counts from before ``at_ms``."""
        if number < len(self._credit_ms) and at_ms > self._credit_ms[number]:
            self._credit_ms[number] = at_ms
            self.next_ms = min(self.next_ms, at_ms + self.keep_ms)

    def hear(self, peer: str, message: Presence, now_ms: float) -> None:
        """What a presence says of the shards its sender leads."""
        self._heed(peer, message.session_timeout_ms)
        sent_ms, held_ms = message.echo_us / 1000, message.held_us / 1000
        if not message.both_ways or self._began_ms is None:
            return
        if not self._began_ms <= sent_ms <= now_ms - held_ms * HELD_SHARE:
            return  # it was said by this node before the machine was started anew, with another clock
        doubts_us = dict(message.doubts)
        for number, _ in message.leads:
            self.note(number, sent_ms + min(0.0, held_ms - doubts_us.get(number, 0) / 1000))

    def _heed(self, peer: str, timeout_ms: int) -> None:
        if timeout_ms and self._timeouts_ms.get(peer) != timeout_ms:
            self._timeouts_ms[peer] = timeout_ms
            self.keep_ms = min(self._timeout_ms, *self._timeouts_ms.values()) * SHARE
            self.next_ms = 0.0

    def lapsed(self, now_ms: float) -> list[int]:
        """The shards whose credit is used up."""
        if self._began_ms is None:
            self._began_ms = now_ms
            self._credit_ms = [now_ms] * len(self._credit_ms)
        last_ms = now_ms - self.keep_ms
        left_ms = [credit_ms for credit_ms in self._credit_ms if credit_ms > last_ms]
        self.next_ms = min(left_ms) + self.keep_ms if left_ms else FOREVER_MS
        if len(left_ms) == len(self._credit_ms):
            return []
        return [number for number, credit_ms in enumerate(self._credit_ms) if credit_ms <= last_ms]
