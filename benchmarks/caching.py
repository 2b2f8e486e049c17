"""Caches: what a read of a held line costs, what reads and writes mixed do through them, and what a write waits."""

from __future__ import annotations

import bisect
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
    """One client that reads and writes keys of unequal popularity, and notes how long each reply takes."""

    def __init__(self, words: tuple[str, str], seed: int, popularity: Sequence[float], requests: int) -> None:
        self._words = words
        self._chance = random.Random(seed)
        self._popularity = popularity
        self.left = requests
        self.seconds: list[float] = []
        self._sent = 0.0

    def start(self) -> bytes:
        """The first request."""
        return self._next()

    def _next(self) -> bytes:
        chance = self._chance
        key = b"mixed:%d" % bisect.bisect(self._popularity, chance.random() * self._popularity[-1])
        self._sent = time.perf_counter()
        read, write = self._words
        return request(read, key) if chance.random() < READ_SHARE else request(write, key, VALUE)

    def receive(self, data: bytes) -> bytes:
        """The next one, upon a whole reply."""
        if data[:1] not in (b"$", b"+") or not data.endswith(b"\r\n"):
            raise MeasureFailed(f"expected a value or OK, got {data[:100]!r}")
        self.seconds.append(time.perf_counter() - self._sent)
        self.left -= 1
        return self._next() if self.left else b""


def _mix(endpoints: Sequence[Endpoint], words: tuple[str, str], requests: int, seed: int) -> tuple[float, float]:
    """A read-mostly load over all nodes: replies a second, and the 99th percentile of their times in ms."""
    popularity = list(itertools.accumulate(1 / rank**ZIPF for rank in range(1, KEYS + 1)))
    mixers = [_Mixer(words, seed * CLIENTS + at, popularity, requests // CLIENTS) for at in range(CLIENTS)]
    with ExitStack() as until:
        links = [
            (until.enter_context(endpoints[at % len(endpoints)].connect(SILENCE_SECONDS)), mixer)
            for at, mixer in enumerate(mixers)
        ]
        pace = carry(links, lambda: not any(mixer.left for mixer in mixers))
    seconds = sorted(itertools.chain.from_iterable(mixer.seconds for mixer in mixers))
    return len(seconds) / pace.seconds, quantile(seconds, 0.99) * 1000


CACHED = "CACHE.GET", "CACHE.SET"
PLAIN = "GET", "SET"


def mixing(figure: int) -> Taking:
    """The read-mostly load through the caches of three nodes, against the same with GET and SET: one of its figures."""

    @contextmanager
    def samplers(bench: Bench) -> Samplers:
        requests = 100_000 // bench.divisor
        seeds = itertools.count(1)
        with bench.cluster() as nodes:
            everywhere = [nodes.endpoint(name) for name in nodes.running]
            _mix(everywhere, PLAIN, requests, 0)  # so that most keys are there
            yield (
                lambda: _mix(everywhere, CACHED, requests, next(seeds))[figure],
                lambda: _mix(everywhere, PLAIN, requests, next(seeds))[figure],
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
