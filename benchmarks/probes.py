"""What a measure is made of: loading keys, redis-benchmark, a closed loop of our own, INFO and memory.

redis-benchmark gives rates and latencies wherever one command is repeated. It
cannot alternate two, so lock pairs go through `closed_loop`, and what they
are compared with goes through it too.
"""

from __future__ import annotations

import csv
import io
import select
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hiredis

from tests import redis_binaries

LOAD_BATCH = 1_000
TIMEOUT_SECONDS = 600.0
POLL_SECONDS = 0.01
SILENCE_SECONDS = 30.0
"""After which a server under load that answers nothing is given up."""
RECEIVE_BYTES = 65536


DRIVER_SHARE_MAX = 0.9
"""A driver that computes for more of the time than this is itself what limits the rate."""
JUDGED_SECONDS = 0.1
"""A loop that is over sooner says nothing about its driver: whatever is done once weighs too much in it."""


class MeasureFailed(Exception):
    """A measure could not be taken; one line."""


class Pace:
    """How long a loop of this process took, and for how much of that it computed itself."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._used = time.process_time()
        self.seconds = 0.0
        self.driver_share = 0.0

    def stop(self) -> None:
        """The loop has ended; `MeasureFailed` when a loop of some length could hardly have been faster.

        Whatever the servers did, that is: the driver itself computed nearly all the time.
        """
        self.seconds = time.perf_counter() - self._started
        self.driver_share = (time.process_time() - self._used) / self.seconds
        if self.seconds >= JUDGED_SECONDS and self.driver_share > DRIVER_SHARE_MAX:
            raise MeasureFailed(f"the driver is what limits: it computed for {self.driver_share:.0%} of the time")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server that listens there."""

    host: str
    port: int

    def connect(self, timeout_seconds: float = TIMEOUT_SECONDS) -> socket.socket:
        """A connection without delays of its own."""
        connection = socket.create_connection((self.host, self.port), timeout=timeout_seconds)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


def request(*words: str | bytes) -> bytes:
    """A command as a RESP array of bulk strings."""
    encoded = [word.encode() if isinstance(word, str) else word for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)


def load_keys(endpoint: Endpoint, count: int, value_bytes: int) -> None:
    """Sets the keys redis-benchmark uses with ``-r count``, by pipelines."""
    value = b"x" * value_bytes
    with endpoint.connect() as connection, connection.makefile("rb") as replies:
        for first in range(0, count, LOAD_BATCH):
            numbers = range(first, min(first + LOAD_BATCH, count))
            connection.sendall(b"".join(request("SET", f"key:{number:012d}", value) for number in numbers))
            due = b"+OK\r\n" * len(numbers)
            if (got := replies.read(len(due))) != due:
                raise MeasureFailed(f"loading keys: SET answered {got.replace(b'+OK', b'').strip()[:100]!r}")


def info(endpoint: Endpoint, section: str, timeout_seconds: float = TIMEOUT_SECONDS) -> dict[str, str]:
    """The fields of a section of INFO."""
    with endpoint.connect(timeout_seconds) as connection, connection.makefile("rb") as reply:
        connection.sendall(request("INFO", section))
        header = reply.readline()
        if not header:
            raise ConnectionResetError("closed by the server")
        if not header.startswith(b"$"):
            raise MeasureFailed(f"INFO {section} answered {header.strip()!r}")
        lines = reply.read(int(header[1:])).decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def command(endpoint: Endpoint, *words: str) -> str:
    """The first line of the reply to one command; an error reply is `MeasureFailed`."""
    with endpoint.connect() as connection, connection.makefile("rb") as reply:
        connection.sendall(request(*words))
        line = reply.readline().decode().strip()
    if not line or line.startswith("-"):
        raise MeasureFailed(f"{' '.join(words)} answered {line or 'nothing'}")
    return line


def ask(endpoint: Endpoint, *words: str) -> Any:
    """The whole reply to one command; an error reply is `MeasureFailed`."""
    reader = hiredis.Reader(replyError=hiredis.ReplyError)
    with endpoint.connect() as connection:
        connection.sendall(request(*words))
        while (reply := reader.gets()) is False:
            received = connection.recv(RECEIVE_BYTES)
            if not received:
                raise MeasureFailed(f"{' '.join(words)} was not answered")
            reader.feed(received)
    if isinstance(reply, hiredis.ReplyError):
        raise MeasureFailed(f"{' '.join(words)} answered -{reply}")
    return reply


def memory_bytes(endpoint: Endpoint) -> int:
    """Resident memory of the server's process, which must run on this machine."""
    status = Path("/proc") / info(endpoint, "server")["process_id"] / "status"
    try:
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    except FileNotFoundError:
        raise MeasureFailed(f"memory is read from {status}, which is not there") from None
    return int(lines["VmRSS"].split()[0]) * 1024


def checkpointing(endpoint: Endpoint) -> bool:
    """Whether a checkpoint is being written."""
    return info(endpoint, "persistence")["rdb_bgsave_in_progress"] == "1"


def wait_for_checkpoint(endpoint: Endpoint) -> None:
    """Returns when no checkpoint is being written."""
    give_up = time.monotonic() + TIMEOUT_SECONDS
    while checkpointing(endpoint):
        if time.monotonic() > give_up:
            raise MeasureFailed(f"a checkpoint was not finished after {TIMEOUT_SECONDS:g} s")
        time.sleep(POLL_SECONDS)


@dataclass(frozen=True, slots=True)
class Load:
    """One run of a test of redis-benchmark: ``clients`` connections, each with ``pipeline`` requests under way.

    ``aware`` sends each request to the node that leads its shard.
    """

    test: str
    clients: int
    requests: int
    pipeline: int = 1
    keys: int = 100_000
    aware: bool = False

    def run(self, endpoint: Endpoint) -> dict[str, float]:
        """Its figures: ``rps`` and ``avg_latency_ms`` to ``max_latency_ms``."""
        redis = redis_binaries.find()
        words = {
            "-h": endpoint.host, "-p": endpoint.port, "-t": self.test, "-c": self.clients, "-n": self.requests,
            "-P": self.pipeline, "-r": self.keys, "-d": 3,
        }  # fmt: skip
        line = [redis.program("redis-benchmark"), "--csv", *(str(word) for pair in words.items() for word in pair)]
        line += ["--cluster"] * self.aware
        try:
            ended = subprocess.run(
                line, env=redis.environment(), capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise MeasureFailed(f"redis-benchmark -t {self.test} was not done in {TIMEOUT_SECONDS:g} s") from None
        figures = ended.stdout[max(0, ended.stdout.find('"test"')) :]  # before it stands what nodes the cluster has
        rows = list(csv.DictReader(io.StringIO(figures)))
        if ended.returncode or len(rows) != 1:
            raise MeasureFailed(f"redis-benchmark -t {self.test}: {(ended.stderr or ended.stdout).strip()[-200:]}")
        return {name: float(figure) for name, figure in rows[0].items() if name != "test"}


def closed_loop(endpoint: Endpoint, scripts: Sequence[Sequence[bytes]], rounds: int) -> Pace:
    """In what time each script's connection sends its requests, each after the last reply, so many rounds of them.

    A reply must be one line. The loop costs a request little beside what a server does for it;
    where it should itself be the limit, both sides of a comparison meet it.
    """
    with ExitStack() as open_connections:
        epoll = open_connections.enter_context(select.epoll())
        steps: dict[int, tuple[socket.socket, list[bytes]]] = {}
        for script in scripts:
            connection = open_connections.enter_context(endpoint.connect())
            epoll.register(connection, select.EPOLLIN)
            steps[connection.fileno()] = (connection, list(script) * rounds)
            steps[connection.fileno()][1].reverse()
        pace = Pace()
        for connection, requests in steps.values():
            connection.sendall(requests.pop())
        working = len(steps)
        while working:
            for descriptor, _ in epoll.poll(TIMEOUT_SECONDS):
                connection, requests = steps[descriptor]
                reply = connection.recv(4096)
                if reply[:1] not in (b"+", b":") or not reply.endswith(b"\r\n"):
                    raise MeasureFailed(f"expected one line, got {reply[:100]!r}")
                if requests:
                    connection.send(requests.pop())
                else:
                    working -= 1
        pace.stop()
    return pace
