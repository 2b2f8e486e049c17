"""Values -> RESP2 or RESP3.

`resp2` and `resp3` encode one reply; the vocabulary of values is in
`cluster.machine.reply`. Encoding is by exact type: a subclass is its own kind
of reply (`Members`, `Push`), and a type that is not listed is a bug.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from cluster.machine.reply import NULL_ARRAY, CommandError, Members, Push, Signal, Status, Verbatim

Encoder: TypeAlias = Callable[[Any], bytes]

SHORT_BYTES = 1024
BULK_HEADERS = tuple(b"$%d\r\n" % size for size in range(SHORT_BYTES))
"""The first line of a short bulk string, by its length: half the cost of formatting it."""


def double(number: float) -> bytes:
    """A double's text: the shortest that reads back the same, whole numbers without a point."""
    if math.isinf(number):
        return b"inf" if number > 0 else b"-inf"
    if math.isnan(number):
        return b"nan"
    return b"%d" % number if number.is_integer() and abs(number) < 1e17 else repr(number).encode()


def _error(error: CommandError) -> bytes:
    return b"-%b\r\n" % error.line


def _bulk(text: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text)


def _verbatim(reply: Verbatim) -> bytes:
    return b"=%d\r\n%b:%b\r\n" % (len(reply.text) + 4, reply.format, reply.text)


def _sequence(mark: bytes, encode: Encoder) -> Encoder:
    def encode_sequence(reply: list[Any]) -> bytes:
        return b"".join([b"%b%d\r\n" % (mark, len(reply)), *map(encode, reply)])

    return encode_sequence


def _pairs(mark: bytes, each: int, encode: Encoder) -> Encoder:
    def encode_pairs(reply: dict[Any, Any]) -> bytes:
        parts = [b"%b%d\r\n" % (mark, len(reply) * each)]
        for key, value in reply.items():
            parts.append(encode(key))
            parts.append(encode(value))
        return b"".join(parts)

    return encode_pairs


def _encoder(null: bytes, of_type: dict[type, Encoder]) -> Encoder:
    """An encoder of one protocol: the most common types by hand, the others by ``of_type``."""

    def encode(reply: Any) -> bytes:
        kind = type(reply)
        if kind is bytes:
            size = len(reply)
            header = BULK_HEADERS[size] if size < SHORT_BYTES else b"$%d\r\n" % size
            wire: bytes = header + reply + b"\r\n"
        elif kind is Status:
            wire = reply.wire
        elif kind is int:
            wire = b":%d\r\n" % reply
        else:
            wire = null if reply is None else of_type[kind](reply)
        return wire

    return encode


_RESP2: dict[type, Encoder] = {}
_RESP3: dict[type, Encoder] = {}

resp2 = _encoder(b"$-1\r\n", _RESP2)
resp3 = _encoder(b"_\r\n", _RESP3)

_RESP2 |= {
    list: _sequence(b"*", resp2),
    Members: _sequence(b"*", resp2),
    Push: _sequence(b"*", resp2),
    dict: _pairs(b"*", 2, resp2),
    float: lambda reply: _bulk(double(reply)),
    bool: lambda reply: b":1\r\n" if reply else b":0\r\n",
    Verbatim: lambda reply: _bulk(reply.text),
    CommandError: _error,
    Signal: {NULL_ARRAY: b"*-1\r\n"}.__getitem__,
}

_RESP3 |= {
    list: _sequence(b"*", resp3),
    Members: _sequence(b"~", resp3),
    Push: _sequence(b">", resp3),
    dict: _pairs(b"%", 1, resp3),
    float: lambda reply: b",%b\r\n" % double(reply),
    bool: lambda reply: b"#t\r\n" if reply else b"#f\r\n",
    Verbatim: _verbatim,
    CommandError: _error,
    Signal: {NULL_ARRAY: b"_\r\n"}.__getitem__,
}
