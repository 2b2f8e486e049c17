"""Carrying out what is committed: every part of every entry, on every node.

The part that this node wrote is the batch its clients wait for: it is taken
from them with its calls as they were given, so that reads run in their places
and nothing is decoded; all other parts are decoded from the entry.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cluster import batch as batches
from cluster.batch import Batch
from cluster.clients import Clients, ask_again
from cluster.machine.machine import UNBLOCK, Call, Machine
from cluster.machine.reply import WAITING, Reply
from cluster.outcomes import Outcomes, Waiting
from cluster.raft.membership import MARK
from cluster.storage.contract import Entry
from cluster.waits import OwnWaits


class Unreadable(Exception):
    """A committed entry means nothing to this version: the node cannot go on, the state would differ from others'."""


class Carrying:
    """Carries out the entries of one shard, one after the other.

    ``term`` is that of the last one. ``concerned`` collects the parts of others
    in what was carried out: (author, number), in order. ``outcomes`` has what
    was answered to them. ``numbers`` is the last batch of each author that was
    carried out, ever: part of the state.
    """

    def __init__(self, clients: Clients, waits: OwnWaits) -> None:
        self.term = 0
        self.concerned: list[tuple[bytes, int]] = []
        self.outcomes = Outcomes()
        self.numbers: dict[bytes, int] = {}
        self._clients = clients
        self._waits = waits
        self._waits_begun = 0  # before the entry that is being carried out
        self._given_up: list[bytes] = []  # sessions of this node whose part of the entry nobody waits for

    def carry_out(self, machine: Machine, entry: Entry, now_ms: float) -> None:
        """One committed entry, and the answers to the part of it that is this node's own. Raises `Unreadable`.

        ``now_ms`` is the node's monotonic time.
        """
        clients = self._clients
        if entry.term > self.term:
            self.term = entry.term
            clients.outstanding.never_before(entry.term, after=self.outcomes.since_term)
        payload = entry.payload
        if not payload or payload[:1] == MARK:
            return
        self._given_up.clear()
        try:
            time_ms, calls, mine, others = self._calls(machine, payload)
        except (LookupError, msgspec.MsgspecError) as error:
            raise Unreadable(f"entry {entry.index}: {error}") from error
        self._waits_begun = machine.waiters.begun
        replies = machine.apply(time_ms, calls)
        if self._given_up:
            self._end_waits(machine, mine)
        for start, batch in mine:
            if batch.lost is not None or batch.answers is not None:
                clients.answer(machine, batch)
            else:
                clients.carried_out(batch, _told(machine, batch, _share(replies, start, len(batch.calls)), entry))
        for part in others:
            self._remember(machine, calls, part, _share(replies, part[0], part[1]), now_ms)

    def _remember(
        self, machine: Machine, calls: list[Call], part: tuple[int, int, bytes, int], replies: list[Any], now_ms: float
    ) -> None:
        """Keeps what was answered to another node's part; a wait that began there by its number."""
        start, _, author, number = part
        self.concerned.append((author, number))
        if machine.waiters.begun != self._waits_begun:
            ended = {origin: wait for origin, wait, _ in machine.woken}
            for place, reply in enumerate(replies):
                if reply is WAITING:
                    origin = calls[start + place][2]
                    waiter = machine.waiters.of(origin)
                    replies[place] = Waiting(waiter.number if waiter is not None else ended.get(origin, 0))
        self.outcomes.carried_out(now_ms, author, number, replies)

    def _calls(
        self, machine: Machine, payload: bytes
    ) -> tuple[int, list[Call], list[tuple[int, Batch]], list[tuple[int, int, bytes, int]]]:
        """The time and the calls of an entry, and whose they are.

        From where on which batches of this node's clients stand among the calls;
        and from where on how many of which author and number.
        """
        time_ms, parts = batches.parts_in(payload)
        calls: list[Call] = []
        mine: list[tuple[int, Batch]] = []
        others: list[tuple[int, int, bytes, int]] = []
        for author, number, body in parts:
            if not author:
                calls = calls + self._decoded(machine, author, body)
                continue
            if author not in self.numbers:
                self._begin_author(author)
            self.numbers[author] = number
            own = self._clients.take(number) if author == self._clients.author else []
            for batch in own:
                mine.append((len(calls), batch))
                if batch.lost is None and batch.answers is None:
                    calls = calls + batch.calls if calls else batch.calls
            if not own or own[-1].lost is not None or own[-1].answers is not None:
                decoded = self._decoded(machine, author, body)
                if author != self._clients.author:
                    others.append((len(calls), len(decoded), author, number))
                calls = calls + decoded if calls else decoded
        return time_ms, calls, mine, others

    def _begin_author(self, author: bytes) -> None:
        """A node in a new run: nobody asks for those before any more."""
        run = author[: author.index(b".") + 1]
        for former in [one for one in self.numbers if one.startswith(run)]:
            del self.numbers[former]

    def never(self, author: bytes, number: int, term: int) -> bool:
        """Whether a batch sent in a term that is over certainly was not carried out, and never will be."""
        return number > self.numbers.get(author, 0) or self.outcomes.never(author, number, term)

    def _decoded(self, machine: Machine, author: bytes, body: msgspec.Raw) -> list[Call]:
        """The calls of a part that nobody here waits for."""
        writes, origins = batches.writes_in(body)
        handler = machine.handler
        if not origins:
            return [(handler(args[0]), args, b"") for args in writes]
        calls = [(handler(args[0]), args, origins.get(place, b"")) for place, args in enumerate(writes)]
        if author == self._clients.author:
            self._given_up += origins.values()
        return calls

    def _end_waits(self, machine: Machine, mine: list[tuple[int, Batch]]) -> None:
        """Ends what began to wait in this entry for clients who were told that it is uncertain, and do not wait.

        Only that wait: the session may be about to begin another.
        """
        answered = {origin for _, batch in mine if batch.lost is None for origin in batch.origins.values()}
        for origin in self._given_up:
            waiter = machine.waiters.of(origin)
            if waiter is None or origin in answered or self._waits.told.get(origin) == waiter.number:
                continue
            self._clients.owe(unblocking(machine, origin, number=waiter.number))


def _share(replies: list[Reply], start: int, count: int) -> list[Reply]:
    """The replies to one part of an entry."""
    return replies if count == len(replies) else replies[start : start + count]


def _told(machine: Machine, batch: Batch, replies: list[Reply], entry: Entry) -> list[Reply]:
    """The replies to this node's batch in an entry, or right before it.

    What was read beside the back of the entry's leader may be stale while there are caches; so may be what that came to
    know of, and had a cache write back for, only after the entry.
    """
    named = batch.named and batch.term == entry.term
    if named or not batch.reads or not machine.caches.known:
        return replies
    if batch.read_index is not None and batch.read_index < entry.index:
        return replies
    told = list(replies)
    for place in batch.reads:
        told[place] = ask_again()
    return told


def unblocking(machine: Machine, origin: bytes, reason: bytes = b"TIMEOUT", *, number: int | None = None) -> Call:
    """The call that ends a session's wait: as its deadline would, or with an error (``ERROR``).

    It does nothing if the session does not wait, or no longer the wait of that ``number``.
    """
    args = [UNBLOCK, origin, reason] if number is None else [UNBLOCK, origin, reason, b"%d" % number]
    return machine.handler(UNBLOCK), args, b""
