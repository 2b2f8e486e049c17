"""ELECT.OBSERVE … PUSH: clients that hear of every new leader while they go on with other things.

For each client and election this node waits in the election's shard, as a client
would with ``ELECT.OBSERVE key TOKEN known BLOCK 0``, under a session of its own.
What it is told it pushes to the client, and asks again with the token it was
told. So news come in order and never twice, and the last is always told; of
several leaders that came and went while it asked, only the last.

What failed because the shard has no leader is asked again a little later, and so
is what others gave up for this node while it was cut off: an observer holds
nothing, so it needs not be closed as other clients are then. A client is told of
an error that will not pass, and hears no more of that election.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from cluster.machine.reply import WAITING, CommandError, Push, Reply
from cluster.shard import Shard
from resp_server.session import Session

if TYPE_CHECKING:
    from resp_server.server import Server

PASSING = frozenset({"CLUSTERDOWN", "UNCERTAIN", "TRYAGAIN", "MISCONF", "UNBLOCKED"})
LOOKED_AT_MAX = 1000
"""How many waits `Observers.ask_again` looks after at a time."""

KIND = b"elect"
"""What every push begins with."""


class Watch:
    """One client's interest in one election, which the shard knows as the client that asks.

    ``known`` is the token of the leader the client was told of last, None for none.
    """

    __slots__ = ("_observers", "key", "known", "number", "origin", "over", "session", "waiting")

    def __init__(self, observers: Observers, session: Session, key: bytes, known: int | None, number: int) -> None:
        self._observers = observers
        self.session = session
        self.key = key
        self.known = known
        self.number = number
        self.origin = session.server.node.origin(number)
        self.waiting = False
        self.over = False

    def fill(self, reply: Reply) -> bool:
        """The answer to what was asked, or that it is waited for; whether there is something to send to the client."""
        return not self.over and self._observers.told(self, reply)


class Observers:
    """The clients of one node that observe elections."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._by_number: dict[int, Watch] = {}
        self._by_client: dict[int, dict[bytes, Watch]] = {}
        self._unasked: dict[Watch, None] = {}

    def __len__(self) -> int:
        """How many elections are observed, those of each client counted."""
        return len(self._by_number)

    def begin(self, session: Session, key: bytes, known: int | None) -> None:
        """From now on the client hears of every leader but the ``known`` one."""
        self.end(session, key)
        watch = Watch(self, session, key, known, self._server.next_id())
        self._by_number[watch.number] = watch
        self._by_client.setdefault(session.id, {})[key] = watch
        self._ask(watch)

    def end(self, session: Session, key: bytes) -> bool:
        """The client hears no more of this election; whether it did."""
        watch = self._by_client.get(session.id, {}).get(key)
        if watch is None:
            return False
        self._forget(watch)
        self._shard(watch).end_session(watch.origin)
        return True

    def leave(self, session: Session) -> None:
        """The client hears no more of any."""
        for key in list(self._by_client.get(session.id, ())):
            self.end(session, key)

    def woken(self, origin: bytes, reply: Reply) -> Session | None:
        """A wait under this name has ended, if it is one of these; the client there is something to send to."""
        watch = self._by_number.get(int(origin.rpartition(b".")[2]))
        return watch.session if watch is not None and watch.origin == origin and watch.fill(reply) else None

    def told(self, watch: Watch, reply: Reply) -> bool:
        """What a shard answered; whether there is something to send to the client."""
        watch.waiting = reply is WAITING
        if watch.waiting:
            return False
        if type(reply) is CommandError:
            if reply.code in PASSING:
                self._unasked[watch] = None
                return False
            self._forget(watch)
            self._push(watch, reply)
            return True
        is_news = type(reply) is list and reply[1] != watch.known
        if type(reply) is list and is_news:
            watch.known = reply[1]
            self._push(watch, *reply)
        self._ask(watch)
        return is_news

    def ask_again(self) -> None:
        """Asks what could not be answered before, or is not waited for any more; called once a second or so."""
        unasked, self._unasked = self._unasked, {}
        for number in list(islice(self._by_number, LOOKED_AT_MAX)):
            watch = self._by_number[number] = self._by_number.pop(number)  # the others come first the next time
            if watch.waiting and not self._shard(watch).knows_session(watch.origin):
                unasked[watch] = None
        for watch in unasked:
            watch.waiting = False
            self._ask(watch)

    def _push(self, watch: Watch, *news: Reply) -> None:
        session = watch.session
        session.out.append(session.encode(Push([KIND, watch.key, *news])))

    def _ask(self, watch: Watch) -> None:
        known = () if watch.known is None else (b"TOKEN", b"%d" % watch.known)
        words = [b"ELECT.OBSERVE", watch.key, *known, b"BLOCK", b"0"]
        self._shard(watch).submit(watch, self._server.table.find(words).run, words, origin=watch.origin)

    def _shard(self, watch: Watch) -> Shard:
        return self._server.shard_of(watch.key)

    def _forget(self, watch: Watch) -> None:
        watch.over = True
        del self._by_number[watch.number]
        self._unasked.pop(watch, None)
        of_client = self._by_client[watch.session.id]
        del of_client[watch.key]
        if not of_client:
            del self._by_client[watch.session.id]
