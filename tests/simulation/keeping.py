"""What a process does beside its turns: checkpoints, snapshots for others and from others, replicas that are given up.

The steps are those of resp_server/edge/disk.py and snapshots.py, each of which
takes a while, so that turns, faults and a crash come between any two.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, TypeAlias

from cluster.raft.messages import Chunk
from cluster.snapshot_files import Reading, give_up, store
from cluster.storage import StorageError
from tests.simulation.world import MS, SECOND

if TYPE_CHECKING:
    from cluster.node import Node
    from cluster.shard import Shard
    from tests.simulation.process import Process

ROWS = 3
CUT_ENTRIES = 5
STEP_US = 3 * MS
ABANDONED_US = 5 * SECOND
"""A snapshot of which nothing more came for so long is given up, so that checkpoints go on."""

IN_THE_WAY_US = 2 * SECOND
"""The same, when others wait to be stored."""

RETRY_US = SECOND
"""How long after a failure replicas that are to be emptied are tried again."""

Steps: TypeAlias = Generator[int, None, None]


class Keeping:
    """One run of one process.

    ``fails`` is how likely a step of a checkpoint or an installation fails on the
    disk, ``step_us`` how long one takes at the most.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world
        self._keyspace_held = False  # by a checkpoint, by a snapshot that comes in, or by a replica that goes
        self._storing: Shard | None = None  # whose snapshot comes in
        self._sending = False
        self._receiving = False
        self._last_piece_us = 0
        self._retry_us = 0
        self._readings: dict[tuple[int, str], Reading] = {}
        self._emptying: dict[int, bytes] = {}
        self.saving = False
        self.fails = 0.0
        self.step_us = STEP_US

    @property
    def storing(self) -> bool:
        """Whether a snapshot comes in."""
        return self._storing is not None

    def _pause(self) -> int:
        return self._world.between_us(0, self.step_us)

    def _may_fail(self, *steps: str) -> None:
        if self.fails and self._world.happens(self.fails):
            step = self._world.chance.choice(steps)
            error = StorageError("no space left", definite=True)
            self._process.disk.storage.fail_next[step] = error  # type: ignore[index]

    # Checkpoints

    def checkpoint(self, *numbers: int) -> None:
        """Begins checkpoints of these shards, of all that changed unless told otherwise; not while others are made."""
        node = self._process.node
        if not self.saving and node is not None and self._process.disk.refusal is None:
            self.saving = True
            changed = [shard.number for shard in node.each() if shard.bytes_since_checkpoint]
            self._process.run(self._save(node, [*numbers] or changed))

    def _save(self, node: Node, numbers: list[int]) -> Steps:
        for number in numbers:
            while self._keyspace_held:
                yield MS
            self._keyspace_held = True
            durable = yield from self._checkpoint(node, number)
            self._keyspace_held = False
            if not durable:
                break
        self.saving = False

    def _checkpoint(self, node: Node, number: int) -> Generator[int, None, bool]:
        storage, watch = self._process.disk.storage, self._process.simulation.watch
        changed, index, term, ledger = node.begin_checkpoint(number)
        watch.pictured(self._process, node, number)
        try:
            self._may_fail("begin_checkpoint", "write_rows", "finish_checkpoint")
            yield self._pause()
            storage.begin_checkpoint(number, cleared=changed.cleared, erased=changed.erased)
            while rows := changed.slice(ROWS):
                yield self._pause()
                storage.write_rows(number, rows)
            yield self._pause()
            storage.finish_checkpoint(number, index, term, ledger)
        except StorageError:
            storage.fail_next.clear()
            storage.abandon_checkpoint()
            node.end_checkpoint(number, index, durable=False)
            return False
        yield self._pause()
        node.end_checkpoint(number, index, durable=True)
        watch.compacted(self._process, node, number)
        self._world.note(self._process.name, "checkpoint", f"of {index} of shard {number}")
        yield self._pause()
        while storage.cut_log(number, index, CUT_ENTRIES):
            yield self._pause()
        return True

    # Snapshots, and replicas that go

    def look(self, node: Node) -> None:
        """At the end of a turn: begins to move what is to be moved."""
        if node.moving:
            if not self._sending:
                self._sending = True
                self._process.run(self._send(node))
            if not self._receiving:
                self._receiving = True
                self._process.run(self._receive(node))
        elif (self._storing is not None or self._emptying) and not self._receiving:
            self._receiving = True
            self._process.run(self._receive(node))

    def _receive(self, node: Node) -> Steps:
        self._stop_storing_in_vain(node)
        yield from self._give_up_replicas(node)
        yield from self._store(node)
        self._receiving = False

    def _store(self, node: Node) -> Steps:
        storage, watch = self._process.disk.storage, self._process.simulation.watch
        while (shard := self._next_to_store(node)) is not None:
            due = shard.snapshots.next_to_store()
            if due is None:
                continue
            if self._storing is None:
                while self._keyspace_held:
                    yield MS
                self._keyspace_held = True
                self._storing = shard
            piece, ledger = due
            self._last_piece_us = self._world.now_us
            self._may_fail("write_rows", "finish_checkpoint", "reset_log")
            yield self._pause()
            try:
                store(storage, shard.number, piece, ledger)
            except StorageError:
                node.chunk_stored(shard.number, piece, stored=False)
                self._stop_storing()
                return
            yield self._pause()
            node.chunk_stored(shard.number, piece, stored=True)
            if piece.last:
                about = f"the snapshot of {piece.index} of shard {shard.number}"
                self._world.note(self._process.name, "installed", about)
                self._process.simulation.snapshots += 1
                watch.installed(self._process, node, shard.number)
                self._stop_storing()
            self._process.wake(self._world.now_us)

    def _next_to_store(self, node: Node) -> Shard | None:
        """The shard of which there is a piece to store; those that have to wait lose theirs."""
        coming = [shard for shard in node.each() if shard.snapshots.coming]
        if self._storing is None:
            return coming[0] if coming else None
        for shard in coming:
            if shard is not self._storing:
                shard.snapshots.put_off()
        return self._storing if self._storing.snapshots.coming else None

    def _stop_storing_in_vain(self, node: Node) -> None:
        """Gives up a snapshot of which nothing comes any more."""
        shard = self._storing
        if shard is None or shard.snapshots.coming:
            return
        others = any(one.snapshots.coming for one in node.each())
        if self._world.now_us - self._last_piece_us >= (IN_THE_WAY_US if others else ABANDONED_US):
            shard.snapshots.abandon()
            self._stop_storing()

    def _stop_storing(self) -> None:
        if self._storing is not None:
            self._process.disk.storage.fail_next.clear()
            self._storing = None
            self._keyspace_held = False
            self._process.disk.storage.abandon_checkpoint()

    def _give_up_replicas(self, node: Node) -> Steps:
        storage, watch = self._process.disk.storage, self._process.simulation.watch
        for number in node.to_drop():
            if number not in self._emptying:
                watch.gives_up(self._process, node, number)
                self._emptying[number] = node.ledger_of_dropped(number)
        if self._storing is not None or self._world.now_us < self._retry_us:
            return
        for number, ledger in list(self._emptying.items()):
            while self._keyspace_held:
                yield MS
            self._keyspace_held = True
            self._may_fail("begin_checkpoint", "finish_checkpoint", "reset_log")
            yield self._pause()
            try:
                watch.empties(self._process, node, number)
                give_up(storage, number, ledger)
            except StorageError:
                storage.fail_next.clear()
                self._keyspace_held = False
                self._retry_us = self._world.now_us + RETRY_US
                return
            yield self._pause()
            del self._emptying[number]
            node.dropped(number)
            self._keyspace_held = False
            self._world.note(self._process.name, "gave up", f"shard {number}")
            watch.given_up(self._process, node, number)
            self._process.wake(self._world.now_us)

    def _send(self, node: Node) -> Steps:
        wanted = {(shard.number, peer) for shard in node.each() for peer in shard.snapshots.receivers()}
        self._readings = {key: reading for key, reading in self._readings.items() if key in wanted}
        dues = [(shard, due) for shard in node.each() for due in shard.snapshots.due()]
        for shard, (peer, index, position) in dues:
            yield self._pause()
            piece = self._read(shard.number, peer, index, position)
            if piece is None:
                self._readings.pop((shard.number, peer), None)
                shard.snapshots.begin_anew(peer)
                continue
            shard.snapshots.send(peer, piece)
            self._process.wake(self._world.now_us)
        self._sending = False

    def _read(self, number: int, peer: str, index: int | None, position: int) -> Chunk | None:
        if index is None:
            snapshot = self._process.disk.storage.snapshot(number)
            if snapshot is None:
                return None
            self._readings[number, peer] = Reading(snapshot, rows_max=ROWS)
        reading = self._readings.get((number, peer))
        if reading is None or reading.index != (index or reading.index):
            return None
        return reading.piece(position)
