"""What a node tells of itself, of the others and of the shards, for people and for metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cluster.raft.membership import Member
from cluster.ring.slots import ranges

if TYPE_CHECKING:
    from cluster.node import Node
    from cluster.shard import Shard


class PeerStatus(NamedTuple):
    """Another node, as this one sees it.

    ``role`` is its part in the system group: leader, follower or learner.
    ``reachable``: it was heard within two election timeouts. ``last_contact_ms``
    is how long ago that was (None: never), ``round_trip_us`` of the last answer.
    It leads ``leading`` shards and has a replica of ``replicas``. ``state`` is
    up, leaving or lost.
    """

    id: str
    address: str
    zone: str
    role: str
    reachable: bool
    last_contact_ms: int | None
    round_trip_us: int | None
    leading: int
    replicas: int
    state: str


class ShardStatus(NamedTuple):
    """A shard this node has a replica of: ``role`` is leader, follower, candidate or learner.

    ``matches`` is the last log index known to be durable on each member.
    """

    shard: int
    leader: str | None
    role: str
    term: int
    commit: int
    applied: int
    last_index: int
    voters: tuple[str, ...]
    learners: tuple[str, ...]
    matches: dict[str, int]


class RingRow(NamedTuple):
    """One shard, wherever it is: its slots, the nodes it is on, who leads and who should, and who is on the move.

    ``moving`` are nodes that are to get a replica or are getting one, and those that are to give theirs up.
    """

    shard: int
    first: int
    last: int
    nodes: tuple[str, ...]
    leader: str | None
    preferred: str | None
    moving: tuple[str, ...]


class Status(NamedTuple):
    """The node; ``leader`` and ``term`` are the system group's, ``voters`` and ``learners`` its members.

    ``left`` says that the node was a member and is none any more.
    """

    node: str
    cluster: str
    address: str
    zone: str
    state: str
    leader: str | None
    term: int
    voters: tuple[str, ...]
    learners: tuple[str, ...]
    leading: int
    replicas: int
    left: bool
    paused: bool
    shards: tuple[ShardStatus, ...]
    peers: tuple[PeerStatus, ...]


def status_of(node: Node) -> Status:
    """Everything a person may want to know of the cluster, as this node sees it."""
    config, raft, marks = node.members, node.system.raft, node.atlas.marks
    led, held = _counts(node)
    me = config.members.get(node.name, Member(node.name, node.address, "", node.zone))
    return Status(
        node.name,
        node.identity.cluster,
        me.address or node.address,
        me.zone,
        marks.state_of(node.name),
        node.system.leader,
        raft.term,
        config.voters,
        config.learners,
        led.get(node.name, 0),
        held.get(node.name, 0),
        raft.membership.left(node.name),
        node.atlas.paused,
        tuple(_shard(shard) for shard in node.shards if shard.member),
        tuple(_peer(node, config.members[peer], led, held) for peer in sorted(config.others(node.name))),
    )


def ring_of(node: Node) -> tuple[RingRow, ...]:
    """Where every shard is, and is to be, as far as this node knows."""
    targets = node.targets()
    rows = []
    for shard, (first, last) in zip(node.shards, ranges(len(node.shards)), strict=True):
        config = shard.raft.config
        known = node.atlas.place(shard.number)
        reported = not shard.here and known.voters
        voters, learners = (known.voters, known.learners) if reported else (config.voters, config.learners)
        target = targets[shard.number] if targets else None
        wanted = target.nodes if target is not None else voters
        moving = [*learners]
        moving += [one for one in wanted if one not in voters and one not in learners]
        moving += [one for one in voters if one not in wanted]
        preferred = target.preferred if target is not None else None
        rows.append(RingRow(shard.number, first, last, voters, shard.leader, preferred, tuple(moving)))
    return tuple(rows)


def _counts(node: Node) -> tuple[dict[str, int], dict[str, int]]:
    """How many shards each node leads, and has a part in."""
    led: dict[str, int] = {}
    held: dict[str, int] = {}
    for shard in node.shards:
        leader = shard.leader
        if leader is not None:
            led[leader] = led.get(leader, 0) + 1
        for one in node.nodes_of(shard.number):
            held[one] = held.get(one, 0) + 1
    return led, held


def _peer(node: Node, member: Member, led: dict[str, int], held: dict[str, int]) -> PeerStatus:
    peer = member.id
    silent_ms = node.contacts.silent_ms(peer, node.monotonic_ms)
    role = "leader" if peer == node.system.leader else "follower" if peer in node.members.voters else "learner"
    return PeerStatus(
        peer,
        member.address,
        member.zone,
        role,
        node.reachable(peer),
        None if silent_ms is None else int(silent_ms),
        node.contacts.round_trip_us(peer),
        led.get(peer, 0),
        held.get(peer, 0),
        node.atlas.marks.state_of(peer),
    )


def _shard(shard: Shard) -> ShardStatus:
    raft = shard.raft
    return ShardStatus(
        shard.number,
        shard.leader,
        raft.role,
        raft.term,
        raft.commit,
        raft.applied,
        raft.log.last_index,
        raft.config.voters,
        raft.config.learners,
        shard.matches(),
    )
