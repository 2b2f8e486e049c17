"""Planted bugs in the rules of locks: see mutations.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from unittest.mock import patch

from cluster.deadlock import Edge
from cluster.machine import fence, hold_lives, lock_deadlocks, locks, semaphores
from cluster.machine.hold import Hold, Holding, Issued
from cluster.machine.lock import Lock
from cluster.machine.lock_requests import Request
from cluster.machine.machine import Machine
from cluster.machine.reply import Reply
from cluster.machine.waiters import Waiter
from tests.simulation import deadlocks
from tests.simulation.mutation import Mutation, Patch
from tests.simulation.process import commands

# Granting


def granted_while_held() -> Patch:
    """Who wants to share is let in though somebody has the lock alone."""
    is_open = locks._is_open

    def lets_in(machine: Machine, request: Request, key: bytes, lock: Lock | None, waiter: Waiter | None) -> bool:
        held = lock is not None and lock.exclusive is not None and lock.holder(request.owner) is None
        return (held and not request.exclusive) or is_open(machine, request, key, lock, waiter)

    return patch.object(locks, "_is_open", lets_in)


def sharers_overtake() -> Patch:
    """Who wants to share joins the sharers, whoever waits."""
    is_open = locks._is_open

    def joins(machine: Machine, request: Request, key: bytes, lock: Lock | None, waiter: Waiter | None) -> bool:
        shared = lock is not None and lock.exclusive is None and not request.exclusive
        return shared or is_open(machine, request, key, lock, waiter)

    return patch.object(locks, "_is_open", joins)


def upgrades_stand_in_line() -> Patch:
    """Who shares a lock and wants it alone waits behind those who came before."""
    wait = Machine.wait

    def behind(machine: Machine, *args: Any, **kwargs: Any) -> Reply:
        return wait(machine, *args, **{**kwargs, "urgent": ()})

    return patch.object(Machine, "wait", behind)


def token_again() -> Patch:
    """A lock that is free again begins with the token it had."""
    issue = Issued.issue

    def again(issued: Issued, key: bytes) -> int:
        return issued.recent.get(key) or issue(issued, key)

    return patch.object(Issued, "issue", again)


def places_without_limit() -> Patch:
    """A semaphore has one place more than it should."""
    try_ = semaphores._try

    def more(machine: Machine, request: Any, semaphore: Any, limit: int, waiter: Any) -> Any:
        return try_(machine, request, semaphore, limit + 1, waiter)

    return patch.object(semaphores, "_try", more)


def fenced_by_any_token() -> Patch:
    """FENCE writes as long as anybody has the lock."""

    def whoever(machine: Machine, args: list[bytes]) -> Reply:
        held = machine.keyspace.values.get(args[1])
        if isinstance(held, Holding) and held.holders():
            args = [*args[:2], b"%d" % next(iter(held.holders())).token, *args[3:]]
        return fence_(machine, args)

    fence_ = fence.fence
    return patch.dict(commands().handlers, {b"FENCE": whoever})


# Waiting


def forgotten_at_release() -> Patch:
    """Who shares a lock and wants it alone is not looked at when another sharer leaves."""
    end = hold_lives.end

    def silently(machine: Machine, key: bytes, value: Holding, hold: Hold) -> None:
        with patch.object(Machine, "signal", lambda machine, key: None):
            end(machine, key, value, hold)

    return patch.object(hold_lives, "end", silently)


def forgotten_behind_one_who_leaves() -> Patch:
    """Who stands behind somebody who goes away is not looked at."""

    def end_session(machine: Machine, origin: bytes) -> None:
        with patch.object(Machine, "signal", lambda machine, key: None):
            ends(machine, origin)

    ends = Machine.end_session
    return patch.object(Machine, "end_session", end_session)


def waits_when_it_is_gone() -> Patch:
    """Who waits goes on doing so when its connection is closed."""

    def end_session(machine: Machine, origin: bytes) -> None:
        waiter = machine.waiters.of(origin)
        ends(machine, origin)
        if waiter is not None:
            machine.waiters.add(waiter)

    ends = Machine.end_session
    return patch.object(Machine, "end_session", end_session)


def life_is_shortened() -> Patch:
    """Who takes a lock again has it for as long as it said this time, and not for longer."""

    def prolong(machine: Machine, key: bytes, value: Holding, hold: Hold, px_ms: int | None) -> None:
        if px_ms is not None and hold.ends_ms is not None:
            hold_lives.reset(machine, key, value, hold, px_ms)
        else:
            prolongs(machine, key, value, hold, px_ms)

    prolongs = hold_lives.prolong
    return patch.object(hold_lives, "prolong", prolong)


# Deadlocks in a shard


def cycle_not_seen() -> Patch:
    """Nobody is refused who closes a cycle."""
    return patch.object(lock_deadlocks, "refuse_cycle", lambda machine, waiter, owner: None)


def cycle_of_two_who_wait() -> Patch:
    """Who waits for one that waits is taken for part of a cycle."""

    def hasty(owner: bytes, edges_of: Callable[[bytes], Iterable[Edge]]) -> list[Edge]:
        for edge in edges_of(owner):
            for behind in edges_of(edge.holder):
                return [edge, behind]
        return []

    return patch.object(lock_deadlocks, "find_cycle", hasty)


def first_is_the_victim() -> Patch:
    """Of those in a cycle the first to wait is failed."""
    return patch.object(lock_deadlocks, "max", min, create=True)


OF_LOCKS: tuple[Mutation, ...] = (
    Mutation(granted_while_held, ("one holder",)),
    Mutation(sharers_overtake, ("first come, first served",)),
    Mutation(upgrades_stand_in_line, ("upgrades first",), script=deadlocks.upgraded_first),
    Mutation(token_again, ("tokens grow",)),
    Mutation(places_without_limit, ("places are limited",)),
    Mutation(fenced_by_any_token, ("fenced",)),
    Mutation(forgotten_at_release, ("nobody waits for a free lock", "nobody waits for a free place")),
    Mutation(forgotten_behind_one_who_leaves, ("nobody waits for a free lock", "nobody waits for a free place")),
    Mutation(waits_when_it_is_gone, ("nothing for the dead",)),
    Mutation(life_is_shortened, ("a hold lives",), seed=2),
    Mutation(cycle_not_seen, ("every cycle is broken",)),
    Mutation(cycle_of_two_who_wait, ("no victim without a cycle",)),
    Mutation(first_is_the_victim, ("the last to wait is the victim",), script=deadlocks.closed_by_a_grant),
)
"""All of them."""
