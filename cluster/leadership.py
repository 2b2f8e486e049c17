"""What a node does beside Raft while it leads: entries out of what came in, and reads for those who ask.

An entry holds a part for each node that wrote in the turn. It is made when
there is such a part, or when something is due: then reads wait for it, so
that what is due has happened before anybody looks.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from cluster import batch as batches
from cluster.batch import Batch
from cluster.cache.directory import Directory
from cluster.cache.former import FormerLeases
from cluster.clients import Clients
from cluster.forwarding import Forwarding
from cluster.gate import Gate, Kept, KeptReads
from cluster.hosting import Hosting
from cluster.machine import caches
from cluster.machine.machine import Machine
from cluster.raft.core import Raft
from cluster.raft.leading import Leading
from cluster.raft.messages import AskRead, Forward, Look, Message, NameReads, Readable

ENTRIES_AHEAD_MAX = 64
"""A leader this many entries ahead of what is committed lets its batch grow instead."""


class Leadership:
    """One node's part in its group while it leads; empty-handed otherwise.

    ``outbox`` is what it sends; ``gate`` what caches make it keep back.
    """

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
        self._asked: list[tuple[bytes, int]] = []  # reads of others that wait for what is due to happen
        self.began_ms = 0.0  # when that was, on the monotonic clock
        self._former: FormerLeases | None = None
        self._caching = False  # caches may hold lines, for all that is known before this node has carried out all
        self.gate = Gate()

    @property
    def begins(self) -> bool:
        """Whether Raft won a term of office that was not begun."""
        return self._raft.leading is not self._led

    def begin(self, machine: Machine) -> bool:
        """Begins a term of office, if Raft won one since the last call; whether it did."""
        leading = self._raft.leading
        if leading is self._led:
            return False
        self._led = leading
        self.began_ms = self._raft.now_ms
        self._forwarding.begin_to_lead()
        self._hosting.begin()
        self._asked.clear()
        self._rung_index = 0
        self.gate = Gate()
        if leading is not None:
            unknown = [entry.payload for entry in self._raft.log.slice_from(self._raft.applied + 1)]
            self._former = None
            self._caching = bool(machine.caches.known) or any(caches.JOIN in payload for payload in unknown)
            if self._caching:
                self._heed_leases(leading, machine, unknown)
        return leading is not None

    def _heed_leases(self, leading: Leading, machine: Machine, unknown: list[bytes]) -> None:
        """Caches on nodes with a replica may have lines that entries of former terms name.

        Who has an entry of this term has those, too, and reads no such line; who does
        not answer is waited for until no lease can stand. What leases there are is in
        the state, or in what is not carried out yet (``unknown``).
        """
        raft = self._raft
        self._former = FormerLeases(machine.caches, unknown, raft.now_ms)
        for peer in dict.fromkeys((*leading.progress, *raft.membership.before.others(raft.name))):
            leading.demands.add(peer, leading.first_index)

    def wait_out_leases(self, hears: Callable[[str], bool]) -> None:
        """Those whose leases from before this term are over need not have an entry of it."""
        leading, former = self._raft.leading, self._former
        if leading is None or former is None or not leading.demands or leading.settled:
            return
        for peer in leading.demands.members():
            if former.are_over(peer, self._raft.now_ms, hears):
                leading.excuse(peer)

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
        return self._must_wait or self.gate.is_shut or self.gate.holds_reads_of(self._clients.author)

    @property
    def _must_wait(self) -> bool:
        """`holding_back` for whatever there is to log."""
        raft = self._raft
        assert raft.leading is not None
        if raft.leading.successor is not None:
            return True
        if self._is_too_early or (not raft.leading.settled and self._clients.outstanding.sent_before(raft.term)):
            return True
        return raft.log.last_index - raft.commit >= ENTRIES_AHEAD_MAX

    @property
    def _is_too_early(self) -> bool:
        """Whether caches may hold lines, and it is not known which: not all is carried out from before this term."""
        leading = self._raft.leading
        return self._caching and leading is not None and self.gate.directory is None

    def has_work(self, *, due: bool) -> bool:
        """Whether `propose` would do something."""
        asked = self._clients.open.calls or self._clients.owed or self._forwarding.parts or self.gate.entry
        if (asked or (due and not self.ringing)) and not self.holding_back:
            return True
        directory = self.gate.directory
        return directory is not None and bool(directory.calls) and not self._must_wait

    def taken_back(self) -> None:
        """The last entries were taken out of the log again."""
        self._rung_index = 0
        if self.gate.directory is not None:
            self.gate.directory.taken_back()

    def take(self, peer: str, message: Forward) -> None:
        """Another node's batch, for the next entry."""
        raft = self._raft
        if self.gate.reads and self.gate.holds_reads_of(message.author):
            self.gate.forwards.append((peer, message))
            return
        if message.wanted and not self._hosting.take(peer, message):
            return
        if raft.leading is not None and message.term == raft.term and raft.leading.successor is None:
            self._forwarding.take(message)

    def ask(self, peer: str, message: AskRead, *, due: bool) -> None:
        """Another node wants to read; what is due happens first, in an entry that it must wait for."""
        raft = self._raft
        if raft.leading is None or message.term != raft.term:
            return
        if self._is_too_early:
            self.gate.early.append((peer, message))
        elif message.args is None and self.gate.minds_reads:
            self._outbox.append((peer, NameReads(raft.term, message.number)))
        elif self._admits_reads(message.author, message.number, message.args or [], due=due):
            self._ask(message.author, message.number, due=due)

    def ask_own(self, number: int, args: list[list[bytes]], *, due: bool) -> None:
        """This node's own reads up to ``number``, which are these, have been waiting: are they asked for?"""
        leading, gate, author = self._raft.leading, self.gate, self._clients.author
        assert leading is not None
        if self._is_too_early or gate.entry is not None or gate.holds_reads_of(author):
            return
        if number > leading.reads.asked_by(author) and self._admits_reads(author, number, args, due=due):
            self._ask(author, number, due=due)

    def _admits_reads(self, author: bytes, number: int, args: list[list[bytes]], *, due: bool) -> bool:
        return self.gate.directory is None or self.gate.admits_reads(KeptReads(author, number, args, due))

    def go_on(self) -> None:
        """Caches gave up what they held, maybe: what was kept back for that goes on."""
        gate = self.gate
        if gate.directory is None or self._raft.leading is None or not gate.directory.holding:
            return
        for peer, early in gate.take_early():
            if isinstance(early, Look):
                self.look(peer, early, due=False)
            else:
                self.ask(peer, early, due=False)
        for one in gate.take_reads():
            self._ask(one.author, one.number, due=one.due)
        for peer, message in gate.take_forwards():
            self.take(peer, message)
        gate.let_go(self._raft.log.last_index)

    def look(self, peer: str, message: Look, *, due: bool) -> None:
        """A node without a replica wants this one to read for it, whichever term it knows of.

        What comes before the term was begun will be asked again: what must be kept back is not known yet.
        """
        if self._raft.leading is None or self.begins:
            return
        if self._is_too_early:
            self.gate.early.append((peer, message))
            return
        self._hosting.look(peer, message)
        if self._admits_reads(message.author, message.number, message.calls, due=due):
            self._ask(message.author, message.number, due=due)

    def _ask(self, author: bytes, number: int, *, due: bool) -> None:
        assert self._raft.leading is not None
        if due:
            self._asked.append((author, number))
        else:
            self._raft.leading.ask_read(author, number)

    def propose(self, now_ms: int, *, due: bool) -> None:
        """Makes this turn's entry: of what came from clients here and from other nodes, or of what is due."""
        raft, leading, clients = self._raft, self._raft.leading, self._clients
        assert leading is not None
        if self.gate.directory is not None:
            self._log_first(now_ms, self.gate.directory, due=due)
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
        elif batch.calls and not (self._is_too_early or self.gate.entry):  # which may have reads before these
            batch = clients.close(raft.now_ms, raft.term, logged=False)
            batch.named, number = True, batch.number
            if self._admits_reads(clients.author, number, batch.logged, due=False):
                leading.ask_read(clients.author, number)

    def _log_first(self, now_ms: int, directory: Directory, *, due: bool) -> None:
        """What the directory has to say in the log, and what was kept back and may go on."""
        if self._must_wait:
            return
        if directory.calls:
            self._log_calls(now_ms, directory.calls)
            directory.calls = []
        kept = self.gate.take_entry(self._raft.log.last_index + 1)
        if kept is not None:
            self._log(now_ms, kept, due=due)
            self.gate.let_go(self._raft.log.last_index)

    def _make_entry(self, now_ms: int, *, due: bool) -> None:
        raft, clients = self._raft, self._clients
        parts, self._forwarding.parts = self._forwarding.parts, []
        own: Batch | None = None
        if clients.open.calls:
            batch = clients.close(raft.now_ms, raft.term, logged=True)
            batch.named = True
            if batch.lost is None:
                own = batch
                parts.append((clients.author, batch.number, msgspec.Raw(batch.body)))
        kept = Kept(parts, own)
        if self.gate.admits(kept, raft.log.last_index + 1):
            self._log(now_ms, kept, due=due)

    def _log(self, now_ms: int, kept: Kept, *, due: bool) -> None:
        raft, leading = self._raft, self._raft.leading
        assert leading is not None
        index = raft.log.last_index + 1
        if kept.batch is not None:
            kept.batch.index = index
        raft.propose(batches.payload_of(now_ms, kept.parts))
        if due:
            self._rung_index = index
        leading.replicate_all()
        for author, number in self._asked:
            leading.ask_read(author, number, index)
        self._asked.clear()

    def _log_calls(self, now_ms: int, calls: list[list[bytes]]) -> None:
        """An entry of what no client asked."""
        leading = self._raft.leading
        assert leading is not None
        self._raft.propose(batches.payload_of(now_ms, [batches.nobodys(calls)]))
        leading.replicate_all()

    def pass_on_reads(self, now_ms: int) -> None:
        """Tells those who asked which of their reads the lease or a majority has confirmed."""
        raft, leading = self._raft, self._raft.leading
        if leading is None or not leading.confirmed:
            return
        confirmed, leading.confirmed = leading.confirmed, []
        for asked in confirmed:
            if self._hosting.confirmed(asked, now_ms):
                continue
            author, number, index = asked.author, asked.number, asked.index
            if author == self._clients.author:
                self._clients.outstanding.readable(number, index, now_ms)
            else:
                peer = batches.node_of(author)
                self._outbox.append((peer, Readable(raft.term, author, number, index, now_ms)))
                leading.tell(peer)
