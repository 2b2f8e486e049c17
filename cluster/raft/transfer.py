"""A snapshot on its way to one follower, piece by piece.

One piece is under way at a time; the answer asks for the next. A piece that
is not answered is sent again, so a broken link costs one piece, not the
whole. A follower that asks for the first piece again (it restarted), or a
leader that is new, begins anew with the checkpoint of that moment.
"""

from __future__ import annotations

from cluster.raft.messages import ChunkTaken
from cluster.raft.patience import extra_ms

RESEND_MS = 1000.0

ABANDONED_MS = 30_000.0
"""A follower that is not heard for so long loses its snapshot: what must follow it is kept in memory."""


class Transfer:
    """``index`` is the snapshot's (None until its first piece was sent), ``position`` the piece the follower needs."""

    __slots__ = ("_patience_ms", "_sent_ms", "index", "position")

    def __init__(self) -> None:
        self.index: int | None = None
        self.position = 0
        self._sent_ms: float | None = None
        self._patience_ms = RESEND_MS

    def due(self, now_ms: float) -> bool:
        """Whether the piece should be sent now."""
        return self._sent_ms is None or now_ms - self._sent_ms > self._patience_ms

    def sent(self, index: int, size_bytes: int, now_ms: float) -> None:
        """The piece was sent; it is one of the snapshot that ends with ``index``."""
        self.index = index
        self._sent_ms = now_ms
        self._patience_ms = RESEND_MS + extra_ms(size_bytes)

    def still_sending(self, now_ms: float) -> None:
        """What was sent is still on its way out of this node."""
        if self._sent_ms is not None:
            self._sent_ms = now_ms

    def taken(self, message: ChunkTaken, now_ms: float) -> None:
        """The follower says what it needs next."""
        if message.index != self.index or message.position == self.position:
            return
        self.position = message.position
        if not message.position:
            self.index = None
        self._sent_ms = None
