"""Three real nodes with their fronts, without sockets: messages are handed over, and time passes when told to."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from cluster.node import Node
from cluster.raft.core import Timing
from cluster.raft.membership import static
from cluster.raft.messages import Message
from cluster.storage import Identity, MemoryStorage
from resp_server.commands.table import Table
from resp_server.dispatch import Dispatcher
from resp_server.server import Server
from resp_server.session import Session
from resp_server.settings import Settings
from tests.front import START_MS, recover
from tests.unit.wire_front import Edge

STEP_MS = 10
PATIENCE_MS = 20_000
ADDRESSES = {"n1": "127.0.0.1:7001", "n2": "127.0.0.1:7002", "n3": "127.0.0.1:7003"}


class Member:
    """One node and what is in front of it."""

    def __init__(self, name: str) -> None:
        table = Table()
        self.storage = MemoryStorage()
        self.node = Node(
            table.machine_commands(),
            identity=Identity("c", name, f"disk of {name}"),
            boot="b",
            timing=Timing(),
            chance=Random(name),
            members=static(ADDRESSES),
            address=ADDRESSES[name],
        )
        recover(self.node, self.storage)
        self.server = Server(self.node, table, Settings(), Edge(), run_id="r")
        self.dispatcher = Dispatcher(self.server)

    def turn(self, now_ms: int, mail: list[tuple[str, Message]]) -> list[tuple[str, Message]]:
        """One turn as the reactor takes it; what it sends."""
        node, dispatcher = self.node, self.dispatcher
        node.advance(START_MS + now_ms, now_ms)
        for peer, message in mail:
            node.receive(peer, message)
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
            self.storage.append(work.entries, [] if work.hard_state is None else [work.hard_state])
            node.persisted(work)
        self.dispatcher.deliver(node.apply())
        if self.server.acknowledgements.waiting:
            self.dispatcher.deliver(self.server.acknowledgements.look())


class ThreeNodes:
    """The cluster; a node in ``cut`` neither hears nor is heard."""

    def __init__(self) -> None:
        self.members = {name: Member(name) for name in ADDRESSES}
        self.cut: set[str] = set()
        self._mail: dict[str, list[tuple[str, Message]]] = {name: [] for name in ADDRESSES}
        self._now_ms = 0
        self.until(lambda: all(member.node.has_leader for member in self.members.values()))
        self.pass_time(500)  # everybody has met everybody

    def pass_time(self, for_ms: int) -> None:
        """Time passes for all nodes."""
        for _ in range(0, for_ms, STEP_MS):
            self._now_ms += STEP_MS
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
            mail, self._mail[name] = self._mail[name], []
            for peer, message in member.turn(self._now_ms, mail):
                if not self.cut & {name, peer}:
                    self._mail[peer].append((name, message))

    @property
    def leader(self) -> str:
        """Who leads, as the leader says."""
        (name,) = [name for name, one in self.members.items() if name not in self.cut and one.node.raft.leading]
        return name

    @property
    def followers(self) -> list[str]:
        """The others."""
        return [name for name in ADDRESSES if name != self.leader]

    def connect(self, name: str) -> Session:
        """A new client of a node."""
        return self.members[name].server.connect("127.0.0.1:50000", ADDRESSES[name])

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
