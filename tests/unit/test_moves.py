"""Each node's part in moving shards: what is reported, who is marked, and the steps of those that lead."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cluster.moves import ARRIVING_MAX, STEADY_MS
from cluster.node import Node
from cluster.raft.messages import Append, Forward
from cluster.shard import FORGOTTEN_MS
from cluster.status import ring_of, status_of
from tests.scenarios.cluster import Cluster
from tests.scenarios.host import Asked, Shape
from tests.unit.far import Fates

TIMEOUT_MS = 3_000.0


def cluster_of(size: int, shards: int = 4, replicas: int = 3) -> Cluster:
    """Nodes with the shards they should have, each led by whom it should be, and all of that known to all."""
    cluster = Cluster(size, Shape(shards, replicas, TIMEOUT_MS))
    until(cluster, lambda: all(row.leader == row.preferred for node in nodes(cluster) for row in ring_of(node)))
    until(cluster, lambda: all(len(node.atlas.places) == shards for node in nodes(cluster)))
    return cluster


def nodes(cluster: Cluster) -> list[Node]:
    return [host.node for host in cluster.hosts.values() if host.up and not host.stopped]


def until(cluster: Cluster, holds: Callable[[], bool], ms: int = 30_000) -> None:
    """Lets time pass until something is so."""
    for _ in range(0, ms, 10):
        if holds():
            return
        cluster.pass_ms(10)
    raise AssertionError("it did not come to be so")


def voters(cluster: Cluster, number: int) -> list[str]:
    """The voters of a shard, as its leader knows them."""
    leader = cluster.leader(number)
    assert leader is not None
    return sorted(cluster.hosts[leader].node.shards[number].raft.config.voters)


def in_place(cluster: Cluster) -> bool:
    """Whether every shard is where it should be, and nowhere else, as far as anybody knows."""
    for node in nodes(cluster):
        for row in ring_of(node):
            shard = node.shards[row.shard]
            if row.moving or row.leader != row.preferred or (not shard.member and shard.raft.log.last_index):
                return False
    return True


def told(cluster: Cluster) -> list[str]:
    """What was agreed on since the last look, of shards."""
    events, cluster.events[:] = list(cluster.events), []
    return [line.partition(": ")[2] for line in events if "has agreed: shard" in line]


# What is reported


def test_where_each_shard_is_is_known_everywhere() -> None:
    cluster = cluster_of(5)
    for number in range(4):
        places = [node.atlas.place(number) for node in nodes(cluster)]
        assert sorted(places[0].voters) == voters(cluster, number)
        assert places == [places[0]] * 5


def test_a_report_that_was_lost_is_repeated() -> None:
    cluster = cluster_of(3, shards=1)
    (place,) = {node.atlas.place(0) for node in nodes(cluster)}
    fates = cluster.fate = Fates()
    leader = cluster.leader()
    assert leader is not None
    shard = cluster.hosts[leader].shard()
    assert shard.raft.leading is not None
    system = next(node.name for node in nodes(cluster) if node.system.raft.leading is not None)
    if system != leader:
        fates.lose(Forward, to=system)
    shard.raft.leading.change(shard.raft.config.without(next(one for one in place.voters if one != leader)))
    cluster.turn(leader)
    cluster.pass_ms(600)
    fates.mend()
    until(cluster, lambda: all(node.atlas.place(0).index > place.index for node in nodes(cluster)), 5_000)


# Who is lost


def test_who_is_silent_for_long_is_lost_and_its_shards_go_to_others() -> None:
    cluster = cluster_of(4, shards=2)
    gone = voters(cluster, 0)[0]
    cluster.crash(gone)
    cluster.pass_ms(TIMEOUT_MS - 500)
    assert all(node.atlas.marks.lost == () for node in nodes(cluster))
    until(cluster, lambda: all(node.atlas.marks.lost == (gone,) for node in nodes(cluster)), 2_000)
    until(cluster, lambda: all(gone not in voters(cluster, number) for number in range(2)))
    assert all(len(voters(cluster, number)) == 3 for number in range(2))
    assert all(peer.state == "lost" for node in nodes(cluster) for peer in status_of(node).peers if peer.id == gone)


def test_who_is_back_is_up_again_and_has_its_shards() -> None:
    cluster = cluster_of(4, shards=2)
    before = [voters(cluster, number) for number in range(2)]
    gone = before[0][0]
    cluster.crash(gone)
    until(cluster, lambda: all(gone not in voters(cluster, number) for number in range(2)))
    cluster.start(gone)
    until(cluster, lambda: all(node.atlas.marks.lost == () for node in nodes(cluster)))
    until(cluster, lambda: in_place(cluster))
    assert [voters(cluster, number) for number in range(2)] == before


def test_without_a_spare_nothing_moves() -> None:
    cluster = cluster_of(3, shards=2)
    gone = voters(cluster, 0)[0]
    told(cluster)
    cluster.crash(gone)
    until(cluster, lambda: all(node.atlas.marks.lost == (gone,) for node in nodes(cluster)))
    cluster.pass_ms(4_000)
    assert told(cluster) == [], "a replica that may come back is better than one fewer"


def test_nobody_is_lost_to_a_leader_that_has_just_begun() -> None:
    """It may not have been in touch with anybody yet."""
    cluster = cluster_of(3, shards=1)
    first = next(node.name for node in nodes(cluster) if node.system.raft.leading is not None)
    others = [name for name in cluster.hosts if name != first]
    cluster.crash(others[0])
    cluster.pass_ms(TIMEOUT_MS - 300)
    cluster.crash(first)
    cluster.start(others[0])
    cluster.pass_ms(1_500)
    assert all(node.atlas.marks.lost == () for node in nodes(cluster))


# Steps


def test_a_shard_is_not_moved_by_who_has_just_begun_to_lead_it() -> None:
    cluster = Cluster(3, Shape(1, 2))
    holders = [name for name in cluster.hosts if cluster.hosts[name].shard().here]
    should = ring_of(cluster.hosts["n1"].node)[0].preferred
    other = next(name for name in holders if name != should)
    cluster.elect(other)
    cluster.hosts[other].shard().chosen_ms = None
    cluster.pass_ms(STEADY_MS - 200)
    assert cluster.leader() == other
    until(cluster, lambda: cluster.leader() == should, 2_000)


def test_who_was_chosen_by_hand_goes_on_leading() -> None:
    cluster = cluster_of(3, shards=1)
    other = next(name for name in cluster.hosts if name != cluster.leader())
    cluster.change(other, "lead", other)
    cluster.pass_ms(2 * STEADY_MS + 1_000)
    assert cluster.leader() == other


def test_nothing_moves_while_that_is_stopped() -> None:
    cluster = cluster_of(3, shards=4)
    node = cluster.hosts["n1"].node
    node.pause(Asked("pause"), pause=True)
    cluster.turn("n1")
    cluster.pass_ms(100)
    assert "n1 pause -> OK" in cluster.events
    told(cluster)
    cluster.join("n4", "n1")
    cluster.pass_ms(4_000)
    assert told(cluster) == []
    assert all(status_of(node).paused for node in nodes(cluster))
    node.pause(Asked("go on"), pause=False)
    cluster.turn("n1")
    until(cluster, lambda: in_place(cluster))
    assert status_of(cluster.hosts["n4"].node).replicas


def test_one_comes_before_another_goes() -> None:
    cluster = cluster_of(3, shards=4)
    told(cluster)
    cluster.join("n4", "n1")
    until(cluster, lambda: in_place(cluster))
    steps = told(cluster)
    assert steps
    for step in steps:
        there = step.partition(", soon")[0].split(" on ")[1].split()
        assert len(there) in (3, 4), step


def test_a_node_is_not_sent_everything_at_once() -> None:
    cluster = cluster_of(3, shards=8)
    cluster.fate = fates = Fates()
    told(cluster)
    fates.lose(Append, to="n4")
    cluster.join("n4", "n1")
    cluster.pass_ms(6_000)
    places = nodes(cluster)[0].atlas.places.values()
    leaders = {cluster.leader(number) for number in range(8)}
    assert 0 < sum("n4" in place.learners for place in places) <= ARRIVING_MAX * len(leaders) < 8
    fates.mend()
    until(cluster, lambda: in_place(cluster), 60_000)


def test_the_leader_of_a_shard_may_die_at_any_step() -> None:
    cluster = cluster_of(4, shards=1)
    told(cluster)
    cluster.join("n5", "n1")
    for _ in range(3):  # it is added, has its vote, another is removed
        until(cluster, lambda: bool(told(cluster)))
        leader = cluster.leader()
        assert leader is not None
        cluster.crash(leader)
        until(cluster, lambda: cluster.leader() is not None)
        cluster.start(leader)
    until(cluster, lambda: in_place(cluster))
    assert "n5" in voters(cluster, 0)
    assert told(cluster) == []


# Nodes that leave


def test_a_node_is_gone_once_nothing_is_left_on_it() -> None:
    cluster = cluster_of(4, shards=4)
    cluster.change("n2", "remove", "n1")
    until(cluster, lambda: "n2 remove n1 -> OK" in cluster.events)
    assert all("n1" not in voters(cluster, number) for number in range(4))
    assert all("n1" not in node.members for node in nodes(cluster) if node.name != "n1")
    until(cluster, lambda: all(not shard.raft.log.last_index for shard in cluster.hosts["n1"].node.shards))
    until(cluster, lambda: all(node.atlas.marks.leaving == () for node in nodes(cluster) if node.name != "n1"))


def test_one_that_leaves_and_dies_is_gone_all_the_same() -> None:
    cluster = cluster_of(4, shards=4)
    cluster.change("n2", "remove", "n1")
    cluster.pass_ms(300)
    cluster.crash("n1")
    until(cluster, lambda: "n2 remove n1 -> OK" in cluster.events)


# Replicas that are none any more


def test_a_node_that_was_away_when_its_replica_was_moved_gives_it_up() -> None:
    cluster = cluster_of(4, shards=1)
    gone = next(name for name in voters(cluster, 0) if name != cluster.leader())
    cluster.crash(gone)
    until(cluster, lambda: gone not in voters(cluster, 0))
    leader = cluster.hosts["n1" if gone != "n1" else "n2"].node
    leader.pause(None, pause=True)
    cluster.turn(leader.name)
    cluster.pass_ms(200)
    cluster.start(gone)
    shard = cluster.hosts[gone].shard()
    assert shard.here, "it does not know better"
    until(cluster, lambda: not shard.here and not shard.raft.log.last_index, int(FORGOTTEN_MS) + 2_000)
    assert f"{gone} has nothing of shard 0 any more" in cluster.events
    cluster.hosts[gone].write("SET x 1")
    cluster.pass_ms(50)
    assert cluster.events[-1] == f"{gone} SET x 1 -> OK"


def test_a_replica_that_is_to_go_while_the_disk_takes_nothing_goes_once_it_does() -> None:
    """How far its log was must be durable first, and no message, timer or client touches the shard for that."""
    cluster = cluster_of(4, shards=2)
    before = voters(cluster, 0)
    (spare,) = set(cluster.hosts) - set(before)
    gone = next(name for name in before if name != cluster.leader())
    cluster.crash(gone)
    until(cluster, lambda: gone not in voters(cluster, 0))
    cluster.start(gone)
    host = cluster.hosts[spare]
    until(cluster, lambda: not host.node.shards[0].member)
    host.disk = "full"
    host.node.pause(None, pause=True)
    cluster.turn(spare)
    cluster.pass_ms(FORGOTTEN_MS + 1_000)
    assert host.refusal is not None
    assert host.node.shards[0].raft.log.last_index, "it is still there"
    host.mend()
    until(cluster, lambda: not host.node.shards[0].raft.log.last_index, 1_000)


def test_a_replica_that_hears_of_no_leader_is_kept_as_long_as_nobody_says_otherwise() -> None:
    cluster = cluster_of(3, shards=1)
    for name in ("n1", "n2"):
        cluster.crash(name)
    cluster.pass_ms(2 * FORGOTTEN_MS)
    assert cluster.hosts["n3"].shard().here
    assert cluster.hosts["n3"].node.to_drop() == []


@pytest.mark.parametrize("shards", [1, 4])
def test_the_ring_tells_what_is_on_the_move(shards: int) -> None:
    cluster = cluster_of(3, shards=shards)
    assert all(row.moving == () for node in nodes(cluster) for row in ring_of(node))
    cluster.fate = fates = Fates()
    fates.lose(Append, to="n4")
    cluster.join("n4", "n1")
    cluster.pass_ms(4_000)
    (row, *_) = (row for row in ring_of(nodes(cluster)[0]) if row.moving)
    assert "n4" in row.moving
    assert len(row.nodes) == 3
    fates.mend()
    until(cluster, lambda: in_place(cluster))
    assert all(row.moving == () for node in nodes(cluster) for row in ring_of(node))
