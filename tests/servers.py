"""Starting a server as its own process, ours or Redis, and ending it by its process id."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

HOST = "127.0.0.1"
START_SECONDS = 60.0
STOP_SECONDS = 60.0
PAUSE_SECONDS = 0.02  # between two looks at a server that is starting
LISTENING = range(10_000, 20_000)
"""Ports for servers: below those that systems give to outgoing connections."""


class ServerFailed(AssertionError):
    """A server did not start, or said something it never should; the message has what it said."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where it listens, its process, and the file its output goes to."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def connect(self) -> socket.socket:
        """A new connection; reads on it give up after a while rather than hang the tests."""
        return socket.create_connection((HOST, self.port), timeout=START_SECONDS)

    def said(self) -> str:
        """Everything it has written so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def answers(self) -> bool:
        """Whether it accepts a connection and answers PING with PONG (Redis says LOADING before)."""
        try:
            with socket.create_connection((HOST, self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    def wait_until_ready(self, seconds: float) -> None:
        """Returns when it answers; raises `ServerFailed` when it ends or takes too long."""
        give_up = time.monotonic() + seconds
        while not self.answers():
            if self.process.poll() is not None:
                raise ServerFailed(f"the server ended with code {self.process.returncode}:\n{self.said()}")
            if time.monotonic() > give_up:
                raise ServerFailed(f"the server did not answer within {seconds:g} s:\n{self.said()}")
            time.sleep(PAUSE_SECONDS)

    def stop(self) -> int:
        """Asks it to end (SIGTERM), makes it end if it does not; the exit code."""
        self.process.terminate()
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def wait_until(condition: Callable[[], object], seconds: float = START_SECONDS) -> None:
    """Returns once ``condition`` holds; fails when it still does not after a long time."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "what the test waits for did not come"
        time.sleep(PAUSE_SECONDS)


Reply = TypeVar("Reply")


def answered(
    ask: Callable[[], Reply],
    *passing: type[Exception],
    wait: Callable[[Callable[[], object]], None] = wait_until,
) -> Reply:
    """What ``ask``, which may be repeated, returns once it raises none of these."""
    replies: list[Reply] = []

    def is_answered() -> bool:
        with suppress(*passing):
            replies.append(ask())
        return bool(replies)

    wait(is_answered)
    return replies[0]


def is_stopped(pid: int) -> bool:
    """Whether SIGSTOP has reached the process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def free_port() -> int:
    """A loopback port nobody listens on just now."""
    [port] = free_ports(1)
    return port


def free_ports(count: int) -> list[int]:
    """Loopback ports nobody listens on just now, all different.

    None of them is one that the system gives to whoever connects somewhere, and
    may have given away before a server listens on it.
    """
    chance = random.SystemRandom()
    with ExitStack() as probes:
        ports: list[int] = []
        while len(ports) < count:
            port = chance.choice(LISTENING)
            try:
                probes.enter_context(socket.socket()).bind((HOST, port))
            except OSError:
                continue
            ports.append(port)
        return ports


def free_ports_in_a_row(count: int) -> int:
    """The first of ``count`` loopback ports, one after the other, that nobody listens on just now."""
    for first in range(20_000, 30_000, count):
        with ExitStack() as probes:
            try:
                for port in range(first, first + count):
                    probes.enter_context(socket.socket()).bind((HOST, port))
            except OSError:
                continue
        return first
    raise AssertionError(f"no {count} free ports in a row")


@contextmanager
def running(
    command: Sequence[str],
    port: int,
    log: Path,
    environment: Mapping[str, str] | None = None,
    *,
    seconds: float = START_SECONDS,
) -> Iterator[Server]:
    """Runs ``command``, which must listen on ``port`` within ``seconds``, until the block ends."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment)
    server = Server(port, process, log)
    try:
        server.wait_until_ready(seconds)
        yield server
    finally:
        server.stop()


@contextmanager
def sepakat_server(data: Path, log: Path, *flags: str) -> Iterator[Server]:
    """Runs our server on a free port with its data in ``data``; a traceback in its output is a failure."""
    port = free_port()
    command = [sys.executable, "-m", "resp_server", "serve", "--port", str(port), "--dir", str(data), *flags]
    own = {name: value for name, value in os.environ.items() if not name.startswith("SEPAKAT_")}
    root = str(Path(__file__).parents[1])
    with running(command, port, log, {**own, "PYTHONPATH": root, "PYTHONUNBUFFERED": "1"}) as server:
        yield server
    if "Traceback (most recent call last)" in server.said():
        raise ServerFailed(f"the server wrote a traceback:\n{server.said()}")
