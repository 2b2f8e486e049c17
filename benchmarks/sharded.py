"""The measures of many shards: what cutting the keys costs, how even they lie, and what moving them does to writers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, contextmanager
from statistics import mean, median

from benchmarks.bench import Bench, Measure, Sampler, Samplers
from benchmarks.clustered import (
    CLIENTS,
    OFFERED,
    OFFERED_SECONDS,
    VALUE_BYTES,
    WINDOWS,
    WRITERS,
    WRITERS_OFFER,
    in_time,
)
from benchmarks.clusters import Cluster
from benchmarks.open_loop import Figures, Plan, offering
from benchmarks.probes import TIMEOUT_SECONDS, Endpoint, Load, load_keys, wait_for_checkpoint
from tests.rings import REPLICAS, Ring

MIX = Plan(rate=OFFERED, connections=40, writes=0.2, bunch_ms=1.0, aware=True)
MIX_PLAIN = Plan(rate=OFFERED, connections=40, writes=0.2, bunch_ms=1.0)
IDLE_SECONDS = 10.0


def _shards(count: int) -> tuple[str, str]:
    return "--shards", str(count)


@contextmanager
def against_one_shard(bench: Bench) -> Samplers:
    """Durable writes over 16 shards, each to its leader, against as many through the leader of one."""
    requests = 100_000 // bench.divisor
    with bench.cluster(3, *_shards(16)) as many, bench.cluster() as one:
        yield (
            lambda: Load("set", CLIENTS, requests, aware=True).run(many.endpoint("n1"))["rps"],
            lambda: Load("set", CLIENTS, requests).run(one.endpoint(one.leader()))["rps"],
        )


def _endpoints(nodes: Cluster) -> list[Endpoint]:
    return [nodes.endpoint(name) for name in nodes.running]


def mixed(
    plan: Plan, pick: Callable[[Figures], float], beside: float | None = None
) -> Callable[[Bench], AbstractContextManager[tuple[Sampler, Sampler | None]]]:
    """One of the figures of reads and writes that are sent to ten nodes whether they answer in time or not."""

    @contextmanager
    def samplers(bench: Bench) -> Samplers:
        with bench.cluster(10, *_shards(32)) as nodes:
            load_keys(nodes.endpoint("n1"), plan.keys, 3)

            def sample() -> float:
                with offering(_endpoints(nodes), plan, OFFERED_SECONDS / bench.divisor) as load:
                    return pick(in_time(load.wait()))

            yield sample, None if beside is None else lambda: beside

    return samplers


@contextmanager
def idle(bench: Bench) -> Samplers:
    """Processor time of the busiest of ten nodes that nobody asks anything, in percent of a processor."""
    with bench.cluster(10, *_shards(32)) as nodes:

        def busiest() -> float:
            seconds = IDLE_SECONDS / bench.divisor
            before, started = nodes.processor_seconds(), time.perf_counter()
            time.sleep(seconds)  # that nothing is done meanwhile is what is measured
            after, taken = nodes.processor_seconds(), time.perf_counter() - started
            return max(100 * (after[name] - before[name]) / taken for name in before)

        yield busiest, None


@contextmanager
def moved(bench: Bench) -> Samplers:
    """Replicas that move when the sixth node joins five, against how many it must get."""
    shards = 32
    with bench.cluster(5, *_shards(shards)) as nodes:
        before = nodes.settle()

        def sample() -> float:
            nodes.join()
            return nodes.settle().arrived(before)

        yield sample, lambda: shards * REPLICAS / 6


def fullest(
    count: Callable[[Ring], Mapping[str, int]],
) -> Callable[[Bench], AbstractContextManager[tuple[Sampler, Sampler | None]]]:
    """What the fullest of ten nodes has, against the mean."""

    @contextmanager
    def samplers(bench: Bench) -> Samplers:
        with bench.cluster(10, *_shards(64)) as nodes:
            has = count(nodes.settle())
            held = [has.get(name, 0) for name in nodes.running]
            yield lambda: max(held), lambda: mean(held)

    return samplers


@contextmanager
def joining(bench: Bench) -> Samplers:
    """p99 of plain clients that write through all of five nodes, while a sixth gets its share, against before."""
    plan = Plan(rate=WRITERS_OFFER, connections=WRITERS, keys=bench.many_keys)
    with bench.cluster(5, *_shards(16)) as nodes:
        five = _endpoints(nodes)
        load_keys(five[0], bench.many_keys, VALUE_BYTES)
        for endpoint in five:
            wait_for_checkpoint(endpoint)
        before = []
        for _ in range(WINDOWS):
            with offering(five, plan, OFFERED_SECONDS / bench.divisor) as load:
                before.append(in_time(load.wait()).p99_ms)

        def meanwhile() -> float:
            with offering(five, plan, TIMEOUT_SECONDS) as load:
                nodes.join()
                nodes.settle()
                return load.stop().p99_ms

        yield meanwhile, lambda: median(before)


P95_MS = mixed(MIX, lambda figures: figures.p95_ms)
ANSWERED = mixed(MIX, lambda figures: figures.per_second, beside=OFFERED)
P95_PLAIN_MS = mixed(MIX_PLAIN, lambda figures: figures.p95_ms)

MEASURES = (
    Measure("ring-one", "3 nodes, 16 shards: SET -c 200", "/s", "one shard", 0.9, True, against_one_shard),
    Measure("ring-p95", "10 nodes, 32 shards: p95 at 10,000/s", "ms", "", 10.0, False, P95_MS),
    Measure("ring-rate", "the same: answered", "/s", "offered", 0.99, True, ANSWERED),
    Measure("ring-p95-plain", "the same through any node: p95", "ms", "", None, False, P95_PLAIN_MS),
    Measure("ring-idle", "10 nodes, 32 shards, idle: busiest", "%", "", 3.0, False, idle),
    Measure("ring-moved", "replicas moved when a 6th joins", "", "ideal", 1.3, False, moved, repeats=False),
    Measure("ring-joining", "SET p99 while a 6th joins", "ms", "before", 3.0, False, joining, repeats=False),
    Measure(
        "ring-leaders", "10 nodes, 64 shards: most leaders", "", "mean", 1.35, False, fullest(Ring.leaders),
        repeats=False,
    ),
    Measure(
        "ring-replicas", "10 nodes, 64 shards: most replicas", "", "mean", 1.35, False, fullest(Ring.replicas),
        repeats=False,
    ),
)  # fmt: skip
