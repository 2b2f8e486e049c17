"""Reads that were answered under a lease which ran out in their turn: whether anybody may see them is known later.

A round of heartbeats that were sent after the reads, and that a majority
answers, shows that nobody else was elected before them (Raft 6.4): they were
not stale, and nor was what the leader read in lines of its own. Likewise where
a line of the cache was used elsewhere, a lease that its leader renewed shows that
nobody was given the line before. So a turn that took too long costs its
readers a round trip, and not their connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.cache.office import Office
    from cluster.raft.leading import Leading
    from cluster.shard import Shard


class Doubt:
    """Shards that were read under a leader's lease, each with the term of office, and when that was at the latest.

    ``used`` are those that others lead, and whose lines were.
    """

    __slots__ = ("_at_ms", "_read", "_used")

    def __init__(self, read: Sequence[tuple[Shard, Leading | None]], at_ms: float, used: Sequence[Office] = ()) -> None:
        self._read = read
        self._at_ms = at_ms
        self._used = [(office, office.term, office.base) for office in used]

    def verdict(self) -> bool | None:
        """Whether what was read was not stale; None while that may still become known."""
        if any(leading is None or shard.raft.leading is not leading for shard, leading in self._read):
            return False
        if any((office.term, office.base) != (term, base) for office, term, base in self._used):
            return False
        if any(office.until_ms <= self._at_ms for office, _, _ in self._used):
            return None
        return all(leading is not None and leading.led_at(self._at_ms) for _, leading in self._read) or None
