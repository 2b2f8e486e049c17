"""A snapshot coming in: the new state is built beside the old one, which stays until all of it is there.

Each piece is stored on the disk before it is answered, and put into a new
machine meanwhile, so the last piece costs no more than the others.
"""

from __future__ import annotations

import msgspec

from cluster.machine.machine import Commands, Machine
from cluster.raft.membership import Config
from cluster.raft.messages import Chunk
from cluster.storage.contract import Row

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[Config, bytes]).decode


def ledger_of(config: Config, machine_ledger: bytes) -> bytes:
    """What a checkpoint keeps beside the keys: the configuration at its end, and the machine's ledger."""
    return _encode((config, machine_ledger))


def parts_of(ledger: bytes) -> tuple[Config, bytes]:
    """The configuration and the machine's ledger of a checkpoint."""
    return _decode(ledger) if ledger else (Config(), b"")


class Installation:
    """One snapshot on its way in: which it is, what comes next, and what it is so far."""

    __slots__ = ("config", "index", "ledger", "machine", "position", "term")

    def __init__(self, commands: Commands, first: Chunk) -> None:
        self.index = first.index
        self.term = first.index_term
        self.position = 0
        self.ledger = first.ledger
        self.config, machine_ledger = parts_of(first.ledger)
        self.machine = Machine(commands)
        self.machine.restore(machine_ledger, ())

    def expects(self, chunk: Chunk) -> bool:
        """Whether this is the next piece."""
        return (chunk.index, chunk.index_term, chunk.position) == (self.index, self.term, self.position)

    def add(self, chunk: Chunk) -> None:
        """The piece is on the disk: it becomes part of the new state."""
        self.machine.restore_rows(Row(*row) for row in chunk.rows)
        self.position += 1
