"""One client's state, without its socket.

A session owns what a client set up (name, protocol, an open transaction), the
replies it is owed and the commands it sent that cannot run yet. `dispatch`
moves commands through it; the edge carries bytes to and from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.machine.reply import Reply
from resp_server.protocol.replies import Encoder, resp2, resp3

if TYPE_CHECKING:
    from resp_server.commands.table import Route
    from resp_server.server import Server


ARGUMENT_BYTES = 40
"""About what keeping an argument takes beside its own bytes."""


class Transaction:
    """The commands between MULTI and EXEC; ``failed`` once one of them could not be queued."""

    __slots__ = ("commands", "failed", "size_bytes")

    def __init__(self) -> None:
        self.commands: list[tuple[Route, list[bytes]]] = []
        self.failed = False
        self.size_bytes = 0  # of their arguments

    def add(self, route: Route, args: list[bytes]) -> None:
        """Queues a command."""
        self.commands.append((route, args))
        self.size_bytes += sum(map(len, args)) + ARGUMENT_BYTES * len(args)


class Session:
    """A client as the commands see it.

    ``out`` collects encoded replies for the edge to send. ``pending`` counts
    commands in the log whose answers are outstanding: while there are any, all
    that follows on the connection goes through the log too, so replies keep
    their order. ``held`` stops everything behind a command that may have to
    wait; what arrives meanwhile is kept in ``backlog``, and in ``broken`` the
    error of a protocol broken behind it.
    """

    __slots__ = (
        "address",
        "authenticated",
        "backlog",
        "broken",
        "closed",
        "closing",
        "created_ms",
        "encode",
        "glutted",
        "held",
        "id",
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
        "plain",
        "protocol",
        "reply_mode",
        "server",
        "transaction",
        "waiting",
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
        self.held = False
        self.glutted = False  # held because it asks for more than it reads
        self.waiting = False
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
        self.last_command = ""
        self.no_evict = False
        self.no_touch = False
        self.settle()

    def settle(self) -> None:
        """Call after changing whatever decides how a command is taken and answered."""
        self.encode: Encoder = resp3 if self.protocol == 3 else resp2
        self.plain = (
            self.authenticated
            and self.transaction is None
            and self.reply_mode == "on"
            and not self.held
            and not self.closing
        )

    def answer(self, reply: Reply) -> None:
        """Adds one reply to what the client is owed, unless it asked for silence."""
        if self.reply_mode == "on":
            self.out.append(self.encode(reply))
        elif self.reply_mode == "skipping":
            self.reply_mode = "on"
            self.settle()
        elif self.reply_mode == "skip":
            self.reply_mode = "skipping"
