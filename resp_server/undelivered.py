"""Messages that were taken for clients who are gone before the answer could be sent: they go back to their places.

Who leaves while a Q.POP is under way is not there when its answer comes. As
nothing of it was sent, the delivery did not happen: it is not counted, and the
next consumer has the message at once instead of after its visibility. What was
handed to the network already may have arrived, and is left to its visibility.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.machine import queue_parts
from cluster.machine.reply import Reply
from resp_server.places import NOBODY

if TYPE_CHECKING:
    from resp_server.server import Server
    from resp_server.session import Session

REMEMBERED_MAX = 10_000
"""So many of those that left while they may have waited are known: more than leave between two answers of the log."""


class Undelivered:
    """Of one node's clients."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._gone: dict[bytes, Session] = {}  # by origin, the latest last

    def left(self, session: Session) -> None:
        """The client is gone, and may have been about to get a message."""
        if session.awaiting is not None or (session.popped is not None and (session.pending or session.waiting)):
            self._gone[session.origin] = session
            if len(self._gone) > REMEMBERED_MAX:
                del self._gone[next(iter(self._gone))]

    def woken(self, number: int, origin: bytes, reply: Reply) -> None:
        """The wait of somebody who is not there is over in a shard."""
        session = self._gone.get(origin)
        if session is None:
            return
        if session.awaiting is None:
            del self._gone[origin]
            self.take_back(session.popped, reply)
        elif number in session.awaiting.open:
            awaiting = session.awaiting
            awaiting.ended(number, reply)
            if not awaiting.open:
                del self._gone[origin]

    def answered(self, session: Session, reply: Reply) -> None:
        """A command of somebody who is not there was answered, in the order of the commands."""
        if not session.pending:  # the last one: if that is an answer to Q.POP, then to the last Q.POP
            self.take_back(session.popped, reply)

    def take_back(self, key: bytes | None, reply: Reply) -> None:
        """Puts back what Q.POP took from the queue at ``key``, if the reply is that."""
        if key is not None and type(reply) is list and reply and all(map(_is_message, reply)):
            receipts = [message[0] for message in reply if type(message) is list]
            args = [queue_parts.UNTAKE, key, *receipts]
            self._server.shard_of(key).submit(NOBODY, queue_parts.untake, args)


def _is_message(reply: Reply) -> bool:
    return type(reply) is list and len(reply) == 4 and type(reply[0]) is bytes and type(reply[2]) is int
