"""The cluster as the clients of a Redis Cluster see it, made of what a node knows of the ring.

There every node is a master of slots or the replica of one master. Here a node
has replicas of many shards and leads some of them: it is shown as a master of
all it leads, or, while it leads nothing, as a replica of whoever leads the
first of its shards. Where the slots are is told shard by shard, with each
shard's own replicas.

A shard whose leader is not known (it is being elected) is shown at the node
that is most likely to answer for it: every node takes every command, so a
client that goes there is served as soon as there is a leader, while a slot
without an owner would make it give up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cluster.status import PeerStatus, RingRow, Status
from resp_server import address
from resp_server.address import Address

if TYPE_CHECKING:
    from resp_server.server import Server

NOWHERE = "127.0.0.1"
"""The host of a node that nothing is known of, asked over a Unix socket."""


class Place(NamedTuple):
    """One node; ``peer`` is None for the node that is asked. Nodes are sorted by ``name``."""

    name: str
    hex: bytes
    address: Address
    peer: PeerStatus | None

    @property
    def failed(self) -> bool:
        """Whether the node that is asked does not hear it."""
        return self.peer is not None and not self.peer.reachable


class Range(NamedTuple):
    """The slots of one shard, and who has them.

    ``led``: the master is known to lead it. ``master`` is None where no node is known to have it;
    ``learners`` are being brought up to date.
    """

    shard: int
    first: int
    last: int
    led: bool
    master: Place | None
    replicas: tuple[Place, ...]
    learners: tuple[Place, ...]


class Topology:
    """All nodes and all slots, as one node knows them at one moment."""

    def __init__(self, status: Status, ring: Iterable[RingRow], own: Address) -> None:
        """``own`` is where the node that is asked is reached, for as long as the cluster does not know it."""
        here = address.parse(status.address) if status.address else own
        told: dict[str, tuple[Address, PeerStatus | None]] = {status.node: (here, None)}
        told |= {peer.id: (address.parse(peer.address), peer) for peer in status.peers}
        cluster = status.cluster
        self.places = {name: Place(name, hex_id(cluster, name), *told[name]) for name in sorted(told)}
        self.ranges = [self._range(row) for row in ring]

    def _range(self, row: RingRow) -> Range:
        places = [self.places[node] for node in row.nodes if node in self.places]
        master = self.places.get(row.leader) if row.leader is not None else None
        led = master is not None
        if master is None:
            likely = sorted(places, key=lambda place: (place.failed, place.name != row.preferred))
            master = likely[0] if likely else None
        replicas = tuple(one for one in places if one is not master)
        learners = tuple(self.places[one] for one in row.moving if one not in row.nodes and one in self.places)
        return Range(row.shard, row.first, row.last, led, master, replicas, learners)

    def slots_of(self, place: Place) -> list[tuple[int, int]]:
        """The slots a node is the master of; those that follow each other are one range."""
        return joined((one.first, one.last) for one in self.ranges if one.master is place)

    def master_of(self, place: Place) -> Place | None:
        """Whose replica a node that is no master is; None when it has no replica of anything."""
        return next((one.master for one in self.ranges if place in one.replicas), None)

    @property
    def masters(self) -> int:
        """How many nodes are masters of slots."""
        return len({one.master.name for one in self.ranges if one.master is not None})

    def find(self, named: bytes) -> Place | None:
        """The node of an id: its name, or the one it has here."""
        return next((one for one in self.places.values() if named in (one.hex, one.name.encode())), None)


def clustered(server: Server) -> bool:
    """Whether clients are told that this is a cluster: there is more than one shard to choose from."""
    return len(server.node.shards) > 1


def hex_id(cluster: str, node: str) -> bytes:
    """A node's id in the form Redis gives to its own: 40 hexadecimal digits, the same on every node and for ever."""
    return hashlib.sha1(f"{cluster} {node}".encode(), usedforsecurity=False).hexdigest().encode()


def joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges in their order, with those that follow each other without a gap made one."""
    found: list[tuple[int, int]] = []
    for first, last in ranges:
        if found and found[-1][1] + 1 == first:
            first = found.pop()[0]
        found.append((first, last))
    return found


def count(ranges: Sequence[tuple[int, int]]) -> int:
    """How many slots there are in ranges."""
    return sum(last - first + 1 for first, last in ranges)
