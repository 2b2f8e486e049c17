"""How the writes of a node that does not lead come into the leader's log, each once.

Batches of one author are chained: each names the one that has to be in before
it, and the leader takes only one that is later than all it has, so a batch that
came twice, or before one that was lost on the way, is left out. The author
repeats what it does not see carried out; what it gave up is no link of the
chain any more, and is left out when it comes after all. A batch is only taken
in the term it was sent in: once an entry of a later term is carried out, one
that is not there never will be.
"""

from __future__ import annotations

import msgspec

from cluster.batch import Batch, Part
from cluster.raft.messages import Forward
from cluster.raft.patience import extra_ms


class Forwarding:
    """Both ends: what this node sent as an author, and what it took as the leader."""

    __slots__ = ("_accepted", "_author", "_sent", "parts")

    def __init__(self, author: bytes) -> None:
        self.parts: list[Part] = []
        """What was taken and is to go into the next entry."""
        self._author = author
        self._sent: Batch | None = None  # the last one
        self._accepted: dict[bytes, int] = {}  # the last batch taken of each author, in this term

    def send(self, batch: Batch, *, wanted: bool) -> Forward:
        """A batch for the first time in its term."""
        last, self._sent = self._sent, batch
        if last is None or last is batch or last.term != batch.term or last.lost is not None:
            return self._message(batch, 0, wanted)  # whatever came before was answered, or given up, or not sent yet
        return self._message(batch, last.number, wanted)

    def repeat(self, sent: list[Batch], now_ms: float, patience_ms: float, *, wanted: bool) -> list[Forward]:
        """Those that have waited long enough to be sent again, and all behind them: the leader refused those, too.

        ``sent`` is all that is waited for in one term. A large one takes its time, and so does what is sent behind it.
        """
        messages: list[Forward] = []
        previous = size_bytes = 0
        for batch in sent:
            size_bytes += len(batch.body)
            if messages or now_ms - batch.sent_ms >= patience_ms + extra_ms(size_bytes):
                batch.sent_ms = now_ms
                messages.append(self._message(batch, previous, wanted))
            previous = batch.number
        return messages

    def _message(self, batch: Batch, previous: int, wanted: bool) -> Forward:
        return Forward(batch.term, self._author, previous, batch.number, batch.body, wanted)

    def begin_to_lead(self) -> None:
        """A new term of this node: nothing was taken in it yet."""
        self.parts.clear()
        self._accepted.clear()

    def take(self, message: Forward) -> None:
        """Another node's batch came, and this node leads in its term."""
        if message.previous <= self._accepted.get(message.author, 0) < message.number:
            self._accepted[message.author] = message.number
            self.parts.append((message.author, message.number, msgspec.Raw(message.body)))
