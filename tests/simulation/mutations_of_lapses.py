"""Planted bugs in what becomes of sessions whose node is silent: see mutations.py."""

from __future__ import annotations

from unittest.mock import patch

from cluster.credit import Credit
from cluster.node import Node
from cluster.raft.messages import Presence
from cluster.silence import Office, Silence
from resp_server.lapses import Lapses
from resp_server.session import Session
from tests.simulation import lapses
from tests.simulation.mutation import Mutation, Patch


def ended_too_early() -> Patch:
    """A leader does not wait for as long as it should."""
    new = Silence.__init__

    def hasty(silence: Silence, node: Node, timeout_ms: float) -> None:
        new(silence, node, timeout_ms * 0.7)

    return patch.object(Silence, "__init__", hasty)


def never_closed() -> Patch:
    """A node that is cut off keeps its clients."""
    look = Lapses.look

    def keeps(lapses: Lapses, now_ms: float) -> list[Session]:
        look(lapses, now_ms)
        return []

    return patch.object(Lapses, "look", keeps)


def closed_too_late() -> Patch:
    """A node counts from when it heard a leader, whether that one hears it or not."""
    hear = Credit.hear

    def counts_from_now(credit: Credit, peer: str, message: Presence, now_ms: float) -> None:
        hear(credit, peer, message, now_ms)
        for number, _ in message.leads:
            credit.note(number, now_ms)

    return patch.object(Credit, "hear", counts_from_now)


def silence_is_inherited() -> Patch:
    """A new leader counts from when it last heard of a node, though the one before may have heard of it since."""
    new = Office.__init__

    def init(office: Office, term: int, since_ms: float) -> None:
        new(office, term, 0.0)

    return patch.object(Office, "__init__", init)


def the_dead_are_forgotten() -> Patch:
    """No session is ended for its node's silence."""
    return patch.object(Silence, "look", lambda silence: None)


TOLD = ("told before it ends",)

OF_LAPSES: tuple[Mutation, ...] = (
    Mutation(ended_too_early, TOLD, script=lapses.cut_off),
    Mutation(never_closed, TOLD, script=lapses.cut_off),
    Mutation(closed_too_late, TOLD, script=lapses.unheard),
    Mutation(silence_is_inherited, TOLD, script=lapses.heard_by_one),
    Mutation(the_dead_are_forgotten, ("progress",), script=lapses.dead),
)
"""All of them."""
