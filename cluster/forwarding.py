"""How the writes of a node that does not lead come into the leader's log, each once.

Batches of one author are chained: each names the one before it in this term,
and the leader takes only the one that follows what it has, so a batch that
came twice, or before one that was lost, is left out. The author repeats what
it does not see carried out. A batch is only taken in the term it was sent in:
once an entry of a later term is carried out, one that is not there never will be.
"""

from __future__ import annotations

import msgspec

from cluster.batch import Batch, Part
from cluster.raft.messages import Forward


class Forwarding:
    """Both ends: what this node sent as an author, and what it took as the leader."""

    __slots__ = ("_accepted", "_author", "_sent", "parts")

    def __init__(self, author: bytes) -> None:
        self.parts: list[Part] = []
        """What was taken and is to go into the next entry."""
        self._author = author
        self._sent = (0, 0)  # the term, and the last batch sent in it
        self._accepted: dict[bytes, int] = {}  # the last batch taken of each author, in this term

    def send(self, batch: Batch) -> Forward:
        """A batch for the first time, in its term."""
        term, previous = self._sent
        self._sent = (batch.term, batch.number)
        batch.previous = previous if term == batch.term else 0
        return self._message(batch)

    def repeat(self, sent: list[Batch], now_ms: float, patience_ms: float) -> list[Forward]:
        """Those of ``sent`` that have waited long enough to be sent again."""
        due = [batch for batch in sent if now_ms - batch.sent_ms >= patience_ms]
        for batch in due:
            batch.sent_ms = now_ms
        return [self._message(batch) for batch in due]

    def _message(self, batch: Batch) -> Forward:
        return Forward(batch.term, self._author, batch.previous, batch.number, batch.body)

    def begin_to_lead(self) -> None:
        """A new term of this node: nothing was taken in it yet."""
        self.parts.clear()
        self._accepted.clear()

    def take(self, message: Forward) -> None:
        """Another node's batch came, and this node leads in its term."""
        if self._accepted.get(message.author, 0) == message.previous:
            self._accepted[message.author] = message.number
            self.parts.append((message.author, message.number, msgspec.Raw(message.body)))
