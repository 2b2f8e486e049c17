"""Nodes that are killed, paused or stopped: the others go on, and nothing acknowledged is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from tests.clusters import EVERYWHERE, UNHURRIED, Cluster, Node, error_of, new_cluster, running_cluster
from tests.histories import Counting, History, Load, counting, registers_and_locks
from tests.raw_client import RawClient
from tests.servers import wait_until

HAND_OVER_ELECTION_MS = 6000
PAUSE_SECONDS = 2.0


@contextmanager
def loaded(cluster: Cluster, prefix: str, seed: int) -> Iterator[Load]:
    """Both kinds of load, judged when the block ends; what the block does, they must survive."""
    with ExitStack() as loads:
        history: History = loads.enter_context(registers_and_locks(cluster, seed=seed, prefix=prefix))
        count: Counting = loads.enter_context(counting(cluster, seed=seed, prefix=f"{prefix}:count", clients=2))
        yield history
        history.goes_on()
        count.goes_on()
    cluster.wait_until_caught_up()
    history.assert_linearizable()
    assert count.acknowledged
    for node in cluster.serving:
        count.assert_all_there(node)


def test_the_leader_is_killed_and_comes_back(three: Cluster) -> None:
    with loaded(three, "kill-leader", 1) as load:
        for _ in range(2):
            load.goes_on()
            leader = three.wait_for_leader()
            leader.kill()
            load.goes_on()
            assert three.wait_for_leader() is not leader
            leader.restart()
            three.wait_until_caught_up(leader)


def test_a_follower_is_killed_and_comes_back(calm: Cluster) -> None:
    with loaded(calm, "kill-follower", 2) as load:
        load.goes_on()
        leader = calm.wait_for_lasting_leader()
        term = calm.term()
        follower = calm.others(leader)[0]
        follower.kill()
        load.goes_on()
        follower.restart()
        calm.wait_until_caught_up(follower)
        assert calm.wait_for_leader() is leader
        assert calm.term() == term, "a node that comes back disturbs nobody"


def test_all_are_killed_and_come_back(three: Cluster) -> None:
    with loaded(three, "kill-all", 3) as load:
        for _ in range(2):
            load.goes_on()
            for node in three.serving:
                node.kill()
            three.start()
            three.wait_for_leader()


def test_all_are_stopped_and_come_back(tmp_path: Path) -> None:
    with running_cluster(tmp_path, 3, *UNHURRIED) as cluster:
        with counting(cluster, seed=4, prefix="stopped", clients=2) as count:
            count.goes_on(100)
        assert [node.stop() for node in cluster.nodes.values()] == [0, 0, 0]
        cluster.start()
        cluster.wait_for_leader()
        for node in cluster.nodes.values():
            count.assert_all_there(node)


def test_a_paused_leader_says_nothing_stale_when_it_wakes(three: Cluster) -> None:
    """Clients keep asking it while it sleeps, and are answered when it wakes."""
    with loaded(three, "pause", 5) as load:
        for _ in range(2):
            load.goes_on()
            leader = three.wait_for_leader()
            leader.pause()
            paused_s = time.monotonic()
            three.wait_for_leader(three.others(leader))
            load.goes_on()
            time.sleep(max(0.0, paused_s + PAUSE_SECONDS - time.monotonic()))  # how long it sleeps is what is tested
            leader.resume()
            three.wait_until_caught_up(leader)
            three.wait_for_leader()


def test_what_is_asked_of_a_paused_leader_is_not_answered_from_its_past(three: Cluster) -> None:
    """The request is in its socket before it wakes: nothing tells it that time has passed but its clock."""
    for round_number in range(3):
        leader = three.wait_for_leader()
        asks = leader.raw()
        assert asks.call("SET", "past", f"old {round_number}") == b"OK"
        leader.pause()
        asks.send("GET", "past")
        new = three.wait_for_leader(three.others(leader))
        assert new.raw().call("SET", "past", f"new {round_number}") == b"OK"
        leader.resume()
        reply = asks.read()
        assert reply == f"new {round_number}".encode() or str(reply).startswith("CLUSTERDOWN")
        three.wait_for_leader()


# What clients see of it


def waits_for_lock(looks: RawClient, lock: str) -> None:
    wait_until(lambda: looks.call("LOCK.INFO", lock)[-1] not in ([], None))


def test_a_blocked_client_survives_a_change_of_leader(three: Cluster) -> None:
    leader = three.wait_for_leader()
    here, there = three.others(leader)
    waiter, consumer, looks = here.raw(), here.raw(), there.raw()
    token = looks.call("LOCK.ACQUIRE", "survives", "ann", "PX", 3_600_000)
    waiter.send("LOCK.ACQUIRE", "survives", "bob", "BLOCK", 0)
    consumer.send("Q.POP", "survivors", "BLOCK", 0)
    waits_for_lock(looks, "survives")
    wait_until(lambda: here.client().info("clients")["blocked_clients"] == 2)
    leader.kill()
    three.wait_for_leader()
    assert looks.call("LOCK.RELEASE", "survives", "ann") == 1
    assert waiter.read() > token
    looks.call("Q.PUSH", "survivors", "job")
    assert consumer.read()[0][1] == b"job"
    assert waiter.call("LOCK.RELEASE", "survives", "bob") == 1


def test_a_session_lock_outlives_a_leader_and_ends_with_its_own_node(three: Cluster) -> None:
    leader = three.wait_for_leader()
    here, there = three.others(leader)
    holder, looks = here.raw(), there.raw()
    assert holder.call("LOCK.ACQUIRE", "session-of-a-node", "ann", "SESSION") > 0
    leader.kill()
    three.wait_for_leader()
    assert looks.call("LOCK.ACQUIRE", "session-of-a-node", "bob") is None
    leader.restart()
    three.wait_for_leader()
    here.kill()
    here.restart()
    three.wait_for_leader()
    assert looks.call("LOCK.ACQUIRE", "session-of-a-node", "bob", "BLOCK", 0) > 0


def test_calls_under_way_end_when_the_leader_dies(three: Cluster) -> None:
    """Each is answered, or refused in words that say whether it happened; none hangs until the client gives up."""
    leader = three.wait_for_leader()
    clients = [node.raw() for node in three.others(leader) for _ in range(5)]
    for client in clients:
        for _ in range(50):
            client.send("INCR", "under-way")
    leader.kill()
    replies = [client.read() for client in clients for _ in range(50)]
    counted = [reply for reply in replies if isinstance(reply, int)]
    refused = [str(reply) for reply in replies if not isinstance(reply, int)]
    assert len(set(counted)) == len(counted)
    assert all(error.startswith(("CLUSTERDOWN", "UNCERTAIN")) for error in refused), refused
    three.wait_for_leader()
    unsure = sum(error.startswith("UNCERTAIN") for error in refused)
    total = int(three.serving[0].raw().call("GET", "under-way") or 0)
    assert len(counted) <= total <= len(counted) + unsure


def test_a_leader_that_is_stopped_hands_over(tmp_path: Path) -> None:
    """Nobody has to miss it for an election timeout first."""
    patience = ("--election-timeout", str(HAND_OVER_ELECTION_MS), "--session-timeout", str(5 * HAND_OVER_ELECTION_MS))
    timing = (*patience, "--heartbeat-interval", "100")
    with running_cluster(tmp_path, 3, *timing) as cluster:
        leader = cluster.wait_for_leader()
        client = cluster.others(leader)[0].raw()
        assert client.call("SET", "before", 1) == b"OK"
        started_s = time.monotonic()
        assert leader.stop() == 0
        wait_until(lambda: not error_of(client, "SET", "after", 1))
        assert time.monotonic() - started_s < HAND_OVER_ELECTION_MS / 1000
        leader.restart()
        assert cluster.wait_for_leader() is not leader
        assert leader.raw().call("MGET", "before", "after") == [b"1", b"1"]


# Five nodes


def test_five_nodes_lose_two_and_then_a_third(tmp_path: Path) -> None:
    with new_cluster(tmp_path, 5, *UNHURRIED, shape=EVERYWHERE) as cluster:
        cluster.start()
        with counting(cluster, seed=6, prefix="five", clients=2) as count:
            count.goes_on()
            kill_with_leader(cluster, 2)
            count.goes_on()
            cluster.wait_for_leader()
        third = cluster.serving[0]
        third.kill()
        for node in cluster.serving:
            client = node.raw()
            wait_until(partial(is_down, client))
            assert error_of(client, "GET", "five:0").startswith("CLUSTERDOWN")
            assert client.call("PING") == b"PONG"
        third.restart()
        cluster.wait_for_leader()
        cluster.start()
        cluster.wait_for_leader()
        cluster.wait_until_caught_up()
        for node in cluster.nodes.values():
            count.assert_all_there(node)


def is_down(client: RawClient) -> bool:
    """Whether a write is refused for want of a leader."""
    return error_of(client, "SET", "refused", 1).startswith("CLUSTERDOWN")


def kill_with_leader(cluster: Cluster, count: int) -> list[Node]:
    """Kills the leader and others, so many together."""
    leader = cluster.wait_for_leader()
    killed = [leader, *cluster.others(leader)[: count - 1]]
    for node in killed:
        node.kill()
    return killed
