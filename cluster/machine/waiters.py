"""The one wait queue under every blocking command.

A client waits with the command it sent. When a key it waits for may serve it,
its command's *retry* is run; the first come is tried first, and a retry that
says it must go on waiting lets nobody behind it be tried. Those who wait for
different kinds of value under one key do not stand in each other's way.
Whether a wait ends by being served, by its deadline or with its session, it
ends in one entry of the log, so every replica agrees who was served.

A wait for several keys stands in the line of each, in the same place by age,
and is over in all of them at once; it is served when its retry finds all it
needs, so its retry looks whether it comes first wherever it has to.

An *origin* names the session a command came from; it has at most one wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from typing import Protocol

import msgspec

from cluster.machine.clockwork import Alarm, Clockwork

WAIT = 1  # the alarm of a wait's deadline


class Waiter(msgspec.Struct, array_like=True):
    """One waiting command.

    ``kind`` is the type of value it waits for. ``since_ms`` and ``deadline_ms`` (None: for ever) are times of the log;
    ``number`` grows with every wait of the shard's life; ``null_array`` says
    which null the client gets when the time is up. At the keys in ``urgent`` it
    goes before those that are not.
    """

    origin: bytes
    number: int
    kind: bytes
    keys: list[bytes]
    args: list[bytes]
    since_ms: int
    deadline_ms: int | None
    null_array: bool
    urgent: list[bytes] = []


class Watcher(Protocol):
    """Who is told of every wait of a kind."""

    def begun(self, waiter: Waiter) -> None:
        """A wait began."""

    def ended(self, waiter: Waiter) -> None:
        """It is over, however that came."""


class Waiters:
    """Who waits for which key, in order; ``begun`` is the number of the latest wait. ``watchers`` are told, by kind."""

    __slots__ = ("_by_key", "_by_origin", "_clockwork", "_wide", "begun", "watchers")

    def __init__(self, clockwork: Clockwork) -> None:
        self._clockwork = clockwork
        self._by_origin: dict[bytes, Waiter] = {}
        self._by_key: dict[bytes, dict[bytes, dict[int, Waiter]]] = {}  # by key and kind
        self._wide: dict[bytes, dict[int, Waiter]] = {}  # by key, those who wait for others, too
        self.begun = 0
        self.watchers: dict[bytes, Watcher] = {}

    def next_number(self) -> int:
        """The number of the wait that begins now."""
        self.begun += 1
        return self.begun

    def add(self, waiter: Waiter) -> None:
        """Begins a wait."""
        self.begun = max(self.begun, waiter.number)
        self._by_origin[waiter.origin] = waiter
        for key in waiter.keys:
            lines = self._by_key.setdefault(key, {})
            line = lines.setdefault(waiter.kind, {})
            last = next(reversed(line.values()), None)
            line[waiter.number] = waiter
            if last is not None and _place(waiter, key) < _place(last, key):
                lines[waiter.kind] = {one.number: one for one in _in_order(line, key)}
            if len(waiter.keys) > 1:
                self._wide.setdefault(key, {})[waiter.number] = waiter
        if waiter.deadline_ms is not None:
            self._clockwork.set(waiter.deadline_ms, Alarm(WAIT, b"", waiter.origin))
        watcher = self.watchers.get(waiter.kind)
        if watcher is not None:
            watcher.begun(waiter)

    def remove(self, waiter: Waiter) -> None:
        """Ends a wait."""
        del self._by_origin[waiter.origin]
        for key in waiter.keys:
            lines = self._by_key[key]
            del lines[waiter.kind][waiter.number]
            if not lines[waiter.kind]:
                del lines[waiter.kind]
                if not lines:
                    del self._by_key[key]
            if len(waiter.keys) > 1:
                del self._wide[key][waiter.number]
                if not self._wide[key]:
                    del self._wide[key]
        if waiter.deadline_ms is not None:
            self._clockwork.cancel(waiter.deadline_ms, Alarm(WAIT, b"", waiter.origin))
        watcher = self.watchers.get(waiter.kind)
        if watcher is not None:
            watcher.ended(waiter)

    def of(self, origin: bytes) -> Waiter | None:
        """The wait of one session."""
        return self._by_origin.get(origin)

    def at(self, key: bytes, kind: bytes) -> list[Waiter]:
        """Those who wait for a value of ``kind`` at ``key``, in the order they will be tried."""
        lines = self._by_key.get(key)
        return list(lines[kind].values()) if lines and kind in lines else []

    def first(self, key: bytes, kind: bytes) -> Waiter | None:
        """The one of them who will be tried first."""
        lines = self._by_key.get(key)
        return next(iter(lines[kind].values())) if lines and kind in lines else None

    def last(self, key: bytes, kind: bytes) -> Waiter | None:
        """The one of them who will be tried last."""
        lines = self._by_key.get(key)
        return next(reversed(lines[kind].values())) if lines and kind in lines else None

    def before(self, waiter: Waiter, key: bytes) -> Iterator[Waiter]:
        """Those who will be tried before ``waiter`` at ``key``, the first of them first."""
        return takewhile(lambda other: other is not waiter, self._by_key[key][waiter.kind].values())

    def wide_before(self, waiter: Waiter, key: bytes) -> list[Waiter]:
        """Those who will be tried before ``waiter`` at ``key`` and wait for other keys, too; the first first."""
        wide = self._wide.get(key)
        if not wide:
            return []
        place = _place(waiter, key)
        before = [other for other in wide.values() if other.kind == waiter.kind and _place(other, key) < place]
        return sorted(before, key=lambda other: _place(other, key))

    def kinds(self, key: bytes) -> list[bytes]:
        """What kinds of value are waited for at ``key``, in an order that does not depend on who left."""
        lines = self._by_key.get(key)
        return sorted(lines) if lines is not None else []

    def keys(self) -> Iterator[bytes]:
        """The keys somebody waits for."""
        return iter(self._by_key)

    def everyone(self) -> list[Waiter]:
        """Every waiter, in the order they began."""
        return sorted(self._by_origin.values(), key=lambda waiter: waiter.number)

    def __len__(self) -> int:
        return len(self._by_origin)


def _place(waiter: Waiter, key: bytes) -> tuple[bool, int]:
    """What the line at ``key`` is ordered by."""
    return key not in waiter.urgent, waiter.number


def _in_order(line: dict[int, Waiter], key: bytes) -> list[Waiter]:
    return sorted(line.values(), key=lambda waiter: _place(waiter, key))
