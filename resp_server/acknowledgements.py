"""WAIT: clients that want their writes on so many other nodes before they go on.

The command stands alone on its connection, so when it is carried out all
earlier writes of the client are applied; another node has them when its log is
known to be durable up to there. Of several shards it is about the one that was
written to last. A client that waits is owed a reply like one whose write is
under way, and nothing behind WAIT is carried out before it.

A node that has no replica of the shard knows that a majority has the write,
since that was answered, and nothing more, whatever it waits for.
"""

from __future__ import annotations

from typing import NamedTuple

from cluster.machine.reply import CommandError, Reply
from cluster.node import Answers, Node
from cluster.shard import Shard
from cluster.status import ring_of
from resp_server.session import Session


class _Wait(NamedTuple):
    shard: Shard
    up_to: int  # the log's index
    wanted: int
    until_ms: float | None  # None: for ever
    error: CommandError | None = None  # what it ends with, when it was ended by an operator


class Acknowledgements:
    """The clients of one node that wait for other nodes.

    Whoever turns the node calls `look` at the end of each turn while ``waiting``
    says so, and delivers what it gives.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._waits: dict[Session, _Wait] = {}

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waits)

    def __contains__(self, session: Session) -> bool:
        """Whether this client waits."""
        return session in self._waits

    def begin(self, session: Session, wanted: int, timeout_ms: int) -> int | None:
        """How many nodes have what is applied here, or None: that is answered later, once there are enough.

        Or after ``timeout_ms``, for ever when that is 0. Where there is no other
        node, or the client may not wait, the answer comes at once.
        """
        node, shard = self._node, session.written
        if not shard.here:
            return len(ring_of(node)[shard.number].nodes) // 2 + 1
        index = shard.applied_index
        found = self._count(shard, index)
        if found >= wanted or session.executing or not node.addresses():
            return found
        self._waits[session] = _Wait(shard, index, wanted, node.monotonic_ms + timeout_ms if timeout_ms else None)
        session.pending += 1
        session.held = True
        session.settle()
        return None

    def _count(self, shard: Shard, index: int) -> int:
        """How many other nodes are known to have the shard's log up to ``index`` on their disks."""
        matches = shard.matches()
        return sum(match >= index for node, match in matches.items() if node != self._node.name)

    def unblock(self, session: Session, error: CommandError | None) -> bool:
        """Ends a client's wait at the next `look`, as its timeout would or with ``error``; whether it was waiting."""
        wait = self._waits.get(session)
        if wait is None:
            return False
        self._waits[session] = wait._replace(until_ms=self._node.monotonic_ms, error=error)
        return True

    def look(self) -> Answers:
        """The answers of those who have what they wait for, or waited long enough; clients that left are forgotten."""
        now_ms = self._node.monotonic_ms
        replies: list[tuple[Session, Reply]] = []
        for session, wait in list(self._waits.items()):
            found = self._count(wait.shard, wait.up_to)
            over = wait.until_ms is not None and wait.until_ms <= now_ms
            if session.closed or found >= wait.wanted or over:
                del self._waits[session]
                if not session.closed:
                    replies.append((session, wait.error or found))
        return Answers(replies, [])

    def next_due_ms(self) -> float | None:
        """The monotonic time at which `look` has somebody to answer whatever the others do, None for never."""
        return min((wait.until_ms for wait in self._waits.values() if wait.until_ms is not None), default=None)
