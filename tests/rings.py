"""Clusters of many shards: what RAFT.RING says of them, and what the ring wants them to come to."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from cluster.ring.placement import place
from cluster.ring.slots import slot_of
from tests.clusters import UNHURRIED, Cluster, Node, new_cluster

REPLICAS = 3
SETTLE_SECONDS = 120.0  # shards move one after the other, on a machine that may be busy


@dataclass(frozen=True, slots=True)
class Row:
    """One shard: its slots, the nodes that vote in it, and those that come or go."""

    shard: int
    first: int
    last: int
    nodes: tuple[str, ...]
    leader: str | None
    preferred: str | None
    moving: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ring:
    """Every shard, as one node knows it."""

    rows: tuple[Row, ...]

    @classmethod
    def read(cls, reply: Sequence[Mapping[str, Any]]) -> Ring:
        """The reply of RAFT.RING; each shard must have one range of slots, and all of them every slot once."""
        rows = []
        for one in reply:
            [[first, last]] = one["slots"]
            rows.append(
                Row(
                    one["shard"], first, last, tuple(one["nodes"]),
                    one["leader"], one["preferred"], tuple(one["moving"]),
                )
            )  # fmt: skip
        rows.sort(key=lambda row: row.first)
        ends = [-1, *(row.last for row in rows)]
        assert [row.first for row in rows] == [end + 1 for end in ends[:-1]], rows
        assert ends[-1] == 16383, rows
        return cls(tuple(rows))

    def of(self, key: str | bytes) -> Row:
        """The shard a key is in."""
        slot = slot_of(key.encode() if isinstance(key, str) else key)
        return next(row for row in self.rows if row.first <= slot <= row.last)

    def replicas(self) -> Counter[str]:
        """How many shards each node has a replica of."""
        return Counter(node for row in self.rows for node in row.nodes)

    def leaders(self) -> Counter[str]:
        """How many shards each node leads."""
        return Counter(row.leader for row in self.rows if row.leader is not None)

    def arrived(self, before: Ring) -> int:
        """How many replicas are where there was none of their shard before."""
        return sum(len({*now.nodes} - {*then.nodes}) for now, then in zip(self.rows, before.rows, strict=True))

    def key_in(self, shard: int, prefix: str) -> str:
        """A key of this shard."""
        return next(key for number in count() if self.of(key := f"{prefix}:{number}").shard == shard)

    def key_led_by(self, node: Node, prefix: str) -> str:
        """A key whose shard this node leads."""
        return next(key for number in count() if self.of(key := f"{prefix}:{number}").leader == node.name)

    def key_away_from(self, node: Node, prefix: str) -> str:
        """A key of a shard this node has no replica of."""
        return next(key for number in count() if node.name not in self.of(key := f"{prefix}:{number}").nodes)


def ring_of(node: Node) -> Ring:
    """What a node says; raises `OSError` when it does not answer."""
    return Ring.read(node.ask("RAFT.RING"))


def all_are_led(cluster: Cluster) -> bool:
    """Whether a node that serves leads every shard, as every one of them sees it."""
    serving = cluster.serving
    names = {node.name for node in serving}
    with contextlib.suppress(OSError):
        return all(row.leader in names for node in serving for row in ring_of(node).rows)
    return False


def reached(ring: Ring, zones: Mapping[str, str], replicas: int, *, leaders: bool) -> bool:
    """Whether every shard is led, and on the nodes where it should be (with ``leaders``: led by the right one)."""
    wanted = place(len(ring.rows), replicas, zones)
    return all(
        {*row.nodes} == {*placement.nodes}
        and not row.moving
        and row.leader is not None
        and (not leaders or row.leader == placement.preferred)
        for row, placement in zip(ring.rows, wanted, strict=True)
    )


def wait_for_ring(
    cluster: Cluster,
    nodes: Iterable[Node] | None = None,
    *,
    replicas: int = REPLICAS,
    zones: Mapping[str, str] | None = None,
    leaders: bool = False,
) -> Ring:
    """Returns once all these nodes (all that serve) say that all shards are where these nodes make them belong."""
    members = cluster.serving if nodes is None else list(nodes)
    wanted = {node.name: (zones or {}).get(node.name, "") for node in members}
    found: list[Ring] = []

    def settled() -> bool:
        found.clear()
        with contextlib.suppress(OSError):
            found.extend(ring_of(node) for node in members)
        return len(found) == len(members) and all(
            reached(one, wanted, replicas, leaders=leaders) and one == found[0] for one in found
        )

    cluster.wait_until(settled, SETTLE_SECONDS)
    return found[0]


@contextmanager
def running_ring(
    folder: Path, size: int, *flags: str, shards: int = 8, replicas: int = REPLICAS, zones: Sequence[str] = ()
) -> Iterator[Cluster]:
    """A cluster of many shards, started, each shard where it belongs and led; links are direct."""
    shape = ("--shards", str(shards), "--replicas", str(replicas))
    with new_cluster(folder, size, *UNHURRIED, *flags, shape=shape, zones=zones, direct=True) as cluster:
        cluster.start()
        named = dict(zip(cluster.nodes, zones, strict=True)) if zones else None
        wait_for_ring(cluster, replicas=replicas, zones=named, leaders=True)
        yield cluster
