"""Which nodes a shard is on, and which of them should lead it: a function of who is a member, and of nothing else.

Every node has a place on the ring, many times over (`ring.py`), every shard
has one, and a shard belongs on the nodes that come first clockwise of it. To
take just those would be uneven: with few shards, chance makes the fullest node
half as full again as the mean. So the nodes take turns:

- in its turn a node asks for the shard it is nearest to, in the next for the
  second nearest, and so on; within a round the nearest asks first;
- it gets the shard if that still lacks a replica, if none of the shard's
  nodes is in the same zone (with fewer zones than replicas: if that zone has
  not got more of them than its part), and if the node is not full: `ROOM`
  times its fair share.

A node's wishes do not depend on who else is a member, so the arrival of one
node takes from the others what it asked for sooner than they did, and little
else moves. Turns take the chance out of it: in the first few rounds all nodes
get nearly all they ask for, and later nearly nothing.

Its weak spot: a zone with few nodes must hold a replica of every shard when
there are just as many zones as replicas; these nodes are fuller than others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from math import ceil, floor
from typing import NamedTuple

from cluster.ring.leaders import leaders_of
from cluster.ring.ring import Ring, point_of

ROOM = Fraction(5, 4)
"""How much fuller than its fair share a node may become. Less moves more when nodes come and go; more is less even."""

Zone = tuple[str, str]
"""A zone's name, or the node that is alone in its own."""


class Placement(NamedTuple):
    """Where one shard should be; the ``preferred`` leader is the first of ``nodes``."""

    nodes: tuple[str, ...]
    preferred: str


def place(shards: int, replicas: int, nodes: Mapping[str, str]) -> list[Placement]:
    """The placement of each shard on ``nodes`` (name to zone, "" for a zone of its own); fewer replicas on fewer."""
    assert nodes
    zones = {node: (zone, "") if zone else ("", node) for node, zone in sorted(nodes.items())}
    draft = _Draft(shards, min(replicas, len(zones)), zones)
    for shard, node in _wishes(shards, zones):
        draft.ask(shard, node)
    draft.complete()
    return [
        Placement((leader, *(node for node in held if node != leader)), leader)
        for held, leader in zip(draft.held, leaders_of(draft.held), strict=True)
    ]


def _wishes(shards: int, nodes: Mapping[str, Zone]) -> list[tuple[int, str]]:
    """Every pair of a shard and a node, in the order in which the nodes ask."""
    ring = Ring(nodes)
    near: dict[str, list[tuple[int, int]]] = {node: [] for node in nodes}
    for shard in range(shards):
        for distance, node in ring.clockwise(point_of(f"shard {shard}")):
            near[node].append((distance, shard))
    turns = sorted(
        (turn, distance, shard, node)
        for node, asked in near.items()
        for turn, (distance, shard) in enumerate(sorted(asked))
    )
    return [(shard, node) for _, _, shard, node in turns]


class _Draft:
    """Who has what so far."""

    def __init__(self, shards: int, replicas: int, zones: Mapping[str, Zone]) -> None:
        self._zones = zones
        self._replicas = replicas
        sizes = Counter(zones.values())
        self._each, self._some = _spread(replicas, sizes)
        shares = _fair_shares(shards, replicas, self._each, sizes)
        self._room = {node: max(ceil(shares[zone]), floor(ROOM * shares[zone])) for node, zone in zones.items()}
        self._load = dict.fromkeys(zones, 0)
        self.held: list[list[str]] = [[] for _ in range(shards)]

    def ask(self, shard: int, node: str) -> None:
        """A node asks for a shard."""
        if len(self.held[shard]) < self._replicas and self._has_room(node) and self._fits(shard, node):
            self._take(shard, node)

    def complete(self) -> None:
        """Shards that all who may have them were too full for: one of these hands another shard on to make room.

        Where nobody can, the least full takes it nevertheless.
        """
        for shard, held in enumerate(self.held):
            while len(held) < self._replicas:
                free = [node for node in self._zones if node not in held and self._fits(shard, node)]
                free.sort(key=self._fullness)
                taker = next((node for node in free if self._has_room(node) or self._hands_on(node)), free[0])
                self._take(shard, taker)

    def _has_room(self, node: str) -> bool:
        return self._load[node] < self._room[node]

    def _hands_on(self, node: str) -> bool:
        """Whether a node could give one of its shards to another that has room for it."""
        for shard, held in enumerate(self.held):
            if node in held:
                place = held.index(node)
                del held[place]
                free = [one for one in self._zones if one not in (*held, node) and self._fits(shard, one)]
                taker = next((one for one in free if self._has_room(one)), None)
                if taker is not None:
                    self._load[node] -= 1
                    self._take(shard, taker)
                    return True
                held.insert(place, node)
        return False

    def _fullness(self, node: str) -> tuple[Fraction, str]:
        return Fraction(self._load[node], self._room[node]), node

    def _fits(self, shard: int, node: str) -> bool:
        """Whether the node's zone may hold one more replica of the shard."""
        used = Counter(self._zones[other] for other in self.held[shard])
        mine = used[self._zones[node]]
        return mine < self._each or (mine == self._each and sum(n > self._each for n in used.values()) < self._some)

    def _take(self, shard: int, node: str) -> None:
        self.held[shard].append(node)
        self._load[node] += 1


def _spread(replicas: int, sizes: Mapping[Zone, int]) -> tuple[int, int]:
    """A shard's replicas over zones: so many in each that has the nodes, and one more in some: in how many.

    With enough zones that is 0, and ``replicas``.
    """
    each = 0
    while sum(min(size, each + 1) for size in sizes.values()) < replicas:
        each += 1
    return each, replicas - sum(min(size, each) for size in sizes.values())


def _fair_shares(shards: int, replicas: int, each: int, sizes: Mapping[Zone, int]) -> dict[Zone, Fraction]:
    """Replicas for a node of each zone: the same for all, but for what `_spread` demands of and allows to a zone."""
    least = {zone: Fraction(min(size, each) * shards, size) for zone, size in sizes.items()}
    most = {zone: Fraction(min(size, each + 1) * shards, size) for zone, size in sizes.items()}

    def shares(level: Fraction) -> dict[Zone, Fraction]:
        return {zone: min(max(level, least[zone]), most[zone]) for zone in sizes}

    def total(level: Fraction) -> Fraction:
        return sum((share * sizes[zone] for zone, share in shares(level).items()), Fraction())

    # The total grows with the level, in straight lines between these.
    bends = sorted({*least.values(), *most.values()})
    wanted = shards * replicas
    above = next(place for place, level in enumerate(bends) if total(level) >= wanted)
    low, high = bends[above - 1], bends[above]
    return shares(low + (wanted - total(low)) * (high - low) / (total(high) - total(low)))
