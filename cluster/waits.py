"""Waits: the commands of this node's clients that block in one shard, and how their ends are found out.

That a client waits, and which wait it is, is the answer to its batch; the end
comes when an entry is carried out. A replica here sees both. Of a wait that
another node *told* of, the leader tells the end, too, and is asked for it
where that may be lost; this replica, if there is one, may be behind, and come
by the end of one before.
"""

from __future__ import annotations

from collections.abc import Iterator

from cluster.clients import Clients, uncertain
from cluster.machine.machine import Machine, Woken
from cluster.machine.reply import Reply
from cluster.outcomes import decode
from cluster.raft.messages import Ended

ASK_MS = 1_000.0
"""How often a leader is asked what became of waits it told of: it says so anyway, unless that is lost."""

WAITS_PER_MESSAGE = 1_000


class OwnWaits:
    """Of one node's clients in one shard; ``told`` is the wait of each session that another node told of."""

    def __init__(self, clients: Clients) -> None:
        self.told: dict[bytes, int] = {}
        self._clients = clients
        self._of_own = clients.author + b"."
        self._ended: list[Woken] = []  # to be told, once the client knows that it waits
        self._next_ask_ms = 0.0

    def is_own(self, origin: bytes) -> bool:
        """Whether it is a session of this node in this run."""
        return origin.startswith(self._of_own)

    def forget(self, origin: bytes) -> None:
        """Nobody cares any more how the session's wait ends."""
        self.told.pop(origin, None)

    # What others tell

    def ask_at_once(self, now_ms: float) -> None:
        """Something may have been lost."""
        self._next_ask_ms = now_ms

    def questions(self, now_ms: float) -> Iterator[list[tuple[bytes, int]]]:
        """What the leader is to be asked about, a message each, if it is time."""
        if self.told and now_ms >= self._next_ask_ms:
            self._next_ask_ms = now_ms + ASK_MS
            waits = list(self.told.items())
            for first in range(0, len(waits), WAITS_PER_MESSAGE):
                yield waits[first : first + WAITS_PER_MESSAGE]

    def hear(self, message: Ended) -> None:
        """A leader tells that one has ended."""
        if self.told.get(message.origin) != message.wait:
            return
        del self.told[message.origin]
        self._ended.append((message.origin, message.wait, decode(message.reply)[0] if message.reply else _unknown()))

    def settle(self, machine: Machine) -> None:
        """This node leads, and has nobody to ask: what it does not know itself, nobody knows."""
        for origin, wait in self.told.items():
            waiter = machine.waiters.of(origin)
            if waiter is None or waiter.number != wait:
                self._ended.append((origin, wait, _unknown()))
        self.told.clear()

    def replaced(self, former: Machine, machine: Machine) -> None:
        """Another state took the place of ``former``: what ended unseen, the leader is asked."""
        for waiter in former.waiters.everyone():
            known = machine.waiters.of(waiter.origin)
            if self.is_own(waiter.origin) and (known is None or known.number != waiter.number):
                self.told[waiter.origin] = waiter.number

    # What is carried out here

    def ends(self, woken: list[Woken], machine: Machine) -> list[Woken]:
        """The ends that clients of this node are to be told now, of those that were just carried out or kept back.

        Kept back are those whose clients do not know yet that they wait: their batch waits for its turn. One whose
        client has begun to wait anew since was given up, and its end is nobody's: a replica that is behind may come by
        the end of a wait long past in the turn in which another node tells the latest's.
        """
        found, self._ended = self._ended, []
        for ended in woken:
            origin, number, _ = ended
            if self.is_own(origin) and self.told.get(origin, number) == number:
                self.told.pop(origin, None)
                found.append(ended)
        if not found:
            return found
        untold = {origin for batch in self._clients.outstanding for origin in batch.origins.values()}
        last: dict[bytes, int] = {}
        for origin, number, _ in found:
            last[origin] = max(number, last.get(origin, 0))
        current = [ended for ended in found if ended[1] == last[ended[0]] and not self._waits_anew(ended, machine)]
        self._ended = [ended for ended in current if ended[0] in untold]
        return [ended for ended in current if ended[0] not in untold]

    def _waits_anew(self, ended: Woken, machine: Machine) -> bool:
        """Whether the session began another wait after this one, as far as is known here."""
        origin, number, _ = ended
        waiter = machine.waiters.of(origin)
        return (waiter is not None and waiter.number > number) or self.told.get(origin, 0) > number


def _unknown() -> Reply:
    return uncertain("the wait ended, it is not known how")
