"""Node: one process's part of the cluster, as verbs in and work out.

It has a `Shard` for every shard there is, with a replica or without, and one
for the system group, whose members are all nodes. Most turns concern few of
them: `touch` brings a shard's clocks to this turn and makes the turn look after
it; what is not touched costs nothing.

The caller (the edge, or a simulator) does this, turn after turn:

1. `advance` with the time.
2. `receive` every message that came from a peer; `touch` the shard of a command,
   then `Shard.submit` it if it must go through the log, and with
   `Shard.submit_read` what reads; where ``reads_wait`` does not say so, and
   nothing of the connection is unanswered, `Shard.read` may answer at once.
   Whoever has anything in a shard that has `lapsed` is closed before that, and
   before it is sent anything.
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

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple, Protocol, cast

import msgspec

from cluster import atlas as system_state
from cluster.atlas import Atlas
from cluster.batch import Answer, Client, author_of
from cluster.cache.controller import Controller
from cluster.coherence import KINDS, Coherence
from cluster.coherence import MESSAGES as OF_COHERENCE
from cluster.contacts import REACHABLE_TIMEOUTS, Contacts
from cluster.courier import Courier
from cluster.credit import Credit
from cluster.detection import MESSAGES as OF_DETECTION
from cluster.detection import Detection
from cluster.doubt import Doubt
from cluster.machine.keyspace import Checkpoint
from cluster.machine.machine import Commands, Handler
from cluster.machine.reply import CommandError, Reply
from cluster.moves import Moves
from cluster.raft.core import Chance, Timing
from cluster.raft.membership import Config, Member
from cluster.raft.messages import (
    Append,
    Chunk,
    Commit,
    Forward,
    Heartbeat,
    Message,
    Presence,
    TimeoutNow,
    Vote,
)
from cluster.ring.placement import Placement, place
from cluster.ring.slots import SYSTEM, ranges, shard_of_slots
from cluster.shard import ALL_SLOTS, FOREVER_MS, Shard
from cluster.silence import Silence
from cluster.storage.contract import Entry, HardState, Identity, Recovered, Row
from cluster.wishes import Change

SYSTEM_VOTERS = 5
"""How many nodes vote in the system group; the others learn what these agree on."""

LINGER_MS = 5_000.0
"""How long a node that was removed is still told who leads: it may have clients that wait for an outcome."""

ROUND_MS = 300.0
"""How often a node looks whether a shard has to move, who is silent, and whether the others know where it is."""

FROM_CHANGED = frozenset({Append, Heartbeat, Commit, Chunk, TimeoutNow, Vote, Presence})
"""What is taken from a member that has another data folder than it is known by: nothing that rests on what it had."""


class Work(NamedTuple):
    """What to do before `Node.persisted` may be called: make entries, and terms and votes of shards, durable."""

    entries: Sequence[Entry]
    hard_states: Sequence[tuple[int, HardState]]


class Answers(NamedTuple):
    """``replies`` to clients, in order, and ``woken``: (shard, origin, reply) of waits that ended."""

    replies: Iterable[Answer]
    woken: list[tuple[int, bytes, Reply]]


class _Office(Protocol):
    """What looks after something that concerns several shards."""

    def next_ms(self) -> float:
        """When `look` has something to do, on the node's monotonic clock."""

    def look(self, now_ms: float) -> None:
        """Does it."""


class _Question(NamedTuple):
    """A client that is the node itself."""

    hear: Callable[[Reply], None]


class Node:
    """One member of the cluster.

    ``boot`` tells this run of the process from all others: sessions of an earlier
    run are ended. ``members`` is the configuration the system group begins with as
    far as this node knows, ``founders`` those nodes the shards of a new cluster
    were first placed on, empty for a node that joined; what the disk holds goes
    before both. ``address`` is where the others reach this node.
    ``node_timeout_ms`` is how long another may be silent before its shards move,
    ``session_timeout_ms`` how long before its clients' sessions are ended. ``cache_max_bytes`` is what the lines of
    its cache may take, ``cache_writeback_ms`` how long they may be dirty, ``cache_lease_ms`` how long other
    nodes' caches may go by what this one says as a leader, ``cache_propagation`` whether it then sends them what
    was written.
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
        founders: Config | None = None,
        address: str = "",
        zone: str = "",
        node_timeout_ms: float = 300_000.0,
        session_timeout_ms: int = 10_000,
        cache_max_bytes: int = 256 * 1024 * 1024,
        cache_lease_ms: int = 500,
        cache_writeback_ms: int = 100,
        cache_propagation: bool = True,
    ) -> None:
        self.identity = identity
        self.name = identity.node
        self.author = author_of(self.name, boot)
        self.timing = timing
        self.address = address
        self.zone = zone
        self.turn = 0
        self.now_ms = 0
        self.monotonic_ms = 0.0
        self.atlas = Atlas()
        self.contacts = Contacts(timing.election_ms)
        self.slot_shard = shard_of_slots(identity.shards)
        founders = founders if founders is not None else members
        placed = (
            place(identity.shards, identity.replicas, dict.fromkeys(founders.members, "")) if founders.members else []
        )
        initial = [_config_of(one.nodes) for one in placed] or [Config()] * identity.shards

        def new(number: int, commands: Commands, members: Config, voters_max: int, slots: range = ALL_SLOTS) -> Shard:
            return Shard(
                number,
                commands,
                name=self.name,
                author=self.author,
                timing=timing,
                chance=chance,
                members=members,
                voters_max=voters_max,
                contacts=self.contacts,
                siblings=identity.shards,
                slots=slots,
            )

        self.shards = [
            new(number, commands, members, identity.replicas + 1, range(first, last + 1))
            for number, (members, (first, last)) in enumerate(zip(initial, ranges(identity.shards), strict=True))
        ]
        self.system = new(SYSTEM, system_state.COMMANDS, _system_config(members), SYSTEM_VOTERS)
        self.system.departures(self)
        self._all = [*self.shards, self.system]
        self._by_number = {shard.number: shard for shard in self._all}
        self._touched: dict[Shard, None] = {}
        self._busy: dict[Shard, None] = {}  # those that had something to do at the end of a turn
        self._moving: dict[Shard, None] = {}  # and those with a snapshot on its way
        self._stirred = False  # the touched shards may have got something to do
        self._only = self.shards[0] if len(self.shards) == 1 else None
        self._tick_at_ms = 0.0
        self._due_at_ms: int | None = None
        self._next_round_ms = 0.0
        self._leads: dict[int, int] = {}  # the terms this node leads in, by shard
        self._outbox: list[tuple[str, int, Message]] = []
        self._met: dict[str, str] = {}
        self._members = members
        self._left: dict[str, float] = {}  # nodes that were removed of late, and until when they are told who leads
        self._changed: dict[str, str] = {}  # of those met, who have another data folder than ``_members`` says
        self._to_drop: dict[int, None] = {}
        self._questions = 0  # how many of its own have no answer yet
        self._detection = Detection(self) if len(self.shards) > 1 else None
        self._courier = Courier(self)
        self._coherence = Coherence(
            self,
            max_bytes=cache_max_bytes,
            lease_ms=cache_lease_ms,
            writeback_ms=cache_writeback_ms,
            fans_out=cache_propagation,
        )
        self._offices: list[_Office] = [self._courier, self._coherence]
        if self._detection is not None:
            self._offices.append(self._detection)
        self._session_timeout_ms = session_timeout_ms
        self._silence = Silence(self, session_timeout_ms)
        self._credit = Credit(identity.shards, session_timeout_ms)
        self._moves = Moves(self, node_timeout_ms)
        self._moves.targets()  # who is to lead stands for election first

    # Coming up

    def recover(self, number: int, recovered: Recovered, rows: Iterable[Row], entries: Iterable[Entry]) -> int:
        """Rebuilds a shard's state from the disk; how many entries its log holds behind the checkpoint.

        Those are carried out once they are known to be committed, which a node
        that is alone finds out in its first turn. The first entry of this run
        ends the sessions of the runs before.
        """
        shard = self._by_number[number]
        count = shard.recover(recovered, rows, entries)
        self.atlas.read(self.system.machine, self.system.raft.applied)
        self.now_ms = max(self.now_ms, shard.now_ms)
        return count

    # Time and peers

    def advance(self, now_ms: int, monotonic_ms: float) -> None:
        """Begins a turn: moves the clocks, never back, and touches the shards that have something to do."""
        self._note()
        self.turn += 1
        if now_ms > self.now_ms:
            self.now_ms = now_ms
        if monotonic_ms > self.monotonic_ms:
            self.monotonic_ms = monotonic_ms
        self._touched = {}
        self.cache.now_ms, self.cache.turn = self.monotonic_ms, self.turn
        for shard in self._busy:
            self.touch(shard)
        if self._due_at_ms is not None and self.now_ms >= self._due_at_ms:
            self._due_at_ms = None
            for shard in self._all:
                if shard.due_at_ms is not None and shard.due_at_ms <= self.now_ms:
                    self.stir(shard)
                elif shard.due_at_ms is not None:
                    self._due_at_ms = min(self._due_at_ms or shard.due_at_ms, shard.due_at_ms)
        if self._only is not None:
            self.touch(self._only)

    def touch(self, shard: Shard) -> None:
        """The shard is used in this turn: its clocks are this turn's, and the turn looks after it."""
        if shard.turn != self.turn:
            shard.turn = self.turn
            self._touched[shard] = None
            shard.advance(self.now_ms, self.monotonic_ms)

    def stir(self, shard: Shard) -> None:
        """As `touch`, where more is done to the shard than its clients' commands."""
        self.touch(shard)
        self._stirred = True

    def _stir_all(self) -> None:
        for shard in self._all:
            self.stir(shard)

    def _note(self) -> None:
        """Remembers what the touched shards have to do, and when, unless they were only read from."""
        for shard in self._touched:
            if not (self._stirred or shard.clients.open.calls or shard.clients.owed):
                continue
            if shard.busy:
                self._busy[shard] = None
            else:
                self._busy.pop(shard, None)
            if shard.snapshots.moving:
                self._moving[shard] = None
            else:
                self._moving.pop(shard, None)
            shard.tick_at_ms = shard.next_tick_ms()
            if shard.tick_at_ms < self._tick_at_ms:
                self._tick_at_ms = shard.tick_at_ms
            due_ms = shard.next_due_ms()
            if due_ms is not None:
                due_ms += self.now_ms - shard.now_ms  # on this node's wall clock
            shard.due_at_ms = due_ms
            if due_ms is not None and (self._due_at_ms is None or due_ms < self._due_at_ms):
                self._due_at_ms = due_ms
        self._stirred = False

    def pass_time(self, monotonic_ms: float) -> None:
        """The time in the middle of a turn, once all that clients ask was read.

        The process may have been stopped since the turn began. Who asked after that
        must not be answered under a lease that stood only then.
        """
        self.monotonic_ms = max(self.monotonic_ms, monotonic_ms)
        for shard in self._touched:
            shard.pass_time(monotonic_ms)

    def reads_lapsed(self, monotonic_ms: float) -> bool:
        """Whether reads that were answered since `advance` may be stale: a lease they relied on has run out."""
        return bool(self._lapsed(monotonic_ms) or self._coherence.used(monotonic_ms))

    def _lapsed(self, monotonic_ms: float) -> list[Shard]:
        turn, only = self.turn, self._only  # which is read without being asked
        read = [shard for shard in self._touched if shard.read_turn == turn or shard is only]
        return [shard for shard in read if shard.reads_lapsed(monotonic_ms)]

    def doubt(self, monotonic_ms: float) -> Doubt:
        """What is to become of the reads of which `reads_lapsed` says that they may be stale."""
        lapsed = dict.fromkeys(self._lapsed(monotonic_ms))
        used = []
        for office in self._coherence.used(monotonic_ms):
            if office.leads:
                lapsed[self.shards[office.number]] = None
            else:
                used.append(office)
        self.cache.await_renewal(used, monotonic_ms)
        return Doubt([(shard, shard.raft.leading) for shard in lapsed], monotonic_ms, used)

    def receive(self, peer: str, number: int, message: Message, held_ms: float = 0.0) -> None:
        """A message about a shard came from another member, so long before this turn.

        One with another data folder than it is known by may have joined anew while
        this node was away: it may lead, or stand for election, but what it says it
        has is not what the member had.
        """
        kind = type(message)
        if self._members is not self.system.raft.membership.now:
            self._compare_disks()
        if self._changed and peer in self._changed and kind not in FROM_CHANGED:
            return
        self.contacts.heard(peer, self.monotonic_ms)
        if kind is Presence:
            self._hear_presence(peer, cast("Presence", message), held_ms)
            return
        if kind is Forward:
            self.contacts.touched(peer, self.monotonic_ms)
        elif kind in OF_COHERENCE:
            self._coherence.receive(peer, number, message)
            return
        shard = self._by_number.get(number)
        if shard is None:
            return
        self.stir(shard)
        if kind not in OF_DETECTION:
            shard.receive(peer, message)
        elif self._detection is not None and shard is not self.system:
            self._detection.receive(peer, shard, message, held_ms)

    def _hear_presence(self, peer: str, message: Presence, held_ms: float) -> None:
        self.contacts.present(peer, message, self.monotonic_ms - held_ms)
        self._credit.hear(peer, message, self.monotonic_ms)
        leads = dict(message.leads)
        for shard in self._all:
            term = leads.get(shard.number)
            if shard.led_by(peer, term) if term is not None else shard.led_no_more(peer):
                self.stir(shard)

    def connected(self, peer: str) -> None:
        """There is a link to the peer again: what it may have missed is sent at once."""
        self.contacts.hurry()
        for shard in self._all:
            if shard.concerns(peer):
                self.stir(shard)
                shard.connected(peer)

    def sending(self, peer: str, *, large: bool) -> None:
        """Something large is on its way out to the peer from now on, or nothing is any more."""
        if large:
            self.contacts.sending[peer] = None
        else:
            self.contacts.sending.pop(peer, None)

    def disconnected(self, peer: str) -> None:
        """The link to the peer broke: what was on its way there may be lost."""
        self.sending(peer, large=False)
        for shard in self._all:
            shard.disconnected(peer)

    def meet(self, peer: str, disk: str) -> None:
        """The peer showed which data folder it has; that is the one it is trusted with from now on."""
        self._met[peer] = disk
        self._compare_disks()

    def _compare_disks(self) -> None:
        config, members = self.members, self.members.members
        for peer in self._members.members:
            if peer not in members:
                self._left[peer] = self.monotonic_ms + LINGER_MS
        if self.name in members or self.name in self._members.members:
            for shard in self.shards:
                shard.dismissed = self.name not in members
        self._members = config
        self._changed = {
            peer: disk for peer, disk in self._met.items() if peer in members and members[peer].disk not in ("", disk)
        }

    def disk_of(self, peer: str) -> str:
        """The data folder the peer is known by, "" if it was never met."""
        member = self.members.members.get(peer)
        return (member.disk if member is not None else "") or self._met.get(peer, "")

    @property
    def members(self) -> Config:
        """All nodes: the configuration of the system group."""
        return self.system.raft.config

    def addresses(self) -> dict[str, str]:
        """Where the other members are reached."""
        return {one.id: one.address for one in self.members.members.values() if one.id != self.name}

    def address_of(self, node: str) -> str:
        """Where a node is reached, "" if that is not known."""
        member = self.members.members.get(node)
        return member.address if member is not None else ""

    def post(self, peer: str, number: int, message: Message) -> None:
        """A message about a shard, for the next `outgoing`."""
        self._outbox.append((peer, number, message))

    def outgoing(self) -> list[tuple[str, int, Message]]:
        """Messages to send now: to whom, about which shard, what."""
        self._stirred = True
        if self.monotonic_ms >= self.contacts.next_presence_ms and len(self.members.members) > 1:
            self._show_presence()
        found, self._outbox = self._outbox, []
        for shard in self._touched:
            shard.outgoing(found)
        return found

    # Timers

    def tick(self) -> None:
        """Runs the timers of all shards that are touched or have one that ran out, and the node's own."""
        now_ms = self.monotonic_ms
        if now_ms >= self._tick_at_ms:
            self._tick_at_ms = FOREVER_MS
            for shard in self._all:
                if shard.tick_at_ms <= now_ms:
                    self.touch(shard)
                else:
                    self._tick_at_ms = min(self._tick_at_ms, shard.tick_at_ms)
        for shard in list(self._touched):
            if shard.hurried or shard.tick_at_ms <= now_ms:
                shard.tick()
        for office in self._offices:
            if now_ms >= office.next_ms():
                office.look(now_ms)
        if now_ms >= self._next_round_ms:
            self._next_round_ms = (now_ms // ROUND_MS + 1) * ROUND_MS
            self._look_around()

    def _look_around(self) -> None:
        """Once in a while."""
        self._introduce()
        self._silence.look()
        self._moves.look()
        if self._detection is not None:
            self._detection.see_office()

    def _note_leadership(self, shard: Shard) -> None:
        """Whether this node leads the shard, and knows it well enough for others to come with their commands."""
        raft = shard.raft
        if raft.leading is not None and raft.leading.settled:
            if self._leads.get(shard.number) != raft.term:
                self._leads[shard.number] = raft.term
                self._tell_leadership(shard, leads=True)
        elif shard.number in self._leads:
            del self._leads[shard.number]
            self._tell_leadership(shard, leads=False)

    def _tell_leadership(self, shard: Shard, *, leads: bool) -> None:
        self.contacts.hurry()
        if shard is not self.system:
            self._coherence.leads(shard, leads=leads)
        if self._detection is None:
            return
        if shard is self.system:
            self._detection.see_office()
        else:
            self._detection.leads(shard, leads=leads)

    def _show_presence(self) -> None:
        if self._members is not self.members:
            self._compare_disks()
        self._left = {peer: until_ms for peer, until_ms in self._left.items() if until_ms > self.monotonic_ms}
        others = [peer for peer in dict.fromkeys((*self.members.others(self.name), *self._left)) if peer != self.name]
        presences = self.contacts.presences(
            others,
            list(self._leads.items()),
            self.monotonic_ms,
            doubts=self._doubts(),
            session_timeout_ms=self._session_timeout_ms,
        )
        self._outbox += [(peer, SYSTEM, message) for peer, message in presences]

    def _doubts(self) -> list[tuple[int, int]]:
        """The shards this node says it leads, and was certain to lead only so many microseconds ago."""
        now_ms, found = self.monotonic_ms, []
        for number in self._leads:
            leading = self._by_number[number].raft.leading
            sure_ms = leading.sure_ms(now_ms) if leading is not None else 0.0
            self._credit.note(number, sure_ms)
            if sure_ms < now_ms:
                found.append((number, int((now_ms - sure_ms) * 1000) + 1))
        return found

    def next_tick_ms(self) -> float:
        """The monotonic time at which `tick` has something to do."""
        self._note()
        at_ms = min(self._tick_at_ms, self._next_round_ms)
        for office in self._offices:
            at_ms = min(at_ms, office.next_ms())
        return min(at_ms, self.contacts.next_presence_ms) if len(self.members.members) > 1 else at_ms

    def next_due_ms(self) -> int | None:
        """When `advance` should be called next, at the latest, for the sake of an alarm; only leaders ring any."""
        self._note()
        dues_ms = [shard.due_at_ms for shard in self._all if shard.due_at_ms is not None]
        return min(dues_ms, default=None)

    @property
    def busy(self) -> bool:
        """Whether there is something to do that no socket, timer or disk has to announce."""
        if self._outbox or self._coherence.busy:
            return True
        for shard in self._touched:  # noqa: SIM110 - a generator costs every turn
            if shard.busy:
                return True
        return False

    @property
    def has_leader(self) -> bool:
        """Whether all commands can be served now, as far as this node knows."""
        return all(shard.has_leader for shard in self._all)

    @property
    def leader(self) -> str | None:
        """Who leads the system group, None if this node is in touch with nobody who does."""
        return self.system.leader

    @property
    def leads(self) -> bool:
        """Whether this node leads a group of several voters."""
        return any(shard.raft.leading is not None and not shard.raft.alone for shard in self._all)

    def leader_of(self, number: int) -> str | None:
        """Who leads a shard, None if this node is in touch with nobody who does."""
        return self._by_number[number].leader

    def origin(self, client_id: int) -> bytes:
        """The name by which the logs know a client's session."""
        return self.system.clients.origin(client_id)

    # Sessions

    def lapsed(self, monotonic_ms: float) -> list[int]:
        """The shards in which sessions of this node's clients may be ended by others: who has any is to be closed.

        Those that began to have something there less than `keep_ms` ago need not be.
        """
        for shard in self.shards:
            if shard.raft.leading is not None:
                self._credit.note(shard.number, shard.raft.leading.sure_ms(monotonic_ms))
        return self._credit.lapsed(monotonic_ms)

    @property
    def next_lapse_ms(self) -> float:
        """The monotonic time at which `lapsed` may have something new to say, infinite while nothing can lapse."""
        return self._credit.next_ms

    @property
    def keep_ms(self) -> float:
        """How long a session is certainly not ended by others after it began to have something in a shard."""
        return self._credit.keep_ms

    @property
    def sessions_ended(self) -> int:
        """How many sessions of silent nodes this one has ended, as the leader of shards."""
        return self._silence.ended

    # Membership

    def change(self, client: Client, change: Change) -> None:
        """Somebody wants a node added or removed; the answer comes once it is so."""
        self.stir(self.system)
        self.system.change(client, change)

    def pause(self, client: Client, *, pause: bool) -> None:
        """Somebody wants no shard to be moved, or that it goes on."""
        self.stir(self.system)
        handler, args, _ = system_state.paused(self.system.machine, pause=pause)
        self.system.submit(client, handler, args)

    def resign(self) -> None:
        """Asks others to lead instead, before this node stops."""
        for shard in self._all:
            if shard.raft.leading is not None:
                self.stir(shard)
                shard.resign()

    def let_go(self, node: str) -> bool:
        """See `cluster.wishes.Departures`."""
        if node not in self.atlas.marks.leaving:
            self.system.clients.owe(system_state.marked(self.system.machine, node, system_state.LEAVING))
            return False
        return not self.atlas.held_by(node) and len(self.atlas.places) == len(self.shards)

    def left_on(self, node: str) -> int:
        """See `cluster.wishes.Departures`."""
        return self.atlas.held_by(node) if node in self.atlas.marks.leaving else 0

    def _introduce(self) -> None:
        """Makes known where this node is now, and (as the leader) which data folders the others were met with."""
        system, config = self.system, self.members
        me = config.members.get(self.name)
        moved = me is not None and self.address and (me.address, me.zone) != (self.address, self.zone)
        if moved and not system.wishing:
            self.stir(system)
            system.change(None, Change("add", self.name, self.address, self.identity.disk, self.zone))
        leading = system.raft.leading
        if leading is not None:
            met = {**self._met, self.name: self.identity.disk}
            unknown = [one for one in config.members.values() if not one.disk and met.get(one.id)]
            if unknown and leading.may_change():
                self.stir(system)
                known = msgspec.structs.replace(unknown[0], disk=met[unknown[0].id])
                leading.change(config.with_known(known))

    # The log

    def ready(self) -> Work | None:
        """Closes the turn where this node leads: entries go into the logs. What is to be made durable, or None."""
        entries: list[Entry] = []
        hard_states: list[tuple[int, HardState]] = []
        for shard in self._touched:
            found, hard_state = shard.ready()
            if found:
                self._coherence.logged(shard, found)
                entries += found
            if hard_state is not None:
                hard_states.append((shard.number, hard_state))
        return Work(entries, hard_states) if entries or hard_states else None

    def persisted(self, work: Work) -> None:
        """The disk has it."""
        first = work.entries[0].shard if work.entries else None
        if not work.hard_states and first is not None and first == work.entries[-1].shard:
            shard = self._by_number[first]
            self.stir(shard)
            shard.persisted(list(work.entries), None)
            return
        states = dict(work.hard_states)
        by_shard: dict[int, list[Entry]] = {number: [] for number in states}
        for entry in work.entries:
            by_shard.setdefault(entry.shard, []).append(entry)
        for number, entries in by_shard.items():
            shard = self._by_number[number]
            self.stir(shard)
            shard.persisted(entries, states.get(number))

    def refused(self, error: CommandError, *, definite: bool) -> None:
        """The disk did not take the work of `ready`, and ``error`` is what clients are told of it."""
        self._stir_all()
        for shard in self._all:
            shard.refused(error, definite=definite)

    def stand_aside(self) -> None:
        """The disk takes nothing: this node stands for no election, and hands over what it leads."""
        self._stir_all()
        for shard in self._all:
            shard.stand_aside()

    def refuse_open(self, error: CommandError) -> None:
        """What gathered meanwhile, and would have to be written here, is answered with ``error``."""
        self._stir_all()
        for shard in self._all:
            shard.refuse_open(error)

    def mended(self) -> None:
        """The disk takes writes again: what it is behind with comes with the next `ready`."""
        self._stir_all()
        for shard in self._all:
            shard.mended()

    # Carrying out

    def apply(self) -> Answers:
        """Carries out what is committed, up to a limit (`busy` tells of more); the answers to deliver."""
        self._stirred = True
        replies: list[Iterable[Answer]] = []
        woken: list[tuple[int, bytes, Reply]] = []
        for shard in self._touched:
            answers, ended = shard.apply()
            self._note_leadership(shard)
            if self._detection is not None and shard.machine.lock_waits.changes is not None:
                self._detection.contended(shard)
            if shard.machine.letters:
                self._courier.note(shard)
            replies += answers
            if ended:
                woken += [(shard.number, origin, reply) for origin, _, reply in ended]
        if self.system.turn == self.turn:
            self.atlas.read(self.system.machine, self.system.raft.applied)
        if not self._coherence.idle:
            self._coherence.run()
            replies.append(self._of_the_cache())
        if self._questions:
            replies = [self._hear_own(answers) for answers in replies]
        return Answers(replies[0] if len(replies) == 1 else chain.from_iterable(replies), woken)

    @property
    def cache(self) -> Controller:
        """The cache of this node."""
        return self._coherence.cache

    def propagate(self, *, wanted: bool) -> None:
        """Whether caches are sent what was written to the lines they read often, as far as this node leads."""
        self._coherence.propagate(wanted=wanted)

    @property
    def invalidations_sent(self) -> int:
        """How many lines this node has recalled from caches, as the leader of shards."""
        return self._coherence.recalls_sent

    @property
    def cache_traffic(self) -> list[tuple[str, int, int]]:
        """The messages about caches: each kind, how many went to other nodes, and how many came from them."""
        coherence = self._coherence
        return [(kind.__name__, coherence.sent[kind], coherence.received[kind]) for kind in KINDS]

    def _of_the_cache(self) -> list[Answer]:
        """What the cache answers; what it cannot hold goes into the logs as any other write."""
        cache = self.cache
        plain, cache.plain = cache.plain, []
        for number, client, args in plain:
            shard = self.shards[number]
            self.stir(shard)
            shard.submit(client, shard.machine.handler(args[0]), args)
        answers, cache.answers = cache.answers, []
        return answers

    # What the node itself asks

    def ask(
        self, shard: Shard, handler: Handler, args: list[bytes], hear: Callable[[Reply], None], *, logged: bool
    ) -> None:
        """Gives a shard a command as a client would; ``hear`` is told the answer in the midst of `apply`."""
        self.stir(shard)
        self._questions += 1
        if logged:
            shard.submit(_Question(hear), handler, args)
        else:
            shard.submit_read(_Question(hear), handler, args)

    def _hear_own(self, answers: Iterable[Answer]) -> list[Answer]:
        """Hands on the answers to what the node asked; the others."""
        others = []
        for client, reply in answers:
            if type(client) is _Question:
                self._questions -= 1
                client.hear(reply)
            else:
                others.append((client, reply))
        return others

    # Checkpoints

    @property
    def bytes_since_checkpoint(self) -> int:
        """How much the logs of all shards have grown since their checkpoints."""
        return sum(shard.bytes_since_checkpoint for shard in self._all)

    def next_checkpoint(self) -> int | None:
        """The shard whose log has grown most since its checkpoint; None when none has."""
        most = max(self._all, key=lambda shard: shard.bytes_since_checkpoint)
        return most.number if most.bytes_since_checkpoint else None

    def begin_checkpoint(self, number: int) -> tuple[Checkpoint, int, int, bytes]:
        """Starts a checkpoint of what is applied: (what to write, index, term, ledger)."""
        return self._by_number[number].begin_checkpoint()

    def end_checkpoint(self, number: int, index: int, *, durable: bool) -> None:
        """The checkpoint of ``index`` is in force, or it failed."""
        self._by_number[number].end_checkpoint(index, durable=durable)

    # Snapshots, and replicas that go

    def each(self) -> Iterator[Shard]:
        """All shards, the system's last."""
        return iter(self._all)

    @property
    def moving(self) -> bool:
        """Whether a snapshot is on its way, to this node or from it, or a replica is to be emptied."""
        return bool(self._to_drop or self._moving) or any(shard.snapshots.moving for shard in self._touched)

    def chunk_stored(self, number: int, chunk: Chunk, *, stored: bool) -> None:
        """A piece of a shard's `snapshots` is on the disk, or cannot be had there; after the last the state is it."""
        shard = self._by_number[number]
        self.stir(shard)
        former = shard.machine
        shard.chunk_stored(chunk, stored=stored)
        if shard.machine is not former:
            self.cache.replace(number)

    def give_up(self, number: int) -> None:
        """A shard is elsewhere: the driver empties what is here of it."""
        if number in self._to_drop:
            return
        self.stir(self._by_number[number])
        self._by_number[number].begin_to_give_up()
        self._to_drop[number] = None

    def to_drop(self) -> list[int]:
        """Shards whose replica here is to be emptied on the disk, as `dropped` is then told."""
        return [number for number in self._to_drop if self._by_number[number].may_go]

    def ledger_of_dropped(self, number: int) -> bytes:
        """What the disk keeps of such a shard: that this node is no member of it."""
        return self._by_number[number].ledger_of_dropped()

    def dropped(self, number: int) -> None:
        """It is empty."""
        shard = self._by_number[number]
        self._to_drop.pop(number, None)
        self.stir(shard)
        shard.given_up()

    # Looking

    def targets(self) -> list[Placement]:
        """Where every shard is to be, and who is to lead it; empty while that is not known."""
        return self._moves.targets()

    def nodes_of(self, number: int) -> tuple[str, ...]:
        """Every node with a replica of the shard, as far as is known here."""
        shard = self.shards[number]
        config = shard.raft.config
        return (*config.voters, *config.learners) if shard.here else self.atlas.place(number).nodes

    def reachable(self, node: str) -> bool:
        """Whether it was heard of late, or is this one."""
        silent_ms = self.contacts.silent_ms(node, self.monotonic_ms)
        limit_ms = REACHABLE_TIMEOUTS * self.timing.election_ms
        return node == self.name or (silent_ms is not None and silent_ms < limit_ms)


def _config_of(nodes: Sequence[str]) -> Config:
    """A shard's configuration of these voters: where they are reached only the system group knows."""
    return Config(tuple(nodes), (), {node: Member(node, "") for node in nodes})


def _system_config(members: Config) -> Config:
    """The system group's first configuration: not all vote where there are many."""
    voters = members.voters
    if len(voters) <= SYSTEM_VOTERS:
        return members
    return Config(voters[:SYSTEM_VOTERS], (*voters[SYSTEM_VOTERS:], *members.learners), members.members)
