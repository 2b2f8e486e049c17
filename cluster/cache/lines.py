"""The lines one node holds, least recently used first to go.

On the node that holds the shard itself the memory behind a line is at hand: a
line is good exactly as long as the keyspace still holds the very value it was
filled with, so nothing can make it lie. Writes go through the log before they
are answered; a line is therefore never dirty, and its state is E (this node
alone holds it) or I.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

EXCLUSIVE = b"E"
INVALID = b"I"

LINE_BYTES = 150
"""What a line costs besides its key and value."""


@dataclass(slots=True)
class Traffic:
    """What the lines went through since the start."""

    hits: int = 0
    misses: int = 0
    invalidations_received: int = 0
    evictions: int = 0


class Lines:
    """Cached values by key, within ``max_bytes``."""

    __slots__ = ("_lines", "bytes", "max_bytes", "traffic")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.traffic = Traffic()
        self._lines: OrderedDict[bytes, bytes] = OrderedDict()

    def read(self, key: bytes, memory: bytes | None) -> bytes | None:
        """The value through this node's line; ``memory`` is what the keyspace holds."""
        line = self._lines.get(key)
        if line is not None:
            if line is memory:
                self.traffic.hits += 1
                self._lines.move_to_end(key)
                return line
            self.drop(key)
            self.traffic.invalidations_received += 1
        self.traffic.misses += 1
        if memory is not None:
            self.fill(key, memory)
        return memory

    def fill(self, key: bytes, value: bytes) -> None:
        """This node holds ``value`` from now on."""
        self.drop(key)
        size_bytes = len(key) + len(value) + LINE_BYTES
        if size_bytes > self.max_bytes:
            return
        self._lines[key] = value
        self.bytes += size_bytes
        while self.bytes > self.max_bytes:
            self.drop(next(iter(self._lines)))
            self.traffic.evictions += 1

    def drop(self, key: bytes) -> bool:
        """Gives a line up; whether there was one."""
        value = self._lines.pop(key, None)
        if value is None:
            return False
        self.bytes -= len(key) + len(value) + LINE_BYTES
        return True

    def state(self, key: bytes, memory: bytes | None) -> bytes:
        """The line's MESI state."""
        line = self._lines.get(key)
        return EXCLUSIVE if line is not None and line is memory else INVALID

    def resize(self, max_bytes: int) -> None:
        """A new limit, from now on."""
        self.max_bytes = max_bytes
        while self.bytes > max_bytes:
            self.drop(next(iter(self._lines)))
            self.traffic.evictions += 1

    def __len__(self) -> int:
        return len(self._lines)
