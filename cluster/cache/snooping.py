"""How a node with a replica of a shard keeps the lines it shares while others write them: it watches its log.

Such a node is sent every entry anyway. One that names a key is what a message
to invalidate its line would be, and that the node has it in its log is the
answer: the leader commits the entry once all nodes that share the line have it
(`cluster.raft.demands`). From then on the line is *overwritten*: nobody reads
it until the entry is carried out here. Then it is what memory has here, shared
as before, and nothing was sent for it.

A line that is granted may be ahead of this node's log, or the log ahead of the
grant: grants say after which entry they were made. Entries from before it must
not count when they come: the owner of a line has changed it since, maybe, and
memory has it only later.
"""

from __future__ import annotations

from typing import Protocol

UNREAD_MAX = 3
"""A line that was overwritten so often without being read in between is given up."""


class Replica(Protocol):
    """A node's replica of a shard, as its cache sees it."""

    @property
    def last_index(self) -> int:
        """The last entry of its log."""

    @property
    def applied(self) -> int:
        """The last entry that is carried out."""

    @property
    def settled(self) -> int:
        """The last that is carried out and on the disk: none up to it is told of again, or replaced by another."""

    def last_naming(self, key: bytes, after: int) -> int:
        """The last entry behind ``after`` that names the key, or may have; 0 if there is none."""

    def is_lasting(self, key: bytes) -> bool:
        """Whether memory has a string without a deadline there, or nothing."""

    def value(self, key: bytes) -> bytes | None:
        """What memory has there, if that is so."""


class Overwritten:
    """The shared lines of one shard that entries in the log name."""

    __slots__ = ("_ahead", "_ahead_max", "_unread", "after")

    def __init__(self) -> None:
        self.after: dict[bytes, int] = {}  # by key: once this entry is carried out, the line can be read again
        self._ahead: dict[bytes, int] = {}  # lines that were granted after entries which may still be told of
        self._ahead_max = 0
        self._unread: dict[bytes, tuple[int, int]] = {}  # reads when it was last overwritten; how often since one

    def __bool__(self) -> bool:
        """Whether `carried_out` has anything to look at."""
        return bool(self.after or self._ahead)

    def __contains__(self, key: bytes) -> bool:
        return key in self.after

    def granted(self, key: bytes, index: int, replica: Replica, *, shared: bool) -> bool:
        """A line came, as it was after entry ``index``; whether it may be read, and is not overwritten already."""
        self.forget(key)
        if index > replica.settled:
            self._ahead[key] = index
            self._ahead_max = max(self._ahead_max, index)
        if shared:
            named = replica.last_naming(key, index)
            if named:
                self.after[key] = named
        return key not in self.after

    def counts(self, key: bytes, index: int) -> bool:
        """Whether the entry came after the line was granted."""
        return index > self._ahead.get(key, 0)

    def add(self, key: bytes, index: int, reads: int) -> None:
        """An entry that names a shared line came; ``reads`` is how often the line was read."""
        if key not in self.after:
            before, unread = self._unread.get(key, (-1, 0))
            self._unread[key] = reads, unread + 1 if reads == before else 0
        self.after[key] = index

    def carried_out(self, replica: Replica) -> list[bytes]:
        """The lines that can be read again."""
        applied, last, ahead = replica.applied, replica.last_index, self._ahead
        found = [
            key
            for key, index in self.after.items()
            if applied >= min(index, last) and applied >= ahead.get(key, 0)  # what is waited for may have been cut off
        ]
        if replica.settled >= self._ahead_max:
            ahead.clear()
        for key in found:
            del self.after[key]
        return found

    def is_unread(self, key: bytes) -> bool:
        """Whether nobody here has read the line for several writes."""
        return self._unread.get(key, (0, 0))[1] >= UNREAD_MAX

    def forget(self, key: bytes) -> None:
        """The line is gone, or another came."""
        self.after.pop(key, None)
        self._ahead.pop(key, None)
        self._unread.pop(key, None)
