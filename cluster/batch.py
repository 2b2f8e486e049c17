"""A turn's commands, and how they stand in the log.

A *batch* is what the clients of one node asked in one turn: the writes, which
go into the log, and the reads that must run in their places among them. An
*entry* is a time and the *parts* that its leader put together: its own batch
of that turn, and those that other nodes forwarded. Every node carries out
every part; the one that wrote it finds its batch again by the part's author
and number, and so knows whom to answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import msgspec

from cluster.machine.machine import Call
from cluster.machine.reply import CommandError, Reply

Client: TypeAlias = Any
"""Whoever asked: the caller's own object, handed back with the answer. None wants no answer."""

Answer: TypeAlias = "tuple[Client, Reply]"

Part: TypeAlias = "tuple[bytes, int, msgspec.Raw]"
"""Author, number, body. The author is a node in one run of its process, as ``n1.0b5f``."""

_encode = msgspec.msgpack.Encoder().encode
_decode_body = msgspec.msgpack.Decoder(tuple[list[Any], dict[int, bytes]]).decode
_decode_entry = msgspec.msgpack.Decoder(tuple[int, list[tuple[bytes, int, msgspec.Raw]]]).decode


class Batch:
    """The commands of one turn: all calls with who asked for each, and what of each stands in the log.

    ``logged`` has the arguments of every call as another node is to see them;
    ``reads`` are the places of those that are not logged where this node
    carries out the log itself, unless the batch is to be logged as a ``whole``
    because another node answers it. ``number`` is 0 while the batch is open.
    ``named``: the leader of ``term`` knows what is read in it.
    ``term`` is the one it was sent in, 0 when it was not, ``index`` its entry where this node made
    that. A batch without writes waits for ``read_index`` to be applied, None
    until the leader named it, and runs as of ``read_ms``. ``answers`` is there
    once it is carried out, but not yet its turn to be answered; ``lost`` is what
    to answer when it certainly did not, or may not, have happened.
    """

    __slots__ = (
        "answers",
        "body",
        "calls",
        "clients",
        "index",
        "logged",
        "lost",
        "named",
        "number",
        "origins",
        "read_index",
        "read_ms",
        "reads",
        "sent_ms",
        "since_ms",
        "term",
        "whole",
    )

    def __init__(self) -> None:
        self.clients: list[Client] = []
        self.calls: list[Call] = []
        self.logged: list[list[Any]] = []
        self.reads: list[int] = []
        self.origins: dict[int, bytes] = {}  # by place
        self.number = 0
        self.term = 0
        self.index = 0
        self.body = b""
        self.since_ms = 0.0
        self.sent_ms = 0.0
        self.read_index: int | None = None
        self.read_ms = 0
        self.whole = False
        self.named = False
        self.answers: Iterable[Answer] | None = None
        self.lost: CommandError | None = None

    @property
    def writes(self) -> bool:
        """Whether it goes through the log."""
        return self.whole or len(self.calls) > len(self.reads)

    def unsend(self) -> None:
        """It certainly did not happen, and never will unless it is sent again: that leader knows what it is sent."""
        self.term = self.index = 0
        self.named = self.whole

    def encode(self) -> bytes:
        """The body of its part."""
        if self.whole or not self.reads:
            return _encode((self.logged, self.origins))
        reads = frozenset(self.reads)
        places = [place for place in range(len(self.logged)) if place not in reads]
        origins = {new: self.origins[old] for new, old in enumerate(places) if old in self.origins}
        return _encode(([self.logged[place] for place in places], origins))


def writes_in(body: bytes | msgspec.Raw) -> tuple[list[Any], dict[int, bytes]]:
    """The writes of a part, and the sessions of those that name one, by position."""
    return _decode_body(body)


def nobodys(calls: list[list[bytes]]) -> Part:
    """A part that no node's clients asked for."""
    return b"", 0, msgspec.Raw(_encode((calls, {})))


def payload_of(time_ms: int, parts: list[Part]) -> bytes:
    """An entry's payload."""
    return _encode((time_ms, parts))


def parts_in(payload: bytes) -> tuple[int, list[Part]]:
    """The time and the parts of an entry."""
    return _decode_entry(payload)


def author_of(node: str, boot: str) -> bytes:
    """The name of a node in one run of its process: no dot in it but the one between the two."""
    return f"{node.replace('.', ':')}.{boot}".encode()


def node_of(author: bytes) -> str:
    """The node that an author, or the session of one of its clients, belongs to."""
    return author.split(b".", 1)[0].decode().replace(":", ".")
