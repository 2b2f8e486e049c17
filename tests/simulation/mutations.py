"""Planted bugs, one for each rule: the simulator is worth as much as it catches of them.

A mutation replaces one function of the production by one that breaks one rule.
``rules`` names the checks that may notice first, ``seed`` one that does when
this was written, and ``favours`` the kind of trouble that brings it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, TypeAlias
from unittest.mock import patch

import msgspec

from cluster import atlas as system_state
from cluster.atlas import Place
from cluster.clients import no_leader
from cluster.forwarding import Forwarding
from cluster.hosting import Hosting
from cluster.leadership import Leadership
from cluster.machine.machine import Machine
from cluster.machine.reply import OK
from cluster.machine.waiters import Waiters
from cluster.moves import Moves
from cluster.node import Node
from cluster.outcomes import Outcomes, Waiting
from cluster.outstanding import Outstanding
from cluster.raft import core, election, following
from cluster.raft.core import Raft, Timing
from cluster.raft.leading import Leading
from cluster.raft.log import Log
from cluster.raft.membership import Membership
from cluster.raft.messages import (
    Alive,
    Append,
    Appended,
    Ended,
    Forward,
    Heartbeat,
    Look,
    Message,
    Outcome,
    Vote,
)
from cluster.raft.quorum import reached
from cluster.raft.reads import Asked
from cluster.ring import rebalance
from cluster.ring.rebalance import Remove, View
from cluster.shard import FOREVER_MS, Shard
from cluster.storage import MemoryStorage
from cluster.storage.contract import HardState
from cluster.wishes import Wishes
from resp_server import peering
from tests.simulation import moving, scripts
from tests.simulation.faults import WEIGHTS, Profile
from tests.simulation.scripts import Play, play
from tests.simulation.simulation import ONE, Shape, Simulation
from tests.simulation.world import MS, SECOND, Violation

Patch: TypeAlias = "AbstractContextManager[Any]"


@dataclass(frozen=True)
class Mutation:
    """One planted bug: ``plant`` gives the patch that breaks the rule for as long as it is entered."""

    plant: Callable[[], Patch]
    rules: tuple[str, ...]
    favours: tuple[str, ...] = ()
    script: Play | None = None
    shape: Shape = ONE
    seed: int = 1
    leases: bool = True
    nodes: int = 3
    gap_ms: int = 600
    think_ms: int = 150
    delay_ms: float = 0.5
    steps: int = 15_000

    def catch(self, seed: int) -> Violation | None:
        """What is found when the bug is there."""
        with self.plant():
            try:
                if self.script is not None:
                    play(self.script, shape=self.shape, leases=self.leases, seed=seed)
                else:
                    simulation = Simulation(
                        seed, nodes=self.nodes, shape=self.shape, profile=self.profile, leases=self.leases
                    )
                    simulation.run(self.steps)
            except Violation as found:
                return found
        return None

    @property
    def name(self) -> str:
        """What the bug is called."""
        return self.plant.__name__

    @property
    def profile(self) -> Profile:
        """Mostly what it favours, and a little of everything."""
        weights = {name: weight * (10 if name in self.favours else 1) for name, weight in WEIGHTS.items()}
        return Profile(self.gap_ms, weights, delay_ms=self.delay_ms, think_ms=self.think_ms)


CUTS = ("partition", "isolate_leader", "one_way", "only_one")
CRASHES = ("crash", "crash_leader", "crash_all")
MEMBERS = ("add", "remove", "replace", "transfer")
SLOW = ("slow_disk",)


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

    def ask_read(leading: Leading, peer: str, number: int, index: int = 0) -> None:
        leading.confirmed.append(Asked(peer, number, max(index, leading._raft.commit, leading.first_index), 0))

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

    def own(machine: Machine, time_ms: int) -> None:
        begin(machine, time_ms + id(machine) // 64 % 50)

    return patch.object(Machine, "begin", own)


def two_waits() -> Patch:
    """A session that asks again goes on waiting for what it asked before, too."""
    wait = Machine.wait

    def both(machine: Machine, *args: Any, **kwargs: Any) -> Any:
        with patch.object(Waiters, "of", lambda waiters, origin: None):
            return wait(machine, *args, **kwargs)

    return patch.object(Machine, "wait", both)


# Nodes without a replica


def never_though_remembered() -> Patch:
    """A new leader says that what was sent to another never happened, whatever it remembers."""
    take = Hosting.take

    def never(hosting: Hosting, peer: str, message: Forward) -> bool:
        with (
            patch.object(Outcomes, "of", lambda outcomes, author, number: None),
            patch.object(Outcomes, "never", lambda outcomes, author, number, term: True),
        ):
            return take(hosting, peer, message)

    return patch.object(Hosting, "take", never)


def never_before_it_is_settled() -> Patch:
    """A new leader says that something never happened before it knows what is committed."""

    def take(hosting: Hosting, peer: str, message: Forward) -> bool:
        raft, outcomes = hosting._raft, hosting._carrying.outcomes
        if (
            raft.leading is not None
            and message.term < raft.term
            and outcomes.of(message.author, message.number) is None
        ):
            hosting._outbox.append((peer, Outcome(raft.term, message.author, message.number, b"", True)))
            return False
        return _take(hosting, peer, message)

    _take = Hosting.take
    return patch.object(Hosting, "take", take)


def outcomes_lost_with_the_leader() -> Patch:
    """A new leader forgets what was carried out before it led."""
    begin = Hosting.begin

    def forgetful(hosting: Hosting) -> None:
        begin(hosting)
        hosting._carrying.outcomes = Outcomes(0)

    return patch.object(Hosting, "begin", forgetful)


def outcomes_without_a_base() -> Patch:
    """A replica takes what is in its checkpoint for what never was."""
    new = Outcomes.__init__

    def init(outcomes: Outcomes, since_term: int = 0) -> None:
        new(outcomes, 0)

    return patch.object(Outcomes, "__init__", init)


def outcome_of_another_batch() -> Patch:
    """A batch is answered with what the one before it was."""
    of = Outcomes.of

    def another(outcomes: Outcomes, author: bytes, number: int) -> Any:
        right, before = of(outcomes, author, number), of(outcomes, author, number - 1)
        if right is None or before is None or len(before) != len(right):
            return right
        return right if any(isinstance(reply, Waiting) for reply in (*before, *right)) else before

    return patch.object(Outcomes, "of", another)


def told_never_once_more() -> Patch:
    """An answer to what was sent in one term counts for what was sent again in a later one."""
    on_outcome = Shard._on_outcome

    def late(shard: Shard, peer: str, message: Outcome) -> None:
        on_outcome(shard, peer, message if message.replies else msgspec.structs.replace(message, term=1 << 40))

    return patch.object(Shard, "_on_outcome", late)


def end_of_any_wait() -> Patch:
    """That a wait has ended is taken for the end of whatever the session waits for."""
    on_ended = Shard._on_ended

    def whatever(shard: Shard, peer: str, message: Ended) -> None:
        wait = shard._carrying.waits.get(message.origin, message.wait)
        on_ended(shard, peer, msgspec.structs.replace(message, wait=wait))

    return patch.object(Shard, "_on_ended", whatever)


def waits_forgotten_with_the_replica() -> Patch:
    """A node that gives its replica up does not ask what became of those who waited in it."""
    return patch.object(Shard, "_remember_waits", lambda shard, former: None)


def looks_without_asking() -> Patch:
    """A leader reads for another node without making sure that it still leads."""

    def look(hosting: Hosting, peer: str, message: Look) -> None:
        hosting._ready.append((peer, message, 0, 0))

    return patch.object(Hosting, "look", look)


def read_overtakes_write() -> Patch:
    """A node without a replica sends a read that may be carried out before a write it sent earlier."""
    return patch.object(Outstanding, "writing", property(lambda _: False))


# Replicas that come and go


def votes_for_anybody_afterwards() -> Patch:
    """Who gave its replica up does not remember what it had acknowledged."""
    return patch.object(Raft, "raise_floor", lambda raft, term, index: None)


def floor_only_in_memory() -> Patch:
    """Who gave its replica up does not remember after a restart what it had acknowledged."""
    recover = Raft.recover

    def forgetful(raft: Raft, log: Log, membership: Membership, hard_state: HardState) -> None:
        recover(raft, log, membership, HardState(hard_state.term, hard_state.vote))

    return patch.object(Raft, "recover", forgetful)


def stands_while_it_replays() -> Patch:
    """Who replays a log from long ago stands for election by what it says."""
    return patch.object(Raft, "up_to_date", property(lambda _: True))


def state_kept() -> Patch:
    """A replica that is given up stays in memory."""
    given_up = Shard.given_up

    def keeps(shard: Shard) -> None:
        machine = shard.machine
        given_up(shard)
        shard.machine = machine

    return patch.object(Shard, "given_up", keeps)


def rows_kept() -> Patch:
    """A replica that is given up stays on the disk."""
    begin = MemoryStorage.begin_checkpoint

    def keeps(storage: MemoryStorage, shard: int, *, cleared: bool, erased: Any) -> None:
        begin(storage, shard, cleared=False, erased=erased)

    return patch.object(MemoryStorage, "begin_checkpoint", keeps)


def emptied_while_written() -> Patch:
    """A replica is emptied though its disk is still at its log."""
    return patch.object(Raft, "may_go", property(lambda _: True))


def given_up_by_what_is_replayed() -> Patch:
    """Who is a member again gives its replica up where its log says that it was removed."""

    def gave_up(shard: Shard, place: Place, now_ms: float) -> bool:
        raft = shard.raft
        return raft.leading is None and raft.membership.left(shard.name) and raft.applied >= raft.membership.since

    return patch.object(Shard, "gave_up", gave_up)


def given_up_when_nobody_calls() -> Patch:
    """A member that hears no leader for a while gives its replica up."""

    def gave_up(shard: Shard, place: Place, now_ms: float) -> bool:
        raft = shard.raft
        return raft.leading is None and raft.log.last_index > 0 and now_ms - raft.contact_ms > SECOND / MS

    return patch.object(Shard, "gave_up", gave_up)


def added_again_in_its_term() -> Patch:
    """A node is added again in the term in which it was removed, though what it said before may still come."""
    return patch.object(Leading, "may_add", lambda leading, node: True)


def report_of_long_ago() -> Patch:
    """A report of where a shard was replaces a newer one."""

    def placed(machine: Machine, args: list[bytes]) -> Any:
        machine.keyspace.put(b"place:" + args[1], args[2])
        return OK

    return patch.dict(system_state.COMMANDS.handlers, {b"_SYSTEM.PLACED": placed})


def removed_before_another_comes() -> Patch:
    """A shard loses a replica before it has got the one that is to take its place."""

    def next_step(view: View) -> Any:
        surplus = [node for node in view.voters if node not in view.target and node != view.name]
        if view.may_change and surplus and len(view.voters) > 1:
            return Remove(surplus[0])
        return rebalance.next_step(view)

    return patch("cluster.moves.next_step", next_step)


def moved_while_paused() -> Patch:
    """Shards are moved though somebody wanted them to stay."""
    look = Moves.look

    def regardless(moves: Moves) -> None:
        look(moves)
        for shard, target in zip(moves._node.shards, moves.targets(), strict=False):
            if moves._steady(shard) is not None:
                moves._step(shard, target)

    return patch.object(Moves, "look", regardless)


# Shards that have to be looked after


def idle_shard_never_ticks() -> Patch:
    """A shard for which nothing comes is not touched when its timer runs out."""
    next_tick_ms = Shard.next_tick_ms

    def never(shard: Shard) -> float:
        return next_tick_ms(shard) if shard.number != 1 or shard.clients.waiting else FOREVER_MS

    return patch.object(Shard, "next_tick_ms", never)


def no_beats_for_one_shard() -> Patch:
    """The followers of one shard hear of their leader only when there is something to do."""
    beat = Leading._beat

    def silent(leading: Leading) -> None:
        if leading._raft.shard != 1:
            beat(leading)
            return
        leading.next_beat_ms = leading._raft.now_ms + leading._raft.timing.heartbeat_ms

    return patch.object(Leading, "_beat", silent)


ON_THREE = moving.ON_THREE
FOUR_SHARDS = Shape(shards=4, replicas=3, node_timeout_ms=4_000.0)
TWO_REPLICAS = Shape(shards=4, replicas=2, node_timeout_ms=4_000.0)

MOVES = ("mover", "lose", "add", "remove", "checkpoint")

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
    Mutation(cut_what_is_committed, ("what is committed stays", "raft.check", "a majority has it"), ("weather",)),
    Mutation(tell_too_much, ("state machine safety",), script=scripts.diverged),
    Mutation(carry_out_before_commit, ("own term", "a majority has it"), CUTS),
    Mutation(read_without_lease, ("one lease",), script=scripts.fast_followers),
    Mutation(lease_without_drift, ("one lease",), script=scripts.fast_followers),
    Mutation(lease_from_receipt, ("one lease",), script=scripts.slow_answers),
    Mutation(lease_kept_while_handing_over, ("one lease",), script=scripts.unheard_successor),
    Mutation(read_index_without_round, ("linearizability",), script=scripts.fast_followers, leases=False),
    Mutation(read_before_applied, ("linearizability",), script=scripts.missed_append),
    Mutation(read_before_settled, ("linearizability",), script=scripts.unsettled),
    Mutation(look_without_ringing, ("linearizability",), script=scripts.clocks_apart),
    Mutation(look_past_what_is_due, ("linearizability",), script=scripts.confirmed_late, leases=False),
    Mutation(forward_of_earlier_term, ("never happened", "carried out once"), script=scripts.late_forward),
    Mutation(forward_kept_from_earlier_term, ("never happened", "carried out once"), script=scripts.kept_forward),
    Mutation(forward_taken_twice, ("carried out once",), ("weather",)),
    Mutation(given_up_is_waited_for, ("progress",), script=scripts.given_up_forward),
    Mutation(clusterdown_where_uncertain, ("never happened", "linearizability"), CUTS),
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
    Mutation(own_clock_while_carrying_out, ("equal states",), ()),
    Mutation(two_waits, ("equal states",), script=scripts.waits_twice),
    Mutation(never_though_remembered, ("carried out once",), script=moving.asked_of_the_next, shape=ON_THREE),
    Mutation(never_before_it_is_settled, ("carried out once",), CRASHES, shape=FOUR_SHARDS, nodes=5),
    Mutation(outcomes_lost_with_the_leader, ("carried out once",), script=moving.asked_of_the_next, shape=ON_THREE),
    Mutation(outcomes_without_a_base, ("carried out once",), script=moving.asked_of_one_that_forgot, shape=ON_THREE),
    Mutation(
        outcome_of_another_batch, ("linearizability", "its own outcome", "a watched key"), shape=FOUR_SHARDS, nodes=5
    ),
    Mutation(told_never_once_more, ("never happened",), script=moving.told_late_that_never, shape=ON_THREE),
    Mutation(
        end_of_any_wait,
        ("a wait without limit", "its own outcome"),
        script=moving.end_of_another_wait,
        shape=ON_THREE,
    ),
    Mutation(waits_forgotten_with_the_replica, ("a wait ends",), script=moving.session_on_the_move, shape=ON_THREE),
    Mutation(looks_without_asking, ("linearizability",), script=moving.looks_of_the_deposed, shape=ON_THREE),
    Mutation(read_overtakes_write, ("own writes",), script=moving.reads_behind_writes, shape=ON_THREE),
    Mutation(
        votes_for_anybody_afterwards, ("votes by what it had",), script=moving.vote_of_one_given_up, shape=ON_THREE
    ),
    Mutation(floor_only_in_memory, ("votes by what it had",), script=moving.vote_of_one_given_up, shape=ON_THREE),
    Mutation(
        stands_while_it_replays, ("leader completeness", "one lease"), script=moving.replayed_alone, shape=moving.ON_ONE
    ),
    Mutation(state_kept, ("nothing is left of a replica given up",), MOVES, shape=FOUR_SHARDS, nodes=4),
    Mutation(rows_kept, ("nothing is left of a replica given up",), MOVES, shape=FOUR_SHARDS, nodes=4),
    Mutation(
        emptied_while_written,
        ("emptied while it is written",),
        script=moving.emptied_by_a_slow_disk,
        shape=ON_THREE,
    ),
    Mutation(
        given_up_by_what_is_replayed,
        ("a member keeps its replica",),
        script=moving.removed_from_a_log,
        shape=ON_THREE,
    ),
    Mutation(given_up_when_nobody_calls, ("a member keeps its replica",), CUTS, shape=FOUR_SHARDS, nodes=5),
    Mutation(added_again_in_its_term, ("progress",), script=moving.added_again, shape=ON_THREE),
    Mutation(report_of_long_ago, ("a report never goes back",), script=moving.late_report, shape=ON_THREE),
    Mutation(removed_before_another_comes, ("as many replicas",), MOVES, shape=TWO_REPLICAS, nodes=4),
    Mutation(moved_while_paused, ("paused",), script=moving.joined_while_paused),
    Mutation(idle_shard_never_ticks, ("progress", "answered in time"), CRASHES, shape=FOUR_SHARDS, nodes=5),
    Mutation(no_beats_for_one_shard, ("progress", "answered in time"), shape=FOUR_SHARDS, nodes=5),
)
"""All of them."""
