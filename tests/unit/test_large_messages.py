"""A payload that takes longer to come in than a leader may be silent, over real links that take so much a moment."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from resp_server.edge.link import Links
from resp_server.edge.poller import READ, Poller, new_poller
from tests.unit.several_nodes import STEP_MS, Mail, SeveralNodes

PAYLOAD = bytes(range(256)) * 64 * 1024  # 16 MB, of which a link takes no more than 256 KB a step
ELECTION_MS = 300


class LinkedNodes(SeveralNodes):
    """Nodes that talk over links. ``sent_bytes`` would be nothing to go by: what is on its way is in the sockets."""

    def __init__(self) -> None:
        self.pollers: dict[str, Poller] = {}
        self.links: dict[str, Links] = {}
        super().__init__(3)

    def link(self, sender: str, receiver: str) -> None:
        """A new link from one to the other, in place of the one there was."""
        near, far = socket.socketpair()
        for one in (near, far):
            one.setblocking(False)
        self.links[sender].up(receiver, near)
        self.pollers[receiver].watch(far.fileno(), READ)
        self.links[receiver].adopt(sender, far)

    def _exchange(self) -> None:
        if not self.links:
            for name, member in self.members.items():
                self.pollers[name] = new_poller()
                self.links[name] = Links(self.pollers[name], member.node)
            for sender in self.members:
                for receiver in self.members:
                    if receiver != sender:
                        self.link(sender, receiver)
        for name, member in self.members.items():
            mail: Mail = [(peer, shard, one) for peer, shard, one in self.links[name].hear(self.pollers[name].poll(0))]
            self.links[name].send(member.turn(self.now_ms, mail))

    def large_under_way(self, sender: str) -> bool:
        """Whether something large has not left the sender."""
        return bool(self.members[sender].node.contacts.sending)

    def close(self) -> None:
        """Closes the sockets."""
        for links in self.links.values():
            links.close()
        for poller in self.pollers.values():
            poller.close()


@pytest.fixture
def nodes() -> Iterator[LinkedNodes]:
    made = LinkedNodes()
    yield made
    made.close()


def under_way_ms(nodes: LinkedNodes, sender: str) -> int:
    """Lets time pass until nothing large is on its way out of the sender; how long that was."""
    began_ms = nodes.now_ms
    nodes.until(lambda: nodes.large_under_way(sender))
    nodes.until(lambda: not nodes.large_under_way(sender))
    return nodes.now_ms - began_ms


@pytest.mark.parametrize("at", ["leader", "follower"])
def test_a_payload_that_takes_longer_than_an_election_timeout_loses_no_leader(nodes: LinkedNodes, at: str) -> None:
    leader = nodes.leader
    term = nodes.members[leader].node.shards[0].raft.term
    name = leader if at == "leader" else nodes.followers[0]
    session = nodes.connect(name)
    nodes.members[name].dispatcher.execute(session, [[b"SET", b"large", PAYLOAD]])
    assert under_way_ms(nodes, name) > 2 * ELECTION_MS
    nodes.until(lambda: session.out)
    assert nodes.received(session) == b"+OK\r\n"
    nodes.pass_time(1_000)
    for member in nodes.members.values():
        raft = member.node.shards[0].raft
        assert (raft.leader, raft.term) == (leader, term)
        assert member.node.shards[0].machine.keyspace.values[b"large"]


def test_others_go_on_meanwhile(nodes: LinkedNodes) -> None:
    """Reads under a lease, at once; a write waits for what stands before it in the log."""
    leader = nodes.leader
    assert nodes.ask(leader, "SET small 1") == b"+OK\r\n"
    nodes.members[leader].dispatcher.execute(nodes.connect(leader), [[b"SET", b"large", PAYLOAD]])
    nodes.until(lambda: nodes.large_under_way(leader))
    answered = 0
    while nodes.large_under_way(leader):
        assert nodes.ask(leader, "GET small") == b"$1\r\n1\r\n"
        nodes.pass_time(5 * STEP_MS)
        answered += 1
    assert answered > 2


def test_a_link_that_is_cut_in_the_midst_of_it_loses_the_leader_that_is_behind_it(nodes: LinkedNodes) -> None:
    """Bytes that came once are no sign of life; and the payload is sent again over the next link."""
    leader, followers = nodes.leader, nodes.followers
    session = nodes.connect(leader)
    nodes.members[leader].dispatcher.execute(session, [[b"SET", b"large", PAYLOAD]])
    nodes.until(lambda: nodes.large_under_way(leader))
    nodes.pass_time(10 * STEP_MS)
    assert nodes.large_under_way(leader)
    for follower in followers:
        for sender, receiver in ((leader, follower), (follower, leader)):
            nodes.links[sender].cut(receiver, "cut")
    nodes.until(lambda: nodes.members[leader].node.shards[0].raft.leading is None)
    nodes.until(lambda: any(nodes.members[name].node.shards[0].raft.leading for name in followers))
    nodes.until(lambda: session.out)
    assert nodes.received(session).startswith(b"-UNCERTAIN ")


def test_a_follower_that_is_cut_off_in_the_midst_of_it_gets_it_over_the_next_link(nodes: LinkedNodes) -> None:
    leader, (cut, _) = nodes.leader, nodes.followers
    session = nodes.connect(leader)
    nodes.members[leader].dispatcher.execute(session, [[b"SET", b"large", PAYLOAD]])
    nodes.until(lambda: nodes.large_under_way(leader))
    nodes.pass_time(10 * STEP_MS)
    nodes.links[leader].cut(cut, "cut")
    nodes.until(lambda: session.out)
    assert nodes.received(session) == b"+OK\r\n"
    assert b"large" not in nodes.members[cut].node.shards[0].machine.keyspace.values
    nodes.link(leader, cut)
    nodes.until(lambda: b"large" in nodes.members[cut].node.shards[0].machine.keyspace.values)
