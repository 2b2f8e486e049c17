"""Reads that are answered right before a write of the same node, which the leader came to know before them."""

from __future__ import annotations

from tests.unit.several_nodes import STEP_MS, SeveralNodes


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
