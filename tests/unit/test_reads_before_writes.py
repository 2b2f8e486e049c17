"""Reads that are answered right before a write of the same node, which the leader came to know before them."""

from __future__ import annotations

from tests.unit.several_nodes import STEP_MS, SeveralNodes, hand_over

LEASE_MS = 500


def test_what_the_leader_came_to_know_after_a_write_is_not_read_before_it() -> None:
    """The link broke, and what was lost is sent again: the write at once, and then what the read wants to know."""
    cluster = SeveralNodes(3)
    leader = cluster.leader
    reader, owner = cluster.followers
    cluster.ask(leader, "SET k old")
    assert cluster.ask(owner, "CACHE.SET k new") == b"+OK\r\n"
    member = cluster.members[reader]
    cluster.cut_ways.add((reader, leader))
    session, other = cluster.connect(reader), cluster.connect(reader)
    member.dispatcher.execute(session, [[b"GET", b"k"]])
    cluster.pass_time(STEP_MS)
    member.dispatcher.execute(other, [[b"SET", b"x", b"1"]])
    cluster.pass_time(STEP_MS)
    cluster.cut_ways.clear()
    member.node.connected(leader)
    cluster.pass_time(STEP_MS)
    cluster.stopped.add(reader)
    cluster.pass_time(5 * STEP_MS)
    cluster.stopped.discard(reader)
    cluster.pass_time(10 * STEP_MS)
    assert cluster.received(other) == b"+OK\r\n"
    assert cluster.received(session).startswith(b"-TRYAGAIN")


def test_what_the_leader_before_knew_to_be_read_the_next_does_not_know() -> None:
    """A leader that is cut off takes a read behind a write, and another is elected that lets a cache own what is read.

    It never hears of the read: it is sent only the write again.
    """
    cluster = SeveralNodes(3)
    preferred, cut_off = cluster.leader, cluster.followers[0]
    hand_over(cluster, preferred, cut_off)
    shard = cluster.members[cut_off].node.shards[0]
    cluster.until(lambda: shard.raft.leading is not None and shard.raft.leading.settled)
    cluster.ask(cut_off, "SET k old")
    cluster.pass_time(LEASE_MS)
    cluster.until(lambda: shard.raft.leading is not None and shard.raft.leading.quorum_ms() == cluster.now_ms)
    cluster.cut.add(cut_off)
    elected = cluster.members[preferred].node.shards[0].raft
    elected.election_at_ms = elected.contact_ms + elected.timing.election_ms  # as soon as it may
    cluster.until(lambda: elected.leading is not None and elected.leading.settled)
    (owner,) = (name for name in cluster.members if name not in (preferred, cut_off))
    assert cluster.ask(owner, "CACHE.SET k new") == b"+OK\r\n"
    assert shard.raft.leading is not None, "it has not noticed yet"
    session = cluster.connect(cut_off)
    assert cluster.send(session, "SET x 1", "GET k") == b""
    cluster.cut.clear()
    cluster.until(lambda: session.out)
    done, read = cluster.received(session).split(b"\r\n")[:2]
    assert (done, read[:9]) == (b"+OK", b"-TRYAGAIN")
