"""Peer messages as bytes: what stands in a ``PEER`` frame."""

from __future__ import annotations

import msgspec

from cluster.raft.messages import AnyMessage

VERSION = 1
"""Of the messages: nodes of another version are refused at the handshake."""

encode = msgspec.msgpack.Encoder().encode
"""The bytes of one message."""

_decoder = msgspec.msgpack.Decoder(AnyMessage)


class WireError(ValueError):
    """The bytes are no message of this version."""


def decode(data: bytes) -> AnyMessage:
    """The message in ``data``; `WireError` when it is none, whatever the bytes are."""
    try:
        message: AnyMessage = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(str(error)) from None
    return message
