"""One node's front: its clients, settings and statistics, around one `Node`.

Everything a local command may look at or change is here. What needs sockets,
disks or the life of the process is asked of the `Edge`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from cluster.machine.reply import CommandError
from cluster.machine.transactions import unwatch
from cluster.node import Node
from cluster.ring.slots import slot_of
from cluster.shard import Shard
from resp_server.acknowledgements import Acknowledgements
from resp_server.commands.table import Table
from resp_server.fullness import Fullness
from resp_server.large_payloads import LargePayloads
from resp_server.observers import Observers
from resp_server.peering import Listener, Sayings
from resp_server.session import Session
from resp_server.settings import Settings
from resp_server.undelivered import Undelivered

ARGUMENTS_LOGGED_MAX = 32
ARGUMENT_LOGGED_BYTES_MAX = 128


class Edge(Protocol):
    """What the front asks of the program around it."""

    def close(self, session: Session) -> None:
        """Closes the client's connection, once what it is owed has been sent if it is the one being served."""
        ...

    def stop(self, *, checkpoint: bool) -> None:
        """Ends the program gracefully (SHUTDOWN)."""
        ...

    def start_checkpoint(self) -> bool:
        """Starts a checkpoint (BGSAVE); whether none was under way."""
        ...

    def settings_changed(self, name: str) -> None:
        """CONFIG SET changed a setting the edge may care about."""
        ...

    def unsent_bytes(self, session: Session) -> int:
        """What the client was sent but has not taken yet."""
        ...

    def adopt_peer(self, session: Session, peer: str, address: str) -> None:
        """The client proved to be another node, reached at ``address``: what follows on its connection is messages."""
        ...


@dataclass(slots=True)
class Stats:
    """Counts since the start or CONFIG RESETSTAT."""

    connections: int = 0
    rejected_connections: int = 0
    commands: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    input_bytes: int = 0
    output_bytes: int = 0
    commits: int = 0
    commit_failures: int = 0
    output_limit_disconnections: int = 0
    lapse_disconnections: int = 0
    peer_messages_sent: int = 0
    peer_messages_received: int = 0

    def count_error(self, error: CommandError) -> None:
        """One more error reply with this code."""
        self.errors[error.code] = self.errors.get(error.code, 0) + 1


@dataclass(slots=True)
class Saving:
    """What INFO persistence tells of checkpoints."""

    under_way: bool = False
    last_ok: bool = True
    last_unix_s: int = 0
    last_duration_s: float = -1.0
    started_monotonic_s: float = 0.0

    def begin(self) -> None:
        """A checkpoint starts."""
        self.under_way = True
        self.started_monotonic_s = time.monotonic()

    def end(self, *, ok: bool) -> None:
        """It is in force, or it failed."""
        self.under_way = False
        self.last_ok = ok
        self.last_duration_s = time.monotonic() - self.started_monotonic_s
        if ok:
            self.last_unix_s = int(time.time())


class SlowCall(NamedTuple):
    """One entry of SLOWLOG."""

    id: int
    unix_s: int
    duration_us: int
    args: list[bytes]
    address: str
    name: bytes


class SlowLog:
    """The calls that took longest, newest first (SLOWLOG)."""

    def __init__(self, threshold_us: int, length_max: int) -> None:
        self._next_id = 0
        self.calls: deque[SlowCall] = deque()
        self.configure(threshold_us, length_max)

    def configure(self, threshold_us: int, length_max: int) -> None:
        """Takes over ``slowlog-log-slower-than`` (negative: off) and ``slowlog-max-len``."""
        self.threshold_us = threshold_us
        self.calls = deque(self.calls, maxlen=length_max)

    @property
    def watches_everything(self) -> bool:
        """Whether even commands of constant time must be timed: a threshold they could pass."""
        return 0 <= self.threshold_us < 1000

    def note(self, session: Session, args: list[bytes], duration_us: int) -> None:
        """Keeps a call that took ``duration_us`` if that is too long."""
        if self.threshold_us < 0 or duration_us < self.threshold_us:
            return
        call = SlowCall(self._next_id, int(time.time()), duration_us, _shortened(args), session.address, session.name)
        self._next_id += 1
        self.calls.appendleft(call)


def _shortened(args: list[bytes]) -> list[bytes]:
    """Arguments as the slow log keeps them: at most 32, of at most 128 bytes each."""
    kept = args if len(args) <= ARGUMENTS_LOGGED_MAX else args[: ARGUMENTS_LOGGED_MAX - 1]
    shown = [
        arg
        if len(arg) <= ARGUMENT_LOGGED_BYTES_MAX
        else arg[:ARGUMENT_LOGGED_BYTES_MAX] + b"... (%d more bytes)" % (len(arg) - ARGUMENT_LOGGED_BYTES_MAX)
        for arg in kept
    ]
    if kept is not args:
        shown.append(b"... (%d more arguments)" % (len(args) - len(kept)))
    return shown


class Server:
    """The node as its commands see it.

    ``refusal`` is the error every write gets while the disk takes none.
    """

    def __init__(self, node: Node, table: Table, settings: Settings, edge: Edge, run_id: str) -> None:
        self.node = node
        self.table = table
        self.settings = settings
        self.edge = edge
        self.run_id = run_id
        self.acknowledgements = Acknowledgements(node)
        self.fullness = Fullness(node)
        self.large_payloads = LargePayloads()
        self.observers = Observers(self)
        self.undelivered = Undelivered(self)
        self.clients: dict[int, Session] = {}
        self.handshakes: dict[int, Listener] = {}  # by client: those that say they are nodes
        self.refusals = Sayings()  # of nodes that were not taken as peers
        self.refusal: CommandError | None = None
        self.stats = Stats()
        self.saving = Saving()
        self.slowlog = SlowLog(settings.slowlog_log_slower_than, settings.slowlog_max_len)
        self.started_monotonic_s = time.monotonic()
        self.port = settings.port
        self.on_refusal: Callable[[], None] = lambda: None
        self._next_client_id = 1

    def refuse_writes(self, error: CommandError | None) -> None:
        """From now on every write gets ``error``; None: writes are taken again."""
        self.refusal = error
        self.on_refusal()

    def connect(self, address: str, local_address: str) -> Session:
        """A new client."""
        session = Session(self, self.next_id(), address, local_address, self.now_ms())
        self.clients[session.id] = session
        self.stats.connections += 1
        return session

    def next_id(self) -> int:
        """A number for a session, which no other one of this run has."""
        number = self._next_client_id
        self._next_client_id += 1
        return number

    def disconnect(self, session: Session) -> None:
        """The client is gone: what ends with its session ends, at the latest when the log allows."""
        if session.closed:
            return
        self.undelivered.left(session)
        session.closed = session.closing = True
        session.settle()
        del self.clients[session.id]
        self.handshakes.pop(session.id, None)
        self.observers.leave(session)
        session.backlog.clear()
        session.places.clear()
        session.out.clear()
        for number in session.shards:
            if self.may_lose(session, number):
                self.shard(number).end_session(session.origin)

    def may_lose(self, session: Session, number: int) -> bool:
        """Whether a shard may hold something that ends with the session."""
        under_way = bool(session.pending) or session.waiting or session.unsure
        return under_way or self.shard(number).knows_session(session.origin)

    def unwatch(self, session: Session) -> None:
        """Ends the watches of a session that is owed nothing (UNWATCH, DISCARD, RESET), as soon as the log allows."""
        watched, session.watched = session.watched, None
        if watched is not None and watched.knows_session(session.origin):
            self.shard(watched.number).submit(None, unwatch, [b"UNWATCH"], origin=session.origin)

    def shard(self, number: int) -> Shard:
        """A shard, ready to be used in this turn."""
        shard = self.node.shards[number]
        self.node.touch(shard)
        return shard

    def shard_of(self, key: bytes) -> Shard:
        """The shard a key is in, ready to be used in this turn."""
        return self.shard(self.node.slot_shard[slot_of(key)])

    def session_of(self, origin: bytes) -> Session | None:
        """The client a wake-up of the log is meant for, if it is still connected here."""
        session = self.clients.get(int(origin.rpartition(b".")[2]))
        return session if session is not None and session.origin == origin else None

    @property
    def secret(self) -> str:
        """What other nodes must know: the cluster's secret, else the clients' password: PEER is no way past it."""
        return self.settings.cluster_secret or self.settings.requirepass

    @staticmethod
    def now_ms() -> int:
        """Wall-clock time, for people to read."""
        return time.time_ns() // 1_000_000
