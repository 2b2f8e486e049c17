"""The listening sockets, and who comes in by them."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from resp_server.edge.poller import READ, Poller
from resp_server.logs import LOGGER

ACCEPTS_PER_TURN = 256


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


def turn_away(client: socket.socket) -> None:
    """Closes the connection of one client too many, and says why."""
    try:
        client.send(b"-ERR max number of clients reached\r\n")
    except OSError:
        LOGGER.debug("a client that was turned away had gone already")
    client.close()
