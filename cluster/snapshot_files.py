"""Snapshots piece by piece: reading a checkpoint for a follower, writing one that came in.

And emptying a replica that is given up. All of it only touches the storage, and
may take long: whoever calls runs it where that disturbs nobody, one call at a
time for each snapshot.
"""

from __future__ import annotations

from cluster.raft.messages import Chunk
from cluster.storage.contract import Row, Snapshot, Storage

CHUNK_ROWS = 512
CHUNK_BYTES = 512 * 1024
ROW_BYTES = 16


class Reading:
    """One checkpoint on its way to one follower: a view of it, and the piece that was read last.

    ``rows_max`` and ``bytes_max`` bound a piece; one row may be larger.
    """

    def __init__(self, snapshot: Snapshot, *, rows_max: int = CHUNK_ROWS, bytes_max: int = CHUNK_BYTES) -> None:
        self.index = snapshot.index
        self._snapshot = snapshot
        self._rows_max = rows_max
        self._bytes_max = bytes_max
        self._ahead: Row | None = None
        self._piece: Chunk | None = None

    def piece(self, position: int) -> Chunk | None:
        """The piece at ``position``: the next one, or the last one again; None for any other, which is past."""
        last = -1 if self._piece is None else self._piece.position
        if position == last:
            return self._piece
        return self._next(position) if position == last + 1 else None

    def _next(self, position: int) -> Chunk:
        snapshot = self._snapshot
        rows: list[tuple[bytes, bytes, bytes, int | None, bytes]] = []
        if not position:
            self._ahead = next(snapshot.rows, None)
        size_bytes = 0
        while self._ahead is not None and len(rows) < self._rows_max and size_bytes < self._bytes_max:
            key, part, kind, deadline_ms, body = self._ahead
            assert body is not None, "a checkpoint holds what is there"
            rows.append((key, part, kind, deadline_ms, body))
            size_bytes += len(body)
            self._ahead = next(snapshot.rows, None)
        ledger = b"" if position else snapshot.ledger
        self._piece = Chunk(0, snapshot.index, snapshot.term, position, ledger, rows, self._ahead is None)
        return self._piece

    def close(self) -> None:
        """Gives the view up."""
        self._snapshot.close()


def store(storage: Storage, shard: int, chunk: Chunk, ledger: bytes) -> None:
    """Writes a piece that came in; after the last the snapshot is in force, with ``ledger``. Raises `StorageError`."""
    if not chunk.position:
        storage.abandon_checkpoint()
        storage.begin_checkpoint(shard, cleared=True, erased=())
    storage.write_rows(shard, [Row(*row) for row in chunk.rows])
    if chunk.last:
        storage.finish_checkpoint(shard, chunk.index, chunk.index_term, ledger, installed=True)


def size_bytes_of(chunk: Chunk) -> int:
    """About what the piece takes on its way."""
    return len(chunk.ledger) + sum(len(key) + len(part) + len(body) + ROW_BYTES for key, part, _, _, body in chunk.rows)


def give_up(storage: Storage, shard: int, ledger: bytes) -> None:
    """Leaves nothing of a replica but its term and vote, and this ledger. Raises `StorageError`."""
    storage.begin_checkpoint(shard, cleared=True, erased=())
    storage.finish_checkpoint(shard, 0, 0, ledger, installed=True)
