"""The lines one node holds, least recently used first to go.

A line is good for clients only while its *office* (the node's standing with the
leader of the shard, `cluster.cache.office`) is, and until ``end_ms``: its
key may end soon after that.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import nlargest
from itertools import islice

import msgspec

from cluster.cache.mesi import LINE, Action, Event, State
from cluster.cache.office import Office

LINE_BYTES = 280
"""What a line costs besides its key and value: as a process grows by 200,000 of them, 282 bytes were measured."""

FOREVER_MS = float("inf")

MUCH_READS = 2
"""A line that was read so often between two writes is better updated than taken from those who share it."""

LOOKED_AT_MAX = 100_000
"""How many lines `Lines.most_read` looks at: that takes some hundredths of a second."""


class Line(msgspec.Struct, gc=False, eq=False):
    """One line: ``value`` None says that there is no such key. It refers to nothing that refers to it.

    ``end_ms`` and ``dies_ms`` are on the node's monotonic clock: until when it may be used, and, where it was written
    here, when its key is to end.
    """

    office: Office
    value: bytes | None
    end_ms: float
    dies_ms: float | None = None
    state: State = State.INVALID
    reads: int = 0

    def move(self, event: Event) -> tuple[Action, ...]:
        """Goes on to the next state; what is to be done. A `KeyError` is a bug. `Lines.move` is for what is held."""
        self.state, actions = LINE[self.state, event]
        return actions


@dataclass(slots=True)
class Traffic:
    """What the lines went through since the start."""

    hits: int = 0
    misses: int = 0
    invalidations_received: int = 0
    write_backs: int = 0
    evictions: int = 0
    updates: int = 0
    leases_lost: int = 0


class Lines:
    """Lines by key, within ``max_bytes``: whoever adds some lets `overdue` ones go afterwards.

    ``counts`` says how many there are in each state.
    """

    __slots__ = ("_lines", "bytes", "counts", "get", "max_bytes", "touch")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.counts = dict.fromkeys(State, 0)
        self._lines: OrderedDict[bytes, Line] = OrderedDict()
        self.get = self._lines.get
        self.touch = self._lines.move_to_end

    def fits(self, key: bytes, value: bytes | None) -> bool:
        """Whether such a line can be held at all."""
        return size_bytes(key, value) <= self.max_bytes

    def add(self, key: bytes, line: Line) -> None:
        """Holds a line, in the place of another if there was one."""
        self.remove(key)
        self._lines[key] = line
        self.counts[line.state] += 1
        self.bytes += size_bytes(key, line.value)

    def remove(self, key: bytes) -> Line | None:
        """Forgets a line, and gives it back if there was one."""
        line = self._lines.pop(key, None)
        if line is not None:
            self.counts[line.state] -= 1
            self.bytes -= size_bytes(key, line.value)
        return line

    def move(self, line: Line, event: Event) -> tuple[Action, ...]:
        """One of these lines goes on to the next state; what is to be done."""
        self.counts[line.state] -= 1
        actions = line.move(event)
        self.counts[line.state] += 1
        return actions

    def change(self, key: bytes, line: Line, value: bytes) -> None:
        """A client gives a line another value."""
        self.replace(line, value)
        self.touch(key)

    def replace(self, line: Line, value: bytes | None) -> None:
        """A line has another value now; it was not used for that."""
        self.bytes += len(value or b"") - len(line.value or b"")
        line.value = value

    def overdue(self) -> Iterator[bytes]:
        """The lines to be removed now, one after the other, until the rest fits."""
        while self.bytes > self.max_bytes:
            yield next(iter(self._lines))

    def of(self, office: Office) -> list[bytes]:
        """The keys of the lines of one shard."""
        return [key for key, line in self._lines.items() if line.office is office]

    def check(self) -> None:
        """Raises `AssertionError` unless what is counted is there."""
        states = [line.state for line in self._lines.values()]
        assert self.counts == {state: states.count(state) for state in State}, (self.counts, states)
        assert self.bytes == sum(size_bytes(key, line.value) for key, line in self._lines.items())

    def most_read(self, count: int) -> list[tuple[bytes, Line]]:
        """Those that were read most since they were granted, most first, among the `LOOKED_AT_MAX` last used."""
        return nlargest(count, islice(reversed(self._lines.items()), LOOKED_AT_MAX), key=lambda one: one[1].reads)

    def __len__(self) -> int:
        return len(self._lines)


def size_bytes(key: bytes, value: bytes | None) -> int:
    """What such a line takes of ``max_bytes``."""
    return len(key) + len(value or b"") + LINE_BYTES
