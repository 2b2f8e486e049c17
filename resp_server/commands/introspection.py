"""COMMAND: the table of commands as clients read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from cluster.machine.glob import matcher
from cluster.machine.reply import CommandError, Members, Reply, Status, syntax_error
from resp_server.commands.command import NO_KEYS, Command
from resp_server.commands.help import help_for
from resp_server.commands.syntax import arguments
from resp_server.session import Session

if TYPE_CHECKING:
    from resp_server.commands.table import Route, Table

_FLAGS = ("loading", "stale")
_NO_KEYS = "The command has no key arguments"


def _statuses(words: Iterable[str]) -> Members:
    return Members(Status(word) for word in words)


def _access(command: Command) -> Members:
    """What a command does to its keys, in the terms of Redis's key specifications."""
    if "write" in command.flags:
        return _statuses(("RW", "access", "update"))
    return _statuses(("RO", "access") if "readonly" in command.flags else ("RO",))


def _key_specifications(command: Command) -> Members:
    keys = command.keys
    if not keys.first:
        return Members()
    last = keys.last if keys.last < 0 else keys.last - keys.first
    begin = {b"type": b"index", b"spec": {b"index": keys.count_at or keys.first}}
    find: dict[bytes, Any] = {b"type": b"range", b"spec": {b"lastkey": last, b"keystep": keys.step, b"limit": 0}}
    if keys.count_at:
        counted = {b"keynumidx": 0, b"firstkey": keys.first - keys.count_at, b"keystep": keys.step}
        find = {b"type": b"keynum", b"spec": counted}
    return Members([{b"flags": _access(command), b"begin_search": begin, b"find_keys": find}])


def entry(route: Route, table: Table) -> list[Any]:
    """A command as COMMAND INFO gives it: ten fields."""
    command = route.command
    flags = list(command.public_flags)
    keys = NO_KEYS if command.keys.count_at else command.keys  # as in Redis: these three cannot tell where they are
    return [
        command.full_name.encode(),
        command.arity,
        _statuses(flags),
        keys.first,
        keys.last,
        keys.step,
        _statuses(command.categories),
        Members(),
        _key_specifications(command),
        [entry(subroute, table) for subroute in table.subroutes(command)] or Members(),
    ]


def documentation(route: Route, table: Table) -> dict[bytes, Any]:
    """A command as COMMAND DOCS gives it."""
    command = route.command
    docs: dict[bytes, Any] = {
        b"summary": command.summary.encode(),
        b"since": command.since.encode(),
        b"group": command.group.encode(),
        b"complexity": command.complexity.encode(),
    }
    if command.syntax:
        docs[b"arguments"] = arguments(command.syntax)
    subroutes = table.subroutes(command)
    if subroutes:
        docs[b"subcommands"] = {
            subroute.command.full_name.encode(): documentation(subroute, table) for subroute in subroutes
        }
    return docs


def _chosen(session: Session, args: list[bytes]) -> Iterable[Route | None]:
    """The commands named from the third argument on, None for each that does not exist; all when none is named."""
    table = session.server.table
    return map(table.get, args[2:]) if len(args) > 2 else iter(table)


def _info(session: Session, args: list[bytes]) -> Reply:
    table = session.server.table
    return [None if route is None else entry(route, table) for route in _chosen(session, args)]


def _everything(session: Session, args: list[bytes]) -> Reply:
    return _info(session, [])


def _docs(session: Session, args: list[bytes]) -> Reply:
    table = session.server.table
    return {
        route.command.full_name.encode(): documentation(route, table)
        for route in _chosen(session, args)
        if route is not None
    }


def _count(session: Session, args: list[bytes]) -> Reply:
    return sum(1 for _ in session.server.table)


def _list(session: Session, args: list[bytes]) -> Reply:
    table = session.server.table
    if len(args) == 2:
        return [route.command.full_name.encode() for route in table]
    if len(args) != 5 or args[2].upper() != b"FILTERBY" or args[3].upper() not in _FILTERS:
        raise syntax_error()
    fits = _FILTERS[args[3].upper()](args[4])
    return [route.command.full_name.encode() for route in table.everything() if fits(route.command)]


def _of_module(name: bytes) -> Callable[[Command], bool]:
    return lambda _command: False


def _of_category(name: bytes) -> Callable[[Command], bool]:
    category = "@" + name.decode("utf-8", "surrogateescape").lower()
    return lambda command: category in command.categories


def _of_pattern(pattern: bytes) -> Callable[[Command], bool]:
    matches = matcher(pattern.lower())
    return lambda command: bool(matches(command.full_name.encode()))


_FILTERS: dict[bytes, Callable[[bytes], Callable[[Command], bool]]] = {
    b"MODULE": _of_module,
    b"ACLCAT": _of_category,
    b"PATTERN": _of_pattern,
}


def _keys_of(session: Session, call: list[bytes]) -> tuple[Command, list[bytes]]:
    table = session.server.table
    try:
        route = table.find(call)
    except CommandError:
        raise CommandError("Invalid command specified") from None
    command = route.command
    if not command.keys.first:
        raise CommandError(_NO_KEYS)
    if not command.arguments_min <= len(call) <= command.arguments_max:
        raise CommandError("Invalid number of arguments specified for command")
    keys = table.keys_of(route, call)
    if not keys:
        raise CommandError("Invalid arguments specified for command" if command.keys.count_at else _NO_KEYS)
    return command, keys


def _get_keys(session: Session, args: list[bytes]) -> Reply:
    return _keys_of(session, args[2:])[1]


def _get_keys_and_flags(session: Session, args: list[bytes]) -> Reply:
    command, keys = _keys_of(session, args[2:])
    return [[key, _access(command)] for key in keys]


_SUBCOMMANDS = (
    Command(
        name="COMMAND COUNT",
        arity=2,
        group="server",
        since="2.8.13",
        summary="Counts the commands.",
        reply="Integer.",
        flags=_FLAGS,
        more_categories=("connection",),
        example="COMMAND COUNT",
        serve=_count,
    ),
    Command(
        name="COMMAND INFO",
        arity=-2,
        group="server",
        since="2.8.13",
        summary="Describes commands for client libraries: arity, flags, where the keys stand.",
        syntax="[command-name [command-name ...]]",
        reply="Array of arrays of ten fields, null for each command that does not exist.",
        complexity="O(N) where N is the number of commands to look up",
        flags=_FLAGS,
        more_categories=("connection",),
        example="COMMAND INFO lock.acquire",
        serve=_info,
    ),
    Command(
        name="COMMAND DOCS",
        arity=-2,
        group="server",
        since="7.0.0",
        summary="Describes commands for people: what they do and what they take.",
        syntax="[command-name [command-name ...]]",
        reply="Map of commands, each a map.",
        complexity="O(N) where N is the number of commands to look up",
        flags=_FLAGS,
        more_categories=("connection",),
        example="COMMAND DOCS q.push",
        serve=_docs,
    ),
    Command(
        name="COMMAND GETKEYS",
        arity=-3,
        group="server",
        since="2.8.13",
        summary="Picks the keys out of a call.",
        syntax="command [arg [arg ...]]",
        reply="Array of keys.",
        complexity="O(N) where N is the number of arguments to the command",
        flags=_FLAGS,
        more_categories=("connection",),
        example="COMMAND GETKEYS MSET a 1 b 2",
        serve=_get_keys,
    ),
    Command(
        name="COMMAND GETKEYSANDFLAGS",
        arity=-3,
        group="server",
        since="7.0.0",
        summary="Picks the keys out of a call, each with what the command does to it.",
        syntax="command [arg [arg ...]]",
        reply="Array of pairs of a key and its flags.",
        complexity="O(N) where N is the number of arguments to the command",
        flags=_FLAGS,
        more_categories=("connection",),
        example="COMMAND GETKEYSANDFLAGS LOCK.RELEASE job worker-1",
        serve=_get_keys_and_flags,
    ),
    Command(
        name="COMMAND LIST",
        arity=-2,
        group="server",
        since="7.0.0",
        summary="Lists the names of commands, all or some.",
        syntax="[FILTERBY <MODULE module-name | ACLCAT category | PATTERN pattern>]",
        reply="Array of names.",
        complexity="O(N) where N is the number of commands",
        flags=_FLAGS,
        more_categories=("connection",),
        example="COMMAND LIST FILTERBY PATTERN q.*",
        serve=_list,
    ),
)

COMMANDS = (
    Command(
        name="COMMAND",
        arity=-1,
        group="server",
        since="2.8.13",
        summary="Describes all commands as `COMMAND INFO` does.",
        reply="Array of arrays of ten fields.",
        complexity="O(N) where N is the number of commands",
        flags=_FLAGS,
        more_categories=("connection",),
        serve=_everything,
        subcommands=(
            *_SUBCOMMANDS,
            help_for("COMMAND", _SUBCOMMANDS, group="server", since="5.0.0", more_categories=("connection",)),
        ),
    ),
)
