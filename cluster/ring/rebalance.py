"""How a shard gets to where the ring wants it: one small step at a time, each chosen afresh by whoever leads it.

There is no plan and no coordinator. The leader of a shard compares the
configuration it has with its target (`placement.py`), takes one step, and when
that is committed looks again. It may die at any moment: the next leader sees
the same and goes on. A target that changes half way is as good as any other.

    missing node ──Add──▶ learner ──(Raft, once it has caught up)──▶ voter
    surplus voter ──(Transfer, if it leads)──Remove──▶ gone

- One voter comes, then one goes: a shard has its number of replicas at least,
  and one more at most, however many of them change (more only if those that
  are surplus cannot go yet).
- A surplus voter goes only if those that stay can serve without it: a majority
  of them is in touch and has caught up. One that is out of touch goes first.
- A target node that is out of touch is waited for. Once it is lost for good it
  is no longer in the target: see `eligible`.
- Nobody is removed by itself: a leader that is surplus hands over first.
- Leadership goes to the preferred node when nothing of this shard is moving.

Raft must allow one voter more than there are replicas, or nobody is promoted.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Add:
    """The node becomes a learner."""

    node: str


@dataclass(frozen=True, slots=True)
class Remove:
    """The node is a member no longer."""

    node: str


@dataclass(frozen=True, slots=True)
class Transfer:
    """The node, a voter, becomes leader."""

    node: str


Step = Add | Remove | Transfer


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A shard as its leader sees it.

    ``name`` is the leader. ``reachable`` and ``caught_up`` say who is in touch and which voters have nearly the whole
    log; the leader need be in neither. ``preferred`` is "" when nobody is (for a while, after a leader was chosen by
    hand). ``arriving`` counts, for each node, the other shards it is a learner of, and more than ``arriving_max`` at
    once are not begun.
    """

    name: str
    voters: tuple[str, ...]
    learners: tuple[str, ...]
    target: tuple[str, ...]
    preferred: str
    reachable: Container[str]
    caught_up: Container[str]
    may_change: bool
    arriving: Mapping[str, int]
    arriving_max: int

    def ready(self, node: str) -> bool:
        """Whether a voter does its part."""
        return node == self.name or (node in self.reachable and node in self.caught_up)


def next_step(view: View) -> Step | None:
    """The next step towards the target; None when there is none, or it has to be waited for."""
    if not view.may_change or view.name not in view.voters or not view.target:
        return None
    return _drop_learner(view) or _remove(view) or _add(view) or _hand_over(view)


def _drop_learner(view: View) -> Step | None:
    """A learner nobody wants has no vote: it can go at once."""
    return next((Remove(node) for node in view.learners if node not in view.target), None)


def _remove(view: View) -> Step | None:
    """A surplus voter, when there is one more than it takes."""
    if len(view.voters) <= len(view.target):
        return None
    surplus = [node for node in view.voters if node not in view.target and node != view.name]
    surplus.sort(key=lambda node: (node in view.reachable, node in view.caught_up))  # those of least use first
    return next((Remove(node) for node in surplus if _serves_without(view, node)), None)


def _serves_without(view: View, node: str) -> bool:
    staying = [voter for voter in view.voters if voter != node]
    return sum(map(view.ready, staying)) > len(staying) // 2


def _add(view: View) -> Step | None:
    """A target node that can be had, unless one is catching up already."""
    if _catching_up(view):
        return None
    missing = [node for node in view.target if node not in view.voters and node not in view.learners]
    return next((Add(node) for node in missing if _can_be_had(view, node)), None)


def _can_be_had(view: View, node: str) -> bool:
    return node in view.reachable and view.arriving.get(node, 0) < view.arriving_max


def _catching_up(view: View) -> bool:
    return any(node in view.reachable for node in view.learners)


def _hand_over(view: View) -> Step | None:
    """To the preferred node; a leader that is to be removed, to any that stays."""
    if _catching_up(view) or view.name == view.preferred:
        return None
    wanted = [view.preferred]
    if view.name not in view.target and len(view.voters) > len(view.target):
        wanted += view.target
    return next((Transfer(node) for node in wanted if node in view.voters and view.ready(node)), None)


def eligible(
    members: Mapping[str, str], leaving: Container[str], lost: Container[str], replicas: int
) -> dict[str, str]:
    """The members (name to zone) that shards may be placed on.

    Not those that leave, nor those that are lost: but of these as many as it takes to have ``replicas`` nodes, for a
    replica that may come back is better than one fewer.
    """
    staying = {node: zone for node, zone in sorted(members.items()) if node not in leaving}
    found = {node: zone for node, zone in staying.items() if node not in lost}
    spare = [node for node in staying if node in lost][: max(replicas - len(found), 0)]
    found |= {node: staying[node] for node in spare}
    return found or dict(members)
