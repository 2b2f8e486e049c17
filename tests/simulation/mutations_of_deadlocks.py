"""Planted bugs in the search for deadlocks over several shards: see mutations.py."""

from __future__ import annotations

from unittest.mock import patch

from cluster import detector
from cluster.contention import Contention
from cluster.detector import Detector, Inquiry
from cluster.machine.lock_waits import Changes
from cluster.raft.messages import Contended
from tests.simulation import deadlocks
from tests.simulation.mutation import Mutation, Patch


def fails_without_asking() -> Patch:
    """A cycle in what was reported is taken for one that stands."""

    def inquire(looker: Detector, inquiry: Inquiry) -> None:
        looker._inquiries.append(inquiry)
        looker._fail_victim(inquiry)

    return patch.object(Detector, "_inquire", inquire)


def report_of_an_earlier_term() -> Patch:
    """A full report counts, whoever leads by now."""
    take = Detector.take

    def whoever(looker: Detector, shard: int, message: Contended, came_ms: float) -> bool:
        if message.fresh:
            looker._reports.pop(shard, None)
        return take(looker, shard, message, came_ms)

    return patch.object(Detector, "take", whoever)


def new_leader_tells_what_is_new() -> Patch:
    """A new leader of a shard tells of waits that began since, and not of those that go on."""
    begin_anew = Contention.begin_anew

    def only_new(contention: Contention) -> None:
        begin_anew(contention)
        contention._machine.lock_waits.changes = Changes()

    return patch.object(Contention, "begin_anew", only_new)


def new_looker_is_told_what_is_new() -> Patch:
    """Who looks for deadlocks from now on is told what happened since another one was told."""
    begin_anew = Contention.begin_anew

    def once(contention: Contention) -> None:
        if contention._machine.lock_waits.changes is None:
            begin_anew(contention)
        contention._fresh = True

    return patch.object(Contention, "begin_anew", once)


def first_of_all_is_the_victim() -> Patch:
    """Of those in a cycle over several shards the first to wait is failed."""
    return patch.object(detector, "max", min, create=True)


def looked_for_once() -> Patch:
    """A cycle that was asked about is not looked at again, whatever the answer."""
    examine = Detector._examine

    def forgets(looker: Detector, owner: bytes, now_ms: float) -> None:
        examine(looker, owner, now_ms)
        looker._suspects.pop(owner, None)

    return patch.object(Detector, "_examine", forgets)


UNBROKEN = ("every cycle is broken", "progress")

OF_DEADLOCKS: tuple[Mutation, ...] = (
    Mutation(
        fails_without_asking,
        ("no victim without a cycle",),
        script=deadlocks.wait_that_is_over,
        shape=deadlocks.ON_FOUR,
    ),
    Mutation(report_of_an_earlier_term, UNBROKEN, script=deadlocks.old_report, shape=deadlocks.ON_FOUR),
    Mutation(new_leader_tells_what_is_new, UNBROKEN, script=deadlocks.new_leader_of_a_shard, shape=deadlocks.ON_FOUR),
    Mutation(new_looker_is_told_what_is_new, UNBROKEN, script=deadlocks.new_looker, shape=deadlocks.ON_FOUR),
    Mutation(
        first_of_all_is_the_victim,
        ("the last to wait is the victim",),
        script=deadlocks.over_two_shards,
        shape=deadlocks.ON_FOUR,
    ),
    Mutation(looked_for_once, UNBROKEN, script=deadlocks.two_at_once, shape=deadlocks.ON_FOUR),
)
"""All of them."""
