"""Snapshots between nodes: sent to followers that are far behind, stored when one comes in.

The core says which piece is due; worker threads read and write, one piece at
a time in each direction, so clients hardly notice.
"""

from __future__ import annotations

import trio

from cluster.node import Node
from cluster.raft.messages import Chunk
from cluster.snapshot_files import Reading, store
from cluster.storage import Storage, StorageError
from resp_server.edge.disk import Disk
from resp_server.logs import LOGGER

ABANDONED_S = 30.0
"""A snapshot of which nothing more came for so long is given up, so that checkpoints go on."""


class Snapshots:
    """Moves snapshots for one node."""

    def __init__(self, node: Node, storage: Storage, disk: Disk) -> None:
        self._node = node
        self._storage = storage
        self._disk = disk
        self._due = trio.Event()
        self._readings: dict[str, Reading] = {}
        self._storing = False  # a snapshot is coming in: ``disk.keyspace`` is held for it

    def look(self) -> None:
        """At the end of a turn: wakes `run` if the node has something to move."""
        if self._node.snapshots.moving:
            self._due.set()

    async def run(self) -> None:
        """Moves what is due until it is cancelled."""
        try:
            while True:
                with trio.move_on_after(ABANDONED_S) as patience:
                    await self._due.wait()
                self._due = trio.Event()
                if patience.cancelled_caught and self._storing:
                    self._node.snapshots.abandon()
                    self._stop_storing()
                await self._store_pieces()
                await self._send_pieces()
        finally:
            self._stop_storing()
            for peer in list(self._readings):
                self._close(peer)

    async def _send_pieces(self) -> None:
        due = self._node.snapshots.due()
        if not self._node.snapshots.moving:
            for peer in list(self._readings):
                self._close(peer)
        for peer, index, position in due:
            piece = await self._read(peer, index, position)
            if piece is None:
                self._close(peer)
                self._node.snapshots.begin_anew(peer)
                continue
            self._node.snapshots.send(peer, piece)
            self._disk.ring()

    async def _read(self, peer: str, index: int | None, position: int) -> Chunk | None:
        """The piece, None when it cannot be had any more."""
        if index is None:
            self._close(peer)
            snapshot = await trio.to_thread.run_sync(self._storage.snapshot, self._node.shard)
            if snapshot is None:
                return None
            LOGGER.info("sending a snapshot", {"to": peer, "index": snapshot.index})
            self._readings[peer] = Reading(snapshot)
        reading = self._readings.get(peer)
        if reading is None or reading.index != (index or reading.index):
            return None
        return await trio.to_thread.run_sync(reading.piece, position)

    def _close(self, peer: str) -> None:
        reading = self._readings.pop(peer, None)
        if reading is not None:
            reading.close()

    async def _store_pieces(self) -> None:
        while (due := self._node.snapshots.next_to_store()) is not None:
            piece, ledger = due
            if not self._storing:
                await self._disk.keyspace.acquire()
                self._storing = True
            try:
                await trio.to_thread.run_sync(store, self._storage, self._node.shard, piece, ledger)
            except StorageError as error:
                LOGGER.error("a snapshot that comes in cannot be stored", {"reason": error.message})
                self._node.chunk_stored(piece, stored=False)
                self._stop_storing()
                return
            self._node.chunk_stored(piece, stored=True)
            if piece.last:
                LOGGER.info("a snapshot was installed", {"index": piece.index})
                self._stop_storing()
            self._disk.ring()

    def _stop_storing(self) -> None:
        if self._storing:
            self._storing = False
            self._storage.abandon_checkpoint()
            self._disk.keyspace.release()
