"""Shards that move: nodes join, are removed, are lost and replaced, and the keys are where they were."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.callers import LEADER_LOST
from tests.clusters import Cluster, Node, error_of, sepakat
from tests.histories import Counting, counting
from tests.raw_client import packed
from tests.rings import REPLICAS, Ring, all_are_led, ring_of, running_ring, wait_for_ring
from tests.servers import wait_until

SHARDS = 16
NODE_TIMEOUT = ("--node-timeout", "7000")  # ten of the election timeouts of UNHURRIED
MOVED_MAX = 1.3  # of the replicas that must move
SHARE = 6  # replicas that a sixth node gets, of 48, at least
VALUE = b"x" * 1000


def write(node: Node, prefix: str, count: int) -> list[str]:
    """Sets keys to a value each in all shards, through one node; the keys."""
    client = node.raw()
    keys = [f"{prefix}:{number}" for number in range(count)]
    for first in range(0, count, 200):
        some = keys[first : first + 200]
        client.socket.sendall(b"".join(packed("SET", key, key.encode() + VALUE) for key in some))
        assert {client.read() for _ in some} == {b"OK"}
    return keys


def check(nodes: Sequence[Node], keys: Sequence[str]) -> None:
    """Fails unless all keys of `write` are there, asked through each of the nodes."""
    for node in nodes:
        client = node.raw()
        for first in range(0, len(keys), 500):
            some = keys[first : first + 500]
            assert client.call("MGET", *some) == [key.encode() + VALUE for key in some], node


def join(cluster: Cluster, name: str, *flags: str) -> Node:
    """A node more, which answers; shards move to it from then on."""
    node = cluster.newcomer(name, cluster.serving[0], *flags)
    node.start()
    node.wait_until_ready()
    return node


def remove(node: Node, through: Node) -> None:
    """``sepakat remove``, which must work."""
    done = sepakat("remove", node.name, "--port", str(through.port))
    assert done.returncode == 0, done.stderr


def check_move(before: Ring, after: Ring, ideal: float) -> None:
    """Fails when much more moved than had to."""
    moved = after.arrived(before)
    assert 0 < moved <= MOVED_MAX * ideal + 1, f"{moved} replicas moved of {ideal:g} that had to"


def only_retryable(count: Counting, *, leaders_lost: bool = False) -> None:
    """Fails when a client was told anything but to try again, or had its connection closed by a node that ended.

    Where ``leaders_lost``, as they were killed, what was under way may be uncertain for that reason, and for no other.
    """
    uncertain = {told for told in count.excuses if told.startswith("UNCERTAIN")}
    assert not {told for told in uncertain if not (leaders_lost and LEADER_LOST in told)}, count.excuses


def in_a_move(cluster: Cluster, new: Node) -> list[Node]:
    """Who leads a shard that is on its way just now, as some node sees it, but for the newcomer."""
    for node in cluster.serving:
        with contextlib.suppress(OSError):
            leaders = {row.leader: None for row in ring_of(node).rows if row.moving and row.leader is not None}
            found = [cluster[name] for name in leaders if name != new.name and cluster[name].runs]
            if found:
                return found
    return []


def wait_for_move(cluster: Cluster, new: Node) -> Node | None:
    """One who leads a shard that is on its way; None once the newcomer has its share."""
    found: list[Node] = []

    def is_moving_or_done() -> bool:
        found[:] = in_a_move(cluster, new)
        with contextlib.suppress(OSError):
            return bool(found) or ring_of(new).replicas()[new.name] >= SHARE
        return False

    cluster.wait_until(is_moving_or_done)
    return found[0] if found else None


def test_a_node_joins_and_leaves_under_load(tmp_path: Path) -> None:
    with running_ring(tmp_path, 5, shards=SHARDS) as cluster:
        keys = write(cluster["n1"], "kept", 2000)
        before = wait_for_ring(cluster)
        with counting(cluster, seed=61, prefix="join", clients=4) as count:
            count.goes_on()
            new = join(cluster, "n6")
            joined = wait_for_ring(cluster)
            count.goes_on()
            check_move(before, joined, SHARDS * REPLICAS / 6)
            assert joined.replicas()["n6"] >= SHARDS * REPLICAS / 6 / 2
            check(cluster.serving, keys)

            remove(new, cluster["n2"])
            rest = cluster.others(new)
            left = wait_for_ring(cluster, rest)
            count.goes_on()
            assert left.replicas()["n6"] == 0
            assert left.arrived(before) == 0, "the same nodes, the same places"
            wait_until(lambda: error_of(new.raw(), "GET", "kept:1").startswith("CLUSTERDOWN"))
        only_retryable(count)
        check(rest, keys)
        for node in rest:
            count.assert_all_there(node)


def test_nobody_writes_to_less_than_three(tmp_path: Path) -> None:
    """While shards move, each is on three nodes at any time that anybody looks."""
    with running_ring(tmp_path, 5, shards=SHARDS) as cluster:
        write(cluster["n1"], "kept", 1000)
        old = cluster.serving
        join(cluster, "n6")
        fewest = REPLICAS

        def settled() -> bool:
            nonlocal fewest
            with contextlib.suppress(OSError):
                rings = [ring_of(node) for node in old]
                fewest = min(fewest, *(len(row.nodes) for ring in rings for row in ring.rows))
                return all(ring.replicas()["n6"] >= 4 and not any(row.moving for row in ring.rows) for ring in rings)
            return False

        cluster.wait_until(settled)
        wait_for_ring(cluster)
        assert fewest == REPLICAS


def test_a_removed_member_is_drained_though_it_is_gone(tmp_path: Path) -> None:
    with running_ring(tmp_path, 5, shards=SHARDS) as cluster:
        keys = write(cluster["n1"], "kept", 1000)
        gone = cluster["n3"]
        gone.kill()
        wait_until(lambda: not error_of(cluster["n1"].raw(), "MGET", *keys))
        remove(gone, cluster["n1"])
        ring = wait_for_ring(cluster)
        assert ring.replicas()["n3"] == 0
        check(cluster.serving, keys)


def test_a_node_that_is_lost_is_replaced(tmp_path: Path) -> None:
    with running_ring(tmp_path, 5, *NODE_TIMEOUT, shards=SHARDS) as cluster:
        keys = write(cluster["n1"], "kept", 1000)
        before = wait_for_ring(cluster)
        with counting(cluster, seed=62, prefix="lost", clients=3) as count:
            count.goes_on()
            lost = cluster["n2"]
            lost.kill()
            count.goes_on()
            after = wait_for_ring(cluster)
            check_move(before, after, before.replicas()["n2"])
            count.goes_on()
            lost.restart()
            assert wait_for_ring(cluster).arrived(before) == 0, "it has what it had"
            count.goes_on()
        only_retryable(count, leaders_lost=True)
        check(cluster.serving, keys)
        for node in cluster.serving:
            count.assert_all_there(node)


def test_a_node_that_is_away_for_less_is_not_replaced(tmp_path: Path) -> None:
    with running_ring(tmp_path, 4, shards=SHARDS) as cluster:
        before = wait_for_ring(cluster)
        cluster["n2"].kill()
        cluster.wait_until(lambda: all_are_led(cluster))
        assert ring_of(cluster["n1"]).arrived(before) == 0
        keys = write(cluster["n1"], "meanwhile", 500)
        cluster["n2"].restart()
        assert wait_for_ring(cluster).arrived(before) == 0
        check([cluster["n2"]], keys)


def test_whoever_leads_a_move_is_killed(tmp_path: Path) -> None:
    """Again and again; another goes on where it was."""
    with running_ring(tmp_path, 5, shards=SHARDS) as cluster:
        keys = write(cluster["n1"], "kept", 3000)
        with counting(cluster, seed=63, prefix="mover", clients=3) as count:
            count.goes_on()
            new = join(cluster, "n6")
            killed = 0
            for _ in range(3):
                victim = wait_for_move(cluster, new)
                if victim is None:
                    break
                victim.kill()
                killed += 1
                count.goes_on()
                victim.restart()
                # Where two of three went one right after the other, nobody can tell in time what became of a write.
                cluster.wait_until(lambda: all_are_led(cluster))
            assert killed, "nothing moved that could be interrupted"
            ring = wait_for_ring(cluster)
            assert ring.replicas()["n6"] > 0
            count.goes_on()
        only_retryable(count, leaders_lost=True)
        check(cluster.serving, keys)
        for node in cluster.serving:
            count.assert_all_there(node)


def test_the_newcomer_is_killed_while_shards_move_to_it(tmp_path: Path) -> None:
    with running_ring(tmp_path, 5, shards=SHARDS) as cluster:
        keys = write(cluster["n1"], "kept", 3000)
        new = join(cluster, "n6")
        for _ in range(3):
            wait_for_move(cluster, new)
            new.kill()
            wait_until(lambda: not error_of(cluster["n1"].raw(), "SET", "meanwhile", 1))
            new.restart()
        wait_for_ring(cluster)
        check(cluster.serving, keys)


def test_all_are_killed_while_shards_move(tmp_path: Path) -> None:
    with running_ring(tmp_path, 5, shards=SHARDS) as cluster:
        keys = write(cluster["n1"], "kept", 3000)
        new = join(cluster, "n6")
        for _ in range(2):
            wait_for_move(cluster, new)
            for node in cluster.serving:
                node.kill()
            cluster.start()
        ring = wait_for_ring(cluster)
        assert ring.replicas()["n6"] > 0
        check(cluster.serving, keys)


def test_rebalancing_stops_and_goes_on(tmp_path: Path) -> None:
    with running_ring(tmp_path, 4, shards=SHARDS) as cluster:
        keys = write(cluster["n1"], "kept", 500)
        before = wait_for_ring(cluster)
        assert cluster["n2"].raw().call("RAFT.REBALANCE", "PAUSE") == b"OK"
        new = join(cluster, "n5")
        cluster.wait_until(lambda: "n5" in {peer["id"] for peer in cluster["n1"].ask("RAFT.INFO")[0]["peers"]})
        client = new.raw()
        for number in range(200):  # time passes by things that are done in it
            assert client.call("SET", f"paused:{number}", number) == b"OK"
        assert [ring_of(node).arrived(before) for node in cluster.serving] == [0] * 5
        assert client.call("RAFT.REBALANCE", "RESUME") == b"OK"
        assert wait_for_ring(cluster).arrived(before) > 0
        check(cluster.serving, keys)


def test_replicas_are_in_different_zones(tmp_path: Path) -> None:
    zones = ["a", "a", "b", "b", "c"]
    with running_ring(tmp_path, 5, shards=SHARDS, zones=zones) as cluster:
        known = dict(zip(cluster.nodes, zones, strict=True))
        ring = ring_of(cluster["n1"])
        assert all({known[name] for name in row.nodes} == {"a", "b", "c"} for row in ring.rows)
        join(cluster, "n6", "--zone", "c")
        known["n6"] = "c"
        ring = wait_for_ring(cluster, zones=known)
        assert all({known[name] for name in row.nodes} == {"a", "b", "c"} for row in ring.rows)
        assert ring.replicas()["n6"] > 0
        for name in ("n3", "n4"):  # a whole zone is lost
            cluster[name].kill()
        for node in cluster.serving:
            wait_until(partial(writes_everywhere, node))
        keys = write(cluster["n6"], "without-b", 500)
        check(cluster.serving, keys)


def writes_everywhere(node: Node) -> bool:
    """Whether writes in all shards are taken through this node."""
    return not error_of(node.raw(), "DEL", *(f"key:{number}" for number in range(200)))


def test_a_cluster_grows_from_one(tmp_path: Path) -> None:
    """One node has all, then two, then three."""
    with running_ring(tmp_path, 1, shards=4) as cluster:
        keys = write(cluster["n1"], "kept", 500)
        for name in ("n2", "n3", "n4"):
            join(cluster, name)
            ring = wait_for_ring(cluster)
            assert {len(row.nodes) for row in ring.rows} == {min(REPLICAS, len(cluster.nodes))}
            check(cluster.serving, keys)
