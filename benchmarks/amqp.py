"""As much of AMQP 0-9-1 as it takes to publish with confirmations and to consume with acknowledgements.

A connection is opened, and its channels prepared, by blocking calls; after
that `Amqp` is a `Wire`, and each channel the talk of one client. What a talk
is sent are the events of its channel: a `Confirmed` or a `Delivered`.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeAlias

from benchmarks.probes import RECEIVE_BYTES, SILENCE_SECONDS, Endpoint, MeasureFailed

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_HEAD = struct.Struct(">BHL")
FRAME_END = b"\xce"
BASIC = 60
PERSISTENT = b"\x10\x00\x02"
"""The properties that have a delivery mode only, and it is 2."""

Method: TypeAlias = tuple[int, int]
"""Its class and its number."""
START, START_OK, TUNE, TUNE_OK, OPEN, OPEN_OK = (10, 10), (10, 11), (10, 30), (10, 31), (10, 40), (10, 41)
CLOSE, CHANNEL_OPEN, CHANNEL_OPEN_OK, CHANNEL_CLOSE = (10, 50), (20, 10), (20, 11), (20, 40)
DECLARE, DECLARE_OK, DELETE, DELETE_OK = (50, 10), (50, 11), (50, 40), (50, 41)
QOS, QOS_OK, CONSUME, CONSUME_OK, CANCEL, CANCEL_OK = (60, 10), (60, 11), (60, 20), (60, 21), (60, 30), (60, 31)
PUBLISH, DELIVER, ACK, NACK = (60, 40), (60, 60), (60, 80), (60, 120)
CONFIRM, CONFIRM_OK = (85, 10), (85, 11)
PASSIVE, DURABLE = 1, 2


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The broker has the message published under that number, and with ``multiple`` all before it."""

    tag: int
    multiple: bool


@dataclass(frozen=True, slots=True)
class Delivered:
    """A message, and the number it is acknowledged by."""

    tag: int


Talk: TypeAlias = "Generator[bytes, Confirmed | Delivered, None]"
"""What a client sends upon an event of its channel, which may be nothing."""


def short_string(text: str) -> bytes:
    """A string of up to 255 bytes."""
    encoded = text.encode()
    return bytes((len(encoded),)) + encoded


def long_string(encoded: bytes) -> bytes:
    """A string, or the entries of a table."""
    return struct.pack(">L", len(encoded)) + encoded


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """Any frame."""
    return FRAME_HEAD.pack(kind, channel, len(payload)) + payload + FRAME_END


def method(channel: int, name: Method, arguments: bytes = b"") -> bytes:
    """A frame of a method."""
    return frame(METHOD, channel, struct.pack(">HH", *name) + arguments)


def publish(channel: int, queue: str, payload: bytes) -> bytes:
    """A durable message to a queue through the default exchange: three frames."""
    return (
        method(channel, PUBLISH, b"\0\0" + short_string("") + short_string(queue) + b"\0")
        + frame(HEADER, channel, struct.pack(">HHQ", BASIC, 0, len(payload)) + PERSISTENT)
        + frame(BODY, channel, payload)
    )


def ack(channel: int, tag: int, *, multiple: bool = False) -> bytes:
    """Acknowledges a delivery, with ``multiple`` all before it too."""
    return method(channel, ACK, struct.pack(">QB", tag, multiple))


class Amqp:
    """One connection and its channels."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Connects and logs in as a fresh broker's only user."""
        self.socket = endpoint.connect(SILENCE_SECONDS)
        self._rest = b""
        self._talks: dict[int, Talk] = {}
        self._arriving: dict[int, int] = {}
        self._delivered: dict[int, int] = {}
        self.socket.sendall(b"AMQP\x00\x00\x09\x01")
        self._expect(0, START)
        self._send(0, START_OK, long_string(b"") + short_string("PLAIN") + long_string(b"\0guest\0guest") + b"\5en_US")
        channels, frame_bytes = struct.unpack(">HL", self._expect(0, TUNE)[:6])
        self._send(0, TUNE_OK, struct.pack(">HLH", channels, frame_bytes, 0))  # no heartbeats
        self.call(0, OPEN, short_string("/") + b"\0\0", OPEN_OK)

    def close(self) -> None:
        """Just ends it: what was not acknowledged is back in its queue."""
        self.socket.close()

    def open_channel(self, number: int) -> None:
        """Channels have numbers from 1."""
        self.call(number, CHANNEL_OPEN, b"\0", CHANNEL_OPEN_OK)

    def confirm(self, channel: int) -> None:
        """What is published on the channel is confirmed from now on."""
        self.call(channel, CONFIRM, b"\0", CONFIRM_OK)

    def declare_quorum_queue(self, channel: int, queue: str) -> None:
        """Makes a queue that is kept by as many nodes as there are, up to five, and led by this one."""
        arguments = short_string("x-queue-type") + b"S" + long_string(b"quorum")
        words = b"\0\0" + short_string(queue) + bytes((DURABLE,)) + long_string(arguments)
        self.call(channel, DECLARE, words, DECLARE_OK)

    def waiting(self, channel: int, queue: str) -> int:
        """The messages of a queue that no consumer has been given."""
        words = b"\0\0" + short_string(queue) + bytes((PASSIVE,)) + long_string(b"")
        found = self.call(channel, DECLARE, words, DECLARE_OK)
        (messages, _consumers) = struct.unpack(">LL", found[-8:])
        return int(messages)

    def delete(self, channel: int, queue: str) -> None:
        """Deletes a queue with what is in it."""
        self.call(channel, DELETE, b"\0\0" + short_string(queue) + b"\0", DELETE_OK)

    def consume(self, channel: int, queue: str, prefetch: int) -> None:
        """Has up to ``prefetch`` messages delivered that are not acknowledged yet."""
        self.call(channel, QOS, struct.pack(">LHB", 0, prefetch, 0), QOS_OK)
        words = b"\0\0" + short_string(queue) + short_string("consumer") + b"\0" + long_string(b"")
        self.call(channel, CONSUME, words, CONSUME_OK)

    def cancel(self, channel: int) -> None:
        """Ends what `consume` began."""
        self.call(channel, CANCEL, short_string("consumer") + b"\0", CANCEL_OK)

    def call(self, channel: int, name: Method, arguments: bytes, answer: Method) -> bytes:
        """Sends a method and waits for its answer, whose arguments are returned; events before it are lost."""
        self._send(channel, name, arguments)
        return self._expect(channel, answer)

    def send(self, data: bytes) -> None:
        """Sends some frames."""
        self.socket.sendall(data)

    def event(self) -> Confirmed | Delivered:
        """Waits for the next event of any channel."""
        while True:
            for _, event in self._events(b""):
                return event
            self._rest += self._hear()

    def talks_on(self, channel: int, talk: Talk) -> None:
        """Whose events those of the channel are, once the loop runs."""
        self._talks[channel] = talk

    def start(self) -> bytes:
        """What all channels begin with."""
        return b"".join([next(talk) for talk in self._talks.values()])

    def receive(self, data: bytes) -> bytes:
        """What the channels send upon it."""
        return b"".join([self._talks[channel].send(event) for channel, event in self._events(data)])

    def _send(self, channel: int, name: Method, arguments: bytes) -> None:
        self.socket.sendall(method(channel, name, arguments))

    def _hear(self) -> bytes:
        data = self.socket.recv(RECEIVE_BYTES)
        if not data:
            raise MeasureFailed("RabbitMQ closed a connection")
        return data

    def _frames(self, data: bytes) -> Generator[tuple[int, int, bytes], None, None]:
        """Kind, channel and payload of each whole frame; keeps the rest."""
        data, at = self._rest + data, 0
        try:
            while len(data) - at > FRAME_HEAD.size:
                kind, channel, size = FRAME_HEAD.unpack_from(data, at)
                first, last = at + FRAME_HEAD.size, at + FRAME_HEAD.size + size
                if len(data) <= last:
                    break
                at = last + len(FRAME_END)
                yield kind, channel, data[first:last]
        finally:
            self._rest = data[at:]

    def _expect(self, channel: int, name: Method) -> bytes:
        while True:
            for kind, number, payload in self._frames(b""):
                if kind != METHOD:
                    continue
                found = struct.unpack_from(">HH", payload)
                if (number, found) == (channel, name):
                    return payload[4:]
                _refuse(found, payload)
            self._rest += self._hear()

    def _events(self, data: bytes) -> Generator[tuple[int, Confirmed | Delivered], None, None]:
        for kind, channel, payload in self._frames(data):
            if kind == BODY:
                self._arriving[channel] -= len(payload)
                if not self._arriving[channel]:
                    yield channel, Delivered(self._delivered[channel])
            elif kind == HEADER:
                (self._arriving[channel],) = struct.unpack_from(">Q", payload, 4)
            elif kind == METHOD:
                found = struct.unpack_from(">HH", payload)
                if found == DELIVER:
                    (self._delivered[channel],) = struct.unpack_from(">Q", payload, 5 + payload[4])
                elif found == ACK:
                    tag, multiple = struct.unpack_from(">QB", payload, 4)
                    yield channel, Confirmed(tag, bool(multiple))
                else:
                    _refuse(found, payload)


def _refuse(found: tuple[int, ...], payload: bytes) -> None:
    """Raises for a method that says that something went wrong."""
    if found in (CLOSE, CHANNEL_CLOSE):
        raise MeasureFailed(f"RabbitMQ refused: {payload[7 : 7 + payload[6]].decode()}")
    if found == NACK:
        raise MeasureFailed("RabbitMQ did not take a message")
