"""What a node tells of itself and of the others, and what it knows when it comes up."""

from __future__ import annotations

from cluster.node import Node
from cluster.shard import Shard
from cluster.status import status_of
from tests.scenarios.cluster import Cluster


def three() -> Cluster:
    """Three nodes that n1 leads, with nothing to do."""
    cluster = Cluster(3)
    cluster.elect("n1")
    cluster.pass_ms(400)
    cluster.events.clear()
    return cluster


def node(cluster: Cluster, name: str) -> Node:
    return cluster.hosts[name].node


def shard(cluster: Cluster, name: str) -> Shard:
    """The only shard, on a node."""
    return cluster.hosts[name].shard()


# What is told of it


def test_every_node_tells_the_same_story() -> None:
    cluster = three()
    cluster.hosts["n1"].write("SET x 1")
    cluster.pass_ms(200)
    for name in cluster.hosts:
        status = status_of(node(cluster, name))
        assert (status.node, status.cluster, status.address) == (name, "scenario", f"{name}:1")
        assert (status.leader, status.term, status.voters) == ("n1", 1, ("n1", "n2", "n3"))
        assert (status.state, status.left, status.paused) == ("up", False, False)
        assert (status.leading, status.replicas) == (1 if name == "n1" else 0, 1)
        (shard,) = status.shards
        assert (shard.shard, shard.leader, shard.term, sorted(shard.voters)) == (0, "n1", 1, ["n1", "n2", "n3"])
        assert shard.role == ("leader" if name == "n1" else "follower")
        assert shard.commit == shard.applied == shard.last_index
        assert shard.matches == dict.fromkeys(cluster.hosts, shard.last_index)
        assert [peer.id for peer in status.peers] == [other for other in cluster.hosts if other != name]
        for peer in status.peers:
            assert peer.reachable
            assert peer.role == ("leader" if peer.id == "n1" else "follower")
            assert (peer.leading, peer.replicas) == (1 if peer.id == "n1" else 0, 1)
            assert peer.state == "up"
            assert peer.last_contact_ms is not None
            assert peer.last_contact_ms <= 150
            assert peer.round_trip_us is not None
            assert 0 < peer.round_trip_us <= 5000


def test_a_peer_that_is_gone_is_told_so() -> None:
    cluster = three()
    cluster.crash("n3")
    cluster.pass_ms(1000)
    for name in ("n1", "n2"):
        (gone,) = [peer for peer in status_of(node(cluster, name)).peers if peer.id == "n3"]
        assert not gone.reachable
        assert gone.last_contact_ms is not None
        assert gone.last_contact_ms > 500


def test_the_members_folders_are_learned_once_they_are_met() -> None:
    cluster = three()
    for name, peer in (("n1", "n2"), ("n1", "n3")):
        node(cluster, name).meet(peer, f"disk of {peer}")
    cluster.pass_ms(1000)
    for name in cluster.hosts:
        members = node(cluster, name).members.members
        assert {one.id: one.disk for one in members.values()} == {one: f"disk of {one}" for one in cluster.hosts}
        assert node(cluster, name).disk_of("n2") == "disk of n2"


def test_a_node_that_comes_back_elsewhere_is_found_there() -> None:
    cluster = three()
    for peer in ("n2", "n3"):
        node(cluster, "n1").meet(peer, f"disk of {peer}")
    cluster.pass_ms(1000)
    cluster.crash("n3")
    cluster.hosts["n3"].address = "elsewhere:9"
    cluster.hosts["n3"].start(cluster.now_ms)
    cluster.pass_ms(1000)
    assert node(cluster, "n1").addresses() == {"n2": "n2:1", "n3": "elsewhere:9"}
    assert node(cluster, "n2").addresses()["n3"] == "elsewhere:9"


# Coming up


def test_nothing_is_carried_out_before_it_is_known_to_be_committed() -> None:
    cluster = three()
    cluster.hosts["n1"].write("SET x 1")
    cluster.pass_ms(100)
    for name in list(cluster.hosts):
        cluster.crash(name)
    cluster.hosts["n2"].start(cluster.now_ms)
    cluster.pass_ms(1000)
    assert shard(cluster, "n2").applied_index == 0
    assert shard(cluster, "n2").last_index > 1
    cluster.hosts["n3"].start(cluster.now_ms)
    cluster.pass_ms(1500)
    assert shard(cluster, "n2").machine.keyspace.values == {b"x": b"1"}


def test_a_node_that_is_alone_carries_out_its_log_in_its_first_turn() -> None:
    cluster = Cluster(1)
    cluster.pass_ms(5)
    cluster.hosts["n1"].write("SET x 1")
    cluster.turn("n1")
    cluster.crash("n1")
    cluster.hosts["n1"].start(cluster.now_ms)
    assert shard(cluster, "n1").machine.keyspace.values == {b"x": b"1"}
    cluster.hosts["n1"].checkpoint()
    cluster.crash("n1")
    cluster.hosts["n1"].start(cluster.now_ms)
    assert shard(cluster, "n1").machine.keyspace.values == {b"x": b"1"}
