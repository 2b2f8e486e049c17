"""What this node's clients asked and have no answer to yet, in the order it must be answered.

A batch of writes is answered when its part is carried out, here or by whoever
tells the outcome. One without writes is answered when the leader has said from
which index on it may be, and that is carried out, or right before a later batch
of writes, which was logged after it was asked. Nothing is answered before what was asked earlier, so replies keep
their order on every connection whatever way each batch took.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from cluster.batch import Batch
from cluster.machine.reply import CommandError


class Outstanding:
    """The closed batches of one node, oldest first."""

    __slots__ = ("_batches", "_number", "_term")

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()
        self._number = 0
        self._term = 0  # in which all that has to be sent before anything new was sent

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

    def find(self, number: int) -> Batch | None:
        """The batch of that number, if it is still waited for."""
        batches = self._batches
        if not batches or batches[0].number > number:
            return None
        if batches[0].number == number:
            return batches[0]
        return next((batch for batch in batches if batch.number == number), None)

    def take_to(self, number: int) -> list[Batch]:
        """Takes out the batch of that number and all before it, if nothing before it has to be waited for.

        Empty if it is not there, or there is such a thing: an earlier batch of
        writes whose outcome somebody else will tell.
        """
        batches = self._batches
        if not batches or batches[0].number > number:
            return []
        if batches[0].number == number:
            return [batches.popleft()]
        for batch in batches:
            if batch.number == number:
                break
            if batch.number > number or (batch.writes and batch.lost is None and batch.answers is None):
                return []
        else:
            return []
        found = []
        while batches and batches[0].number <= number:
            found.append(batches.popleft())
        return found

    def take_answerable(self, applied: int) -> Iterator[Batch]:
        """Takes out those at the front that are answered, or lost, or are reads that may be served at ``applied``."""
        batches = self._batches
        while batches:
            first = batches[0]
            unread = first.writes or first.read_index is None or first.read_index > applied
            if unread and first.lost is None and first.answers is None:
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

    def never_before(self, term: int, *, after: int) -> None:
        """An entry of ``term`` is carried out: what was sent in an earlier term and is still here never happened.

        It is to be sent again. Except for what was sent by term ``after``: what
        came of that, this replica did not see.
        """
        for batch in self._batches:
            if after < batch.term < term and _unresolved(batch):
                batch.unsend()

    def to_send(self, term: int) -> list[Batch] | None:
        """What has to be sent (again) in ``term`` before anything new; None while that is not known.

        As long as nobody knows what became of a batch that was sent in an
        earlier term, one behind it must not overtake it.
        """
        if term == self._term:
            return []
        if self.sent_before(term):
            return None
        self._term = term
        return [batch for batch in self._batches if not batch.term and _unresolved(batch)]

    def lose(self, writes: CommandError, reads: CommandError, *, before_ms: float = float("inf")) -> list[Batch]:
        """Gives up what was asked before that time; what that is. ``writes`` is for what was sent: who knows."""
        found = [one for one in self._batches if one.lost is None and one.answers is None and one.since_ms < before_ms]
        for batch in found:
            batch.lost = writes if batch.writes and batch.term else reads
        return found

    def unconfirmed(self) -> int:
        """The number of the last batch of reads the leader has not answered for; 0 for none."""
        return next((one.number for one in reversed(self._batches) if _unread(one)), 0)

    def unread(self) -> list[Batch]:
        """The batches of reads that are not answered."""
        return [one for one in self._batches if not one.writes and one.lost is None and one.answers is None]

    @property
    def writing(self) -> bool:
        """Whether the outcome of a batch that goes through the log is waited for."""
        return any(map(_unresolved, self._batches))

    def sent_in(self, term: int) -> list[Batch]:
        """The batches of writes that were sent in ``term`` and are not known to have arrived."""
        return [batch for batch in self._batches if batch.term == term and _unresolved(batch)]

    def sent_before(self, term: int) -> list[Batch]:
        """The batches of writes that were sent in an earlier term and whose outcome is not known."""
        return [batch for batch in self._batches if 0 < batch.term < term and _unresolved(batch)]


def _unresolved(batch: Batch) -> bool:
    """Whether it may or may not have been carried out, as far as is known here."""
    return batch.writes and batch.lost is None and batch.answers is None


def _unread(batch: Batch) -> bool:
    """Whether it only reads, and the leader has not said when it may."""
    return not batch.writes and batch.lost is None and batch.answers is None and batch.read_index is None
