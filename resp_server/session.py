"""One client's state, without its socket.

A session owns what a client set up (name, protocol, an open transaction), the
replies it is owed and the commands it sent that cannot run yet. `dispatch`
moves commands through it; the edge carries bytes to and from it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from cluster.machine.reply import Reply
from resp_server.protocol.replies import Encoder, resp2, resp3

if TYPE_CHECKING:
    from cluster.shard import Shard
    from resp_server.commands.table import Route
    from resp_server.partitions import Awaiting
    from resp_server.places import Place
    from resp_server.server import Server


ARGUMENT_BYTES = 40
"""About what keeping an argument takes beside its own bytes."""


class Transaction:
    """The commands between MULTI and EXEC; ``failed`` once one of them could not be queued.

    ``shard`` is where all their keys are, None while there are none.
    """

    __slots__ = ("commands", "failed", "shard", "size_bytes")

    def __init__(self) -> None:
        self.commands: list[tuple[Route, list[bytes]]] = []
        self.failed = False
        self.shard: int | None = None
        self.size_bytes = 0  # of their arguments

    @property
    def in_shard(self) -> list[tuple[Route, list[bytes]]]:
        """The commands that are carried out in the shard, not by this node."""
        return [(route, args) for route, args in self.commands if not route.local]

    def add(self, route: Route, args: list[bytes]) -> None:
        """Queues a command."""
        self.commands.append((route, args))
        self.size_bytes += sum(map(len, args)) + ARGUMENT_BYTES * len(args)


class Session:
    """A client as the commands see it.

    ``out`` collects encoded replies for the edge to send. ``pending`` counts
    commands whose answers are outstanding. While they are all at one shard, its
    ``lane``, they are answered in their order, and what follows there goes
    behind them, so replies keep their order; ``places`` are those of them that
    came after one at another shard (places.py). ``held`` stops everything behind
    a command that may have to wait; what arrives meanwhile is kept in
    ``backlog``, and in ``broken`` the error of a protocol broken behind it.

    ``shards`` are those that may know of the session something that ends with
    it, by number, and since when at the earliest, in monotonic milliseconds;
    ``unsure`` says that what became of some command is not known, so that this
    node cannot tell. ``watched`` is the shard it watches keys in, ``written`` the
    one it wrote to last, where there are several.
    """

    __slots__ = (
        "address",
        "authenticated",
        "awaiting",
        "backlog",
        "broken",
        "closed",
        "closing",
        "created_ms",
        "encode",
        "executing",
        "glutted",
        "held",
        "id",
        "lane",
        "last_active_ms",
        "last_command",
        "library_name",
        "library_version",
        "local_address",
        "name",
        "no_evict",
        "no_touch",
        "origin",
        "out",
        "out_bytes",
        "pending",
        "places",
        "plain",
        "popped",
        "protocol",
        "readonly",
        "reply_mode",
        "server",
        "shards",
        "simple",
        "transaction",
        "unsure",
        "waiting",
        "watched",
        "written",
    )

    def __init__(self, server: Server, id: int, address: str, local_address: str, now_ms: int) -> None:
        self.server = server
        self.id = id
        self.origin = server.node.origin(id)
        self.address = address
        self.local_address = local_address
        self.created_ms = now_ms
        self.last_active_ms = now_ms
        self.out: list[bytes] = []
        self.out_bytes = 0  # of large replies only: enough to stop a client that asks for more than it reads
        self.backlog: list[list[bytes]] = []
        self.broken: bytes | None = None
        self.pending = 0
        self.lane: Shard = server.node.shards[0]
        self.places: deque[Place] = deque()
        self.shards: dict[int, float] = {}
        self.unsure = False
        self.watched: Shard | None = None
        self.popped: bytes | None = None  # the queue of its last Q.POP, unless that is in parts
        self.written: Shard = self.lane
        self.executing = False  # local commands of a transaction, where nobody may wait
        self.held = False
        self.glutted = False  # held because it asks for more than it reads
        self.waiting = False
        self.awaiting: Awaiting | None = None  # the parts of a queue in which it waits
        self.closing = False  # close once everything is sent
        self.closed = False
        self.reset()

    def reset(self) -> None:
        """Back to how the session was when it connected (RESET); replies owed stay owed."""
        self.authenticated = not self.server.settings.requirepass
        self.protocol = 2
        self.transaction: Transaction | None = None
        self.reply_mode = "on"  # on, off, skip (the reply to come), skipping (this one)
        self.name = b""
        self.library_name = b""
        self.library_version = b""
        self.readonly = False  # READONLY: reads need not be asked of the leader
        self.last_command = ""
        self.no_evict = False
        self.no_touch = False
        self.settle()

    def settle(self) -> None:
        """Call after changing whatever decides how a command is taken and answered.

        ``simple``: commands may go the fast way; ``plain``: and are answered in the order in which shards answer.
        """
        self.encode: Encoder = resp3 if self.protocol == 3 else resp2
        self.simple = (
            self.authenticated
            and self.transaction is None
            and self.reply_mode == "on"
            and not self.held
            and not self.closing
        )
        self.plain = self.simple and not self.places

    @property
    def blocked(self) -> bool:
        """Whether it waits for something to come."""
        return self.waiting or self.awaiting is not None

    def known_to(self, shard: Shard) -> bytes:
        """The session's name in the log of a shard that may hold something of it from now on."""
        self.shards.setdefault(shard.number, self.server.node.monotonic_ms)
        return self.origin

    def answer(self, reply: Reply) -> None:
        """Adds one reply to what the client is owed, unless it asked for silence."""
        if self.reply_mode == "on":
            self.out.append(self.encode(reply))
        elif self.reply_mode == "skipping":
            self.reply_mode = "on"
            self.settle()
        elif self.reply_mode == "skip":
            self.reply_mode = "skipping"
