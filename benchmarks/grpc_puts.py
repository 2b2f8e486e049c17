"""A closed loop of etcd puts: gRPC over plain HTTP/2, as few bytes and calls as the protocol lets one do with.

One put is a HEADERS and a DATA frame, one answer HEADERS, DATA and HEADERS.
The first request of a connection puts its headers into the peer's table; all
later ones refer to them, six bytes each. Of the answers only the kinds of
frames are looked at: a put that etcd refuses has no DATA.

Flow control needs no thought on the way in (the window is opened wide at
once), and none on the way out: etcd hands back what it has read of its 64 KB
whenever that is 16 KB, and the requests under way (40 bytes each) are never
as many as fill the rest.
"""

from __future__ import annotations

import random
import select
import time
from contextlib import ExitStack

from benchmarks.probes import RECEIVE_BYTES, SILENCE_SECONDS, Endpoint, MeasureFailed

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
FRAME_HEAD_BYTES = 9
INITIAL_WINDOW_SIZE = b"\x00\x04"
WIDE = 2**31 - 1
NARROW = 2**16 - 1


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """An HTTP/2 frame (RFC 9113, section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _short(text: bytes) -> bytes:
    """A string of fewer than 127 bytes: its length is one byte both in HPACK and in protobuf."""
    return bytes((len(text),)) + text


# RFC 7541: 0x8n is an entry of the table, 0x4n a value for an entry's name and 0x40 a new name, both added to the table
# (whose newest entry has number 62).
_POST_HTTP = b"\x83\x86"
FIRST_HEADERS = (
    _POST_HTTP
    + b"\x44" + _short(b"/etcdserverpb.KV/Put")
    + b"\x41" + _short(b"etcd")
    + b"\x5f" + _short(b"application/grpc")
    + b"\x40" + _short(b"te") + _short(b"trailers")
)  # fmt: skip
LATER_HEADERS = _POST_HTTP + bytes(0x80 | number for number in (65, 64, 63, 62))


def put_message(key: bytes, value: bytes) -> bytes:
    """etcd's PutRequest, after gRPC's flag (not compressed) and length."""
    message = b"\x0a" + _short(key) + b"\x12" + _short(value)
    return b"\x00" + len(message).to_bytes(4, "big") + message


class Puts:
    """One connection's protocol: bytes of requests out, bytes of answers in."""

    def __init__(self) -> None:
        self.answered = 0
        """Puts whose answer has ended."""
        self.messages = 0
        """Answers that had a message, as those of puts that were done have."""
        self._last_stream = -1
        self._unread = b""

    def opening(self) -> bytes:
        """What a client says first."""
        settings = frame(SETTINGS, 0, 0, INITIAL_WINDOW_SIZE + WIDE.to_bytes(4, "big"))
        return PREFACE + settings + frame(WINDOW_UPDATE, 0, 0, (WIDE - NARROW).to_bytes(4, "big"))

    def put(self, key: bytes, value: bytes) -> bytes:
        """One request, on a stream of its own."""
        self._last_stream += 2
        headers = LATER_HEADERS if self._last_stream > 1 else FIRST_HEADERS
        return frame(HEADERS, END_HEADERS, self._last_stream, headers) + frame(
            DATA, END_STREAM, self._last_stream, put_message(key, value)
        )

    def receive(self, data: bytes) -> tuple[int, bytes]:
        """How many puts these bytes answer, and what must be sent back for the connection's sake."""
        data = self._unread + data
        at, before = 0, self.answered
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
                self.answered += flags & END_STREAM
            elif kind in (SETTINGS, PING) and not flags & ACK:
                owed += frame(kind, ACK, 0, data[start:end] if kind == PING else b"")
            elif kind in (RST_STREAM, GOAWAY):
                what = "a put" if kind == RST_STREAM else "the connection"
                raise MeasureFailed(f"etcd ended {what}: {data[start:end]!r}")
            at = end
        self._unread = data[at:]
        return self.answered - before, owed


def closed_loop(leader: Endpoint, clients: int, connections: int, requests: int, keys: int = 100_000) -> float:
    """Puts answered per second while ``clients`` wait for one each, shared out among ``connections``.

    Keys and values are redis-benchmark's: ``key:`` and twelve digits, drawn from ``keys`` of them, and three bytes.
    """
    names = [b"key:%012d" % number for number in range(keys)]
    chance = random.Random(keys)
    with ExitStack() as open_connections:
        epoll = open_connections.enter_context(select.epoll())
        peers = {}
        for _ in range(connections):
            connection = open_connections.enter_context(leader.connect())
            epoll.register(connection, select.EPOLLIN)
            peers[connection.fileno()] = (connection, Puts())
        to_send, to_come = requests, requests
        started = time.perf_counter()
        for number, (connection, puts) in enumerate(peers.values()):
            share = min(to_send, len(range(number, clients, connections)))
            to_send -= share
            connection.sendall(puts.opening() + b"".join(puts.put(chance.choice(names), b"xxx") for _ in range(share)))
        while to_come:
            ready = epoll.poll(SILENCE_SECONDS)
            if not ready:
                raise MeasureFailed(f"etcd answered nothing for {SILENCE_SECONDS:g} s, {to_come} puts before the end")
            for descriptor, _ in ready:
                connection, puts = peers[descriptor]
                data = connection.recv(RECEIVE_BYTES)
                if not data:
                    raise MeasureFailed("etcd closed a connection")
                answered, owed = puts.receive(data)
                to_come -= answered
                due = min(to_send, answered)
                to_send -= due
                owed += b"".join(puts.put(chance.choice(names), b"xxx") for _ in range(due))
                if owed:
                    connection.sendall(owed)
        seconds = time.perf_counter() - started
    refused = requests - sum(puts.messages for _, puts in peers.values())
    if refused:
        raise MeasureFailed(f"etcd refused {refused} of {requests} puts")
    return requests / seconds
