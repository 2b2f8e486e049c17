"""Nodes of a cluster of many shards that are killed, paused or all restarted: every shard goes on by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.clusters import Cluster, Node, error_of
from tests.histories import counting, growing, registers_and_locks
from tests.process.test_ring_commands import has_waiters
from tests.raw_client import RawClient
from tests.rings import Ring, ring_of, running_ring, wait_for_ring
from tests.servers import wait_until

HAND_OVER_ELECTION_MS = 8000
KEYS = [f"key:{number}" for number in range(200)]


@pytest.fixture
def whole(five: Cluster) -> Iterator[Cluster]:
    """Five nodes that run and have all shards where they belong; they are made so again after the test."""
    wait_for_ring(five, leaders=True)
    yield five
    for node in five.nodes.values():
        node.resume()
    five.start()


def led_elsewhere(cluster: Cluster, ring: Ring, here: Node, prefix: str) -> tuple[str, Node]:
    """A key of a shard that ``here`` has no replica of, and the node that leads it."""
    key = ring.key_away_from(here, prefix)
    leader = ring.of(key).leader
    assert leader is not None
    return key, cluster[leader]


def serves(node: Node) -> bool:
    """Whether a node can write to every shard."""
    client = node.raw()
    return not error_of(client, "MSET", *(word for key in KEYS for word in (key, 1)))


def answers_with(client: RawClient, key: str, error: str) -> bool:
    """Whether a write ends with exactly this error ("" for none)."""
    return error_of(client, "SET", key, 1) == error


@contextmanager
def loaded(cluster: Cluster, prefix: str, seed: int) -> Iterator[None]:
    """All kinds of load, judged when the block ends; what the block does, they must survive."""
    nodes = list(cluster.nodes.values())
    with ExitStack() as loads:
        history = loads.enter_context(registers_and_locks(cluster, seed=seed, prefix=prefix))
        count = loads.enter_context(counting(cluster, seed=seed, prefix=f"{prefix}:count", clients=2))
        grown = loads.enter_context(growing(nodes, seed=seed, prefix=f"{prefix}:grown", clients=3))
        for load in (history, count, grown):
            load.goes_on()
        yield
        for load in (history, count, grown):
            load.goes_on()
    history.assert_linearizable()
    assert count.acknowledged
    assert grown.acknowledged
    for node in cluster.serving:
        count.assert_all_there(node)
        grown.assert_all_there(node)


@pytest.mark.parametrize("number", range(2))
def test_a_node_is_killed_and_comes_back(whole: Cluster, number: int) -> None:
    with loaded(whole, f"kill-{number}", 71 + number):
        victim = list(whole.nodes.values())[number]
        victim.kill()
        wait_until(lambda: all(serves(node) for node in whole.serving))
        victim.restart()
        wait_for_ring(whole)


def test_a_node_is_paused_and_wakes_up(whole: Cluster) -> None:
    with loaded(whole, "pause", 73):
        victim = whole["n4"]
        victim.pause()
        wait_until(lambda: all(serves(node) for node in whole.serving))
        victim.resume()
        wait_for_ring(whole)


def test_all_are_killed_and_come_back(whole: Cluster) -> None:
    with loaded(whole, "kill-all", 74):
        for node in whole.serving:
            node.kill()
        whole.start()
        wait_for_ring(whole)


def test_all_are_stopped_and_come_back(tmp_path: Path) -> None:
    with running_ring(tmp_path, 5) as cluster:
        with counting(cluster, seed=75, prefix="stopped", clients=3) as count:
            count.goes_on(200)
        before = wait_for_ring(cluster)
        assert [node.stop() for node in cluster.nodes.values()] == [0] * 5
        cluster.start()
        after = wait_for_ring(cluster)
        assert after.arrived(before) == 0
        for node in cluster.nodes.values():
            count.assert_all_there(node)


def test_two_of_five_are_lost(whole: Cluster) -> None:
    """Some shards lose their majority and say so; all others go on."""
    ring = wait_for_ring(whole)
    gone = ["n1", "n2"]
    for name in gone:
        whole[name].kill()
    client = whole["n5"].raw()
    lost = [row for row in ring.rows if len({*gone} & {*row.nodes}) == 2]
    for row in ring.rows:
        expected = f"CLUSTERDOWN no leader for shard {row.shard}" if row in lost else ""
        wait_until(partial(answers_with, client, ring.key_in(row.shard, "two-lost"), expected))
    whole.start()
    wait_until(lambda: all(serves(node) for node in whole.serving))


# What clients see of it


def test_blocked_clients_far_away_survive_a_change_of_leader(whole: Cluster) -> None:
    """They wait at a node that has no replica of the shard, and go on waiting when its leader is lost."""
    ring = wait_for_ring(whole)
    here = whole["n3"]
    lock, leader = led_elsewhere(whole, ring, here, "lock")
    queue = ring.key_in(ring.of(lock).shard, "queue")
    waiter, consumer = here.raw(), here.raw()
    looks = whole.others(here, leader)[0].raw()
    token = looks.call("LOCK.ACQUIRE", lock, "ann", "PX", 3_600_000)
    waiter.send("LOCK.ACQUIRE", lock, "bob", "BLOCK", 0)
    consumer.send("Q.POP", queue, "BLOCK", 0)
    wait_until(partial(has_waiters, looks, lock))
    wait_until(lambda: here.client().info("clients")["blocked_clients"] == 2)
    leader.kill()
    wait_until(lambda: not error_of(looks, "SET", ring.key_in(ring.of(lock).shard, "after"), 1))
    assert looks.call("LOCK.RELEASE", lock, "ann") == 1
    assert waiter.read() > token
    assert looks.call("Q.PUSH", queue, "job")
    assert consumer.read()[0][1] == b"job"
    assert waiter.call("LOCK.RELEASE", lock, "bob") == 1


def test_a_session_lock_far_away_outlives_leaders_and_ends_with_its_own_node(whole: Cluster) -> None:
    ring = wait_for_ring(whole)
    here = whole["n2"]
    lock, leader = led_elsewhere(whole, ring, here, "session")
    holder, looks = here.raw(), whole.others(here, leader)[0].raw()
    assert holder.call("LOCK.ACQUIRE", lock, "ann", "SESSION") > 0
    leader.kill()
    wait_until(lambda: not error_of(looks, "LOCK.ACQUIRE", lock, "bob"))
    assert looks.call("LOCK.ACQUIRE", lock, "bob") is None
    leader.restart()
    here.kill()
    here.restart()
    wait_until(lambda: isinstance(looks.call("LOCK.ACQUIRE", lock, "bob", "BLOCK", 100), int))


def test_calls_under_way_from_afar_end_when_the_leader_dies(whole: Cluster) -> None:
    """Each is answered, or refused in words that say whether it happened; none is carried out twice."""
    ring = wait_for_ring(whole)
    here = whole["n1"]
    key, leader = led_elsewhere(whole, ring, here, "under-way")
    clients = [here.raw() for _ in range(5)]
    for client in clients:
        for _ in range(50):
            client.send("INCR", key)
    leader.kill()
    replies = [client.read() for client in clients for _ in range(50)]
    counted = [reply for reply in replies if isinstance(reply, int)]
    refused = [str(reply) for reply in replies if not isinstance(reply, int)]
    assert len(set(counted)) == len(counted)
    assert all(error.startswith(("CLUSTERDOWN", "UNCERTAIN")) for error in refused), refused
    wait_until(lambda: not error_of(here.raw(), "GET", key))
    unsure = sum(error.startswith("UNCERTAIN") for error in refused)
    total = int(here.raw().call("GET", key) or 0)
    assert len(counted) <= total <= len(counted) + unsure


def test_a_node_that_stops_hands_its_shards_over(tmp_path: Path) -> None:
    """Nobody waits for an election."""
    patience = ("--election-timeout", str(HAND_OVER_ELECTION_MS), "--session-timeout", str(5 * HAND_OVER_ELECTION_MS))
    timing = (*patience, "--heartbeat-interval", "100")
    with running_ring(tmp_path, 3, *timing) as cluster:
        wait_for_ring(cluster, leaders=True)
        with counting(cluster, seed=76, prefix="handed", clients=3, nodes=[cluster["n1"], cluster["n3"]]) as count:
            count.goes_on()
            started_s = time.monotonic()
            assert cluster["n2"].stop() == 0
            wait_until(lambda: all(serves(node) for node in cluster.serving))
            assert time.monotonic() - started_s < HAND_OVER_ELECTION_MS / 1000
            assert "n2" not in ring_of(cluster["n1"]).leaders()
            count.goes_on()
        assert all(said.startswith("CLUSTERDOWN") for said in count.excuses), count.excuses
        cluster["n2"].restart()
        wait_for_ring(cluster, leaders=True)
