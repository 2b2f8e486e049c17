"""What a leader does for nodes that have no replica of its shard: their reads, and what became of their writes.

Such a node sends its batches as a follower does, but wants an `Outcome`; its
reads come as they are. The leader answers from what it carried out. After a
change of leader the author asks again, naming the term it sent a batch in: a
leader that is settled has carried out whatever came of that term, so what it
does not remember never happened.
"""

from __future__ import annotations

from collections.abc import Sequence

from cluster.batch import node_of
from cluster.carrying import Carrying
from cluster.forwarding import Forwarding
from cluster.machine.machine import Machine, Woken
from cluster.machine.reply import CommandError, Reply
from cluster.outcomes import encode
from cluster.raft.core import Raft
from cluster.raft.messages import Ended, Forward, Look, Message, Outcome, Waits
from cluster.raft.reads import Asked


class Hosting:
    """One leader's service to distant nodes. ``outbox`` is what it sends."""

    def __init__(
        self, raft: Raft, carrying: Carrying, forwarding: Forwarding, outbox: list[tuple[str, Message]]
    ) -> None:
        self._raft = raft
        self._carrying = carrying
        self._forwarding = forwarding
        self._outbox = outbox
        self._wanted: dict[tuple[bytes, int], str] = {}  # who is to be told, by author and number
        self._looks: dict[tuple[bytes, int], tuple[str, Look]] = {}  # reads that wait until it is sure to lead, of whom
        self._ready: list[tuple[str, Look, int, int]] = []  # to whom, what, from which index on, as of when

    def begin(self) -> None:
        """A new term of office: whoever wants something asks again."""
        self._wanted.clear()
        self._looks.clear()
        self._ready.clear()

    # Writes

    def take(self, peer: str, message: Forward) -> bool:
        """A batch whose author wants its outcome; whether it is to go into the next entry."""
        raft = self._raft
        if raft.leading is None:
            return False
        author, number = message.author, message.number
        known = self._carrying.outcomes.of(author, number)
        if known is not None:
            self._tell(peer, author, number, known)
        elif message.term == raft.term:
            self._wanted[author, number] = peer
            return True
        elif message.term < raft.term and raft.leading.settled:
            never = self._carrying.never(author, number, message.term)
            self._outbox.append((peer, Outcome(raft.term, author, number, b"", never)))
        return False

    def carried_out(self, author: bytes, number: int) -> bool:
        """A part was: its author is told if it wants that; whether it does."""
        peer = self._wanted.pop((author, number), None)
        if peer is None:
            return False
        known = self._carrying.outcomes.of(author, number)
        if known is not None:
            self._tell(peer, author, number, known)
        return True

    def _tell(self, peer: str, author: bytes, number: int, replies: Sequence[Reply]) -> None:
        """What was answered to a batch that was carried out."""
        self._outbox.append((peer, Outcome(self._raft.term, author, number, encode(replies), False)))

    # Waits

    def ended(self, woken: Woken) -> None:
        """A session of a node that has no replica waits no longer."""
        origin, wait, reply = woken
        self._outbox.append((node_of(origin), Ended(self._raft.term, origin, wait, encode([reply]))))

    def look_after(self, peer: str, machine: Machine, message: Waits) -> None:
        """Tells a node which of its waits have ended."""
        raft = self._raft
        if raft.leading is None or not raft.leading.settled:
            return
        for origin, wait in message.waits:
            waiter = machine.waiters.of(origin)
            if waiter is not None and waiter.number == wait:
                continue
            known = self._carrying.outcomes.of_wait(origin, wait)
            reply = encode([known[1]]) if known is not None else b""
            self._outbox.append((peer, Ended(raft.term, origin, wait, reply)))

    # Reads

    def look(self, peer: str, message: Look) -> None:
        """Reads came, and wait to be `confirmed`."""
        self._looks[message.author, message.number] = peer, message

    def confirmed(self, asked: Asked, now_ms: int) -> bool:
        """This node leads for sure; whether those were such reads."""
        waiting = self._looks.pop((asked.author, asked.number), None)
        if waiting is None:
            return False
        self._ready.append((*waiting, asked.index, now_ms))
        return True

    @property
    def waiting(self) -> bool:
        """Whether there are reads to be carried out now."""
        return bool(self._ready)

    def serve(self, machine: Machine) -> None:
        """Carries out the reads that the state is ready for."""
        applied = self._raft.applied
        later = []
        for one in self._ready:
            peer, look, index, now_ms = one
            if index > applied:
                later.append(one)
                continue
            machine.pass_time_until_due(now_ms)
            self._tell(peer, look.author, look.number, [_read(machine, args) for args in look.calls])
        self._ready = later


def _read(machine: Machine, args: list[bytes]) -> Reply:
    try:
        handler = machine.handler(args[0])
    except LookupError:
        return CommandError("the leader does not know this command: run one version everywhere")
    return machine.peek(handler, args)
