"""What a node tells of itself and of its peers, for people and for metrics."""

from __future__ import annotations

from typing import NamedTuple

from cluster.contacts import REACHABLE_TIMEOUTS, Contacts
from cluster.raft.core import Raft
from cluster.raft.membership import Member
from cluster.storage.contract import Identity


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


def status_of(raft: Raft, contacts: Contacts, identity: Identity, address: str) -> Status:
    """What a node knows; ``address`` is its own, for as long as the cluster does not know it."""
    config = raft.config
    return Status(
        raft.name,
        identity.cluster,
        config.members[raft.name].address if raft.name in config else address,
        raft.role,
        raft.term,
        raft.leader,
        raft.commit,
        raft.applied,
        raft.log.last_index,
        config.voters,
        config.learners,
        tuple(_peer(raft, contacts, config.members[peer]) for peer in sorted(config.others(raft.name))),
    )


def _peer(raft: Raft, contacts: Contacts, member: Member) -> PeerStatus:
    peer = member.id
    silent_ms = contacts.silent_ms(peer, raft.now_ms)
    if raft.leading is not None:
        progress = raft.leading.progress.get(peer)
        match = progress.match if progress is not None else None
    else:
        match = contacts.matches.get(peer)
    role = "leader" if peer == raft.leader else "follower" if peer in raft.config.voters else "learner"
    reachable = silent_ms is not None and silent_ms < REACHABLE_TIMEOUTS * raft.timing.election_ms
    contact_ms = None if silent_ms is None else int(silent_ms)
    return PeerStatus(peer, member.address, role, reachable, contact_ms, contacts.round_trip_us(peer), match)
