"""One client's socket: bytes in and out, and what it has not taken yet."""

from __future__ import annotations

import os
import socket
import time
from collections import deque

from resp_server.protocol.requests import Limits, RequestParser
from resp_server.session import Session
from resp_server.setting_kinds import BufferLimit

RECEIVE_BYTES = 16 * 1024
KEEPALIVE_S_MAX = 32767  # more is an error on Linux


class Connection:
    """A non-blocking socket with its session and parser.

    Bytes go through `os.read` and `os.write`: two thirds of what the socket's
    own methods cost.

    ``interest`` is what the poller was asked for. ``gathered_bytes`` is what the
    commands to come may consist of so far, at most. ``ended`` says that the client
    sends no more, and the poller does not watch it; some of what it sent may be
    ``unread``. ``unsent`` holds replies the socket did not take;
    ``over_soft_since_s`` is when they passed the soft limit, for
    ``client-output-buffer-limit``. ``peer`` is the node that the client proved
    to be, ``peer_address`` where that is reached.
    """

    __slots__ = (
        "ended",
        "fd",
        "gathered_bytes",
        "interest",
        "killed",
        "over_soft_since_s",
        "parser",
        "peer",
        "peer_address",
        "session",
        "socket",
        "unread",
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
        self.gathered_bytes = 0
        self.over_soft_since_s: float | None = None
        self.killed = False
        self.ended = self.unread = False
        self.peer = self.peer_address = ""

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

    def over_limit(self, limit: BufferLimit) -> bool:
        """Whether too much has been unsent, or a lot for too long."""
        if limit.hard_bytes and self.unsent_bytes > limit.hard_bytes:
            return True
        if not limit.soft_bytes or self.unsent_bytes <= limit.soft_bytes:
            self.over_soft_since_s = None
            return False
        now_s = time.monotonic()
        if self.over_soft_since_s is None:
            self.over_soft_since_s = now_s
        return now_s - self.over_soft_since_s > limit.soft_s


def endpoints(client: socket.socket, peer: object) -> tuple[str, str]:
    """Both addresses of an accepted connection: the client's and its own."""
    if client.family == socket.AF_UNIX:
        path = f"{client.getsockname()}:0"
        return path, path
    return endpoint(peer), endpoint(client.getsockname())


def endpoint(address: object) -> str:
    """A socket address as ``host:port``, with brackets around an IPv6 host."""
    host, port = address[:2]  # type: ignore[index]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def keep_alive(client: socket.socket, seconds: int) -> None:
    """Probes a silent peer after ``seconds`` (0: never), as Redis does: three probes a third of that apart."""
    if not seconds:
        return
    seconds = min(seconds, KEEPALIVE_S_MAX)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", seconds), ("TCP_KEEPINTVL", max(1, seconds // 3)), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            client.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
