"""Peer messages as bytes: what stands in a ``PEER`` frame.

A frame is what one node has to say to another in a turn: letters, each the
number of a shard and a message. A message often goes to several nodes, so it
is packed on its own, once, and its bytes are put into each node's frame. A
large letter is a frame by itself, and is cut: its ``PART``s leave room for
frames between them, and with the ``LAST`` it is whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from typing import Annotated, TypeAlias, cast

import msgspec
from msgspec.structs import replace

from cluster.raft.messages import AnyMessage, Append, Forward, Message
from cluster.ring.slots import SYSTEM

VERSION = 7
"""Of the messages: nodes of another version are refused at the handshake."""

FRAME_BYTES_MAX = 4 * 1024 * 1024
"""A frame that would pass this is cut in two, unless a single message does."""

FRAME_LETTERS_MAX = 0xFFFF

LARGE_BYTES = 1024 * 1024 + 64 * 1024
"""A larger letter is cut into parts, so that others can overtake it; an append of many entries is not so large."""

PART_BYTES = 256 * 1024

COPIED_BYTES_MAX = 4096
"""A larger message is a piece of its own, which nobody copies."""

Letter: TypeAlias = tuple[int, bytes]
"""(a shard's number, a message as `pack` gives it)."""

pack = msgspec.msgpack.Encoder().encode
"""The bytes of one message."""

_ShardNumber: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=SYSTEM)]
_decoder = msgspec.msgpack.Decoder(list[tuple[_ShardNumber, AnyMessage]])

_head = Struct(">BH").pack
_ARRAY = 0xDC  # of as many letters as the two bytes behind it say
_letter = Struct(">HH").pack
_PAIR_OF_NUMBER = 0x92CD  # a letter: two things, the first of them a number of two bytes
_EMPTY = b"\xc4\x00"  # a body of no bytes
_body = Struct(">BI").pack
_LONG = 0xC6  # a body of as many bytes as the four behind it say


class WireError(ValueError):
    """The bytes are no messages of this version."""


def frames(letters: Sequence[Letter]) -> Iterator[list[bytes]]:
    """The frames that bring these letters, in order, each as the pieces it consists of."""
    if len(letters) == 1:
        yield _frame(letters)
        return
    first = size_bytes = 0
    for place, (_, packed) in enumerate(letters):
        size_bytes += len(packed)
        if place > first and (size_bytes > FRAME_BYTES_MAX or place - first == FRAME_LETTERS_MAX):
            yield _frame(letters[first:place])
            first, size_bytes = place, len(packed)
    if letters:
        yield _frame(letters[first:] if first else letters)


def _frame(letters: Sequence[Letter]) -> list[bytes]:
    pieces: list[bytes] = []
    small = [_head(_ARRAY, len(letters))]
    for shard, packed in letters:
        small.append(_letter(_PAIR_OF_NUMBER, shard))
        if len(packed) <= COPIED_BYTES_MAX:
            small.append(packed)
        else:
            pieces += (b"".join(small), packed)
            small = []
    if small:
        pieces.append(b"".join(small))
    return pieces


def pieces_of(message: Message) -> list[bytes] | None:
    """What `pack` gives, as pieces of which the large one is what the message holds, not a copy; None if none is."""
    kind = type(message)
    if kind is Append:
        *before, (term, body) = cast("Append", message).entries or [(0, b"")]
        if len(body) > LARGE_BYTES:
            return _around(pack(replace(message, entries=[*before, (term, b"")])), body, 0)
    elif kind is Forward:
        body = cast("Forward", message).body
        if len(body) > LARGE_BYTES:
            return _around(pack(replace(message, body=b"")), body, 1)
    return None


def _around(packed: bytes, body: bytes, left_bytes: int) -> list[bytes]:
    """``packed`` has an empty body ``left_bytes`` before its end: the pieces with this one in its place."""
    place = len(packed) - left_bytes
    assert packed[place - len(_EMPTY) : place] == _EMPTY
    pieces = [packed[: place - len(_EMPTY)] + _body(_LONG, len(body)), body]
    return pieces if not left_bytes else [*pieces, packed[place:]]


def parts(shard: int, pieces: Sequence[bytes]) -> Iterator[tuple[memoryview, bool]]:
    """A frame with one large letter, in pieces, cut; and of each part whether it is the last: joined, it is a frame."""
    yield memoryview(_head(_ARRAY, 1) + _letter(_PAIR_OF_NUMBER, shard)), False
    final = len(pieces) - 1
    for place, piece in enumerate(pieces):
        view, size_bytes = memoryview(piece), len(piece)
        for end in range(PART_BYTES, size_bytes + PART_BYTES, PART_BYTES):
            yield view[end - PART_BYTES : end], place == final and end >= size_bytes


def encode(mail: Iterable[tuple[int, Message]]) -> bytes:
    """One frame with all of these, (shard, message), however long it gets."""
    return b"".join(_frame([(shard, pack(message)) for shard, message in mail]))


def decode(data: bytes | bytearray) -> list[tuple[int, AnyMessage]]:
    """The messages of a frame, each with its shard; `WireError` when it is none, whatever the bytes are."""
    try:
        mail: list[tuple[int, AnyMessage]] = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(str(error)) from None
    return mail
