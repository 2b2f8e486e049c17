"""Who waits for whom: the waits of each owner, and the edges they make.

The index is derived from the machine's waiters and never saved. A wait can end
in many places, none of which tells it; so a wait that is over is recognised
when it is met, and all of those go once they may outnumber the rest.
"""

from __future__ import annotations

from collections.abc import Iterator

from cluster.deadlock import Edge
from cluster.machine.keyspace import Keyspace
from cluster.machine.lock import Lock
from cluster.machine.waiters import Waiter, Waiters

SLACK = 64


class LockWaits:
    """The waits for locks by owner."""

    __slots__ = ("_by_owner", "_noted", "_waiters")

    def __init__(self, waiters: Waiters) -> None:
        self._waiters = waiters
        self.rebuild()

    def rebuild(self) -> None:
        """Reads all waits afresh."""
        self._by_owner: dict[bytes, dict[int, Waiter]] = {}
        self._noted = 0
        for waiter in self._waiters.everyone():
            if waiter.kind == Lock.kind:
                self._put(waiter)

    def note(self, waiter: Waiter) -> None:
        """A wait for a lock began."""
        self._put(waiter)
        if self._noted > 2 * len(self._waiters) + SLACK:
            self.rebuild()

    def _put(self, waiter: Waiter) -> None:
        self._by_owner.setdefault(waiter.args[2], {})[waiter.number] = waiter
        self._noted += 1

    def of(self, owner: bytes) -> list[Waiter]:
        """The owner's waits for locks, oldest first."""
        waits = self._by_owner.get(owner)
        if waits is None:
            return []
        over = [number for number, waiter in waits.items() if self._waiters.of(waiter.origin) is not waiter]
        for number in over:
            del waits[number]
        self._noted -= len(over)
        if not waits:
            del self._by_owner[owner]
        return list(waits.values())

    def edges(self, owner: bytes, keyspace: Keyspace) -> Iterator[Edge]:
        """Whom the owner waits for.

        The holders are enough: who stands behind another waiter waits for the
        same holders as that one does.
        """
        for waiter in self.of(owner):
            for key in waiter.keys:
                lock = keyspace.values.get(key)
                if type(lock) is Lock:
                    for hold in lock.holders():
                        if hold.owner != owner:
                            yield Edge(owner, hold.owner, key)
