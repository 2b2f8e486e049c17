"""A semaphore as a value: how many places it has, and who holds how many of them."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from cluster.machine.hold import Hold, Holding


class Semaphore(Holding, array_like=True, gc=False):
    """A semaphore of which places are held, by owner in the order they came; ``used`` is their sum.

    ``limit`` may be less than that, when it was lowered.
    """

    kind: ClassVar[bytes] = b"semaphore"
    encoding: ClassVar[bytes] = b"semaphore"

    limit: int
    used: int
    by_owner: dict[bytes, Hold]

    def holder(self, owner: bytes) -> Hold | None:
        """What ``owner`` has of it."""
        return self.by_owner.get(owner)

    def holders(self) -> Collection[Hold]:
        """Every hold, the longest-standing first."""
        return self.by_owner.values()

    def leave(self, hold: Hold) -> None:
        """Takes out one of several holders with all it has."""
        del self.by_owner[hold.owner]
        self.used -= hold.holds
