"""What the clients of this node asked, until it is answered.

A turn's commands gather in the open batch. Closed, it is outstanding until it
is carried out, served or lost, and its answers gather here in the order in
which they must be given. What no client waits for (the end of a session) is
owed: it goes into a batch again and again until it has happened.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any

from cluster.batch import Answer, Batch, Client
from cluster.machine.machine import Call, Handler, Machine, in_place
from cluster.machine.reply import CommandError, Reply
from cluster.outstanding import Outstanding

BATCH_BYTES_MAX = 900_000_000
"""A row of SQLite holds a thousand million bytes, and an entry is a row."""


class Clients:
    """One node's clients, as far as the log is concerned: ``author`` names them in it."""

    def __init__(self, author: bytes) -> None:
        self.author = author
        self.open = Batch()
        self.outstanding = Outstanding()
        self.owed: list[Call] = []
        self.answers: list[Iterable[Answer]] = []

    def origin(self, client_id: int) -> bytes:
        """The name by which the log knows a client's session."""
        return b"%b.%d" % (self.author, client_id)

    @property
    def waiting(self) -> bool:
        """Whether somebody has no answer yet."""
        return bool(self.open.calls or len(self.outstanding))

    # Asking

    def submit(
        self, client: Client, handler: Handler, args: list[Any], *, logged: list[Any] | None = None, origin: bytes = b""
    ) -> None:
        """Gives a command its place in this turn's batch.

        ``logged`` is what other replicas will carry out: ``args`` itself unless
        told otherwise. What is owed goes first: the session of a client that is
        gone ends before anything could be given to it, and the end of a wait is
        never that of one that begins here.
        """
        if self.owed:
            self.settle_debts()
        batch = self.open
        batch.clients.append(client)
        batch.calls.append((handler, args, origin))
        if origin:
            batch.origins[len(batch.logged)] = origin
        batch.logged.append(args if logged is None else logged)

    def submit_read(self, client: Client, handler: Handler, args: list[bytes]) -> None:
        """Gives a command that is not logged its place among those of this turn that are."""
        batch = self.open
        batch.clients.append(client)
        batch.calls.append((*in_place(handler, args), b""))
        batch.reads.append(len(batch.logged))
        batch.logged.append(args)

    def submit_writes(self, client: Client, calls: list[Call]) -> None:
        """Gives several commands of one client their places, logged as they are and without their session."""
        if self.owed:
            self.settle_debts()
        batch = self.open
        if len(calls) == 1:  # as from most clients
            batch.clients.append(client)
            batch.calls.append(calls[0])
            batch.logged.append(calls[0][1])
            return
        batch.clients += repeat(client, len(calls))
        batch.calls += calls
        batch.logged += [args for _, args, _ in calls]

    def owe(self, call: Call) -> None:
        """It must happen some time, and nobody waits for it."""
        self.owed.append(call)

    def settle_debts(self) -> None:
        """Puts what is owed into this turn's batch."""
        owed, self.owed = self.owed, []
        for handler, args, origin in owed:
            self.submit(None, handler, args, origin=origin)

    def close(self, now_ms: float, term: int, *, logged: bool, whole: bool = False) -> Batch:
        """Ends this turn's batch: it has a number and is waited for; ``logged`` makes the body of its part."""
        batch, self.open = self.open, Batch()
        self.outstanding.close(batch, now_ms)
        batch.term = term
        if logged:
            batch.whole = batch.named = whole
            batch.body = batch.encode()
            if len(batch.body) > BATCH_BYTES_MAX:
                batch.lost = CommandError("more than the log takes at once: send less in one transaction")
        return batch

    def refuse_open(self, now_ms: float, error: CommandError) -> None:
        """What was not sent to anybody certainly did not happen; it is answered after what was asked before."""
        if self.open.calls:
            self.close(now_ms, 0, logged=False).lost = error

    # Answering

    def take(self, number: int) -> list[Batch]:
        """The batch that an entry holds, behind those to be answered before it; empty if it was given up.

        Before it stand reads, which run in their places, what was lost, and what
        is answered already. One that others have to be answered before comes
        alone, and stays.
        """
        found = self.outstanding.take_to(number)
        if not found:
            batch = self.outstanding.find(number)
            return [] if batch is None or batch.answers is not None else [batch]
        return found

    def carried_out(self, batch: Batch, replies: Sequence[Reply]) -> None:
        """A batch of `take` was carried out: its clients are answered, in their turn."""
        answers = zip(batch.clients, replies, strict=True)
        if self.outstanding.find(batch.number) is None:
            self.answers.append(answers)
        else:
            batch.answers = answers

    def told(self, batch: Batch, replies: Sequence[Reply]) -> None:
        """Another node carried out a batch, reads included; it is answered by `serve`, in its turn."""
        batch.answers = zip(batch.clients, replies, strict=True)

    def serve(self, machine: Machine, applied: int) -> None:
        """Answers what can be answered now: reads the state is ready for, what others told, and what was lost."""
        for batch in self.outstanding.take_answerable(applied):
            self.answer(machine, batch)

    def answer(self, machine: Machine, batch: Batch) -> None:
        """Answers a batch that is lost, was carried out, or reads."""
        if batch.lost is not None:
            self.fail(batch)
        elif batch.answers is not None:
            self.answers.append(batch.answers)
        else:
            self._read(machine, batch)

    def _read(self, machine: Machine, batch: Batch) -> None:
        """Runs a batch of reads on the state as it is."""
        machine.pass_time_until_due(batch.read_ms)
        calls = zip(batch.clients, batch.calls, strict=True)
        self.answers.append([(client, handler(machine, args)) for client, (handler, args, _) in calls])

    def fail(self, batch: Batch) -> None:
        """Answers a batch that was lost; what no client waits for is done another time."""
        error = batch.lost
        assert error is not None
        for client, call in zip(batch.clients, batch.calls, strict=True):
            if client is None:
                self.owe(call)
        self.answers.append([(client, error) for client in batch.clients if client is not None])

    def take_answers(self) -> list[Iterable[Answer]]:
        """What is to be delivered, in order."""
        answers, self.answers = self.answers, []
        return answers


def no_leader(shard: int) -> CommandError:
    """It certainly did not happen."""
    return CommandError(f"no leader for shard {shard}", "CLUSTERDOWN")


def ask_again() -> CommandError:
    """A read that the leader does not know of, while a cache may hold what it reads."""
    return CommandError("a cache may hold what is read, and the leader was not asked: ask again", "TRYAGAIN")


def uncertain(why: str) -> CommandError:
    """Nobody knows whether it happened."""
    return CommandError(f"it may or may not have happened: {why}", "UNCERTAIN")
