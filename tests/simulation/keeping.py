"""What a process does beside its turns: checkpoints, and snapshots for others and from others.

The steps are those of resp_server/edge/disk.py and snapshots.py, each of which
takes a while, so that turns, faults and a crash come between any two.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, TypeAlias

from cluster.node import SHARD
from cluster.raft.messages import Chunk
from cluster.snapshot_files import Reading, store
from cluster.storage import StorageError
from tests.simulation.world import MS, SECOND

if TYPE_CHECKING:
    from cluster.node import Node
    from tests.simulation.process import Process

ROWS = 3
CUT_ENTRIES = 5
STEP_US = 3 * MS
ABANDONED_US = 5 * SECOND
"""A snapshot of which nothing more came for so long is given up, so that checkpoints go on."""

Steps: TypeAlias = Generator[int, None, None]


class Keeping:
    """One run of one process.

    ``fails`` is how likely a step of a checkpoint or an installation fails on the
    disk, ``step_us`` how long one takes at the most.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world
        self._keyspace_held = False  # by a checkpoint, or by a snapshot that comes in
        self.storing = False  # a snapshot that comes in
        self._moving = False
        self._last_piece_us = 0
        self._readings: dict[str, Reading] = {}
        self.fails = 0.0
        self.step_us = STEP_US

    def _pause(self) -> int:
        return self._world.between_us(0, self.step_us)

    def _may_fail(self, *steps: str) -> None:
        if self.fails and self._world.happens(self.fails):
            step = self._world.chance.choice(steps)
            error = StorageError("no space left", definite=True)
            self._process.disk.storage.fail_next[step] = error  # type: ignore[index]

    # Checkpoints

    def checkpoint(self) -> None:
        """Begins a checkpoint, unless something is written to the keyspace's rows already."""
        if not self._keyspace_held and self._process.node is not None and self._process.disk.refusal is None:
            self._keyspace_held = True
            self._process.run(self._checkpoint(self._process.node))

    def _checkpoint(self, node: Node) -> Steps:
        storage = self._process.disk.storage
        changed, index, term, ledger = node.begin_checkpoint()
        self._process.simulation.watch.pictured(self._process, node)
        try:
            self._may_fail("begin_checkpoint", "write_rows", "finish_checkpoint")
            yield self._pause()
            storage.begin_checkpoint(SHARD, cleared=changed.cleared, erased=changed.erased)
            while rows := changed.slice(ROWS):
                yield self._pause()
                storage.write_rows(SHARD, rows)
            yield self._pause()
            storage.finish_checkpoint(SHARD, index, term, ledger)
        except StorageError:
            storage.fail_next.clear()
            storage.abandon_checkpoint()
            node.end_checkpoint(index, durable=False)
            self._keyspace_held = False
            return
        yield self._pause()
        node.end_checkpoint(index, durable=True)
        self._process.simulation.watch.compacted(self._process, node)
        self._world.note(self._process.name, "checkpoint", f"of {index}")
        self._keyspace_held = False
        yield self._pause()
        while storage.cut_log(SHARD, index, CUT_ENTRIES):
            yield self._pause()

    # Snapshots

    def look(self, node: Node) -> None:
        """At the end of a turn: begins to move what is to be moved."""
        if not self._moving and node.snapshots.moving:
            self._moving = True
            self._process.run(self._move(node))
        elif self.storing and self._world.now_us - self._last_piece_us > ABANDONED_US and not self._moving:
            node.snapshots.abandon()
            self._stop_storing()

    def _move(self, node: Node) -> Steps:
        yield from self._store(node)
        yield from self._send(node)
        self._moving = False

    def _store(self, node: Node) -> Steps:
        storage = self._process.disk.storage
        while (due := node.snapshots.next_to_store()) is not None:
            piece, ledger = due
            if not self.storing:
                while self._keyspace_held:
                    yield MS
                self._keyspace_held = self.storing = True
            self._last_piece_us = self._world.now_us
            self._may_fail("write_rows", "finish_checkpoint")
            yield self._pause()
            try:
                store(storage, SHARD, piece, ledger)
            except StorageError:
                node.chunk_stored(piece, stored=False)
                self._stop_storing()
                return
            yield self._pause()
            node.chunk_stored(piece, stored=True)
            if piece.last:
                self._world.note(self._process.name, "installed", f"the snapshot of {piece.index}")
                self._process.simulation.snapshots += 1
                self._process.simulation.watch.installed(self._process, node)
                self._stop_storing()
            self._process.wake(self._world.now_us)

    def _stop_storing(self) -> None:
        if self.storing:
            self._process.disk.storage.fail_next.clear()
            self.storing = self._keyspace_held = False
            self._process.disk.storage.abandon_checkpoint()

    def _send(self, node: Node) -> Steps:
        if not node.snapshots.moving:
            self._readings.clear()
        for peer, index, position in node.snapshots.due():
            yield self._pause()
            piece = self._read(peer, index, position)
            if piece is None:
                self._readings.pop(peer, None)
                node.snapshots.begin_anew(peer)
                continue
            node.snapshots.send(peer, piece)
            self._process.wake(self._world.now_us)

    def _read(self, peer: str, index: int | None, position: int) -> Chunk | None:
        if index is None:
            snapshot = self._process.disk.storage.snapshot(SHARD)
            if snapshot is None:
                return None
            self._readings[peer] = Reading(snapshot, rows_max=ROWS)
        reading = self._readings.get(peer)
        if reading is None or reading.index != (index or reading.index):
            return None
        return reading.piece(position)
