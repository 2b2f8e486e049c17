"""What the leader of a shard tells of its locks: who waits for which, and who holds those.

It tells the detector (cluster/detector.py), which puts together what it hears of
all shards. A wait that ends soon is never spoken of, so a lock that goes from
hand to hand costs little. Reports are numbered, and there is one at a time: the
next one says what happened since, once the last was heard. The first one of a
term, or to another detector, is ``fresh``: what was said before holds no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cluster.machine.lock import Lock
from cluster.machine.lock_waits import Changes
from cluster.machine.waiters import Waiter
from cluster.raft.messages import Contended

if TYPE_CHECKING:
    from cluster.shard import Shard

SHORT_MS = 10
"""A wait is told of when it is so old; and so long is between two reports."""

AGAIN_MS = 200.0
"""A report nobody seems to have heard is repeated after so long."""

WAITS_MAX = 1000
REPORT_BYTES = 256 * 1024
"""About the most that one report holds: more is left to the next."""

WAIT_BYTES = 100
"""About what a wait takes beside its command."""

NEVER_MS = float("inf")


class Report(msgspec.Struct, array_like=True):
    """Waits that began, the numbers of those that ended, in this order, and who holds locks that are waited for now."""

    begun: list[Waiter]
    ended: list[int]
    locks: list[tuple[bytes, Lock | None]]


_encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Report).decode


class Contention:
    """The reports of one shard, while this node leads it."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._machine = shard.machine
        self._number = 0
        self._told: dict[int, list[bytes]] = {}  # waits the detector knows of, by number, with their keys
        self._contended: dict[bytes, int] = {}  # how many of these wait for a key
        self._unheard: Contended | None = None
        self._sent_ms = 0.0
        self._fresh = True
        self._cut = False  # the last report had no room for all

    def begin_anew(self) -> None:
        """There is somebody, who is to be told all of it."""
        self.close()
        waits = (waiter for waiter in self._machine.waiters.everyone() if waiter.kind == Lock.kind)
        self._machine.lock_waits.changes = Changes(waits)

    def close(self) -> None:
        """Nobody is told any more, or it is not for this node to tell."""
        self._machine.lock_waits.changes = None
        self._told.clear()
        self._contended.clear()
        self._unheard = None
        self._fresh = True
        self._cut = False

    def heard(self, office: int, number: int) -> None:
        """The detector has this report."""
        unheard = self._unheard
        if unheard is not None and (unheard.office, unheard.number) == (office, number):
            self._unheard = None

    def next_ms(self) -> float:
        """When there will be something to say, on the monotonic clock; infinite when only an entry brings it."""
        changes, shard = self._machine.lock_waits.changes, self._shard
        if changes is None:
            return NEVER_MS
        if self._unheard is not None:
            return self._sent_ms + AGAIN_MS
        if self._cut:
            return self._sent_ms
        if self._fresh or changes.ended or changes.keys:
            return self._sent_ms + SHORT_MS
        for waiter in changes.begun.values():
            young_ms = max(0, waiter.since_ms + SHORT_MS - shard.now_ms)
            return max(self._sent_ms + SHORT_MS, shard.monotonic_ms + young_ms)
        return NEVER_MS

    def report(self, office: int) -> Contended | None:
        """What is to be said now to the detector that holds this office, None for nothing."""
        if self.next_ms() > self._shard.monotonic_ms:
            return None
        self._sent_ms = self._shard.monotonic_ms
        if self._unheard is not None:
            self._unheard = msgspec.structs.replace(self._unheard, now_ms=self._shard.now_ms)
        else:
            changes = self._machine.lock_waits.changes
            assert changes is not None, "else there is never anything to say"
            body = self._gather(changes)
            if body is None and not self._fresh:
                return None
            self._number += 1
            packed = _encode(body or Report([], [], []))
            term, now_ms = self._shard.raft.term, self._shard.now_ms
            self._unheard = Contended(term, office, self._number, self._fresh, now_ms, packed)
            self._fresh = False
        return self._unheard

    def _gather(self, changes: Changes) -> Report | None:
        told = self._told
        ended = list(changes.ended)
        changes.ended.clear()
        for number in ended:
            for key in told.pop(number):
                self._count(key, -1)
        begun = self._of_age(changes)
        keys = changes.keys
        changes.keys = {}
        for waiter in begun:
            del changes.begun[waiter.number]
            told[waiter.number] = waiter.keys
            for key in waiter.keys:
                self._count(key, 1)
                keys[key] = None
        values = self._machine.keyspace.values
        locks = [
            (key, lock if type(lock := values.get(key)) is Lock else None) for key in keys if key in self._contended
        ]
        return Report(begun, ended, locks) if begun or ended or locks else None

    def _of_age(self, changes: Changes) -> list[Waiter]:
        """The waits to tell of, oldest first."""
        self._cut = False
        found: list[Waiter] = []
        size_bytes, until_ms = 0, self._shard.now_ms - SHORT_MS
        for waiter in changes.begun.values():
            self._cut = len(found) == WAITS_MAX or size_bytes > REPORT_BYTES
            if self._cut or waiter.since_ms > until_ms:
                break
            found.append(msgspec.structs.replace(waiter, deadline_ms=None))
            size_bytes += WAIT_BYTES + sum(map(len, waiter.args))
        return found

    def _count(self, key: bytes, more: int) -> None:
        count = self._contended.get(key, 0) + more
        if count:
            self._contended[key] = count
        else:
            del self._contended[key]
