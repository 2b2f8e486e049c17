"""Snapshots as the core sees them: which piece is due to whom, and the state that comes in.

Sending: Raft knows which followers are too far behind; the driver reads the
pieces that are `due` (snapshot_files.py) and hands them to `send`.

Receiving: the new state is built beside the old one, which stays until all of
it is there. The driver takes a piece with `next_to_store`, writes it, and says
so with `stored`; only then is it answered. Each piece goes into the new machine
at once, so the last costs no more than the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from cluster.machine.machine import Machine
from cluster.raft.core import Raft
from cluster.raft.following import brings_nothing
from cluster.raft.membership import Config
from cluster.raft.messages import Chunk, ChunkTaken
from cluster.raft.transfer import Transfer
from cluster.snapshot_files import size_bytes_of
from cluster.storage.contract import Row

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[Config, bytes, dict[bytes, int]]).decode


class Ledger(NamedTuple):
    """What a checkpoint keeps beside the keys.

    The configuration at its end, the machine's own ledger, and the number of
    each author's last batch that was carried out.
    """

    config: Config = Config()
    machine: bytes = b""
    numbers: dict[bytes, int] = {}  # noqa: RUF012 - read only


def ledger_of(config: Config, machine_ledger: bytes, numbers: dict[bytes, int] | None = None) -> bytes:
    """A `Ledger` as bytes."""
    return _encode((config, machine_ledger, numbers or {}))


def parts_of(ledger: bytes) -> Ledger:
    """The `Ledger` in these bytes; an empty one where there is no checkpoint."""
    return Ledger(*_decode(ledger)) if ledger else Ledger()


class Installation:
    """One snapshot on its way in: which it is, which piece comes next, and the state so far."""

    __slots__ = ("config", "index", "ledger", "machine", "numbers", "position", "term")

    def __init__(self, machine: Machine, first: Chunk) -> None:
        self.index = first.index
        self.term = first.index_term
        self.position = 0
        self.ledger = first.ledger
        self.config, machine_ledger, self.numbers = parts_of(first.ledger)
        self.machine = machine
        self.machine.restore(machine_ledger, ())

    def expects(self, chunk: Chunk) -> bool:
        """Whether this is the next piece."""
        return (chunk.index, chunk.index_term, chunk.position) == (self.index, self.term, self.position)

    def add(self, chunk: Chunk) -> None:
        """The piece is on the disk: it becomes part of the new state."""
        self.machine.restore_rows(Row(*row) for row in chunk.rows)
        self.position += 1


class Snapshots:
    """One node's snapshots, out and in."""

    def __init__(self, raft: Raft, new_machine: Callable[[], Machine]) -> None:
        self._raft = raft
        self._new_machine = new_machine
        self._installation: Installation | None = None

    @property
    def moving(self) -> bool:
        """Whether one is on its way, to this node or from it."""
        leading = self._raft.leading
        return bool(self._raft.chunks) or (leading is not None and bool(leading.transfers))

    # Out

    def receivers(self) -> list[str]:
        """Whom a snapshot is being sent."""
        leading = self._raft.leading
        return [] if leading is None else list(leading.transfers)

    def due(self) -> list[tuple[str, int | None, int]]:
        """The pieces to send now: (to whom, of which snapshot or None for the newest, which piece)."""
        leading = self._raft.leading
        if leading is None:
            return []
        now_ms = self._raft.now_ms
        return [(peer, one.index, one.position) for peer, one in leading.transfers.items() if one.due(now_ms)]

    def send(self, peer: str, chunk: Chunk) -> None:
        """A piece that was due; its term is set here."""
        raft = self._raft
        transfer = raft.leading.transfers.get(peer) if raft.leading is not None else None
        if transfer is not None and transfer.position == chunk.position:
            transfer.sent(chunk.index, size_bytes_of(chunk), raft.now_ms)
            raft.send(peer, msgspec.structs.replace(chunk, term=raft.term))

    def begin_anew(self, peer: str) -> None:
        """The snapshot the peer was being sent can be read no longer: it gets the newest, from the beginning."""
        leading = self._raft.leading
        if leading is not None and peer in leading.transfers:
            leading.transfers[peer] = Transfer()

    # In

    def next_to_store(self) -> tuple[Chunk, bytes] | None:
        """The next piece to store, and the snapshot's ledger; `stored` must follow.

        The piece at position 0 begins a checkpoint anew, the one that says
        ``last`` finishes it as an installed one, which replaces the log on the
        disk: so that is begun when all of the log is there, and nothing is
        appended until it is done. The leader sends again what is not answered.
        """
        raft = self._raft
        while raft.chunks:
            chunk = raft.chunks.pop(0)
            if chunk.term != raft.term or raft.leader is None or brings_nothing(raft, chunk):
                continue
            if chunk.last and raft.log.saved_index < raft.log.last_index:
                continue
            if not chunk.position:
                self._installation = Installation(self._new_machine(), chunk)
            known = self._installation
            if known is not None and known.expects(chunk):
                raft.installing = chunk.last
                return chunk, known.ledger
            wanted = known.position if known is not None and known.index == chunk.index else 0
            raft.send(raft.leader, ChunkTaken(raft.term, chunk.index, wanted, False))
        return None

    @property
    def coming(self) -> bool:
        """Whether a piece has come that was not looked at yet."""
        return bool(self._raft.chunks)

    def put_off(self) -> None:
        """The driver is at another shard's: what came is forgotten, and will come again."""
        self._raft.chunks.clear()

    def abandon(self) -> None:
        """The driver gave up the checkpoint it was writing: the next snapshot begins at its first piece."""
        self._installation = None

    def stored(self, chunk: Chunk, *, stored: bool) -> Installation | None:
        """The piece is on the disk, or (not ``stored``) cannot be had there; the whole once it is in force."""
        raft, installation = self._raft, self._installation
        raft.installing = False
        if not stored or installation is None:
            self.abandon()
            return None
        installation.add(chunk)
        if chunk.last:
            self._installation = None
            raft.installed(installation.index, installation.term, installation.config)
        if raft.leader is not None and raft.leading is None:
            raft.send(raft.leader, ChunkTaken(raft.term, chunk.index, installation.position, chunk.last))
        return installation if chunk.last else None
