"""Planted bugs in the rules of clusters of many shards: see mutations.py."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import msgspec

from cluster import atlas as system_state
from cluster.atlas import Place
from cluster.hosting import Hosting
from cluster.machine.machine import Machine
from cluster.machine.reply import OK
from cluster.moves import Moves
from cluster.outcomes import Outcomes, Waiting
from cluster.outstanding import Outstanding
from cluster.raft import core, election
from cluster.raft.core import Raft
from cluster.raft.leading import Leading
from cluster.raft.log import Log
from cluster.raft.membership import Config, Membership
from cluster.raft.messages import Ended, Forward, Look, Outcome, Vote, WishGranted
from cluster.ring import rebalance
from cluster.ring.rebalance import Remove, View
from cluster.shard import FOREVER_MS, Shard
from cluster.storage import MemoryStorage
from cluster.storage.contract import HardState
from cluster.waits import OwnWaits
from cluster.wishes import Wishes
from tests.simulation import moving
from tests.simulation.mutation import CRASHES, CUTS, Mutation, Patch
from tests.simulation.simulation import Shape
from tests.simulation.world import MS, SECOND

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
    hear = OwnWaits.hear

    def whatever(waits: OwnWaits, message: Ended) -> None:
        hear(waits, msgspec.structs.replace(message, wait=waits.told.get(message.origin, message.wait)))

    return patch.object(OwnWaits, "hear", whatever)


def waits_forgotten_with_the_replica() -> Patch:
    """A node that gives its replica up does not ask what became of those who waited in it."""
    return patch.object(OwnWaits, "replaced", lambda waits, former, machine: None)


def looks_without_asking() -> Patch:
    """A leader reads for another node without making sure that it still leads."""

    def look(hosting: Hosting, peer: str, message: Look) -> None:
        hosting._ready.append((peer, message, 0, 0))

    return patch.object(Hosting, "look", look)


def wish_to_lead_never_granted() -> Patch:
    """A node without a replica waits to see for itself who leads."""

    def granted(wishes: Wishes, message: WishGranted) -> None:
        return

    return patch.object(Wishes, "granted", granted)


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


def everybody_votes() -> Patch:
    """A node that has no part in a shard votes for whoever asks it."""

    def on_vote(raft: Raft, peer: str, message: Vote) -> None:
        with patch.object(Config, "__contains__", lambda config, node: True):
            election.on_vote(raft, peer, message)

    return patch.dict(core._HANDLERS, {Vote: on_vote})


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

OF_SHARDS: tuple[Mutation, ...] = (
    Mutation(never_though_remembered, ("carried out once",), script=moving.asked_of_the_next, shape=ON_THREE),
    Mutation(outcomes_lost_with_the_leader, ("carried out once",), script=moving.asked_of_the_next, shape=ON_THREE),
    Mutation(outcomes_without_a_base, ("carried out once",), script=moving.asked_of_one_that_forgot, shape=ON_THREE),
    Mutation(
        outcome_of_another_batch,
        (
            "no crash",
            "linearizability",
            "its own outcome",
            "a watched key",
            "a wait without limit",
            "told what happened",
            "own writes",
        ),
        shape=FOUR_SHARDS,
        nodes=5,
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
    Mutation(wish_to_lead_never_granted, ("told", "steady leaders"), script=moving.leaders_wished, shape=ON_THREE),
    Mutation(read_overtakes_write, ("own writes",), script=moving.reads_behind_writes, shape=ON_THREE),
    Mutation(
        votes_for_anybody_afterwards, ("votes by what it had",), script=moving.vote_of_one_given_up, shape=ON_THREE
    ),
    Mutation(floor_only_in_memory, ("votes by what it had",), script=moving.vote_of_one_given_up, shape=ON_THREE),
    Mutation(
        stands_while_it_replays, ("leader completeness", "one lease"), script=moving.replayed_alone, shape=moving.ON_ONE
    ),
    Mutation(
        everybody_votes,
        ("leader completeness", "one lease", "log matching"),
        script=moving.founder_without_a_disk,
        shape=ON_THREE,
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
    Mutation(report_of_long_ago, ("a report never goes back",), script=moving.late_report, shape=ON_THREE),
    Mutation(removed_before_another_comes, ("as many replicas",), MOVES, shape=TWO_REPLICAS, nodes=4),
    Mutation(moved_while_paused, ("paused",), script=moving.joined_while_paused),
    Mutation(idle_shard_never_ticks, ("progress", "answered in time"), CRASHES, shape=FOUR_SHARDS, nodes=5),
    Mutation(no_beats_for_one_shard, ("progress", "answered in time"), shape=FOUR_SHARDS, nodes=5),
)
"""All of them."""
