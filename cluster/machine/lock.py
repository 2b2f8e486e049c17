"""A lock as a value: who holds it.

A lock is held by one owner exclusively or by any number of owners together. A
hold gets a new token when it begins and when a shared hold becomes exclusive,
so that what it sent while it shared the lock is told from what it sends while
it owns it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from cluster.machine.hold import Hold, Holding


class Lock(Holding, array_like=True, gc=False):
    """A lock that is held: by ``exclusive``, or by every hold in ``shared`` (by owner, in the order they came)."""

    kind: ClassVar[bytes] = b"lock"
    encoding: ClassVar[bytes] = b"lock"

    exclusive: Hold | None
    shared: dict[bytes, Hold]

    @property
    def mode(self) -> bytes:
        """How it is held: ``exclusive`` or ``shared``."""
        return b"shared" if self.exclusive is None else b"exclusive"

    def holder(self, owner: bytes) -> Hold | None:
        """What ``owner`` has of it."""
        hold = self.exclusive
        if hold is None:
            return self.shared.get(owner)
        return hold if hold.owner == owner else None

    def holders(self) -> Collection[Hold]:
        """Every hold, the longest-standing first."""
        return self.shared.values() if self.exclusive is None else (self.exclusive,)

    def leave(self, hold: Hold) -> None:
        """Takes out one of several sharers."""
        del self.shared[hold.owner]

    def suffices(self, owner: bytes, *, exclusive: bool) -> bool:
        """Whether what ``owner`` has of it is all it asks for."""
        return self.holder(owner) is not None and not (exclusive and self.exclusive is None)
