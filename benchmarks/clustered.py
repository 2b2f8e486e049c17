"""The measures of three nodes: what agreement costs, and what a failure and a newcomer do to those who write."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, contextmanager
from statistics import median

from benchmarks.attempts import seconds_to_next_write
from benchmarks.bench import Bench, Measure, Sampler, Samplers
from benchmarks.clusters import Cluster
from benchmarks.etcd import etcd_cluster
from benchmarks.open_loop import Figures, Plan, offering
from benchmarks.probes import (
    POLL_SECONDS,
    TIMEOUT_SECONDS,
    Load,
    MeasureFailed,
    load_keys,
    wait_for_checkpoint,
)

CLIENTS = 200
OFFERED = 10_000
OFFERED_SECONDS = 10.0
WRITERS = 50
WRITERS_OFFER = 2_000
"""Requests a second of those who write while a node joins: few enough that the machine has room for the newcomer."""
WINDOWS = 3
"""How many times the writers are looked at before."""
LATE_MS_MAX = 5.0
"""A request that was sent later than this by the generator tells of the machine, not of the servers."""
KILLS = 20
VALUE_BYTES = 100


def _sets(bench: Bench) -> Load:
    """SET from many clients at once, of which each waits for its answer."""
    return Load("set", CLIENTS, 100_000 // bench.divisor)


@contextmanager
def against_etcd(bench: Bench) -> Samplers:
    """Durable writes through the leader, against as many clients of etcd's leader."""
    load = _sets(bench)
    with bench.cluster() as ours, etcd_cluster() as theirs:
        yield (
            lambda: load.run(ours.endpoint(ours.leader()))["rps"],
            lambda: theirs.puts_per_second(load.clients, load.requests // 2),
        )


@contextmanager
def against_one_node(bench: Bench) -> Samplers:
    """Durable writes through the leader of three nodes, against one node alone."""
    load = _sets(bench)
    with bench.cluster() as three, bench.ours() as one:
        yield lambda: load.run(three.endpoint(three.leader()))["rps"], lambda: load.run(one)["rps"]


@contextmanager
def through_a_follower(bench: Bench) -> Samplers:
    """Durable writes through a follower, against through the leader, of the same cluster."""
    load = _sets(bench)
    with bench.cluster() as nodes:
        yield (
            lambda: load.run(nodes.endpoint(nodes.followers()[0]))["rps"],
            lambda: load.run(nodes.endpoint(nodes.leader()))["rps"],
        )


def in_time(figures: Figures) -> Figures:
    """The same; `MeasureFailed` when too much of the latency is the generator's own."""
    if figures.late_p99_ms > LATE_MS_MAX:
        raise MeasureFailed(
            f"the machine is too busy: requests were sent up to {figures.late_p99_ms:.1f} ms late (p99)"
        )
    return figures


def at_a_fixed_rate(
    pick: Callable[[Figures], float], beside: float | None = None
) -> Callable[[Bench], AbstractContextManager[tuple[Sampler, Sampler | None]]]:
    """One of the figures of SETs that are sent to the leader whether it answers in time or not."""

    @contextmanager
    def samplers(bench: Bench) -> Samplers:
        with bench.cluster() as nodes:

            def sample() -> float:
                seconds = OFFERED_SECONDS / bench.divisor
                with offering([nodes.endpoint(nodes.leader())], Plan(OFFERED), seconds) as load:
                    return pick(in_time(load.wait()))

            yield sample, None if beside is None else lambda: beside

    return samplers


def failover(
    pick: Callable[[Sequence[float]], float],
) -> Callable[[Bench], AbstractContextManager[tuple[Sampler, Sampler | None]]]:
    """Seconds from the leader's kill -9 to a write that succeeds; the killed node is back before the next kill."""

    @contextmanager
    def samplers(bench: Bench) -> Samplers:
        with bench.cluster() as nodes:

            def seconds() -> float:
                leader = nodes.leader()
                survivors = [nodes.endpoint(node) for node in nodes.followers()]
                started = time.perf_counter()
                nodes.kill(leader)
                taken = seconds_to_next_write(survivors, started)
                nodes.start()
                return taken

            yield lambda: pick([seconds() for _ in range(max(2, KILLS // bench.divisor))]), None

    return samplers


@contextmanager
def joining(bench: Bench) -> Samplers:
    """p99 of writers while a node joins and gets all keys, against that before it did."""
    with bench.cluster() as nodes:
        leader = nodes.endpoint(nodes.leader())
        load_keys(leader, bench.many_keys, VALUE_BYTES)
        for node in (nodes.leader(), *nodes.followers()):
            wait_for_checkpoint(nodes.endpoint(node))
        plan = Plan(WRITERS_OFFER, WRITERS)
        before = []
        for _ in range(WINDOWS):
            with offering([leader], plan, OFFERED_SECONDS / bench.divisor) as load:
                before.append(in_time(load.wait()).p99_ms)

        def meanwhile() -> float:
            with offering([leader], plan, TIMEOUT_SECONDS) as load:
                _join(nodes)
                return load.stop().p99_ms

        yield meanwhile, lambda: median(before)


def _join(nodes: Cluster) -> None:
    """Starts a node more, and returns when it votes."""
    leader = nodes.leader()
    voters = _voters(nodes, leader)
    nodes.join()
    give_up = time.monotonic() + TIMEOUT_SECONDS
    while _voters(nodes, leader) <= voters:
        if time.monotonic() > give_up:
            raise MeasureFailed(f"the new node does not vote after {TIMEOUT_SECONDS:g} s")
        time.sleep(POLL_SECONDS)


def _voters(nodes: Cluster, asked: str) -> int:
    """How many nodes vote."""
    return len(nodes.info(asked).get("raft_voters", "").split(","))


P99_MS = at_a_fixed_rate(lambda figures: figures.p99_ms)
ANSWERED = at_a_fixed_rate(lambda figures: figures.per_second, beside=OFFERED)

MEASURES = (
    Measure("cluster-etcd", "3 nodes: SET -c 200", "/s", "etcd", 8.0, True, against_etcd),
    Measure("cluster-one", "3 nodes: SET -c 200", "/s", "one node", 0.35, True, against_one_node),
    Measure("cluster-follower", "same through a follower", "/s", "leader", 0.5, True, through_a_follower),
    Measure("cluster-p99", "3 nodes: SET p99 at 10,000/s", "ms", "", 10.0, False, P99_MS),
    Measure("cluster-rate", "the same: answered", "/s", "offered", 0.99, True, ANSWERED),
    Measure("failover", "leader killed, median of 20", "s", "", 0.7, False, failover(median), repeats=False),
    Measure("failover-worst", "the same, worst of 20", "s", "", 2.0, False, failover(max), repeats=False),
    Measure("joining", "SET p99 while a node joins", "ms", "before", 3.0, False, joining, repeats=False),
)
