"""SETs at a fixed rate whatever the answers do, and how long each took: ``python -m benchmarks.open_loop HOST PORT``.

A closed loop waits with its next request for a slow answer, and so leaves out
the very requests that would have been slow. Here each request has its time,
evenly spaced; its latency counts from then, also where it was sent late
because this program or the machine was busy. Requests go round robin to the
connections, behind each other where answers are still due.

It is a process of its own so that what else the benchmark does cannot make it
late. It ends after its seconds, or with --until-input when there is input or
its end, waits for the answers that are due, and prints one line of JSON.
"""

from __future__ import annotations

import json
import math
import random
import select
import socket
import subprocess
import sys
import time
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.probes import RECEIVE_BYTES, Endpoint, MeasureFailed, request

ANSWERS_SECONDS = 10.0
"""How long answers are waited for after the last request."""
STARTUP_SECONDS = 30.0
DONE = b"+OK\r\n"


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run gave: requests, answers a second until the last one, and milliseconds.

    ``late_p99_ms`` is how late requests were sent; it is part of their latency.
    """

    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    late_p99_ms: float


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the ordered samples that ``share`` of them do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


class Generator:
    """One run: which request is due, what is under way on each connection, and the latencies so far."""

    def __init__(self, endpoint: Endpoint, rate: float, connections: int, keys: int) -> None:
        self._rate = rate
        self._requests = [request("SET", f"key:{number:012d}", "xxx") for number in range(keys)]
        self._chance = random.Random(keys)
        self._sockets = [endpoint.connect() for _ in range(connections)]
        self._epoll = select.epoll()
        self._under_way: dict[int, tuple[socket.socket, deque[float]]] = {}
        for connection in self._sockets:
            connection.setblocking(False)
            self._epoll.register(connection, select.EPOLLIN)
            self._under_way[connection.fileno()] = (connection, deque())
        self._unread = dict.fromkeys(self._under_way, b"")
        self._descriptors = list(self._under_way)
        self._sent = 0
        self._latencies = array("d")
        self._late = array("d")

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
            pause = (self._sent + 1) / self._rate - (time.perf_counter() - started)
            ready, _, _ = select.select(watched, [], [], max(0.0, pause))
            ended = ended or until in ready
            self._receive()
        give_up = time.perf_counter() + ANSWERS_SECONDS
        while len(self._latencies) < self._sent:
            if time.perf_counter() > give_up:
                missing = self._sent - len(self._latencies)
                raise MeasureFailed(f"{missing} of {self._sent} SETs were not answered after {ANSWERS_SECONDS:g} s")
            select.select([self._epoll], [], [], ANSWERS_SECONDS)
            self._receive()
        if not self._sent:
            raise MeasureFailed("ended before the first request was due")
        latencies, late = sorted(self._latencies), sorted(self._late)
        return Figures(
            requests=self._sent,
            per_second=self._sent / (time.perf_counter() - started),
            p50_ms=quantile(latencies, 0.5) * 1000,
            p99_ms=quantile(latencies, 0.99) * 1000,
            max_ms=latencies[-1] * 1000,
            late_p99_ms=quantile(late, 0.99) * 1000,
        )

    def close(self) -> None:
        """Closes every connection."""
        self._epoll.close()
        for connection in self._sockets:
            connection.close()

    def _send(self, started: float, now: float) -> None:
        """Sends every request whose time has come, ``now`` seconds after the start."""
        for number in range(self._sent, int(now * self._rate)):
            due = (number + 1) / self._rate
            connection, under_way = self._under_way[self._descriptors[number % len(self._descriptors)]]
            message = self._requests[self._chance.randrange(len(self._requests))]
            try:
                whole = connection.send(message) == len(message)
            except BlockingIOError:
                whole = False
            if not whole:
                raise MeasureFailed("the server does not read what it is sent")
            under_way.append(started + due)
            self._late.append(time.perf_counter() - started - due)
            self._sent = number + 1

    def _receive(self) -> None:
        """Takes the answers that are there."""
        for descriptor, _ in self._epoll.poll(0):
            connection, under_way = self._under_way[descriptor]
            received = connection.recv(RECEIVE_BYTES)
            now = time.perf_counter()
            if not received:
                raise MeasureFailed("the server closed a connection")
            data = self._unread[descriptor] + received
            count, rest = divmod(len(data), len(DONE))
            if not data.startswith(DONE * count) or not DONE.startswith(data[len(data) - rest :]):
                raise MeasureFailed(f"SET answered {data.replace(DONE, b'').strip()[:100]!r}")
            self._unread[descriptor] = data[len(data) - rest :]
            for _ in range(count):
                self._latencies.append(now - under_way.popleft())


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
            raise MeasureFailed(f"SETs at a fixed rate: {report['failed']}")
        return Figures(**report)


@contextmanager
def offering(endpoint: Endpoint, rate: float, seconds: float, connections: int = 100) -> Iterator[Offering]:
    """Starts SETs at ``rate`` a second to last for ``seconds``; they end with the block at the latest."""
    line = [
        sys.executable, str(Path(__file__)), endpoint.host, str(endpoint.port), "--until-input",
        f"--rate={rate}", f"--seconds={seconds}", f"--connections={connections}",
    ]  # fmt: skip
    process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            yield Offering(process, seconds)
        finally:
            process.kill()


@click.command(context_settings={"show_default": True})
@click.argument("host")
@click.argument("port", type=int)
@click.option("--rate", type=click.FloatRange(0, min_open=True), default=10_000, help="SETs a second.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=10, help="How long.")
@click.option("--connections", type=click.IntRange(1), default=100, help="Connections they are shared out to.")
@click.option("--keys", type=click.IntRange(1), default=100_000, help="Different keys.")
@click.option("--until-input", is_flag=True, help="End when standard input has something or ends.")
def main(host: str, port: int, rate: float, seconds: float, connections: int, keys: int, until_input: bool) -> None:
    """Sends SETs at a fixed rate and prints their latencies in milliseconds as JSON."""
    try:
        generator = Generator(Endpoint(host, port), rate, connections, keys)
        with closing(generator):
            report = asdict(generator.run(seconds, sys.stdin.fileno() if until_input else None))
    except (MeasureFailed, OSError) as error:
        report = {"failed": str(error)}
    click.echo(json.dumps(report))


if __name__ == "__main__":
    main()
