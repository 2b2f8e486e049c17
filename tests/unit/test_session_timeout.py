"""Sessions end with their node, after ``session-timeout``, and its clients know before anybody profits."""

from __future__ import annotations

import msgspec
import pytest

from cluster.raft.messages import Append, Forward
from cluster.wishes import Change
from resp_server.session import Session
from tests.scenarios.cluster import Cluster, in_time
from tests.unit.several_nodes import STEP_MS, SeveralNodes

TIMEOUT_MS = 2_000
LOOKED_AT_MS = 1_000
"""So long after the timeout at the latest a leader has seen to it."""

FALLS_OUT_MS = 1_000
"""So long a node that hears nobody still counts as being in touch."""


def three() -> SeveralNodes:
    """Three nodes with one shard."""
    return SeveralNodes(3, session_timeout_ms=TIMEOUT_MS)


def acquired(nodes: SeveralNodes, name: str, owner: str = "ann", key: str = "k") -> Session:
    """A client of a node that holds a lock until its session ends."""
    client = nodes.connect(name)
    assert nodes.send(client, f"LOCK.ACQUIRE {key} {owner} SESSION").startswith(b":")
    return client


def waiting(nodes: SeveralNodes, name: str, owner: str = "bob", key: str = "k") -> Session:
    """A client of a node that waits for the same."""
    client = nodes.connect(name)
    assert nodes.send(client, f"LOCK.ACQUIRE {key} {owner} SESSION BLOCK 0") == b""
    return client


def granted_ms(nodes: SeveralNodes, client: Session) -> int:
    """When a client that waits was given the lock."""
    nodes.until(lambda: client.out)
    assert nodes.received(client).startswith(b":")
    return nodes.now_ms


def holding_unawares(nodes: SeveralNodes, cut: str) -> Session:
    """A client that was granted a lock and not told so: its node is heard, and hears nobody."""
    client = nodes.connect(cut)
    nodes.cut_ways |= {(name, cut) for name in nodes.addresses}
    nodes.send(client, "LOCK.ACQUIRE k ann SESSION")
    nodes.until(lambda: client.out)
    return client


def holds(nodes: SeveralNodes, name: str, owner: str, key: str = "k") -> bool:
    """Whether an owner has a lock, as a node tells."""
    return nodes.ask(name, f"LOCK.OWNED {owner}") == f"*1\r\n${len(key)}\r\n{key}\r\n".encode()


@pytest.mark.parametrize("stopped", [False, True], ids=["cut", "dead"])
def test_the_hold_of_a_client_whose_node_is_gone_goes_to_the_next(stopped: bool) -> None:
    nodes = three()
    lost, there = nodes.followers
    acquired(nodes, lost)
    next_one = waiting(nodes, there)
    (nodes.stopped if stopped else nodes.cut).add(lost)
    gone_ms = nodes.now_ms
    assert gone_ms + TIMEOUT_MS - 300 <= granted_ms(nodes, next_one) <= gone_ms + TIMEOUT_MS + LOOKED_AT_MS


def test_a_client_is_closed_before_what_it_held_is_given_to_another() -> None:
    nodes = three()
    cut, there = nodes.followers
    client, bystander = acquired(nodes, cut), nodes.connect(cut)
    assert nodes.send(bystander, "SET x 1") == b"+OK\r\n"
    next_one = waiting(nodes, there)
    nodes.cut.add(cut)
    at_ms = granted_ms(nodes, next_one)
    assert nodes.members[cut].closed == {client: nodes.members[cut].closed[client]}, "who has nothing to lose stays"
    assert nodes.members[cut].closed[client] < at_ms


def test_a_leader_that_is_cut_off_closes_its_own_clients() -> None:
    nodes = three()
    former, there = nodes.leader, nodes.followers[0]
    client = acquired(nodes, former)
    next_one = waiting(nodes, there)
    nodes.cut.add(former)
    gone_ms = nodes.now_ms
    at_ms = granted_ms(nodes, next_one)
    assert at_ms >= gone_ms + TIMEOUT_MS, "its successor counts from when it began"
    assert nodes.members[former].closed[client] < at_ms


def test_a_short_cut_ends_nothing() -> None:
    nodes = three()
    cut, there = nodes.followers
    client, blocked, next_one = acquired(nodes, cut), waiting(nodes, cut, "eve"), waiting(nodes, there)
    nodes.pass_time(2 * TIMEOUT_MS)
    nodes.cut.add(cut)
    nodes.pass_time(TIMEOUT_MS // 2)
    nodes.cut.clear()
    nodes.pass_time(2 * TIMEOUT_MS)
    assert not nodes.members[cut].closed
    assert not next_one.out
    assert nodes.send(client, "LOCK.RELEASE k ann") == b":1\r\n"
    assert nodes.received(blocked).startswith(b":"), "it had waited all the time"


def test_a_change_of_leader_gives_the_cut_off_their_time_anew() -> None:
    nodes = SeveralNodes(5, session_timeout_ms=TIMEOUT_MS)
    voters = nodes.members["n1"].node.shards[0].raft.config.voters
    cut, there = [name for name in voters if name != nodes.leader]
    acquired(nodes, cut)
    distant = next(name for name in nodes.addresses if name not in voters)
    far, near = acquired(nodes, distant, key="far"), waiting(nodes, there, key="far")
    nodes.cut.add(distant)
    nodes.pass_time(TIMEOUT_MS * 8 // 10)
    before = nodes.leader
    nodes.members[there].node.shards[0].change(None, Change("lead", there))
    nodes.until(lambda: nodes.members[there].node.shards[0].raft.leading is not None)
    assert nodes.leader != before
    began_ms = nodes.now_ms
    assert granted_ms(nodes, near) >= began_ms + TIMEOUT_MS - 300
    assert nodes.members[distant].closed[far] < nodes.now_ms


def test_a_waiter_of_a_dead_node_costs_nobody_a_wait() -> None:
    nodes = three()
    dead, there = nodes.followers
    holder = acquired(nodes, nodes.leader)
    waiting(nodes, dead, "dan")
    alive = waiting(nodes, there)
    nodes.stopped.add(dead)
    nodes.pass_time(TIMEOUT_MS + LOOKED_AT_MS)
    assert nodes.send(holder, "LOCK.RELEASE k ann") == b":1\r\n"
    assert nodes.received(alive).startswith(b":")


def test_a_node_that_is_not_heard_is_cut_off() -> None:
    nodes = three()
    dumb, there = nodes.followers
    client, next_one = acquired(nodes, dumb), waiting(nodes, there)
    nodes.cut_ways |= {(dumb, name) for name in nodes.addresses}
    gone_ms = nodes.now_ms
    at_ms = granted_ms(nodes, next_one)
    assert at_ms >= gone_ms + TIMEOUT_MS - 300
    assert nodes.members[dumb].closed[client] < at_ms


def test_a_node_that_hears_nobody_is_cut_off() -> None:
    """It is heard all the time; but it cannot know whether it is, and closes its clients."""
    nodes = three()
    deaf, there = nodes.followers
    client, next_one = acquired(nodes, deaf), waiting(nodes, there)
    nodes.cut_ways |= {(name, deaf) for name in nodes.addresses}
    gone_ms = nodes.now_ms
    at_ms = granted_ms(nodes, next_one)
    assert gone_ms + TIMEOUT_MS <= at_ms <= gone_ms + FALLS_OUT_MS + TIMEOUT_MS + LOOKED_AT_MS
    assert nodes.members[deaf].closed[client] < at_ms


def test_a_node_that_was_stopped_closes_before_it_goes_on() -> None:
    nodes = three()
    stopped, there = nodes.followers
    client, next_one = acquired(nodes, stopped), waiting(nodes, there)
    nodes.stopped.add(stopped)
    granted_ms(nodes, next_one)
    nodes.stopped.clear()
    nodes.pass_time(STEP_MS)
    assert list(nodes.members[stopped].closed) == [client], "in its first turn, though its mail says it was heard"
    assert holds(nodes, there, "bob")


def test_nothing_is_written_for_a_node_that_stays_away() -> None:
    nodes = three()
    away, there = nodes.followers
    acquired(nodes, away)
    next_one = waiting(nodes, there)
    nodes.cut.add(away)
    granted_ms(nodes, next_one)
    nodes.pass_time(500)
    leader = nodes.members[nodes.leader].node
    last, ended = leader.shards[0].last_index, leader.sessions_ended
    nodes.pass_time(3 * TIMEOUT_MS)
    assert leader.shards[0].last_index == last
    assert leader.sessions_ended == ended == 1


def test_a_node_that_comes_back_begins_anew() -> None:
    nodes = three()
    cut, there = nodes.followers
    former, next_one = acquired(nodes, cut), waiting(nodes, there)
    nodes.cut.add(cut)
    granted_ms(nodes, next_one)
    nodes.cut.clear()
    nodes.pass_time(1_000)
    later = waiting(nodes, cut, "eve")
    assert nodes.send(next_one, "LOCK.RELEASE k bob") == b":1\r\n"
    assert nodes.received(later).startswith(b":")
    nodes.pass_time(2 * TIMEOUT_MS)
    assert holds(nodes, there, "eve"), "what ended the former session ends no other"
    assert list(nodes.members[cut].closed) == [former]
    nodes.cut.add(cut)
    again = waiting(nodes, there, "fay")
    granted_ms(nodes, again)


def test_clients_that_come_while_a_node_is_cut_off_are_told_so_and_not_closed() -> None:
    nodes = three()
    cut, _ = nodes.followers
    acquired(nodes, cut)
    nodes.cut.add(cut)
    nodes.pass_time(2 * TIMEOUT_MS)
    closed = dict(nodes.members[cut].closed)
    assert closed
    late = nodes.connect(cut)
    for _ in range(3):
        assert nodes.send(late, "LOCK.ACQUIRE k eve SESSION").startswith(b"-CLUSTERDOWN")
        nodes.pass_time(TIMEOUT_MS)
    assert nodes.members[cut].closed == closed


def test_a_client_that_came_after_its_node_was_cut_off_is_closed_in_its_own_time() -> None:
    """The node has no replica, so it cannot know that the client has nothing there."""
    nodes = SeveralNodes(4, session_timeout_ms=TIMEOUT_MS)
    voters = nodes.members["n1"].node.shards[0].raft.config.voters
    (distant,) = [name for name in nodes.addresses if name not in voters]
    member = nodes.members[distant]
    first = acquired(nodes, distant)
    nodes.cut.add(distant)
    nodes.until(lambda: first in member.closed)
    looks_again_ms = nodes.now_ms + TIMEOUT_MS * 9 // 10
    nodes.pass_time(TIMEOUT_MS // 2)
    late = nodes.connect(distant)
    assert nodes.send(late, "LOCK.ACQUIRE k eve SESSION").startswith(b"-CLUSTERDOWN")
    came_ms = nodes.now_ms
    nodes.until(lambda: nodes.now_ms > looks_again_ms)
    assert late not in member.closed
    nodes.until(lambda: late in member.closed)
    assert nodes.now_ms <= came_ms + TIMEOUT_MS


def test_a_client_that_was_not_told_whether_it_holds_something_is_closed_too() -> None:
    """Its node has not got the entry: only the leader knows that the lock was given."""
    nodes = three()
    cut, there = nodes.followers
    client = holding_unawares(nodes, cut)
    assert nodes.received(client).startswith(b"-UNCERTAIN")
    assert holds(nodes, there, "ann")
    nodes.pass_time(TIMEOUT_MS)
    assert client in nodes.members[cut].closed
    nodes.cut_ways.clear()
    nodes.pass_time(1_000)
    assert not holds(nodes, there, "ann")


def test_a_client_that_was_not_told_whether_it_holds_something_gives_it_back_as_it_leaves() -> None:
    nodes = three()
    cut, there = nodes.followers
    client = holding_unawares(nodes, cut)
    assert holds(nodes, there, "ann")
    nodes.members[cut].server.disconnect(client)
    nodes.cut_ways.clear()
    nodes.pass_time(1_000)
    assert not holds(nodes, there, "ann")


def test_a_transaction_of_a_session_that_was_ended_does_not_go_on() -> None:
    """It was on its way when its node was cut off; what it watched has changed since."""
    nodes = three()
    cut, there = nodes.followers
    client = nodes.connect(cut)
    assert nodes.send(client, "WATCH x") == b"+OK\r\n"
    nodes.stopped.add(cut)
    nodes.pass_time(TIMEOUT_MS + LOOKED_AT_MS)
    assert nodes.ask(there, "SET x new") == b"+OK\r\n"
    member = nodes.members[cut]
    member.dispatcher.execute(client, [[b"MULTI"], [b"SET", b"x", b"old"], [b"EXEC"]])  # read before it was stopped
    nodes.stopped.clear()
    nodes.pass_time(1_000)
    assert nodes.ask(there, "GET x") == b"$3\r\nnew\r\n"


def test_a_node_that_is_alone_closes_nobody() -> None:
    nodes = SeveralNodes(1, session_timeout_ms=TIMEOUT_MS)
    client = acquired(nodes, "n1")
    nodes.pass_time(5 * TIMEOUT_MS)
    assert not nodes.members["n1"].closed
    nodes.stopped.add("n1")
    nodes.pass_time(5 * TIMEOUT_MS)
    nodes.stopped.clear()
    assert nodes.send(client, "LOCK.RELEASE k ann") == b":1\r\n", "nobody else could have ended it"


def test_nobody_is_closed_while_all_is_well() -> None:
    nodes = SeveralNodes(4, shards=4, session_timeout_ms=TIMEOUT_MS)
    for name in nodes.addresses:
        for number in range(8):
            acquired(nodes, name, key=f"{name}.{number}")
    nodes.pass_time(5 * TIMEOUT_MS)
    assert not any(member.closed for member in nodes.members.values())
    assert sum(member.node.sessions_ended for member in nodes.members.values()) == 0


def test_leading_is_as_good_as_being_heard() -> None:
    """A leader that hands over, shortly before it would look again, has been certain to lead up to then."""
    nodes = three()
    former = nodes.leader
    node = nodes.members[former].node
    client, next_one = acquired(nodes, former), waiting(nodes, nodes.followers[0])
    nodes.pass_time(2 * TIMEOUT_MS)
    nodes.until(lambda: node.next_lapse_ms - nodes.now_ms < 200)
    node.resign()
    nodes.until(lambda: node.shards[0].raft.leading is None)
    nodes.cut.add(former)
    nodes.pass_time(TIMEOUT_MS // 2)
    assert not nodes.members[former].closed
    at_ms = granted_ms(nodes, next_one)
    assert nodes.members[former].closed[client] < at_ms


def test_what_is_not_agreed_yet_is_waited_for() -> None:
    """The followers answer, and store nothing for longer than the timeout; then comes what the silent one asked."""
    cluster = Cluster(3)
    cluster.elect("n1")
    cluster.pass_ms(1_000)
    cluster.fate = lambda sender, to, message: () if type(message) is Append else (0.0,)
    cluster.hosts["n3"].write("LOCK.ACQUIRE k ann SESSION")
    cluster.turn("n3")
    cluster.pass_ms(50)
    leader = cluster.hosts["n1"].node
    assert leader.shards[0].last_index > leader.shards[0].applied_index
    cluster.cut("n3")
    cluster.pass_ms(12_000)
    cluster.fate = in_time
    cluster.pass_ms(1_000)
    assert leader.sessions_ended == 1
    assert leader.shards[0].machine.origins() == []
    assert len(leader.shards[0].machine.keyspace) == 0


def test_whoever_brings_commands_is_there() -> None:
    """A node that has just come is given its time, though nobody has heard from it that it hears anybody."""
    nodes = three()
    nodes.pass_time(2 * TIMEOUT_MS)
    leader = nodes.members[nodes.leader].node
    shard = leader.shards[0]
    call = [b"LOCK.ACQUIRE", b"k", b"ann", b"SESSION"]
    body = msgspec.msgpack.encode(([call], {0: b"n9.b.1"}))
    leader.receive("n9", 0, Forward(shard.term, b"n9.b", 0, 1, body))
    came_ms = nodes.now_ms
    next_one = waiting(nodes, nodes.followers[0])
    assert came_ms + TIMEOUT_MS <= granted_ms(nodes, next_one) <= came_ms + TIMEOUT_MS + LOOKED_AT_MS


def test_nodes_that_fall_silent_one_after_the_other() -> None:
    nodes = SeveralNodes(5, session_timeout_ms=TIMEOUT_MS)
    voters = nodes.members["n1"].node.shards[0].raft.config.voters
    one, other = [name for name in nodes.addresses if name not in voters]
    acquired(nodes, one, key="one")
    acquired(nodes, other, key="other")
    leader = nodes.members[nodes.leader].node
    nodes.cut.add(one)
    nodes.pass_time(TIMEOUT_MS // 2)
    nodes.cut.add(other)
    nodes.pass_time(2 * TIMEOUT_MS)
    assert leader.sessions_ended == 2
    last = leader.shards[0].last_index
    nodes.pass_time(2 * TIMEOUT_MS)
    assert leader.shards[0].last_index == last


def test_the_shortest_timeout_anybody_tells_of_counts() -> None:
    """Settings that differ, as while they are changed node by node, harm nobody."""
    leader = three().leader
    nodes = SeveralNodes(3, session_timeout_ms=10 * TIMEOUT_MS, session_timeouts_ms={leader: TIMEOUT_MS})
    assert nodes.leader == leader
    cut, there = nodes.followers
    client, next_one = acquired(nodes, cut), waiting(nodes, there)
    nodes.cut.add(cut)
    at_ms = granted_ms(nodes, next_one)
    assert nodes.members[cut].closed[client] < at_ms
