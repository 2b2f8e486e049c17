"""The time a shard's log goes by, which lives and deadlines are counted in.

Whoever leads puts it into the entries. It passes at the pace of the leader's
monotonic clock, whatever is done to its wall clock; a follower keeps the time
of its leader going, so that a change of leader makes no jump. Where it is not
what the wall clock says it nears that slowly: forward by a hundredth, so that
no life is shorter by more than clocks may differ in pace anyway, and backward
by half.
"""

from __future__ import annotations

FORWARD = 0.01
BACKWARD = 0.5


class Pace:
    """One shard's clock on one node, in milliseconds since 1970."""

    __slots__ = ("_ms", "_set")

    def __init__(self) -> None:
        self._ms = 0.0
        self._set = False

    def pass_time(self, wall_ms: int, elapsed_ms: float) -> int:
        """So much time has passed, and the wall clock says that; what time it is. At first it is what that says."""
        if not self._set:
            self._set = True
            self._ms = float(wall_ms)
            return wall_ms
        ms = self._ms + elapsed_ms
        ahead_ms = ms - wall_ms
        if ahead_ms < 0:
            ms += min(-ahead_ms, elapsed_ms * FORWARD)
        else:
            ms -= min(ahead_ms, elapsed_ms * BACKWARD)
        self._ms = ms
        return int(ms)

    def follow(self, leader_ms: int) -> None:
        """The leader's clock says that."""
        self._set = True
        self._ms = float(leader_ms)
