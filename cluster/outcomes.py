"""What became of commands, for nodes that do not carry them out themselves.

Every replica remembers for a while what it answered to each batch, and how
waits ended, whoever wrote them. So a node without a replica gets its answers
from the leader, and when that is lost, from the next one: it carried out the
same entries. What is not remembered, though every entry of the term it was
sent in was carried out here, never happened.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from cluster.machine.machine import Woken
from cluster.machine.reply import NULL_ARRAY, OK, WAITING, CommandError, Members, Reply, Status, Verbatim

KEPT_MS = 15_000.0
"""How long an outcome is remembered: longer than anybody goes on asking."""

KEPT_REPLIES_MAX = 200_000
"""How many replies are remembered at the most."""

KEPT_BYTES_MAX = 64 * 1024 * 1024
"""And how many bytes of values in them."""


class Waiting(NamedTuple):
    """In place of `WAITING`, on the way to another node: the number of the wait."""

    number: int


class Remembered(NamedTuple):
    """One batch: when it was carried out, whose it is, and what was answered."""

    at_ms: float
    author: bytes
    number: int
    replies: Sequence[Reply]
    bytes: int


class Outcomes:
    """What one replica remembers.

    ``since_term``: outcomes of batches sent in later terms are all remembered,
    but for those that are too old.
    """

    __slots__ = (
        "_batches",
        "_by_number",
        "_bytes",
        "_forgotten",
        "_replies",
        "_waits",
        "_waits_by_origin",
        "since_term",
    )

    def __init__(self, since_term: int = 0) -> None:
        self.since_term = since_term
        self._batches: deque[Remembered] = deque()
        self._by_number: dict[tuple[bytes, int], Sequence[Reply]] = {}
        self._forgotten: dict[bytes, int] = {}  # the last number of each author that was too old
        self._replies = self._bytes = 0
        self._waits: deque[tuple[float, bytes, int]] = deque()
        self._waits_by_origin: dict[bytes, tuple[int, Reply]] = {}

    def carried_out(self, at_ms: float, author: bytes, number: int, replies: Sequence[Reply]) -> None:
        """A batch was, with these replies; `Waiting` stands for those that wait."""
        size_bytes = sum(_size_bytes(reply) for reply in replies if type(reply) in _SIZEABLE)
        batches = self._batches
        batches.append(Remembered(at_ms, author, number, replies, size_bytes))
        self._by_number[author, number] = replies
        self._replies += len(replies)
        self._bytes += size_bytes
        oldest_ms = at_ms - KEPT_MS
        while batches and (
            batches[0].at_ms < oldest_ms or self._replies > KEPT_REPLIES_MAX or self._bytes > KEPT_BYTES_MAX
        ):
            old = batches.popleft()
            self._replies -= len(old.replies)
            self._bytes -= old.bytes
            self._by_number.pop((old.author, old.number), None)
            self._forgotten[old.author] = old.number

    def ended(self, at_ms: float, woken: Woken) -> None:
        """A wait has ended."""
        origin, number, reply = woken
        self._waits.append((at_ms, origin, number))
        self._waits_by_origin[origin] = (number, reply)
        while len(self._waits) > KEPT_REPLIES_MAX or self._waits[0][0] < at_ms - KEPT_MS:
            _, old, number = self._waits.popleft()
            if self.of_wait(old, number) is not None:
                del self._waits_by_origin[old]

    def of(self, author: bytes, number: int) -> Sequence[Reply] | None:
        """The replies to a batch, None where they are not known."""
        return self._by_number.get((author, number))

    def never(self, author: bytes, number: int, term: int) -> bool:
        """Whether a batch sent in a term that is over certainly was not carried out, and never will be."""
        known = (author, number) in self._by_number
        return not known and term > self.since_term and number > self._forgotten.get(author, 0)

    def of_wait(self, origin: bytes, number: int) -> tuple[int, Reply] | None:
        """How a wait ended, None where that is not known."""
        found = self._waits_by_origin.get(origin)
        return found if found is not None and found[0] == number else None


_SIZEABLE = (bytes, list, dict)


def _size_bytes(reply: Any) -> int:
    """How many bytes of values a reply holds, about."""
    if type(reply) is list:
        return sum(map(_size_bytes, reply))
    return len(reply) if type(reply) in _SIZEABLE else 8


# Replies as bytes: MessagePack, and what it has no form for as an extension.

_STATUS, _SIGNAL, _ERROR, _VERBATIM, _WAIT, _MEMBERS = 1, 2, 3, 4, 5, 6


def encode(replies: Sequence[Reply]) -> bytes:
    """The replies to one batch."""
    return _encoder.encode([_plain(reply) for reply in replies])


def decode(data: bytes) -> list[Any]:
    """What `encode` made."""
    found: list[Any] = _decoder.decode(data)
    return found


def _plain(reply: Any) -> Any:
    """A reply in MessagePack's terms, whatever it is nested in."""
    kind = type(reply)
    if kind is list:
        return [_plain(one) for one in reply]
    if kind is dict:
        return {_plain(key): _plain(value) for key, value in reply.items()}
    make = _EXTENSIONS.get(kind)
    return reply if make is None else make(reply)


def _extension(code: int, *parts: Any) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(code, _encoder.encode(parts))


_EXTENSIONS: dict[type, Any] = {
    Status: lambda reply: _extension(_STATUS, reply.text),
    type(WAITING): lambda reply: _extension(_SIGNAL, reply.value),
    CommandError: lambda reply: _extension(_ERROR, reply.message.encode("utf-8", "surrogateescape"), reply.code),
    Verbatim: lambda reply: _extension(_VERBATIM, reply.text, reply.format),
    Waiting: lambda reply: _extension(_WAIT, reply.number),
    Members: lambda reply: _extension(_MEMBERS, *map(_plain, reply)),
}


def _revive(code: int, data: memoryview) -> Any:
    parts: list[Any] = _decoder.decode(data)
    match code:
        case 1:
            return OK if parts[0] == OK.text else Status(parts[0])
        case 2:
            return NULL_ARRAY if parts[0] == NULL_ARRAY.value else WAITING
        case 3:
            return CommandError(parts[0], parts[1])
        case 4:
            return Verbatim(parts[0], parts[1])
        case 5:
            return Waiting(parts[0])
        case 6:
            return Members(parts)
    raise ValueError(f"a reply of unknown kind {code}")


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ext_hook=_revive)
