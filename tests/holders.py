"""Threads, tasks and programs that hold locks by `resp_server.client`, and what must be true of them."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, Any

import redis
import redis.asyncio

from tests.clusters import Node, own_environment
from tests.servers import HOST, START_SECONDS, Server, answered

CLIENTS = 6
HOLDS = 8  # of each client
LONG_S = 60.0  # a life or a wait that no test wants to see the end of
SHORT_S = 4.0
"""A life that a test waits for the end of, though a program or a server may stand still for a while within it."""


def url(server: Server | Node) -> str:
    return f"redis://{HOST}:{server.port}"


def look(server: Server | Node, *words: str) -> Any:
    """The reply to a command that only reads, text in RESP3, once there is a leader to ask."""
    with redis.Redis(port=server.port, protocol=3, decode_responses=True) as client:
        ask: Callable[[], Any] = partial(client.execute_command, *words)
        return answered(ask, redis.exceptions.ClusterDownError, redis.exceptions.TryAgainError)


def info(server: Server | Node, name: str = "lock") -> dict[str, Any]:
    """LOCK.INFO."""
    reply: dict[str, Any] = look(server, "LOCK.INFO", name)
    return reply


def waits_for(server: Server | Node, count: int) -> Callable[[], bool]:
    return lambda: len(info(server)["waiters"]) == count


class Visits:
    """Who was in the block when: tokens, and times of this machine's clock."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int]] = []

    @contextmanager
    def visit(self, token: int) -> Iterator[None]:
        entered = time.monotonic_ns()
        yield
        self.seen.append((token, entered, time.monotonic_ns()))

    def check(self, count: int) -> None:
        """One after the other, in the order of their tokens."""
        assert len(self.seen) == count
        seen = sorted(self.seen)
        assert len({token for token, _, _ in seen}) == count
        assert all(left <= entered for (_, _, left), (_, entered, _) in itertools.pairwise(seen)), seen


class Threads:
    """Threads whose failures are the test's."""

    def __init__(self) -> None:
        self.failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def start(self, work: Callable[..., object], *arguments: object) -> None:
        thread = threading.Thread(target=self._run, args=(work, *arguments), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, work: Callable[..., object], *arguments: object) -> None:
        try:
            work(*arguments)
        except BaseException as failure:  # noqa: BLE001 - `join` raises it
            self.failures.append(failure)

    def wait(self) -> None:
        """Until all have ended, or for long enough."""
        give_up_s = time.monotonic() + START_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, give_up_s - time.monotonic()))

    def join(self) -> None:
        self.wait()
        assert not any(thread.is_alive() for thread in self._threads), "a thread is stuck"
        if self.failures:
            raise self.failures[0]


HOLDER = """
import sys
import redis
from resp_server.client import Locks, LockLost

locks = Locks(redis.Redis(port=int(sys.argv[1])), name="holder")
try:
    with locks.hold("lock", ttl=float(sys.argv[2])) as lock:
        print(lock.token, flush=True)
        sys.stdin.readline()
        lock.check()
    print("held to the end", flush=True)
except LockLost as error:
    print("LockLost", error, flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


class Holder:
    """A program that takes the lock, and looks whether it has it still when it is told to."""

    def __init__(self, server: Server, ttl_s: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(server.port), str(ttl_s)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=own_environment(),
        )  # fmt: skip

    def __enter__(self) -> Holder:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    @property
    def output(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def says(self) -> str:
        return self.output.readline().strip()

    def look(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
