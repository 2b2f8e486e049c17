"""Requests at a fixed rate, whatever the answers do, and how long each took: ``python -m benchmarks.open_loop``.

A closed loop waits with its next request for a slow answer, and so leaves out
the very requests that would have been slow. Here each request has its time,
evenly spaced; its latency counts from then, also where it was sent late
because this program or the machine was busy. Requests go round robin to the
connections, behind each other where answers are still due: to those of all
servers that are named, or to that of the node that CLUSTER SLOTS names for the
key. What is due may be sent in bunches, which costs the generator less; its
latency counts from when it was due all the same.

It is a process of its own so that what else the benchmark does cannot make it
late. It ends after its seconds, or with --until-input when there is input or
its end, waits for the answers that are due, and prints one line of JSON.
"""

from __future__ import annotations

import json
import math
import os
import random
import select
import subprocess
import sys
import time
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import hiredis

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.probes import RECEIVE_BYTES, Endpoint, MeasureFailed, ask, request
from cluster.ring.slots import SLOTS, slot_of

ANSWERS_SECONDS = 10.0
"""How long answers are waited for after the last request."""
STARTUP_SECONDS = 30.0
PRIORITY = -10
"""Its own, where it may: else servers that use all processors would make it late, and it is they who are measured."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run gave: requests, answers a second until the last one, and milliseconds.

    ``late_p99_ms`` is how late requests were sent; it is part of their latency.
    """

    requests: int
    per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    late_p99_ms: float


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the ordered samples that ``share`` of them do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is sent: requests a second, over so many connections in all, to so many different keys.

    ``writes`` is the share of SETs, the rest are GETs. ``aware`` sends each to
    the node that leads its shard, as one of the servers tells it.
    """

    rate: float = 10_000
    connections: int = 100
    keys: int = 100_000
    writes: float = 1.0
    bunch_ms: float = 0.0
    aware: bool = False


class _Connection:
    """A connection and when the requests were due whose answers are."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.socket = endpoint.connect()
        self.socket.setblocking(False)
        self.due: deque[float] = deque()
        self.reader = hiredis.Reader(replyError=hiredis.ReplyError)


class Generator:
    """One run: which request is due, what is under way on each connection, and the latencies so far."""

    def __init__(self, endpoints: Sequence[Endpoint], plan: Plan) -> None:
        self._rate = plan.rate
        self._writes = plan.writes
        self._bunch = plan.bunch_ms / 1000
        names = [f"key:{number:012d}" for number in range(plan.keys)]
        self._sets = [request("SET", name, "xxx") for name in names]
        self._gets = [request("GET", name) for name in names] if plan.writes < 1 else []
        self._chance = random.Random(plan.keys)
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._homes = self._connect(endpoints, plan, names)
        self._sent = 0
        self._latencies = array("d")
        self._late = array("d")

    def _connect(self, endpoints: Sequence[Endpoint], plan: Plan, names: Sequence[str]) -> list[list[_Connection]]:
        """Opens the connections; those each key may go by."""
        leaders = _leaders(endpoints[0]) if plan.aware else []
        servers = list(dict.fromkeys(leaders or endpoints))
        opened: dict[Endpoint, list[_Connection]] = {server: [] for server in servers}
        for number in range(max(plan.connections, len(servers))):
            connection = _Connection(server := servers[number % len(servers)])
            self._epoll.register(connection.socket, select.EPOLLIN)
            self._connections[connection.socket.fileno()] = connection
            opened[server].append(connection)
        if leaders:
            return [opened[leaders[slot_of(name.encode())]] for name in names]
        return [list(self._connections.values())] * len(names)

    def run(self, seconds: float, until: int | None = None) -> Figures:
        """Sends for ``seconds``, or until the descriptor ``until`` is at its end; then waits for the answers."""
        watched: list[Any] = [self._epoll] if until is None else [self._epoll, until]
        started = time.perf_counter()
        ended = False
        while not ended:
            now = time.perf_counter() - started
            ended = now >= seconds
            self._send(started, min(now, seconds))
            # Nested in a select because epoll's own timeout is in whole milliseconds.
            pause = self._next_due() - (time.perf_counter() - started)
            ready, _, _ = select.select(watched, [], [], max(0.0, pause))
            ended = ended or until in ready
            self._receive()
        give_up = time.perf_counter() + ANSWERS_SECONDS
        while len(self._latencies) < self._sent:
            if time.perf_counter() > give_up:
                missing = self._sent - len(self._latencies)
                raise MeasureFailed(f"{missing} of {self._sent} were not answered after {ANSWERS_SECONDS:g} s")
            select.select([self._epoll], [], [], ANSWERS_SECONDS)
            self._receive()
        if not self._sent:
            raise MeasureFailed("ended before the first request was due")
        latencies, late = sorted(self._latencies), sorted(self._late)
        return Figures(
            requests=self._sent,
            per_second=self._sent / (time.perf_counter() - started),
            p50_ms=quantile(latencies, 0.5) * 1000,
            p95_ms=quantile(latencies, 0.95) * 1000,
            p99_ms=quantile(latencies, 0.99) * 1000,
            max_ms=latencies[-1] * 1000,
            late_p99_ms=quantile(late, 0.99) * 1000,
        )

    def close(self) -> None:
        """Closes every connection."""
        self._epoll.close()
        for connection in self._connections.values():
            connection.socket.close()

    def _next_due(self) -> float:
        """When the next request, or the next bunch of them, is sent."""
        due = (self._sent + 1) / self._rate
        return math.ceil(due / self._bunch) * self._bunch if self._bunch else due

    def _send(self, started: float, now: float) -> None:
        """Sends every request whose time has come, ``now`` seconds after the start."""
        if now < self._next_due():
            return
        for number in range(self._sent, int(now * self._rate)):
            due = (number + 1) / self._rate
            key = int(self._chance.random() * len(self._homes))
            homes = self._homes[key]
            connection = homes[number % len(homes)]
            writes = self._writes == 1 or self._chance.random() < self._writes
            message = (self._sets if writes else self._gets)[key]
            try:
                whole = connection.socket.send(message) == len(message)
            except BlockingIOError:
                whole = False
            if not whole:
                raise MeasureFailed("the server does not read what it is sent")
            connection.due.append(started + due)
            self._late.append(time.perf_counter() - started - due)
            self._sent = number + 1

    def _receive(self) -> None:
        """Takes the answers that are there."""
        for descriptor, _ in self._epoll.poll(0):
            connection = self._connections[descriptor]
            received = connection.socket.recv(RECEIVE_BYTES)
            now = time.perf_counter()
            if not received:
                raise MeasureFailed("the server closed a connection")
            connection.reader.feed(received)
            while (reply := connection.reader.gets()) is not False:
                if isinstance(reply, hiredis.ReplyError):
                    raise MeasureFailed(f"one was answered -{reply}")
                self._latencies.append(now - connection.due.popleft())


def _leaders(endpoint: Endpoint) -> list[Endpoint]:
    """Who leads each slot, as this server tells its clients."""
    leaders: list[Endpoint] = []
    for first, last, (host, port, *_), *_ in sorted(ask(endpoint, "CLUSTER", "SLOTS")):
        leaders += [Endpoint(host.decode(), port)] * (last - first + 1)
    if len(leaders) != SLOTS:
        raise MeasureFailed(f"CLUSTER SLOTS names a leader for {len(leaders)} slots only")
    return leaders


class Offering:
    """A generator at work in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], seconds: float) -> None:
        self._process = process
        self._seconds = seconds

    def stop(self) -> Figures:
        """Its figures up to now."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self.wait()

    def wait(self) -> Figures:
        """Its figures once its seconds are over; `MeasureFailed` with what kept it from having any."""
        try:
            self._process.wait(self._seconds + STARTUP_SECONDS + ANSWERS_SECONDS)
        except subprocess.TimeoutExpired:
            raise MeasureFailed("the load generator does not end") from None
        assert self._process.stdout is not None
        said = self._process.stdout.read().strip()
        try:
            report = json.loads(said)
        except ValueError:
            raise MeasureFailed(f"the load generator ended with {self._process.returncode} and said {said!r}") from None
        if "failed" in report:
            raise MeasureFailed(f"requests at a fixed rate: {report['failed']}")
        return Figures(**report)


@contextmanager
def offering(endpoints: Sequence[Endpoint], plan: Plan, seconds: float) -> Iterator[Offering]:
    """Starts what is planned, to last for ``seconds``; it ends with the block at the latest."""
    line = [
        sys.executable, str(Path(__file__)), *(f"{one.host}:{one.port}" for one in endpoints), "--until-input",
        f"--seconds={seconds}", f"--plan={json.dumps(asdict(plan))}",
    ]  # fmt: skip
    process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            yield Offering(process, seconds)
        finally:
            process.kill()


@click.command(context_settings={"show_default": True})
@click.argument("servers", nargs=-1, required=True, metavar="HOST:PORT...")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=10, help="How long.")
@click.option("--plan", default="{}", help="What differs from the defaults of `Plan`, as JSON.")
@click.option("--until-input", is_flag=True, help="End when standard input has something or ends.")
def main(servers: Sequence[str], seconds: float, plan: str, until_input: bool) -> None:
    """Sends requests at a fixed rate and prints their latencies in milliseconds as JSON."""
    with suppress(PermissionError):
        os.nice(PRIORITY)
    named = [one.rpartition(":") for one in servers]
    try:
        generator = Generator([Endpoint(host, int(port)) for host, _, port in named], Plan(**json.loads(plan)))
        with closing(generator):
            report = asdict(generator.run(seconds, sys.stdin.fileno() if until_input else None))
    except (MeasureFailed, OSError) as error:
        report = {"failed": str(error)}
    click.echo(json.dumps(report))


if __name__ == "__main__":
    main()
