"""What a measure is, and what a run gives it to work with.

A measure is a context manager that prepares two samplers, ours and what it is
compared with; the runner calls them in turn, round after round.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.clusters import Cluster, several_nodes
from benchmarks.probes import Endpoint, MeasureFailed, command
from tests.redis_binaries import redis_server
from tests.servers import HOST, sepakat_server

Sampler = Callable[[], float]
Samplers = Iterator[tuple[Sampler, Sampler | None]]


@dataclass(frozen=True, slots=True)
class Bench:
    """What a run was asked for: an outside server as ours, if any, and by how much work is divided.

    ``notes`` are lines for the reader: what a measure found besides its figure.
    """

    outside: Endpoint | None
    divisor: int
    notes: list[str] = field(default_factory=list)

    @property
    def many_keys(self) -> int:
        """The size of the large keyspace."""
        return 1_000_000 // self.divisor

    @contextmanager
    def ours(self, *flags: str) -> Iterator[Endpoint]:
        """Our server, durable on every reply, with an empty folder; or the outside one, emptied."""
        if self.outside:
            command(self.outside, "FLUSHALL")
            yield self.outside
            return
        with tempfile.TemporaryDirectory(prefix="sepakat-bench-") as folder:
            home = Path(folder)
            with sepakat_server(home / "data", home / "log", *flags) as server:
                yield Endpoint(HOST, server.port)

    @contextmanager
    def cluster(self, size: int = 3, *flags: str) -> Iterator[Cluster]:
        """Some nodes of ours, durable on every reply, with empty folders."""
        if self.outside:
            raise MeasureFailed("a cluster of ours is measured: leave out --server")
        with several_nodes(size, *flags) as cluster:
            yield cluster

    @contextmanager
    def redis(self) -> Iterator[Endpoint]:
        """A redis-server as durable as ours."""
        with redis_server("--appendonly", "yes", "--appendfsync", "always") as server:
            yield Endpoint(HOST, server.port)


@dataclass(frozen=True, slots=True)
class Measure:
    """One line of the table.

    ``beside`` names what ours is divided by ("" when ours stands alone);
    ``target`` is a bound on the ratio, or on ours when it stands alone;
    ``repeats`` is false where a second round would only repeat the first.
    ``samplers`` yields the two that are called in turn, ours first.
    """

    name: str
    title: str
    unit: str
    beside: str
    target: float | None
    at_least: bool
    samplers: Callable[[Bench], AbstractContextManager[tuple[Sampler, Sampler | None]]]
    repeats: bool = True
