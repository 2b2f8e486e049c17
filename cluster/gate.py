"""What a leader keeps back because caches hold it, until they have given it up (`cluster.cache.directory`).

Commands for the next entry, and reads: of this node, which have a number
among its batches, and of others, who asked. Nothing a node sent overtakes what
it sent before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from cluster import batch as batches
from cluster.batch import Batch, Part
from cluster.cache.directory import Directory
from cluster.raft.messages import AskRead, Forward, Look


class Kept(NamedTuple):
    """An entry to be: its parts, and this node's own batch among them."""

    parts: list[Part]
    batch: Batch | None


class KeptReads(NamedTuple):
    """Reads of ``author`` up to ``number``, and what they are. ``due``: what is due comes first."""

    author: bytes
    number: int
    args: Sequence[Sequence[Any]]
    due: bool


class Gate:
    """Of one shard, in one term of office; ``directory`` None while no cache holds anything of it."""

    def __init__(self) -> None:
        self.directory: Directory | None = None
        self.entry: Kept | None = None
        self.reads: list[KeptReads] = []
        self.forwards: list[tuple[str, Forward]] = []
        self.early: list[tuple[str, AskRead | Look]] = []  # came before it was known who has caches

    @property
    def is_shut(self) -> bool:
        """Whether no entry may be made of what clients ask."""
        directory = self.directory
        if directory is None:
            return False
        return directory.counting or (self.entry is not None and directory.blocked)

    def admits(self, kept: Kept, index: int) -> bool:
        """Whether this may be entry ``index``; else it is kept back, and what is in its way is recalled."""
        directory = self.directory
        if directory is None or not directory.minds_writes:
            return True
        for place, (_, _, body) in enumerate(kept.parts, 1 - len(kept.parts)):
            own = kept.batch if place == 0 else None  # it is the last
            for args in batches.writes_in(body)[0] if own is None else own.logged:  # the reads, too
                directory.touch(args, index)
        if not directory.blocked:
            return True
        self.entry = kept
        directory.holding = True
        return False

    def take_entry(self, index: int) -> Kept | None:
        """What was kept back and may be entry ``index`` now."""
        directory, kept = self.directory, self.entry
        if kept is None or directory is None or directory.blocked:
            return None
        self.entry = None
        return kept if self.admits(kept, index) else None

    def holds_reads_of(self, author: bytes) -> bool:
        """Whether reads are kept back that this node sent in this run."""
        return any(one.author == author for one in self.reads)

    @property
    def minds_reads(self) -> bool:
        """Whether reads must say what they read."""
        return self.directory is not None and self.directory.minds_reads

    def is_free(self, args: Sequence[Sequence[Any]]) -> bool:
        """Whether no cache owns what these would read; else it is recalled."""
        return self.directory is None or self.directory.look(args)

    def admits_reads(self, reads: KeptReads) -> bool:
        """Whether they may be carried out now; else they are kept back.

        Those that a node asks for again take the place of what is kept back of it.
        """
        directory = self.directory
        former = [one for one in self.reads if one.author == reads.author]
        if directory is None or not (directory.minds_reads or former):
            return True
        if any(one.number > reads.number for one in former):
            return False
        others = [one for one in self.reads if one.author != reads.author]
        if directory.look(reads.args) and all(directory.look(one.args) for one in former):
            self.reads = others
            return True
        earlier = [one for one in former if one.number < reads.number]
        self.reads = [*others, *earlier, reads]
        directory.holding = True
        return False

    def take_reads(self) -> list[KeptReads]:
        """Those that may be carried out now, in the order they came."""
        directory = self.directory
        if directory is None or not self.reads:
            return []
        found: list[KeptReads] = []
        waiting: list[KeptReads] = []
        for one in self.reads:
            behind = any(other.author == one.author for other in waiting)
            if directory.look(one.args) and not behind:
                found.append(one)
            else:
                waiting.append(one)
        self.reads = waiting
        return found

    def take_forwards(self) -> list[tuple[str, Forward]]:
        """The batches of those whose reads are not kept back any more."""
        found = [one for one in self.forwards if not self.holds_reads_of(one[1].author)]
        self.forwards = [one for one in self.forwards if self.holds_reads_of(one[1].author)]
        return found

    def take_early(self) -> list[tuple[str, AskRead | Look]]:
        """What came before there was a directory."""
        early, self.early = self.early, []
        return early

    def let_go(self, index: int) -> None:
        """What could go has gone, up to entry ``index``: caches are granted lines again, if nothing is left."""
        if self.directory is not None and self.entry is None and not self.reads:
            self.directory.logged(index)
