"""Raft: one member of one group, as a pure state machine.

Whoever drives it does this, turn after turn:

1. `advance` with a monotonic time, then `receive` for every message that came;
2. `tick`, which runs the timers;
3. while the disk is free, takes `unsaved` and makes it durable, then calls
   `saved` (or the log's `unsaved_again` when the disk did not take it);
4. sends what `outgoing` gives, at any time: what must not be said before it is
   durable is held back until `saved`;
5. carries out entries up to `commit`, and says how far by `carried_out`.

What a member is at the moment: a *leader* while ``leading`` is there, a
*candidate* while ``candidacy`` is, else a follower. The rules of each are in
leading.py, election.py and following.py; this file holds what they share: the
term and the vote, the log and its configurations, time, and what goes out.

Invariants, which `check` asserts: a vote or an entry is durable before anybody
hears of it; ``commit`` never goes back and never passes the log's end; a
leader's log only grows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from cluster.raft import election, following, leading
from cluster.raft.election import Candidacy
from cluster.raft.leading import Leading
from cluster.raft.log import Log
from cluster.raft.membership import VOTERS_MAX, Config, Membership, config_in
from cluster.raft.messages import (
    Alive,
    Append,
    Appended,
    Chunk,
    ChunkTaken,
    Commit,
    Conflict,
    Heartbeat,
    Message,
    TimeoutNow,
    Vote,
    Voted,
)
from cluster.storage.contract import Entry, HardState


class Chance(Protocol):
    """Where elections get their randomness from: `random.Random`, or a simulator's."""

    def random(self) -> float:
        """A number from 0 up to 1."""
        ...


class Timing(NamedTuple):
    """How patient members are, in milliseconds.

    A follower waits for its leader between one and two ``election_ms``. A
    leader's lease is shorter by what clocks may differ in pace: see `lease_ms`.
    ``leases`` False makes every read ask a majority (``read-mode quorum``).
    """

    election_ms: int = 300
    heartbeat_ms: int = 50
    leases: bool = True

    @property
    def lease_ms(self) -> float:
        """How long after a heartbeat was sent its sender may go on as leader: drift up to a tenth is allowed for."""
        return self.election_ms * 0.8


RANK_SHARE = 0.25
"""The part of an election timeout in which one rank of members stands for election: then comes the next."""


class Raft:
    """One member of one group.

    ``commit`` is the last entry known to be committed, ``applied`` the last
    carried out here. ``leader`` is who leads in ``term``, as far as known.
    ``contact_ms`` is when the leader was last heard (or, for a leader that
    stepped down, when it last had a majority). ``able`` is false while the disk
    takes nothing: then this member does not stand for election. ``chunks``
    are pieces of a snapshot that came in and that the driver should store;
    ``installing`` while it stores the last, which replaces the log, or gives the log up.
    ``floor`` is the term and index of an entry that this member had, in a log that
    was given up, or that the group had when it came to it with an empty log: it may
    be counted on for it, and what it finds in the log before that is long past. So
    nobody gets a vote who has less, and it does not stand itself.
    ``rank`` says how soon this member should stand for election, if all else is equal: 0 before 1, and so on.
    ``clock_ms`` is the time a leader tells its followers, whatever it means to the driver.
    ``voters_max`` is up to how many voters learners are made to.
    """

    def __init__(
        self,
        name: str,
        config: Config,
        *,
        shard: int,
        timing: Timing,
        chance: Chance,
        voters_max: int = VOTERS_MAX,
    ) -> None:
        self.name = name
        self.shard = shard
        self.log = Log(0, 0, ())
        self.membership = Membership(0, config)
        self.term = 0
        self.vote = ""
        self.commit = self.applied = 0
        self.leader: str | None = None
        self.leading: Leading | None = None
        self.candidacy: Candidacy | None = None
        self.able = True
        self.rank: int | None = None
        self.floor = (0, 0)
        self.now_ms = 0.0
        self.clock_ms = 0
        self.contact_ms = 0.0
        self.election_at_ms = 0.0
        self.chunks: list[Chunk] = []
        self.installing = False
        self.timing = timing
        self.voters_max = voters_max
        self._chance = chance
        self._started = False
        self._unsaved_state = False
        self._outbox: list[tuple[str, Message]] = []
        self._held: list[tuple[str, Message]] = []

    def recover(self, log: Log, membership: Membership, hard_state: HardState) -> None:
        """What the disk holds, before anything else is done."""
        self.floor = (hard_state.floor_term, hard_state.floor_index)
        self.log = log
        self.membership = membership
        self.term = max(hard_state.term, log.last_term)
        self.vote = hard_state.vote if hard_state.term == self.term else ""
        self.commit = self.applied = log.base_index

    # What it is

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.membership.now

    @property
    def role(self) -> str:
        """For people."""
        if self.leading is not None:
            return "leader"
        if self.candidacy is not None:
            return "candidate"
        if self.name in self.config.voters:
            return "follower"
        return "removed" if self.membership.left(self.name) else "learner"

    @property
    def alone(self) -> bool:
        """Whether it is the only voter: then it needs nobody's agreement."""
        voters = self.membership.now.voters
        return len(voters) == 1 and voters[0] == self.name

    @property
    def stands(self) -> bool:
        """Whether it stands for election when it hears no leader."""
        return self.able and self.name in self.membership.now.voters and self.up_to_date

    @property
    def _unled(self) -> bool:
        """Whether it need not wait to lead: alone, and not only since a leader that leaves said so."""
        return self.alone and self.leader is None

    @property
    def hears_leader(self) -> bool:
        """Whether there is a leader that was heard within the election timeout: then nobody else gets a vote here."""
        if self.leading is not None:
            return True
        return self.now_ms - self.contact_ms < self.timing.election_ms and not self.alone

    # Verbs

    def advance(self, now_ms: float) -> None:
        """Moves the clock. A member that just started counts as having heard a leader: it may have acknowledged one."""
        self.now_ms = max(self.now_ms, now_ms)
        if not self._started:
            self._started = True
            self.heard_leader()

    def receive(self, peer: str, message: Message) -> None:
        """A message came. Only the election's own rules look at a vote's term; else a newer term is entered first."""
        kind = type(message)
        if kind is Vote or kind is Voted:
            _HANDLERS[kind](self, peer, message)
            return
        if message.term < self.term:
            if kind in _FROM_LEADER:  # whoever leads in an old term should hear that it is over
                self.send(peer, Alive(self.term, 0, False))
            return
        if message.term > self.term:
            self.enter(message.term)
        if kind in _FROM_LEADER:
            if self.leading is not None:
                return  # two leaders of one term cannot be
            self.candidacy = None
            self.leader = peer
            self.heard_leader()
        _HANDLERS[kind](self, peer, message)

    def tick(self) -> None:
        """Runs the timers."""
        if self.leading is not None:
            self.leading.tick()
        elif self.stands and (self._unled or self.now_ms >= self.election_at_ms):
            election.stand(self, pre=not self.alone)

    def next_tick_ms(self) -> float | None:
        """When `tick` has something to do, at the latest; None when nothing but a message can bring it."""
        if self.leading is not None:
            return None if not self.leading.progress else self.leading.next_beat_ms
        if not self.stands:
            return None
        return self.now_ms if self._unled else self.election_at_ms

    def propose(self, payload: bytes) -> int:
        """A leader's next entry; its index."""
        assert self.leading is not None
        entry = Entry(self.shard, self.log.last_index + 1, self.term, payload)
        self.append(entry)
        return entry.index

    def unsaved(self) -> tuple[list[Entry], HardState | None]:
        """What the disk has not been given: entries, and the term and vote if they changed."""
        return self.log.unsent(), self._hard_state() if self._unsaved_state else None

    @property
    def has_unsaved(self) -> bool:
        """Whether `unsaved` has something that the disk may not have been given."""
        return self._unsaved_state or self.log.sent_index < self.log.last_index

    def _hard_state(self) -> HardState:
        return HardState(self.term, self.vote, *self.floor)

    def saved(self, entries: list[Entry], hard_state: HardState | None) -> None:
        """The disk has what `unsaved` gave."""
        if hard_state is not None and hard_state == self._hard_state():
            self._unsaved_state = False
        if entries:
            self.log.saved(entries)
            if self.leading is not None:
                self.leading.count()
        if self._held:
            self._release()

    def carried_out(self, index: int) -> None:
        """The entries up to ``index`` are applied here: others may hear that they are committed."""
        self.applied = index

    def outgoing(self) -> list[tuple[str, Message]]:
        """Messages to send now, (to, what)."""
        if not self._outbox:
            return self._outbox
        found, self._outbox = self._outbox, []
        return found

    @property
    def has_mail(self) -> bool:
        """Whether `outgoing` has something."""
        return bool(self._outbox)

    # What the rules share

    def send(self, peer: str, message: Message) -> None:
        """Sends once the term and the vote it was sent under are durable."""
        (self._held if self._unsaved_state else self._outbox).append((peer, message))

    def acknowledge(self, leader: str, index: int) -> None:
        """Tells the leader that the log agrees up to ``index``, once that much is durable."""
        durable = index <= self.log.saved_index and not self._unsaved_state
        (self._outbox if durable else self._held).append((leader, Appended(self.term, index)))

    def _release(self) -> None:
        """Lets go what was held for the disk and need not be any more."""
        if self._unsaved_state:
            return
        saved = self.log.saved_index
        held, self._held = self._held, []
        for peer, message in held:
            waits = type(message) is Appended and message.index > saved
            (self._held if waits else self._outbox).append((peer, message))

    def append(self, entry: Entry) -> None:
        """Adds an entry to the log; a configuration in it is in force at once."""
        self.log.append(entry)
        if config_in(entry.payload) is not None:
            self.membership.note(entry)
            if self.leading is not None:
                self.leading.follow_config()

    def cut_from(self, index: int) -> None:
        """Takes back the log's end: a leader has something else there."""
        assert index > self.commit, "what is committed stays"
        self.log.cut_from(index)
        self.membership.cut_from(index)
        self._held = [(to, one) for to, one in self._held if not (type(one) is Appended and one.index >= index)]

    def enter(self, term: int, vote: str = "") -> None:
        """A new term, durable before anything is said in it; nothing of an old one is said any more."""
        if self.leading is not None:
            self.contact_ms = self.leading.quorum_ms()
            self.leading = None
        self.candidacy = None
        self.leader = None
        self.term = term
        self.vote = vote
        self._unsaved_state = True
        self._held.clear()
        self._outbox.clear()

    def cast(self, vote: str) -> None:
        """Votes in this term."""
        self.vote = vote
        self._unsaved_state = True

    def follow_nobody(self) -> None:
        """A leader steps down in its own term, or a candidate gives up."""
        if self.leading is not None:
            self.contact_ms = self.leading.quorum_ms()
        self.leading = self.candidacy = self.leader = None
        self.rest()

    def heard_leader(self) -> None:
        """The leader is there: no election for a while."""
        self.contact_ms = self.now_ms
        self.rest()

    def rest(self) -> None:
        """Draws a new time for the next election: one to two election timeouts from now, sooner for lower ranks."""
        wait = self._chance.random()
        if self.rank is not None:
            wait = min(1.0, (self.rank + wait) * RANK_SHARE)
        self.election_at_ms = self.now_ms + self.timing.election_ms * (1 + wait)

    def lead(self) -> None:
        """Won: the first entry of a leader's term is empty, so that it can commit at all (section 8 of the paper)."""
        self.candidacy = None
        self.leader = self.name
        self.leading = Leading(self)
        self.propose(b"")
        self.leading.replicate_all()

    def commit_to(self, index: int) -> None:
        """The entries up to ``index`` are committed."""
        self.commit = max(self.commit, min(index, self.log.last_index))

    def compact(self, index: int, retain_bytes: int) -> None:
        """A durable checkpoint contains the entries up to ``index``: forgets them, but for the last few.

        Some are kept so that a follower only a little behind needs no snapshot,
        all that a snapshot on its way must be followed by, and what the disk has
        not taken yet: its log must have no gap.
        """
        first = index + 1
        while first > self.log.base_index + 1 and retain_bytes > 0:
            first -= 1
            retain_bytes -= len(self.log.entry(first).payload)
        keep_from = min([first, *(self.leading.wanted_from() if self.leading is not None else ())])
        index = min(keep_from - 1, self.log.saved_index)
        self.log.compact(index)
        self.membership.compact(index)

    def installed(self, index: int, term: int, config: Config) -> None:
        """A snapshot that ends with this entry replaced the state and the log."""
        self.log.restart(index, term)
        self.membership.restart(index, config)
        self.commit = self.applied = index
        self._held = [(to, one) for to, one in self._held if type(one) is not Appended]

    def renew(self) -> None:
        """A leader enters a new term and stands in it: what was said in the old one does not count any more."""
        assert self.leading is not None
        election.stand(self, pre=False, forced=True)

    def raise_floor(self, term: int, index: int) -> None:
        """This member lacks, or is about to give up, a log that reached this entry; that must not be forgotten."""
        if (term, index) > self.floor:
            self.floor = (term, index)
            self._unsaved_state = True

    @property
    def up_to_date(self) -> bool:
        """Whether its log is no less than it was, or should have been: before that it must not lead."""
        return (self.log.last_term, self.log.last_index) >= self.floor

    def begin_to_give_up(self) -> None:
        """The log and the state are about to go: nothing is added until `given_up`."""
        self.raise_floor(self.log.last_term, self.log.last_index)
        self.installing = True

    @property
    def may_go(self) -> bool:
        """Whether what `begin_to_give_up` left to be saved is."""
        return not self._unsaved_state and self.log.saved_index == self.log.last_index

    def given_up(self) -> None:
        """This member is none any more, and its log and state are gone; its term, vote and floor stay."""
        assert self.leading is None
        self.log.restart(0, 0)
        self.membership.restart(0, self.config.without(self.name))
        self.commit = self.applied = 0
        self.installing = False
        self.chunks.clear()
        self._held = [(to, one) for to, one in self._held if type(one) is not Appended]

    def check(self) -> None:
        """Asserts what must always hold; for simulators."""
        log = self.log
        assert log.base_index <= log.saved_index <= log.sent_index <= log.last_index
        assert self.applied <= self.commit <= log.last_index
        assert self.leading is None or self.leader == self.name
        assert self.leading is None or self.candidacy is None
        assert self.term >= log.last_term


Handler = Callable[[Raft, str, Any], None]

_FROM_LEADER = frozenset({Append, Heartbeat, Commit, Chunk, TimeoutNow})

_HANDLERS: dict[type[Message], Handler] = {
    Append: following.on_append,
    Heartbeat: following.on_heartbeat,
    Commit: following.on_commit,
    Chunk: following.on_chunk,
    TimeoutNow: election.on_timeout_now,
    Vote: election.on_vote,
    Voted: election.on_voted,
    Appended: leading.on_appended,
    Conflict: leading.on_conflict,
    Alive: leading.on_alive,
    ChunkTaken: leading.on_chunk_taken,
}
