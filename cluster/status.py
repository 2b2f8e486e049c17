"""What a node tells of itself and of its peers, for people and for metrics."""

from __future__ import annotations

from typing import NamedTuple


class PeerStatus(NamedTuple):
    """Another member, as this node sees it.

    ``reachable``: it was heard within two election timeouts. ``last_contact_ms``
    is how long ago that was (None: never), ``round_trip_us`` of the last answer.
    ``match`` is the last log index known to be durable there.
    """

    id: str
    address: str
    role: str
    reachable: bool
    last_contact_ms: int | None
    round_trip_us: int | None
    match: int | None


class Status(NamedTuple):
    """The node: ``role`` is leader, follower, candidate, learner or removed."""

    node: str
    cluster: str
    address: str
    role: str
    term: int
    leader: str | None
    commit: int
    applied: int
    last_index: int
    voters: tuple[str, ...]
    learners: tuple[str, ...]
    peers: tuple[PeerStatus, ...]
