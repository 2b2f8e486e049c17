"""Consumers that wait for a message at any node: whoever came first is served first, and nobody asks meanwhile."""

from __future__ import annotations

import re
import select
from collections.abc import Iterator, Sequence

import pytest

from tests.clusters import CALM, Cluster, Node
from tests.raw_client import RawClient
from tests.rings import ring_of

CROWD = 200
LOOKS = 40
"""So often all nodes are asked how far their logs are, which takes longer than a node that polled would rest."""


def waiting(cluster: Cluster) -> int:
    """How many clients wait, at all nodes."""
    found = [re.search(r"blocked_clients:(\d+)", node.ask("INFO", "clients")) for node in cluster.serving]
    return sum(int(match[1]) for match in found if match)


def wait_in_line(cluster: Cluster, node: Node, queue: str) -> RawClient:
    """A consumer that waits for ever, and is in the line of every part once this returns."""
    before = waiting(cluster)
    consumer = node.raw()
    consumer.send("Q.POP", queue, "BLOCK", 0)
    cluster.wait_until(lambda: waiting(cluster) == before + 1)
    # What one node asks of a shard is carried out in its order: this stands behind the waits, in every part.
    assert node.raw().call("Q.PURGE", queue, "DEAD") == 0
    return consumer


def log_lengths(nodes: Sequence[Node]) -> dict[tuple[str, int], int]:
    """The last index of every replica's log."""
    return {(node.name, one["shard"]): one["last-index"] for node in nodes for one in node.ask("RAFT.INFO")}


def idle(clients: Sequence[RawClient]) -> bool:
    """Whether none of them was sent anything."""
    return not select.select([one.socket for one in clients], [], [], 0)[0]


@pytest.fixture(scope="module")
def ring_flags() -> Sequence[str]:
    """Leaders stay: an election is an entry of the log, and what was on its way is uncertain."""
    return CALM


@pytest.fixture(params=[1, 8])
def queue(five: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A queue that is nowhere near n1, of one part or of eight."""
    name = ring_of(five["n1"]).key_away_from(five["n1"], f"waits {request.node.name}")
    assert five["n1"].raw().call("Q.CREATE", name, "PARTITIONS", request.param) == b"OK"
    yield name
    five.hang_up()
    five.wait_until(lambda: waiting(five) == 0)


def test_who_came_first_is_served_first_wherever_a_push_comes(five: Cluster, queue: str) -> None:
    nodes = list(five.nodes.values())
    consumers = [wait_in_line(five, node, queue) for node in nodes * 2]
    for number, consumer in enumerate(consumers):
        producer = nodes[(number + 2) % len(nodes)].raw()
        assert producer.call("Q.PUSH", queue, f"for {number}", "ID", number) == b"%d" % number
        [[receipt, payload, deliveries, _]] = consumer.read()
        assert (payload, deliveries) == (b"for %d" % number, 1)
        assert idle(consumers[number + 1 :])
        assert consumer.call("Q.ACK", queue, receipt) == 1
    assert waiting(five) == 0


def test_who_left_is_passed_over(five: Cluster, queue: str) -> None:
    """What it was about to get goes to the next, at another node, and counts as no delivery."""
    nodes = list(five.nodes.values())
    consumers = [wait_in_line(five, node, queue) for node in nodes]
    for gone in (0, 2, 3):
        consumers[gone].socket.close()
    five.wait_until(lambda: waiting(five) == 2)
    for number in (1, 4):
        nodes[0].raw().call("Q.PUSH", queue, f"for {number}")
        [[receipt, payload, deliveries, _]] = consumers[number].read()
        assert (payload, deliveries) == (b"for %d" % number, 1)
        assert nodes[number].raw().call("Q.ACK", queue, receipt) == 1


def test_who_leaves_at_once_is_given_nothing(five: Cluster, queue: str) -> None:
    """It is gone before it is known to wait."""
    nodes = list(five.nodes.values())
    for node in nodes:
        consumer, looks = node.raw(), node.raw()
        number = consumer.call("CLIENT", "ID")
        consumer.send("Q.POP", queue, "BLOCK", 0)
        consumer.socket.close()
        five.wait_until(lambda: not looks.call("CLIENT", "LIST", "ID", number))  # noqa: B023
    for node in nodes:
        assert node.raw().call("Q.PURGE", queue, "DEAD") == 0  # behind the ends of their sessions, in every part
    for number, node in enumerate(nodes):
        nodes[0].raw().call("Q.PUSH", queue, number)
        [[receipt, payload, deliveries, _]] = node.raw().call("Q.POP", queue)
        assert (payload, deliveries) == (b"%d" % number, 1)
        assert nodes[1].raw().call("Q.ACK", queue, receipt) == 1


def test_a_crowd_that_waits_brings_nothing_into_the_log(five: Cluster, queue: str) -> None:
    nodes = list(five.nodes.values())
    crowd = [node.raw() for node in nodes for _ in range(CROWD // len(nodes))]
    for consumer in crowd:
        consumer.send("Q.POP", queue, "BLOCK", 0)
    five.wait_until(lambda: waiting(five) == CROWD)
    before: dict[tuple[str, int], int] = {}

    def at_rest() -> bool:
        """Every replica has what any has: nothing of before is under way."""
        lengths = log_lengths(nodes)
        same = lengths == before
        before.update(lengths)
        by_shard: dict[int, set[int]] = {}
        for (_, shard), length in lengths.items():
            by_shard.setdefault(shard, set()).add(length)
        return same and all(len(found) == 1 for found in by_shard.values())

    five.wait_until(at_rest)
    for _ in range(LOOKS):
        assert log_lengths(nodes) == before
    assert idle(crowd)
    nodes[1].raw().call("Q.PUSH", queue, "for one of them")
    five.wait_until(lambda: not idle(crowd))
    assert sum(not idle([consumer]) for consumer in crowd) == 1
