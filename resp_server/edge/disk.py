"""The node's work on its disk: commits, checkpoints, and getting over a disk that is full.

One commit is under way at a time. What comes in meanwhile gathers in the
node's open batch, so a slow disk makes larger entries, not a longer queue. On
a quick disk commits run on the loop, which is less than a thread's wake-ups
cost (docs/decisions/0004); on a slow one, and where much is written at once, they
run on the writer, a thread of its own, while the loop goes on reading requests and sending replies.
Checkpoints are written by worker threads from rows the loop hands them, a
slice at a time and one shard after the other. Snapshots for other nodes are in
snapshots.py.
"""

from __future__ import annotations

import socket
from queue import Empty, SimpleQueue
from time import perf_counter_ns

import trio

from cluster.machine.reply import CommandError
from cluster.node import Node, Work
from cluster.storage import Storage, StorageError, SyncPolicy
from resp_server.edge import spare_memory
from resp_server.logs import LOGGER
from resp_server.server import Server

SLICE_ROWS = 128
CUT_ENTRIES = 256
PROBE_S = 1.0
LOOK_S = 0.5
RETRY_CHECKPOINT_S = 10.0

QUICK_NS = 1_000_000
"""Commits that take less than this, lately, run on the loop."""

LARGE_BYTES = 1024 * 1024
"""A commit of so much runs on the writer in any case: no heartbeat is to wait for it."""


class Disk:
    """Carries out what the node asks of its storage.

    ``bell`` is readable when another thread or task has something for the
    reactor's next turn. ``keyspace`` is held while a checkpoint or a snapshot
    that comes in is being written: there is one at a time.
    """

    def __init__(self, server: Server, storage: Storage) -> None:
        self._server = server
        self._node: Node = server.node
        self._storage = storage
        self._wanted = trio.Event()
        self.refused = trio.Event()
        self.under_way = False
        self.keyspace = trio.Lock()
        self._commit_ns = 0  # how long commits take, lately
        self._works: SimpleQueue[Work | None] = SimpleQueue()
        self._outcomes: SimpleQueue[tuple[Work, StorageError | None]] = SimpleQueue()
        self.bell, self._bell_rope = socket.socketpair()
        self.bell.setblocking(False)
        self._bell_rope.setblocking(False)

    def commit(self, work: Work, *, here: bool = False) -> bool:
        """Makes a turn's work durable and tells the node; whether that is done.

        False when the writer is at it: then `collect` sees to it once ``bell``
        is readable. ``here`` forbids that.
        """
        if here or (self._commit_ns < QUICK_NS and sum(len(entry.payload) for entry in work.entries) < LARGE_BYTES):
            self._tell(work, self._append(work))
            return True
        self.under_way = True
        self._works.put(work)
        return False

    def collect(self) -> None:
        """The bell rang: tells the node of a commit the writer has finished, if it has."""
        self.bell.recv(4096)
        try:
            outcome = self._outcomes.get_nowait()
        except Empty:
            return
        self.under_way = False
        self._tell(*outcome)

    def ring(self) -> None:
        """Makes the reactor take a turn."""
        try:
            self._bell_rope.send(b"!")
        except BlockingIOError:
            return  # it rings already

    async def write(self) -> None:
        """Runs the writer until `close`."""
        await trio.to_thread.run_sync(self._write)

    def close(self) -> None:
        """Ends the writer, when no commit is under way."""
        self._works.put(None)
        self.bell.close()
        self._bell_rope.close()

    def _write(self) -> None:
        while (work := self._works.get()) is not None:
            self._outcomes.put((work, self._append(work)))
            self.ring()

    def _append(self, work: Work) -> StorageError | None:
        started_ns = perf_counter_ns()
        try:
            self._storage.append(work.entries, work.hard_states)
        except StorageError as error:
            return error
        self._commit_ns += (perf_counter_ns() - started_ns - self._commit_ns) // 8
        return None

    def _tell(self, work: Work, error: StorageError | None) -> None:
        if error is not None:
            self._server.stats.commit_failures += 1
            self._refuse(error)
            return
        self._server.stats.commits += 1
        self._node.persisted(work)

    def _refuse(self, error: StorageError) -> None:
        LOGGER.error("the log cannot be written: writes are refused until it can", {"reason": error.message})
        refusal = CommandError(f"Errors writing to the log: {error.message}", "MISCONF")
        uncertain = CommandError(f"the log may or may not have taken it: {error.message}", "UNCERTAIN")
        self._server.refuse_writes(refusal)
        self.refused.set()
        self._node.refused(refusal if error.definite else uncertain, definite=error.definite)
        self._node.refuse_open(refusal)

    async def mend(self) -> None:
        """Waits until the disk is refused and then until it takes writes again."""
        await self.refused.wait()
        while True:
            await trio.sleep(PROBE_S)
            if self.under_way or not self._storage.intact():
                continue  # a new log in its place would begin in the middle
            try:
                await trio.to_thread.run_sync(self._storage.reopen)
                break
            except StorageError as error:
                LOGGER.debug("the log still cannot be written", {"reason": error.message})
        self.refused = trio.Event()
        self._node.mended()
        self._server.refuse_writes(None)
        self.ring()
        LOGGER.warning("the log can be written again")

    async def look_every_second(self) -> None:
        """Refuses writes once the folder was deleted; for ``appendfsync everysec`` syncs what was appended."""
        while True:
            await trio.sleep(1)
            if self._server.refusal is None and not self._storage.intact():
                LOGGER.error("the data folder was deleted: writes are refused, what is in memory can still be read")
                reason = "the data folder was deleted: save what you need, then start the server afresh"
                self._server.refuse_writes(CommandError(reason, "MISCONF"))
                self._node.stand_aside()
                self.refused.set()
            if self._server.settings.appendfsync is SyncPolicy.EVERYSEC:
                try:
                    await trio.to_thread.run_sync(self._storage.sync)
                except StorageError as error:
                    LOGGER.error("the log cannot be synced", {"reason": error.message})

    # Checkpoints

    def want_checkpoint(self) -> bool:
        """Asks for a checkpoint; whether none was under way."""
        if self._server.saving.under_way:
            return False
        self._server.saving.begin()
        self._wanted.set()
        return True

    async def checkpoint_when_wanted(self) -> None:
        """Writes checkpoints whenever they are asked for or the log has grown enough."""
        while True:
            with trio.move_on_after(LOOK_S):
                await self._wanted.wait()
            if self._wanted.is_set():
                self._wanted = trio.Event()
                done = await self.checkpoint()
            else:
                done = await self._relieve_log()
            if not done:
                await trio.sleep(RETRY_CHECKPOINT_S)

    async def checkpoint(self) -> bool:
        """Writes a checkpoint of every shard that changed, and cuts the log behind it; whether all are in force."""
        return await self._save([shard.number for shard in self._node.each() if shard.bytes_since_checkpoint])

    async def _relieve_log(self) -> bool:
        """Writes checkpoints, where most is to be written first, until the log is as short as it should be."""
        node, settings = self._node, self._server.settings
        while node.bytes_since_checkpoint >= settings.checkpoint_log_bytes and not self._server.refusal:
            shard = node.next_checkpoint()
            if shard is None:
                break
            if not await self._save([shard]):
                return False
        return True

    async def _save(self, shards: list[int]) -> bool:
        saving = self._server.saving
        saving.begin()
        done = False
        try:
            for shard in shards:
                async with self.keyspace:
                    if not await self._checkpoint(shard):
                        return False
            await trio.to_thread.run_sync(spare_memory.give_back)
            done = True
        finally:
            saving.end(ok=done)
        about = {"shard": shards[0]} if len(shards) == 1 else {"shards": len(shards)}
        LOGGER.info("checkpoint written", {**about, "seconds": round(saving.last_duration_s, 3)})
        return True

    async def _checkpoint(self, shard: int) -> bool:
        node, storage = self._node, self._storage
        changed, index, term, ledger = node.begin_checkpoint(shard)
        durable = False
        try:
            await trio.to_thread.run_sync(
                lambda: storage.begin_checkpoint(shard, cleared=changed.cleared, erased=changed.erased)
            )
            while rows := changed.slice(SLICE_ROWS):
                await trio.to_thread.run_sync(storage.write_rows, shard, rows)
            await trio.to_thread.run_sync(storage.finish_checkpoint, shard, index, term, ledger)
            durable = True
        except StorageError as error:
            about = {"shard": shard, "reason": error.message}
            LOGGER.error("the checkpoint failed; the one before stays in force", about)
        finally:
            if not durable:
                storage.abandon_checkpoint()
            node.end_checkpoint(shard, index, durable=durable)
        if durable:
            await self._cut_log(shard, index)
        return durable

    async def _cut_log(self, shard: int, index: int) -> None:
        try:
            while await trio.to_thread.run_sync(self._storage.cut_log, shard, index, CUT_ENTRIES):
                pass
        except StorageError as error:
            LOGGER.error("the log behind the checkpoint could not be cut", {"shard": shard, "reason": error.message})
