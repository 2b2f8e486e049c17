"""The keys of one shard and what they hold.

Strings are plain ``bytes``; every other type is an object with the methods of
`Value`. All changes go through `put`, `touch`, `remove` and `clear`, because
each of them does three things a handler must never forget: it marks the key
for the next checkpoint, hands the old value to a checkpoint under way, and
tells those who watch the key. A key's deadline and its alarm change together.

A checkpoint costs its readers nothing: values are not copied when it starts.
It walks the keys that changed since the one before, a slice at a time, while
commands go on; a value about to change before the walk reached it is stashed
(immutable values by reference, parts of large ones as a finished row).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import ClassVar, Protocol, TypeAlias
from zlib import crc32

from cluster.machine.clockwork import Alarm, Clockwork
from cluster.machine.reply import wrong_type
from cluster.storage.contract import Row

BUCKETS = 16384
STRING = b"string"
EXPIRY = 0  # the alarm of a key's deadline


class Value(Protocol):
    """A value that is not a string.

    ``kind`` is what TYPE answers. The value is stored as ``header()`` plus one
    row for each part that was touched; a small value has no parts.
    """

    kind: ClassVar[bytes]
    encoding: ClassVar[bytes]

    def header(self) -> bytes:
        """All of the value but its parts."""
        ...

    def parts(self) -> Iterable[bytes]:
        """The names of all its parts."""
        ...

    def part(self, part: bytes) -> bytes | None:
        """One part, or None when it is gone."""
        ...

    def copy(self) -> Value:
        """An independent copy, for COPY."""
        ...

    def size_bytes(self) -> int:
        """About how much memory it takes, for MEMORY USAGE."""
        ...


Held: TypeAlias = "bytes | Value"


class Cells:
    """What changed: keys, and parts of large values by their keys, each no more than its name."""

    __slots__ = ("keys", "parts")

    def __init__(self, keys: Iterable[bytes] = ()) -> None:
        self.keys = dict.fromkeys(keys)
        self.parts: dict[bytes, dict[bytes, None]] = {}

    def add_parts(self, key: bytes, names: Iterable[bytes]) -> None:
        """Parts of the value at ``key``."""
        for name in names:
            self.parts.setdefault(key, {})[name] = None

    def take(self, key: bytes, part: bytes) -> bool:
        """Takes one out; whether it was among them."""
        cells = self.parts.get(key) if part else self.keys
        name = part or key
        if cells is None or name not in cells:
            return False
        del cells[name]
        return True

    def pop(self, limit: int) -> Iterator[tuple[bytes, bytes]]:
        """Takes out up to ``limit``, each as its key and its part; the part is empty where it is the key's own."""
        while limit > 0 and self.keys:
            yield self.keys.popitem()[0], b""
            limit -= 1
        while limit > 0 and self.parts:
            key = next(reversed(self.parts))
            names = self.parts[key]
            while limit > 0 and names:
                yield key, names.popitem()[0]
                limit -= 1
            if not names:
                del self.parts[key]

    def __len__(self) -> int:
        return len(self.keys) + sum(map(len, self.parts.values()))


_GONE: tuple[None, None] = (None, None)


class Checkpoint:
    """What one checkpoint has still to write.

    ``cleared`` and ``erased`` go first; then `slice` until it is empty.
    """

    __slots__ = ("_deadlines", "_early", "_stash", "_values", "cleared", "erased", "pending")

    def __init__(
        self,
        values: dict[bytes, Held],
        deadlines: dict[bytes, int],
        pending: Cells,
        cleared: bool,
        erased: dict[bytes, None],
    ) -> None:
        self._values = values
        self._deadlines = deadlines
        self.pending = pending
        self.cleared = cleared
        self.erased = erased
        self._stash: dict[bytes, tuple[Held | None, int | None]] = {}
        self._early: list[Row] = []

    def about_to_replace(self, key: bytes) -> None:
        """Keeps what ``key`` holds now, before something else takes its place."""
        if key not in self._stash:
            value = self._values.get(key)
            # What has something to write is kept: a plain value is its own only
            # cell, a large one may have parts pending, and so may one that is gone.
            if key in self.pending.keys or key in self.erased or not isinstance(value, bytes | None):
                self._stash[key] = (value, self._deadlines.get(key)) if value is not None else _GONE

    def about_to_change(self, key: bytes, part: bytes) -> None:
        """Writes a cell of a large value now, before it changes in place."""
        if key not in self._stash and self.pending.take(key, part):
            self._early.append(self._row(key, part))

    def slice(self, limit: int) -> list[Row]:
        """Up to ``limit`` rows not written yet, or those written early; empty when all are."""
        rows, self._early = self._early, []
        rows += [self._row(key, part) for key, part in self.pending.pop(limit - len(rows))]
        return rows

    def _row(self, key: bytes, part: bytes) -> Row:
        stashed = self._stash.get(key)
        value, deadline_ms = stashed or (self._values.get(key), self._deadlines.get(key))
        if value is None:
            return Row(key, part, b"", None, None)
        if isinstance(value, bytes):
            return Row(key, part, STRING, deadline_ms, None if part else value)
        return Row(key, part, value.kind, deadline_ms, value.part(part) if part else value.header())


class Keyspace:
    """Keys, their values and their deadlines.

    ``values`` and ``deadlines`` may be read by anyone and are changed here only.
    ``changes`` counts changes for INFO. ``vacated`` lists non-string values
    that went away with their keys, ``touched`` the watched keys that changed;
    whoever runs commands settles and empties both.
    """

    __slots__ = (
        "_buckets",
        "_changed",
        "_checkpoint",
        "_cleared",
        "_clockwork",
        "_erased",
        "_observed",
        "_watched",
        "changes",
        "deadlines",
        "touched",
        "vacated",
        "values",
    )

    def __init__(self, clockwork: Clockwork) -> None:
        self.values: dict[bytes, Held] = {}
        self.deadlines: dict[bytes, int] = {}
        self.changes = 0
        self.vacated: list[tuple[bytes, Value]] = []
        self.touched: dict[bytes, None] = {}
        self._clockwork = clockwork
        self._watched: dict[bytes, int] = {}
        self._buckets: defaultdict[int, dict[bytes, None]] = defaultdict(dict)  # most shards have few keys
        self._changed = Cells()
        self._erased: dict[bytes, None] = {}
        self._cleared = False
        self._checkpoint: Checkpoint | None = None
        self._observed = False  # a checkpoint is under way or a key is watched

    # Reading

    def string(self, key: bytes) -> bytes | None:
        """The string at ``key``, or None; ``-WRONGTYPE`` for another type."""
        value = self.values.get(key)
        if value is None or type(value) is bytes:
            return value
        raise wrong_type()

    def scan(self, bucket: int, count: int) -> tuple[int, list[bytes]]:
        """Keys from ``bucket`` on until there are ``count``, and the bucket to go on with (0: that was all).

        A key never changes its bucket, so a key that is there during a whole
        walk is met exactly once, whatever comes and goes meanwhile.
        """
        keys: list[bytes] = []
        while bucket < BUCKETS:
            keys += self._buckets.get(bucket, ())
            bucket += 1
            if len(keys) >= count:
                break
        return bucket % BUCKETS, keys

    def bucket(self, number: int) -> list[bytes]:
        """The keys of one bucket of `BUCKETS`."""
        return list(self._buckets.get(number, ()))

    def hide(self, keys: Iterable[bytes]) -> list[tuple[bytes, Held, int | None]]:
        """Takes keys out of everybody's sight, for a moment: what `show` needs. It is no change, so nobody is told."""
        hidden: list[tuple[bytes, Held, int | None]] = []
        for key in keys:
            value = self.values.pop(key, None)
            if value is not None:
                del self._buckets[crc32(key) & (BUCKETS - 1)][key]
                hidden.append((key, value, self.deadlines.pop(key, None)))
        return hidden

    def show(self, hidden: Iterable[tuple[bytes, Held, int | None]]) -> None:
        """Puts back what `hide` took."""
        for key, value, deadline_ms in hidden:
            self.values[key] = value
            self._buckets[crc32(key) & (BUCKETS - 1)][key] = None
            if deadline_ms is not None:
                self.deadlines[key] = deadline_ms

    def __len__(self) -> int:
        return len(self.values)

    # Changing

    def put(self, key: bytes, value: Held) -> None:
        """Sets ``key`` to ``value``, leaving its deadline as it is."""
        if self._observed:
            self._notice(key)
        values = self.values
        old = values.get(key)
        if old is None:
            self._buckets[crc32(key) & (BUCKETS - 1)][key] = None
        elif not isinstance(old, bytes):
            self._displaced(key, old)
        values[key] = value
        self._changed.keys[key] = None
        self.changes += 1
        if not isinstance(value, bytes):
            self._changed.add_parts(key, value.parts())

    def touch(self, key: bytes, part: bytes = b"") -> None:
        """Announces that the value at ``key`` (or one part of it) is about to change in place."""
        if self._observed:
            if self._checkpoint is not None:
                self._checkpoint.about_to_change(key, part)
            if key in self._watched:
                self.touched[key] = None
        if not part:
            self._changed.keys[key] = None
        elif (names := self._changed.parts.get(key)) is not None:
            names[part] = None
        else:
            self._changed.parts[key] = {part: None}
        self.changes += 1

    def remove(self, key: bytes) -> bool:
        """Deletes ``key``; whether it was there."""
        old = self.values.get(key)
        if old is None:
            return False
        if self._observed:
            self._notice(key)
        if not isinstance(old, bytes):
            self._displaced(key, old)
        if key in self.deadlines:
            self._clockwork.cancel(self.deadlines.pop(key), Alarm(EXPIRY, key, b""))
        del self.values[key]
        del self._buckets[crc32(key) & (BUCKETS - 1)][key]
        self._changed.keys[key] = None
        self.changes += 1
        return True

    def move(self, key: bytes, to: bytes) -> None:
        """Gives the value at ``key``, which is there, and its deadline the name ``to`` instead."""
        value, deadline_ms = self.values[key], self.deadlines.get(key)
        if not isinstance(value, bytes):
            value = value.copy()  # its alarms, and a checkpoint under way, know the old one
        self.remove(key)
        self.put(to, value)
        self.set_deadline(to, deadline_ms)

    def set_deadline(self, key: bytes, deadline_ms: int | None) -> None:
        """Makes ``key``, which is there, end at ``deadline_ms``, or never."""
        old = self.deadlines.get(key)
        if old == deadline_ms:
            return
        if self._observed:
            self._notice(key)
        alarm = Alarm(EXPIRY, key, b"")
        if old is not None:
            self._clockwork.cancel(old, alarm)
        if deadline_ms is None:
            del self.deadlines[key]
        else:
            self.deadlines[key] = deadline_ms
            self._clockwork.set(deadline_ms, alarm)
        self._changed.keys[key] = None
        self.changes += 1

    def expire(self, key: bytes, due_ms: int) -> bool:
        """Deletes ``key`` if ``due_ms`` is still its deadline; whether it did."""
        return self.deadlines.get(key) == due_ms and self.remove(key)

    def clear(self) -> None:
        """Deletes every key at once."""
        self.changes += len(self.values)
        vacated = [(key, value) for key, value in self.values.items() if not isinstance(value, bytes)]
        self.vacated += sorted(vacated, key=itemgetter(0))  # a restored keyspace has its keys in another order
        for key in self._watched:
            if key in self.values:
                self.touched[key] = None
        for key, deadline_ms in self.deadlines.items():
            self._clockwork.cancel(deadline_ms, Alarm(EXPIRY, key, b""))
        # New dictionaries: a checkpoint under way goes on with the old ones.
        self.values = {}
        self.deadlines = {}
        self._buckets.clear()
        self._changed = Cells()
        self._erased = {}
        self._cleared = True

    def _notice(self, key: bytes) -> None:
        if self._checkpoint is not None:
            self._checkpoint.about_to_replace(key)
        if key in self._watched:
            self.touched[key] = None

    def _displaced(self, key: bytes, value: Value) -> None:
        """A value with parts goes: its rows and alarms must go with it, and its waiters must hear of it."""
        self._erased[key] = None
        self.vacated.append((key, value))

    # Watching

    def watch(self, key: bytes) -> None:
        """Lists ``key`` in ``touched`` whenever it changes, until `unwatch` was called as often."""
        self._watched[key] = self._watched.get(key, 0) + 1
        self._observed = True

    def watches(self, key: bytes) -> bool:
        """Whether ``key`` is watched."""
        return key in self._watched

    def unwatch(self, key: bytes) -> None:
        """Takes one `watch` back."""
        count = self._watched.pop(key) - 1
        if count:
            self._watched[key] = count
        self._observed = bool(self._watched) or self._checkpoint is not None

    # Checkpoints

    @property
    def unsaved(self) -> int:
        """How many cells changed since the last checkpoint began."""
        return len(self._changed) + len(self._erased) + self._cleared

    def begin_checkpoint(self) -> Checkpoint:
        """Starts a checkpoint of the state as it is now."""
        checkpoint = Checkpoint(self.values, self.deadlines, self._changed, self._cleared, self._erased)
        self._changed, self._erased, self._cleared = Cells(), {}, False
        self._checkpoint = checkpoint
        self._observed = True
        return checkpoint

    def end_checkpoint(self, *, durable: bool) -> None:
        """The checkpoint is durable, or it failed: then the next one writes everything."""
        self._checkpoint = None
        self._observed = bool(self._watched)
        if not durable:
            self._cleared = True
            self._erased = {}
            self._changed = Cells(self.values)
            for key, value in self.values.items():
                if not isinstance(value, bytes):
                    self._changed.add_parts(key, value.parts())

    def restore(self, key: bytes, value: Held, deadline_ms: int | None) -> None:
        """Puts a key back from a checkpoint's row."""
        self.values[key] = value
        if deadline_ms is not None:
            self.deadlines[key] = deadline_ms
            self._clockwork.set(deadline_ms, Alarm(EXPIRY, key, b""))
        self._buckets[crc32(key) & (BUCKETS - 1)][key] = None
