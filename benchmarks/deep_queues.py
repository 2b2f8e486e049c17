"""What a queue costs in which a million messages wait, against one with a thousand.

Both are on three durable nodes of their own, and are worked on in turn. What is
pushed is taken and acknowledged at once, so that each stays as deep as it is.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

from benchmarks.bench import Bench, Measure, Sampler, Samplers
from benchmarks.clusters import Cluster
from benchmarks.flow import CLIENTS, Talk, create_parts, producer, talk
from benchmarks.probes import (
    Endpoint,
    Load,
    MeasureFailed,
    checkpointing,
    command,
    load_keys,
    request,
    wait_for_checkpoint,
)
from benchmarks.queueing import FIRST_DUE_MS, load_messages
from tests.servers import HOST, sepakat_server

QUEUE = "deep"
FEW = 1_000
STEPS = 20
AT_ONCE = 500
"""Messages of one step: few beside those that wait."""
STEP = ("push", "pop and acknowledge")
DEARER_MAX = 1.5
KEYS = 1_000

Prepare = Callable[[Bench], AbstractContextManager[tuple[Sampler, Sampler | None]]]


@dataclass(frozen=True, slots=True)
class Depth:
    """What waits in a queue: ready messages, delayed ones beside them, in so many partitions."""

    ready: int
    delayed: int = 0
    partitions: int = 1


class Cost(NamedTuple):
    """Of each of some messages: until all were answered, and what all nodes computed."""

    elapsed_us: float
    used_us: float


def taker(queue: str, messages: int, left: list[int]) -> Talk:
    """Takes and acknowledges so many messages one by one; they are there."""
    pop = request("Q.POP", queue)
    for _ in range(messages):
        taken = yield pop
        if not taken:
            raise MeasureFailed("Q.POP found nothing where very many messages wait")
        acknowledged = yield request("Q.ACK", queue, taken[0][0])
        left[0] -= acknowledged


class Deep:
    """A queue on some nodes, as deep as told; made when everything is at rest again."""

    def __init__(self, nodes: Cluster, depth: Depth) -> None:
        self._nodes = nodes
        self._endpoints = [nodes.endpoint(name) for name in nodes.running]
        if depth.partitions > 1:
            create_parts(self._endpoints, QUEUE, depth.partitions)
        load_messages(self._endpoints[0], QUEUE, depth.ready)
        if depth.delayed:
            load_messages(self._endpoints[0], QUEUE, depth.delayed, spread_ms=FIRST_DUE_MS)
        for endpoint in self._endpoints:
            wait_for_checkpoint(endpoint)

    def step(self) -> list[Cost]:
        """Some messages in, as many out: what each took, as `STEP` names them."""
        return [self._cost(producer), self._cost(taker)]

    def _cost(self, client: Callable[[str, int, list[int]], Talk]) -> Cost:
        left, each = [AT_ONCE], AT_ONCE // CLIENTS
        used = self._used_seconds()
        seconds = talk(self._endpoints, [client(QUEUE, each, left) for _ in range(CLIENTS)], left).seconds
        return Cost(1e6 * seconds / AT_ONCE, 1e6 * (self._used_seconds() - used) / AT_ONCE)

    def _used_seconds(self) -> float:
        return sum(self._nodes.processor_seconds().values())


def compared(bench: Bench, deep: Deep, shallow: Deep) -> float:
    """How many times as long the step takes that grew most where many wait; all of them go into the notes."""
    steps = [(deep.step(), shallow.step()) for _ in range(STEPS)]
    ratios = []
    for place, what in enumerate(STEP):
        many, few = [costs[place] for costs, _ in steps], [costs[place] for _, costs in steps]
        longer, shorter = (median(cost.elapsed_us for cost in costs) for costs in (many, few))
        used_more, used_less = (mean(cost.used_us for cost in costs) for costs in (many, few))
        ratios.append(longer / shorter)
        elapsed = f"{longer:.3g} µs, where few wait {shorter:.3g}: {longer / shorter:.2f}"
        used = f"{used_more:.3g} and {used_less:.3g} µs: {used_more / used_less:.2f}"
        bench.notes.append(f"{what}: {elapsed}; processor time of all nodes {used}")
    return max(ratios)


def against_few(deep: Callable[[int], Depth], shallow: Depth, *flags: str) -> Prepare:
    """A queue with very many messages against one with few."""

    @contextmanager
    def samplers(bench: Bench) -> Samplers:
        with bench.cluster(3, *flags) as one, bench.cluster(3, *flags) as two:
            many, few = Deep(one, deep(bench.many_keys)), Deep(two, shallow)
            yield lambda: compared(bench, many, few), None

    return samplers


@contextmanager
def startup(bench: Bench) -> Samplers:
    """Seconds from starting the process to PONG, with very many messages in the folder, after a kill -9."""
    if bench.outside:
        raise MeasureFailed("an outside server cannot be restarted")
    with tempfile.TemporaryDirectory(prefix="sepakat-bench-") as folder:
        data, log = Path(folder) / "data", Path(folder) / "log"
        with sepakat_server(data, log) as server:
            load_messages(Endpoint(HOST, server.port), QUEUE, bench.many_keys)
            server.process.kill()

        def seconds() -> float:
            started = time.perf_counter()
            with sepakat_server(data, log) as server:
                taken = time.perf_counter() - started
                ready = command(Endpoint(HOST, server.port), "Q.LEN", QUEUE)
                server.process.kill()
            if ready != f":{bench.many_keys}":
                raise MeasureFailed(f"{ready} messages came back of {bench.many_keys}")
            return taken

        yield seconds, None


@contextmanager
def reads_during_checkpoint(bench: Bench) -> Samplers:
    """p99 of GET while all of the messages are written to a checkpoint, against the same load at rest."""
    load = Load("get", CLIENTS, 20_000 // bench.divisor, keys=KEYS)

    def p99_ms() -> float:
        return load.run(ours)["p99_latency_ms"]

    def busy() -> float:
        load_messages(ours, QUEUE, bench.many_keys)
        command(ours, "BGSAVE")
        taken = []
        while checkpointing(ours):
            taken.append(p99_ms())
        if not taken:
            raise MeasureFailed(f"the checkpoint of {bench.many_keys} messages was over before one could look")
        return median(taken)

    with bench.ours("--checkpoint-log-bytes", "100gb") as ours:
        load_keys(ours, KEYS, 3)
        yield busy, p99_ms


def _million(name: str, title: str, samplers: Prepare) -> Measure:
    return Measure(name, title, "", "1,000", DEARER_MAX, False, samplers, repeats=False)


MEASURES = (
    _million("queue-million", "3 nodes, 1M messages: push, pop", against_few(lambda many: Depth(many), Depth(FEW))),
    _million(
        "queue-million-delayed", "the same, 1M delayed beside",
        against_few(lambda many: Depth(FEW, delayed=many), Depth(FEW)),
    ),
    _million(
        "queue-million-parts", "1M in 8 partitions, 16 shards",
        against_few(lambda many: Depth(many, partitions=8), Depth(FEW, partitions=8), "--shards", "16"),
    ),
    Measure("queue-startup", "start-up, 1M messages, after kill -9", "s", "", 10.0, False, startup),
    Measure(
        "queue-checkpoint", "GET p99 in a checkpoint of them", "ms", "without", 3.0, False, reads_during_checkpoint,
        repeats=False,
    ),
)  # fmt: skip
