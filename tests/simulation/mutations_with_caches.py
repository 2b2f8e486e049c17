"""Planted bugs in caches and in the loading of keys, looked for among whole nodes: see mutations.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from cluster.cache.controller import Controller
from cluster.cache.directory import Directory
from cluster.cache.office import Office
from cluster.coherence import Coherence
from cluster.machine import loading
from cluster.machine.machine import Machine
from cluster.machine.reply import Reply
from cluster.node import Node
from resp_server.commands import cache as of_cache
from resp_server.places import Place
from tests.simulation import cache_scripts as scripts
from tests.simulation import mutations_of_caches as of_caches
from tests.simulation.mutation import SLOW, Mutation, Patch


def lines_outlive_terms() -> Patch:
    """Lines stay good where another leads, until the lease of the former leader is over."""
    follow = Controller._follow

    def keeps(cache: Controller, office: Office) -> None:
        until_ms = office.until_ms
        kept = {key: cache.lines.get(key) for key in cache.lines.of(office)}
        term = office.term
        follow(cache, office)
        if term and office.term != term:
            office.until_ms = max(until_ms, cache.now_ms + 500)
            for key, line in kept.items():
                if line is not None:
                    cache.lines.add(key, line)
                    line.state = type(line.state)("S")

    return patch.object(Controller, "_follow", keeps)


def lines_outlive_keys() -> Patch:
    """A line is good although its key's life in it is over."""
    return patch.object(Controller, "_lasts", lambda cache, line: True)


def a_leader_trusts_its_own_lines() -> Patch:
    """A leader takes its lines to be good although it is not certain to lead any more."""

    def sure_until(coherence: Coherence, number: int, term: int) -> float:
        raft = coherence._node.shards[number].raft
        return float("inf") if raft.leading is not None and raft.term == term else 0.0

    return patch.object(Coherence, "_sure_until", sure_until)


@contextmanager
def a_turn_has_one_time() -> Iterator[None]:
    """Who asked late in a turn is answered under leases that stood when it began."""
    with (
        patch.object(Node, "pass_time", lambda node, monotonic_ms: None),
        patch("tests.simulation.process.PAUSE_MS", float("inf")),
    ):
        yield


# Many keys at once


def what_was_read_of_many_is_not_doubted() -> Patch:
    """What lines had of several keys goes out with the rest, though a lease ran out in the turn that read it."""
    return patch.object(Place, "partly_read", property(lambda place: False, lambda place, partly_read: None))


def a_cleared_line_is_left_to_its_owner() -> Patch:
    """FLUSHALL leaves the line alone that was granted last."""
    return patch.object(Directory, "_all", lambda directory: list(directory._lines)[:-1])


def wants_overlook_clearing() -> Patch:
    """A line may be granted as it was before a FLUSHALL that is in the log already."""
    return patch.object(Directory, "_all", lambda directory: list(directory._lines))


def the_log_clears_all_but_one() -> Patch:
    """A node that has a FLUSHALL in its log goes on reading one of its lines."""

    def overwrite_some(cache: Controller, number: int, index: int) -> None:
        for key in cache.lines.of(cache.offices[number])[1:]:
            cache.overwrite(number, key, index)

    return patch.object(Controller, "overwrite_all", overwrite_some)


def many_change_places() -> Patch:
    """CACHE.MGET gives the values in whatever order they come."""
    return patch.object(of_cache, "_first_error", lambda replies: sorted(replies, key=lambda value: value or b""))


# One loads, the others wait


def everybody_loads() -> Patch:
    """Who misses a key gets a token although somebody has one."""
    value_or_token = loading._value_or_token

    def freely(machine: Machine, key: bytes, life_ms: int) -> Reply:
        if key not in machine.keyspace.values and key in machine.loaders:
            loading.end(machine, key)
        return value_or_token(machine, key, life_ms)

    return patch.object(loading, "_value_or_token", freely)


def tokens_outlive_writes() -> Patch:
    """A token counts although its key was written since."""
    settle = Machine.settle

    def spares(machine: Machine) -> None:
        with patch.object(loading, "end", lambda machine, key: machine.signal(key)):
            settle(machine)

    return patch.object(Machine, "settle", spares)


def nobody_loads_for_the_dead() -> Patch:
    """When a token is over nobody who waits gets the next."""
    end = loading.end

    def silently(machine: Machine, key: bytes) -> None:
        signal: Any = Machine.signal
        with patch.object(Machine, "signal", signal if key in machine.keyspace.values else lambda machine, key: None):
            end(machine, key)

    return patch.object(loading, "end", silently)


ONE_ORDER = ("linearizability", "an owner is alone")

WITH_CACHES: tuple[Mutation, ...] = (
    Mutation(of_caches.granted_before_written_back, ONE_ORDER, SLOW, caches=True, steps=6000),
    Mutation(of_caches.no_census, ONE_ORDER, script=scripts.written_at_another),
    Mutation(of_caches.leases_from_when_they_come, ONE_ORDER, script=scripts.renewed_late),
    Mutation(of_caches.writes_pass_the_gate, ONE_ORDER, script=scripts.holder_cut_off),
    Mutation(of_caches.reads_pass_the_gate, ONE_ORDER, caches=True, steps=6000),
    Mutation(of_caches.the_closed_are_renewed, ONE_ORDER, script=scripts.closed_and_back, seed=2),
    Mutation(of_caches.closed_in_its_lease, ONE_ORDER, script=scripts.holder_cut_off),
    Mutation(a_leader_trusts_its_own_lines, ONE_ORDER, script=scripts.lines_of_a_former_leader),
    Mutation(a_turn_has_one_time, ONE_ORDER, script=scripts.asked_late),
    Mutation(lines_outlive_terms, (*ONE_ORDER, "progress"), script=scripts.handed_over),
    Mutation(lines_outlive_keys, ONE_ORDER, script=scripts.outlived),
    Mutation(a_cleared_line_is_left_to_its_owner, (*ONE_ORDER, "progress"), script=scripts.cleared_while_owned),
    Mutation(wants_overlook_clearing, (*ONE_ORDER, "progress"), script=scripts.asked_for_while_cleared),
    Mutation(the_log_clears_all_but_one, (*ONE_ORDER, "progress"), script=scripts.cleared_while_shared),
    Mutation(what_was_read_of_many_is_not_doubted, ONE_ORDER, script=scripts.several_asked_late),
    Mutation(many_change_places, ONE_ORDER, script=scripts.read_together),
    Mutation(everybody_loads, ("one loads",), script=scripts.two_miss),
    Mutation(tokens_outlive_writes, ONE_ORDER, script=scripts.written_while_loaded),
    Mutation(nobody_loads_for_the_dead, ("somebody loads",), script=scripts.loader_leaves),
)
"""All of them."""
