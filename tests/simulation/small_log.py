"""The log of a small world, and what nodes with a replica have of it: never changed, so that states may share it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from cluster.batch import nobodys, payload_of
from cluster.cache.naming import named_in
from cluster.machine.machine import Machine
from resp_server.commands.table import Table

KEY = b"k"
COMMANDS = Table().machine_commands()

Calls = tuple[tuple[bytes, ...], ...]


class Entry(NamedTuple):
    """Commands, and which operations they answer."""

    term: int
    calls: Calls
    ops: tuple[int, ...] = ()

    @property
    def payload(self) -> bytes:
        """As it is in a log."""
        return payload_of(0, [nobodys([list(call) for call in self.calls])])


_machines: dict[tuple[Calls, ...], Machine] = {}
_named: dict[tuple[Calls, bytes], dict[bytes, None] | None] = {}


def forget() -> None:
    """What was made by other rules."""
    _machines.clear()
    _named.clear()


class Log:
    """Entries; the first has index 1."""

    __slots__ = ("entries",)

    def __init__(self, entries: tuple[Entry, ...] = ()) -> None:
        self.entries = entries

    @property
    def last_index(self) -> int:
        """That of the last entry."""
        return len(self.entries)

    def after(self, entry: Entry) -> Log:
        """With one more."""
        return Log((*self.entries, entry))

    def upto(self, index: int) -> Log:
        """Without those behind it."""
        return self if index == self.last_index else Log(self.entries[:index])

    def common(self, other: Log) -> int:
        """Up to where both are the same."""
        same = min(self.last_index, other.last_index)
        while self.entries[:same] != other.entries[:same]:
            same -= 1
        return same

    def machine(self, index: int) -> Machine:
        """The memory once so much is carried out."""
        calls = tuple(entry.calls for entry in self.entries[:index])
        machine = _machines.get(calls)
        if machine is None:
            machine = _machines[calls] = Machine(COMMANDS)
            for one in calls:
                machine.apply(1, [(machine.handler(call[0]), list(call), b"") for call in one])
        return machine

    def memory(self, index: int) -> bytes | None:
        """What the key has then."""
        value = self.machine(index).keyspace.values.get(KEY)
        assert value is None or isinstance(value, bytes)
        return value

    def named(self, index: int, author: bytes) -> dict[bytes, None] | None:
        """See `named_in`."""
        entry = self.entries[index - 1]
        at = entry.calls, author
        if at not in _named:
            _named[at] = named_in(entry.payload, author)
        return _named[at]


class Replica:
    """A node's; ``base`` is the last entry that came as a snapshot."""

    def __init__(self, author: bytes, log: Log, applied: int = 0) -> None:
        self.author = author
        self.log = log
        self.applied = applied
        self.base = 0

    @property
    def last_index(self) -> int:
        """As the controller asks."""
        return self.log.last_index

    @property
    def settled(self) -> int:
        """As the controller asks: what is in the log is on the disk."""
        return self.applied

    def last_naming(self, key: bytes, after: int) -> int:
        """As the controller asks."""
        for index in range(self.last_index, max(after, self.base), -1):
            named = self.log.named(index, self.author)
            if named is None or key in named:
                return index
        return self.base if self.base > after else 0

    def is_lasting(self, key: bytes) -> bool:
        """As the controller asks."""
        return True

    def value(self, key: bytes) -> bytes | None:
        """As the controller asks."""
        return self.log.memory(self.applied) if key == KEY else None

    def print(self) -> Hashable:
        """Equal for those with which the same can happen."""
        return self.last_index, self.applied, self.base, self.log.memory(self.applied), self.log.entries[self.applied :]
