"""What this node's clients asked and have no answer to yet, in the order it must be answered.

A batch of writes is answered when its part is carried out. One without writes
is answered when the leader has said from which index on it may be, and that is
carried out, or right before a later batch of writes, which was logged after it
was asked. Nothing is answered before what was asked earlier, so replies keep
their order on every connection whatever way each batch took.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from cluster.batch import Batch
from cluster.machine.reply import CommandError


class Outstanding:
    """The closed batches of one node, oldest first."""

    __slots__ = ("_batches", "_number")

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()
        self._number = 0

    def close(self, batch: Batch, now_ms: float) -> None:
        """Gives the batch its number; it is answered after those before it."""
        self._number += 1
        batch.number = self._number
        batch.since_ms = batch.sent_ms = now_ms
        self._batches.append(batch)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)

    @property
    def oldest(self) -> Batch | None:
        """The one to be answered next."""
        return self._batches[0] if self._batches else None

    def take_to(self, number: int) -> list[Batch]:
        """Takes out the batch of that number, if it is still waited for, and all before it; empty if it is not."""
        batches = self._batches
        if not batches or batches[0].number > number:
            return []
        if batches[0].number == number:
            return [batches.popleft()]
        if all(batch.number != number for batch in batches):
            return []
        found = []
        while batches and batches[0].number <= number:
            found.append(batches.popleft())
        return found

    def take_answerable(self, applied: int) -> Iterator[Batch]:
        """Takes out those at the front that are lost, or are reads that may be served at ``applied``."""
        batches = self._batches
        while batches:
            first = batches[0]
            if first.lost is None and (first.writes or first.read_index is None or first.read_index > applied):
                return
            yield batches.popleft()

    def readable(self, number: int, index: int, now_ms: int) -> None:
        """Reads up to ``number`` may be served from ``index`` on, as of the leader's ``now_ms``."""
        for batch in self._batches:
            if batch.number > number:
                return
            if not batch.writes and batch.read_index is None:
                batch.read_index, batch.read_ms = index, now_ms

    def made_after(self, index: int, term: int) -> list[Batch]:
        """The batches that stand in entries after ``index``, made here in this term."""
        return [one for one in self._batches if one.index > index and one.term == term and one.lost is None]

    def lose_before(self, term: int, error: CommandError) -> None:
        """An entry of ``term`` is carried out: what was sent in an earlier term and is still here never happened."""
        for batch in self._batches:
            if batch.writes and batch.term < term and batch.lost is None:
                batch.lost = error

    def lose_to(self, term: int, error: CommandError) -> list[Batch]:
        """A snapshot that ends in ``term`` replaced the state: what was sent by then may be in it. What is lost."""
        found = [batch for batch in self._batches if batch.writes and batch.term <= term and batch.lost is None]
        for batch in found:
            batch.lost = error
        return found

    def lose(self, writes: CommandError, reads: CommandError, *, before_ms: float = float("inf")) -> bool:
        """Gives up what was asked before that time; whether there was anything."""
        found = False
        for batch in self._batches:
            if batch.lost is None and batch.since_ms < before_ms:
                batch.lost = writes if batch.writes else reads
                found = True
        return found

    def unconfirmed(self) -> int:
        """The number of the last batch of reads the leader has not answered for; 0 for none."""
        waiting = (one for one in reversed(self._batches) if not one.writes and one.lost is None)
        return next((one.number for one in waiting if one.read_index is None), 0)

    def sent_in(self, term: int) -> list[Batch]:
        """The batches of writes that were sent in ``term`` and are not known to have arrived."""
        return [batch for batch in self._batches if batch.writes and batch.term == term and batch.lost is None]
