"""Shard: one shard as one node sees it, whether it has a replica of it or not.

The node (node.py) calls its verbs, turn after turn, for those shards that have
something to do; the order is described there.

A node with a replica that votes (``here``) carries out the log itself and
answers its clients from that. One without is *distant*: it hands the same
batches to the leader, reads included, and is told the outcomes (hosting.py is
the other side). Batches, their numbers and their order are the same either
way, so a node may get or give up its replica at any time: what is under way
then is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from cluster import batch as batches
from cluster.atlas import Place
from cluster.batch import Answer, Client
from cluster.carrying import Carrying, unblocking
from cluster.clients import Clients, no_leader, uncertain
from cluster.contacts import Contacts
from cluster.forwarding import Forwarding
from cluster.gate import Gate
from cluster.hosting import Hosting
from cluster.leadership import Leadership
from cluster.machine.keyspace import Checkpoint
from cluster.machine.machine import END_SESSION, END_SESSIONS, Commands, Handler, Machine, Woken
from cluster.machine.reply import WAITING, CommandError, Reply
from cluster.outcomes import Outcomes, Waiting, decode
from cluster.pace import Pace
from cluster.raft.core import Chance, Raft, Timing
from cluster.raft.log import ENTRY_BYTES, Log
from cluster.raft.membership import Config, Membership
from cluster.raft.messages import (
    AskRead,
    Chunk,
    Ended,
    Forward,
    Heartbeat,
    Look,
    Message,
    NameReads,
    Outcome,
    Readable,
    Waits,
    Wish,
    WishGranted,
    WishRefused,
)
from cluster.raft.patience import extra_ms
from cluster.ring.slots import SLOTS
from cluster.snapshots import Snapshots, ledger_of, parts_of
from cluster.storage.contract import Entry, HardState, Recovered, Row
from cluster.waits import OwnWaits
from cluster.wishes import Change, Departures, Wishes

GIVE_UP_MS = 5_000.0
"""A command that has no outcome after so long is answered ``-UNCERTAIN`` though there is a leader.

Later, by `extra_ms`, where something large is under way in its shard.
"""

APPLY_BYTES = 128 * 1024
"""About what one `apply` carries out; more is left to the next turn, so that a replica that catches up stops nobody.

It is some five hundred entries of one SET of 100 bytes each, which take five milliseconds.
"""

RETAIN_BYTES = 16 * 1024 * 1024
"""How much of all shards' logs behind their checkpoints is kept for followers that are a little behind."""

FORGOTTEN_MS = 5_000.0
"""A replica that its shard has no longer, and that was not told, is given up after so long without a leader."""

ALL_SLOTS = range(SLOTS)
FOREVER_MS = float("inf")
NOTHING_READABLE = -1


class Shard:
    """One shard of the cluster, on one node.

    ``author`` names the node in this run of its process; ``members`` is the
    configuration a new cluster begins with, empty where this node is given no
    replica; what the disk holds goes before it. ``siblings`` is how many shards
    there are, ``slots`` what this one has of the key space. ``turn`` is the node's turn in
    which `advance` was last called; ``tick_at_ms`` and ``due_at_ms`` are kept
    there by the node.
    """

    def __init__(
        self,
        number: int,
        commands: Commands,
        *,
        name: str,
        author: bytes,
        timing: Timing,
        chance: Chance,
        members: Config,
        voters_max: int,
        contacts: Contacts,
        siblings: int = 1,
        slots: range = ALL_SLOTS,
    ) -> None:
        self.number = number
        self.name = name
        self.timing = timing
        self._new_machine = partial(Machine, commands, slots, siblings)
        self.machine = self._new_machine()
        self.now_ms = 0
        self._pace = Pace()
        self._paced_ms = 0.0  # up to when ``now_ms`` has passed
        self.monotonic_ms = 0.0
        self.turn = 0
        self.read_turn = 0  # in which it was last read from under its lease
        self.tick_at_ms = 0.0
        self.due_at_ms: int | None = None
        self.due = False
        self.reads_wait = True
        self._serves_more = False  # reads may be answered that could not be when `apply` was last called
        self.checkpoint_index = 0
        self.bytes_since_checkpoint = 0
        self._checkpoint_bytes = 0  # what the one under way is to take off the log
        self.reported_voters: tuple[str, ...] = ()  # of the last report to the system group
        self.dismissed = False  # its node was removed: what is under way is waited for, nothing more is taken
        self.chosen_ms: float | None = None  # when somebody here last wanted this node to lead
        self.clients = Clients(author)
        self._contacts = contacts
        self._siblings = siblings
        self._forwarding = Forwarding(author)
        self._lease_until_ms = 0.0
        self._next_retry_ms = 0.0
        self._naming_term = 0  # in which the leader wants to know what is read
        self._retried_term = 0  # in which everything was repeated at once
        self._told_number = 0  # the last batch of this node of which another one said what became of it
        self._outbox: list[tuple[str, Message]] = []
        self._leaderless_ms = 0.0
        self._elsewhere: tuple[int, str] | None = None  # the term and who leads in it, as that node itself said
        self.raft = Raft(name, members, shard=number, timing=timing, chance=chance, voters_max=voters_max)
        self.snapshots = Snapshots(self.raft, self._new_machine)
        self._wishes = Wishes(self.raft)
        self._waits = OwnWaits(self.clients)
        self._carrying = Carrying(self.clients, self._waits)
        self._hosting = Hosting(self.raft, self._carrying, self._forwarding, self._outbox)
        self._leadership = Leadership(self.raft, self.clients, self._forwarding, self._hosting, self._outbox)
        self._matches: dict[str, int] = {}  # what the leader last said to be durable where
        self._handlers: dict[type[Message], Callable[[str, Any], None]] = {
            Forward: self._on_forward,
            AskRead: self._on_ask_read,
            NameReads: self._on_name_reads,
            Readable: self._on_readable,
            Look: self._on_look,
            Outcome: self._on_outcome,
            Waits: self._on_waits,
            Ended: lambda _, ended: self._waits.hear(ended),
            Wish: self._on_wish,
            WishRefused: lambda _, refused: self._wishes.refused(refused),
            WishGranted: self._on_wish_granted,
        }

    # Coming up

    def recover(self, recovered: Recovered, rows: Iterable[Row], entries: Iterable[Entry]) -> int:
        """Rebuilds the state from the disk; how many entries the log holds behind the checkpoint.

        Those are carried out once they are known to be committed, which a node
        that is alone finds out in its first turn. The first entry of this run
        ends the sessions of the runs before.
        """
        config, ledger, numbers = parts_of(recovered.ledger)
        self._carrying.numbers = dict(numbers)
        index = recovered.checkpoint_index
        self.machine.restore(ledger, rows)
        membership = Membership(index, config if config.members else self.raft.config)
        saved = [entry for entry in entries if entry.index > index]
        for entry in saved:
            membership.note(entry)
            self.bytes_since_checkpoint += len(entry.payload)
        self.checkpoint_index = index
        self._carrying.term = recovered.checkpoint_term
        self.raft.recover(Log(index, recovered.checkpoint_term, saved), membership, recovered.hard_state)
        self.now_ms = self.machine.now_ms
        self._carrying.outcomes = Outcomes(recovered.checkpoint_term)
        names = [END_SESSIONS, batches.author_of(self.name, ""), self.clients.author + b"."]
        self.clients.owe((self.machine.handler(END_SESSIONS), names, b""))
        return len(saved)

    # Time and peers

    def advance(self, now_ms: int, monotonic_ms: float) -> None:
        """Moves the clocks, and with them what reads may do in this turn; ``now_ms`` is the wall clock's time."""
        raft = self.raft
        self.now_ms = raft.clock_ms = self._pace.pass_time(now_ms, max(0.0, monotonic_ms - self._paced_ms))
        self._paced_ms = max(monotonic_ms, self._paced_ms)
        raft.advance(monotonic_ms)
        self.monotonic_ms = raft.now_ms
        leading = raft.leading
        if leading is not None and self.machine.log_ms > self.now_ms:  # the wall clock was set back before a restart
            self._pace.follow(self.machine.log_ms)
            self.now_ms = raft.clock_ms = self.machine.log_ms
        if leading is not None and leading.settled and raft.applied == raft.commit:
            self.due = self.machine.pass_time(self.now_ms)
            self._lease_until_ms = leading.lease_until_ms()
            directory = self._leadership.gate.directory
            minded = directory is not None and directory.minds_reads
            self.reads_wait = self.due or minded or raft.now_ms >= self._lease_until_ms
        else:
            self.due = False
            self.reads_wait = True

    def pass_time(self, monotonic_ms: float) -> None:
        """As `Node.pass_time`."""
        self.raft.advance(monotonic_ms)
        self.monotonic_ms = self.raft.now_ms

    @property
    def clock_ms(self) -> int:
        """The log's time within the turn, of which ``now_ms`` is the beginning."""
        return self.now_ms + int(max(0.0, self.monotonic_ms - self._paced_ms))

    def reads_lapsed(self, monotonic_ms: float) -> bool:
        """Whether reads that were answered since `advance` may be stale: the lease they relied on has run out."""
        return not self.reads_wait and monotonic_ms >= self._lease_until_ms

    def receive(self, peer: str, message: Message) -> None:
        """A message about this shard came from another node."""
        handler = self._handlers.get(type(message))
        if handler is not None:
            handler(peer, message)
            return
        leader = self.raft.leader
        self.raft.receive(peer, message)
        if type(message) is Heartbeat and self.raft.leader == peer:
            self._matches = message.matches
            self._pace.follow(message.clock_ms)
        if self.raft.leader != leader:
            self._next_retry_ms = self.monotonic_ms

    def led_by(self, peer: str, term: int) -> bool:
        """The peer says that it leads; whether that is news."""
        known = self._elsewhere
        if known is not None and (term < known[0] or (term, peer) == known):
            return False
        self._elsewhere = (term, peer)
        self._ask_at_once()
        return True

    def led_no_more(self, peer: str) -> bool:
        """The peer says that it does not lead; whether that is news."""
        known = self._elsewhere
        if known is None or known[1] != peer:
            return False
        self._elsewhere = (known[0], "")
        self._leaderless_ms = self.monotonic_ms
        return True

    def concerns(self, peer: str) -> bool:
        """Whether the peer leads it, or this node does and has the peer for a follower."""
        leading = self.raft.leading
        return peer == self.last_leader or (leading is not None and peer in leading.progress)

    def connected(self, peer: str) -> None:
        """There is a link to the peer again: what it may have missed is sent at once."""
        self.disconnected(peer)  # whatever was sent before
        if peer == self.last_leader:
            self._ask_at_once()
            self._retried_term = 0
        leading = self.raft.leading
        if leading is not None and peer in leading.progress:
            leading.replicate(peer)

    def disconnected(self, peer: str) -> None:
        """The link to the peer broke: what was on its way there may be lost."""
        leading = self.raft.leading
        if leading is not None and peer in leading.progress:
            leading.progress[peer].lost()

    @property
    def gate(self) -> Gate:
        """What is kept back while this node leads, because caches hold it."""
        return self._leadership.gate

    @property
    def office_began_ms(self) -> float:
        """When this node's term of office began, on its monotonic clock."""
        return self._leadership.began_ms

    def go_on(self) -> None:
        """Caches gave something up: what was kept back for that goes on."""
        self._leadership.go_on()
        leading = self.raft.leading
        if leading is not None and leading.confirmed:
            self._serves_more = True
            self._leadership.pass_on_reads(self.now_ms)

    @property
    def here(self) -> bool:
        """Whether this node carries out the log itself, for its own clients: a learner is too far behind for that."""
        return self.name in self.raft.config.voters

    @property
    def member(self) -> bool:
        """Whether this node is to have a replica, as far as its own log knows."""
        return self.name in self.raft.config

    @property
    def _office(self) -> tuple[int, str | None]:
        """The latest term known, and who leads in it, or led when last heard of."""
        raft, elsewhere = self.raft, self._elsewhere
        if elsewhere is None or self.here or (raft.leader is not None and self.member):
            return raft.term, raft.leader
        return elsewhere[0], elsewhere[1] or None

    @property
    def term(self) -> int:
        """The latest term known."""
        return self._office[0]

    @property
    def last_leader(self) -> str | None:
        """Who leads, or led when last heard of."""
        return self._office[1]

    def outgoing(self, found: list[tuple[str, int, Message]]) -> None:
        """Adds the messages to send now, (to, shard, what)."""
        raft, number = self.raft, self.number
        if raft.leading is None:
            self._pass_on()
        if raft.has_mail:
            found += [(peer, number, message) for peer, message in raft.outgoing()]
        if self._outbox:
            found += [(peer, number, message) for peer, message in self._outbox]
            self._outbox.clear()

    # Timers

    @property
    def hurried(self) -> bool:
        """Whether `tick` has something to do that this turn brought: an election won, reads, what is to be refused."""
        raft = self.raft
        if raft.leading is not None and (raft.leading.hurried or self._leadership.begins):
            return True
        if raft.leading is None and self.clients.open.calls and self.lost_leader:
            return True
        return self._next_retry_ms <= self.monotonic_ms and self._unsettled

    @property
    def _unsettled(self) -> bool:
        """Whether something has to be repeated until it has an outcome."""
        return bool(self.clients.waiting or self._waits.told or self._wishes.pending or self.clients.owed)

    def tick(self) -> None:
        """Runs the timers: elections, heartbeats, retries, and giving up on what has no outcome."""
        raft = self.raft
        now_ms = self.monotonic_ms
        if raft.leading is not None and not raft.leading.progress:  # alone
            raft.leading.confirm()
            self._leadership.pass_on_reads(self.now_ms)
            if self._leadership.begin(self.machine) or now_ms >= self._next_retry_ms:
                self._next_retry_ms = now_ms + self.timing.election_ms / 2
                self._retry()
            self._leadership.wait_out_leases(self._hears)
            return
        if raft.leading is not None:
            for peer in self._contacts.sending:
                raft.leading.still_sending(peer)
        raft.tick()
        if raft.leading is not None:
            if self._leadership.begin(self.machine):
                self._next_retry_ms = now_ms
            self._leadership.pass_on_reads(self.now_ms)
            self._leadership.wait_out_leases(self._hears)
        if now_ms >= self._next_retry_ms:
            self._next_retry_ms = now_ms + self.timing.election_ms / 2
            self._retry()
        if self.clients.waiting:
            self._give_up()

    def _hears(self, peer: str) -> bool:
        """Whether the node was heard of late."""
        return self._contacts.hears(peer, self.monotonic_ms - self.timing.election_ms)

    def next_tick_ms(self) -> float:
        """The monotonic time at which `tick` has something to do, infinite when only a message can bring it."""
        raft = self.raft
        raft_ms = raft.next_tick_ms()
        at_ms = FOREVER_MS if raft_ms is None else raft_ms
        waiting, unsettled = self.clients.waiting, self._unsettled
        if raft.leading is not None and not raft.leading.progress:
            return self.monotonic_ms + self.timing.heartbeat_ms if unsettled else at_ms
        if unsettled:
            at_ms = min(at_ms, self._next_retry_ms)
            if waiting and raft.leading is None and not self.lost_leader:
                patience_ms = self._patience_ms
                longer = raft.now_ms - self._contact_ms >= patience_ms
                at_ms = min(at_ms, self._contact_ms + patience_ms * (2 if longer else 1))
        return at_ms

    def next_due_ms(self) -> int | None:
        """When `advance` should be called next, at the latest, for the sake of an alarm; only a leader rings any."""
        if self.raft.leading is None or self._leadership.ringing or self._leadership.holding_back:
            return None
        return self.now_ms if self.machine.behind else self.machine.clockwork.next_due_ms(self.now_ms)

    @property
    def busy(self) -> bool:
        """Whether there is something to do that no socket, timer or disk has to announce."""
        raft = self.raft
        if raft.applied < raft.commit or raft.has_unsaved or self._serves_more:
            return True
        return self._can_move or bool(self._outbox) or raft.has_mail

    @property
    def _can_move(self) -> bool:
        """Whether there is something for this turn's entry or batch, and that can be made, or refused."""
        if self.raft.leading is not None:
            return self._leadership.has_work(due=self.due)
        clients = self.clients
        if not (clients.open.calls or clients.owed):
            return False
        if self.lost_leader:
            return bool(clients.open.calls)
        return self.last_leader is not None and not clients.outstanding.sent_before(self.term)

    @property
    def has_leader(self) -> bool:
        """Whether commands can be served now, as far as this node knows."""
        return self.raft.leading is not None or (self.last_leader is not None and not self.lost_leader)

    @property
    def leader(self) -> str | None:
        """Who leads, None if this node is in touch with nobody who does."""
        return self.last_leader if self.has_leader else None

    @property
    def _contact_ms(self) -> float:
        """When the leader was last heard."""
        if self.member:
            return self.raft.contact_ms
        leader = self.last_leader
        heard_ms = self._leaderless_ms if leader is None else self._contacts.heard_ms(leader)
        return max(self.raft.contact_ms, heard_ms or 0.0)

    @property
    def _patience_ms(self) -> float:
        """How long a leader may be silent before it counts as lost."""
        return 2 * self.timing.election_ms

    @property
    def lost_leader(self) -> bool:
        """Whether no leader has been heard for two election timeouts, nor is one about to be elected.

        While most of those who vote are there somebody will be, and it is waited twice as long.
        """
        raft = self.raft
        if raft.leading is not None or raft.alone:
            return False
        patience_ms = self._patience_ms
        silent_ms = raft.now_ms - self._contact_ms
        return silent_ms >= patience_ms and (silent_ms >= 2 * patience_ms or not self._majority_there)

    @property
    def _majority_there(self) -> bool:
        """Whether most of those who vote, as far as is known here, were heard within the last election timeout."""
        voters, since_ms = self.voters, self.raft.now_ms - self.timing.election_ms
        heard = [voter == self.name or (self._contacts.heard_ms(voter) or 0.0) > since_ms for voter in voters]
        return sum(heard) > len(heard) // 2

    @property
    def voters(self) -> tuple[str, ...]:
        """Who votes, as far as is known here."""
        return self.raft.config.voters if self.member else self.reported_voters or self.raft.config.voters

    def _ask_at_once(self) -> None:
        """The leader is asked anew for all that may be lost."""
        self._next_retry_ms = self.monotonic_ms
        self._waits.ask_at_once(self.monotonic_ms)

    def _retry(self) -> None:
        """Repeats to the leader what it may not have heard."""
        raft, outstanding = self.raft, self.clients.outstanding
        self._pursue_wishes()
        if raft.leading is not None:
            self._settle_as_leader()
            return
        leader, term = self.last_leader, self.term
        if leader is None or leader == self.name:
            return
        news = term != self._retried_term
        self._retried_term = term
        patience_ms = 0 if news else self.timing.election_ms / 2
        now_ms, wanted = self.monotonic_ms, not self.here
        self._outbox += [(leader, Waits(term, waits)) for waits in self._waits.questions(now_ms)]
        if news or leader not in self._contacts.sending:
            again = self._forwarding.repeat(outstanding.sent_before(term), now_ms, patience_ms, wanted=True)
            again += self._forwarding.repeat(outstanding.sent_in(term), now_ms, patience_ms, wanted=wanted)
            self._outbox += [(leader, message) for message in again]
        if wanted:
            self._look_again(leader, patience_ms)
        elif number := outstanding.unconfirmed():
            self._ask_read(leader, number)

    def _settle_as_leader(self) -> None:
        """A leader has nobody to ask: what it does not know itself, nobody knows."""
        leading, outstanding = self.raft.leading, self.clients.outstanding
        assert leading is not None
        if number := outstanding.unconfirmed():
            self._leadership.ask_own(number, self._reads_to(number), due=self.due)
            self._leadership.pass_on_reads(self.now_ms)
        if not leading.settled:
            return
        for batch in outstanding.sent_before(self.raft.term):
            batch.lost = uncertain("this node was too far behind to see what became of it")
        self._waits.settle(self.machine)

    def _look_again(self, leader: str, patience_ms: float) -> None:
        for batch in self.clients.outstanding.unread():
            if self.monotonic_ms - batch.sent_ms >= patience_ms:
                batch.sent_ms = self.monotonic_ms
                self._outbox.append((leader, Look(self.term, self.clients.author, batch.number, batch.logged)))

    def _give_up(self) -> None:
        """Answers what has no outcome: nobody waits longer than two election timeouts for a leader that is gone."""
        outstanding = self.clients.outstanding
        if self.lost_leader:
            lost = outstanding.lose(uncertain("the leader was lost while it was under way"), no_leader(self.number))
            self.clients.refuse_open(self.monotonic_ms, no_leader(self.number))
        elif outstanding.oldest is not None and outstanding.oldest.since_ms < self.monotonic_ms - GIVE_UP_MS:
            late = uncertain("it was not carried out in time")
            before_ms = self.monotonic_ms - GIVE_UP_MS - extra_ms(self._under_way_bytes)
            lost = outstanding.lose(late, no_leader(self.number), before_ms=before_ms)
        else:
            return
        if not self.here:  # else what begins to wait in them is ended when they are carried out
            for batch in lost:
                for origin in batch.origins.values():
                    self.unblock(None, origin, b"TIMEOUT")

    @property
    def _under_way_bytes(self) -> int:
        """How much is on its way through the log, as far as is known here."""
        log, commit = self.raft.log, self.raft.commit
        logged = sum(len(log.entry(index).payload) for index in range(commit + 1, log.last_index + 1))
        if self.raft.leading is not None:
            return logged
        return max(logged, sum(len(batch.body) for batch in self.clients.outstanding if batch.writes))

    # Clients

    def read(self, handler: Handler, args: list[bytes]) -> Reply:
        """Runs a command that is not logged, now. What is due has not happened yet, but what it ends is hidden."""
        self.read_turn = self.turn
        return self.machine.peek(handler, args)

    def submit(
        self, client: Client, handler: Handler, args: list[Any], *, logged: list[Any] | None = None, origin: bytes = b""
    ) -> None:
        """Gives a command its place in this turn's batch: see `Clients.submit`."""
        self.clients.submit(client, handler, args, logged=logged, origin=origin)

    def submit_read(self, client: Client, handler: Handler, args: list[bytes]) -> None:
        """Gives a command that is not logged its place among those of this turn that are."""
        self.clients.submit_read(client, handler, args)

    def end_session(self, origin: bytes) -> None:
        """A client is gone: whatever ends with its session ends."""
        self._waits.forget(origin)
        self.clients.owe((self.machine.handler(END_SESSION), [END_SESSION, origin], b""))

    @property
    def authors(self) -> Iterable[bytes]:
        """The nodes, each in its last run, that ever brought something into the log: no session is of another."""
        return self._carrying.numbers

    def knows_session(self, origin: bytes) -> bool:
        """Whether the replicated state may hold something that ends with this session.

        A replica that has not carried out up to where it was made one cannot tell: others answered until then. Nor can
        one that was told what became of a batch, and is not as far as that.
        """
        machine, raft = self.machine, self.raft
        if not self.here or raft.applied < raft.membership.since:
            return True
        if self._carrying.numbers.get(self.clients.author, 0) < self._told_number:
            return True
        return machine.sessions.get(origin) is not None or machine.waiters.of(origin) is not None

    def unblock(self, client: Client, origin: bytes, reason: bytes) -> None:
        """Ends a wait by hand (CLIENT UNBLOCK); ``reason`` is TIMEOUT or ERROR. A client of None waits no longer."""
        call = unblocking(self.machine, origin, reason)
        if client is None:
            self._waits.forget(origin)
            self.clients.owe(call)
        else:
            self.submit(client, call[0], call[1])

    # Membership

    def departures(self, departures: Departures) -> None:
        """Of the system's shard: who frees a node that is to leave of its shards."""
        self._wishes.departures = departures

    @property
    def wishing(self) -> bool:
        """Whether somebody here waits for a change."""
        return bool(self._wishes.pending)

    def change(self, client: Client, change: Change) -> None:
        """Somebody wants another leader (of the system's shard: a member); the answer comes once it is so."""
        self._wishes.make(client, change)
        if change.kind == "lead":
            self.chosen_ms = self.monotonic_ms
        self._next_retry_ms = self.monotonic_ms

    def resign(self) -> None:
        """Asks the best follower to lead instead, before this node stops."""
        leading = self.raft.leading
        if leading is not None:
            voters = [peer for peer in self.raft.config.voters if peer in leading.progress]
            if voters:
                leading.hand_over(max(voters, key=lambda peer: leading.progress[peer].match))

    def _pursue_wishes(self) -> None:
        leader = self.last_leader
        for wish in self._wishes.pursue():
            if leader is not None:
                self._outbox.append((leader, wish))

    # The log

    def ready(self) -> tuple[list[Entry], HardState | None]:
        """Closes the turn on a leader: its entry goes into the log. What is to be made durable."""
        raft = self.raft
        if raft.leading is not None:
            self._leadership.propose(self.now_ms, due=self.due)
            self._leadership.pass_on_reads(self.now_ms)
        return raft.unsaved()

    def persisted(self, entries: list[Entry], hard_state: HardState | None) -> None:
        """The disk has it."""
        self.raft.able = True
        self.raft.saved(entries, hard_state)

    def refused(self, error: CommandError, *, definite: bool) -> None:
        """The disk did not take the work of `ready`, and ``error`` is what clients are told of it.

        Alone, nothing else can become of it: what is ``definite`` is taken back,
        what is not is written when the disk takes it again, and so is what a
        learner may have been sent. Among others this node hands over if it
        leads, and the log decides: it goes on following.
        """
        self.stand_aside()
        raft = self.raft
        raft.log.unsaved_again()
        if not raft.alone:
            return
        written = self.clients.outstanding.made_after(raft.log.saved_index, raft.term)
        if definite and written:
            if raft.leading is not None and raft.leading.progress:
                error = uncertain("the disk did not take it, but another node may have it")
            else:
                raft.cut_from(written[0].index)
                self._leadership.taken_back()
        for batch in written:
            batch.lost = error

    def stand_aside(self) -> None:
        """The disk takes nothing: this node stands for no election, and hands over what it leads."""
        raft = self.raft
        raft.able = False
        if raft.leading is not None and not raft.alone:
            raft.leading.resign()
            raft.follow_nobody()

    def refuse_open(self, error: CommandError) -> None:
        """What gathered meanwhile, and would have to be written, is answered with ``error``."""
        if self.clients.open.writes:
            self.clients.refuse_open(self.monotonic_ms, error)

    def mended(self) -> None:
        """The disk takes writes again: what it is behind with comes with the next `ready`."""
        self.raft.able = True
        self.raft.log.unsaved_again()

    def _pass_on(self) -> None:
        """Closes the turn on a node that does not lead: hands the batch to the leader, if there is one."""
        clients = self.clients
        if not (clients.waiting or clients.owed):
            return
        leader = self.last_leader
        if leader is None or leader == self.name or self.lost_leader:
            return
        term, here = self.term, self.here
        again = clients.outstanding.to_send(term)
        if again is None:
            return
        for batch in again:
            batch.term, batch.sent_ms = term, self.monotonic_ms
            self._outbox.append((leader, self._forwarding.send(batch, wanted=not here)))
        if self.dismissed:
            clients.refuse_open(self.monotonic_ms, no_leader(self.number))
        if clients.owed:
            clients.settle_debts()
        if clients.open.calls:
            self._send_open(leader, term, here=here)

    def _send_open(self, leader: str, term: int, *, here: bool) -> None:
        """Closes the batch and hands it to the leader."""
        clients = self.clients
        # A leader may carry reads out before writes that were lost on the way; what is logged keeps its order.
        logged = clients.open.writes or (not here and clients.outstanding.writing)
        named = bool(clients.open.reads and self.machine.caches.known)  # the leader must see what is read
        batch = clients.close(self.monotonic_ms, term, logged=logged, whole=not here or named)
        if batch.writes:
            if batch.lost is None:
                self._outbox.append((leader, self._forwarding.send(batch, wanted=not here)))
        elif here:
            self._ask_read(leader, batch.number)
        else:
            self._outbox.append((leader, Look(term, clients.author, batch.number, batch.logged)))

    # Messages between nodes that are no part of Raft

    def _on_forward(self, peer: str, message: Forward) -> None:
        self._leadership.take(peer, message)

    def _on_ask_read(self, peer: str, message: AskRead) -> None:
        self._leadership.ask(peer, message, due=self.due)
        self._leadership.pass_on_reads(self.now_ms)

    def _on_name_reads(self, peer: str, message: NameReads) -> None:
        if message.term == self.raft.term and self.here:
            self._naming_term = message.term
            number = self.clients.outstanding.unconfirmed()
            if number:
                self._ask_read(peer, number)

    def _ask_read(self, leader: str, number: int) -> None:
        """Asks from when on this node's reads up to that number may be served."""
        self._outbox.append((leader, AskRead(self.raft.term, self.clients.author, number, self._named_reads(number))))

    def _named_reads(self, number: int) -> list[list[bytes]] | None:
        """What reads up to that number are, where the leader wants to know it."""
        if self._naming_term != self.raft.term and not self.machine.caches.known:
            return None
        return self._reads_to(number)

    def _reads_to(self, number: int) -> list[list[bytes]]:
        """The reads that are not answered, up to that number."""
        return [args for batch in self.clients.outstanding.unread() if batch.number <= number for args in batch.logged]

    def _on_look(self, peer: str, message: Look) -> None:
        self._leadership.look(peer, message, due=self.due)
        self._leadership.pass_on_reads(self.now_ms)

    def _on_readable(self, peer: str, message: Readable) -> None:
        if message.term == self.raft.term and message.author == self.clients.author and self.here:
            self.clients.outstanding.readable(message.number, message.index, message.now_ms)

    def _on_outcome(self, peer: str, message: Outcome) -> None:
        """What became of a batch of this node; one that was answered meanwhile is let be."""
        batch = self.clients.outstanding.find(message.number)
        if message.author != self.clients.author or batch is None:
            return
        if batch.lost is not None or batch.answers is not None:
            return
        if not message.replies:
            if batch.term >= message.term:
                return  # it was sent again since
            if message.never:
                batch.unsend()
            else:
                batch.lost = uncertain("nobody remembers what became of it")
            return
        replies = decode(message.replies)
        if len(replies) != len(batch.calls):  # it was sent while this node read by itself
            writes = iter(replies)
            reads = frozenset(batch.reads)
            replies = [no_leader(self.number) if place in reads else next(writes) for place in range(len(batch.calls))]
        for place, reply in enumerate(replies):
            if type(reply) is Waiting:
                self._waits.told[batch.origins[place]] = reply.number
                replies[place] = WAITING
        self._told_number = max(self._told_number, message.number)
        self.clients.told(batch, replies)

    def _on_waits(self, peer: str, message: Waits) -> None:
        self._hosting.look_after(peer, self.machine, message)

    def _on_wish(self, peer: str, message: Wish) -> None:
        refusal = self._wishes.hear(peer, message)
        if refusal is not None:
            self._outbox.append((peer, refusal))

    def _on_wish_granted(self, peer: str, message: WishGranted) -> None:
        self._wishes.granted(message)
        self._next_retry_ms = self.monotonic_ms

    # Carrying out

    def apply(self) -> tuple[list[Iterable[Answer]], list[Woken]]:
        """Carries out what is committed, up to a limit (`busy` tells of more): answers, and waits that ended."""
        raft, machine, carrying = self.raft, self.machine, self._carrying
        self._serves_more = False
        machine.nodes = len(raft.config.voters)
        left = APPLY_BYTES
        while raft.applied < raft.commit and left > 0:
            entry = raft.log.entry(raft.applied + 1)
            carrying.carry_out(machine, entry, self.monotonic_ms)
            raft.carried_out(entry.index)
            self.bytes_since_checkpoint += len(entry.payload)
            left -= len(entry.payload) + ENTRY_BYTES
        if self.clients.outstanding.oldest is not None:
            self.clients.serve(machine, raft.applied if self.here else NOTHING_READABLE)
        if self._hosting.waiting:
            self._hosting.serve(machine)
        if self._leadership.settles():
            self._next_retry_ms = self.monotonic_ms
        woken, machine.woken = machine.woken, []
        if raft.leading is not None and (carrying.concerned or woken):
            self._tell_others(woken)
        carrying.concerned.clear()
        for ended in woken:
            if not self._waits.is_own(ended[0]):
                carrying.outcomes.ended(self.monotonic_ms, ended)
        woken = self._waits.ends(woken, machine)
        if self._wishes.answers:
            self.clients.answers.append(self._wishes.answers)
            self._wishes.answers = []
        return self.clients.take_answers(), woken

    def _tell_others(self, woken: list[Woken]) -> None:
        """Lets those nodes know whose clients wait for what was just carried out."""
        leading, hosting = self.raft.leading, self._hosting
        assert leading is not None
        members: dict[str, None] = {}
        for author, number in self._carrying.concerned:
            if not hosting.carried_out(author, number):
                members[batches.node_of(author)] = None
        for ended in woken:
            node = batches.node_of(ended[0])
            if node in self.raft.config.voters:
                members[node] = None
            else:
                hosting.ended(ended)
        for node in members:
            leading.tell(node)

    # Checkpoints

    @property
    def applied_index(self) -> int:
        """The last entry that was carried out."""
        return self.raft.applied

    def begin_checkpoint(self) -> tuple[Checkpoint, int, int, bytes]:
        """Starts a checkpoint of what is applied: (what to write, index, term, ledger)."""
        checkpoint, ledger = self.machine.begin_checkpoint()
        self._checkpoint_bytes, self.bytes_since_checkpoint = self.bytes_since_checkpoint, 0
        raft = self.raft
        term = raft.log.term(raft.applied)
        assert term is not None
        return (
            checkpoint,
            raft.applied,
            term,
            ledger_of(raft.membership.at(raft.applied), ledger, self._carrying.numbers),
        )

    def end_checkpoint(self, index: int, *, durable: bool) -> None:
        """The checkpoint of ``index`` is in force, or it failed."""
        self.machine.keyspace.end_checkpoint(durable=durable)
        if durable:
            self.checkpoint_index = index
            self.raft.compact(index, RETAIN_BYTES // self._siblings)
        else:
            self.bytes_since_checkpoint += self._checkpoint_bytes

    # Snapshots that come in

    def chunk_stored(self, chunk: Chunk, *, stored: bool) -> None:
        """A piece of `snapshots` is on the disk, or cannot be had there; after the last the state is the snapshot's.

        What became of writes that may be in it, and of waits, the leader is asked.
        """
        installation = self.snapshots.stored(chunk, stored=stored)
        if installation is None:
            return
        former, self.machine = self.machine, installation.machine
        self._waits.replaced(former, self.machine)
        self.checkpoint_index = installation.index
        self.bytes_since_checkpoint = 0
        self._carrying.term = max(self._carrying.term, installation.term)
        self._carrying.outcomes = Outcomes(installation.term)
        self._carrying.numbers = dict(installation.numbers)
        self._ask_at_once()

    # Giving the replica up

    def gave_up(self, place: Place, now_ms: float) -> bool:
        """Whether the replica here is none any more, so that its data should go; ``place`` is the shard's, as reported.

        Its own log says so, or others do and nobody sends it anything. What a log
        says that is being replayed is no news, so not while a leader is heard. Nobody
        may have touched the shard for long, so the node tells its time.
        """
        raft = self.raft
        if raft.leading is not None or not raft.log.last_index or self.name in place.nodes:
            return False
        quiet_ms = now_ms - raft.contact_ms
        since = raft.membership.since
        if not self.member and raft.membership.left(self.name) and raft.applied >= since:
            return quiet_ms >= self._patience_ms
        return quiet_ms >= FORGOTTEN_MS and place.index >= 0 and (place.index > since or not self.member)

    def begin_to_give_up(self) -> None:
        """The driver empties the disk, once it `may_go`; nothing is added to the log until `given_up`."""
        self.raft.begin_to_give_up()

    @property
    def may_go(self) -> bool:
        """Whether the disk has all of a replica that is given up: nothing may be written behind its emptying."""
        return self.raft.may_go

    def given_up(self) -> None:
        """Nothing of the replica is left on the disk but its term and vote: from here on this node is distant."""
        raft = self.raft
        former, self.machine = self.machine, self._new_machine()
        self._waits.replaced(former, self.machine)
        raft.given_up()
        self.snapshots.abandon()
        self.checkpoint_index = self.bytes_since_checkpoint = 0
        self._carrying.term = 0
        self._carrying.outcomes = Outcomes(raft.term)
        self._carrying.numbers = {}
        self._ask_at_once()

    def ledger_of_dropped(self) -> bytes:
        """What the disk keeps of a replica that was given up: the configuration it is no part of."""
        return ledger_of(self.raft.config.without(self.name), b"")

    # Looking

    def matches(self) -> dict[str, int]:
        """The last log index known to be durable on each member, as the leader knows it, or last said."""
        leading = self.raft.leading
        return leading.matches() if leading is not None else self._matches

    @property
    def last_index(self) -> int:
        """The last entry in the log."""
        return self.raft.log.last_index

    @property
    def commit_index(self) -> int:
        """The last entry known to be committed."""
        return self.raft.commit
