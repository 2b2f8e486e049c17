"""Node: one process's part of the cluster, as verbs in and work out.

The caller (the edge, or a simulator) does this, turn after turn:

1. `advance` with the time. If ``reads_wait`` then says so, reads of this turn
   take their place with `submit_read`; else `read` may answer them at once.
2. `receive` every message that came from a peer; `submit` every command that
   must go through the log, and with `submit_read` what follows it on the same
   connection.
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
from itertools import chain, repeat
from typing import Any, NamedTuple, TypeAlias

import msgspec

from cluster import batch as batches
from cluster.batch import Batch, Client
from cluster.contacts import Contacts
from cluster.forwarding import Forwarding
from cluster.machine.keyspace import Checkpoint
from cluster.machine.machine import END_SESSION, END_SESSIONS, UNBLOCK, Call, Commands, Handler, Machine, in_place
from cluster.machine.reply import CommandError, Reply
from cluster.outstanding import Outstanding
from cluster.raft.core import Chance, Raft, Timing
from cluster.raft.leading import Leading
from cluster.raft.log import Log
from cluster.raft.membership import MARK, Config, Membership
from cluster.raft.messages import (
    Alive,
    AskRead,
    Chunk,
    Forward,
    Heartbeat,
    Message,
    Ping,
    Readable,
    Wish,
    WishRefused,
)
from cluster.snapshots import Snapshots, ledger_of, parts_of
from cluster.status import Status, status_of
from cluster.storage.contract import Entry, HardState, Identity, Recovered, Row
from cluster.wishes import Change, Wishes

Answer: TypeAlias = "tuple[Client, Reply]"

SHARD = 0

GIVE_UP_MS = 5_000.0
"""A command that has no outcome after so long is answered ``-UNCERTAIN`` though there is a leader."""

ENTRIES_AHEAD_MAX = 64
"""A leader this many entries ahead of what is committed lets its batch grow instead."""

APPLY_BYTES = 4 * 1024 * 1024
"""About what one `apply` carries out; more is left to the next."""

RETAIN_BYTES = 4 * 1024 * 1024
"""How much of the log behind a checkpoint is kept for followers that are a little behind."""

ENTRY_BYTES_MAX = 900_000_000
"""A row of SQLite holds a thousand million bytes."""


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
        self._origin_prefix = f"{self.name}.{boot}."
        self._author = self._origin_prefix[:-1].encode()
        self._open = Batch()
        self._outstanding = Outstanding()
        self._forwarding = Forwarding(self._author)
        self._owed: list[Call] = []  # what no client waits for, and must happen some time
        self._replies: list[Iterable[Answer]] = []
        self._asked: dict[str, int] = {}  # reads of others that wait for what is due to happen
        self._applied_term = 0
        self._led: Leading | None = None  # the leadership that was begun last
        self._rung_index = 0  # the last entry that was made because an alarm was due
        self._lease_until_ms = 0.0
        self._next_retry_ms = 0.0
        self._outbox: list[tuple[str, Message]] = []
        self._contacts = Contacts()
        self._met: dict[str, str] = {}
        self.raft = Raft(self.name, members, shard=SHARD, timing=timing, chance=chance)
        self.snapshots = Snapshots(self.raft, commands)
        self._wishes = Wishes(self.raft)
        self._restored = False
        self._handlers: dict[type[Message], Callable[[str, Any], None]] = {
            Forward: self._on_forward,
            AskRead: self._on_ask_read,
            Readable: self._on_readable,
            Ping: self._on_ping,
            Wish: self._on_wish,
            WishRefused: lambda _, refused: self._wishes.refused(refused),
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
        self._applied_term = recovered.checkpoint_term
        self.raft.recover(Log(index, recovered.checkpoint_term, saved), membership, recovered.hard_state)
        self.now_ms = self.machine.now_ms
        prefix = f"{self.name}.".encode()
        self._owe((self.machine.handler(END_SESSIONS), [END_SESSIONS, prefix, self._origin_prefix.encode()], b""))
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
        """A message came from another member."""
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
        if peer == self.raft.leader:
            self._next_retry_ms = self.monotonic_ms

    def disconnected(self, peer: str) -> None:
        """The link to the peer broke: what was on its way there may be lost."""
        leading = self.raft.leading
        progress = leading.progress.get(peer) if leading is not None else None
        if progress is not None:
            progress.lost()

    def meet(self, peer: str, disk: str) -> None:
        """The peer showed which data folder it has; that is the one it is trusted with from now on."""
        self._met[peer] = disk

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
            found, self._outbox = [*found, *self._outbox], []
        return found

    # Timers

    def tick(self) -> None:
        """Runs the timers: elections, heartbeats, pings, retries, and giving up on what has no outcome."""
        raft = self.raft
        if raft.leading is not None and not raft.leading.progress:
            if len(self._wishes):
                self._pursue_wishes()
            return
        now_ms = self.monotonic_ms
        raft.tick()
        if raft.leading is not None:
            if raft.leading is not self._led:
                self._begin_to_lead()
            self._collect_reads()
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
            return self.monotonic_ms + self.timing.heartbeat_ms if len(self._wishes) else raft_ms
        times_ms = [self._next_retry_ms]
        if raft_ms is not None:
            times_ms.append(raft_ms)
        if raft.leading is None and raft.config.members:
            times_ms.append(self._contacts.next_ping_ms)
        return min(times_ms)

    def next_due_ms(self) -> int | None:
        """When `advance` should be called next, at the latest, for the sake of an alarm; only a leader rings any."""
        if self.raft.leading is None or self._ringing or self._holding_back:
            return None
        return self.now_ms if self.machine.behind else self.machine.clockwork.next_due_ms(self.now_ms)

    @property
    def _ringing(self) -> bool:
        """Whether an entry that will ring what is due is on its way."""
        return self.raft.applied < self._rung_index

    @property
    def busy(self) -> bool:
        """Whether there is something to do that no socket, timer or disk has to announce."""
        raft = self.raft
        return (
            raft.applied < raft.commit
            or raft.log.sent_index < raft.log.last_index
            or self._can_move
        )

    @property
    def _can_move(self) -> bool:
        """Whether there is something for this turn's entry or batch, and that can be made, or refused."""
        if self.raft.leading is not None:
            rings = self.due and not self._ringing
            return bool(rings or self._open.calls or self._forwarding.parts or self._owed) and not self._holding_back
        if self.lost_leader:
            return bool(self._open.calls)
        return self.raft.leader is not None and bool(self._open.calls or self._owed)

    @property
    def has_leader(self) -> bool:
        """Whether commands can be served now, as far as this node knows."""
        return self.raft.leading is not None or (self.raft.leader is not None and not self.lost_leader)

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
        number = self._outstanding.unconfirmed()
        if raft.leading is not None:
            if number > raft.leading.reads.asked_by(self.name):
                raft.leading.ask_read(self.name, number)
                self._collect_reads()
            return
        if leader is None:
            return
        if number:
            self._outbox.append((leader, AskRead(raft.term, number)))
        patience_ms = self.timing.election_ms / 2
        again = self._forwarding.repeat(self._outstanding.sent_in(raft.term), self.monotonic_ms, patience_ms)
        self._outbox += [(leader, message) for message in again]

    def _give_up(self) -> None:
        """Answers what has no outcome: nobody waits longer than two election timeouts for a leader that is gone."""
        if self.lost_leader:
            self._outstanding.lose(_uncertain("the leader was lost while it was under way"), _no_leader())
            self._refuse_open(_no_leader())
        elif self._outstanding.oldest is not None:
            before_ms = self.monotonic_ms - GIVE_UP_MS
            if self._outstanding.oldest.since_ms < before_ms:
                late = _uncertain("it was not carried out in time")
                self._outstanding.lose(late, _no_leader(), before_ms=before_ms)

    def _refuse_open(self, error: CommandError) -> None:
        """What was not sent to anybody certainly did not happen; it is answered after what was asked before."""
        if self._open.calls:
            self._close(logged=False).lost = error

    def _owe(self, call: Call) -> None:
        self._owed.append(call)

    # Clients

    def origin(self, client_id: int) -> bytes:
        """The name by which the log knows a client's session."""
        return f"{self._origin_prefix}{client_id}".encode()

    def read(self, handler: Handler, args: list[bytes]) -> Reply:
        """Runs a command that is not logged, now. What is due has not happened yet, but what it ends is hidden."""
        return self.machine.peek(handler, args)

    def submit(
        self, client: Client, handler: Handler, args: list[Any], *, logged: list[Any] | None = None, origin: bytes = b""
    ) -> None:
        """Gives a command its place in this turn's batch.

        ``logged`` is what other replicas will carry out: ``args`` itself unless
        told otherwise. What is owed goes first where the session matters: it may
        end a wait of the same session, never the one that begins here.
        """
        if origin and self._owed:
            self._settle_debts()
        batch = self._open
        batch.clients.append(client)
        batch.calls.append((handler, args, origin))
        if origin:
            batch.origins[len(batch.writes)] = origin
        batch.writes.append(args if logged is None else logged)

    def submit_read(self, client: Client, handler: Handler, args: list[bytes]) -> None:
        """Gives a command that is not logged its place among those of this turn that are."""
        batch = self._open
        batch.clients.append(client)
        batch.calls.append((*in_place(handler, args), b""))

    def submit_writes(self, client: Client, calls: list[Call]) -> None:
        """Gives several commands of one client their places, logged as they are and without their session."""
        batch = self._open
        if len(calls) == 1:  # as from most clients
            batch.clients.append(client)
            batch.calls.append(calls[0])
            batch.writes.append(calls[0][1])
            return
        batch.clients += repeat(client, len(calls))
        batch.calls += calls
        batch.writes += [args for _, args, _ in calls]

    def end_session(self, origin: bytes) -> None:
        """A client is gone: whatever ends with its session ends."""
        self._owe((self.machine.handler(END_SESSION), [END_SESSION, origin], b""))

    def knows_session(self, origin: bytes) -> bool:
        """Whether the replicated state holds something that ends with this session."""
        machine = self.machine
        return machine.sessions.get(origin) is not None or machine.waiters.of(origin) is not None

    def unblock(self, client: Client, origin: bytes, reason: bytes) -> None:
        """Ends a wait by hand (CLIENT UNBLOCK); ``reason`` is TIMEOUT or ERROR."""
        call = (self.machine.handler(UNBLOCK), [UNBLOCK, origin, reason], b"")
        if client is None:
            self._owe(call)
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
            self._propose()
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
        what is not is written when the disk takes it again. Among others this
        node hands over if it leads, and the log decides: it goes on following.
        """
        self.stand_aside()
        raft = self.raft
        raft.log.unsaved_again()
        if not raft.alone:
            return
        written = [batch for batch in self._outstanding if batch.index > raft.log.saved_index]
        if definite and written:
            raft.cut_from(written[0].index)
            self._rung_index = 0
        self._outstanding.lose(error, error)
        self._replies += [self._failed(batch) for batch in self._outstanding.take_answerable(raft.applied)]

    def stand_aside(self) -> None:
        """The disk takes nothing: this node stands for no election, and hands over what it leads."""
        raft = self.raft
        raft.able = False
        if raft.leading is not None and not raft.alone:
            raft.leading.resign()
            raft.follow_nobody()

    def refuse_open(self, error: CommandError) -> None:
        """What gathered meanwhile, and would have to be written, is answered with ``error``."""
        if self._open.writes:
            self._refuse_open(error)

    def mended(self) -> None:
        """The disk takes writes again: what it is behind with comes with the next `ready`."""
        self.raft.able = True
        self.raft.log.unsaved_again()

    @property
    def _holding_back(self) -> bool:
        """Whether a leader makes no entry just now."""
        raft = self.raft
        assert raft.leading is not None
        if raft.leading.successor is not None:
            return True
        return raft.log.last_index - raft.commit >= ENTRIES_AHEAD_MAX

    def _settle_debts(self) -> None:
        owed, self._owed = self._owed, []
        for handler, args, origin in owed:
            self.submit(None, handler, args, origin=origin)

    def _close(self, *, logged: bool) -> Batch:
        """Ends this turn's batch: it has a number and is waited for; ``logged`` makes the body of its part."""
        batch, self._open = self._open, Batch()
        self._outstanding.close(batch, self.monotonic_ms)
        batch.term = self.raft.term
        if logged:
            batch.body = batch.encode()
            if len(batch.body) > ENTRY_BYTES_MAX:
                batch.lost = CommandError("more than the log takes at once: send less in one transaction")
        return batch

    def _propose(self) -> None:
        """Makes this turn's entry: what came from clients here and from other nodes, or what is due."""
        leading = self.raft.leading
        assert leading is not None
        if self._owed:
            self._settle_debts()
        batch = self._open
        rings = self.due and (bool(batch.calls or self._asked) or not self._ringing)
        if batch.writes or self._forwarding.parts or rings:
            if not self._holding_back:
                self._make_entry()
        elif batch.calls:
            leading.ask_read(self.name, self._close(logged=False).number)
            self._collect_reads()

    def _make_entry(self) -> None:
        raft, leading = self.raft, self.raft.leading
        assert leading is not None
        parts, self._forwarding.parts = self._forwarding.parts, []
        index = raft.log.last_index + 1
        if self._open.calls:
            batch = self._close(logged=True)
            if batch.lost is None:
                batch.index = index
                parts.append((self._author, batch.number, msgspec.Raw(batch.body)))
        raft.propose(batches.payload_of(self.now_ms, parts))
        if self.due:
            self._rung_index = index
        leading.replicate_all()
        if self._asked:
            for peer, number in self._asked.items():
                leading.ask_read(peer, number, index)
            self._asked.clear()
            self._collect_reads()

    def _pass_on(self) -> None:
        """Closes the turn on a node that does not lead: hands the batch to the leader, if there is one."""
        raft = self.raft
        if raft.leader is None or self.lost_leader:
            return
        if self._owed:
            self._settle_debts()
        if not self._open.calls:
            return
        batch = self._close(logged=bool(self._open.writes))
        if not batch.writes:
            self._outbox.append((raft.leader, AskRead(raft.term, batch.number)))
        elif batch.lost is None:
            self._outbox.append((raft.leader, self._forwarding.send(batch)))

    def _begin_to_lead(self) -> None:
        self._led = self.raft.leading
        self._forwarding.begin_to_lead()
        self._asked.clear()
        self._rung_index = 0
        self._next_retry_ms = self.monotonic_ms

    def _collect_reads(self) -> None:
        """Passes on which reads the leader's lease or a majority has confirmed."""
        leading = self.raft.leading
        assert leading is not None
        if not leading.confirmed:
            return
        confirmed, leading.confirmed = leading.confirmed, []
        for asked in confirmed:
            if asked.peer == self.name:
                self._outstanding.readable(asked.number, asked.index, self.now_ms)
            else:
                self._outbox.append((asked.peer, Readable(self.raft.term, asked.number, asked.index, self.now_ms)))
                leading.tell(asked.peer)

    # Messages between nodes that are no part of Raft

    def _on_forward(self, peer: str, message: Forward) -> None:
        leading = self.raft.leading
        if leading is not None and message.term == self.raft.term and leading.successor is None:
            self._forwarding.take(message)

    def _on_ask_read(self, peer: str, message: AskRead) -> None:
        """Another node wants to read; what is due happens first, in an entry that it must wait for."""
        leading = self.raft.leading
        if leading is None or message.term != self.raft.term:
            return
        if self.due:
            self._asked[peer] = message.number
        else:
            leading.ask_read(peer, message.number)
            self._collect_reads()

    def _on_readable(self, peer: str, message: Readable) -> None:
        if message.term == self.raft.term:
            self._outstanding.readable(message.number, message.index, message.now_ms)

    def _on_ping(self, peer: str, message: Ping) -> None:
        self._outbox.append((peer, Alive(0, message.sent_us, False)))

    def _on_wish(self, peer: str, message: Wish) -> None:
        refusal = self._wishes.hear(message)
        if refusal is not None:
            self._outbox.append((peer, refusal))

    # Carrying out

    def apply(self) -> Answers:
        """Carries out what is committed, up to a limit (`busy` tells of more); the answers to deliver."""
        raft = self.raft
        told: dict[str, None] = {}
        left = APPLY_BYTES
        while raft.applied < raft.commit and left > 0:
            entry = raft.log.entry(raft.applied + 1)
            self._carry_out(entry, told)
            raft.carried_out(entry.index)
            left -= len(entry.payload) + 64
        if self._outstanding.oldest is not None:
            for batch in self._outstanding.take_answerable(raft.applied):
                self._replies.append(self._failed(batch) if batch.lost is not None else self._read_batch(batch))
        woken, self.machine.woken = self.machine.woken, []
        if raft.leading is not None and raft.leading.progress:
            for origin, _ in woken:
                told[batches.node_of(origin)] = None
            for node in told:
                raft.leading.tell(node)
        if self._wishes.answers:
            self._replies.append(self._wishes.answers)
            self._wishes.answers = []
        replies, self._replies = self._replies, []
        restored, self._restored = self._restored, False
        return Answers(chain.from_iterable(replies), woken, restored)

    def _carry_out(self, entry: Entry, told: dict[str, None]) -> None:
        """One committed entry: every part of it, and the answers to the one that is this node's own."""
        if entry.term > self._applied_term:
            self._applied_term = entry.term
            self._outstanding.lose_before(entry.term, _no_leader())
        payload = entry.payload
        self.bytes_since_checkpoint += len(payload)
        if not payload or payload[:1] == MARK:
            return
        time_ms, parts = batches.parts_in(payload)
        calls: list[Call] = []
        mine: list[tuple[int, Batch]] = []
        for author, number, body in parts:
            own = self._own(number) if author == self._author else []
            for batch in own:
                mine.append((len(calls), batch))
                if batch.lost is None:
                    calls = calls + batch.calls if calls else batch.calls
            if not own or own[-1].lost is not None:
                calls = calls + self._decoded(author, body)
                told[batches.node_of(author)] = None
        replies = self.machine.apply(time_ms, calls)
        for start, batch in mine:
            if batch.lost is not None:
                self._replies.append(self._failed(batch))
                continue
            answers = replies if len(batch.calls) == len(replies) else replies[start : start + len(batch.calls)]
            self._replies.append(zip(batch.clients, answers, strict=True))

    def _own(self, number: int) -> list[Batch]:
        """The batch of this node that an entry holds, behind those to be answered before; empty if it was given up.

        Before it stand reads, which run in their places, and what was lost.
        """
        found = self._outstanding.take_to(number)
        for batch in found[:-1]:
            if batch.lost is None and batch.writes:
                batch.lost = _uncertain("a later command overtook it")
        return found

    def _decoded(self, author: bytes, body: msgspec.Raw) -> list[Call]:
        """The calls of a part that nobody here waits for."""
        writes, origins = batches.writes_in(body)
        handler = self.machine.handler
        calls = [(handler(args[0]), args, origins.get(place, b"")) for place, args in enumerate(writes)]
        if author == self._author:
            # Its clients were told that it is uncertain: none of them waits, whatever it says.
            for origin in origins.values():
                self.unblock(None, origin, b"TIMEOUT")
        return calls

    def _failed(self, batch: Batch) -> list[Answer]:
        """The answers of a batch that was lost; what no client waits for is done another time."""
        error = batch.lost
        assert error is not None
        for client, call in zip(batch.clients, batch.calls, strict=True):
            if client is None:
                self._owe(call)
        return [(client, error) for client in batch.clients if client is not None]

    def _read_batch(self, batch: Batch) -> list[Answer]:
        """Runs a batch of reads on the state as it is."""
        machine = self.machine
        machine.pass_time(batch.read_ms)
        calls = zip(batch.clients, batch.calls, strict=True)
        return [(client, handler(machine, args)) for client, (handler, args, _) in calls]

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

        What became of what was asked before, and is not answered, is not known then.
        """
        installation = self.snapshots.stored(chunk, stored=stored)
        if installation is None:
            return
        self.machine = installation.machine
        self.checkpoint_index = installation.index
        self.bytes_since_checkpoint = 0
        self._applied_term = max(self._applied_term, installation.term)
        for batch in self._outstanding:
            for origin in batch.origins.values():
                self.unblock(None, origin, b"TIMEOUT")  # nobody waits for what is answered now
        self._outstanding.lose(_uncertain("this node was too far behind to see what became of it"), _no_leader())
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


def _no_leader() -> CommandError:
    return CommandError(f"no leader for shard {SHARD}", "CLUSTERDOWN")


def _uncertain(why: str) -> CommandError:
    return CommandError(f"it may or may not have happened: {why}", "UNCERTAIN")
