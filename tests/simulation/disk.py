"""One node's disk: the production's in-memory storage, made slow, full and forgetful.

Commits reach the storage when they are begun and are made durable when they
are done, so a crash between the two loses them or not, as it likes.
"""

from __future__ import annotations

from bisect import bisect_left

from cluster.machine.reply import CommandError
from cluster.node import Node, Work
from cluster.storage import MemoryStorage, StorageError, SyncPolicy
from cluster.storage.contract import HardState
from cluster.storage.memory import entry_index
from tests.simulation.world import World

PROBE_US = 200_000
"""How often a disk that takes nothing is tried again."""


class Disk:
    """``id`` is the data folder's.

    Commits take ``least_us`` and up to ``slow_us`` more; none works until ``full_until_us``.
    """

    def __init__(self, world: World, id: str) -> None:
        self.id = id
        self.storage = MemoryStorage(SyncPolicy.NO, votes_wait=True)
        self.least_us = 0
        self.slow_us = 0
        self.full_until_us = 0
        self.fails_uncertainly = False
        self.work: Work | None = None
        self.done_us = 0
        self._begun_us = 0
        self.refusal: CommandError | None = None
        self._world = world
        self._fails = False

    @property
    def free(self) -> bool:
        """Whether a commit may begin."""
        return self.work is None and self.refusal is None

    def begin(self, work: Work) -> None:
        """A commit begins; it is done at ``done_us``."""
        world = self._world
        self.work = work
        self._begun_us = world.now_us
        self.done_us = world.now_us + self.least_us + (world.between_us(0, self.slow_us) if self.slow_us else 0)
        self._fails = world.now_us < self.full_until_us or self.fails_uncertainly
        world.note(self.id, "begins", work)
        if not self._fails:
            self.storage.append(work.entries, work.hard_states)

    def finish(self, node: Node) -> None:
        """The commit is done, one way or the other: the node is told."""
        work, self.work = self.work, None
        assert work is not None
        if not self._fails:
            self.storage.sync()
            if self.done_us > self._begun_us:
                self._world.note(self.id, "has", work)
            node.persisted(work)
            return
        definite = not self.fails_uncertainly
        self._world.note(self.id, "fails", "certainly" if definite else "perhaps")
        self.fails_uncertainly = False
        self.storage.uncertain_survives = self._world.happens(0.5)
        self.storage.fail_next["append"] = StorageError("no space left", definite=definite)
        try:
            self.storage.append(work.entries, work.hard_states)
        except StorageError as error:
            self.refuse(error, node)

    def refuse(self, error: StorageError, node: Node) -> None:
        """Writes are refused until `mend`."""
        self.refusal = CommandError(f"Errors writing to the log: {error.message}", "MISCONF")
        uncertain = CommandError(f"the log may or may not have taken it: {error.message}", "UNCERTAIN")
        node.refused(self.refusal if error.definite else uncertain, definite=error.definite)
        node.refuse_open(self.refusal)

    def mend(self, node: Node) -> bool:
        """Tries whether the disk takes writes again."""
        if self._world.now_us < self.full_until_us:
            return False
        self.storage.reopen()
        self.refusal = None
        node.mended()
        return True

    def crash(self) -> None:
        """The power goes: of the commit under way all or nothing is there afterwards."""
        self.storage = self.storage.crash(surviving=self._world.chance.randrange(3))
        self.work = None
        self.refusal = None
        self.fails_uncertainly = False

    # What is durable, for the checkers

    def holds(self, shard: int, index: int, term: int) -> bool:
        """Whether this entry would be there after a crash, in the log or in the checkpoint."""
        checkpoint = self.storage._checkpoints.get(shard)
        if checkpoint is not None and index <= checkpoint.index:
            return True
        entries = self.storage._disk.entries.get(shard, ())
        place = bisect_left(entries, index, key=entry_index)
        return place < len(entries) and entries[place].index == index and entries[place].term == term

    def last(self, shard: int) -> tuple[int, int]:
        """The term and index of the last entry a crash would leave, (0, 0) for none."""
        entries = self.storage._disk.entries.get(shard)
        if entries:
            return entries[-1].term, entries[-1].index
        checkpoint = self.storage._checkpoints.get(shard)
        return (checkpoint.term, checkpoint.index) if checkpoint is not None else (0, 0)

    def empty_of(self, shard: int) -> bool:
        """Whether nothing of that shard's data would be there."""
        checkpoint = self.storage._checkpoints.get(shard)
        return not self.storage._disk.entries.get(shard) and (checkpoint is None or not checkpoint.rows)

    def hard_state(self, shard: int) -> HardState:
        """The term and the vote a crash would leave."""
        return self.storage._disk.hard_states.get(shard, HardState())
