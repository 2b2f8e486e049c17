"""The measures of one node: each one record with its target, and how both of its sides are taken."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from statistics import mean

from benchmarks import brokers, caching, clustered, deep_queues, flow, locking, memtier, queueing, sharded
from benchmarks.bench import Bench, Measure, Sampler, Samplers
from benchmarks.probes import (
    Endpoint,
    Load,
    MeasureFailed,
    checkpointing,
    command,
    load_keys,
    memory_bytes,
    wait_for_checkpoint,
)  # fmt: skip
from tests.servers import HOST, sepakat_server

REDIS = "redis"
VALUE_BYTES = 100
LOOKS = 8
"""How many runs look at one checkpoint, which may go on longer."""


def throughput(name: str, test: str, clients: int, requests: int, target: float, pipeline: int = 1) -> Measure:
    """A redis-benchmark test against both servers; GET finds every key it asks for."""

    @contextmanager
    def samplers(bench: Bench) -> Samplers:
        load = Load(test, clients, requests // bench.divisor, pipeline)
        with bench.ours() as ours, bench.redis() as theirs:
            for endpoint in (ours, theirs):
                load_keys(endpoint, load.keys, 3)
            yield lambda: load.run(ours)["rps"], lambda: load.run(theirs)["rps"]

    depth = f" -P {pipeline}" if pipeline > 1 else ""
    return Measure(name, f"{test.upper()} -c {clients}{depth}", "/s", REDIS, target, True, samplers)


@contextmanager
def memtier_mix(bench: Bench) -> Samplers:
    """memtier_benchmark's own mix against both servers, where memtier_benchmark is installed."""
    if not memtier.installed():
        raise MeasureFailed(f"{memtier.PROGRAM} is not on the PATH")
    requests = 200_000 // bench.divisor
    with bench.ours() as ours, bench.redis() as theirs:
        yield (
            lambda: memtier.run(ours, requests).ops_per_second,
            lambda: memtier.run(theirs, requests).ops_per_second,
        )


@contextmanager
def reads_during_checkpoint(bench: Bench) -> Samplers:
    """p99 of GET while every key is written to a checkpoint, against the same number of such runs without it."""
    load = Load("get", 50, 20_000 // bench.divisor, keys=bench.many_keys)
    runs = 1

    def p99_ms() -> float:
        return load.run(ours)["p99_latency_ms"]

    def busy() -> float:
        nonlocal runs
        load_keys(ours, bench.many_keys, VALUE_BYTES)
        wait_for_checkpoint(ours)
        command(ours, "BGSAVE")
        taken: list[float] = []
        while checkpointing(ours) and len(taken) < LOOKS:
            taken.append(p99_ms())
        if not taken:
            raise MeasureFailed(f"the checkpoint of {bench.many_keys} keys was over before one could look")
        runs = len(taken)
        return mean(taken)

    def idle() -> float:
        wait_for_checkpoint(ours)
        return mean(p99_ms() for _ in range(runs))

    with bench.ours("--checkpoint-log-bytes", "100gb") as ours:
        yield busy, idle


def startup(*, killed: bool) -> Callable[[Bench], AbstractContextManager[tuple[Sampler, Sampler | None]]]:
    """Seconds from starting the process to PONG, with many keys in the folder, after a clean stop or a kill -9."""

    @contextmanager
    def samplers(bench: Bench) -> Samplers:
        if bench.outside:
            raise MeasureFailed("an outside server cannot be restarted")
        with tempfile.TemporaryDirectory(prefix="sepakat-bench-") as folder:
            data, log = Path(folder) / "data", Path(folder) / "log"
            with sepakat_server(data, log) as server:
                load_keys(Endpoint(HOST, server.port), bench.many_keys, VALUE_BYTES)
                if killed:
                    server.process.kill()

            def seconds() -> float:
                started = time.perf_counter()
                with sepakat_server(data, log) as server:
                    taken = time.perf_counter() - started
                    keys = command(Endpoint(HOST, server.port), "DBSIZE")
                    if killed:
                        server.process.kill()
                if keys != f":{bench.many_keys}":
                    raise MeasureFailed(f"{keys} keys came back of {bench.many_keys}")
                return taken

            yield seconds, None

    return samplers


@contextmanager
def memory_per_key(bench: Bench) -> Samplers:
    """Growth of resident memory by each key, in bytes."""

    def grown(endpoint: Endpoint) -> float:
        before = memory_bytes(endpoint)
        load_keys(endpoint, bench.many_keys, VALUE_BYTES)
        wait_for_checkpoint(endpoint)
        return (memory_bytes(endpoint) - before) / bench.many_keys

    with bench.ours() as ours, bench.redis() as theirs:
        yield lambda: grown(ours), lambda: grown(theirs)


def flat(name: str, test: str) -> Measure:
    """The rate of a command in a large keyspace against a small one, both ours."""

    @contextmanager
    def samplers(bench: Bench) -> Samplers:
        if bench.outside:
            raise MeasureFailed("two servers of ours are compared: leave out --server")
        small, large = (Load(test, 50, 100_000 // bench.divisor, keys=keys) for keys in (1_000, bench.many_keys))
        with bench.ours() as few, bench.ours() as many:
            for endpoint, load in ((few, small), (many, large)):
                load_keys(endpoint, load.keys, VALUE_BYTES)
                wait_for_checkpoint(endpoint)
            yield lambda: large.run(many)["rps"], lambda: small.run(few)["rps"]

    return Measure(name, f"{test.upper()} -c 50, 1M keys", "/s", "1,000 keys", 0.8, True, samplers)


MEASURES = (
    throughput("get-50", "get", clients=50, requests=200_000, target=1.0),
    throughput("get-1", "get", clients=1, requests=50_000, target=0.8),
    throughput("set-50", "set", clients=50, requests=100_000, target=1.0),
    throughput("set-200", "set", clients=200, requests=100_000, target=1.0),
    throughput("set-50-p16", "set", clients=50, requests=400_000, target=0.7, pipeline=16),
    throughput("get-50-p16", "get", clients=50, requests=800_000, target=0.7, pipeline=16),
    Measure("checkpoint-p99", "GET p99 in a checkpoint", "ms", "without", 3.0, False, reads_during_checkpoint),
    Measure("startup", "start-up, 1M keys", "s", "", 10.0, False, startup(killed=False)),
    Measure("startup-killed", "the same after kill -9", "s", "", 10.0, False, startup(killed=True)),
    Measure("memory", "memory per key", "B", REDIS, 3.0, False, memory_per_key, repeats=False),
    flat("flat-get", "get"),
    flat("flat-set", "set"),
    Measure("memtier", "memtier 1:10 -c 50", "/s", REDIS, None, True, memtier_mix),
    *clustered.MEASURES,
    *sharded.MEASURES,
    *locking.MEASURES,
    *queueing.MEASURES,
    *deep_queues.MEASURES,
    *flow.MEASURES,
    *brokers.MEASURES,
    *caching.MEASURES,
)
