"""Node: one process's part of the cluster, as verbs in and work out.

The caller (the edge, or a simulator) does this, turn after turn:

1. `advance` with the time. If ``reads_wait`` then says so, reads of this turn
   take their place with `submit_read`; else `read` may answer them at once.
2. `receive` every message that came from a peer; `submit` every command that
   must go through the log (many at once: `clients.submit_writes`), and with
   `submit_read` what follows it on the same connection.
3. `tick` runs the timers.
4. While the disk is free: `ready` gives what to make durable, or None.
5. Send what `outgoing` gives. An entry goes to the followers while the
   leader's own disk is still at it.
6. Make `Work` durable, then call `persisted`; or `refused` when the disk did
   not take it.
7. `apply` carries out what is committed and gives the answers to deliver; then
   send `outgoing` again: what had to wait for the disk.

Messages may be lost, doubled, late or out of order. Time only enters through
`advance`: wall-clock milliseconds for the entries, monotonic ones for Raft. The
node calls nobody. docs/raft.md follows one write through all of this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from cluster import batch as batches
from cluster.batch import Client
from cluster.carrying import Carrying, unblocking
from cluster.clients import Answer, Clients, no_leader, uncertain
from cluster.contacts import Contacts
from cluster.forwarding import Forwarding
from cluster.leadership import Leadership
from cluster.machine.keyspace import Checkpoint
from cluster.machine.machine import END_SESSION, END_SESSIONS, Commands, Handler, Machine
from cluster.machine.reply import CommandError, Reply
from cluster.raft.core import Chance, Raft, Timing
from cluster.raft.log import ENTRY_BYTES, Log
from cluster.raft.membership import Config, Membership
from cluster.raft.messages import (
    Alive,
    Append,
    AskRead,
    Chunk,
    Commit,
    Forward,
    Heartbeat,
    Message,
    Ping,
    Readable,
    TimeoutNow,
    Vote,
    Wish,
    WishGranted,
    WishRefused,
)
from cluster.snapshots import Snapshots, ledger_of, parts_of
from cluster.status import Status, status_of
from cluster.storage.contract import Entry, HardState, Identity, Recovered, Row
from cluster.wishes import Change, Wishes

SHARD = 0

GIVE_UP_MS = 5_000.0
"""A command that has no outcome after so long is answered ``-UNCERTAIN`` though there is a leader."""

APPLY_BYTES = 4 * 1024 * 1024
"""About what one `apply` carries out; more is left to the next."""

RETAIN_BYTES = 4 * 1024 * 1024
"""How much of the log behind a checkpoint is kept for followers that are a little behind."""

FROM_CHANGED = (Append, Heartbeat, Commit, Chunk, TimeoutNow, Vote, Ping)
"""What is taken from a member that has another data folder than it is known by: nothing that rests on what it had."""


class Work(NamedTuple):
    """What to do before `Node.persisted` may be called: make the entries, and the term and vote, durable."""

    entries: Sequence[Entry]
    hard_state: tuple[int, HardState] | None


class Answers(NamedTuple):
    """``replies`` to clients, in order, and ``woken``: (origin, reply) of waits that ended.

    ``restored``: the state was replaced by a snapshot, so waits may have ended unseen.
    """

    replies: Iterable[Answer]
    woken: list[tuple[bytes, Reply]]
    restored: bool = False


class Node:
    """One member of the cluster.

    ``boot`` tells this run of the process from all others: sessions of an earlier
    run are ended. ``members`` is the configuration a new cluster begins with,
    empty for a node that joins; what the disk holds goes before it. ``address``
    is where the others reach this node.
    """

    def __init__(
        self,
        commands: Commands,
        *,
        identity: Identity,
        boot: str,
        timing: Timing,
        chance: Chance,
        members: Config,
        address: str = "",
    ) -> None:
        self.identity = identity
        self.name = identity.node
        self.shard = SHARD
        self.timing = timing
        self.address = address
        self.machine = Machine(commands)
        self.now_ms = 0
        self.monotonic_ms = 0.0
        self.due = False
        self.reads_wait = True
        self.checkpoint_index = 0
        self.bytes_since_checkpoint = 0
        self.clients = Clients(f"{self.name}.{boot}".encode())
        self._forwarding = Forwarding(self.clients.author)
        self._lease_until_ms = 0.0
        self._next_retry_ms = 0.0
        self._outbox: list[tuple[str, Message]] = []
        self._contacts = Contacts()
        self._met: dict[str, str] = {}
        self._members = members
        self._changed: dict[str, str] = {}  # of those met, who have another data folder than ``_members`` says
        self.raft = Raft(self.name, members, shard=SHARD, timing=timing, chance=chance)
        self.snapshots = Snapshots(self.raft, commands)
        self._wishes = Wishes(self.raft)
        self._leadership = Leadership(self.raft, self.clients, self._forwarding, self._outbox)
        self._carrying = Carrying(self.clients, SHARD)
        self._restored = False
        self._handlers: dict[type[Message], Callable[[str, Any], None]] = {
            Forward: lambda _, forward: self._leadership.take(forward),
            AskRead: self._on_ask_read,
            Readable: self._on_readable,
            Ping: self._on_ping,
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
        config, ledger = parts_of(recovered.ledger)
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
        names = [END_SESSIONS, f"{self.name}.".encode(), self.clients.author + b"."]
        self.clients.owe((self.machine.handler(END_SESSIONS), names, b""))
        return len(saved)

    # Time and peers

    def advance(self, now_ms: int, monotonic_ms: float) -> None:
        """Moves the node's clocks, never back, and with them what reads may do in this turn."""
        if now_ms > self.now_ms:
            self.now_ms = now_ms
        raft = self.raft
        raft.advance(monotonic_ms)
        self.monotonic_ms = raft.now_ms
        leading = raft.leading
        if leading is not None and leading.settled and raft.applied == raft.commit:
            self.due = self.machine.pass_time(self.now_ms)
            self._lease_until_ms = leading.lease_until_ms()
            self.reads_wait = self.due or raft.now_ms >= self._lease_until_ms
        else:
            self.due = False
            self.reads_wait = True

    def pass_time(self, monotonic_ms: float) -> None:
        """The time once messages were read off a socket, before they are handed to `receive`.

        A heartbeat must not count from before it came: the process may have
        been stopped in the middle of a turn, and the leader's lease counts on it.
        """
        self.raft.advance(monotonic_ms)
        self.monotonic_ms = self.raft.now_ms

    def reads_lapsed(self, monotonic_ms: float) -> bool:
        """Whether reads that were answered since `advance` may be stale: the lease they relied on has run out."""
        return not self.reads_wait and monotonic_ms >= self._lease_until_ms

    def receive(self, peer: str, message: Message) -> None:
        """A message came from another member.

        One with another data folder than it is known by may have joined anew while
        this node was away: it may lead, or stand for election, but what it says it
        has is not what the member had.
        """
        if self._members is not self.raft.config:
            self._compare_disks()
        if peer in self._changed and type(message) not in FROM_CHANGED:
            return
        self._contacts.heard(peer, self.monotonic_ms)
        handler = self._handlers.get(type(message))
        if handler is not None:
            handler(peer, message)
            return
        if isinstance(message, Alive):
            self._contacts.answered(peer, message, self.monotonic_ms)
        elif isinstance(message, Heartbeat):
            self._contacts.matches = message.matches
        leader = self.raft.leader
        self.raft.receive(peer, message)
        if self.raft.leader != leader:
            self._next_retry_ms = self.monotonic_ms

    def connected(self, peer: str) -> None:
        """There is a link to the peer again: what it may have missed is sent at once."""
        self.disconnected(peer)  # whatever was sent before
        if peer == self.raft.leader:
            self._next_retry_ms = self.monotonic_ms
        leading = self.raft.leading
        if leading is not None and peer in leading.progress:
            leading.replicate(peer)

    def disconnected(self, peer: str) -> None:
        """The link to the peer broke: what was on its way there may be lost."""
        leading = self.raft.leading
        if leading is not None and peer in leading.progress:
            leading.progress[peer].lost()

    def meet(self, peer: str, disk: str) -> None:
        """The peer showed which data folder it has; that is the one it is trusted with from now on."""
        self._met[peer] = disk
        self._compare_disks()

    def _compare_disks(self) -> None:
        config = self._members = self.raft.config
        members = config.members
        self._changed = {
            peer: disk for peer, disk in self._met.items() if peer in members and members[peer].disk not in ("", disk)
        }

    def disk_of(self, peer: str) -> str:
        """The data folder the peer is known by, "" if it was never met."""
        member = self.raft.config.members.get(peer)
        return (member.disk if member is not None else "") or self._met.get(peer, "")

    @property
    def members(self) -> Config:
        """The configuration in force."""
        return self.raft.config

    def addresses(self) -> dict[str, str]:
        """Where the other members are reached."""
        return {one.id: one.address for one in self.raft.config.members.values() if one.id != self.name}

    def outgoing(self) -> list[tuple[str, Message]]:
        """Messages to send now, (to, what)."""
        if self.raft.leading is None:
            self._pass_on()
        found = self.raft.outgoing()
        if self._outbox:
            found = [*found, *self._outbox]
            self._outbox.clear()
        return found

    # Timers

    def tick(self) -> None:
        """Runs the timers: elections, heartbeats, pings, retries, and giving up on what has no outcome."""
        raft = self.raft
        if raft.leading is not None and not raft.leading.progress:
            self._leadership.begin()
            if len(self._wishes):
                self._pursue_wishes()
            if raft.leading.settled and (number := self.clients.outstanding.unconfirmed()):
                raft.leading.ask_read(self.name, number)  # asked of a leader before this one was alone
                self._leadership.pass_on_reads(self.now_ms)
            return
        now_ms = self.monotonic_ms
        raft.tick()
        if raft.leading is not None:
            if self._leadership.begin():
                self._next_retry_ms = now_ms
            self._leadership.pass_on_reads(self.now_ms)
        else:
            ping = self._contacts.pings(now_ms, self.timing.heartbeat_ms)
            if ping is not None:
                self._outbox += [(peer, ping) for peer in raft.config.others(self.name)]
        if now_ms >= self._next_retry_ms:
            self._next_retry_ms = now_ms + self.timing.election_ms / 2
            self._retry()
        self._give_up()

    def next_tick_ms(self) -> float | None:
        """The monotonic time at which `tick` has something to do, None when it has nothing."""
        raft = self.raft
        raft_ms = raft.next_tick_ms()
        if raft.leading is not None and not raft.leading.progress:
            waits = len(self._wishes) or self.clients.outstanding.unconfirmed()
            return self.monotonic_ms + self.timing.heartbeat_ms if waits else raft_ms
        times_ms = [self._next_retry_ms]
        if raft_ms is not None:
            times_ms.append(raft_ms)
        if raft.leading is None and raft.config.members:
            times_ms.append(self._contacts.next_ping_ms)
            if self.clients.waiting and not self.lost_leader:
                times_ms.append(raft.contact_ms + 2 * self.timing.election_ms)
        return min(times_ms)

    def next_due_ms(self) -> int | None:
        """When `advance` should be called next, at the latest, for the sake of an alarm; only a leader rings any."""
        if self.raft.leading is None or self._leadership.ringing or self._leadership.holding_back:
            return None
        return self.now_ms if self.machine.behind else self.machine.clockwork.next_due_ms(self.now_ms)

    @property
    def busy(self) -> bool:
        """Whether there is something to do that no socket, timer or disk has to announce."""
        raft = self.raft
        return raft.applied < raft.commit or raft.log.sent_index < raft.log.last_index or self._can_move

    @property
    def _can_move(self) -> bool:
        """Whether there is something for this turn's entry or batch, and that can be made, or refused."""
        if self.raft.leading is not None:
            return self._leadership.has_work(due=self.due)
        if self.lost_leader:
            return bool(self.clients.open.calls)
        return self.raft.leader is not None and bool(self.clients.open.calls or self.clients.owed)

    @property
    def has_leader(self) -> bool:
        """Whether commands can be served now, as far as this node knows."""
        return self.raft.leading is not None or (self.raft.leader is not None and not self.lost_leader)

    @property
    def leader(self) -> str | None:
        """Who leads, None if this node is in touch with nobody who does."""
        return self.raft.leader if self.has_leader else None

    @property
    def lost_leader(self) -> bool:
        """Whether no leader has been heard for two election timeouts."""
        raft = self.raft
        if raft.leading is not None or raft.alone:
            return False
        return raft.now_ms - raft.contact_ms >= 2 * self.timing.election_ms

    def _retry(self) -> None:
        """Repeats to the leader what it may not have heard."""
        raft = self.raft
        leader = raft.leader
        self._pursue_wishes()
        self._introduce()
        number = self.clients.outstanding.unconfirmed()
        if raft.leading is not None:
            if number > raft.leading.reads.asked_by(self.name):
                raft.leading.ask_read(self.name, number)
                self._leadership.pass_on_reads(self.now_ms)
            return
        if leader is None:
            return
        if number:
            self._outbox.append((leader, AskRead(raft.term, number)))
        patience_ms = self.timing.election_ms / 2
        again = self._forwarding.repeat(self.clients.outstanding.sent_in(raft.term), self.monotonic_ms, patience_ms)
        self._outbox += [(leader, message) for message in again]

    def _give_up(self) -> None:
        """Answers what has no outcome: nobody waits longer than two election timeouts for a leader that is gone."""
        if self.lost_leader:
            self.clients.outstanding.lose(uncertain("the leader was lost while it was under way"), no_leader(SHARD))
            self.clients.refuse_open(self.monotonic_ms, no_leader(SHARD))
        elif self.clients.outstanding.oldest is not None:
            before_ms = self.monotonic_ms - GIVE_UP_MS
            if self.clients.outstanding.oldest.since_ms < before_ms:
                late = uncertain("it was not carried out in time")
                self.clients.outstanding.lose(late, no_leader(SHARD), before_ms=before_ms)

    # Clients

    def origin(self, client_id: int) -> bytes:
        """The name by which the log knows a client's session."""
        return self.clients.origin(client_id)

    def read(self, handler: Handler, args: list[bytes]) -> Reply:
        """Runs a command that is not logged, now. What is due has not happened yet, but what it ends is hidden."""
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
        self.clients.owe((self.machine.handler(END_SESSION), [END_SESSION, origin], b""))

    def knows_session(self, origin: bytes) -> bool:
        """Whether the replicated state holds something that ends with this session."""
        machine = self.machine
        return machine.sessions.get(origin) is not None or machine.waiters.of(origin) is not None

    def unblock(self, client: Client, origin: bytes, reason: bytes) -> None:
        """Ends a wait by hand (CLIENT UNBLOCK); ``reason`` is TIMEOUT or ERROR."""
        call = unblocking(self.machine, origin, reason)
        if client is None:
            self.clients.owe(call)
        else:
            self.submit(client, call[0], call[1])

    # Membership

    def change(self, client: Client, change: Change) -> None:
        """Somebody wants a member added or removed, or another leader; the answer comes once it is so."""
        self._wishes.make(client, change)
        self._next_retry_ms = self.monotonic_ms

    def resign(self) -> None:
        """Asks the best follower to lead instead, before this node stops."""
        leading = self.raft.leading
        if leading is not None:
            voters = [peer for peer in self.raft.config.voters if peer in leading.progress]
            if voters:
                leading.hand_over(max(voters, key=lambda peer: leading.progress[peer].match))

    def _pursue_wishes(self) -> None:
        leader = self.raft.leader
        for wish in self._wishes.pursue():
            if leader is not None:
                self._outbox.append((leader, wish))

    def _introduce(self) -> None:
        """Makes known where this node is now, and (as the leader) which data folders the others were met with."""
        config = self.raft.config
        me = config.members.get(self.name)
        if me is not None and self.address and me.address != self.address and not len(self._wishes):
            self.change(None, Change("add", self.name, self.address, self.identity.disk))
        if self.raft.leading is not None:
            met = {**self._met, self.name: self.identity.disk}
            unknown = [one for one in config.members.values() if not one.disk and met.get(one.id)]
            if unknown and self.raft.leading.may_change():
                known = msgspec.structs.replace(unknown[0], disk=met[unknown[0].id])
                self.raft.leading.change(config.with_known(known))

    # The log

    def ready(self) -> Work | None:
        """Closes the turn on a leader: its entry goes into the log. What is to be made durable, or None."""
        raft = self.raft
        if raft.leading is not None:
            self._leadership.propose(self.now_ms, due=self.due)
            self._leadership.pass_on_reads(self.now_ms)
        entries, hard_state = raft.unsaved()
        if not entries and hard_state is None:
            return None
        return Work(entries, None if hard_state is None else (SHARD, hard_state))

    def persisted(self, work: Work) -> None:
        """The disk has it."""
        self.raft.able = True
        self.raft.saved(list(work.entries), None if work.hard_state is None else work.hard_state[1])

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
        raft = self.raft
        if raft.leader is None or self.lost_leader:
            return
        if self.clients.owed:
            self.clients.settle_debts()
        if not self.clients.open.calls:
            return
        batch = self.clients.close(self.monotonic_ms, self.raft.term, logged=bool(self.clients.open.writes))
        if not batch.writes:
            self._outbox.append((raft.leader, AskRead(raft.term, batch.number)))
        elif batch.lost is None:
            self._outbox.append((raft.leader, self._forwarding.send(batch)))

    # Messages between nodes that are no part of Raft

    def _on_ask_read(self, peer: str, message: AskRead) -> None:
        self._leadership.ask(peer, message, due=self.due)
        self._leadership.pass_on_reads(self.now_ms)

    def _on_readable(self, peer: str, message: Readable) -> None:
        if message.term == self.raft.term:
            self.clients.outstanding.readable(message.number, message.index, message.now_ms)

    def _on_ping(self, peer: str, message: Ping) -> None:
        self._outbox.append((peer, Alive(0, message.sent_us, False)))

    def _on_wish(self, peer: str, message: Wish) -> None:
        refusal = self._wishes.hear(message)
        if refusal is not None:
            self._outbox.append((peer, refusal))

    def _on_wish_granted(self, peer: str, message: WishGranted) -> None:
        self._wishes.granted(message)
        self._next_retry_ms = self.monotonic_ms

    # Carrying out

    def apply(self) -> Answers:
        """Carries out what is committed, up to a limit (`busy` tells of more); the answers to deliver."""
        raft, machine, carrying = self.raft, self.machine, self._carrying
        left = APPLY_BYTES
        while raft.applied < raft.commit and left > 0:
            entry = raft.log.entry(raft.applied + 1)
            carrying.carry_out(machine, entry)
            raft.carried_out(entry.index)
            self.bytes_since_checkpoint += len(entry.payload)
            left -= len(entry.payload) + ENTRY_BYTES
        if self.clients.outstanding.oldest is not None:
            self.clients.serve(machine, raft.applied)
        woken, machine.woken = machine.woken, []
        concerned, carrying.concerned = carrying.concerned, {}
        if raft.leading is not None and raft.leading.progress:
            for origin, _ in woken:
                concerned[batches.node_of(origin)] = None
            for node in concerned:
                raft.leading.tell(node)
        if self._wishes.answers:
            self.clients.answers.append(self._wishes.answers)
            self._wishes.answers = []
        restored, self._restored = self._restored, False
        return Answers(chain.from_iterable(self.clients.take_answers()), woken, restored)

    # Checkpoints

    @property
    def applied_index(self) -> int:
        """The last entry that was carried out."""
        return self.raft.applied

    def begin_checkpoint(self) -> tuple[Checkpoint, int, int, bytes]:
        """Starts a checkpoint of what is applied: (what to write, index, term, ledger)."""
        checkpoint, ledger = self.machine.begin_checkpoint()
        self.bytes_since_checkpoint = 0
        raft = self.raft
        term = raft.log.term(raft.applied)
        assert term is not None
        return checkpoint, raft.applied, term, ledger_of(raft.membership.at(raft.applied), ledger)

    def end_checkpoint(self, index: int, *, durable: bool) -> None:
        """The checkpoint of ``index`` is in force, or it failed."""
        self.machine.keyspace.end_checkpoint(durable=durable)
        if durable:
            self.checkpoint_index = index
            self.raft.compact(index, RETAIN_BYTES)

    # Snapshots that come in

    def chunk_stored(self, chunk: Chunk, *, stored: bool) -> None:
        """A piece of `snapshots` is on the disk, or cannot be had there; after the last the state is the snapshot's.

        What became of writes that may be in it, and are not answered, is not known then.
        """
        installation = self.snapshots.stored(chunk, stored=stored)
        if installation is None:
            return
        self.machine = installation.machine
        self.checkpoint_index = installation.index
        self.bytes_since_checkpoint = 0
        self._carrying.term = max(self._carrying.term, installation.term)
        unseen = uncertain("this node was too far behind to see what became of it")
        for batch in self.clients.outstanding.lose_to(installation.term, unseen):
            for origin in batch.origins.values():
                self.unblock(None, origin, b"TIMEOUT")  # nobody waits for what is answered now
        self._restored = True

    # Looking

    @property
    def term(self) -> int:
        """Raft's current term."""
        return self.raft.term

    @property
    def last_index(self) -> int:
        """The last entry in the log."""
        return self.raft.log.last_index

    @property
    def commit_index(self) -> int:
        """The last entry known to be committed."""
        return self.raft.commit

    def status(self) -> Status:
        """Everything a person may want to know of the cluster, as this node sees it."""
        return status_of(self.raft, self._contacts, self.identity, self.address)
