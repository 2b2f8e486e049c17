"""SLOWLOG: the commands that took longest."""

from __future__ import annotations

from cluster.machine.arguments import INTEGER_MAX, bounded
from cluster.machine.reply import OK, Reply
from resp_server.commands.command import Command, wrong_subcommand
from resp_server.commands.help import help_for
from resp_server.session import Session

COUNT_DEFAULT = 10

_FLAGS = ("admin", "loading", "stale")


def _get(session: Session, args: list[bytes]) -> Reply:
    calls = session.server.slowlog.calls
    count = COUNT_DEFAULT
    if len(args) > 3:
        raise wrong_subcommand(args)
    if len(args) > 2:
        count = bounded(args[2], -1, INTEGER_MAX, "count should be greater than or equal to -1")
    return [
        [call.id, call.unix_s, call.duration_us, call.args, call.address.encode(), call.name]
        for call, _ in zip(calls, range(len(calls) if count < 0 else count), strict=False)
    ]


def _length(session: Session, args: list[bytes]) -> Reply:
    return len(session.server.slowlog.calls)


def _reset(session: Session, args: list[bytes]) -> Reply:
    session.server.slowlog.calls.clear()
    return OK


_SUBCOMMANDS = (
    Command(
        name="SLOWLOG GET",
        arity=-2,
        group="server",
        since="2.2.12",
        summary="Returns the latest slow commands, 10 unless told otherwise, all for -1.",
        syntax="[count]",
        reply="Array of `[id, unix time, microseconds, arguments, client address, client name]`.",
        complexity="O(N) where N is the number of entries returned",
        flags=_FLAGS,
        example="SLOWLOG GET 25",
        serve=_get,
    ),
    Command(
        name="SLOWLOG LEN",
        arity=2,
        group="server",
        since="2.2.12",
        summary="Counts the slow commands that are kept.",
        reply="Integer.",
        flags=_FLAGS,
        example="SLOWLOG LEN",
        serve=_length,
    ),
    Command(
        name="SLOWLOG RESET",
        arity=2,
        group="server",
        since="2.2.12",
        summary="Forgets the slow commands.",
        reply="`OK`",
        complexity="O(N) where N is the number of entries in the slowlog",
        flags=_FLAGS,
        example="SLOWLOG RESET",
        serve=_reset,
    ),
)

COMMANDS = (
    Command(
        name="SLOWLOG",
        arity=-2,
        group="server",
        since="2.2.12",
        summary="Commands about what took longer than the setting `slowlog-log-slower-than`.",
        reply="Depends on the subcommand.",
        complexity="Depends on subcommand.",
        subcommands=(*_SUBCOMMANDS, help_for("SLOWLOG", _SUBCOMMANDS, group="server", since="6.2.0")),
    ),
)
