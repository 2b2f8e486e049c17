"""Places: where answers from several shards stand in the order in which a client must get them.

While all that a client is owed comes from one shard, the answers come in the
order of its commands and need only be counted. As soon as a command goes to
another shard, or is answered by the node itself, it gets a place behind those,
and so does every command after it until all are answered: answers fill the
places as they come, and leave from the front.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from cluster.machine.reply import WAITING, CommandError, Reply
from resp_server.commands.spreading import Merge

if TYPE_CHECKING:
    from resp_server.session import Session

Finish: TypeAlias = "Callable[[Reply], Reply]"


class Place:
    """One answer to come, which shards know as the client; ``reply`` is `WAITING` until it is filled.

    ``finish`` makes of what comes what the client gets; ``popped`` is the queue that a Q.POP is about. ``partly_read``
    says that some of the answer was read already, and goes out with the rest.
    """

    __slots__ = ("finish", "partly_read", "popped", "reply", "session")

    def __init__(self, session: Session, finish: Finish | None = None) -> None:
        self.session = session
        self.finish = finish
        self.popped: bytes | None = None
        self.partly_read = False
        self.reply: Reply = WAITING

    def fill(self, reply: Reply) -> bool:
        """The answer came; whether the client may be nearer to its next answer for it."""
        session = self.session
        if session.closed:
            return False
        if reply is WAITING:
            session.waiting = True
        self.reply = reply if self.finish is None else self.finish(reply)
        return True


class Nobody:
    """Who asks a shard for something, cares that it happens, and not for the answer."""

    __slots__ = ()

    def fill(self, reply: Reply) -> bool:
        """As for a `Place`: no client is nearer to anything."""
        return False


NOBODY = Nobody()


class Filled(Protocol):
    """A `Place`, or what stands before one."""

    @property
    def session(self) -> Session:
        """Whose it is."""
        ...

    def fill(self, reply: Reply) -> bool:
        """As for a `Place`."""
        ...


class Gather:
    """The answers of several shards to the shares of one command, which fill one place together."""

    __slots__ = ("_merge", "_missing", "_replies", "place")

    def __init__(self, place: Filled, merge: Merge, shares: int) -> None:
        self.place = place
        self._merge = merge
        self._replies: list[Reply] = [None] * shares
        self._missing = shares

    def take(self, number: int, reply: Reply) -> bool:
        """The answer to one share; whether it was the last."""
        self._replies[number] = reply
        self._missing -= 1
        return not self._missing and self.place.fill(self._merge(self._replies))


class Share:
    """One share of a command, which its shard knows as the client."""

    __slots__ = ("_gather", "_number", "session")

    def __init__(self, gather: Gather, number: int) -> None:
        self.session = gather.place.session
        self._gather = gather
        self._number = number

    def fill(self, reply: Reply) -> bool:
        """As for a `Place`."""
        return self._gather.take(self._number, reply)


def merged(merge: Merge, *, logged: bool) -> Merge:
    """``merge`` where every share was carried out; else the truth about a command of which some were not.

    A read that failed somewhere has no answer, and may be asked again. A write
    that no shard carried out certainly did not happen, and says why. One that
    some did, or may have done, happened in part: that is no error a client may
    answer by sending it again unseen, so it is ``-UNCERTAIN`` whatever the cause.
    """

    def together(replies: list[Reply]) -> Reply:
        errors = [reply for reply in replies if type(reply) is CommandError]
        if not errors:
            return merge(replies)
        uncertain = next((error for error in errors if error.code == "UNCERTAIN"), None)
        if not logged or (uncertain is None and len(errors) == len(replies)):
            return errors[0]
        cause = errors[0] if uncertain is None else uncertain
        return CommandError(f"it may have happened in some shards only: {cause.code} {cause.message}", "UNCERTAIN")

    return together
