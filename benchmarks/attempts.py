"""How long writes fail: a new client tries at each of some nodes every few milliseconds, until one succeeds."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack

from benchmarks.probes import RECEIVE_BYTES, SILENCE_SECONDS, Endpoint, MeasureFailed, request

INTERVAL_SECONDS = 0.01
WAITING_MAX = 400
"""Clients that wait for an answer; while there are so many no further one tries."""


def seconds_to_next_write(endpoints: Sequence[Endpoint], started: float) -> float:
    """From ``started`` (of `time.perf_counter`) until a SET that was sent later is acknowledged by any of them.

    Clients that are told an error are gone: another has tried by then. One
    client that repeats its SET would add to the time how long it happens to wait
    for the error.
    """
    attempt = request("SET", "after", "the leader")
    waiting: dict[int, socket.socket] = {}
    said = b"nothing"
    with ExitStack() as open_clients:
        epoll = open_clients.enter_context(select.epoll())
        open_clients.callback(_close, waiting)
        while (now := time.perf_counter()) - started < SILENCE_SECONDS:
            for endpoint in endpoints if len(waiting) < WAITING_MAX else ():
                client = endpoint.connect(SILENCE_SECONDS)
                waiting[client.fileno()] = client
                epoll.register(client, select.EPOLLIN)
                client.sendall(attempt)
            until = now + INTERVAL_SECONDS
            while (left := until - time.perf_counter()) > 0:
                for descriptor, _ in epoll.poll(left):
                    client = waiting.pop(descriptor)
                    with client:
                        said = client.recv(RECEIVE_BYTES)
                        epoll.unregister(client)
                    if said.startswith(b"+OK"):
                        return time.perf_counter() - started
    raise MeasureFailed(f"no write succeeded in {SILENCE_SECONDS:g} s; the last answer was {said[:100]!r}")


def _close(clients: dict[int, socket.socket]) -> None:
    for client in clients.values():
        client.close()
