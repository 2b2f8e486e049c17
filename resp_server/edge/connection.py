"""One client's socket: bytes in and out, and what it has not taken yet."""

from __future__ import annotations

import os
import socket
from collections import deque

from resp_server.protocol.requests import Limits, RequestParser
from resp_server.session import Session

RECEIVE_BYTES = 16 * 1024


class Connection:
    """A non-blocking socket with its session and parser.

    Bytes go through `os.read` and `os.write`: two thirds of what the socket's
    own methods cost.

    ``interest`` is what the poller was asked for. ``unsent`` holds replies the
    socket did not take; ``over_soft_since_s`` is when they passed the soft
    limit, for ``client-output-buffer-limit``.
    """

    __slots__ = (
        "fd",
        "interest",
        "killed",
        "over_soft_since_s",
        "parser",
        "session",
        "socket",
        "unsent",
        "unsent_bytes",
    )

    def __init__(self, client: socket.socket, session: Session, limits: Limits, interest: int) -> None:
        self.socket = client
        self.fd = client.fileno()
        self.session = session
        self.parser = RequestParser(limits)
        self.parser.authenticated = session.authenticated
        self.interest = interest
        self.unsent: deque[memoryview] = deque()
        self.unsent_bytes = 0
        self.over_soft_since_s: float | None = None
        self.killed = False

    def send(self, data: bytes) -> int:
        """Sends what the socket takes and keeps the rest, in order; how many bytes went out. Raises `OSError`."""
        if self.unsent:
            sent = 0
        else:
            try:
                sent = os.write(self.fd, data)
            except BlockingIOError:
                sent = 0
            if sent == len(data):
                return sent
        self.unsent.append(memoryview(data)[sent:])
        self.unsent_bytes += len(data) - sent
        return sent

    def drain(self) -> int:
        """Sends what was kept, as far as the socket takes it; how many bytes went out. Raises `OSError`."""
        total = 0
        while self.unsent:
            first = self.unsent[0]
            try:
                sent = os.write(self.fd, first)
            except BlockingIOError:
                break
            total += sent
            if sent == len(first):
                self.unsent.popleft()
            else:
                self.unsent[0] = first[sent:]
        self.unsent_bytes -= total
        return total
