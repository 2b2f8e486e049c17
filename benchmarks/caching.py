"""Caches: what a read of a held line costs, what reads and writes mixed do through them, and what a write waits."""

from __future__ import annotations

import csv
import io
import itertools
import random
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from statistics import median
from typing import TypeAlias

from benchmarks.bench import Bench, Measure, Sampler, Samplers
from benchmarks.open_loop import quantile
from benchmarks.probes import (
    RECEIVE_BYTES,
    SILENCE_SECONDS,
    TIMEOUT_SECONDS,
    Endpoint,
    MeasureFailed,
    ask,
    memory_bytes,
    request,
)
from benchmarks.wires import carry
from tests import redis_binaries

Taking: TypeAlias = "Callable[[Bench], AbstractContextManager[tuple[Sampler, Sampler | None]]]"

CLIENTS = 50
KEYS = 10_000
VALUE = b"x" * 100
VALUE_OR_OK = b"$+"
"""What the replies begin with that are expected."""
READ_SHARE = 0.95
ZIPF = 0.99
"""The exponent of the key's popularity, as YCSB has it."""

LINES = 200_000
SHARERS = 9


def _reads_per_second(endpoints: Sequence[Endpoint], word: str, requests: int) -> float:
    """How many of one key, by clients of all these nodes: each node's are a redis-benchmark."""
    redis = redis_binaries.find()
    share, clients = requests // len(endpoints), CLIENTS // len(endpoints)

    def run(endpoint: Endpoint) -> float:
        words = ["-h", endpoint.host, "-p", endpoint.port, "-c", clients, "-n", share, "--csv", word, "line"]
        line = [redis.program("redis-benchmark"), *map(str, words)]
        ended = subprocess.run(
            line, env=redis.environment(), capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
        )
        rows = list(csv.DictReader(io.StringIO(ended.stdout[max(0, ended.stdout.find('"test"')) :])))
        if ended.returncode or len(rows) != 1:
            raise MeasureFailed(f"redis-benchmark {word}: {(ended.stderr or ended.stdout).strip()[-200:]}")
        return float(rows[0]["rps"])

    with ThreadPoolExecutor(len(endpoints)) as pool:
        return sum(pool.map(run, endpoints))


def _held(endpoints: Sequence[Endpoint]) -> None:
    for endpoint in endpoints:
        ask(endpoint, "SET", "line", VALUE.decode())
    for endpoint in endpoints:
        ask(endpoint, "CACHE.GET", "line")


def hits(beside: Callable[[Bench], AbstractContextManager[Endpoint]]) -> Taking:
    """CACHE.GET of a line that a follower of three holds, against GET of a server alone."""

    @contextmanager
    def samplers(bench: Bench) -> Samplers:
        requests = 300_000 // bench.divisor
        with bench.cluster() as nodes, beside(bench) as alone:
            follower = nodes.endpoint(nodes.followers()[0])
            _held([follower])
            ask(alone, "SET", "line", VALUE.decode())
            yield (
                lambda: _reads_per_second([follower], "CACHE.GET", requests),
                lambda: _reads_per_second([alone], "GET", requests),
            )

    return samplers


@contextmanager
def hits_on_all_nodes(bench: Bench) -> Samplers:
    """CACHE.GET through all three nodes at once, against GET through the leader alone."""
    requests = 300_000 // bench.divisor
    with bench.cluster() as nodes:
        everywhere = [nodes.endpoint(name) for name in nodes.running]
        leader = nodes.endpoint(nodes.leader())
        _held(everywhere)
        yield (
            lambda: _reads_per_second(everywhere, "CACHE.GET", requests),
            lambda: _reads_per_second([leader], "GET", requests),
        )


class _Mixer:
    """One client that sends what was made before, each after the last reply, and notes how long each reply takes."""

    def __init__(self, requests: Sequence[bytes], left: list[int]) -> None:
        self._requests = iter(requests)
        self._left = left
        self.seconds: list[float] = []
        self._sent = 0.0

    def start(self) -> bytes:
        """The first request."""
        self._sent = time.perf_counter()
        return next(self._requests)

    def receive(self, data: bytes) -> bytes:
        """The next one, upon a whole reply."""
        if data[0] not in VALUE_OR_OK or data[-2:] != b"\r\n":
            raise MeasureFailed(f"expected a value or OK, got {data[:100]!r}")
        now = time.perf_counter()
        self.seconds.append(now - self._sent)
        self._sent = now
        self._left[0] -= 1
        return next(self._requests, b"")


class _Mix:
    """A read-mostly load over all nodes, with keys of its own: what it keeps in caches is what it reads itself."""

    def __init__(self, endpoints: Sequence[Endpoint], read: str, write: str, prefix: bytes) -> None:
        self._endpoints = endpoints
        names = [b"%s:%d" % (prefix, rank) for rank in range(KEYS)]
        self._reads = [request(read, name) for name in names]
        self._writes = [request(write, name, VALUE) for name in names]
        self._popularity = list(itertools.accumulate(1 / rank**ZIPF for rank in range(1, KEYS + 1)))
        _pipeline(endpoints[0], (request("SET", name, VALUE) for name in names), KEYS)

    def _script(self, seed: int, count: int) -> list[bytes]:
        """The requests of one client: the same seed draws the same keys, to be read or written, in both loads."""
        chance = random.Random(seed)
        ranks = chance.choices(range(KEYS), cum_weights=self._popularity, k=count)
        return [(self._reads if chance.random() < READ_SHARE else self._writes)[rank] for rank in ranks]

    def run(self, requests: int, seed: int) -> tuple[float, float]:
        """Replies a second, and the 99th percentile of their times in ms."""
        count = requests // CLIENTS
        left = [count * CLIENTS]
        mixers = [_Mixer(self._script(seed * CLIENTS + at, count), left) for at in range(CLIENTS)]
        with ExitStack() as until:
            links = [
                (until.enter_context(self._endpoints[at % len(self._endpoints)].connect(SILENCE_SECONDS)), mixer)
                for at, mixer in enumerate(mixers)
            ]
            pace = carry(links, lambda: not left[0])
        seconds = sorted(itertools.chain.from_iterable(mixer.seconds for mixer in mixers))
        return len(seconds) / pace.seconds, quantile(seconds, 0.99) * 1000


def mixing(figure: int) -> Taking:
    """The read-mostly load through the caches of three nodes, against the same with GET and SET: one of its figures.

    Both have run once before the first sample: what is read mostly has been read before, a cache that is cold has
    nothing to offer yet. The other figure of each pair is noted beside.
    """

    @contextmanager
    def samplers(bench: Bench) -> Samplers:
        requests = 100_000 // bench.divisor
        with bench.cluster() as nodes:
            everywhere = [nodes.endpoint(name) for name in nodes.running]
            cached = _Mix(everywhere, "CACHE.GET", "CACHE.SET", b"mixed")
            plain = _Mix(everywhere, "GET", "SET", b"plain")

            def sample(name: str, mix: _Mix, seeds: Iterator[int]) -> float:
                figures = mix.run(requests, next(seeds))
                bench.notes.append(f"{name}: {figures[0]:,.0f}/s, p99 {figures[1]:.3g} ms")
                return figures[figure]

            cached.run(requests, 0)
            plain.run(requests, 0)
            ours, beside = itertools.count(1), itertools.count(1)
            yield (
                lambda: sample("CACHE.GET and CACHE.SET", cached, ours),
                lambda: sample("GET and SET", plain, beside),
            )

    return samplers


def _write_after_readers(readers: Sequence[Endpoint], writer: Endpoint, number: int) -> float:
    """All readers hold the line; how long the writer's CACHE.SET takes, in ms."""
    for endpoint in readers:
        ask(endpoint, "CACHE.GET", "shared")
    line = request("CACHE.SET", "shared", b"%d" % number)
    with writer.connect(SILENCE_SECONDS) as connection:
        started = time.perf_counter()
        connection.sendall(line)
        if not select.select([connection], [], [], SILENCE_SECONDS)[0]:
            raise MeasureFailed("a write was not answered")
        reply = connection.recv(RECEIVE_BYTES)
        if reply != b"+OK\r\n":
            raise MeasureFailed(f"expected OK, got {reply[:100]!r}")
        return (time.perf_counter() - started) * 1000


@contextmanager
def shared_write(bench: Bench) -> Samplers:
    """A write to a line that nine other nodes share."""
    writes = 200 // bench.divisor or 10
    with bench.cluster(SHARERS + 1) as nodes:
        endpoints = [nodes.endpoint(name) for name in nodes.running]
        ask(endpoints[0], "SET", "shared", "0")

        def sample() -> float:
            times = []
            for number in range(writes):
                writer = endpoints[number % len(endpoints)]
                readers = [one for one in endpoints if one is not writer]
                times.append(_write_after_readers(readers, writer, number))
            bench.notes.append(f"cache-shared-write: median {median(times):.3g} ms, worst {max(times):.3g} ms")
            return quantile(sorted(times), 0.99)

        yield sample, None


@contextmanager
def line_memory(bench: Bench) -> Samplers:
    """What a line takes on a node that does not lead, beyond its key and value."""
    count = LINES // bench.divisor
    with bench.cluster() as nodes:
        reader, leader = nodes.endpoint(nodes.followers()[0]), nodes.endpoint(nodes.leader())
        _pipeline(leader, (request("SET", b"held:%07d" % at, VALUE) for at in range(count)), count)

        def sample() -> float:
            before = memory_bytes(reader)
            _pipeline(reader, (request("CACHE.GET", b"held:%07d" % at) for at in range(count)), count)
            return (memory_bytes(reader) - before) / count - len(VALUE) - len(b"held:0000000")

        yield sample, None


def _pipeline(endpoint: Endpoint, requests: Iterator[bytes], count: int) -> None:
    """Sends them a hundred at a time, and waits for as many replies."""
    with endpoint.connect(SILENCE_SECONDS) as connection:
        for _ in range(0, count, 100):
            lines = list(itertools.islice(requests, 100))
            connection.sendall(b"".join(lines))
            missing = len(lines)
            while missing:
                data = connection.recv(RECEIVE_BYTES)
                if not data or data[:1] == b"-":
                    raise MeasureFailed(f"expected replies, got {data[:100]!r}")
                missing -= data.count(b"+OK\r\n") + data.count(VALUE)


MEASURES = (
    Measure("cache-redis", "CACHE.GET of a held line -c 50", "/s", "redis-server's GET", 0.9, True, hits(Bench.redis)),
    Measure("cache-one", "the same", "/s", "our GET, one node", 0.9, True, hits(Bench.ours)),
    Measure("cache-all", "the same on all of 3 nodes at once", "/s", "GET on the leader", 1.0, True, hits_on_all_nodes),
    Measure("cache-mix", "3 nodes, 95 % reads, Zipf", "/s", "GET and SET", 3.0, True, mixing(0)),
    Measure("cache-mix-p99", "the same: p99", "ms", "GET and SET", 1 / 3, False, mixing(1)),
    Measure("cache-shared-write", "write to a line of 9 other nodes: p99", "ms", "", 10.0, False, shared_write),
    Measure("cache-memory", "memory per line", "B", "", 300.0, False, line_memory, repeats=False),
)
