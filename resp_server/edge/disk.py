"""The node's work on its disk: commits, checkpoints, and getting over a disk that is full.

One commit is under way at a time. What comes in meanwhile gathers in the
node's open entry, so a slow disk makes larger entries, not a longer queue. On
a quick disk commits run on the loop, which is less than a thread's wake-ups
cost (docs/decisions/0004); on a slow one they run on the writer, a thread of
its own, while the loop goes on reading requests and sending replies.
Checkpoints are written by worker threads from rows the loop hands them, a
slice at a time.
"""

from __future__ import annotations

import socket
from queue import SimpleQueue
from time import perf_counter_ns

import trio

from cluster.machine.reply import CommandError
from cluster.node import Answers, Node, Work
from cluster.storage import Storage, StorageError, SyncPolicy
from resp_server.logs import LOGGER
from resp_server.server import Server

SLICE_ROWS = 128
CUT_ENTRIES = 256
PROBE_S = 1.0
ENTRY_BYTES_MAX = 999_000_000
"""A row of SQLite holds a thousand million bytes, the entry's head and columns included."""

RETRY_CHECKPOINT_S = 10.0

QUICK_NS = 1_000_000
"""Commits that take less than this, lately, run on the loop."""


class Disk:
    """Carries out what the node asks of its storage."""

    def __init__(self, server: Server, storage: Storage) -> None:
        self._server = server
        self._node: Node = server.node
        self._storage = storage
        self._uncertain = False
        self._wanted = trio.Event()
        self.refused = trio.Event()
        self.under_way = False
        self._commit_ns = 0  # how long commits take, lately
        self._works: SimpleQueue[Work | None] = SimpleQueue()
        self._outcomes: SimpleQueue[tuple[Work, StorageError | None]] = SimpleQueue()
        self.bell, self._bell_rope = socket.socketpair()  # readable when the writer has finished a commit
        self.bell.setblocking(False)

    def commit(self, work: Work, *, here: bool = False) -> Answers | None:
        """Makes a turn's entries durable; the answers, which are errors when the disk did not take them.

        None when the writer is at it: then `collect` has the answers once
        ``bell`` is readable. ``here`` forbids that.
        """
        if any(len(entry.payload) > ENTRY_BYTES_MAX for entry in work.entries):
            return self._node.refused(CommandError("more than the log takes at once: send less in one transaction"))
        if here or self._commit_ns < QUICK_NS:
            return self._answers(work, self._append(work))
        self.under_way = True
        self._works.put(work)
        return None

    def collect(self) -> Answers:
        """The answers of the commit the writer has finished."""
        self.bell.recv(1)
        self.under_way = False
        return self._answers(*self._outcomes.get())

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
            self._bell_rope.send(b"!")

    def _append(self, work: Work) -> StorageError | None:
        started_ns = perf_counter_ns()
        try:
            self._storage.append(work.entries)
        except StorageError as error:
            return error
        self._commit_ns += (perf_counter_ns() - started_ns - self._commit_ns) // 8
        return None

    def _answers(self, work: Work, error: StorageError | None) -> Answers:
        if error is not None:
            self._server.stats.commit_failures += 1
            return self._refuse(error)
        self._server.stats.commits += 1
        return self._node.persisted(work.entries[-1].index)

    def _refuse(self, error: StorageError) -> Answers:
        LOGGER.error("the log cannot be written: writes are refused until it can", {"reason": error.message})
        refusal = CommandError(f"Errors writing to the log: {error.message}", "MISCONF")
        uncertain = CommandError(f"the log may or may not have taken it: {error.message}", "UNCERTAIN")
        self._uncertain = self._uncertain or not error.definite
        self._server.refuse_writes(refusal)
        self.refused.set()
        failed = self._node.refused(refusal if error.definite else uncertain)
        gathered = self._node.refused(refusal) if self._node.ready() is not None else Answers([], [])
        return Answers([*failed.replies, *gathered.replies], [])

    async def mend(self) -> Answers:
        """Waits until the disk is refused and then until it takes writes again; whom that wakes."""
        await self.refused.wait()
        while True:
            await trio.sleep(PROBE_S)
            if not self._storage.intact():
                continue  # a new log in its place would begin in the middle
            try:
                await trio.to_thread.run_sync(self._storage.reopen)
                break
            except StorageError as error:
                LOGGER.debug("the log still cannot be written", {"reason": error.message})
        answers = Answers([], [])
        if self._uncertain:
            answers = self._node.adopt(self._storage.entries(self._node.shard, self._node.last_index + 1))
            self._end_waits_of_nobody()
            self._uncertain = False
        self.refused = trio.Event()
        self._server.refuse_writes(None)
        LOGGER.warning("the log can be written again")
        return answers

    def _end_waits_of_nobody(self) -> None:
        """A client that was told ``-UNCERTAIN`` does not wait, whatever the adopted entry says."""
        for waiter in self._node.machine.waiters.everyone():
            session = self._server.session_of(waiter.origin)
            if session is None or not session.waiting:
                self._node.unblock(None, waiter.origin, b"TIMEOUT")

    async def look_every_second(self) -> None:
        """Refuses writes once the folder was deleted; for ``appendfsync everysec`` syncs what was appended."""
        while True:
            await trio.sleep(1)
            if self._server.refusal is None and not self._storage.intact():
                LOGGER.error("the data folder was deleted: writes are refused, what is in memory can still be read")
                reason = "the data folder was deleted: save what you need, then start the server afresh"
                self._server.refuse_writes(CommandError(reason, "MISCONF"))
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
        """Writes a checkpoint whenever one is asked for or the log has grown enough."""
        while True:
            with trio.move_on_after(0.5):
                await self._wanted.wait()
            if self._wanted.is_set() or (
                self._node.bytes_since_checkpoint >= self._server.settings.checkpoint_log_bytes
                and not self._server.refusal
            ):
                self._wanted = trio.Event()
                if not await self.checkpoint():
                    await trio.sleep(RETRY_CHECKPOINT_S)

    async def checkpoint(self) -> bool:
        """Writes one checkpoint and cuts the log behind it; whether it is in force."""
        node, storage, saving = self._node, self._storage, self._server.saving
        changed, index, term, ledger = node.begin_checkpoint()
        saving.begin()
        try:
            await trio.to_thread.run_sync(
                lambda: storage.begin_checkpoint(node.shard, cleared=changed.cleared, erased=changed.erased)
            )
            while rows := changed.slice(SLICE_ROWS):
                await trio.to_thread.run_sync(storage.write_rows, node.shard, rows)
            await trio.to_thread.run_sync(storage.finish_checkpoint, node.shard, index, term, ledger)
        except StorageError as error:
            LOGGER.error("the checkpoint failed; the one before stays in force", {"reason": error.message})
            self._abandon_checkpoint(index)
            return False
        except trio.Cancelled:
            self._abandon_checkpoint(index)
            raise
        node.end_checkpoint(index, durable=True)
        saving.end(ok=True)
        LOGGER.info("checkpoint written", {"index": index, "seconds": round(saving.last_duration_s, 3)})
        try:
            while await trio.to_thread.run_sync(storage.cut_log, node.shard, index, CUT_ENTRIES):
                pass
        except StorageError as error:
            LOGGER.error("the log behind the checkpoint could not be cut", {"reason": error.message})
        return True

    def _abandon_checkpoint(self, index: int) -> None:
        self._storage.abandon_checkpoint()
        self._node.end_checkpoint(index, durable=False)
        self._server.saving.end(ok=False)
