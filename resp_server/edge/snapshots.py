"""Snapshots between nodes: sent to followers that are far behind, stored when one comes in, and replicas given up.

The core says which piece is due; worker threads read and write. What goes out
is one piece at a time, of one shard and follower after the other, and no more
bytes a second than ``rebalance-bandwidth``. What comes in is one snapshot at a
time: there is one writer of the keyspace. Pieces of other shards' snapshots are
forgotten meanwhile, and sent again by those who have had no answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import trio

from cluster.node import Node
from cluster.raft.messages import Chunk
from cluster.shard import Shard
from cluster.snapshot_files import CHUNK_BYTES, Reading, give_up, size_bytes_of, store
from cluster.storage import Storage, StorageError
from resp_server.edge.allowance import Allowance
from resp_server.edge.disk import Disk
from resp_server.logs import LOGGER

ABANDONED_S = 30.0
"""A snapshot of which nothing more came for so long is given up, so that checkpoints go on."""

IN_THE_WAY_S = 10.0
"""The same, when others wait to be stored."""

LOOK_S = 1.0
"""How often to look after what has come only in part, and to try again what failed."""

PIECES_PER_S = 8
"""At the least, however few bytes a second may go: as long as single values allow it."""

CHUNK_BYTES_MIN = 16 * 1024


class Snapshots:
    """Moves snapshots for one node. ``bandwidth`` gives the bytes a second that may go out."""

    def __init__(self, node: Node, storage: Storage, disk: Disk, bandwidth: Callable[[], int]) -> None:
        self._node = node
        self._storage = storage
        self._disk = disk
        self._bandwidth = bandwidth
        self._allowance = Allowance(bandwidth)
        self._going = trio.Event()
        self._coming = trio.Event()
        self._readings: dict[tuple[int, str], Reading] = {}
        self._sent_last = (-1, "")  # which snapshot had the last piece
        self._storing: Shard | None = None  # whose snapshot is coming in: ``disk.keyspace`` is held for it
        self._stored_s = 0.0
        self._emptying: dict[int, bytes] = {}  # replicas given up, perhaps in part, by shard: the ledgers they leave

    def look(self) -> None:
        """At the end of a turn: wakes `run` if the node has something to move."""
        if self._node.moving:
            self._going.set()
            self._coming.set()

    async def run(self) -> None:
        """Moves what is due until it is cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send)
            nursery.start_soon(self._receive)

    # Out

    async def _send(self) -> None:
        try:
            while True:
                await self._going.wait()
                self._going = trio.Event()
                self._close_finished()
                while (due := self._next_due()) is not None:
                    await self._send_piece(*due)
                    await self._allowance.wait()
        finally:
            for reading in self._readings.values():
                reading.close()

    def _next_due(self) -> tuple[Shard, str, int | None, int] | None:
        """The next piece to send: the first behind the last one's snapshot, so that none waits for all of another."""
        dues = [
            (shard.number, peer, shard, index, position)
            for shard in self._node.each()
            for peer, index, position in shard.snapshots.due()
        ]
        if not dues:
            return None
        number, peer, shard, index, position = min(dues, key=lambda due: (due[:2] <= self._sent_last, due[:2]))
        self._sent_last = (number, peer)
        return shard, peer, index, position

    async def _send_piece(self, shard: Shard, peer: str, index: int | None, position: int) -> None:
        piece = await self._read(shard.number, peer, index, position)
        if piece is None:
            self._close(shard.number, peer)
            shard.snapshots.begin_anew(peer)
            return
        self._node.stir(shard)
        shard.snapshots.send(peer, piece)
        self._allowance.spend(size_bytes_of(piece))
        self._disk.ring()

    async def _read(self, shard: int, peer: str, index: int | None, position: int) -> Chunk | None:
        """The piece, None when it cannot be had any more."""
        if index is None:
            self._close(shard, peer)
            snapshot = await trio.to_thread.run_sync(self._storage.snapshot, shard)
            if snapshot is None:
                return None
            LOGGER.info("sending a snapshot", {"shard": shard, "to": peer, "index": snapshot.index})
            bytes_max = min(CHUNK_BYTES, max(CHUNK_BYTES_MIN, self._bandwidth() // PIECES_PER_S))
            self._readings[shard, peer] = Reading(snapshot, bytes_max=bytes_max)
        reading = self._readings.get((shard, peer))
        if reading is None or reading.index != (index or reading.index):
            return None
        return await trio.to_thread.run_sync(reading.piece, position)

    def _close_finished(self) -> None:
        """Gives up the views that nobody is sent any more: they hold space on the disk."""
        if self._readings:
            wanted = {(shard.number, peer) for shard in self._node.each() for peer in shard.snapshots.receivers()}
            for shard, peer in [one for one in self._readings if one not in wanted]:
                self._close(shard, peer)

    def _close(self, shard: int, peer: str) -> None:
        reading = self._readings.pop((shard, peer), None)
        if reading is not None:
            reading.close()

    # In

    async def _receive(self) -> None:
        try:
            while True:
                with trio.move_on_after(LOOK_S if self._storing or self._emptying else math.inf):
                    await self._coming.wait()
                self._coming = trio.Event()
                self._stop_storing_in_vain()
                await self._give_up_replicas()
                await self._store_pieces()
        finally:
            self._stop_storing()

    async def _store_pieces(self) -> None:
        while (shard := self._next_to_store()) is not None:
            self._node.stir(shard)
            due = shard.snapshots.next_to_store()
            if due is None:
                self._disk.ring()  # another piece may be wanted
                continue
            if self._storing is None:
                await self._disk.keyspace.acquire()
                self._storing = shard
            piece, ledger = due
            try:
                await trio.to_thread.run_sync(store, self._storage, shard.number, piece, ledger)
            except StorageError as error:
                about = {"shard": shard.number, "reason": error.message}
                LOGGER.error("a snapshot that comes in cannot be stored", about)
                self._node.chunk_stored(shard.number, piece, stored=False)
                self._stop_storing()
                return
            self._stored_s = trio.current_time()
            self._node.chunk_stored(shard.number, piece, stored=True)
            if piece.last:
                LOGGER.info("a snapshot was installed", {"shard": shard.number, "index": piece.index})
                self._stop_storing()
            self._disk.ring()

    def _next_to_store(self) -> Shard | None:
        """The shard of which there is a piece to store; those that have to wait lose theirs."""
        if self._storing is None:
            return next(self._with_pieces(), None)
        for shard in self._with_pieces():
            if shard is not self._storing:
                shard.snapshots.put_off()
        return self._storing if self._storing.snapshots.coming else None

    def _with_pieces(self) -> Iterator[Shard]:
        return (shard for shard in self._node.each() if shard.snapshots.coming)

    def _stop_storing_in_vain(self) -> None:
        """Gives up a snapshot of which nothing comes any more."""
        shard = self._storing
        if shard is None or shard.snapshots.coming:
            return
        patience_s = IN_THE_WAY_S if next(self._with_pieces(), None) is not None else ABANDONED_S
        if trio.current_time() - self._stored_s >= patience_s:
            LOGGER.warning("a snapshot came only in part", {"shard": shard.number})
            shard.snapshots.abandon()
            self._stop_storing()

    def _stop_storing(self) -> None:
        if self._storing is not None:
            self._storing = None
            self._storage.abandon_checkpoint()
            self._disk.keyspace.release()

    # Replicas given up

    async def _give_up_replicas(self) -> None:
        """Empties what this node holds of shards it is no member of any more. What was begun is brought to its end."""
        for number in self._node.to_drop():
            self._emptying.setdefault(number, self._node.ledger_of_dropped(number))
        for number, ledger in list(self._emptying.items()):
            if self._storing is not None:
                return  # it comes to its end, or is given up, in a while
            try:
                async with self._disk.keyspace:
                    await trio.to_thread.run_sync(give_up, self._storage, number, ledger)
                    del self._emptying[number]
                    self._node.dropped(number)
            except StorageError as error:
                LOGGER.error("a replica cannot be given up yet", {"shard": number, "reason": error.message})
                await trio.sleep(LOOK_S)
                return
            LOGGER.info("a replica was given up", {"shard": number})
            self._disk.ring()
