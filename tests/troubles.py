"""What happens to clusters, one thing at a time, each undone at its end: for tests under traffic, and for soaks.

What happens to one node happens to the one that leads most shards, unless another is named.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import hiredis

from tests.clusters import Cluster, Node, error_of, sepakat
from tests.rings import ring_of, wait_for_ring

LASTS_SECONDS = 1.5
"""Two election timeouts: how long there is trouble."""

Trouble = Callable[[Cluster, random.Random], str]
"""Does it, and undoes it; says what it was."""


class Blow(Protocol):
    """A trouble of one node."""

    __name__: str

    def __call__(self, cluster: Cluster, chance: random.Random, node: Node | None = None) -> str: ...


def busiest(cluster: Cluster, chance: random.Random) -> Node:
    """The node that leads most shards, as some node knows."""
    while True:
        with contextlib.suppress(OSError):
            leaders = ring_of(chance.choice(cluster.serving)).leaders()
            known = [(count, name) for name, count in leaders.items() if cluster[name].serves]
            if known:
                return cluster[max(known)[1]]


def kill(cluster: Cluster, chance: random.Random, node: Node | None = None) -> str:
    node = node or busiest(cluster, chance)
    node.kill()
    time.sleep(LASTS_SECONDS)
    node.restart()
    return f"{node} was killed"


def kill_all(cluster: Cluster, chance: random.Random) -> str:
    for node in cluster.serving:
        node.kill()
    cluster.start()
    return "all were killed"


def stop(cluster: Cluster, chance: random.Random, node: Node | None = None) -> str:
    """SIGSTOP and SIGCONT."""
    node = node or busiest(cluster, chance)
    node.pause()
    time.sleep(LASTS_SECONDS)
    node.resume()
    return f"{node} was stopped"


def stop_briefly(cluster: Cluster, chance: random.Random, node: Node | None = None) -> str:
    """For about as long as a lease of a cache, or a leader's."""
    node, pause_s = node or busiest(cluster, chance), chance.uniform(0.05, 0.8)
    node.pause()
    time.sleep(pause_s)
    node.resume()
    return f"{node} was stopped for {pause_s:.2f} s"


def isolate(cluster: Cluster, chance: random.Random, node: Node | None = None) -> str:
    node, silent = node or busiest(cluster, chance), chance.random() < 0.5
    cluster.network.isolate(node.name, silent=silent)
    time.sleep(LASTS_SECONDS)
    cluster.network.heal()
    return f"{node} was cut off{' silently' if silent else ''}"


def deafen(cluster: Cluster, chance: random.Random, node: Node | None = None) -> str:
    """It sends, and hears nobody."""
    node, silent = node or busiest(cluster, chance), chance.random() < 0.5
    cluster.network.cut_all([(other.name, node.name) for other in cluster.others(node)], silent=silent)
    time.sleep(LASTS_SECONDS)
    cluster.network.heal()
    return f"{node} heard nobody{' silently' if silent else ''}"


def mute(cluster: Cluster, chance: random.Random, node: Node | None = None) -> str:
    """It hears, and nobody hears it."""
    node, silent = node or busiest(cluster, chance), chance.random() < 0.5
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
    kill, kill_all, stop, isolate, deafen, mute, slow_links, hand_over,
)  # fmt: skip

BLOWS: tuple[Blow, ...] = (kill, stop, stop_briefly, isolate, deafen, mute)


def mend(cluster: Cluster) -> None:
    """All nodes run and all links hold."""
    cluster.network.heal()
    for node in cluster.nodes.values():
        node.resume()
    cluster.start()


@contextlib.contextmanager
def guest(cluster: Cluster, members: Sequence[Node], name: str) -> Iterator[Node]:
    """A node that joined these, which must be whole, and is removed again when the block ends; it answers."""
    new = cluster.newcomer(name, members[0], "--node-id", name)
    new.start()
    new.wait_until_ready()
    yield new
    done = sepakat("remove", new.name, "--port", str(members[1].port))
    assert done.returncode == 0, done.stderr
    wait_for_ring(cluster, members)
    new.stop()
    del cluster.nodes[new.name]
