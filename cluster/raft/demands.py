"""Entries that certain members must have, whatever a majority has, before they count as committed.

As the holders of read leases do in Paxos Quorum Leases (Moraru, Andersen, Kaminsky,
2014): who may answer reads without asking must know of a write before anybody
sees it. Who makes demands also excuses those that cannot meet them any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class Demands:
    """Of one leader, by member."""

    __slots__ = ("_by_member",)

    def __init__(self) -> None:
        self._by_member: dict[str, deque[int]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_member)

    def add(self, member: str, index: int) -> None:
        """The member must have entry ``index``, which is the last one demanded of it or a later one."""
        indexes = self._by_member.setdefault(member, deque())
        if not indexes or indexes[-1] < index:
            indexes.append(index)

    def excuse(self, member: str) -> None:
        """Nothing that was demanded of it so far is waited for any more."""
        self._by_member.pop(member, None)

    def members(self) -> list[str]:
        """Those that had not met all their demands when `allowed` was last called."""
        return list(self._by_member)

    def allowed(self, index: int, match: Callable[[str], int]) -> int:
        """Up to where entries may be committed, ``index`` at most; ``match`` is what a member has."""
        for member, indexes in list(self._by_member.items()):
            reached = match(member)
            while indexes and indexes[0] <= reached:
                indexes.popleft()
            if indexes:
                index = min(index, indexes[0] - 1)
            else:
                del self._by_member[member]
        return index
