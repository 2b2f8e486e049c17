"""Carrying out what is committed: every part of every entry, on every node.

The part that this node wrote is the batch its clients wait for: it is taken
from them with its calls as they were given, so that reads run in their places
and nothing is decoded; all other parts are decoded from the entry.
"""

from __future__ import annotations

import msgspec

from cluster import batch as batches
from cluster.batch import Batch
from cluster.clients import Clients, no_leader
from cluster.machine.machine import UNBLOCK, Call, Machine
from cluster.raft.membership import MARK
from cluster.storage.contract import Entry


class Unreadable(Exception):
    """A committed entry means nothing to this version: the node cannot go on, the state would differ from others'."""


class Carrying:
    """Carries out the entries of one shard, one after the other.

    ``term`` is that of the last one. ``concerned`` collects the other nodes
    that wrote a part of what was carried out, in order.
    """

    def __init__(self, clients: Clients, shard: int) -> None:
        self.term = 0
        self.concerned: dict[str, None] = {}
        self._clients = clients
        self._shard = shard
        self._given_up: list[bytes] = []  # sessions of this node whose part of the entry nobody waits for

    def carry_out(self, machine: Machine, entry: Entry) -> None:
        """One committed entry, and the answers to the part of it that is this node's own. Raises `Unreadable`."""
        clients = self._clients
        if entry.term > self.term:
            self.term = entry.term
            clients.outstanding.lose_before(entry.term, no_leader(self._shard))
        payload = entry.payload
        if not payload or payload[:1] == MARK:
            return
        self._given_up.clear()
        try:
            time_ms, calls, mine = self._calls(machine, payload)
        except (LookupError, msgspec.MsgspecError) as error:
            raise Unreadable(f"entry {entry.index}: {error}") from error
        replies = machine.apply(time_ms, calls)
        if self._given_up:
            self._end_waits(machine, mine)
        for start, batch in mine:
            if batch.lost is not None:
                clients.fail(batch)
                continue
            answers = replies if len(batch.calls) == len(replies) else replies[start : start + len(batch.calls)]
            clients.answers.append(zip(batch.clients, answers, strict=True))

    def _calls(self, machine: Machine, payload: bytes) -> tuple[int, list[Call], list[tuple[int, Batch]]]:
        """The time and the calls of an entry, and from where on which batches of this node's clients stand in them."""
        time_ms, parts = batches.parts_in(payload)
        calls: list[Call] = []
        mine: list[tuple[int, Batch]] = []
        for author, number, body in parts:
            own = self._clients.take(number) if author == self._clients.author else []
            for batch in own:
                mine.append((len(calls), batch))
                if batch.lost is None:
                    calls = calls + batch.calls if calls else batch.calls
            if not own or own[-1].lost is not None:
                calls = calls + self._decoded(machine, author, body)
                self.concerned[batches.node_of(author)] = None
        return time_ms, calls, mine

    def _decoded(self, machine: Machine, author: bytes, body: msgspec.Raw) -> list[Call]:
        """The calls of a part that nobody here waits for."""
        writes, origins = batches.writes_in(body)
        handler = machine.handler
        calls = [(handler(args[0]), args, origins.get(place, b"")) for place, args in enumerate(writes)]
        if author == self._clients.author:
            self._given_up += origins.values()
        return calls

    def _end_waits(self, machine: Machine, mine: list[tuple[int, Batch]]) -> None:
        """Ends what began to wait in this entry for clients who were told that it is uncertain, and do not wait.

        Only that wait: the session may be about to begin another.
        """
        answered = {origin for _, batch in mine if batch.lost is None for origin in batch.origins.values()}
        for origin in self._given_up:
            waiter = machine.waiters.of(origin)
            if waiter is not None and origin not in answered:
                self._clients.owe(unblocking(machine, origin, number=waiter.number))


def unblocking(machine: Machine, origin: bytes, reason: bytes = b"TIMEOUT", *, number: int | None = None) -> Call:
    """The call that ends a session's wait: as its deadline would, or with an error (``ERROR``).

    It does nothing if the session does not wait, or no longer the wait of that ``number``.
    """
    args = [UNBLOCK, origin, reason] if number is None else [UNBLOCK, origin, reason, b"%d" % number]
    return machine.handler(UNBLOCK), args, b""
