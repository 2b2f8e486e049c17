"""`resp_server.client` when programs die, sleep and are interrupted, and when servers go and come."""

from __future__ import annotations

import contextlib
import select
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from redis import cluster as redis_cluster

from resp_server.client import LockLost, Locks
from tests import interrupts
from tests.clusters import UNHURRIED, Cluster, Node, new_cluster
from tests.holders import CLIENTS, LONG_S, SHORT_S, Holder, Threads, Visits, info, url, waits_for
from tests.servers import HOST, START_SECONDS, Server, wait_until

# Programs that hold it


def test_a_holder_that_is_killed_loses_it_after_its_life(server: Server, locks: Locks) -> None:
    with Holder(server, SHORT_S) as holder:
        token = int(holder.says())
        holder.process.kill()
        with locks.hold("lock", timeout=START_SECONDS) as lock:
            assert lock.token > token


def test_a_holder_that_slept_too_long_knows_when_it_wakes(server: Server, locks: Locks) -> None:
    with Holder(server, SHORT_S) as holder:
        token = int(holder.says())
        holder.process.send_signal(signal.SIGSTOP)
        with locks.hold("lock", timeout=START_SECONDS) as lock:
            assert lock.token > token
            holder.look()
            holder.process.send_signal(signal.SIGCONT)
            assert holder.says().startswith("LockLost lock 'lock' is lost")
            lock.check()


def test_a_holder_that_slept_a_little_goes_on(server: Server) -> None:
    with Holder(server, LONG_S) as holder:
        holder.says()
        holder.process.send_signal(signal.SIGSTOP)
        holder.look()
        holder.process.send_signal(signal.SIGCONT)
        assert holder.says() == "held to the end"


def test_a_program_that_is_interrupted_leaves_nothing(server: Server, locks: Locks) -> None:
    """The first while it holds the lock, the second while it waits for it."""
    with Holder(server, LONG_S) as first, Holder(server, LONG_S) as second:
        wait_until(waits_for(server, 1))
        holding, waiting = (first, second) if first_to_speak(first, second) is first else (second, first)
        waiting.process.send_signal(signal.SIGINT)
        assert waiting.says() == "interrupted"
        wait_until(waits_for(server, 0))
        holding.says()
        holding.process.send_signal(signal.SIGINT)
        assert holding.says() == "interrupted"
        assert info(server)["mode"] == "free"


def first_to_speak(*holders: Holder) -> Holder:
    """The one that says that it has the lock, once it does."""
    [spoke, *_], _, _ = select.select([one.output for one in holders], [], [], START_SECONDS)
    return next(one for one in holders if one.output is spoke)


INTERRUPTED = """
import redis
from resp_server.client import Locks

url = f"redis://127.0.0.1:{sys.argv[1]}"
locks, looks = Locks(url), redis.Redis.from_url(url, protocol=3)
for _ in range(100):
    try:
        interrupt_soon()
        while True:
            with locks.hold("lock", ttl=60.0):
                pass
    except KeyboardInterrupt:
        pass
    told = looks.execute_command("LOCK.INFO", "lock")
    if told[b"mode"] != b"free":
        sys.exit(f"left behind: {told}")
"""


def test_an_interrupt_at_any_moment_leaves_nothing(server: Server) -> None:
    interrupts.run(INTERRUPTED, str(server.port))


# Servers that go and come


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Node]:
    """A node that can be killed and started again."""
    with new_cluster(tmp_path, 1, direct=True) as cluster:
        cluster.start()
        yield cluster["n1"]


def test_a_lock_outlives_a_restart_of_the_server(alone: Node) -> None:
    """Whoever waits waits on, at the node that came back."""
    threads, locks = Threads(), Locks(url(alone))
    tokens: list[int] = []

    def wait() -> None:
        with locks.hold("lock") as lock:
            tokens.append(lock.token)

    with locks.hold("lock", ttl=LONG_S) as lock:
        threads.start(wait)
        wait_until(waits_for(alone, 1))
        alone.kill()
        alone.restart()
        wait_until(waits_for(alone, 1))
        lock.check()
        tokens.append(lock.token)
    threads.join()
    assert len(tokens) == 2
    assert tokens == sorted(set(tokens))
    assert info(alone)["mode"] == "free"
    locks.close()


def test_a_lock_is_lost_when_no_server_comes_back(alone: Node) -> None:
    locks = Locks(url(alone))

    def look() -> None:
        with locks.hold("lock", ttl=SHORT_S) as lock:
            alone.kill()
            assert lock.lost.wait(START_SECONDS)

    with pytest.raises(LockLost, match="not renewed in time"):
        look()
    locks.close()


# Clusters


def urls(cluster: Cluster) -> list[str]:
    return [f"redis://{HOST}:{node.port}" for node in cluster.nodes.values()]


def test_a_leader_is_killed_under_those_who_wait(three: Cluster) -> None:
    visits, threads = Visits(), Threads()
    stop = threading.Event()

    def work() -> None:
        with contextlib.closing(Locks(urls(three), ask_again=5.0)) as locks:
            while not stop.is_set():
                with locks.hold("contended", ttl=LONG_S) as lock, visits.visit(lock.token):
                    pass

    for _ in range(CLIENTS):
        threads.start(work)
    for _ in range(2):
        three.wait_until(lambda: len(visits.seen) > 20 or threads.failures)
        leader = three.wait_for_leader()
        leader.kill()
        seen = len(visits.seen)
        three.wait_until(lambda: len(visits.seen) > seen + 20 or threads.failures)  # noqa: B023
        leader.restart()
        three.wait_for_leader()
    stop.set()
    threads.join()
    visits.check(len(visits.seen))
    assert info(three.serving[0], "contended")["holders"] == []


def test_who_waits_at_a_node_that_fell_silent_asks_another(three: Cluster) -> None:
    """Its connection is open still, and would never say anything again."""
    threads, tokens = Threads(), list[int]()
    silent, speaks = three.others(three.wait_for_leader())

    def wait() -> None:
        given = [f"redis://{HOST}:{node.port}" for node in (silent, speaks)]
        with contextlib.closing(Locks(given, ask_again=SHORT_S)) as locks, locks.hold("silent", ttl=LONG_S) as lock:
            tokens.append(lock.token)

    with contextlib.closing(Locks(url(speaks))) as locks, locks.hold("silent", ttl=LONG_S):
        silent.pause()
        for _ in range(CLIENTS):
            threads.start(wait)
        three.wait_until(lambda: len(info(speaks, "silent")["waiters"]) == CLIENTS)
    threads.join()
    assert len(set(tokens)) == CLIENTS
    silent.resume()


def test_a_hold_outlives_its_leader(three: Cluster) -> None:
    with contextlib.closing(Locks(urls(three))) as locks, locks.hold("outlives", ttl=LONG_S) as lock:
        leader = three.wait_for_leader()
        leader.kill()
        three.wait_for_leader()
        lock.check()
        leader.restart()
    assert info(three.serving[0], "outlives")["mode"] == "free"


def test_a_client_is_sent_to_the_node_that_has_the_lock(tmp_path: Path) -> None:
    shape = ("--shards", "4", "--replicas", "1", "--routing", "redirect")
    with new_cluster(tmp_path, 3, *UNHURRIED, shape=shape, direct=True) as cluster:
        cluster.start()
        library: Any = redis_cluster
        nodes = [library.ClusterNode(HOST, node.port) for node in cluster.nodes.values()]
        client = wait_for_client(lambda: library.RedisCluster(startup_nodes=nodes))
        for given in (client, urls(cluster)[0]):
            with contextlib.closing(Locks(given)) as locks, contextlib.ExitStack() as held:
                for number in range(8):
                    held.enter_context(locks.hold(f"lock {number}", timeout=START_SECONDS)).check()
        client.close()


def wait_for_client(connect: Callable[[], Any]) -> Any:
    """Once the cluster has a leader for all."""
    found: list[Any] = []

    def is_there() -> bool:
        with contextlib.suppress(redis.RedisError, redis.exceptions.RedisClusterException):
            found.append(connect())
        return bool(found)

    wait_until(is_there)
    return found[0]
