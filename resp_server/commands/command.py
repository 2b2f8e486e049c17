"""The record that describes one command, and what is derived from it.

A command is carried out by the replicated machine (``run``, a handler from
`cluster.machine`) or by the node the client is connected to (``serve``); one
that reads or writes and has both, by ``serve`` on the node that is asked if it
has the shard, and by ``run`` on every other.
Arity checks, routing, COMMAND and its subcommands, HELP and
``docs/commands.md`` all come from these records; nothing is listed twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from cluster.machine.arguments import integer
from cluster.machine.machine import Handler, Retry
from cluster.machine.reply import CommandError, Reply

if TYPE_CHECKING:
    from resp_server.commands.spreading import Spread
    from resp_server.places import Finish, Place
    from resp_server.server import Server
    from resp_server.session import Session

Serve: TypeAlias = "Callable[[Session, list[bytes]], Reply]"
Follow: TypeAlias = "Callable[[Session, list[bytes]], Finish | None]"


class Asking(Protocol):
    """Gives the client the place in which it will be answered; ``finish`` makes of what comes what it gets."""

    def __call__(self, finish: Finish | None = None) -> Place:
        """The place."""


Through: TypeAlias = "Callable[[Server, list[bytes], Asking], Reply]"
Prepare: TypeAlias = "Callable[[Server, list[bytes]], list[bytes]]"


PLAINLY: Reply = object()  # type: ignore[assignment]
"""What a `Command.through` says of a call that is to be carried out as any other."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Where a command's keys stand: every ``step``-th argument from ``first`` to ``last`` (negative: from the end).

    With ``count_at``, the argument there says how many keys stand from ``first``
    on; a call where that makes no sense has none, and is refused by who carries it out.
    """

    first: int = 0
    last: int = 0
    step: int = 0
    count_at: int = 0

    def positions(self, args: list[bytes]) -> list[int]:
        """The positions of the keys in one call."""
        if not self.first:
            return []
        last = self.last if self.last >= 0 else len(args) + self.last
        if self.count_at:
            counted = self._counted(args)
            last = self.first + counted - 1 if self.first + counted <= len(args) else 0
        return list(range(self.first, last + 1, self.step))

    def _counted(self, args: list[bytes]) -> int:
        try:
            return integer(args[self.count_at])
        except (CommandError, IndexError):
            return 0


NO_KEYS = Keys()
ONE_KEY = Keys(1, 1, 1)
TWO_KEYS = Keys(1, 2, 1)
ALL_KEYS = Keys(1, -1, 1)
COUNTED_KEYS = Keys(2, 0, 1, count_at=1)
"""``numkeys key [key ...]``, as many commands of Redis have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command.

    ``arity`` counts the name, negative for "at least", as in Redis. ``flags``
    are Redis's: ``write`` puts a machine command in the log, ``readonly`` runs
    it on the leader's state, ``fast``, ``blocking``, ``noauth``, ``admin`` …;
    our own are ``session``, its log entry names the client's session, and
    ``logged``, it goes through the log although it writes no key.
    ``through`` carries it out by way of the node's cache, outside of a transaction: it
    answers, or takes the client's place to be answered there, and says `WAITING`, or `PLAINLY`.
    ``prepare`` gives a call's arguments as they go into the log, or raises.
    ``follow`` gives what this node does with the answer of a call outside of a
    transaction before the client gets it, None for nothing, or raises. One
    that ``ends_transaction``, or would begin another, is carried out at once
    instead of being queued in it. One that stands ``alone`` waits until all
    before it on its connection is answered, because it changes how the client's
    commands or replies are treated. A ``careful`` one is more than a write where there are several shards.
    ``spread`` says how it is carried out when it may concern several shards;
    without it all its keys must be in one. ``inner_at`` is where the name of
    another command stands among its arguments, whose keys are its keys too.
    ``more_categories`` are ACL categories that neither flags nor group bring.
    ``syntax`` is what follows the name; ``reply`` and ``example`` are prose for
    the documentation.
    """

    name: str
    arity: int
    group: str
    summary: str
    syntax: str = ""
    reply: str
    since: str = "1.0.0"
    complexity: str = "O(1)"
    flags: tuple[str, ...] = ()
    keys: Keys = NO_KEYS
    more_categories: tuple[str, ...] = ()
    example: str = ""
    run: Handler | None = None
    retry: Retry | None = None
    serve: Serve | None = None
    through: Through | None = None
    prepare: Prepare | None = None
    follow: Follow | None = None
    spread: Spread | None = None
    inner_at: int = 0
    ends_transaction: bool = False
    alone: bool = False
    careful: bool = False
    subcommands: tuple[Command, ...] = ()

    @property
    def full_name(self) -> str:
        """The name as Redis's errors and COMMAND spell it: lower case, ``container|subcommand``."""
        return self.name.lower().replace(" ", "|")

    @property
    def arguments_min(self) -> int:
        """The least number of arguments, the name included."""
        return abs(self.arity)

    @property
    def arguments_max(self) -> int:
        """The greatest number of arguments, the name included."""
        return self.arity if self.arity > 0 else 1 << 62

    @property
    def logged(self) -> bool:
        """Whether it goes through the log."""
        return self.run is not None and not {"write", "logged"}.isdisjoint(self.flags)

    @property
    def local(self) -> bool:
        """Whether the node that is asked answers it by itself, without the state of a shard."""
        return self.run is None or (self.serve is not None and {"write", "readonly"}.isdisjoint(self.flags))

    @property
    def public_flags(self) -> tuple[str, ...]:
        """The flags that are Redis's too."""
        return tuple(flag for flag in self.flags if flag not in ("logged", "session"))

    @property
    def categories(self) -> tuple[str, ...]:
        """Its ACL categories, as Redis derives them from flags and group; a mere container has none of its own."""
        flags = self.flags
        found = [name for flag, name in _CATEGORY_OF_FLAG if flag in flags]
        if self.group in _CATEGORY_OF_GROUP and not (self.subcommands and self.run is None and self.serve is None):
            found.append(_CATEGORY_OF_GROUP[self.group])
        found += self.more_categories
        if "admin" in flags:
            found.append("dangerous")
        found.append("fast" if "fast" in flags else "slow")
        return tuple(f"@{name}" for name in sorted(set(found), key=CATEGORIES.index))


CATEGORIES = (
    "keyspace", "read", "write", "string", "lock", "semaphore", "latch", "election", "queue", "cache", "pubsub",
    "admin", "fast", "slow", "blocking", "dangerous", "connection", "transaction",
)  # fmt: skip
"""ACL categories in the order Redis lists them, with ours among the types."""

_CATEGORY_OF_FLAG = (
    ("write", "write"),
    ("readonly", "read"),
    ("blocking", "blocking"),
    ("admin", "admin"),
    ("pubsub", "pubsub"),
    ("dangerous", "dangerous"),
)

_CATEGORY_OF_GROUP = {
    "string": "string",
    "generic": "keyspace",
    "connection": "connection",
    "transactions": "transaction",
    "lock": "lock",
    "semaphore": "semaphore",
    "latch": "latch",
    "election": "election",
    "queue": "queue",
    "cache": "cache",
}


def wrong_arity(name: str) -> CommandError:
    """Redis's error for a call with too few or too many arguments."""
    return CommandError(f"wrong number of arguments for '{name}' command")


def wrong_subcommand(args: list[bytes]) -> CommandError:
    """Redis's error for a subcommand that takes fewer arguments than it was given."""
    container = args[0].upper().decode("utf-8", "surrogateescape")
    word = args[1][:128].decode("utf-8", "surrogateescape")
    return CommandError(f"unknown subcommand or wrong number of arguments for '{word}'. Try {container} HELP.")
