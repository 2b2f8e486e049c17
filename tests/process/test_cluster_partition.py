"""Links that are cut: who has no majority says so, and who has one is not disturbed."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.clusters import CALM_ELECTION_SECONDS, Cluster, Node, error_of
from tests.histories import counting, registers_and_locks
from tests.raw_client import RawClient
from tests.servers import wait_until

either_kind = pytest.mark.parametrize("silent", [False, True], ids=["closed", "silent"])

SOAK_SECONDS = float(os.environ.get("CLUSTER_SOAK_SECONDS", "0"))
SOAK_SEED = int(os.environ.get("CLUSTER_SOAK_SEED", "1"))


def is_down(client: RawClient, *words: str) -> bool:
    """Whether a command is refused for want of a leader."""
    return error_of(client, *words).startswith("CLUSTERDOWN")


# A leader, or a follower, alone


@either_kind
def test_a_leader_cut_from_all_steps_down_and_comes_back(three: Cluster, silent: bool) -> None:
    leader = three.wait_for_leader()
    client = leader.raw()
    assert client.call("SET", "cut-off", "old") == b"OK"
    three.network.isolate(leader.name, silent=silent)
    new = three.wait_for_leader(three.others(leader))
    assert new.raw().call("SET", "cut-off", "new") == b"OK"
    assert is_down(client, "GET", "cut-off"), "the one that was elected since may have changed it"
    assert is_down(client, "SET", "cut-off", "other")
    assert is_down(client, "LOCK.ACQUIRE", "cut-off-lock", "ann")
    assert is_down(client, "Q.POP", "cut-off-queue", "BLOCK", "0")
    assert leader.raft()["leader"] is None
    assert client.call("PING") == b"PONG"
    three.network.heal()
    three.wait_for_leader()
    three.wait_until_caught_up(leader)
    assert client.call("GET", "cut-off") == b"new"


def test_what_a_leader_took_before_it_knew_is_unsure_or_undone(three: Cluster) -> None:
    """It is answered in a bounded time, and as it turns out."""
    leader = three.wait_for_leader()
    clients = [leader.raw() for _ in range(5)]
    clients[0].call("DEL", "taken")
    three.network.isolate(leader.name, silent=True)
    for client in clients:
        client.send("INCR", "taken")
    errors = [str(client.read()) for client in clients]
    assert all(error.startswith(("CLUSTERDOWN", "UNCERTAIN")) for error in errors), errors
    three.network.heal()
    unsure = sum(error.startswith("UNCERTAIN") for error in errors)
    assert int(three.wait_for_leader().raw().call("GET", "taken") or 0) <= unsure


@either_kind
def test_a_follower_cut_from_all_serves_nothing(calm: Cluster, silent: bool) -> None:
    leader = calm.wait_for_lasting_leader()
    term = calm.term()
    follower = calm.others(leader)[0]
    client = follower.raw()
    calm.network.isolate(follower.name, silent=silent)
    wait_until(partial(is_down, client, "GET", "anything"))
    assert is_down(client, "SET", "anything", "1")
    assert leader.raw().call("SET", "meanwhile", "1") == b"OK"
    calm.network.heal()
    wait_until(lambda: client.call("GET", "meanwhile") == b"1")
    assert calm.wait_for_leader() is leader
    assert calm.term() == term, "it stood for no election that could not be won"


def test_no_majority_anywhere(three: Cluster) -> None:
    clients = [node.raw() for node in three.nodes.values()]
    three.network.partition({"n1"}, {"n2"}, {"n3"})
    for client in clients:
        wait_until(partial(is_down, client, "GET", "anything"))
        assert is_down(client, "SET", "anything", "1")
    three.network.heal()
    three.wait_for_leader()
    assert [client.call("SET", "anything", "1") for client in clients] == [b"OK"] * 3


@either_kind
def test_a_history_over_partitions(three: Cluster, silent: bool) -> None:
    """Clients on both sides; whatever the minority still answers must fit what the majority does."""
    with registers_and_locks(three, seed=11 + silent, prefix=f"partition-{silent}") as history:
        for _ in range(2):
            history.goes_on()
            leader = three.wait_for_leader()
            three.network.isolate(leader.name, silent=silent)
            three.wait_for_leader(three.others(leader))
            history.goes_on(200)
            three.network.heal()
            three.wait_for_leader()
    history.assert_linearizable()


# What must not disturb a healthy majority


def undisturbed(cluster: Cluster, prefix: str, disturb: Callable[[Node, Node, Node], None]) -> None:
    """Checks that ``disturb`` (given the leader and both followers) leaves the leader and its term as they were.

    The first follower is the one that may suffer, and has caught up in the end.
    """
    leader = cluster.wait_for_lasting_leader()
    term = cluster.term()
    victim, healthy = cluster.others(leader)
    with counting(cluster, seed=21, prefix=prefix, clients=2, nodes=[leader, healthy]) as count:
        count.goes_on()
        disturb(leader, victim, healthy)
        count.goes_on()
        assert cluster.leader([leader, healthy]) is leader
        assert leader.raft()["term"] == healthy.raft()["term"] == term
        cluster.network.heal()
        cluster.wait_until_caught_up()
        assert cluster.wait_for_leader() is leader
        assert cluster.term() == term
    count.assert_all_there(victim)


def for_several_elections(victim: Node) -> None:
    """Lets the time pass in which a node that hears no leader would stand for election more than once."""
    wait_until(partial(is_down, victim.raw(), "GET", "anything"))
    time.sleep(2 * CALM_ELECTION_SECONDS)  # that nothing happens meanwhile is the point


def test_a_follower_that_does_not_hear_the_leader(calm: Cluster) -> None:
    def disturb(leader: Node, victim: Node, healthy: Node) -> None:
        calm.network.cut(leader.name, victim.name, silent=True)
        for_several_elections(victim)

    undisturbed(calm, "deaf", disturb)


def test_a_follower_that_hears_nobody(calm: Cluster) -> None:
    def disturb(leader: Node, victim: Node, healthy: Node) -> None:
        calm.network.cut_all([(leader.name, victim.name), (healthy.name, victim.name)])
        for_several_elections(victim)

    undisturbed(calm, "hears-nobody", disturb)


def test_a_follower_nobody_hears(calm: Cluster) -> None:
    def disturb(leader: Node, victim: Node, healthy: Node) -> None:
        calm.network.cut_all([(victim.name, leader.name), (victim.name, healthy.name)])
        time.sleep(2 * CALM_ELECTION_SECONDS)  # in which nothing must happen

    undisturbed(calm, "unheard", disturb)


def test_a_follower_that_reaches_only_the_other(calm: Cluster) -> None:
    def disturb(leader: Node, victim: Node, healthy: Node) -> None:
        calm.network.partition({leader.name}, {victim.name})
        for_several_elections(victim)

    undisturbed(calm, "one-only", disturb)


@either_kind
def test_a_link_that_comes_and_goes(calm: Cluster, silent: bool) -> None:
    def disturb(leader: Node, victim: Node, healthy: Node) -> None:
        for number in range(15):
            calm.network.partition({leader.name}, {victim.name}, silent=silent)
            time.sleep(0.05 * (number % 4 + 1))  # some shorter than the pauses between heartbeats, some longer
            calm.network.heal()
            time.sleep(0.05)

    undisturbed(calm, f"flapping-{silent}", disturb)


def test_a_leader_nobody_answers_makes_room(three: Cluster) -> None:
    """The followers hear it and stand for no election; it must find out by itself that it has no majority."""
    leader = three.wait_for_leader()
    others = three.others(leader)
    three.network.cut_all([(other.name, leader.name) for other in others])
    wait_until(partial(is_down, leader.raw(), "SET", "unanswered", "1"))
    new = three.wait_for_leader(others)
    assert new.raw().call("SET", "unanswered", "2") == b"OK"
    three.network.heal()
    three.wait_for_leader()
    assert leader.raw().call("GET", "unanswered") == b"2"


def test_a_leader_nobody_hears_makes_room(three: Cluster) -> None:
    leader = three.wait_for_leader()
    others = three.others(leader)
    three.network.cut_all([(leader.name, other.name) for other in others], silent=True)
    new = three.wait_for_leader(others)
    assert new.raw().call("SET", "unheard", "2") == b"OK"
    reply = leader.raw().call("GET", "unheard")
    assert reply == b"2" or str(reply).startswith("CLUSTERDOWN")
    three.network.heal()
    three.wait_for_leader()
    assert leader.raw().call("GET", "unheard") == b"2"


def test_a_blocked_client_of_a_node_that_is_cut_off(three: Cluster) -> None:
    """It goes on waiting, and is served once the links are back."""
    leader = three.wait_for_leader()
    here, there = three.others(leader)
    waiter, looks = here.raw(), there.raw()
    assert looks.call("LOCK.ACQUIRE", "cut-wait", "ann", "PX", 3_600_000) > 0
    waiter.send("LOCK.ACQUIRE", "cut-wait", "bob", "BLOCK", 0)
    wait_until(lambda: looks.call("LOCK.INFO", "cut-wait")[-1])
    three.wait_until_caught_up(here)  # else it does not know yet whether the call was taken, and says so
    three.network.isolate(here.name)
    wait_until(partial(is_down, here.raw(), "GET", "anything"))
    assert looks.call("LOCK.RELEASE", "cut-wait", "ann") == 1
    three.network.heal()
    assert waiter.read() > 0
    assert waiter.call("LOCK.RELEASE", "cut-wait", "bob") == 1


def test_what_was_lost_on_the_way_to_the_leader_delays_nothing_later(calm: Cluster) -> None:
    """Clients of one node whose writes go in its order: all catch up once what is missing was repeated."""
    leader = calm.wait_for_leader()
    follower = calm.others(leader)[0]
    rounds = 30

    def write(client: RawClient) -> None:
        for number in range(rounds):
            assert client.call("SET", "lost", number) == b"OK"

    calm.network.cut(follower.name, leader.name)
    with ThreadPoolExecutor() as threads:
        started_s = time.monotonic()
        writers = []
        for client in [follower.raw() for _ in range(4)]:
            writers.append(threads.submit(write, client))
            time.sleep(CALM_ELECTION_SECONDS / 8)  # so that not all are repeated together
        calm.network.heal()
        for writer in writers:
            writer.result()
    assert time.monotonic() - started_s < rounds * CALM_ELECTION_SECONDS / 2, "every write waited to be repeated"


def test_slow_links(three: Cluster) -> None:
    """Everything takes longer and is as right as ever."""
    three.network.delay(0.02)
    with registers_and_locks(three, seed=31, prefix="slow") as history:
        history.goes_on(200)
        three.network.heal()
        history.goes_on(200)
    history.assert_linearizable()


# Everything at once, for as long as somebody wants


@pytest.mark.slow
@pytest.mark.skipif(not SOAK_SECONDS, reason="CLUSTER_SOAK_SECONDS says for how long to make trouble")
def test_soak(three: Cluster) -> None:
    """Random trouble; CLUSTER_SOAK_SEED makes another of it. A history is judged after every few faults."""
    chance = random.Random(SOAK_SEED)
    until = time.monotonic() + SOAK_SECONDS
    round_number = 0
    while time.monotonic() < until:
        round_number += 1
        prefix = f"soak-{SOAK_SEED}-{round_number}"
        with (
            registers_and_locks(three, seed=chance.randrange(1000), prefix=prefix) as history,
            counting(three, seed=chance.randrange(1000), prefix=f"{prefix}-count", clients=2) as count,
        ):
            for _ in range(chance.randrange(1, 5)):
                make_trouble(three, chance)
            three.settle()
            history.goes_on()
            count.goes_on()
        three.wait_until_caught_up()
        history.assert_linearizable()
        for node in three.nodes.values():
            count.assert_all_there(node)
        three.check_output()


def make_trouble(cluster: Cluster, chance: random.Random) -> None:
    """Does one thing to one node or to the links, and lets some time pass; not everything is undone again."""
    node = chance.choice(list(cluster.nodes.values()))
    one, two = chance.sample(list(cluster.nodes), 2)
    silent = chance.random() < 0.5
    match chance.randrange(7):
        case 0 if node.serves:
            node.kill()
        case 1 if node.serves:
            node.pause()
        case 2:
            cluster.network.isolate(node.name, silent=silent)
        case 3:
            cluster.network.cut(one, two, silent=silent)
        case 4:
            cluster.network.delay(chance.random() * 0.05)
        case 5:
            cluster.network.heal()
        case _ if node.paused:
            node.resume()
        case _ if not node.runs:
            node.restart()
        case _:
            node.stop()
    time.sleep(chance.random() * 2)  # how long there is trouble: any moment is a good one for the next
