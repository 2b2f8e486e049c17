"""The HELP subcommand of a container command, made from the records of the others."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.machine.reply import Reply, Status
from resp_server.commands.command import Command
from resp_server.session import Session


def help_for(
    container: str, subcommands: Sequence[Command], *, group: str, since: str, more_categories: tuple[str, ...] = ()
) -> Command:
    """``container HELP``: each subcommand's syntax and summary, a line each, as Redis lays them out."""
    lines = [f"{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"]
    for command in subcommands:
        word = command.name.removeprefix(f"{container} ")
        lines += [f"{word} {command.syntax}".rstrip(), f"    {command.summary}"]
    lines += ["HELP", "    Print this help."]
    reply = [Status(line) for line in lines]

    def serve(_session: Session, _args: list[bytes]) -> Reply:
        return reply

    return Command(
        name=f"{container} HELP",
        arity=2,
        group=group,
        since=since,
        summary=f"Lists the subcommands of {container}.",
        reply="Array of lines.",
        flags=("loading", "stale"),
        more_categories=more_categories,
        example=f"{container} HELP",
        serve=serve,
    )
