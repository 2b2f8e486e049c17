"""Clients of every kind, at work while a node joins, one is killed and one is removed: none of them notices much."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.callers import DID_NOT_HAPPEN, LEADER_LOST, ClusterAware, CommandLine, NewCaller, Plain
from tests.clusters import Node, sepakat
from tests.histories import Load, counting, growing
from tests.redis_binaries import find
from tests.rings import ring_of, running_ring, wait_for_ring

SHARDS = 16
NODE_TIMEOUT = "7000"  # ten of the election timeouts
BENCHMARK_SECONDS = 20.0
REST_SECONDS = 0.01  # the load is to be there all the time, and the machine has other things to do

CONNECTION_LOST = re.compile(
    "clos|refused|reset|Could not connect|Could not fetch node CONFIG|Broken pipe", re.IGNORECASE
)
"""How the clients say that a connection broke, which is all the same to them as being told to try again."""


class Benchmarks(Load):
    """``redis-benchmark --cluster``, again and again: it ends when a connection breaks, as it does with Redis.

    Where one is refused in the middle it says so and waits for ever for the answer to what it could not send.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        super().__init__(rest_s=REST_SECONDS)
        self._nodes = nodes
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Benchmarks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._thread.join()

    def _run(self) -> None:
        tools = find()
        words = ["--cluster", "-t", "set,get,incr", "-n", "1000", "-c", "10", "-r", "10000", "-q"]
        number = 0
        while not self.stop.is_set():
            running = [node for node in self._nodes if node.runs]
            port = running[number % len(running)].port
            number += 1
            line = ["timeout", str(BENCHMARK_SECONDS), tools.program("redis-benchmark"), "-p", str(port), *words]
            ended = subprocess.run(line, env=tools.environment(), capture_output=True, text=True)
            said = ended.stdout + ended.stderr
            errors = [line for line in re.split(r"[\r\n]+", said) if "rror" in line or "Could not" in line]
            if ended.returncode and not errors:
                errors = [f"redis-benchmark ended with {ended.returncode} and said {said[-1000:]!r}"]
            self.excuses.update(errors)
            if not ended.returncode and not errors:
                self.done += 1
            self.stop.wait(self.rest_s)


def only_retryable(load: Load) -> None:
    """Fails when a client was told anything but to try again, or that nobody knows, as a leader was killed under it."""
    expected = (*DID_NOT_HAPPEN, LEADER_LOST)
    foreign = {
        said: times
        for said, times in load.excuses.items()
        if not CONNECTION_LOST.search(said) and not any(word in said for word in expected)
    }
    assert not foreign, foreign


def test_a_node_joins_one_is_killed_one_is_removed(tmp_path: Path) -> None:
    with running_ring(tmp_path, 5, "--node-timeout", NODE_TIMEOUT, shards=SHARDS) as cluster:
        nodes = list(cluster.nodes.values())
        with ExitStack() as clients:
            kinds: dict[str, NewCaller] = {"aware": ClusterAware, "cli": CommandLine, "plain": Plain}
            grown = [
                clients.enter_context(
                    growing(nodes, seed=80, prefix=name, clients=2, new_caller=kind, rest_s=REST_SECONDS)
                )
                for name, kind in kinds.items()
            ]
            count = clients.enter_context(
                counting(
                    cluster, seed=83, prefix="count", clients=2, nodes=nodes, new_caller=Plain, rest_s=REST_SECONDS
                )
            )
            benchmarks = clients.enter_context(Benchmarks(nodes))
            loads: list[Load] = [*grown, count]

            def all_go_on() -> None:
                for load in loads:
                    load.goes_on()
                benchmarks.goes_on(1)

            all_go_on()
            new = cluster.newcomer("n6", cluster["n1"])
            new.start()
            new.wait_until_ready()
            nodes.append(new)
            joined = wait_for_ring(cluster)
            assert joined.replicas()["n6"] > 0
            all_go_on()

            killed = cluster["n3"]
            killed.kill()
            all_go_on()
            replaced = wait_for_ring(cluster)
            assert replaced.replicas()["n3"] == 0
            all_go_on()

            removed = cluster["n2"]
            done = sepakat("remove", removed.name, "--port", str(cluster["n5"].port))
            assert done.returncode == 0, done.stderr
            nodes.remove(removed)
            rest = cluster.others(removed)
            assert wait_for_ring(cluster, rest).replicas()["n2"] == 0
            all_go_on()

        for load in (*loads, benchmarks):
            only_retryable(load)
        for node in rest:
            count.assert_all_there(node)
            for one in grown:
                one.assert_all_there(node)
        assert all(one.acknowledged for one in grown)
        ring = ring_of(rest[0])
        assert all(row.leader is not None for row in ring.rows)
