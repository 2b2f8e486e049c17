"""Nodes with very many clients, over sockets and without any.

Very many clients are more than a process may have sockets, so `ByHand` is all
of a node but its sockets and its disk, driven by hand. `OverSockets` is a
server with as many as go.
"""

from __future__ import annotations

import resource
import select
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import hiredis

from benchmarks.probes import (
    POLL_SECONDS,
    RECEIVE_BYTES,
    SILENCE_SECONDS,
    TIMEOUT_SECONDS,
    Endpoint,
    MeasureFailed,
    info,
)
from tests.front import Client, Front
from tests.raw_client import packed

Words = list[bytes]

SPARE_SOCKETS = 2_000
"""Descriptors a process is left for everything else."""
CLIENTS_OF_AN_ADDRESS = 5_000
"""Connections that one loopback address makes to one port: few enough for free ones to be found at once."""
BIND_ADDRESS_NO_PORT = 24
"""Linux's IP_BIND_ADDRESS_NO_PORT: the port is chosen when it is known where the connection goes."""


def words(line: str) -> Words:
    """A command as the words of a line."""
    return line.encode().split()


def most_sockets() -> int:
    """How many connections this process, and a server it starts, may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SPARE_SOCKETS


class Node(Protocol):
    """A node and its clients, which are known by number."""

    def connect(self) -> int:
        """One client more."""
        ...

    def carry_out(
        self, asked: Sequence[tuple[int, Words]], answered: Sequence[int], leaving: Sequence[int] = ()
    ) -> tuple[float, list[Any]]:
        """Clients leave, and clients ask, all at once.

        In what time, in seconds, those in ``answered`` have a reply each, and what the replies were.
        """
        ...

    def queue(self, asked: Sequence[tuple[int, Words]]) -> float | None:
        """Clients ask for locks they have to wait for: the seconds until they wait, None where that cannot be seen."""
        ...

    def leave(self, clients: Sequence[int]) -> float | None:
        """Clients that wait leave: the seconds until they do not wait any more, None where that cannot be seen."""
        ...


class ByHand:
    """A node in this process; seconds are those it computes, whatever else the machine does."""

    def __init__(self) -> None:
        self._front = Front()
        self._clients: list[Client] = []

    def connect(self) -> int:
        """One client more."""
        self._clients.append(self._front.connect())
        return len(self._clients) - 1

    def carry_out(
        self, asked: Sequence[tuple[int, Words]], answered: Sequence[int], leaving: Sequence[int] = ()
    ) -> tuple[float, list[Any]]:
        """As `Node.carry_out`, in one turn."""
        front = self._front
        requests = [(self._clients[client], packed(*line)) for client, line in asked]
        started = time.process_time()
        for client in leaving:
            front.server.disconnect(self._clients[client].session)
        for each, data in requests:
            each.send(data)
        front.commit()
        while front.dispatcher.resumed:
            front.dispatcher.resume(front.dispatcher.resumed.pop())
        front.dispatcher.outbox.clear()
        seconds = time.process_time() - started
        replies = [self._clients[client].replies() for client in answered]
        if any(len(each) != 1 for each in replies):
            raise MeasureFailed(f"expected a reply each, got {replies!r:.200}")
        return seconds, [reply for [reply] in replies]

    def queue(self, asked: Sequence[tuple[int, Words]]) -> float | None:
        """As `Node.queue`."""
        seconds, _ = self.carry_out(asked, [])
        if any(self._clients[client].replies() or not self._clients[client].session.waiting for client, _ in asked):
            raise MeasureFailed("somebody was answered who should wait")
        return seconds

    def leave(self, clients: Sequence[int]) -> float | None:
        """As `Node.leave`."""
        seconds, _ = self.carry_out([], [], clients)
        return seconds


class OverSockets:
    """A server on this machine; connections end with ``until``."""

    def __init__(self, endpoint: Endpoint, until: ExitStack) -> None:
        self._endpoint = endpoint
        self._until = until
        self._epoll = until.enter_context(select.epoll())
        self._sockets: list[socket.socket] = []
        self._readers: dict[int, hiredis.Reader] = {}
        self._number_of: dict[int, int] = {}

    def connect(self) -> int:
        """One client more."""
        number = len(self._sockets)
        connection = self._until.enter_context(socket.socket())
        connection.settimeout(SILENCE_SECONDS)
        connection.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
        connection.bind((f"127.0.0.{1 + number // CLIENTS_OF_AN_ADDRESS}", 0))
        connection.connect((self._endpoint.host, self._endpoint.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._epoll.register(connection, select.EPOLLIN)
        self._sockets.append(connection)
        self._number_of[connection.fileno()] = number
        return number

    def carry_out(
        self, asked: Sequence[tuple[int, Words]], answered: Sequence[int], leaving: Sequence[int] = ()
    ) -> tuple[float, list[Any]]:
        """As `Node.carry_out`."""
        requests: dict[int, bytes] = {}
        for client, line in asked:
            requests[client] = requests.get(client, b"") + packed(*line)
        replies: dict[int, Any] = {}
        due = len(answered)
        started = time.perf_counter()
        for client in leaving:
            self._sockets[client].close()
        for client, data in requests.items():
            self._sockets[client].sendall(data)
        while len(replies) < due:
            ready = self._epoll.poll(SILENCE_SECONDS)
            if not ready:
                raise MeasureFailed(f"{due - len(replies)} of {due} were not answered for {SILENCE_SECONDS:g} s")
            for descriptor, _ in ready:
                number = self._number_of[descriptor]
                reader = self._readers.setdefault(number, hiredis.Reader(replyError=hiredis.ReplyError))
                reader.feed(self._sockets[number].recv(RECEIVE_BYTES))
                while (reply := reader.gets()) is not False:
                    replies[number] = reply
        seconds = time.perf_counter() - started
        if {*replies} != {*answered}:
            raise MeasureFailed(f"{sorted({*replies} ^ {*answered})[:10]} were answered and should not, or the reverse")
        return seconds, [replies[client] for client in answered]

    def queue(self, asked: Sequence[tuple[int, Words]]) -> float | None:
        """As `Node.queue`."""
        due = self._waiting() + len(asked)
        for client, line in asked:
            self._sockets[client].sendall(packed(*line))
        self._until_waiting(due)
        return None

    def leave(self, clients: Sequence[int]) -> float | None:
        """As `Node.leave`."""
        due = self._waiting() - len(clients)
        for client in clients:
            self._sockets[client].close()
        self._until_waiting(due)
        return None

    def _until_waiting(self, due: int) -> None:
        """Asks how many wait until it is ``due``."""
        give_up = time.monotonic() + TIMEOUT_SECONDS
        while self._waiting() != due:
            if time.monotonic() > give_up:
                raise MeasureFailed(f"{self._waiting()} wait instead of {due} after {TIMEOUT_SECONDS:g} s")
            time.sleep(POLL_SECONDS)

    def _waiting(self) -> int:
        return int(info(self._endpoint, "clients")["blocked_clients"])
