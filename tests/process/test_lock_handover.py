"""One lock goes from hand to hand: a release reaches the next in line, and nobody has to ask."""

from __future__ import annotations

import select
from collections.abc import Sequence

import pytest

from tests.clusters import CALM, Cluster, Node
from tests.raw_client import RawClient
from tests.rings import wait_for_ring
from tests.servers import Server, wait_until

WAITERS = 100


@pytest.fixture(scope="module")
def ring_flags() -> Sequence[str]:
    """All nodes are there."""
    return CALM


def hand_on(clients: Sequence[RawClient], looks: RawClient) -> list[int]:
    """Lets all of them wait for one lock, and each give it back when it has it: their tokens, in order.

    No command is sent between a release and the grant that it brings.
    """
    first = looks.call("LOCK.ACQUIRE", "baton", "first", "PX", 600_000)
    for number, client in enumerate(clients, 1):
        client.send("LOCK.ACQUIRE", "baton", f"w{number}", "PX", 600_000, "BLOCK", 0)
        wait_until(lambda: waiters(looks) == number)  # noqa: B023 - it is called at once
    assert looks.call("LOCK.RELEASE", "baton", "first") == 1
    tokens = [first]
    for number, client in enumerate(clients, 1):
        tokens.append(client.read())
        ahead = [other.socket for other in clients[number:]]
        assert not select.select(ahead, [], [], 0)[0], "nobody else was told anything"
        assert client.call("LOCK.RELEASE", "baton", f"w{number}") == 1
    assert looks.call("LOCK.INFO", "baton") == [b"mode", b"free", b"token", tokens[-1], b"holders", [], b"waiters", []]
    return tokens


def waiters(looks: RawClient) -> int:
    return len(looks.call("LOCK.INFO", "baton")[-1])


def calls(looks: RawClient, command: str) -> int:
    """How often a command was carried out for clients of this node."""
    stats = looks.call("INFO", "commandstats").decode()
    line = next(line for line in stats.splitlines() if line.startswith(f"cmdstat_{command}:"))
    return int(line.partition("calls=")[2].partition(",")[0])


def test_a_hundred_on_one_server(sepakat: Server) -> None:
    clients = [RawClient(sepakat) for _ in range(WAITERS)]
    with RawClient(sepakat) as looks:
        tokens = hand_on(clients, looks)
        assert tokens == list(range(tokens[0], tokens[0] + WAITERS + 1)), "none was given twice, none in vain"
        assert calls(looks, "lock.acquire") == calls(looks, "lock.release") == WAITERS + 1
    for client in clients:
        client.socket.close()


@pytest.mark.parametrize("where", ["the leader", "a follower", "all nodes"])
def test_a_hundred_on_a_cluster(calm: Cluster, where: str) -> None:
    leader = calm.wait_for_lasting_leader()
    follower, other = calm.others(leader)
    nodes: list[Node] = {"the leader": [leader], "a follower": [follower], "all nodes": [leader, follower, other]}[
        where
    ]
    tokens = hand_on([nodes[number % len(nodes)].raw() for number in range(WAITERS)], other.raw())
    assert tokens == list(range(tokens[0], tokens[0] + WAITERS + 1))


def test_a_hundred_far_away(five: Cluster) -> None:
    """They wait at nodes without a replica of the lock's shard."""
    ring = wait_for_ring(five, leaders=True)
    far = [node for node in five.nodes.values() if node.name not in ring.of("baton").nodes]
    tokens = hand_on([far[number % len(far)].raw() for number in range(WAITERS)], far[0].raw())
    assert tokens == list(range(tokens[0], tokens[0] + WAITERS + 1))
