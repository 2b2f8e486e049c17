"""Clients whose sessions others may have ended: whoever looks finds them, whatever else ran before."""

from __future__ import annotations

from tests.unit.several_nodes import SeveralNodes

TIMEOUT_MS = 10_000


def test_who_lapsed_is_found_though_the_node_s_timers_ran_before_anybody_looked() -> None:
    """The process was stopped in the middle of a turn: its timers see that the time is over, and then it looks."""
    cluster = SeveralNodes(3, session_timeout_ms=TIMEOUT_MS)
    member = cluster.members[cluster.followers[0]]
    holder, bystander = cluster.connect(member.node.name), cluster.connect(member.node.name)
    assert cluster.send(holder, "LOCK.ACQUIRE lock ann SESSION").startswith(b":")
    assert cluster.send(bystander, "PING") == b"+PONG\r\n"
    later_ms = cluster.now_ms + TIMEOUT_MS
    member.node.pass_time(later_ms)
    member.node.tick()
    assert member.lapses.next_ms <= later_ms
    assert member.lapses.look(later_ms) == [holder]
