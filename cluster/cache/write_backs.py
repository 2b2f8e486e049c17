"""What clients wrote to one node's lines, until memory has it.

A line that is written is *dirty* until it is sent to the leader of its shard: when
that is overdue, when a client wants all of them flushed, and at once when the line
goes or is to be shared. What is sent is kept, by shard, until the leader says that
it is carried out: see `cluster.cache.office`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from math import ceil
from typing import NamedTuple

from cluster.batch import Client
from cluster.cache.lines import Lines, Traffic
from cluster.cache.mesi import Event
from cluster.cache.office import REPEAT_MS, Cell, Office
from cluster.machine.caches import NO_DEADLINE
from cluster.machine.reply import CommandError, Reply
from cluster.raft.messages import Message, WriteBack

CELLS_MAX = 1000
"""Lines in one write-back."""


UNFLUSHED = CommandError("it is not known whether all that was dirty is in memory, or will be", "UNCERTAIN")


class Flush(NamedTuple):
    """Who waits until so many lines are in memory: of each shard for all write-backs up to a number."""

    client: Client
    lines: int
    since_ms: float
    waits: tuple[tuple[Office, int], ...]

    @property
    def open(self) -> list[Office]:
        """The shards where they are not all carried out yet."""
        return [office for office, number in self.waits if office.unconfirmed.has_any_up_to(number)]


class WriteBacks:
    """Those of one node. ``overdue_ms`` is how long a line may be dirty.

    ``say`` sends a message to a shard's leader, and ``wake`` says when to `look` again. Whoever
    calls tells the time on the node's monotonic clock.
    """

    def __init__(
        self,
        author: bytes,
        lines: Lines,
        traffic: Traffic,
        *,
        overdue_ms: float,
        say: Callable[[Office, Message], None],
        wake: Callable[[float], None],
    ) -> None:
        self.author = author
        self.traffic = traffic
        self.overdue_ms = overdue_ms
        self._held = lines
        self._say = say
        self._wake = wake
        self._dirty: OrderedDict[bytes, float] = OrderedDict()  # keys of lines in M, with since when
        self._flushes: list[Flush] = []
        self._flushed: list[tuple[Client, Reply]] = []

    def allow(self, overdue_ms: float) -> None:
        """How long a line may be dirty from now on, those included that are so already."""
        if overdue_ms < self.overdue_ms:
            self._wake(0.0)
        self.overdue_ms = overdue_ms

    def note(self, key: bytes, now_ms: float) -> None:
        """A line was written."""
        self._dirty.setdefault(key, now_ms)
        self._wake(now_ms + self.overdue_ms)

    def count(self, offices: Iterable[Office]) -> int:
        """How many lines of these shards, which are all, memory does not have as they are, or may not have."""
        return len(self._dirty) + sum(office.unconfirmed.lines for office in offices)

    # Sending

    def send(self, office: Office, keys: Iterable[bytes], now_ms: float) -> None:
        """Sends those of a shard's lines that are dirty. They are still here; whoever calls it moves their states."""
        cells: list[Cell] = []
        for key in keys:
            if self._dirty.pop(key, None) is None:
                continue
            line = self._held.get(key)
            assert line is not None
            assert line.value is not None
            cells.append(Cell(key, line.value, line.dies_ms))
        if not cells:
            return
        office.last += 1
        office.unconfirmed.add(office.last, cells, now_ms)
        self.traffic.write_backs += len(cells)
        self._push(office, now_ms)
        self._wake(now_ms + REPEAT_MS)

    def send_all(self, now_ms: float) -> None:
        """Sends all that is dirty."""
        by_office: dict[Office, list[bytes]] = {}
        for key in self._dirty:
            by_office.setdefault(self._office_of(key), []).append(key)
        for office, keys in by_office.items():
            for at in range(0, len(keys), CELLS_MAX):
                self._clean(office, keys[at : at + CELLS_MAX], now_ms)

    def look(self, offices: Iterable[Office], now_ms: float) -> None:
        """Sends what is overdue, and once more what has not been confirmed for long."""
        self._send_overdue(now_ms)
        for office in offices:
            unconfirmed = office.unconfirmed
            if unconfirmed:
                if now_ms >= unconfirmed.sent_ms + REPEAT_MS:
                    unconfirmed.sent_ms = now_ms
                    self.resend(office, now_ms)
                self._wake(unconfirmed.sent_ms + REPEAT_MS)

    def _send_overdue(self, now_ms: float) -> None:
        overdue: dict[Office, list[bytes]] = {}
        count = 0
        for key, since_ms in self._dirty.items():
            if now_ms < since_ms + self.overdue_ms or count == CELLS_MAX:
                self._wake(max(now_ms, since_ms + self.overdue_ms))
                break
            office = self._office_of(key)
            if not office.unconfirmed.is_full:
                overdue.setdefault(office, []).append(key)
                count += 1
        for office, keys in overdue.items():
            self._clean(office, keys, now_ms)

    def _clean(self, office: Office, keys: list[bytes], now_ms: float) -> None:
        """Sends lines that are dirty, and stay: they are E from then on."""
        for key in keys:
            line = self._held.get(key)
            assert line is not None
            self._held.move(line, Event.CLEAN)
        self.send(office, keys, now_ms)

    def _office_of(self, key: bytes) -> Office:
        line = self._held.get(key)
        assert line is not None
        return line.office

    def resend(self, office: Office, now_ms: float) -> None:
        """Nothing of what was sent to a shard's leader counts: it is sent again."""
        office.unconfirmed.send_again()
        self._push(office, now_ms)

    def _push(self, office: Office, now_ms: float) -> None:
        if not office.term:
            return
        for number, cells in office.unconfirmed.to_send():
            told = [word for cell in cells for word in (cell.key, cell.value, _rest_of(cell, now_ms))]
            self._say(office, WriteBack(office.term, self.author, office.base, number, told))

    # What becomes of it

    def confirm(self, office: Office, number: int, now_ms: float) -> None:
        """The leader of a shard says that all up to that number are carried out."""
        office.unconfirmed.confirm(number, now_ms)
        self._push(office, now_ms)

    def lose(self, office: Office, keys: Iterable[bytes]) -> int:
        """Neither what is dirty of a shard's lines, these, nor what was sent may ever be in memory: how many lines."""
        lost = office.unconfirmed.lines + sum(self._dirty.pop(key, None) is not None for key in keys)
        self._fail(lambda flush: office in flush.open)
        office.unconfirmed.give_up()
        return lost

    def flush(self, client: Client, offices: Iterable[Office], now_ms: float) -> None:
        """Sends all that is dirty; `flushed` has the client when all that was sent is carried out."""
        count = len(self._dirty)
        self.send_all(now_ms)
        waits = tuple((office, office.last) for office in offices if office.unconfirmed)
        self._flushes.append(Flush(client, count, now_ms, waits))

    def give_up(self, before_ms: float, is_lost: Callable[[int], bool]) -> None:
        """Answers those whose flushes wait since then, or for a shard that has no leader."""
        if self._flushes:
            self._fail(lambda flush: flush.since_ms <= before_ms or any(is_lost(one.number) for one in flush.open))

    def _fail(self, is_hopeless: Callable[[Flush], bool]) -> None:
        """What it was about goes on all the same, as far as there is anything left of it."""
        failed = [flush for flush in self._flushes if flush.open and is_hopeless(flush)]
        self._flushed += [(flush.client, UNFLUSHED) for flush in failed]
        self._flushes = [flush for flush in self._flushes if flush not in failed]

    def flushed(self) -> list[tuple[Client, Reply]]:
        """Whose flushes are over since this was last asked, with how many lines were dirty, or that it is uncertain."""
        self._flushed += [(flush.client, flush.lines) for flush in self._flushes if not flush.open]
        self._flushes = [flush for flush in self._flushes if flush.open]
        told, self._flushed = self._flushed, []
        return told


def _rest_of(cell: Cell, now_ms: float) -> bytes:
    """How much of its life is left: the leader's clock says when that ends, as this node's may be behind."""
    return NO_DEADLINE if cell.dies_ms is None else b"%d" % max(0, ceil(cell.dies_ms - now_ms))
