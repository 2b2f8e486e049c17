"""A closed loop of gRPC calls over plain HTTP/2, as few bytes and calls to the system as the protocol lets one do with.

One call is a HEADERS and a DATA frame, one answer HEADERS, DATA and HEADERS.
The first call of a method on a connection puts its headers into the peer's
table; all later ones refer to them, six bytes each. Of the answers only the
kinds of frames are looked at: a call that etcd refuses has no DATA.

Flow control needs no thought on the way in (the window is opened wide at
once), and none on the way out: etcd hands back what it has read of its 64 KB
whenever that is 16 KB, and the calls under way (some 60 bytes each) are never
as many as fill the rest.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.probes import RECEIVE_BYTES, SILENCE_SECONDS, Endpoint, MeasureFailed, Pace

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
FRAME_HEAD_BYTES = 9
INITIAL_WINDOW_SIZE = b"\x00\x04"
WIDE = 2**31 - 1
NARROW = 2**16 - 1

TABLE_FIRST = 62
"""The number of the newest entry of a connection's own header table (RFC 7541, section 2.3.3)."""
_POST_HTTP = b"\x83\x86"
"""``:method: POST`` and ``:scheme: http`` of the table that is given."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request: a method such as ``/etcdserverpb.KV/Put``, and its message in protobuf."""

    method: bytes
    message: bytes


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """An HTTP/2 frame (RFC 9113, section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def short(text: bytes) -> bytes:
    """A string of fewer than 127 bytes: its length is one byte both in HPACK and in protobuf."""
    return bytes((len(text),)) + text


class Connection:
    """One connection's protocol: calls out, answers in, both as bytes."""

    def __init__(self) -> None:
        self.answered: list[int] = []
        """The streams of the calls that were answered since somebody last emptied it."""
        self.messages = 0
        """Answers that had a message, as those of calls that were done have."""
        self._last_stream = -1
        self._unread = b""
        self._methods: dict[bytes, int] = {}  # how many there were before, when it was first called

    def opening(self) -> bytes:
        """What a client says first."""
        settings = frame(SETTINGS, 0, 0, INITIAL_WINDOW_SIZE + WIDE.to_bytes(4, "big"))
        return PREFACE + settings + frame(WINDOW_UPDATE, 0, 0, (WIDE - NARROW).to_bytes(4, "big"))

    def call(self, call: Call) -> tuple[int, bytes]:
        """A request on a stream of its own: its number, and what to send."""
        self._last_stream = stream = self._last_stream + 2
        message = b"\x00" + len(call.message).to_bytes(4, "big") + call.message  # not compressed
        return stream, frame(HEADERS, END_HEADERS, stream, self._headers(call.method)) + frame(
            DATA, END_STREAM, stream, message
        )

    def _headers(self, method: bytes) -> bytes:
        """RFC 7541: 0x8n is an entry of a table; 0x4n a value for a name in it and 0x40 a new name, both added to it.

        What is added is the newest entry, and all others are one further.
        """
        before = self._methods.get(method)
        if before is not None:
            return _references(len(self._methods), before)
        count = self._methods[method] = len(self._methods)
        path = _POST_HTTP + b"\x44" + short(method)
        if count:
            return path + _constant(len(self._methods))
        return (
            path
            + b"\x41" + short(b"etcd")
            + b"\x5f" + short(b"application/grpc")
            + b"\x40" + short(b"te") + short(b"trailers")
        )  # fmt: skip

    def receive(self, data: bytes) -> bytes:
        """Takes in what came; what must be sent back for the connection's sake."""
        data = self._unread + data
        at = 0
        owed = b""
        while at + FRAME_HEAD_BYTES <= len(data):
            start = at + FRAME_HEAD_BYTES
            end = start + int.from_bytes(data[at : at + 3], "big")
            if end > len(data):
                break
            kind, flags = data[at + 3], data[at + 4]
            if kind == DATA:
                self.messages += 1
            elif kind == HEADERS:
                if flags & END_STREAM:
                    self.answered.append(int.from_bytes(data[at + 5 : start], "big"))
            elif kind in (SETTINGS, PING) and not flags & ACK:
                owed += frame(kind, ACK, 0, data[start:end] if kind == PING else b"")
            elif kind in (RST_STREAM, GOAWAY):
                what = "a call" if kind == RST_STREAM else "the connection"
                raise MeasureFailed(f"etcd ended {what}: {data[start:end]!r}")
            at = end
        self._unread = data[at:]
        return owed


def _references(methods: int, before: int) -> bytes:
    """The headers of a method that was called before, after ``before`` others, when there are ``methods`` by now.

    The table's entries are, the oldest first: the first method, authority,
    content type, te, the second method, and so on.
    """
    at = before + 3 if before else 0
    return _POST_HTTP + bytes((_reference(methods, at),)) + _constant(methods)


def _constant(methods: int) -> bytes:
    """What all calls have but the method, when there are ``methods`` of them in the table."""
    return bytes(_reference(methods, at) for at in (1, 2, 3))


def _reference(methods: int, at: int) -> int:
    """The table's entry that came after ``at`` others: the newest has the lowest number."""
    return 0x80 | (TABLE_FIRST + methods + 2 - at)


class _Peer:
    """A connection with its socket, and whose call each of its streams is."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.protocol = Connection()
        self.clients: dict[int, Iterator[Call]] = {}

    def next_of(self, client: Iterator[Call]) -> bytes:
        """The client's next call as bytes; none when that was its last."""
        call = next(client, None)
        if call is None:
            return b""
        stream, data = self.protocol.call(call)
        self.clients[stream] = client
        return data


def closed_loop(leader: Endpoint, clients: Sequence[Iterator[Call]], connections: int) -> Pace:
    """Has every client make its calls, each after the last one's answer; in what time.

    The clients share the connections. A call that etcd refuses is `MeasureFailed`.
    """
    calls = 0
    with ExitStack() as open_connections:
        epoll = open_connections.enter_context(select.epoll())
        peers: dict[int, _Peer] = {}
        for _ in range(connections):
            peer = _Peer(open_connections.enter_context(leader.connect()))
            epoll.register(peer.socket, select.EPOLLIN)
            peers[peer.socket.fileno()] = peer
        pace = Pace()
        for number, peer in enumerate(peers.values()):
            share = b"".join(peer.next_of(client) for client in clients[number::connections])
            peer.socket.sendall(peer.protocol.opening() + share)
        under_way = sum(len(peer.clients) for peer in peers.values())
        while under_way:
            ready = epoll.poll(SILENCE_SECONDS)
            if not ready:
                raise MeasureFailed(f"etcd answered nothing for {SILENCE_SECONDS:g} s, {under_way} calls are due")
            for descriptor, _ in ready:
                peer = peers[descriptor]
                data = peer.socket.recv(RECEIVE_BYTES)
                if not data:
                    raise MeasureFailed("etcd closed a connection")
                before = len(peer.clients)
                out = [peer.protocol.receive(data)]
                calls += len(peer.protocol.answered)
                out += [peer.next_of(peer.clients.pop(stream)) for stream in peer.protocol.answered]
                peer.protocol.answered.clear()
                under_way += len(peer.clients) - before
                if owed := b"".join(out):
                    peer.socket.sendall(owed)
        pace.stop()
    refused = calls - sum(peer.protocol.messages for peer in peers.values())
    if refused:
        raise MeasureFailed(f"etcd refused {refused} of {calls} calls")
    return pace
