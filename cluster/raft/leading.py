"""A leader's rules: replicating, committing, staying leader, handing over.

Appends are pipelined (progress.py says how much may be on its way) and go out
before the leader's own disk has the entries; the leader's own vote for an
entry counts when it has. Only entries of its own term are committed by counting
(section 5.4.2), and none that somebody must have who has it not (demands.py).
Once in an election timeout a majority must have been heard, else the leader
steps down (check-quorum).

``commit`` is told to others only as far as this member has carried it out, so
that nobody else is ever ahead of what a read here shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cluster.raft.demands import Demands
from cluster.raft.membership import Config, payload_of
from cluster.raft.messages import (
    Alive,
    Append,
    Appended,
    ChunkTaken,
    Commit,
    Conflict,
    Heartbeat,
    TimeoutNow,
)
from cluster.raft.patience import extra_ms
from cluster.raft.progress import Progress, State
from cluster.raft.quorum import reached
from cluster.raft.reads import Asked, Reads
from cluster.raft.transfer import ABANDONED_MS, Transfer

if TYPE_CHECKING:
    from cluster.raft.core import Raft

APPEND_BYTES_MAX = 1024 * 1024
"""An append with more than one entry is not larger."""

IDLE_BEATS = 2
"""A leader whose log does not grow beats only every so many intervals, if that leaves three to an election timeout."""

FOREVER_MS = float("inf")
CAUGHT_UP_ENTRIES = 64
"""A learner no further behind than this gets its vote."""


class Leading:
    """What a member knows while it leads.

    ``progress`` has every other member, and a removed one until it was told.
    ``first_index`` is the first entry of this term. ``confirmed`` collects reads
    that may be served. ``successor`` is whom leadership is being handed to.
    """

    def __init__(self, raft: Raft) -> None:
        self._raft = raft
        self.first_index = raft.log.last_index + 1
        self.progress: dict[str, Progress] = {}
        self.transfers: dict[str, Transfer] = {}
        self.reads = Reads()
        self.demands = Demands()
        self.confirmed: list[Asked] = []
        self.next_beat_ms = raft.now_ms
        self.successor: str | None = None
        self._successor_until_ms = 0.0
        self._gave_lease_up = False
        self._beat_us = 0
        self._beat_index = 0  # the last entry at the last beat
        self._leaving: list[str] = []
        self._removed: dict[str, None] = {}
        self._built: tuple[int, int, int, Append] | None = None
        self.follow_config()

    # Staying leader

    def tick(self) -> None:
        """Heartbeats, check-quorum, what got stuck, who may be promoted, a hand-over that failed."""
        raft = self._raft
        now_ms = raft.now_ms
        if now_ms >= self.next_beat_ms:
            if now_ms - self.quorum_ms() >= raft.timing.election_ms:
                raft.follow_nobody()
                return
            self._beat()
            self._settle_membership()
        elif self._unconfirmed:
            self._beat()
        if self.successor is not None and now_ms >= self._successor_until_ms:
            self.successor = None
            if self._gave_lease_up:
                raft.renew()  # what forces an election may still come: only in another term there is a lease again

    @property
    def hurried(self) -> bool:
        """Whether reads wait for a heartbeat that was not sent yet, or may be served."""
        return self._unconfirmed or bool(self.confirmed)

    @property
    def _unconfirmed(self) -> bool:
        """Whether reads wait for a heartbeat that was not sent yet."""
        return self.reads.newest_us > self._beat_us

    def _beat(self) -> None:
        raft = self._raft
        interval_ms = raft.timing.heartbeat_ms
        idle = raft.log.last_index == self._beat_index and not len(self.reads)
        if idle and interval_ms * IDLE_BEATS <= raft.timing.election_ms / 3:
            interval_ms *= IDLE_BEATS
        self._beat_index = raft.log.last_index
        self.next_beat_ms = (raft.now_ms // interval_ms + 1) * interval_ms  # all shards of a node at the same time
        self._beat_us = max(self._beat_us + 1, self._now_us)
        matches = self.matches()
        for peer, progress in self.progress.items():
            commit = min(progress.match, raft.applied)
            progress.told = max(progress.told, commit)
            raft.send(peer, Heartbeat(raft.term, commit, self._beat_us, matches, raft.clock_ms))
            patience_ms = raft.timing.election_ms + extra_ms(progress.unanswered_bytes)
            if progress.unanswered and raft.now_ms - progress.moved_ms > patience_ms:
                progress.lost()
                progress.moved_ms = raft.now_ms
            if peer in self.transfers and raft.now_ms - progress.heard_ms > ABANDONED_MS:
                del self.transfers[peer]
                progress.probe(progress.next)
            self.replicate(peer)

    def still_sending(self, peer: str) -> None:
        """What ``peer`` was sent is still on its way out of this node: too early to wait for answers."""
        if peer in self.progress:
            self.progress[peer].moved_ms = self._raft.now_ms
        if peer in self.transfers:
            self.transfers[peer].still_sending(self._raft.now_ms)

    def matches(self) -> dict[str, int]:
        """The last index known to be durable on each member."""
        found = {peer: progress.match for peer, progress in self.progress.items()}
        found[self._raft.name] = self._raft.log.saved_index
        return found

    @property
    def _now_us(self) -> int:
        return int(self._raft.now_ms * 1000)

    def quorum_ms(self) -> float:
        """When a majority was last heard, itself included."""
        raft = self._raft
        heard = {peer: progress.heard_ms for peer, progress in self.progress.items()}
        heard[raft.name] = raft.now_ms
        return reached(raft.config.voters, lambda voter: heard.get(voter, 0.0))

    def _followed_us(self) -> int:
        """Since when (as it was sent) a majority is known to have followed."""
        raft = self._raft
        progress = self.progress
        return reached(
            raft.config.voters,
            lambda voter: 1 << 62 if voter == raft.name else progress[voter].followed_us if voter in progress else 0,
        )

    @property
    def settled(self) -> bool:
        """Whether an entry of this term is committed and carried out: before that, what is committed is not known."""
        return self._raft.applied >= self.first_index

    def lease_until_ms(self) -> float:
        """Until when nobody else can have been elected; 0 when that is not known, or leases are not to be relied on."""
        raft = self._raft
        if raft.alone:
            return FOREVER_MS
        if not (raft.timing.leases and self._has_lease):
            return 0.0
        return self._followed_us() / 1000 + raft.timing.lease_ms

    @property
    def _has_lease(self) -> bool:
        """Whether those who follow vote for nobody else meanwhile.

        A leader that leaves has no lease: the last voter it leaves behind needs nobody's vote.
        """
        return not self._gave_lease_up and self._raft.name in self._raft.config.voters

    def sure_ms(self, now_ms: float) -> float:
        """Up to when, ``now_ms`` at the latest, it is certain that nobody else had been elected.

        That goes by leases whatever the reads do.
        """
        return min(now_ms, self.sure_until_ms)

    @property
    def sure_until_ms(self) -> float:
        """Until when it is certain that nobody else can have been elected, as `sure_ms`."""
        raft = self._raft
        if raft.alone:
            return FOREVER_MS
        followed_ms = self._followed_us() / 1000
        return followed_ms + raft.timing.lease_ms if self._has_lease else followed_ms

    def led_at(self, monotonic_ms: float) -> bool:
        """Whether it is certain by now that nobody else had been elected by then."""
        return self._raft.alone or self._followed_us() / 1000 >= monotonic_ms

    # Reads

    def ask_read(self, author: bytes, number: int, index: int = 0) -> None:
        """Reads of ``author`` want to be served, at ``index`` at the earliest; `confirmed` has them when they may."""
        raft = self._raft
        index = max(index, raft.commit, self.first_index)
        if self.settled and raft.now_ms < self.lease_until_ms():
            self.confirmed.append(Asked(author, number, index, 0))
            return
        self.reads.ask(Asked(author, number, index, self._beat_us + 1))

    # Replicating

    def replicate_all(self) -> None:
        """Sends everybody what may be sent."""
        for peer in self.progress:
            self.replicate(peer)

    def replicate(self, peer: str) -> None:
        """Sends a follower the entries it is due, as far as flow control lets them."""
        raft, progress = self._raft, self.progress[peer]
        log = raft.log
        while progress.open and (progress.next <= log.last_index or progress.state is State.PROBE):
            prev_index = progress.next - 1
            prev_term = log.term(prev_index)
            if prev_term is None:
                if raft.now_ms - progress.heard_ms < raft.timing.election_ms:
                    self._send_snapshot(peer)
                return  # else it is not there, and may want none when it is
            message = self._append(prev_index, prev_term)
            size = sum(len(payload) for _, payload in message.entries)
            progress.sent(prev_index + len(message.entries), size, raft.now_ms)
            progress.told = max(progress.told, message.commit)
            raft.send(peer, message)

    def _append(self, prev_index: int, prev_term: int) -> Append:
        """The append that follows an entry; the same object again for the next follower."""
        raft = self._raft
        key = (prev_index, raft.log.last_index, raft.applied)
        if self._built is not None and self._built[:3] == key:
            return self._built[3]
        entries = (
            [(entry.term, entry.payload) for entry in raft.log.slice(prev_index + 1, APPEND_BYTES_MAX)]
            if prev_index < raft.log.last_index
            else []
        )
        message = Append(raft.term, prev_index, prev_term, raft.applied, entries)
        self._built = (*key, message)
        return message

    def tell(self, peer: str) -> None:
        """Somebody at ``peer`` waits for what was just carried out: it should hear of it before the next append."""
        raft, progress = self._raft, self.progress.get(peer)
        if progress is not None:
            progress.awaited = raft.applied
            self._tell(peer, progress)

    def _tell(self, peer: str, progress: Progress) -> None:
        commit = min(progress.match, self._raft.applied)
        if commit > progress.told:
            progress.told = commit
            self._raft.send(peer, Commit(self._raft.term, commit))

    def count(self) -> None:
        """Commits what a majority has on its disks, and all of whom it is demanded."""
        raft = self._raft
        index = raft.log.saved_index if raft.alone else reached(raft.config.voters, self.match)
        if self.demands:
            index = self.demands.allowed(index, self.match)
        if index > raft.commit and index >= self.first_index:
            raft.commit_to(index)

    def match(self, member: str) -> int:
        """The last index known to be durable on a member."""
        if member == self._raft.name:
            return self._raft.log.saved_index
        return self.progress[member].match if member in self.progress else 0

    def replicates_to(self, member: str) -> bool:
        """Whether the member takes the log as it grows, for all that is known, and is to go on."""
        progress = self.progress.get(member)
        return progress is not None and progress.state is State.REPLICATE and member not in self._leaving

    def excuse(self, member: str) -> None:
        """Nothing that was demanded of the member is waited for any more."""
        self.demands.excuse(member)
        self.count()

    # Snapshots

    def _send_snapshot(self, peer: str) -> None:
        self.progress[peer].send_snapshot()
        self.transfers[peer] = Transfer()

    def wanted_from(self) -> Iterator[int]:
        """The first entry that each snapshot on its way must be followed by."""
        for transfer in self.transfers.values():
            if transfer.index is not None:
                yield transfer.index + 1

    # Membership

    def follow_config(self) -> None:
        """The configuration changed: whom to talk to."""
        raft = self._raft
        others = raft.config.others(raft.name)
        for peer in others:
            if peer not in self.progress or peer in self._leaving:  # one that comes back may come with an empty disk
                self.progress[peer] = Progress(raft.log.last_index + 1, raft.now_ms)
                self.transfers.pop(peer, None)
        self._leaving = [peer for peer in self.progress if peer not in others]
        for peer in self._leaving:
            self._removed[peer] = None

    def may_change(self) -> bool:
        """Whether the membership may be changed now: see membership.py."""
        raft = self._raft
        return raft.commit >= self.first_index and raft.commit >= raft.membership.since

    def may_add(self, node: str) -> bool:
        """Whether the node can be told from one of that name that was removed in this term.

        What that one said may still be on its way, and the new one has none of
        what it had: a new term (`Raft.renew`) has to come between.
        """
        return node not in self._removed

    def change(self, config: Config) -> None:
        """Begins a change; `may_change` must have allowed it."""
        assert self.may_change()
        self._raft.propose(payload_of(config))
        self.replicate_all()

    def _settle_membership(self) -> None:
        """What follows a committed change: the removed are forgotten, the caught up get their vote."""
        raft = self._raft
        if not self._leaving and not raft.config.learners and raft.name in raft.config.voters:
            return  # as nearly always
        if not self.may_change() or raft.applied < raft.membership.since:
            return
        for peer in self._leaving:
            self.tell(peer)
            del self.progress[peer]
            self.transfers.pop(peer, None)
        self._leaving = []
        if raft.name not in raft.config.voters:
            self.resign()
            raft.follow_nobody()
            return
        if len(raft.config.voters) >= raft.voters_max:
            return
        for learner in raft.config.learners:
            progress = self.progress[learner]
            if (
                progress.state is State.REPLICATE
                and progress.match >= raft.membership.since  # it knows that it is a member
                and raft.log.last_index - progress.match <= CAUGHT_UP_ENTRIES
                and raft.now_ms - progress.heard_ms < raft.timing.election_ms
            ):
                self.change(raft.config.with_voter(learner))
                return

    # Handing over

    def hand_over(self, peer: str) -> None:
        """Makes ``peer``, a voter, the leader as soon as it has the whole log; nothing new is proposed meanwhile."""
        raft = self._raft
        self.successor = peer
        self._successor_until_ms = raft.now_ms + raft.timing.election_ms
        self._try_hand_over(peer)

    def resign(self) -> None:
        """Asks the voter that is furthest to stand for election."""
        raft = self._raft
        voters = [peer for peer in self.progress if peer in raft.config.voters and peer != raft.name]
        if voters:
            best = max(voters, key=lambda peer: self.progress[peer].match)
            self._gave_lease_up = True
            raft.send(best, TimeoutNow(raft.term))

    def _try_hand_over(self, peer: str) -> None:
        raft = self._raft
        if peer in self.progress and self.progress[peer].match == raft.log.last_index:
            # The election it forces asks nobody whether there is a leader: no lease from here on, in all of this term.
            self._gave_lease_up = True
            raft.send(peer, TimeoutNow(raft.term))

    def appended(self, peer: str, index: int) -> None:
        """A follower has everything up to ``index`` on its disk."""
        raft, progress = self._raft, self.progress.get(peer)
        if progress is None or index > raft.log.last_index:
            return
        progress.heard_ms = raft.now_ms
        if progress.agreed(index, raft.now_ms):
            self.count()
            if progress.state is State.REPLICATE:
                self.transfers.pop(peer, None)
            if progress.awaited > progress.told:  # others were quicker, so it was carried out before this answer came
                self._tell(peer, progress)
        self.replicate(peer)
        if peer == self.successor:
            self._try_hand_over(peer)

    def conflicted(self, peer: str, message: Conflict) -> None:
        """A follower's log ends or differs before what it was sent: goes back to where both may agree."""
        raft, progress = self._raft, self.progress.get(peer)
        if progress is None:
            return
        progress.heard_ms = raft.now_ms
        if peer in raft.config.learners:  # it may have been emptied: nothing was ever counted on it
            progress.match = min(progress.match, message.hint_index)
        if progress.state is State.SNAPSHOT or message.prev_index <= progress.match:
            return  # late
        if progress.state is State.PROBE and message.prev_index != progress.next - 1:
            return  # late
        log = raft.log
        index = min(message.hint_index, message.prev_index - 1)
        while index > log.base_index and (log.term(index) or 0) > message.hint_term:
            index -= 1
        progress.probe(index + 1)
        self.replicate(peer)

    def alive(self, peer: str, message: Alive) -> None:
        """A follower answered a heartbeat."""
        progress = self.progress.get(peer)
        if progress is None:
            return
        progress.heard_ms = self._raft.now_ms
        if message.follows:
            progress.followed_us = max(progress.followed_us, message.sent_us)
            self.confirm()

    def confirm(self) -> None:
        """Sees which reads may be served: a follower answered, or none is there to, and it may have settled."""
        if len(self.reads) and self.settled:
            self.confirmed += self.reads.confirmed(self._followed_us())

    def chunk_taken(self, peer: str, message: ChunkTaken) -> None:
        """A follower stored pieces of a snapshot, or has it in force."""
        raft, progress = self._raft, self.progress.get(peer)
        if progress is None or progress.state is not State.SNAPSHOT:
            return
        progress.heard_ms = raft.now_ms
        if message.installed:
            self.transfers.pop(peer, None)
            progress.probe(message.index + 1)
            self.replicate(peer)
        elif peer in self.transfers:
            self.transfers[peer].taken(message, raft.now_ms)


def on_appended(raft: Raft, peer: str, message: Appended) -> None:
    """See `Leading.appended`."""
    if raft.leading is not None:
        raft.leading.appended(peer, message.index)


def on_conflict(raft: Raft, peer: str, message: Conflict) -> None:
    """See `Leading.conflicted`."""
    if raft.leading is not None:
        raft.leading.conflicted(peer, message)


def on_alive(raft: Raft, peer: str, message: Alive) -> None:
    """See `Leading.alive`."""
    if raft.leading is not None:
        raft.leading.alive(peer, message)


def on_chunk_taken(raft: Raft, peer: str, message: ChunkTaken) -> None:
    """See `Leading.chunk_taken`."""
    if raft.leading is not None:
        raft.leading.chunk_taken(peer, message)
