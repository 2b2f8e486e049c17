"""Holds that last as long as a session, where the client's node dies or is cut off: others get them, and no sooner.

What happens when is told by the order of events in one process that watches all connections: the lives of other
locks, which are known, are the measure.
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterator, Mapping

import pytest

from tests.clusters import UNHURRIED, Cluster, Node, lent, running_cluster
from tests.raw_client import RawClient
from tests.servers import wait_until
from tests.stages import insist

TIMEOUT_MS = 5_000
SHORTER_MS = 2_000
"""A life that ends before, however late the timeout was noticed to have begun: after the last sign of a node."""

WATCH_SECONDS = 60.0
either_kind = pytest.mark.parametrize("silent", [False, True], ids=["closed", "silent"])


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes with a short session-timeout."""
    flags = (*UNHURRIED, "--session-timeout", str(TIMEOUT_MS))
    with running_cluster(tmp_path_factory.mktemp("sessions"), 3, *flags) as cluster:
        yield cluster


@pytest.fixture
def three(hasty: Cluster) -> Iterator[Cluster]:
    """Those three, whole and agreed, without a lock."""
    hasty.settle()
    assert insist(hasty.wait_for_leader().raw(), "FLUSHALL") == b"OK"
    with lent(hasty):
        yield hasty


def held(node: Node, key: str = "lock", owner: str = "ann") -> RawClient:
    """A client of a node that holds a lock as long as it is connected."""
    client = node.raw()
    assert client.call("LOCK.ACQUIRE", key, owner, "SESSION") > 0
    return client


def wanted(node: Node, key: str = "lock", owner: str = "bob") -> RawClient:
    """A client of a node that waits for it."""
    client, looks = node.raw(), node.raw()
    before = len(lock(looks, key)["waiters"])
    client.send("LOCK.ACQUIRE", key, owner, "SESSION", "BLOCK", 0)
    wait_until(lambda: len(lock(looks, key)["waiters"]) == before + 1)
    return client


def lives_shorter(node: Node) -> RawClient:
    """A client that waits for a lock which another one has for less than the timeout from now on."""
    client = node.raw()
    assert client.call("LOCK.ACQUIRE", "shorter", "sam", "PX", SHORTER_MS) > 0
    client.send("LOCK.ACQUIRE", "shorter", "sue", "BLOCK", 0)
    return client


def lock(client: RawClient, key: str = "lock") -> Mapping[str, list[object]]:
    """What LOCK.INFO says."""
    reply = insist(client, "LOCK.INFO", key)
    return {name.decode(): value for name, value in zip(reply[::2], reply[1::2], strict=True)}


def order(**clients: RawClient) -> list[str]:
    """In which order something comes on these connections, a reply or their end; each is told of once.

    What is there at once, when this process stood still, is told in the order of the arguments.
    """
    found: list[str] = []
    waiting = dict(clients)
    until_s = time.monotonic() + WATCH_SECONDS
    while waiting:
        sockets = {client.socket: name for name, client in waiting.items()}
        readable, _, _ = select.select(list(sockets), [], [], max(0.0, until_s - time.monotonic()))
        assert readable, f"nothing came for {list(waiting)}, after {found}"
        for one in readable:
            found.append(sockets[one])
            del waiting[sockets[one]]
    return found


def is_over(client: RawClient) -> bool:
    """Whether the connection has ended without another word."""
    try:
        return client.socket.recv(1) == b""
    except ConnectionError:
        return True


def victim_of(cluster: Cluster) -> tuple[Node, Node]:
    """A follower that is to suffer, and another one."""
    one, other = cluster.others(cluster.wait_for_leader())
    return one, other


def test_what_a_client_of_a_dead_node_held_goes_to_the_next_and_not_before_its_time(three: Cluster) -> None:
    dead, there = victim_of(three)
    held(dead)
    bob = wanted(there)
    shorter = lives_shorter(there)
    dead.kill()
    assert order(shorter=shorter, bob=bob) == ["shorter", "bob"]
    assert bob.read() > 0


@either_kind
def test_a_client_knows_before_anybody_else_is_given_what_it_held(three: Cluster, silent: bool) -> None:
    cut, there = victim_of(three)
    ann, bob, bystander = held(cut), wanted(there), cut.raw()
    assert bystander.call("PING") == b"PONG"
    shorter = lives_shorter(there)
    three.network.isolate(cut.name, silent=silent)
    assert order(shorter=shorter, ann=ann, bob=bob) == ["shorter", "ann", "bob"]
    assert is_over(ann)
    assert bob.read() > 0
    assert bystander.call("PING") == b"PONG", "who holds nothing is not closed"
    assert "closed clients whose sessions may be over" in cut.said()
    assert int(cut.client().info("sepakat")["clients_closed_as_cut_off"]) >= 1


def test_clients_of_a_leader_that_is_cut_off(three: Cluster) -> None:
    leader = three.wait_for_leader()
    there = three.others(leader)[0]
    ann, bob = held(leader), wanted(there)
    three.network.isolate(leader.name)
    new = three.wait_for_leader(three.others(leader))
    shorter = lives_shorter(new)
    assert order(shorter=shorter, ann=ann, bob=bob)[-1] == "bob", "whoever leads now counts from when it began"
    assert is_over(ann)
    assert bob.read() > 0


@pytest.mark.parametrize("deaf", [False, True], ids=["is not heard", "hears nobody"])
def test_a_node_that_is_cut_off_in_one_direction(three: Cluster, deaf: bool) -> None:
    cut, there = victim_of(three)
    ann, bob = held(cut), wanted(there)
    others = [node.name for node in three.others(cut)]
    ways = [(name, cut.name) if deaf else (cut.name, name) for name in others]
    shorter = lives_shorter(there)
    three.network.cut_all(ways, silent=True)
    assert order(shorter=shorter, ann=ann, bob=bob) == ["shorter", "ann", "bob"]
    assert is_over(ann)
    assert bob.read() > 0


def test_a_change_of_leader_meanwhile_shortens_nothing(three: Cluster) -> None:
    leader = three.wait_for_leader()
    cut, there = three.others(leader)
    ann, bob = held(cut), wanted(there)
    ahead = lives_shorter(there)
    three.network.isolate(cut.name)
    assert order(ahead=ahead) == ["ahead"]
    assert ahead.read() > 0
    assert there.raw().call("CLUSTER", "FAILOVER") == b"OK"
    assert ahead.call("LOCK.RELEASE", "shorter", "sue") == 1
    shorter = lives_shorter(three.wait_for_leader(three.others(cut)))
    assert order(shorter=shorter, ann=ann, bob=bob)[-1] == "bob"
    assert bob.read() > 0


def test_a_node_that_was_stopped_answers_nothing_on_those_connections(three: Cluster) -> None:
    stopped, there = victim_of(three)
    ann, bob = held(stopped), wanted(there)
    stopped.pause()
    ann.send("PING")
    ann.send("SET", "marker", 1)
    assert order(bob=bob) == ["bob"]
    stopped.resume()
    assert is_over(ann)
    assert bob.read() > 0
    assert [one[b"owner"] for one in holders(there)] == [b"bob"]
    assert insist(stopped.raw(), "GET", "marker") is None, "nor is anything done that was asked on them"


def holders(node: Node) -> list[dict[bytes, object]]:
    """Who holds the lock."""
    client = node.raw()
    client.call("HELLO", 3)
    found: list[dict[bytes, object]] = client.call("LOCK.INFO", "lock")[b"holders"]
    return found


def test_a_waiter_of_a_dead_node_costs_nobody_a_wait(three: Cluster) -> None:
    """It is first in line, and nobody is there to hear of it: the lock is not given to it, and not to its memory."""
    dead, there = victim_of(three)
    ann = held(there)
    wanted(dead, owner="dan")
    bob = wanted(there)
    dead.kill()
    looks = there.raw()
    wait_until(lambda: len(lock(looks)["waiters"]) == 1, WATCH_SECONDS)
    assert ann.call("LOCK.RELEASE", "lock", "ann") == 1
    assert bob.read() > 0


def test_a_node_that_comes_back_begins_anew(three: Cluster) -> None:
    """What ended while it was away stays ended, and what its clients hold since then stays theirs."""
    cut, there = victim_of(three)
    ann, bob = held(cut), wanted(there)
    three.network.isolate(cut.name)
    assert order(ann=ann, bob=bob) == ["ann", "bob"]
    bob.read()
    three.network.heal()
    three.wait_until_caught_up()
    eve = wanted(cut, owner="eve")
    assert bob.call("LOCK.RELEASE", "lock", "bob") == 1
    assert eve.read() > 0
    fay, shorter = wanted(there, owner="fay"), lives_shorter(there)
    assert order(shorter=shorter) == ["shorter"]
    shorter.read()
    assert shorter.call("LOCK.RELEASE", "shorter", "sue") == 1
    again = lives_shorter(there)
    assert order(again=again) == ["again"], "longer than the timeout has passed"
    assert eve.call("LOCK.RELEASE", "lock", "eve") == 1, "it was hers all the time"
    assert fay.read() > 0


def test_a_short_cut_ends_nothing(three: Cluster) -> None:
    cut, there = victim_of(three)
    ann, waits, bob = held(cut), wanted(cut, owner="eve"), wanted(there)
    three.network.isolate(cut.name, silent=True)
    time.sleep(TIMEOUT_MS / 1000 / 4)  # for about so long a link may fail
    three.network.heal()
    three.wait_until_caught_up()
    after = lives_shorter(there)
    assert order(after=after) == ["after"]
    assert ann.call("LOCK.RELEASE", "lock", "ann") == 1
    assert waits.read() > 0, "it went on waiting, and was first"
    assert waits.call("LOCK.RELEASE", "lock", "eve") == 1
    assert bob.read() > 0
