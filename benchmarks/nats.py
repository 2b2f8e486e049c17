"""As much of the NATS protocol, and of JetStream's over it, as it takes to publish, to pull and to acknowledge.

A connection is opened, and streams are made, by blocking calls; after that
`Nats` is a `Wire` with several clients, each with a subject of its own that
answers to it and its messages come to. What a client's talk is sent is such a
`Message`.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeAlias

from benchmarks.probes import RECEIVE_BYTES, SILENCE_SECONDS, Endpoint, MeasureFailed

END = b"\r\n"
CONTROL = 0
"""The client number of the calls that block."""

_numbers = count()


@dataclass(frozen=True, slots=True)
class Message:
    """What came to a client's subject; ``reply`` is where it is acknowledged, where it is a stream's."""

    reply: bytes
    payload: bytes


Talk: TypeAlias = "Generator[bytes, Message, None]"
"""What a client sends upon a message, which may be nothing."""


def publish(subject: bytes, payload: bytes, reply: bytes = b"") -> bytes:
    """A message to a subject; the answer, if one is wanted, goes to ``reply``."""
    return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload)


def must_be_kept(answer: Message) -> None:
    """`MeasureFailed` when a stream's answer to a message does not say that it has it."""
    if b'"seq":' not in answer.payload:
        raise MeasureFailed(f"NATS did not keep a message: {answer.payload.decode()}")


class Nats:
    """One connection and its clients."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Connects."""
        self.socket = endpoint.connect(SILENCE_SECONDS)
        self._prefix = f"_INBOX.{next(_numbers)}"
        self._rest = b""
        self._talks: dict[int, Talk] = {}
        options = {
            "verbose": False,
            "pedantic": False,
            "headers": True,
            "no_responders": True,
            "lang": "",
            "version": "1",
        }
        self.send(b"CONNECT " + json.dumps(options).encode() + END + b"PING\r\n" + self._subscribe(CONTROL))

    def close(self) -> None:
        """Just ends it."""
        self.socket.close()

    def inbox(self, client: int) -> bytes:
        """The subject of one of its clients."""
        return f"{self._prefix}.{client}".encode()

    def ask(self, subject: str, **fields: object) -> dict[str, Any]:
        """JetStream's answer to a call of its API; an error is `MeasureFailed`."""
        self.send(publish(subject.encode(), json.dumps(fields).encode() if fields else b"", self.inbox(CONTROL)))
        answer: dict[str, Any] = json.loads(self.hear(CONTROL).payload)
        if "error" in answer:
            raise MeasureFailed(f"{subject}: {answer['error']['description']}")
        return answer

    def send(self, data: bytes) -> None:
        """Sends some lines."""
        self.socket.sendall(data)

    def hear(self, client: int) -> Message:
        """Waits for the next message to a client; what comes to others before it is lost."""
        while True:
            for number, message in self._messages(b""):
                if number == client:
                    return message
            data = self.socket.recv(RECEIVE_BYTES)
            if not data:
                raise MeasureFailed("NATS closed a connection")
            self._rest += data

    def add(self, client: int) -> None:
        """Makes a client's subject; they have numbers from 1."""
        self.send(self._subscribe(client))

    def talks_as(self, client: int, talk: Talk) -> None:
        """Who is sent what comes to that client, once the loop runs."""
        self.add(client)
        self._talks[client] = talk

    def start(self) -> bytes:
        """What all clients begin with."""
        return b"".join([next(talk) for talk in self._talks.values()])

    def receive(self, data: bytes) -> bytes:
        """What the clients send upon it."""
        return b"".join([self._talks[client].send(message) for client, message in self._messages(data)])

    def _subscribe(self, client: int) -> bytes:
        return b"SUB %b %d\r\n" % (self.inbox(client), client)

    def _messages(self, data: bytes) -> Iterator[tuple[int, Message]]:
        """Each whole message and whose it is; answers pings, keeps the rest."""
        data, at = self._rest + data, 0
        try:
            while (end := data.find(END, at)) >= 0:
                kind, first = data[at : at + 4], end + len(END)
                if kind in (b"MSG ", b"HMSG"):
                    words = data[at:end].split()
                    last = first + int(words[-1])
                    if len(data) < last + len(END):
                        break
                    at = last + len(END)
                    if kind == b"HMSG":
                        raise MeasureFailed(f"NATS answered {data[first:last].splitlines()[0].decode()}")
                    reply = words[3] if len(words) > 4 else b""
                    yield int(words[2]), Message(reply, data[first:last])
                    continue
                if kind == b"-ERR":
                    raise MeasureFailed(f"NATS answered {data[at:end].decode()}")
                if kind == b"PING":
                    self.send(b"PONG\r\n")
                at = first
        finally:
            self._rest = data[at:]
