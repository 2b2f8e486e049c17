"""What a node tells of itself, of the others and of the shards, for people and for metrics."""

from __future__ import annotations

from typing import NamedTuple


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
