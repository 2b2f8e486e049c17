"""Who waits for whom: what each owner waits for and holds, and the edges between them.

Both indexes are derived from waiters and locks and never saved. They are those
of a shard's machine or, where somebody looks at many shards, a copy of a part
of these.

Weak spot: an owner that holds something and begins to wait behind very many
who wait for several keys, or who all share, walks past all of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from cluster.deadlock import Edge
from cluster.machine.lock import Lock
from cluster.machine.lock_requests import owner_at, wants_exclusive
from cluster.machine.waiters import Waiter, Waiters

Values: TypeAlias = Mapping[bytes, Any]
"""Values by key: what is no `Lock` holds nobody up."""


class Changes:
    """What happened to waits for locks since somebody last looked.

    Waits that ``begun`` and did not end since, by number; numbers of others that
    ``ended``; and ``keys`` that are waited for and got or lost a holder. One that
    was moved in its line has ended and begun.
    """

    __slots__ = ("begun", "ended", "keys")

    def __init__(self, waiters: Iterable[Waiter] = ()) -> None:
        self.begun = {waiter.number: waiter for waiter in waiters}
        self.ended: dict[int, None] = {}
        self.keys: dict[bytes, None] = {}


class LockWaits:
    """The waits for locks by owner, and the locks held by owner; ``changes`` are kept while somebody looks at them."""

    __slots__ = ("_by_owner", "_held", "_waiters", "changes")

    def __init__(self, waiters: Waiters) -> None:
        self.changes: Changes | None = None
        self._waiters = waiters
        self._by_owner: dict[bytes, dict[int, Waiter]] = {}
        self._held: dict[bytes, dict[bytes, None]] = {}
        waiters.watchers[Lock.kind] = self

    # Waits

    def begun(self, waiter: Waiter) -> None:
        """A wait began, or is in another place in its line."""
        self._by_owner.setdefault(owner_of(waiter), {})[waiter.number] = waiter
        if self.changes is not None:
            self.changes.begun[waiter.number] = waiter

    def ended(self, waiter: Waiter) -> None:
        """It is over."""
        owner = owner_of(waiter)
        waits = self._by_owner[owner]
        del waits[waiter.number]
        if not waits:
            del self._by_owner[owner]
        changes = self.changes
        if changes is not None and changes.begun.pop(waiter.number, None) is None:
            changes.ended[waiter.number] = None

    def of(self, owner: bytes) -> list[Waiter]:
        """The owner's waits for locks, oldest first."""
        waits = self._by_owner.get(owner)
        return [waits[number] for number in sorted(waits)] if waits is not None else []

    # Holds

    def took(self, owner: bytes, key: bytes) -> None:
        """The owner holds ``key`` from now on."""
        held = self._held.get(owner)
        if held is None:
            self._held[owner] = {key: None}
        else:
            held[key] = None
        self._changed(key)

    def gave_up(self, owner: bytes, key: bytes) -> None:
        """The owner does not hold ``key`` any more."""
        held = self._held.get(owner)
        if held is not None:
            held.pop(key, None)
            if not held:
                del self._held[owner]
        self._changed(key)

    def _changed(self, key: bytes) -> None:
        if self.changes is not None and self._waiters.first(key, Lock.kind) is not None:
            self.changes.keys[key] = None

    def held_by(self, owner: bytes) -> Iterable[bytes]:
        """The keys the owner holds, those whose time is up and that have not ended yet among them."""
        return self._held.get(owner, ())

    # Edges

    def edges(self, owner: bytes, values: Values) -> Iterator[Edge]:
        """Whom the owner waits for: holders only; ``values`` are those of the keys that are locks, or of all.

        Who stands behind another waiter waits for the same holders as that one
        does. That tells nothing new, unless that one waits for other keys, too.
        """
        for waiter in self.of(owner):
            yield from self._edges_of(owner, waiter, values)

    def _edges_of(self, owner: bytes, waiter: Waiter, values: Values) -> Iterator[Edge]:
        reached = {waiter.number}
        ahead: deque[tuple[Waiter, bytes, tuple[tuple[bytes, bytes], ...]]] = deque([(waiter, owner, ())])
        while ahead:
            one, its_owner, behind = ahead.popleft()
            for key in wanting(one, its_owner, values):
                for holder in self.holders_before(one, its_owner, key, values):
                    yield Edge(owner, holder, key, behind)
                for other in self._waiters.wide_before(one, key):
                    if other.number not in reached:
                        reached.add(other.number)
                        other_owner = owner_of(other)
                        ahead.append((other, other_owner, (*behind, (key, other_owner))))

    def holders_before(self, waiter: Waiter, owner: bytes, key: bytes, values: Values) -> Iterator[bytes]:
        """The other owners who hold ``key`` and must give it back before the waiter's turn can come there.

        Sharers need not, for one who wants to share, unless somebody before it does not.
        """
        lock = values.get(key)
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


def wanting(waiter: Waiter, owner: bytes, values: Values) -> Iterator[bytes]:
    """The keys it waits for: what its owner has enough of already is not among them."""
    exclusive = _is_exclusive(waiter)
    for key in waiter.keys:
        lock = values.get(key)
        if type(lock) is not Lock or not lock.suffices(owner, exclusive=exclusive):
            yield key
