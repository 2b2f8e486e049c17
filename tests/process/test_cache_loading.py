"""One client loads a key, and all the others of the whole cluster wait for that, whatever becomes of the one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.clusters import UNHURRIED, Cluster, Node, lent, new_cluster
from tests.raw_client import HANG_SECONDS, RawClient
from tests.rings import wait_for_ring
from tests.servers import wait_until
from tests.soak_caches import CacheSoak

SESSION_TIMEOUT_MS = "6000"
"""So long that no node that stands still for a second, while another is elected, closes who waits there."""

LOAD = ("PX", 600_000)
"""Longer than any test: a token goes to the next because of what was done, and for nothing else."""

WAITERS_PER_NODE = 4
LOOK_SECONDS = 0.05
_keys = itertools.count(1)


@pytest.fixture(scope="module", params=[3, 5])
def one_cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    flags = (*UNHURRIED, "--session-timeout", SESSION_TIMEOUT_MS)
    folder = tmp_path_factory.mktemp("loading")
    with new_cluster(folder, request.param, *flags, shape=CacheSoak.shape, direct=True) as cluster:
        cluster.start()
        wait_for_ring(cluster)
        yield cluster


@pytest.fixture
def cluster(one_cluster: Cluster) -> Iterator[Cluster]:
    """Nodes that run, whole, whatever the test before did to them."""
    one_cluster.start()
    wait_for_ring(one_cluster)
    with lent(one_cluster):
        yield one_cluster


@pytest.fixture
def key(cluster: Cluster) -> str:
    """One that nobody has used, of a shard that the last of five nodes has no replica of."""
    prefix = f"page:{next(_keys)}"
    return wait_for_ring(cluster).key_away_from(cluster["n5"], prefix) if "n5" in cluster.nodes else prefix


class Line:
    """Clients of these nodes that fetch the same key, in this order."""

    def __init__(self, key: str, nodes: Sequence[Node]) -> None:
        self.key = key
        self.waiting = [node.raw() for node in nodes for _ in range(WAITERS_PER_NODE)]
        for client in self.waiting:
            client.send("CACHE.FETCH", key, *LOAD)

    def next_loader(self) -> tuple[RawClient, int]:
        """Who was given the next token, and the token; the others go on waiting."""
        found: list[tuple[RawClient, int]] = []

        def given() -> bool:
            for client in self.waiting:
                client.socket.settimeout(LOOK_SECONDS)
                try:
                    value, token = client.read()
                except TimeoutError:
                    continue
                finally:
                    client.socket.settimeout(HANG_SECONDS)
                assert value is None
                found.append((client, token))
                self.waiting.remove(client)
                return True
            return False

        wait_until(given)
        return found[0]

    def replies(self) -> list[Any]:
        """What all who wait are told."""
        return [client.read() for client in self.waiting]


def blocked(node: Node) -> int:
    """How many of the node's clients wait."""
    return next(
        int(line.partition(":")[2]) for line in node.ask("INFO", "clients").splitlines() if line.startswith("blocked")
    )


def stand(line: Line, nodes: Sequence[Node]) -> None:
    """Returns when all of the line wait."""
    wait_until(lambda: sum(blocked(node) for node in nodes) == len(line.waiting))


def load(client: RawClient, key: str) -> int:
    """The token this client is given for a key that nobody loads."""
    value, token = client.call("CACHE.FETCH", key, *LOAD)
    assert value is None
    assert isinstance(token, int)
    return token


def test_of_many_who_ask_at_once_one_loads(cluster: Cluster, key: str) -> None:
    nodes = list(cluster.nodes.values())
    line = Line(key, nodes)
    loader, token = line.next_loader()
    stand(line, nodes)
    assert loader.call("CACHE.FILL", key, token, "loaded") == b"OK"
    assert line.replies() == [[b"loaded", None]] * len(line.waiting)
    assert [node.ask("CACHE.GET", key) for node in nodes] == ["loaded"] * len(nodes)


def test_the_loader_s_connection_is_closed(cluster: Cluster, key: str) -> None:
    nodes = list(cluster.nodes.values())
    first = nodes[-1].raw()
    token = load(first, key)
    line = Line(key, nodes)
    stand(line, nodes)
    first.reset()
    second, next_token = line.next_loader()
    assert next_token > token
    late = nodes[0].raw()
    assert late.call("CACHE.FILL", key, token, "late") is None
    assert late.call("GET", key) is None, "it was refused"
    second.socket.close()
    third, last_token = line.next_loader()
    assert last_token > next_token
    assert third.call("CACHE.FILL", key, last_token, "loaded") == b"OK"
    assert line.replies() == [[b"loaded", None]] * len(line.waiting)
    assert late.call("CACHE.FILL", key, next_token, "late") is None
    assert late.call("CACHE.GET", key) == b"loaded"


@pytest.mark.parametrize("leads", [True, False])
def test_the_loader_s_node_is_killed(cluster: Cluster, key: str, leads: bool) -> None:
    """It led the shard, or did not; what its client had loaded and brings to another node is refused."""
    leader = wait_for_ring(cluster).of(key).leader
    victim = next(node for name, node in cluster.nodes.items() if (name == leader) == leads)
    others = cluster.others(victim)
    token = load(victim.raw(), key)
    line = Line(key, others)
    stand(line, others)
    victim.kill()
    loader, next_token = line.next_loader()
    assert next_token > token
    assert others[0].insist("CACHE.FILL", key, token, "late") is None
    assert loader.call("CACHE.FILL", key, next_token, "loaded") == b"OK"
    assert line.replies() == [[b"loaded", None]] * len(line.waiting)
    victim.restart()
    assert victim.insist("CACHE.FETCH", key) == ["loaded", None]


def test_the_loader_is_too_slow(cluster: Cluster, key: str) -> None:
    nodes = list(cluster.nodes.values())
    slow = nodes[0].raw()
    value, token = slow.call("CACHE.FETCH", key, "PX", 300)
    assert value is None
    line = Line(key, nodes)
    loader, next_token = line.next_loader()
    assert slow.call("CACHE.FILL", key, token, "late") is None
    assert loader.call("CACHE.FILL", key, next_token, "loaded") == b"OK"
    assert line.replies() == [[b"loaded", None]] * len(line.waiting)


def test_any_write_ends_the_wait(cluster: Cluster, key: str) -> None:
    """And what is deleted again meanwhile does not come back older."""
    nodes = list(cluster.nodes.values())
    loader = nodes[0].raw()
    token = load(loader, key)
    line = Line(key, nodes)
    stand(line, nodes)
    assert nodes[-1].ask("CACHE.SET", key, "written") == "OK"
    assert line.replies() == [[b"written", None]] * len(line.waiting)
    assert nodes[1].ask("CACHE.DEL", key) == 1
    assert loader.call("CACHE.FILL", key, token, "old") is None
    assert nodes[-1].ask("CACHE.GET", key) is None
