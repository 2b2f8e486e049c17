"""What clients read under a lease that runs out in that turn: what is in doubt, and how the doubt ends."""

from __future__ import annotations

import pytest

from cluster.doubt import Doubt
from cluster.raft.core import Timing
from resp_server.session import Session
from tests.front import START_MS
from tests.unit.several_nodes import Member, SeveralNodes

KEY = b"k"
LAPSED_MS = 2 * Timing().election_ms
"""After this time no lease stands that stood when a turn began."""


def asked(member: Member, session: Session, now_ms: int, *calls: list[bytes]) -> bytes:
    """What a client is told at once of what it asks in a turn that begins at that time."""
    member.node.advance(START_MS + now_ms, now_ms)
    session.out.clear()
    member.dispatcher.execute(session, list(calls))
    return b"".join(session.out)


@pytest.fixture(params=[1, 4])
def cluster(request: pytest.FixtureRequest) -> SeveralNodes:
    return SeveralNodes(shards=request.param)


def leader(cluster: SeveralNodes) -> Member:
    """Who leads the shard of the key."""
    member = next(iter(cluster.members.values()))
    return cluster.members[cluster.leader_of(member.server.shard_of(KEY).number)]


def doubt(cluster: SeveralNodes, member: Member, *call: bytes) -> Doubt:
    """Of what a client read at once in a turn in which the leases ran out."""
    session = member.server.connect("127.0.0.1:1", "127.0.0.1:2")
    assert asked(member, session, cluster.now_ms, list(call))
    assert not member.node.reads_lapsed(cluster.now_ms)
    assert member.node.reads_lapsed(cluster.now_ms + LAPSED_MS)
    return member.node.doubt(cluster.now_ms + LAPSED_MS)


def test_a_read_is_in_doubt_until_a_majority_answers_a_later_heartbeat(cluster: SeveralNodes) -> None:
    found = doubt(cluster, leader(cluster), b"GET", KEY)
    assert found.verdict() is None
    cluster.pass_time(2 * LAPSED_MS)
    assert found.verdict() is True
