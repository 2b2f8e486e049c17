"""`resp_server.client_queues` when the node it talks to dies: it goes on at another, and keeps nothing for itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from resp_server.client_queues import AsyncQueues, Queues
from tests.clusters import Cluster, Node
from tests.consumers import told
from tests.holders import LONG_S, Threads, url
from tests.rings import all_are_led, wait_for_ring


@pytest.fixture(params=[1, 8])
def queue(five: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A queue of one part or of eight; all nodes run again afterwards, and lead what they led before."""
    name = f"faults {request.node.name}"
    assert five["n2"].raw().call("Q.CREATE", name, "PARTITIONS", request.param, "BACKOFF", 0, 0) == b"OK"
    yield name
    five.start()
    wait_for_ring(five, leaders=True)


def urls(cluster: Cluster) -> list[str]:
    """Of all nodes: a client asks one of them as long as that answers."""
    return [url(node) for node in cluster.nodes.values()]


def counts(cluster: Cluster, queue: str) -> dict[str, Any]:
    info = told(cluster.serving[0], queue)
    return {name: info.get(name) for name in ("ready", "delayed", "in-flight", "dead", "acked")}


def asked(cluster: Cluster) -> list[Node]:
    """The nodes a consumer took something from last, or waits at."""
    return [node for node in cluster.serving if "cmd=q.pop" in node.ask("CLIENT", "LIST")]


def test_a_consumer_that_waits_goes_on_at_another_node(five: Cluster, queue: str) -> None:
    seen: list[bytes] = []
    threads = Threads()
    with contextlib.closing(Queues(urls(five))) as queues, contextlib.closing(Queues(urls(five))) as others:
        jobs = queues.queue(queue)
        threads.start(lambda: seen.extend(message.payload for message in jobs.consume(visibility=10.0)))
        try:
            five.wait_until(lambda: asked(five))
            [victim] = asked(five)
            victim.kill()
            for number in range(20):
                others.queue(queue).push(str(number), timeout=LONG_S)
            five.wait_until(lambda: counts(five, queue)["acked"] == 20 or threads.failures)
        finally:
            jobs.stop()
            threads.wait()
        threads.join()
    assert set(seen) == {b"%d" % number for number in range(20)}


def test_what_was_taken_ahead_goes_back_though_its_node_is_gone(five: Cluster, queue: str) -> None:
    """A consumer that is stopped tells another node."""
    with contextlib.closing(Queues(urls(five))) as queues:
        jobs = queues.queue(queue)
        for number in range(5):
            jobs.push(str(number), id=b"%d" % number, timeout=LONG_S)
        taken = 0
        for _ in jobs.consume(count=5, visibility=LONG_S):
            taken += 1
            [victim] = asked(five)
            victim.kill()
            five.wait_until(lambda: all_are_led(five))  # giving back is tried for a few seconds only
            jobs.stop()
        assert taken == 1
        five.wait_until(lambda: counts(five, queue)["in-flight"] == 0)
    assert counts(five, queue) == {"ready": 4, "delayed": 0, "in-flight": 0, "dead": 0, "acked": 1}


def test_a_task_goes_on_at_another_node(five: Cluster, queue: str) -> None:
    seen: list[bytes] = []

    async def work() -> None:
        queues = AsyncQueues(urls(five))
        jobs = queues.queue(queue)
        for number in range(10):
            await jobs.push(str(number), timeout=LONG_S)
        async for message in jobs.consume(count=3, visibility=10.0):
            async with message:
                if message.payload not in seen:
                    seen.append(message.payload)
            if len(seen) == 3 and len(five.serving) == 5:
                [victim] = asked(five)
                victim.kill()
            if len(seen) == 10:
                jobs.stop()
        await queues.close()

    async def bounded() -> None:
        async with asyncio.timeout(LONG_S):
            await work()

    asyncio.run(bounded())
    five.wait_until(lambda: counts(five, queue)["acked"] == 10)
