"""Programs and threads that work queues off by `resp_server.client_queues`, and what must be true of what they saw."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from typing import Any

from resp_server.client_queues import AsyncMessage, Message
from tests.clusters import Node, own_environment
from tests.holders import look
from tests.servers import Server


def told(server: Server | Node, queue: str) -> dict[str, Any]:
    """Q.INFO; nothing of a queue that is not there."""
    reply: dict[str, Any] | None = look(server, "Q.INFO", queue)
    return reply or {}


class Deliveries:
    """Who was given what, how often, and which deliveries were certainly acknowledged."""

    def __init__(self) -> None:
        self.seen: Counter[tuple[bytes, int]] = Counter()
        self.acked: dict[bytes, int] = {}
        self._lock = threading.Lock()

    def given(self, message: Message | AsyncMessage) -> None:
        with self._lock:
            self.seen[message.id, message.deliveries] += 1

    def done(self, message: Message | AsyncMessage) -> None:
        with self._lock:
            assert message.id not in self.acked, "acknowledged twice"
            self.acked[message.id] = message.deliveries

    def check(self) -> None:
        """No delivery was given to two, and none followed its acknowledgement."""
        assert set(self.seen.values()) <= {1}
        after = [one for one in self.seen if one[1] > self.acked.get(one[0], one[1])]
        assert after == []


WORKER = """
import sys
import redis
from resp_server.client_queues import Queues

jobs = Queues(redis.Redis(port=int(sys.argv[1])), name="worker").queue(sys.argv[2])
print("begins", flush=True)
try:
    for message in jobs.consume(count=5, visibility=60.0):
        print(message.id.decode(), flush=True)
        sys.stdin.readline()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


class Worker:
    """A program that takes five messages at a time, says their ids, and is done with each when it is told to go on."""

    def __init__(self, server: Server, queue: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(server.port), queue],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=own_environment(),
        )  # fmt: skip

    def __enter__(self) -> Worker:
        assert self.says() == "begins"
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
