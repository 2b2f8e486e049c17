"""Queues while nodes are killed: what was pushed is delivered, what was acknowledged is not delivered again."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from resp_server.client_queues import MessageLost, Queues
from tests.clusters import Cluster, Node
from tests.consumers import Deliveries, told
from tests.holders import Threads
from tests.rings import ring_of, wait_for_ring
from tests.servers import HOST

VISIBILITY_S = 5.0
REST_S = 0.01
AHEAD_MAX = 100  # so that there is little to work off at the end, however slow the machine is
ASK_AGAIN_S = 2.0  # so that nobody waits long for a node that is stopped
GROUPS = 4


class Traffic:
    """Producers and consumers of one queue at all nodes of a cluster, and what became of each message."""

    def __init__(self, cluster: Cluster, queue: str) -> None:
        self.deliveries = Deliveries()
        self.pushed: dict[bytes, bytes] = {}  # id -> payload, of those whose push was acknowledged
        self.groups: dict[bytes, list[int]] = {}  # the numbers of each group's messages, as they were given
        self._met: set[bytes] = set()
        self._lock = threading.Lock()
        self._cluster = cluster
        self._urls = [f"redis://{HOST}:{node.port}" for node in cluster.nodes.values()]
        self._name = queue
        self._producers = Threads()
        self._consumers = Threads()
        self._enough = threading.Event()
        self._queues = [
            Queues(self._urls[number:] + self._urls[:number], ask_again=ASK_AGAIN_S)
            for number in range(len(self._urls))
        ]
        self._consuming = [queues.queue(queue) for queues in self._queues]

    def start(self) -> None:
        for number in range(3):
            self._producers.start(self._produce, number)
        for number, count in enumerate((1, 1, 4, 8)):
            self._consumers.start(self._consume, number, count)

    def _produce(self, number: int) -> None:
        """Messages of a group, in order; every other one of its own."""
        queue = self._queues[number % len(self._queues)].queue(self._name)
        sent = 0
        while not self._enough.wait(REST_S):
            if len(self.pushed) - len(self._met) > AHEAD_MAX:
                continue
            sent += 1
            group = f"{number}.{sent % GROUPS}" if sent % 2 else None
            payload = f"{group} {sent}" if group else f"alone {number}.{sent}"
            own = queue.push(payload, group=group, priority=0 if group else sent % 3, timeout=60.0)
            with self._lock:
                self.pushed[own] = payload.encode()

    def _consume(self, number: int, count: int) -> None:
        """Every seventh message is refused when it comes first."""
        queue = self._consuming[number % len(self._consuming)]
        for message in queue.consume(count=count, visibility=VISIBILITY_S):
            self.deliveries.given(message)
            self._met.add(message.id)
            group, sent = message.payload.split()
            if group != b"alone":
                with self._lock:
                    self.groups.setdefault(group, []).append(int(sent))
            if message.deliveries == 1 and sent.endswith(b"7"):
                with contextlib.suppress(MessageLost):
                    message.refuse(delay=0.01)
                continue
            with contextlib.suppress(MessageLost):
                message.ack()
                self.deliveries.done(message)

    def goes_on(self, count: int = 100) -> None:
        """Returns once so many more messages were worked off."""
        before = len(self.deliveries.acked)
        self._cluster.wait_until(lambda: len(self.deliveries.acked) >= before + count or self._has_failed())

    def _has_failed(self) -> bool:
        return bool(self._producers.failures or self._consumers.failures)

    def abandon(self) -> None:
        """The test has failed: nothing goes on behind its back."""
        self._enough.set()
        for queue in self._consuming:
            queue.stop()
        self._producers.wait()
        self._consumers.wait()
        for queues in self._queues:
            queues.close()

    def finish(self) -> None:
        """No more is pushed; returns when everything that was is worked off."""
        self._enough.set()
        self._producers.join()  # a push on its way could come after the queue was seen empty
        node = self._cluster.serving[0]

        def is_empty() -> bool:
            info = told(node, self._name)
            return not (info["ready"] or info["delayed"] or info["in-flight"]) or self._has_failed()

        self._cluster.wait_until(is_empty)
        for queue in self._consuming:
            queue.stop()
        self._consumers.join()
        for queues in self._queues:
            queues.close()

    def check(self, node: Node) -> None:
        """Nothing is lost, nothing comes after its end, groups are in order, and the queue's counts add up."""
        self.deliveries.check()
        given = {own for own, _ in self.deliveries.seen}
        assert set(self.pushed) - given == set(), "each that was pushed is delivered"
        assert given - set(self.pushed) == set(), "and nothing else"
        for group, numbers in self.groups.items():
            assert numbers == sorted(numbers), group
        info = told(node, self._name)
        assert info["pushed"] == info["acked"] == len(self.pushed), "a repeated push is one message"
        assert info["dead"] == info["expired"] == 0
        assert len(self.deliveries.acked) <= info["acked"]


@contextmanager
def traffic(cluster: Cluster, queue: str) -> Iterator[Traffic]:
    """Traffic that must survive what the block does."""
    running = Traffic(cluster, queue)
    running.start()
    try:
        running.goes_on()
        yield running
        running.goes_on()
        running.finish()
    except BaseException:
        running.abandon()
        raise
    for node in cluster.serving:
        running.check(node)


def test_the_leader_is_killed_under_workers(three: Cluster) -> None:
    with traffic(three, "leader") as running:
        for _ in range(2):
            leader = three.wait_for_leader()
            leader.kill()
            running.goes_on()
            leader.restart()
            three.wait_for_leader()


def test_all_nodes_are_killed_under_workers(three: Cluster) -> None:
    with traffic(three, "all") as running:
        for node in three.serving:
            node.kill()
        three.start()
        three.wait_for_leader()
        running.goes_on()


def test_a_leader_that_sleeps_is_no_loss(three: Cluster) -> None:
    with traffic(three, "sleeps") as running:
        leader = three.wait_for_leader()
        leader.pause()
        running.goes_on()
        leader.resume()
        three.wait_for_leader()


def test_a_shard_s_leader_is_killed_under_workers_at_all_nodes(five: Cluster) -> None:
    """Some of the nodes have no replica of the queue's shard, and ask those that have."""
    queue = ring_of(five["n1"]).key_away_from(five["n1"], "queue")
    with traffic(five, queue) as running:
        row = ring_of(five["n1"]).of(queue)
        assert row.leader is not None
        leader = five[row.leader]
        leader.kill()
        running.goes_on()
        leader.restart()
    wait_for_ring(five, leaders=True)


def test_nodes_are_killed_under_workers_of_a_queue_that_is_everywhere(five: Cluster) -> None:
    """Each of its parts has a leader of its own; groups keep their order, ids count once."""
    assert five["n2"].raw().call("Q.CREATE", "everywhere", "PARTITIONS", 8) == b"OK"
    with traffic(five, "everywhere") as running:
        for name in ("n1", "n4"):
            five[name].kill()
            running.goes_on()
            five[name].restart()


def test_what_a_consumer_that_left_was_about_to_get_goes_to_the_next(calm: Cluster) -> None:
    """First come, first served, at whatever nodes they wait; nobody polls."""
    leader = calm.wait_for_lasting_leader()
    nodes = [*calm.others(leader), leader] * 2
    waiting = []
    for number, node in enumerate(nodes, 1):
        consumer = node.raw()
        consumer.send("Q.POP", "left", "BLOCK", 0)
        waiting.append(consumer)
        calm.wait_until(lambda: blocked(calm) == number)  # noqa: B023
    for leaves in (1, 3):
        waiting[leaves].socket.close()
    calm.wait_until(lambda: blocked(calm) == len(nodes) - 2)
    producer = leader.raw()
    for number in (0, 2, 4, 5):
        producer.call("Q.PUSH", "left", f"for {number}")
        [[receipt, payload, deliveries, _]] = waiting[number].read()
        assert (payload, deliveries) == (b"for %d" % number, 1)
        assert producer.call("Q.ACK", "left", receipt) == 1


def blocked(cluster: Cluster) -> int:
    """How many clients wait, at all nodes."""
    found = [re.search(r"blocked_clients:(\d+)", node.ask("INFO", "clients")) for node in cluster.serving]
    return sum(int(match[1]) for match in found if match)


@pytest.mark.parametrize("number", range(3))
def test_a_delayed_message_is_handed_out_by_a_leader_that_was_not_there(three: Cluster, number: int) -> None:
    """Its alarm, a visibility's and a back-off's are of the log's time, whoever leads."""
    queue = f"alarms {number}"
    leader = three.wait_for_leader()
    here, there = three.others(leader)
    producer, consumer = here.raw(), there.raw()
    assert producer.call("Q.CREATE", queue, "BACKOFF", 300, 300) == b"OK"
    producer.call("Q.PUSH", queue, "delayed", "ID", "d", "DELAY", 300)
    producer.call("Q.PUSH", queue, "refused", "ID", "r", "PRIORITY", 9)
    producer.call("Q.PUSH", queue, "taken", "ID", "t", "PRIORITY", 8)
    [[refused, *_]] = producer.call("Q.POP", queue)
    [[taken, *_]] = producer.call("Q.POP", queue, "VISIBILITY", 300)
    assert producer.call("Q.NACK", queue, refused) == 1
    leader.kill()
    three.wait_for_leader()
    seen: dict[bytes, int] = {}
    while len(seen) < 3:
        [[receipt, payload, deliveries, _]] = consumer.call("Q.POP", queue, "BLOCK", 0)
        seen[payload] = deliveries
        assert consumer.call("Q.ACK", queue, receipt) == 1
    assert seen == {b"delayed": 1, b"taken": 2, b"refused": 2}
    assert producer.call("Q.ACK", queue, taken) == 0
    leader.restart()
    three.wait_for_leader()
