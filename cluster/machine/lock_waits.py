"""Who waits for whom: what each owner waits for and holds, and the edges between them.

Both indexes are derived from the machine's waiters and locks and never saved.
A wait can end in many places, none of which tells it; so a wait that is over
is recognised when it is met, and all of those go once they may outnumber the rest.

Weak spot: an owner that holds something and begins to wait behind very many
who wait for several keys, or who all share, walks past all of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from cluster.deadlock import Edge
from cluster.machine.keyspace import Keyspace
from cluster.machine.lock import Lock
from cluster.machine.lock_requests import owner_at, wants_exclusive
from cluster.machine.waiters import Waiter, Waiters

SLACK = 64


class LockWaits:
    """The waits for locks by owner, and the locks held by owner."""

    __slots__ = ("_by_owner", "_held", "_noted", "_waiters")

    def __init__(self, waiters: Waiters) -> None:
        self._waiters = waiters
        self._held: dict[bytes, dict[bytes, None]] = {}
        self.rebuild()

    # Waits

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
        self._by_owner.setdefault(owner_of(waiter), {})[waiter.number] = waiter
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

    # Holds

    def took(self, owner: bytes, key: bytes) -> None:
        """The owner holds ``key`` from now on."""
        held = self._held.get(owner)
        if held is None:
            self._held[owner] = {key: None}
        else:
            held[key] = None

    def gave_up(self, owner: bytes, key: bytes) -> None:
        """The owner does not hold ``key`` any more."""
        held = self._held.get(owner)
        if held is not None:
            held.pop(key, None)
            if not held:
                del self._held[owner]

    def held_by(self, owner: bytes) -> Iterable[bytes]:
        """The keys the owner holds, those whose time is up and that have not ended yet among them."""
        return self._held.get(owner, ())

    # Edges

    def edges(self, owner: bytes, keyspace: Keyspace) -> Iterator[Edge]:
        """Whom the owner waits for: holders only.

        Who stands behind another waiter waits for the same holders as that one
        does. That tells nothing new, unless that one waits for other keys, too.
        """
        for waiter in self.of(owner):
            yield from self._edges_of(owner, waiter, keyspace)

    def _edges_of(self, owner: bytes, waiter: Waiter, keyspace: Keyspace) -> Iterator[Edge]:
        reached = {waiter.number}
        ahead: deque[tuple[Waiter, bytes, tuple[tuple[bytes, bytes], ...]]] = deque([(waiter, owner, ())])
        while ahead:
            one, its_owner, behind = ahead.popleft()
            for key in wanting(one, its_owner, keyspace):
                for holder in self.holders_before(one, its_owner, key, keyspace):
                    yield Edge(owner, holder, key, behind)
                for other in self._waiters.wide_before(one, key):
                    if other.number not in reached:
                        reached.add(other.number)
                        other_owner = owner_of(other)
                        ahead.append((other, other_owner, (*behind, (key, other_owner))))

    def holders_before(self, waiter: Waiter, owner: bytes, key: bytes, keyspace: Keyspace) -> Iterator[bytes]:
        """The other owners who hold ``key`` and must give it back before the waiter's turn can come there.

        Sharers need not, for one who wants to share, unless somebody before it does not.
        """
        lock = keyspace.values.get(key)
        if type(lock) is Lock and (
            lock.exclusive is not None
            or _is_exclusive(waiter)
            or any(map(_is_exclusive, self._waiters.before(waiter, key)))
        ):
            for hold in lock.holders():
                if hold.owner != owner:
                    yield hold.owner


def _is_exclusive(waiter: Waiter) -> bool:
    return wants_exclusive(waiter.args, owner_at(waiter.args))


def owner_of(waiter: Waiter) -> bytes:
    """The owner that waits for a lock."""
    return waiter.args[owner_at(waiter.args)]


def wanting(waiter: Waiter, owner: bytes, keyspace: Keyspace) -> Iterator[bytes]:
    """The keys it waits for: what its owner has enough of already is not among them."""
    exclusive = _is_exclusive(waiter)
    for key in waiter.keys:
        lock = keyspace.values.get(key)
        if type(lock) is not Lock or not lock.suffices(owner, exclusive=exclusive):
            yield key
