"""Owners on many nodes that wait for each other over many shards: one is told, the others go on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.clusters import Cluster, Node
from tests.rings import ring_of, wait_for_ring
from tests.servers import wait_until

LIFE = ("PX", 3_600_000)


def fields(info: str) -> dict[str, str]:
    """What INFO says, by name."""
    return dict(line.split(":", 1) for line in info.splitlines() if ":" in line)


class Owners:
    """``o0``, ``o1``, …: each holds a key of a shard of its own, through a node of its turn."""

    def __init__(self, nodes: Sequence[Node], count: int, prefix: str) -> None:
        ring = ring_of(nodes[0])
        self.names = [f"{prefix}-o{number}" for number in range(count)]
        self.keys = [ring.key_in(number % len(ring.rows), prefix) for number in range(count)]
        self.clients = [nodes[number % len(nodes)].raw() for number in range(count)]
        self._looks = nodes[0].raw()
        for client, key, name in zip(self.clients, self.keys, self.names, strict=True):
            assert client.call("LOCK.ACQUIRE", key, name, *LIFE) > 0

    def wait(self, *numbers: int) -> None:
        """Each of these begins to wait for what the next owner holds, one after the other."""
        for number in numbers:
            key = self.keys[(number + 1) % len(self.keys)]
            self.clients[number].send("LOCK.ACQUIRE", key, self.names[number], *LIFE, "BLOCK", 0)
            if number != numbers[-1]:
                self.wait_until_known(key)

    def wait_until_known(self, key: str) -> None:
        """Returns once somebody waits for the key."""
        wait_until(lambda: self._looks.call("LOCK.INFO", key)[-1])

    def assert_broken_at(self, victim: int) -> None:
        """The victim is told the cycle; as each lets go, the one before gets what it waits for."""
        count = len(self.keys)
        error = str(self.clients[victim].read())
        assert error.startswith("DEADLOCK "), error
        behind = {
            name: (key, other)
            for name, key, other in zip(
                self.names, [*self.keys[1:], self.keys[0]], [*self.names[1:], self.names[0]], strict=True
            )
        }
        steps = [f"{name} waits for {key} held by {other}" for name, (key, other) in behind.items()]
        assert sorted(error.removeprefix("DEADLOCK ").split(", ")) == sorted(steps)
        for number in [(victim - n) % count for n in range(count)]:
            if number != victim:
                assert self.clients[number].read() > 0
            assert self.clients[number].call("LOCK.RELEASE", self.keys[number], self.names[number]) == 1


@pytest.mark.parametrize("owners", [2, 3, 8])
def test_the_last_to_wait_is_told(five: Cluster, owners: int) -> None:
    ring = Owners(five.serving, owners, f"ring-of-{owners}")
    before = five["n1"].ask("LOCK.GRAPH")["deadlocks"]
    ring.wait(*range(owners))
    ring.assert_broken_at(owners - 1)
    graph = five["n4"].ask("LOCK.GRAPH")
    assert graph["deadlocks"] == before + 1
    assert graph["last"]["victim"] == ring.names[-1]
    assert graph["edges"] == []


def test_who_looked_for_them_is_gone(five: Cluster) -> None:
    """Before the cycle closes, and before anybody else is elected."""
    looks = five[fields(five["n1"].ask("INFO", "sepakat"))["system_leader"]]
    others = five.others(looks)
    ring = Owners(others, 4, "looker")
    ring.wait(0, 1, 2)
    ring.wait_until_known(ring.keys[3])
    looks.kill()
    ring.wait(3)
    ring.assert_broken_at(3)
    looks.restart()
    wait_for_ring(five, leaders=True)


def test_a_shard_has_another_leader(five: Cluster) -> None:
    """The one of the victim, before it is known that a cycle is closed."""
    shown = ring_of(five["n1"])
    leader = shown.rows[0].leader
    assert leader is not None
    others = five.others(five[leader])
    ring = Owners(others, 3, "shard")
    ring.wait(0, 1)
    ring.wait_until_known(ring.keys[2])
    five[leader].kill()
    ring.wait(2)  # for the key in the first shard
    ring.assert_broken_at(2)
    five[leader].restart()
    wait_for_ring(five, leaders=True)
