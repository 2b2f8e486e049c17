"""The tail of the log that is kept in memory, and how far the disk has it.

Entries from ``base_index + 1`` on are here; the checkpoint stands for those
before. Three marks, in the order they move:

    base_index <= saved_index <= sent_index <= last_index

What is up to ``saved_index`` is durable; what is up to ``sent_index`` was
handed to the disk. A conflict cuts the end off and takes the marks back with it.

Weak spot: all of it is memory. The checkpoint cuts it, so it stays near
``checkpoint-log-bytes``, and a follower that is behind is served without a disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cluster.storage.contract import Entry

ENTRY_BYTES = 100
"""What an entry costs besides its payload, about."""


class Log:
    """One shard's log from its last compaction on."""

    __slots__ = ("_entries", "base_index", "base_term", "bytes", "last_index", "saved_index", "sent_index")

    def __init__(self, base_index: int, base_term: int, saved: Iterable[Entry]) -> None:
        """``saved`` are the entries the disk has behind the base, without a gap."""
        self.restart(base_index, base_term, saved)

    def restart(self, base_index: int, base_term: int, saved: Iterable[Entry] = ()) -> None:
        """Begins anew, as behind an installed snapshot."""
        self._entries = list(saved)
        self.base_index = base_index
        self.base_term = base_term
        self.last_index = base_index + len(self._entries)
        self.saved_index = self.sent_index = self.last_index
        self.bytes = sum(len(entry.payload) + ENTRY_BYTES for entry in self._entries)

    @property
    def last_term(self) -> int:
        """The term of the last entry."""
        return self._entries[-1].term if self._entries else self.base_term

    def term(self, index: int) -> int | None:
        """The term of an entry, None when it is not known here: compacted, or not there."""
        place = index - self.base_index - 1
        if 0 <= place < len(self._entries):
            return self._entries[place].term
        return self.base_term if place == -1 else None

    def holds(self, index: int, term: int) -> bool:
        """Whether the log has this entry, or had it before it was compacted."""
        return index < self.base_index or self.term(index) == term

    def entry(self, index: int) -> Entry:
        """An entry that is here."""
        return self._entries[index - self.base_index - 1]

    def slice_from(self, first: int) -> list[Entry]:
        """The entries from ``first`` on, which must be here."""
        return self._entries[first - self.base_index - 1 :]

    def slice(self, first: int, bytes_max: int, last: int | None = None) -> list[Entry]:
        """Entries from ``first`` on (to ``last``), the first one and then as many as fit into ``bytes_max``."""
        start = first - self.base_index - 1
        stop = len(self._entries) if last is None else last - self.base_index
        if stop - start == 1:
            return self._entries[start:stop]
        end, size = start, 0
        while end < stop:
            size += len(self._entries[end].payload) + ENTRY_BYTES
            if size > bytes_max and end > start:
                break
            end += 1
        return self._entries[start:end]

    def append(self, entry: Entry) -> None:
        """Adds the next entry."""
        assert entry.index == self.last_index + 1
        self._entries.append(entry)
        self.last_index = entry.index
        self.bytes += len(entry.payload) + ENTRY_BYTES

    def cut_from(self, index: int) -> None:
        """Drops the entry at ``index`` and all behind it: they lost a conflict, or never happened."""
        place = index - self.base_index - 1
        self.bytes -= sum(len(entry.payload) + ENTRY_BYTES for entry in self._entries[place:])
        del self._entries[place:]
        self.last_index = index - 1
        self.saved_index = min(self.saved_index, self.last_index)
        self.sent_index = min(self.sent_index, self.last_index)

    def unsent(self) -> list[Entry]:
        """What the disk has not been given yet; it counts as given from now on."""
        found = self._entries[self.sent_index - self.base_index :]
        self.sent_index = self.last_index
        return found

    def saved(self, entries: Sequence[Entry]) -> None:
        """The disk has these; what a conflict replaced meanwhile does not count."""
        last = entries[-1]
        if last.index > self.saved_index and self.term(last.index) == last.term:
            self.saved_index = last.index

    def unsaved_again(self) -> None:
        """The disk failed: what it was given must be given again."""
        self.sent_index = self.saved_index

    def compact(self, index: int) -> None:
        """Forgets the entries up to ``index``, which a checkpoint contains and the disk has."""
        if index <= self.base_index:
            return
        term = self.term(index)
        assert term is not None, "a log is compacted within itself only"
        place = index - self.base_index
        self.bytes -= sum(len(entry.payload) + ENTRY_BYTES for entry in self._entries[:place])
        del self._entries[:place]
        self.base_index, self.base_term = index, term
