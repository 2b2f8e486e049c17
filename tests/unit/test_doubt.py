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


def test_what_a_leader_read_in_its_own_lines_is_in_doubt_no_longer(cluster: SeveralNodes) -> None:
    member = leader(cluster)
    assert cluster.ask(member.node.name, f"CACHE.SET {KEY.decode()} 1") == b"+OK\r\n"
    found = doubt(cluster, member, b"CACHE.GET", KEY)
    assert found.verdict() is None
    cluster.pass_time(2 * LAPSED_MS)
    assert found.verdict() is True


def test_what_a_node_read_in_a_line_that_it_gave_up_since_is_in_doubt_no_longer(cluster: SeveralNodes) -> None:
    """It holds no line, so that nothing else has it ask for a longer lease."""
    member = next(one for one in cluster.members.values() if one is not leader(cluster))
    assert cluster.ask(member.node.name, f"CACHE.SET {KEY.decode()} 1") == b"+OK\r\n"
    cluster.pass_time(LAPSED_MS)
    found = doubt(cluster, member, b"CACHE.GET", KEY)
    assert member.node.cache.evict(KEY)
    assert found.verdict() is None
    cluster.pass_time(2 * LAPSED_MS)
    assert found.verdict() is True
