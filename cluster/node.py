"""Node: one process's part of the cluster, as verbs in and work out.

The caller (the edge, or a simulator) does this, turn after turn:

1. `advance` with the time. If it says that something is due, reads of this
   turn should wait for it with `submit_read`.
2. `submit` every command that must take its place in the log, and with
   `submit_read` what follows it on the same connection; `read` what may be
   answered at once.
3. `ready`: the turn's commands as one entry to make durable, or None.
4. Make `Work.entries` durable, then call `persisted`; or `refused` when the
   disk did not take them. Both give the answers to deliver.

Time only enters through `advance` and never goes back. The node calls nobody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from typing import Any, NamedTuple, TypeAlias

import msgspec

from cluster.machine.keyspace import Checkpoint
from cluster.machine.machine import END_SESSION, END_SESSIONS, UNBLOCK, Call, Commands, Handler, Machine, in_place
from cluster.machine.reply import CommandError, Reply
from cluster.storage.contract import Entry, Recovered, Row

Client: TypeAlias = Any
"""Whoever asked: the caller's own object, handed back with the answer. None wants no answer."""

Answer: TypeAlias = "tuple[Client, Reply]"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, list[Any], dict[int, bytes]]).decode


class Work(NamedTuple):
    """What to do before `Node.persisted` may be called: make ``entries`` durable."""

    entries: Sequence[Entry]


class Answers(NamedTuple):
    """``replies`` to clients, in order, and ``woken``: (origin, reply) of waits that ended."""

    replies: Iterable[Answer]
    woken: list[tuple[bytes, Reply]]


class _Batch:
    """The commands of one turn: all calls with who asked for each, and the writes among them for the log."""

    __slots__ = ("calls", "clients", "index", "origins", "time_ms", "writes")

    def __init__(self) -> None:
        self.clients: list[Client] = []
        self.calls: list[Call] = []
        self.writes: list[list[Any]] = []
        self.origins: dict[int, bytes] = {}  # of the writes, by position
        self.index = 0
        self.time_ms = 0


class Node:
    """A cluster of one: every entry it made durable is committed.

    ``name`` is the node's id; ``boot`` tells this run of the process from all
    others, so that sessions of an earlier run can be ended.
    """

    def __init__(self, commands: Commands, *, name: str, boot: str, shard: int = 0) -> None:
        self.machine = Machine(commands)
        self.name = name
        self.shard = shard
        self.term = 1
        self.last_index = 0
        self.applied_index = 0
        self.commit_index = 0
        self.checkpoint_index = 0
        self.bytes_since_checkpoint = 0
        self.now_ms = 0
        self.due = False
        self._origin_prefix = f"{name}.{boot}."
        self._open = _Batch()
        self._flying: deque[_Batch] = deque()

    # Coming up

    def recover(self, recovered: Recovered, rows: Iterable[Row], entries: Iterable[Entry]) -> int:
        """Rebuilds the state from the disk; how many entries were replayed.

        The first entry this run writes ends the sessions of the runs before.
        """
        self.machine.restore(recovered.ledger, rows)
        self.term = max(self.term, recovered.hard_state.term, recovered.checkpoint_term)
        self.last_index = self.applied_index = self.checkpoint_index = recovered.checkpoint_index
        replayed = 0
        for entry in entries:
            self._replay(entry)
            replayed += 1
        self.machine.woken.clear()
        self.now_ms = self.machine.now_ms
        prefix = f"{self.name}.".encode()
        self.submit(None, self.machine.handler(END_SESSIONS), [END_SESSIONS, prefix, self._origin_prefix.encode()])
        return replayed

    def _replay(self, entry: Entry) -> None:
        time_ms, commands, origins = _decode(entry.payload)
        handler = self.machine.handler
        calls = [(handler(args[0]), args, origins.get(position, b"")) for position, args in enumerate(commands)]
        self.machine.apply(time_ms, calls)
        self.last_index = self.applied_index = self.commit_index = entry.index
        self.bytes_since_checkpoint += len(entry.payload)

    # Verbs

    def advance(self, now_ms: int) -> bool:
        """Moves the node's clock, never back; whether an alarm is due, so that this turn needs an entry."""
        if now_ms > self.now_ms:
            self.now_ms = now_ms
        self.due = self.machine.pass_time(self.now_ms)
        return self.due

    @property
    def idle(self) -> bool:
        """Whether `ready` would have nothing to give."""
        return not self._open.calls and not self.due

    def next_due_ms(self) -> int | None:
        """When `advance` should be called next, at the latest."""
        return self.now_ms if self.machine.behind else self.machine.clockwork.next_due_ms(self.now_ms)

    def origin(self, client_id: int) -> bytes:
        """The name by which the log knows a client's session."""
        return f"{self._origin_prefix}{client_id}".encode()

    def read(self, handler: Handler, args: list[bytes]) -> Reply:
        """Runs a command that is not logged, now. What is due has not happened yet, but what it ends is hidden."""
        return self.machine.peek(handler, args)

    def submit(
        self, client: Client, handler: Handler, args: list[Any], *, logged: list[Any] | None = None, origin: bytes = b""
    ) -> None:
        """Gives a command its place in this turn's entry.

        ``logged`` is what other replicas will carry out: ``args`` itself unless
        told otherwise.
        """
        batch = self._open
        batch.clients.append(client)
        batch.calls.append((handler, args, origin))
        if origin:
            batch.origins[len(batch.writes)] = origin
        batch.writes.append(args if logged is None else logged)

    def submit_read(self, client: Client, handler: Handler, args: list[bytes]) -> None:
        """Gives a command that is not logged its place among those of this turn that are."""
        batch = self._open
        batch.clients.append(client)
        batch.calls.append((*in_place(handler, args), b""))

    def submit_writes(self, client: Client, calls: list[Call]) -> None:
        """Gives several commands of one client their places, logged as they are and without their session."""
        batch = self._open
        if len(calls) == 1:  # as from most clients
            batch.clients.append(client)
            batch.calls.append(calls[0])
            batch.writes.append(calls[0][1])
            return
        batch.clients += repeat(client, len(calls))
        batch.calls += calls
        batch.writes += [args for _, args, _ in calls]

    def end_session(self, origin: bytes) -> None:
        """A client is gone: whatever ends with its session ends."""
        self.submit(None, self.machine.handler(END_SESSION), [END_SESSION, origin])

    def knows_session(self, origin: bytes) -> bool:
        """Whether the replicated state holds something that ends with this session."""
        machine = self.machine
        return machine.sessions.get(origin) is not None or machine.waiters.of(origin) is not None

    def unblock(self, client: Client, origin: bytes, reason: bytes) -> None:
        """Ends a wait by hand (CLIENT UNBLOCK); ``reason`` is TIMEOUT or ERROR."""
        self.submit(client, self.machine.handler(UNBLOCK), [UNBLOCK, origin, reason])

    def ready(self) -> Work | None:
        """Closes the turn: its entry, or None when there is nothing to run and nothing due."""
        if self.idle:
            return None
        batch = self._open
        self._open = _Batch()
        self.last_index += 1
        batch.index = self.last_index
        batch.time_ms = self.now_ms
        self._flying.append(batch)
        payload = _encode((batch.time_ms, batch.writes, batch.origins))
        self.bytes_since_checkpoint += len(payload)
        return Work([Entry(self.shard, batch.index, self.term, payload)])

    def persisted(self, index: int) -> Answers:
        """Entries up to ``index`` are durable: they are committed, run, and answered."""
        self.commit_index = max(self.commit_index, index)
        machine = self.machine
        replies: list[Iterable[Answer]] = []
        while self._flying and self._flying[0].index <= self.commit_index:
            batch = self._flying.popleft()
            replies.append(zip(batch.clients, machine.apply(batch.time_ms, batch.calls), strict=True))
            self.applied_index = batch.index
        woken, machine.woken = machine.woken, []
        return Answers(chain.from_iterable(replies), woken)

    def refused(self, error: CommandError) -> Answers:
        """The disk did not take the entries of `ready`: none of them happened, and ``error`` is everybody's answer.

        What nobody waits for (sessions that ended) is submitted again: it must happen some time.
        """
        replies: list[Answer] = []
        flying, self._flying = self._flying, deque()
        for batch in flying:
            for client, (handler, args, origin) in zip(batch.clients, batch.calls, strict=True):
                if client is None:
                    self.submit(None, handler, args, origin=origin)
                else:
                    replies.append((client, error))
        self.last_index = self.applied_index
        return Answers(replies, [])

    def adopt(self, entries: Iterable[Entry]) -> Answers:
        """Entries found on the disk after all, once it can be written again: they happened.

        Their clients were told that it is uncertain; those who were woken by them are answered now.
        """
        for entry in entries:
            self._replay(entry)
        woken, self.machine.woken = self.machine.woken, []
        return Answers([], woken)

    # Checkpoints

    def begin_checkpoint(self) -> tuple[Checkpoint, int, int, bytes]:
        """Starts a checkpoint of what is applied: (what to write, index, term, ledger)."""
        checkpoint, ledger = self.machine.begin_checkpoint()
        self.bytes_since_checkpoint = 0
        return checkpoint, self.applied_index, self.term, ledger

    def end_checkpoint(self, index: int, *, durable: bool) -> None:
        """The checkpoint of ``index`` is in force, or it failed."""
        self.machine.keyspace.end_checkpoint(durable=durable)
        if durable:
            self.checkpoint_index = index
