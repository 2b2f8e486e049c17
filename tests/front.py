"""The server without sockets and without a disk: every layer between the two, driven by hand."""

from __future__ import annotations

from random import Random
from typing import Any

import hiredis
import msgspec

from cluster.machine.machine import Ledger, Machine
from cluster.node import Node, Work
from cluster.raft.core import Timing
from cluster.raft.membership import static
from cluster.shard import Shard
from cluster.storage import Identity, MemoryStorage
from resp_server.commands.table import Table
from resp_server.dispatch import Dispatcher
from resp_server.protocol.requests import Limits, RequestParser
from resp_server.server import Server
from resp_server.session import Session
from resp_server.settings import Settings
from tests.raw_client import packed

START_MS = 1_700_000_000_000
SHARD = 0


TURNS_MAX = 50
"""Turns in which what waits for a line of the cache, and not for time to pass, has it."""


class Client:
    """One connection: what it sends is parsed and carried out, what it is answered is kept as bytes."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self.session = front.server.connect("127.0.0.1:1", "127.0.0.1:2")
        self._parser = RequestParser(Limits())
        self._reader = hiredis.Reader(replyError=hiredis.ReplyError)

    def ask(self, words: list[bytes]) -> None:
        """Sends one command, to be answered by the end of the turn."""
        self.send(packed(*words))

    def send(self, data: bytes) -> None:
        """Hands bytes in, as one read of a socket would."""
        commands = self._parser.feed(data)
        self._front.dispatcher.execute(self.session, commands)
        if self._parser.error is not None:
            self._front.dispatcher.refuse(self.session, self._parser.error.line)

    def replies(self) -> list[Any]:
        """What has been answered since the last look; fails on bytes that are no whole replies."""
        wire = b"".join(self.session.out)
        self.session.out.clear()
        self._reader.feed(wire)
        found = []
        while self._reader.has_data():
            reply = self._reader.gets()
            assert reply is not False, f"half a reply: {wire!r}"
            found.append(reply)
        return found

    def call(self, *words: bytes) -> list[Any]:
        """Sends one command, ends the turn, and gives the replies: one, or none while it waits."""
        self.ask(list(words))
        self._front.finish()
        return self.replies()


class Front:
    """Dispatcher, node and storage with a clock that stands still; it is its own `Edge`.

    The cluster has one node and as many shards as the settings say.
    """

    def __init__(self, storage: MemoryStorage | None = None, settings: Settings | None = None, boot: str = "b") -> None:
        self.storage = storage or MemoryStorage()
        table = Table()
        self.node = alone(table, boot, (settings or Settings()).shards)
        recover(self.node, self.storage)
        self.now_ms = max(START_MS, self.node.now_ms)
        self.server = Server(self.node, table, settings or Settings(), self, run_id="r")
        self.dispatcher = Dispatcher(self.server)
        self.server.on_refusal = self.dispatcher.hurry
        self.stopped = False
        self.node.advance(self.now_ms, self.now_ms)
        self.finish()

    @property
    def shard(self) -> Shard:
        """The first shard, ready to be used in this turn; the only one unless the settings say otherwise."""
        return self.server.shard(SHARD)

    @property
    def machine(self) -> Machine:
        """What the first shard holds."""
        return self.shard.machine

    def connect(self) -> Client:
        """A new client."""
        return Client(self)

    def disconnect(self, client: Client) -> None:
        """The client goes away."""
        self.server.disconnect(client.session)
        self.finish()

    def advance(self, by_ms: int) -> None:
        """Time passes, and what falls due happens."""
        self.now_ms += by_ms
        self.node.advance(self.now_ms, self.now_ms)
        while any(shard.due for shard in self.node.each()) and self.server.refusal is None:
            self.finish()

    def finish(self) -> None:
        """Ends the turn: commits and delivers, and goes on with what was held back."""
        dispatcher = self.dispatcher
        self._commit_and_resume()
        for _ in range(TURNS_MAX):
            if not self._caches_talk or self.server.refusal is not None:
                break
            self._commit_and_resume()
        for session in list(self.server.clients.values()):
            if session.glutted:
                session.out_bytes = 0
                dispatcher.relieve(session)
        if dispatcher.resumed:
            self.finish()

    def _commit_and_resume(self) -> None:
        dispatcher = self.dispatcher
        self.commit()
        while dispatcher.resumed:
            resumed, dispatcher.resumed = dispatcher.resumed, []
            for session in resumed:
                if not session.closed:
                    dispatcher.resume(session)
            self.commit()
        dispatcher.outbox.clear()

    @property
    def _caches_talk(self) -> bool:
        """Whether somebody waits for a line, or for an answer where caches hold any or have left it to the log."""
        return self.node.cache.waiting or any(
            shard.clients.waiting if shard.gate.directory is not None else shard.clients.open.calls
            for shard in self.node.shards
        )

    def commit(self) -> None:
        """Makes the turn's entry durable, unless writes are refused, and delivers what is answered."""
        self.node.tick()
        work = None if self.server.refusal is not None else self.node.ready()
        if work is not None:
            self.make_durable(work)
        self.dispatcher.deliver(self.node.apply())
        self.node.advance(self.now_ms, self.now_ms)

    def make_durable(self, work: Work) -> None:
        """Carries out what the node asks of the disk."""
        self.storage.append(work.entries, work.hard_states)
        self.node.persisted(work)

    # The edge its commands see

    def close(self, session: Session) -> None:
        self.server.disconnect(session)

    def stop(self, *, checkpoint: bool) -> None:
        self.stopped = True

    def start_checkpoint(self) -> bool:
        return True

    def settings_changed(self, name: str) -> None:
        self.dispatcher.hurry()

    def unsent_bytes(self, session: Session) -> int:
        return 0

    def adopt_peer(self, session: Session, peer: str, address: str) -> None:
        raise AssertionError("there are no peers here")


def recover(node: Node, storage: MemoryStorage) -> None:
    """Rebuilds a node from what the storage holds."""
    for shard in node.each():
        found = storage.load(shard.number)
        rows, entries = storage.rows(shard.number), storage.entries(shard.number, found.checkpoint_index + 1)
        node.recover(shard.number, found, rows, entries)


def alone(table: Table, boot: str, shards: int = 1) -> Node:
    """A node that is a cluster of its own."""
    return Node(
        table.machine_commands(),
        identity=Identity("c", "n1", "d", shards),
        boot=boot,
        timing=Timing(),
        chance=Random(0),
        members=static({"n1": "127.0.0.1:1"}),
    )


def recovered(storage: MemoryStorage) -> Machine:
    """What a new node makes of the first shard as the storage holds it."""
    node = alone(Table(), "again")
    recover(node, storage)
    for shard in node.each():
        shard.clients.owed.clear()  # the sessions of the run before go on
    node.advance(START_MS, 0)
    node.tick()
    while (work := node.ready()) is not None:
        node.persisted(work)
    while any(shard.raft.applied < shard.raft.commit for shard in node.each()):
        node.apply()
        node.outgoing()
    return node.shards[SHARD].machine


def state(machine: Machine) -> dict[str, object]:
    """Everything the machine knows that a command's reply can depend on."""
    ledger = Ledger(
        machine.log_ms,
        machine.counter,
        machine.waiters.everyone(),
        machine.sessions.snapshot(),
        machine.issued,
        machine.waiters.begun,
        machine.deadlocks,
    )
    values, waiters = machine.keyspace.values, machine.waiters
    return {
        "values": {
            key: value
            if isinstance(value, bytes)
            else (value.kind, value.header(), {part: value.part(part) for part in value.parts()})
            for key, value in values.items()
        },
        "deadlines": dict(machine.keyspace.deadlines),
        "lines": {
            key: [[waiter.origin for waiter in waiters.at(key, kind)] for kind in sorted(waiters.kinds(key))]
            for key in waiters.keys()  # noqa: SIM118 - it is no mapping
        },
        "ledger": msgspec.to_builtins(ledger),
    }
