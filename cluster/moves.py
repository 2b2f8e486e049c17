"""Which shard this node moves next, if it leads any: towards what the ring says, one small step at a time.

There is no coordinator. The leader of each shard compares its own configuration
with the ring's target, which is the same on every node, and takes one step of
an ordinary membership change (ring/rebalance.py says which). Whoever leads the
shard after it goes on from there. What is decided is reported to the system
group, so that everybody knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster import atlas as system_state
from cluster.atlas import LOST, UP, Marks, Place
from cluster.raft.membership import Config, Member
from cluster.raft.progress import State
from cluster.ring.placement import Placement, place
from cluster.ring.rebalance import Add, Remove, Transfer, View, eligible, next_step

if TYPE_CHECKING:
    from cluster.node import Node
    from cluster.shard import Shard

REPORT_AGAIN_MS = 2_000.0
"""A report that nobody seems to have heard is repeated after so long."""

ARRIVING_MAX = 2
"""How many shards may be on their way to one node at a time."""

CHOSEN_MS = 600_000.0
"""How long a leader that was chosen by hand (CLUSTER FAILOVER) is not asked to hand over to the preferred one."""

STEADY_MS = 2_000.0
"""How long a shard has one leader before that moves it, or hands over to the preferred one."""


class Moves:
    """One node's part in moving shards."""

    def __init__(self, node: Node, node_timeout_ms: float) -> None:
        self._node = node
        self._node_timeout_ms = node_timeout_ms
        self._targets: list[Placement] = []
        self._targets_for: tuple[Config, Marks] | None = None
        self._reported: dict[int, tuple[int, float]] = {}  # by shard: the index reported, and when
        self._arriving: dict[str, int] = {}  # how many shards are on their way to each node
        self._leading_since: dict[int, tuple[int, float]] = {}  # by shard: the term, and since when

    def targets(self) -> list[Placement]:
        """Where every shard should be, as far as this node knows who is there; empty while it knows nobody."""
        node = self._node
        key = (node.members, node.atlas.marks)
        if self._targets_for is None or self._targets_for[0] is not key[0] or self._targets_for[1] != key[1]:
            self._targets_for = key
            zones = {one.id: one.zone for one in node.members.members.values()}
            marks = node.atlas.marks
            there = eligible(zones, marks.leaving, marks.lost, node.identity.replicas) if zones else {}
            self._targets = place(len(node.shards), node.identity.replicas, there) if there else []
            for shard, target in zip(node.shards, self._targets, strict=False):
                shard.raft.rank = _rank(target, node.name)
        return self._targets

    def look(self) -> None:
        """Once in a while: reports, marks, and one step for each shard led here that is not where it should be."""
        node = self._node
        leading = node.system.raft.leading
        if leading is not None and leading.settled:
            self._mark()
        targets = self.targets()
        self._arriving = self._arrivals()
        for shard in node.shards:
            since_ms = self._steady(shard)
            if since_ms is None:
                place_reported = node.atlas.place(shard.number)
                shard.reported_voters = place_reported.voters
                if shard.gave_up(place_reported, node.monotonic_ms):
                    node.give_up(shard.number)
                continue
            self._report(shard)
            if targets and not node.atlas.paused and node.monotonic_ms - since_ms >= STEADY_MS:
                self._step(shard, targets[shard.number])

    def _steady(self, shard: Shard) -> float | None:
        """Since when this node leads the shard; None while it does not, or has not carried out all it may have."""
        raft = shard.raft
        if raft.leading is None or not raft.leading.settled:
            self._leading_since.pop(shard.number, None)
            return None
        term, since_ms = self._leading_since.get(shard.number, (0, 0.0))
        if term != raft.term:
            since_ms = self._node.monotonic_ms
            self._leading_since[shard.number] = (raft.term, since_ms)
        return since_ms

    def _report(self, shard: Shard) -> None:
        """Tells the system group where the shard is, until it knows."""
        node, raft = self._node, shard.raft
        index = raft.membership.since
        if raft.applied < index or node.atlas.place(shard.number).index >= index:
            return
        reported, at_ms = self._reported.get(shard.number, (-1, 0.0))
        if reported == index and node.monotonic_ms - at_ms < REPORT_AGAIN_MS:
            return
        self._reported[shard.number] = (index, node.monotonic_ms)
        node.stir(node.system)
        found = Place(index, raft.config.voters, raft.config.learners)
        node.system.clients.owe(system_state.placed(node.system.machine, shard.number, found))

    def _mark(self) -> None:
        """Of the system group's leader: says who was silent for too long, and who is back or gone."""
        node, atlas = self._node, self._node.atlas
        machine, now_ms = node.system.machine, node.monotonic_ms
        since_ms = self._steady(node.system)
        assert since_ms is not None
        found = []
        for peer in node.members.others(node.name):
            silent_ms = now_ms - max(node.contacts.heard_ms(peer) or 0.0, since_ms)
            if silent_ms >= self._node_timeout_ms and peer not in (*atlas.marks.lost, *atlas.marks.leaving):
                found.append((peer, LOST))
        found += [(peer, UP) for peer in atlas.marks.lost if node.reachable(peer)]
        found += [(peer, UP) for peer in (*atlas.marks.lost, *atlas.marks.leaving) if peer not in node.members]
        if found:
            node.stir(node.system)
        for peer, mark in found:
            node.system.clients.owe(system_state.marked(machine, peer, mark))

    def _step(self, shard: Shard, target: Placement) -> None:
        node, raft = self._node, shard.raft
        leading = raft.leading
        assert leading is not None
        config = raft.config
        if not config.learners and node.name == target.preferred and set(config.voters) == set(target.nodes):
            return  # as nearly always
        chosen = shard.chosen_ms is not None and node.monotonic_ms - shard.chosen_ms < CHOSEN_MS
        step = next_step(
            View(
                name=node.name,
                voters=config.voters,
                learners=config.learners,
                target=target.nodes,
                preferred="" if chosen else target.preferred,
                reachable=frozenset(one for one in node.members.members if node.reachable(one)),
                caught_up=frozenset(peer for peer in config.voters if self._caught_up(shard, peer)),
                may_change=leading.may_change() and leading.successor is None,
                arriving={peer: self._arriving.get(peer, 0) - (peer in config.learners) for peer in target.nodes},
                arriving_max=ARRIVING_MAX,
            )
        )
        if step is None:
            return
        node.stir(shard)
        match step:
            case Add(peer) if leading.may_add(peer):
                leading.change(config.with_learner(Member(peer, "")))
                self._arriving[peer] = self._arriving.get(peer, 0) + 1
            case Add():
                raft.renew()
            case Remove(peer):
                leading.change(config.without(peer))
            case Transfer(peer):
                leading.hand_over(peer)

    def _caught_up(self, shard: Shard, peer: str) -> bool:
        raft = shard.raft
        if raft.leading is None or peer == raft.name:
            return peer == raft.name
        progress = raft.leading.progress.get(peer)
        return progress is not None and progress.state is State.REPLICATE and progress.match >= raft.commit

    def _arrivals(self) -> dict[str, int]:
        """How many shards are on their way to each node: those led here as they are, the others as reported."""
        learners = {number: place.learners for number, place in self._node.atlas.places.items() if place.learners}
        for shard in self._node.shards:
            if shard.raft.leading is not None:
                learners[shard.number] = shard.raft.config.learners
        found: dict[str, int] = {}
        for nodes in learners.values():
            for peer in nodes:
                found[peer] = found.get(peer, 0) + 1
        return found


def _rank(target: Placement, node: str) -> int:
    """How soon a node should stand for election: the preferred one first, the others in the order of the ring."""
    order = (target.preferred, *(one for one in target.nodes if one != target.preferred))
    return order.index(node) if node in order else len(order)
