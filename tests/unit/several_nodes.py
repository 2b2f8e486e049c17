"""Some real nodes with their fronts, without sockets: messages are handed over, and time passes when told to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import TypeAlias

from cluster.node import Node
from cluster.raft.core import Timing
from cluster.raft.membership import static
from cluster.raft.messages import Message
from cluster.shard import Shard
from cluster.status import ring_of
from cluster.storage import Identity, MemoryStorage
from resp_server.commands.table import Table
from resp_server.dispatch import Dispatcher
from resp_server.lapses import Lapses
from resp_server.server import Server
from resp_server.session import Session
from resp_server.settings import Settings
from tests.front import START_MS, recover
from tests.unit.wire_front import Edge

STEP_MS = 10
PATIENCE_MS = 20_000
ADDRESSES = {f"n{number}": f"127.0.0.1:700{number}" for number in range(1, 10)}

Mail: TypeAlias = "list[tuple[str, int, Message]]"
"""From whom or to whom, about which shard, what."""


class Member:
    """One node and what is in front of it; ``closed`` are clients it closed because it was cut off, and when."""

    def __init__(
        self, name: str, addresses: dict[str, str], shards: int, session_timeout_ms: int, replicas: int = 3
    ) -> None:
        table = Table()
        self.storage = MemoryStorage()
        self.node = Node(
            table.machine_commands(),
            identity=Identity("c", name, f"disk of {name}", shards, replicas),
            boot="b",
            timing=Timing(),
            chance=Random(name),
            members=static(addresses),
            address=ADDRESSES[name],
            session_timeout_ms=session_timeout_ms,
        )
        recover(self.node, self.storage)
        self.server = Server(self.node, table, Settings(), Edge(), run_id="r")
        self.dispatcher = Dispatcher(self.server)
        self.lapses = Lapses(self.server)
        self.closed: dict[Session, int] = {}

    def turn(self, now_ms: int, mail: Mail) -> Mail:
        """One turn as the reactor takes it; what it sends."""
        node, dispatcher = self.node, self.dispatcher
        node.advance(START_MS + now_ms, now_ms)
        for peer, number, message in mail:
            node.receive(peer, number, message)
        for session in self.lapses.look(now_ms) if now_ms >= self.lapses.next_ms else ():
            self.server.disconnect(session)
            self.closed[session] = now_ms
        self._settle()
        while dispatcher.resumed:
            resumed, dispatcher.resumed = dispatcher.resumed, []
            for session in resumed:
                dispatcher.resume(session)
            self._settle()
        dispatcher.outbox.clear()
        return node.outgoing()

    def _settle(self) -> None:
        node = self.node
        node.tick()
        work = node.ready()
        if work is not None:
            self.storage.append(work.entries, work.hard_states)
            node.persisted(work)
        self.dispatcher.deliver(node.apply())
        if self.server.acknowledgements.waiting:
            self.dispatcher.deliver(self.server.acknowledgements.look())


class SeveralNodes:
    """The cluster, once every shard has the leader it should have.

    A node in ``cut`` neither hears nor is heard; nothing goes the ways in ``cut_ways``, and to one in ``deaf`` no such
    message; one in ``stopped`` does nothing, and what is sent to it waits. ``session_timeouts_ms`` are of those nodes
    that have their own.
    """

    def __init__(
        self,
        count: int = 3,
        shards: int = 1,
        session_timeout_ms: int = 10_000,
        session_timeouts_ms: Mapping[str, int] = MappingProxyType({}),
        replicas: int = 3,
    ) -> None:
        self.addresses = dict(list(ADDRESSES.items())[:count])
        self.members = {
            name: Member(name, self.addresses, shards, session_timeouts_ms.get(name, session_timeout_ms), replicas)
            for name in self.addresses
        }
        self.cut: set[str] = set()
        self.cut_ways: set[tuple[str, str]] = set()
        self.deaf: dict[str, type[Message]] = {}
        self.stopped: set[str] = set()
        self._mail: dict[str, Mail] = {name: [] for name in self.addresses}
        self.now_ms = 0
        self.until(self._settled)
        self.pass_time(500)  # everybody has met everybody

    def _settled(self) -> bool:
        rows = [row for member in self.members.values() for row in ring_of(member.node)]
        return all(row.leader is not None and row.leader == row.preferred for row in rows)

    def pass_time(self, for_ms: int) -> None:
        """Time passes for all nodes."""
        for _ in range(0, for_ms, STEP_MS):
            self.now_ms += STEP_MS
            self._exchange()

    def until(self, condition: Callable[[], object]) -> None:
        """Lets time pass until something is so."""
        for _ in range(0, PATIENCE_MS, STEP_MS):
            if condition():
                return
            self.pass_time(STEP_MS)
        raise AssertionError("it did not come to be so")

    def _exchange(self) -> None:
        for name, member in self.members.items():
            if name in self.stopped:
                continue
            mail, self._mail[name] = self._mail[name], []
            for peer, number, message in member.turn(self.now_ms, mail):
                lost = type(message) is self.deaf.get(peer)
                if not (lost or self.cut & {name, peer} or (name, peer) in self.cut_ways):
                    self._mail[peer].append((name, number, message))

    def leader_of(self, number: int) -> str:
        """Who leads a shard, as the leader says."""
        there = {name: member.node.each() for name, member in self.members.items() if name not in self.cut}
        (name,) = [
            name for name, shards in there.items() for shard in shards if shard.number == number and shard.raft.leading
        ]
        return name

    @property
    def leader(self) -> str:
        """Who leads the first shard."""
        return self.leader_of(0)

    @property
    def followers(self) -> list[str]:
        """The others."""
        return [name for name in self.addresses if name != self.leader]

    def connect(self, name: str) -> Session:
        """A new client of a node."""
        return self.members[name].server.connect("127.0.0.1:50000", self.addresses[name])

    def send(self, session: Session, *calls: str) -> bytes:
        """Sends a pipeline, lets the nodes talk for a while, and gives what the client receives by then."""
        commands = [[word.encode() for word in call.split()] for call in calls]
        self.members[session.server.node.name].dispatcher.execute(session, commands)
        for _ in range(10):
            self._exchange()
        return self.received(session)

    def ask(self, name: str, call: str) -> bytes:
        """One call of a new client."""
        return self.send(self.connect(name), call)

    @staticmethod
    def received(session: Session) -> bytes:
        """What the client has received since the last look."""
        received = b"".join(session.out)
        session.out.clear()
        return received


def hand_over(cluster: SeveralNodes, leader: str, successor: str) -> Shard:
    """Has a node ask another to lead the shard; that one's."""
    node = cluster.members[leader].node
    node.stir(node.shards[0])
    leading = node.shards[0].raft.leading
    assert leading is not None
    leading.hand_over(successor)
    return cluster.members[successor].node.shards[0]
