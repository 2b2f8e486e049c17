"""What happens to clusters, one thing at a time, each undone at its end: for queues under traffic, and for soaks."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable

import hiredis

from tests.clusters import Cluster, Node, error_of
from tests.rings import ring_of

LASTS_SECONDS = 1.5
"""Two election timeouts: how long there is trouble."""

Trouble = Callable[[Cluster, random.Random], str]
"""Does it, and undoes it; says what it was."""


def busiest(cluster: Cluster, chance: random.Random) -> Node:
    """The node that leads most shards, as some node knows."""
    while True:
        with contextlib.suppress(OSError):
            leaders = ring_of(chance.choice(cluster.serving)).leaders()
            known = [(count, name) for name, count in leaders.items() if cluster[name].serves]
            if known:
                return cluster[max(known)[1]]


def kill_a_leader(cluster: Cluster, chance: random.Random) -> str:
    node = busiest(cluster, chance)
    node.kill()
    time.sleep(LASTS_SECONDS)
    node.restart()
    return f"{node} was killed"


def kill_all(cluster: Cluster, chance: random.Random) -> str:
    for node in cluster.serving:
        node.kill()
    cluster.start()
    return "all were killed"


def stop_a_leader(cluster: Cluster, chance: random.Random) -> str:
    """SIGSTOP and SIGCONT."""
    node = busiest(cluster, chance)
    node.pause()
    time.sleep(LASTS_SECONDS)
    node.resume()
    return f"{node} was stopped"


def isolate(cluster: Cluster, chance: random.Random) -> str:
    node, silent = busiest(cluster, chance), chance.random() < 0.5
    cluster.network.isolate(node.name, silent=silent)
    time.sleep(LASTS_SECONDS)
    cluster.network.heal()
    return f"{node} was cut off{' silently' if silent else ''}"


def deafen(cluster: Cluster, chance: random.Random) -> str:
    """It sends, and hears nobody."""
    node, silent = busiest(cluster, chance), chance.random() < 0.5
    cluster.network.cut_all([(other.name, node.name) for other in cluster.others(node)], silent=silent)
    time.sleep(LASTS_SECONDS)
    cluster.network.heal()
    return f"{node} heard nobody{' silently' if silent else ''}"


def mute(cluster: Cluster, chance: random.Random) -> str:
    """It hears, and nobody hears it."""
    node, silent = busiest(cluster, chance), chance.random() < 0.5
    cluster.network.cut_all([(node.name, other.name) for other in cluster.others(node)], silent=silent)
    time.sleep(LASTS_SECONDS)
    cluster.network.heal()
    return f"nobody heard {node}{' silently' if silent else ''}"


def slow_links(cluster: Cluster, chance: random.Random) -> str:
    cluster.network.delay(chance.random() * 0.05)
    time.sleep(LASTS_SECONDS)
    cluster.network.heal()
    return "links were slow"


def hand_over(cluster: Cluster, chance: random.Random) -> str:
    """CLUSTER FAILOVER of many shards, to whoever is asked and has a replica."""
    done = 0
    for node in cluster.serving:
        with contextlib.suppress(OSError, hiredis.HiredisError):
            ring = ring_of(node)
            client = node.raw()
            for row in chance.sample(ring.rows, len(ring.rows) // 2):
                if node.name in row.nodes:
                    done += not error_of(client, "CLUSTER", "FAILOVER", row.shard)
    return f"{done} shards were handed over"


TROUBLES: tuple[Trouble, ...] = (
    kill_a_leader, kill_all, stop_a_leader, isolate, deafen, mute, slow_links, hand_over,
)  # fmt: skip
