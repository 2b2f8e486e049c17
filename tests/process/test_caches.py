"""Caches of real nodes: who holds what, what ends it, and who sees what is not written back yet."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.clusters import LONG_LEASES, Cluster, Node, calm_cluster
from tests.servers import wait_until
from tests.stages import PASSING, insist


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes, all there, that lose no line for having stood still for a moment."""
    with calm_cluster(tmp_path_factory.mktemp("patient"), 3, *LONG_LEASES) as cluster:
        yield cluster


def holds(node: Node, key: str, *states: str) -> bool:
    """Whether the node's line is in one of these states."""
    return node.ask("CACHE.STATE", key) in states


def test_a_line_is_owned_by_one_node_or_shared_by_several(patient: Cluster) -> None:
    first, second, third = patient.nodes.values()
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


def test_a_write_waits_for_a_dead_reader_no_longer_than_its_lease(three: Cluster) -> None:
    leader = three.wait_for_lasting_leader()
    dead, alive = three.others(leader)
    assert leader.insist("SET", "shared-line", "1") == "OK"
    for node in (dead, alive):
        assert node.insist("CACHE.GET", "shared-line") == "1"
    dead.kill()
    client = alive.raw()
    assert insist(client, "SET", "shared-line", "2") == b"OK", "it was answered once the lease had run out"
    assert leader.insist("CACHE.GET", "shared-line") == "2"
    dead.restart()
    wait_until(lambda: dead.insist("CACHE.GET", "shared-line") == "2")


def test_copies_end_with_their_key(three: Cluster) -> None:
    """As soon as one node knows that it is gone, so do all."""
    nodes = list(three.nodes.values())
    assert nodes[0].insist("CACHE.SET", "short", "v", "PX", "700") == "OK"
    clients = [node.raw() for node in nodes]
    while all(insist(client, "CACHE.GET", "short") == b"v" for client in clients):
        pass
    assert [insist(client, "CACHE.GET", "short") for client in clients] == [None] * len(clients)
    assert nodes[1].insist("GET", "short") is None


def test_who_is_stopped_with_lines_says_nothing_old(three: Cluster) -> None:
    """Its clients asked before others wrote, and are answered after: what it held is not what it says."""
    leader = three.wait_for_lasting_leader()
    stopped, other = three.others(leader)
    assert leader.insist("SET", "held", "old") == "OK"
    client = stopped.raw()
    assert insist(client, "CACHE.GET", "held") == b"old"
    stopped.pause()
    assert other.insist("CACHE.SET", "held", "new", "SYNC") == "OK", "it waited for the lease to end"
    client.send("CACHE.GET", "held")
    stopped.resume()
    said = client.read()
    assert said == b"new" or str(said).startswith(PASSING), said
    assert insist(client, "CACHE.GET", "held") == b"new"


def test_what_lists_keys_sees_a_cached_write_once_it_is_written_back(patient: Cluster) -> None:
    node, other, _ = patient.nodes.values()
    settings = [one.raw() for one in patient.nodes.values()]
    for client in settings:
        assert client.call("CONFIG", "SET", "cache-writeback-ms", 3_600_000) == b"OK"
    keys = node.ask("DBSIZE")
    assert node.ask("CACHE.SET", "listed", "v") == "OK"
    assert holds(node, "listed", "M")
    for one in (node, other):
        assert one.ask("DBSIZE") == keys
        assert one.ask("KEYS", "liste[d]") == []
        assert one.ask("SCAN", 0, "MATCH", "liste[d]", "COUNT", 100_000)[1] == []
    assert other.ask("EXISTS", "listed") == 1, "whoever names it sees it"
    for one in (node, other):
        wait_until(partial(_lists, one, "listed"))
        assert one.ask("DBSIZE") == keys + 1
    for client in settings:
        assert client.call("CONFIG", "SET", "cache-writeback-ms", 100) == b"OK"


def _lists(node: Node, key: str) -> bool:
    return bool(node.ask("KEYS", f"{key}*") == [key])
