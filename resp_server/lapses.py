"""Which clients must be closed, because the leaders of shards may end their sessions by now.

A node that is cut off for ``session-timeout`` cannot know whether what its
clients hold is still theirs. It closes them before anybody else may be given
it (`cluster.credit`), so each of them knows as soon as its node does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resp_server.session import Session

if TYPE_CHECKING:
    from resp_server.server import Server

FOREVER_MS = float("inf")


class Lapses:
    """Looks over the clients of one node."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._node = server.node
        self._next_ms = 0.0  # for the sake of those that came to a shard that had lapsed

    @property
    def next_ms(self) -> float:
        """The monotonic time at which `look` may find somebody, infinite while nothing can lapse."""
        return min(self._next_ms, self._node.next_lapse_ms)

    def look(self, now_ms: float) -> list[Session]:
        """Those that are to be closed before anything is done for them, or they are sent anything."""
        lapsed = frozenset(self._node.lapsed(now_ms))
        keep_ms = self._node.keep_ms
        self._next_ms = now_ms + keep_ms if lapsed else FOREVER_MS
        if not lapsed:
            return []
        found = []
        for session in self._server.clients.values():
            for number, since_ms in list(session.shards.items()):
                if number not in lapsed:
                    continue
                if now_ms - since_ms < keep_ms:
                    self._next_ms = min(self._next_ms, since_ms + keep_ms)
                elif self._server.may_lose(session, number):
                    found.append(session)
                    break
                else:
                    del session.shards[number]  # it has nothing there, and begins anew with its next command
        return found
