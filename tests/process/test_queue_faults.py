"""Queues of one part and of eight, and dead letters for another shard, while everything happens to real nodes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest

from tests.clusters import UNHURRIED, Cluster, lent, new_cluster, sepakat
from tests.queue_traffic import PATIENT_VISIBILITY_MS, Plan, three_queues, traffic
from tests.rings import REPLICAS, ring_of, wait_for_ring
from tests.troubles import (
    Trouble,
    deafen,
    hand_over,
    isolate,
    kill,
    kill_all,
    mute,
    slow_links,
    stop,
)

SHARDS = 16
_runs = itertools.count(1)


def ring_cluster(tmp_path_factory: pytest.TempPathFactory, size: int) -> Iterator[Cluster]:
    """Nodes with links that can be cut, of many shards."""
    shape = ("--shards", str(SHARDS), "--replicas", str(REPLICAS))
    with new_cluster(tmp_path_factory.mktemp("queues"), size, *UNHURRIED, shape=shape) as cluster:
        cluster.start()
        wait_for_ring(cluster)
        yield cluster


@pytest.fixture(scope="module", params=[3, 5])
def one_cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    yield from ring_cluster(tmp_path_factory, request.param)


@pytest.fixture
def cluster(one_cluster: Cluster) -> Iterator[Cluster]:
    """Nodes that run, whole, whatever the test before did to them."""
    one_cluster.network.heal()
    for node in one_cluster.nodes.values():
        node.resume()
    one_cluster.start()
    wait_for_ring(one_cluster)
    with lent(one_cluster):
        yield one_cluster


def queues(cluster: Cluster) -> list[Plan]:
    """Three that no other test uses."""
    return three_queues(ring_of(cluster["n1"]), f"{next(_runs)}")


def test_in_peace_nothing_comes_twice(cluster: Cluster) -> None:
    with traffic(cluster, queues(cluster), seed=1, visibility_ms=PATIENT_VISIBILITY_MS) as running:
        running.goes_on(200)
        running.finish()
        running.check(calm=True)


@pytest.mark.parametrize("trouble", [kill, kill_all, stop, isolate, deafen, mute, slow_links, hand_over])
def test_nothing_is_lost_or_out_of_order(cluster: Cluster, trouble: Trouble) -> None:
    chance = random.Random(trouble.__name__)
    with traffic(cluster, queues(cluster), seed=2) as running:
        running.goes_on()
        for _ in range(2):
            running.fault(f"begin of {trouble.__name__}")
            running.fault(trouble(cluster, chance))
            running.goes_on()
        running.finish()
        running.check()


def test_shards_move_under_queues(cluster: Cluster) -> None:
    """A node joins, and is removed again."""
    members = cluster.serving
    name = f"n{len(members) + 1}"
    with traffic(cluster, queues(cluster), seed=3) as running:
        running.goes_on()
        new = cluster.newcomer(name, cluster["n1"])
        running.fault(f"{name} joins")
        new.start()
        new.wait_until_ready()
        running.joined_by(new)
        assert wait_for_ring(cluster).replicas()[name]
        running.goes_on()
        running.fault(f"{name} leaves")
        running.left_by(new)
        done = sepakat("remove", name, "--port", str(cluster["n2"].port))
        assert done.returncode == 0, done.stderr
        wait_for_ring(cluster, members)
        running.goes_on()
        new.stop()
        running.finish()
        running.check()
    del cluster.nodes[name]
