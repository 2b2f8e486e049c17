"""Planted bugs, one for each rule: the simulator is worth as much as it catches of them.

A mutation replaces one function of the production by one that breaks one rule.
``rules`` names the checks that may notice first, ``seed`` one that does when
this was written, and ``favours`` the kind of trouble that brings it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import msgspec

from cluster.clients import no_leader
from cluster.forwarding import Forwarding
from cluster.leadership import Leadership
from cluster.machine.machine import Machine
from cluster.machine.waiters import Waiters
from cluster.node import Node
from cluster.outstanding import Outstanding
from cluster.raft import core, election, following
from cluster.raft.core import Raft, Timing
from cluster.raft.leading import Leading
from cluster.raft.log import Log
from cluster.raft.messages import (
    Alive,
    Append,
    Appended,
    Forward,
    Heartbeat,
    Message,
    Vote,
)
from cluster.raft.quorum import reached
from cluster.raft.reads import Asked
from cluster.shard import Shard
from cluster.storage import MemoryStorage
from cluster.wishes import Wishes
from resp_server import peering
from tests.simulation import scripts
from tests.simulation.mutation import CRASHES, CUTS, MEMBERS, SLOW, Mutation, Patch
from tests.simulation.mutations_of_deadlocks import OF_DEADLOCKS
from tests.simulation.mutations_of_lapses import OF_LAPSES
from tests.simulation.mutations_of_locks import OF_LOCKS
from tests.simulation.mutations_of_queues import OF_QUEUES
from tests.simulation.mutations_of_shards import OF_SHARDS
from tests.simulation.mutations_with_caches import WITH_CACHES


def _handler(kind: type[Message], handler: Callable[[Raft, str, Any], None]) -> Patch:
    return patch.dict(core._HANDLERS, {kind: handler})


# Elections


def vote_twice() -> Patch:
    """A second candidate gets a vote, too."""

    def on_vote(raft: Raft, peer: str, message: Vote) -> None:
        if not message.pre and message.term == raft.term:
            raft.vote = ""
        election.on_vote(raft, peer, message)

    return _handler(Vote, on_vote)


def vote_for_one_behind() -> Patch:
    """A candidate whose log lacks something gets a vote."""

    def on_vote(raft: Raft, peer: str, message: Vote) -> None:
        election.on_vote(raft, peer, msgspec.structs.replace(message, last_term=1 << 40))

    return _handler(Vote, on_vote)


def vote_before_durable() -> Patch:
    """A vote is given before the disk has it."""

    def send(raft: Raft, peer: str, message: Message) -> None:
        raft._outbox.append((peer, message))

    return patch.object(Raft, "send", send)


def vote_within_lease() -> Patch:
    """Whoever has just heard from a leader votes for another one."""
    return patch.object(Raft, "hears_leader", property(lambda raft: False))


def vote_at_once_after_restart() -> Patch:
    """A member that restarts does not think of the leader it may have promised to wait for."""

    def advance(raft: Raft, now_ms: float) -> None:
        if not raft._started:
            raft._started = True
            raft.contact_ms = -1e9
        raft.now_ms = max(raft.now_ms, now_ms)

    return patch.object(Raft, "advance", advance)


# Replicating and committing


def acknowledge_before_durable() -> Patch:
    """A follower says it has what its disk has not."""

    def acknowledge(raft: Raft, leader: str, index: int) -> None:
        raft._outbox.append((leader, Appended(raft.term, index)))

    return patch.object(Raft, "acknowledge", acknowledge)


def count_before_durable() -> Patch:
    """A leader counts itself before its disk has the entry."""

    def count(leading: Leading) -> None:
        raft, progress = leading._raft, leading.progress
        index = reached(
            raft.config.voters,
            lambda voter: (
                raft.log.last_index if voter == raft.name else progress[voter].match if voter in progress else 0
            ),
        )
        if index > raft.commit and raft.log.term(index) == raft.term:
            raft.commit_to(index)

    return patch.object(Leading, "count", count)


def count_learners() -> Patch:
    """A learner's disk counts like a voter's."""

    def count(leading: Leading) -> None:
        raft, progress = leading._raft, leading.progress
        own = raft.log.saved_index
        members = (*raft.config.voters, *raft.config.learners)
        needed = len(raft.config.voters) // 2 + 1
        matches = [own if one == raft.name else progress[one].match if one in progress else 0 for one in members]
        index = sorted(matches, reverse=True)[needed - 1]
        if index > raft.commit and raft.log.term(index) == raft.term:
            raft.commit_to(index)

    return patch.object(Leading, "count", count)


def commit_earlier_term() -> Patch:
    """An entry of an earlier term is committed because a majority has it (figure 8 of the paper)."""

    def count(leading: Leading) -> None:
        raft, progress, own = leading._raft, leading.progress, leading._raft.log.saved_index
        index = reached(
            raft.config.voters,
            lambda voter: own if voter == raft.name else progress[voter].match if voter in progress else 0,
        )
        if index > raft.commit:
            raft.commit_to(index)

    return patch.object(Leading, "count", count)


def append_without_looking() -> Patch:
    """A follower adds entries to a log that does not agree with what precedes them."""

    def on_append(raft: Raft, leader: str, message: Append) -> None:
        term = raft.log.term(message.prev_index)
        if term is not None:
            message = msgspec.structs.replace(message, prev_term=term)
        following.on_append(raft, leader, message)

    return _handler(Append, on_append)


def cut_what_is_committed() -> Patch:
    """A follower takes every append for a conflict."""

    def on_append(raft: Raft, leader: str, message: Append) -> None:
        if raft.log.base_index <= message.prev_index < raft.log.last_index and message.entries:
            raft.log.cut_from(message.prev_index + 1)
        following.on_append(raft, leader, message)

    return _handler(Append, on_append)


def tell_too_much() -> Patch:
    """A heartbeat tells a follower of commits it is not known to agree with."""

    def on_heartbeat(raft: Raft, leader: str, message: Heartbeat) -> None:
        following.on_heartbeat(raft, leader, msgspec.structs.replace(message, commit=max(message.matches.values())))

    return _handler(Heartbeat, on_heartbeat)


def carry_out_before_commit() -> Patch:
    """What is in the log is carried out, committed or not."""
    apply = Shard.apply

    def too_early(shard: Shard) -> Any:
        if shard.raft.leading is not None:
            shard.raft.commit = shard.raft.log.last_index
        return apply(shard)

    return patch.object(Shard, "apply", too_early)


# Reads


def read_without_lease() -> Patch:
    """A leader reads by itself as long as it believes to lead."""
    return patch.object(Leading, "lease_until_ms", lambda leading: float("inf"))


def lease_without_drift() -> Patch:
    """A lease as long as the followers' patience: their clocks may be faster."""
    return patch.object(Timing, "lease_ms", property(lambda timing: float(timing.election_ms)))


def lease_from_receipt() -> Patch:
    """A lease is counted from when an answer came, not from when the heartbeat was sent."""
    alive = Leading.alive

    def from_now(leading: Leading, peer: str, message: Alive) -> None:
        alive(leading, peer, msgspec.structs.replace(message, sent_us=leading._now_us))

    return patch.object(Leading, "alive", from_now)


def lease_kept_while_handing_over() -> Patch:
    """Whoever hands over goes on reading by itself."""
    return patch.object(Leading, "_gave_lease_up", property(lambda _: False, lambda _, value: None), create=True)


def read_index_without_round() -> Patch:
    """A leader without a lease confirms reads without asking anybody whether it still leads."""

    def ask_read(leading: Leading, author: bytes, number: int, index: int = 0) -> None:
        leading.confirmed.append(Asked(author, number, max(index, leading._raft.commit, leading.first_index), 0))

    return patch.object(Leading, "ask_read", ask_read)


def read_before_applied() -> Patch:
    """A follower reads before it has carried out what the leader said it must have."""

    def readable(outstanding: Outstanding, number: int, index: int, now_ms: int) -> None:
        for batch in outstanding:
            if batch.number <= number and not batch.writes and batch.read_index is None:
                batch.read_index, batch.read_ms = 0, now_ms

    return patch.object(Outstanding, "readable", readable)


def read_before_settled() -> Patch:
    """A new leader reads before an entry of its own term is committed."""
    return patch.object(Leading, "settled", property(lambda _: True))


def look_without_ringing() -> Patch:
    """A read hides what is over by this node's clock, and the others never hear that it is."""
    pass_time = Machine.pass_time

    def quietly(machine: Machine, now_ms: int) -> bool:
        pass_time(machine, now_ms)
        return False

    return patch.object(Machine, "pass_time", quietly)


def look_past_what_is_due() -> Patch:
    """A read that was confirmed late hides what is over by then, and the others never hear that it is."""
    return patch.object(Machine, "pass_time_until_due", Machine.pass_time)


# Forwarding and answers


def forward_of_earlier_term() -> Patch:
    """A leader takes what was forwarded to another one, in a term that is over."""

    def take(self: Leadership, peer: str, message: Forward) -> None:
        if self._raft.leading is not None:
            self._forwarding.take(message)

    return patch.object(Leadership, "take", take)


def forward_kept_from_earlier_term() -> Patch:
    """A new leader puts into its log what was forwarded to it when it led before."""

    def begin(forwarding: Forwarding) -> None:
        forwarding._accepted.clear()

    return patch.object(Forwarding, "begin_to_lead", begin)


def forward_taken_twice() -> Patch:
    """A leader takes a batch again that it has taken."""

    def take(forwarding: Forwarding, message: Forward) -> None:
        forwarding.parts.append((message.author, message.number, msgspec.Raw(message.body)))

    return patch.object(Forwarding, "take", take)


def given_up_is_waited_for() -> Patch:
    """A leader waits for ever for a batch whose author has given it up."""

    def take(forwarding: Forwarding, message: Forward) -> None:
        if forwarding._accepted.get(message.author, 0) == message.previous:
            forwarding._accepted[message.author] = message.number
            forwarding.parts.append((message.author, message.number, msgspec.Raw(message.body)))

    return patch.object(Forwarding, "take", take)


def clusterdown_where_uncertain() -> Patch:
    """Clients are told that what may have happened did not."""
    return patch("cluster.shard.uncertain", lambda why: no_leader(0))


def lost_too_early() -> Patch:
    """What was sent in this term counts as never happened with the first entry of this term, and is sent again."""
    never_before = Outstanding.never_before

    def never(outstanding: Outstanding, term: int, *, after: int) -> None:
        never_before(outstanding, term + 1, after=after)

    return patch.object(Outstanding, "never_before", never)


def later_batch_first() -> Patch:
    """A batch of reads is answered as soon as it can be, whatever was asked before."""

    def take_answerable(outstanding: Outstanding, applied: int) -> Iterator[Any]:
        for batch in list(outstanding):
            ready = not batch.writes and batch.read_index is not None and batch.read_index <= applied
            if batch.lost is not None or ready:
                outstanding._batches.remove(batch)
                yield batch

    return patch.object(Outstanding, "take_answerable", take_answerable)


# Membership


def changes_that_overlap() -> Patch:
    """A change begins before the one before it is committed."""

    def may_change(leading: Leading) -> bool:
        return leading._raft.commit >= leading.first_index

    return patch.object(Leading, "may_change", may_change)


def change_before_own_term() -> Patch:
    """A change begins before an entry of the leader's own term is committed (the known flaw)."""

    def may_change(leading: Leading) -> bool:
        return leading._raft.commit >= leading._raft.membership.since

    return patch.object(Leading, "may_change", may_change)


def empty_disk_is_trusted() -> Patch:
    """A member that comes back with an empty disk is taken for the voter it was."""

    def compare(node: Node) -> None:
        node._members = node.members

    return patch.object(Node, "_compare_disks", compare)


def new_disk_is_refused() -> Patch:
    """A member that joined again with another disk is refused by whoever knew it before, also when it leads."""

    def judge(peer: str, disk: str, node: peering.Knows) -> None:
        if node.disk_of(peer) not in ("", disk):
            raise peering.Refused("disk", "another data folder")

    return patch.object(peering, "judge_disk", judge)


def told_by_who_does_not_know() -> Patch:
    """A node tells from its own configuration, however old, whether a wish came true."""
    return patch.object(Wishes, "_may_tell", lambda wishes, wish: True)


# Snapshots and the state


def old_snapshot_is_installed() -> Patch:
    """A snapshot replaces a state that is further."""
    with ExitStack() as stack:
        for module in ("cluster.raft.following", "cluster.snapshots"):
            stack.enter_context(patch(f"{module}.brings_nothing", lambda raft, message: False))
        return stack.pop_all()


def append_while_installing() -> Patch:
    """Entries are added to a log that is just being replaced."""
    return patch.object(Raft, "installing", property(lambda _: False, lambda _, value: None), create=True)


def log_kept_at_install() -> Patch:
    """The log that a snapshot replaces stays on the disk."""
    return patch.object(MemoryStorage, "_reset_log", lambda *_: None)


def compact_too_much() -> Patch:
    """A log forgets more than its checkpoint holds."""
    compact = Log.compact

    def too_much(log: Log, index: int) -> None:
        compact(log, min(index + 1, log.last_index))

    return patch.object(Log, "compact", too_much)


def own_clock_while_carrying_out() -> Patch:
    """A replica goes by its own time."""
    begin = Machine.begin
    ahead_ms: dict[Machine, int] = {}

    def own(machine: Machine, time_ms: int) -> None:
        begin(machine, time_ms + ahead_ms.setdefault(machine, 17 * len(ahead_ms) % 50))

    return patch.object(Machine, "begin", own)


def two_waits() -> Patch:
    """A session that asks again goes on waiting for what it asked before, too."""
    wait = Machine.wait

    def both(machine: Machine, *args: Any, **kwargs: Any) -> Any:
        with patch.object(Waiters, "of", lambda waiters, origin: None):
            return wait(machine, *args, **kwargs)

    return patch.object(Machine, "wait", both)


COMMITTED = ("what is committed stays", "raft.check", "a majority has it", "leader completeness")

MUTATIONS: tuple[Mutation, ...] = (
    Mutation(vote_twice, ("one vote a term",), script=scripts.two_candidates),
    Mutation(vote_for_one_behind, ("leader completeness",), script=scripts.behind),
    Mutation(vote_before_durable, ("durable before voted",), CRASHES),
    Mutation(vote_within_lease, ("one lease",), script=scripts.apart),
    Mutation(vote_at_once_after_restart, ("one lease",), script=scripts.deaf_and_restarted),
    Mutation(acknowledge_before_durable, ("durable before acknowledged",), SLOW),
    Mutation(count_before_durable, ("a majority has it",), SLOW),
    Mutation(count_learners, ("a majority has it",), MEMBERS),
    Mutation(commit_earlier_term, ("own term",), script=scripts.figure_8),
    Mutation(append_without_looking, ("log matching",), script=scripts.diverged),
    Mutation(
        cut_what_is_committed,
        ("what is committed stays", "raft.check", "a majority has it", "leader completeness"),
        ("weather",),
    ),
    Mutation(tell_too_much, ("state machine safety",), script=scripts.diverged),
    Mutation(carry_out_before_commit, ("own term", "a majority has it"), CUTS),
    Mutation(read_without_lease, ("one lease",), script=scripts.fast_followers),
    Mutation(lease_without_drift, ("one lease",), script=scripts.fast_followers),
    Mutation(lease_from_receipt, ("one lease",), script=scripts.slow_answers),
    Mutation(lease_kept_while_handing_over, ("one lease",), script=scripts.unheard_successor),
    Mutation(read_index_without_round, ("linearizability",), script=scripts.fast_followers, leases=False),
    Mutation(read_before_applied, ("linearizability",), script=scripts.missed_append),
    Mutation(read_before_settled, ("linearizability",), script=scripts.unsettled),
    Mutation(look_without_ringing, ("linearizability",), script=scripts.clocks_apart, seed=3),
    Mutation(look_past_what_is_due, ("linearizability",), script=scripts.confirmed_late, seed=13, leases=False),
    Mutation(forward_of_earlier_term, ("never happened", "carried out once"), script=scripts.late_forward),
    Mutation(forward_kept_from_earlier_term, ("never happened", "carried out once"), script=scripts.kept_forward),
    Mutation(forward_taken_twice, ("carried out once",), ("weather",)),
    Mutation(given_up_is_waited_for, ("progress",), script=scripts.given_up_forward),
    Mutation(clusterdown_where_uncertain, ("never happened", "linearizability", "progress"), CUTS),
    Mutation(lost_too_early, ("carried out once",), script=scripts.hurried_forward),
    Mutation(later_batch_first, ("order of replies",), SLOW),
    Mutation(changes_that_overlap, ("one change at a time",), script=scripts.hurried_changes),
    Mutation(change_before_own_term, ("change in a term that has begun",), script=scripts.hurried_leader),
    Mutation(empty_disk_is_trusted, ("leader completeness",), script=scripts.empty_disk),
    Mutation(new_disk_is_refused, ("progress",), script=scripts.leader_with_new_disk),
    Mutation(told_by_who_does_not_know, ("told too early",), script=scripts.stale_wish),
    Mutation(old_snapshot_is_installed, ("commit goes back",), script=scripts.doubled_snapshot),
    Mutation(append_while_installing, ("commit goes back",), script=scripts.overtaken_snapshot),
    Mutation(log_kept_at_install, ("log matching",), script=scripts.stale_tail),
    Mutation(compact_too_much, ("forgotten too early",), script=scripts.checkpoint_behind),
    Mutation(own_clock_while_carrying_out, ("equal states", "queues are as the rules have them")),
    Mutation(two_waits, ("equal states", "first come, first served"), script=scripts.waits_twice),
    *OF_SHARDS,
    *OF_LOCKS,
    *OF_DEADLOCKS,
    *OF_LAPSES,
    *OF_QUEUES,
    *WITH_CACHES,
)
"""All of them."""
