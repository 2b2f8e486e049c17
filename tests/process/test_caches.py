"""What clients read through the caches of real nodes, while these are killed, stopped and cut off, is never stale."""

from __future__ import annotations

import os
import time
from functools import partial

import pytest

from tests.clusters import Cluster, Node
from tests.histories import History, cached_registers
from tests.servers import wait_until

SOAK_SECONDS = float(os.environ.get("CACHE_SOAK_SECONDS", "0"))
SOAK_SEED = int(os.environ.get("CACHE_SOAK_SEED", "1"))

REST_S = 0.002


def _leads(cluster: Cluster, node: Node) -> bool:
    return cluster.leader() is node


def holds(node: Node, key: str, *states: str) -> bool:
    """Whether the node's line is in one of these states."""
    return node.ask("CACHE.STATE", key) in states


def test_a_line_is_owned_by_one_node_or_shared_by_several(three: Cluster) -> None:
    first, second, third = three.nodes.values()
    assert first.ask("CACHE.SET", "line", "1") == "OK"
    assert holds(first, "line", "M", "E")
    assert second.ask("CACHE.GET", "line") == "1"
    assert holds(second, "line", "S")
    assert holds(first, "line", "S")
    assert third.ask("CACHE.SET", "line", "2") == "OK"
    assert holds(first, "line", "I")
    assert holds(second, "line", "I")
    assert first.ask("GET", "line") == "2", "a plain command sees what a cache has not written back"
    assert holds(third, "line", "S", "I")
    assert second.ask("DEL", "line") == 1
    assert third.ask("CACHE.GET", "line") is None


def test_a_history_of_caches_alone(three: Cluster) -> None:
    with cached_registers(three, seed=31, prefix="calm", durable=False, rest_s=REST_S) as history:
        history.goes_on(1000)
    history.assert_linearizable()


def test_a_history_over_changes_of_leader(three: Cluster) -> None:
    """Nobody dies, so nothing that was written to a cache is lost, either."""
    with cached_registers(three, seed=32, prefix="hand-over", durable=False, rest_s=REST_S) as history:
        for _ in range(4):
            history.goes_on(100)
            follower = three.others(three.wait_for_leader())[0]
            follower.ask("CLUSTER", "FAILOVER")
            wait_until(partial(_leads, three, follower))
    history.assert_linearizable()


@pytest.mark.parametrize("whom", ["leader", "follower"])
def test_a_history_over_pauses(three: Cluster, whom: str) -> None:
    with cached_registers(three, seed=33, prefix=f"pause-{whom}", durable=True, rest_s=REST_S) as history:
        for pause_s in (0.1, 0.4, 1.5):
            history.goes_on(100)
            leader = three.wait_for_leader()
            node = leader if whom == "leader" else three.others(leader)[0]
            node.pause()
            time.sleep(pause_s)  # the pause itself
            node.resume()
    history.assert_linearizable()


@pytest.mark.parametrize("whom", ["leader", "follower"])
def test_a_history_over_kills(three: Cluster, whom: str) -> None:
    with cached_registers(three, seed=34, prefix=f"kill-{whom}", durable=True, rest_s=REST_S) as history:
        for _ in range(3):
            history.goes_on(100)
            leader = three.wait_for_leader()
            node = leader if whom == "leader" else three.others(leader)[0]
            node.kill()
            history.goes_on(100)
            node.restart()
    history.assert_linearizable()


@pytest.mark.parametrize("silent", [False, True], ids=["closed", "silent"])
def test_a_history_over_cuts(three: Cluster, silent: bool) -> None:
    """Whoever is cut off with lines of its cache may use them no longer than its lease."""
    with cached_registers(three, seed=35, prefix=f"cut-{silent}", durable=True, rest_s=REST_S) as history:
        for number in range(3):
            history.goes_on(100)
            leader = three.wait_for_leader()
            cut_off = leader if number % 2 else three.others(leader)[0]
            three.network.isolate(cut_off.name, silent=silent)
            three.wait_for_leader(three.others(cut_off))
            history.goes_on(100)
            three.network.heal()
            three.wait_for_leader()
    history.assert_linearizable()


def test_a_write_waits_for_a_dead_reader_no_longer_than_its_lease(three: Cluster) -> None:
    leader = three.wait_for_lasting_leader()
    dead, alive = three.others(leader)
    assert leader.ask("SET", "shared-line", "1") == "OK"
    for node in (dead, alive):
        assert node.ask("CACHE.GET", "shared-line") == "1"
    dead.kill()
    client = alive.raw()
    assert client.call("SET", "shared-line", "2") == b"OK", "it was answered once the lease had run out"
    assert leader.ask("CACHE.GET", "shared-line") == "2"
    dead.restart()
    wait_until(lambda: dead.ask("CACHE.GET", "shared-line") == "2")


@pytest.mark.skipif(not SOAK_SECONDS, reason="a soak: CACHE_SOAK_SECONDS says how long")
def test_a_soak(three: Cluster) -> None:
    """Every fault above again and again, each time judged."""
    end_s = time.monotonic() + SOAK_SECONDS
    number = 0
    while time.monotonic() < end_s:
        number += 1
        with cached_registers(
            three, seed=SOAK_SEED * 1000 + number, prefix=f"soak-{SOAK_SEED}-{number}", durable=True, rest_s=REST_S
        ) as history:
            _one_fault(three, history, number)
        history.assert_linearizable()


def _one_fault(three: Cluster, history: History, number: int) -> None:
    history.goes_on(100)
    leader = three.wait_for_leader()
    node = leader if number % 2 else three.others(leader)[0]
    match number % 5:
        case 0:
            node.kill()
            history.goes_on(100)
            node.restart()
        case 1 | 2:
            node.pause()
            time.sleep(0.1 * (number % 17))  # the pause itself
            node.resume()
        case 3:
            three.network.isolate(node.name, silent=number % 3 == 0)
            history.goes_on(100)
            three.network.heal()
        case _:
            three.others(leader)[1].ask("CLUSTER", "FAILOVER")
    history.goes_on(50)
    three.settle()
