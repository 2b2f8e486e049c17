"""One loop for every protocol that is measured: all connections in one thread, each answering as soon as it hears.

What a client library adds would be measured as if it were the server's; so
each protocol is spoken by a `Wire` that knows just what its measure needs, and
all of them go through the same loop.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Sequence
from typing import Protocol

from benchmarks.probes import RECEIVE_BYTES, SILENCE_SECONDS, MeasureFailed, Pace


class Wire(Protocol):
    """The protocol of one connection, without its socket."""

    def start(self) -> bytes:
        """What is sent first."""
        ...

    def receive(self, data: bytes) -> bytes:
        """What is sent upon some bytes that came; `MeasureFailed` for what should not have come."""
        ...


def carry(links: Sequence[tuple[socket.socket, Wire]], done: Callable[[], bool]) -> Pace:
    """Lets all of them talk until ``done``, which is asked whenever some have heard something."""
    with select.epoll() as epoll:
        by_descriptor = {connection.fileno(): (connection, wire) for connection, wire in links}
        for descriptor in by_descriptor:
            epoll.register(descriptor, select.EPOLLIN)
        pace = Pace()
        for connection, wire in links:
            connection.sendall(wire.start())
        while not done():
            ready = epoll.poll(SILENCE_SECONDS)
            if not ready:
                raise MeasureFailed(f"nothing came for {SILENCE_SECONDS:g} s")
            for descriptor, _ in ready:
                connection, wire = by_descriptor[descriptor]
                data = os.read(descriptor, RECEIVE_BYTES)
                if not data:
                    raise MeasureFailed("a server closed a connection")
                answer = wire.receive(data)
                if answer:
                    _send(connection, answer)
        pace.stop()
    return pace


def _send(connection: socket.socket, data: bytes) -> None:
    """Sends all of it: without asking first whether the socket has room, as one with a timeout does."""
    try:
        sent = os.write(connection.fileno(), data)
    except BlockingIOError:
        sent = 0
    if sent < len(data):
        connection.sendall(data[sent:])
