"""What comes to a node in the turn in which it is elected, before it has begun to lead."""

from __future__ import annotations

from tests.unit.several_nodes import STEP_MS, SeveralNodes, hand_over

LEASE_MS = 500


def test_a_read_that_comes_behind_the_deciding_vote_waits_for_what_caches_have() -> None:
    """It is asked for again in the new term, and kept back then: what was asked too early must not let it go."""
    cluster = SeveralNodes(5)
    first = cluster.leader
    voters = cluster.members[first].node.shards[0].voters
    second = next(one for one in voters if one != first)
    owner, reader = (one for one in cluster.members if one not in voters)
    cluster.ask(first, "SET k old")
    cluster.cut_ways |= {(one, reader) for one in cluster.members}  # to which the first is the leader all the time
    shard = hand_over(cluster, first, second)
    cluster.until(lambda: shard.raft.leading is not None)
    assert cluster.ask(owner, "CACHE.SET k new") == b"+OK\r\n"
    cluster.stopped.add(owner)
    shard = hand_over(cluster, second, first)
    cluster.until(lambda: shard.raft.candidacy is not None)
    cluster.stopped.add(first)
    cluster.pass_time(STEP_MS)  # the others vote
    session = cluster.connect(reader)
    assert cluster.send(session, "GET k") == b""
    cluster.stopped.discard(first)
    cluster.cut_ways.clear()
    cluster.pass_time(LEASE_MS // 2)
    assert shard.raft.leading is not None
    assert cluster.received(session) == b"", "a cache has a later value, and was not heard yet"
    cluster.stopped.discard(owner)
    cluster.pass_time(LEASE_MS)
    assert cluster.received(session) == b"$3\r\nnew\r\n"
