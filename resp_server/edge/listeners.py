"""The listening sockets, and who comes in by them.

When there are as many clients as there may be, one more is turned away. In a
cluster it is first heard what it has to say: clients that take every place
must not keep the other nodes out.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

from resp_server.edge.poller import READ, Poller
from resp_server.logs import LOGGER
from resp_server.server import Stats

ACCEPTS_PER_TURN = 256
STANDING_MAX = 32
FIRST_WORDS_BYTES = 32
FIRST_WORDS_OF_A_NODE = re.compile(rb"\*\d+\r\n\$4\r\nPEER\r\n").match
FORGOTTEN_BYTES = 64 * 1024


class Listeners:
    """Listening sockets that a poller watches."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._by_fd: dict[int, socket.socket] = {}

    def add(self, listener: socket.socket) -> None:
        """Accepts clients from one more."""
        listener.setblocking(False)
        self._by_fd[listener.fileno()] = listener
        self._poller.watch(listener.fileno(), READ)

    def accept(self, fd: int) -> Iterator[tuple[socket.socket, object]]:
        """Who has come in by the socket ``fd``, if it is one of these: (connection, not blocking; its address)."""
        listener = self._by_fd.get(fd)
        for _ in range(ACCEPTS_PER_TURN if listener is not None else 0):
            assert listener is not None
            try:
                client, address = listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # gone already
            except OSError as error:  # out of descriptors or memory: `watch` tries again
                LOGGER.warning("clients cannot be accepted for now", {"reason": error.strerror})
                self._poller.change(fd, 0)
                return
            client.setblocking(False)
            yield client, address

    def watch(self) -> None:
        """Accepts again from those that could not for a while."""
        for fd in self._by_fd:
            self._poller.change(fd, READ)

    def close(self) -> None:
        """Accepts nobody any more."""
        for fd, listener in self._by_fd.items():
            self._poller.forget(fd)
            listener.close()
        self._by_fd.clear()


class Doorstep:
    """Where those past the limit stand until their first words tell whether they are nodes."""

    def __init__(self, poller: Poller, stats: Stats) -> None:
        self._poller = poller
        self._stats = stats
        self._standing: dict[int, tuple[socket.socket, object]] = {}
        self._seen: set[int] = set()  # those that stood there when `clear` was last called

    def take(self, client: socket.socket, address: object) -> bool:
        """Lets one stand there; whether there was room."""
        if len(self._standing) >= STANDING_MAX:
            return False
        self._standing[client.fileno()] = client, address
        self._poller.watch(client.fileno(), READ)
        return True

    def look(self, fd: int) -> tuple[socket.socket, object] | None:
        """What the socket ``fd`` says, if it stands there: a node is given back, anybody else turned away."""
        if fd not in self._standing:
            return None
        client, address = self._standing[fd]
        try:
            words = client.recv(FIRST_WORDS_BYTES, socket.MSG_PEEK)
        except OSError:
            words = b""
        self._leave(fd)
        if FIRST_WORDS_OF_A_NODE(words):
            return client, address
        self.turn_away(client)
        return None

    def clear(self) -> None:
        """Turns away those that have said nothing since this was called before."""
        for fd in [one for one in self._standing if one in self._seen]:
            client, _ = self._standing[fd]
            self._leave(fd)
            self.turn_away(client)
        self._seen = set(self._standing)

    def _leave(self, fd: int) -> None:
        del self._standing[fd]
        self._poller.forget(fd)

    def turn_away(self, client: socket.socket) -> None:
        """Closes the connection of one client too many, and says why."""
        self._stats.rejected_connections += 1
        try:
            client.recv(FORGOTTEN_BYTES)  # what is left unread would take the reply back
        except OSError:
            LOGGER.debug("a client that was turned away had said nothing")
        try:
            client.send(b"-ERR max number of clients reached\r\n")
        except OSError:
            LOGGER.debug("a client that was turned away had gone already")
        client.close()
