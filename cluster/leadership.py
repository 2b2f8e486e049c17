"""What a node does beside Raft while it leads: entries out of what came in, and reads for those who ask.

An entry holds a part for each node that wrote in the turn. It is made when
there is such a part, or when something is due: then reads wait for it, so
that what is due has happened before anybody looks.
"""

from __future__ import annotations

import msgspec

from cluster import batch as batches
from cluster.clients import Clients
from cluster.forwarding import Forwarding
from cluster.hosting import Hosting
from cluster.raft.core import Raft
from cluster.raft.leading import Leading
from cluster.raft.messages import AskRead, Forward, Look, Message, Readable

ENTRIES_AHEAD_MAX = 64
"""A leader this many entries ahead of what is committed lets its batch grow instead."""


class Leadership:
    """One node's part in its group while it leads; empty-handed otherwise. ``outbox`` is what it sends."""

    def __init__(
        self,
        raft: Raft,
        clients: Clients,
        forwarding: Forwarding,
        hosting: Hosting,
        outbox: list[tuple[str, Message]],
    ) -> None:
        self._raft = raft
        self._clients = clients
        self._forwarding = forwarding
        self._hosting = hosting
        self._outbox = outbox
        self._led: Leading | None = None  # the term of office that was begun last
        self._settled: Leading | None = None  # the one that was settled last
        self._rung_index = 0  # the last entry that was made because something was due
        self._asked: list[tuple[str, int]] = []  # reads of others that wait for what is due to happen

    @property
    def begins(self) -> bool:
        """Whether Raft won a term of office that was not begun."""
        return self._raft.leading is not self._led

    def begin(self) -> bool:
        """Begins a term of office, if Raft won one since the last call; whether it did."""
        leading = self._raft.leading
        if leading is self._led:
            return False
        self._led = leading
        self._forwarding.begin_to_lead()
        self._hosting.begin()
        self._asked.clear()
        self._rung_index = 0
        return leading is not None

    def settles(self) -> bool:
        """Whether the first entry of this term of office was just carried out: then all the others hear of it at once.

        They learn from it what of former terms happened, and may send the rest again.
        """
        leading = self._raft.leading
        if leading is None or leading is self._settled or not leading.settled:
            return False
        self._settled = leading
        for peer in leading.progress:
            leading.tell(peer)
        return True

    @property
    def ringing(self) -> bool:
        """Whether an entry that will ring what is due is on its way."""
        return self._raft.applied < self._rung_index

    @property
    def holding_back(self) -> bool:
        """Whether no entry is made just now.

        Leadership is being handed over, or too many entries are under way, or it is
        not known yet what became of those this node made or forwarded before it led.
        """
        raft = self._raft
        assert raft.leading is not None
        if raft.leading.successor is not None:
            return True
        if not raft.leading.settled and self._clients.outstanding.sent_before(raft.term):
            return True
        return raft.log.last_index - raft.commit >= ENTRIES_AHEAD_MAX

    def has_work(self, *, due: bool) -> bool:
        """Whether `propose` would do something."""
        asked = self._clients.open.calls or self._clients.owed or self._forwarding.parts
        return bool(asked or (due and not self.ringing)) and not self.holding_back

    def taken_back(self) -> None:
        """The last entries were taken out of the log again."""
        self._rung_index = 0

    def take(self, peer: str, message: Forward) -> None:
        """Another node's batch, for the next entry."""
        raft = self._raft
        if message.wanted and not self._hosting.take(peer, message):
            return
        if raft.leading is not None and message.term == raft.term and raft.leading.successor is None:
            self._forwarding.take(message)

    def ask(self, peer: str, message: AskRead, *, due: bool) -> None:
        """Another node wants to read; what is due happens first, in an entry that it must wait for."""
        raft = self._raft
        if raft.leading is not None and message.term == raft.term:
            self._ask(peer, message.number, due=due)

    def look(self, peer: str, message: Look, *, due: bool) -> None:
        """A node without a replica wants this one to read for it."""
        if self._raft.leading is not None and self._hosting.look(peer, message):
            self._ask(peer, message.number, due=due)

    def _ask(self, peer: str, number: int, *, due: bool) -> None:
        assert self._raft.leading is not None
        if due:
            self._asked.append((peer, number))
        else:
            self._raft.leading.ask_read(peer, number)

    def propose(self, now_ms: int, *, due: bool) -> None:
        """Makes this turn's entry: of what came from clients here and from other nodes, or of what is due."""
        raft, leading, clients = self._raft, self._raft.leading, self._clients
        assert leading is not None
        if clients.owed:
            clients.settle_debts()
        again = clients.outstanding.to_send(raft.term)
        if again:
            for batch in again:
                batch.term = raft.term
                self._forwarding.parts.append((clients.author, batch.number, msgspec.Raw(batch.body)))
        batch = clients.open
        rings = due and (bool(batch.calls or self._asked) or not self.ringing)
        if batch.writes or self._forwarding.parts or rings:
            if not self.holding_back:
                self._make_entry(now_ms, due=due)
        elif batch.calls:
            leading.ask_read(raft.name, clients.close(raft.now_ms, raft.term, logged=False).number)

    def _make_entry(self, now_ms: int, *, due: bool) -> None:
        raft, leading, clients = self._raft, self._raft.leading, self._clients
        assert leading is not None
        parts, self._forwarding.parts = self._forwarding.parts, []
        index = raft.log.last_index + 1
        if clients.open.calls:
            batch = clients.close(raft.now_ms, raft.term, logged=True)
            if batch.lost is None:
                batch.index = index
                parts.append((clients.author, batch.number, msgspec.Raw(batch.body)))
        raft.propose(batches.payload_of(now_ms, parts))
        if due:
            self._rung_index = index
        leading.replicate_all()
        for peer, number in self._asked:
            leading.ask_read(peer, number, index)
        self._asked.clear()

    def pass_on_reads(self, now_ms: int) -> None:
        """Tells those who asked which of their reads the lease or a majority has confirmed."""
        raft, leading = self._raft, self._raft.leading
        if leading is None or not leading.confirmed:
            return
        confirmed, leading.confirmed = leading.confirmed, []
        for asked in confirmed:
            if self._hosting.confirmed(asked, now_ms):
                continue
            if asked.peer == raft.name:
                self._clients.outstanding.readable(asked.number, asked.index, now_ms)
            else:
                self._outbox.append((asked.peer, Readable(raft.term, asked.number, asked.index, now_ms)))
                leading.tell(asked.peer)
