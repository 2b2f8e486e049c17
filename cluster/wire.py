"""Peer messages as bytes: what stands in a ``PEER`` frame.

A frame is what one node has to say to another in a turn: letters, each the
number of a shard and a message. A message often goes to several nodes, so it
is packed on its own, once, and its bytes are put into each node's frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from typing import Annotated, TypeAlias

import msgspec

from cluster.raft.messages import AnyMessage, Message
from cluster.ring.slots import SYSTEM

VERSION = 4
"""Of the messages: nodes of another version are refused at the handshake."""

FRAME_BYTES_MAX = 4 * 1024 * 1024
"""A frame that would pass this is cut in two, unless a single message does."""

FRAME_LETTERS_MAX = 0xFFFF

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


def encode(mail: Iterable[tuple[int, Message]]) -> bytes:
    """One frame with all of these, (shard, message), however long it gets."""
    return b"".join(_frame([(shard, pack(message)) for shard, message in mail]))


def decode(data: bytes) -> list[tuple[int, AnyMessage]]:
    """The messages of a frame, each with its shard; `WireError` when it is none, whatever the bytes are."""
    try:
        mail: list[tuple[int, AnyMessage]] = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(str(error)) from None
    return mail
