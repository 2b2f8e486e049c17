"""``docs/commands.md``, made from the command table: ``python -m resp_server.documentation > docs/commands.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from resp_server.commands.command import Command
from resp_server.commands.table import Table

TITLES = {
    "lock": "Locks",
    "semaphore": "Semaphores",
    "latch": "Latches",
    "election": "Elections",
    "queue": "Queues",
    "cache": "Cache",
    "string": "Strings",
    "generic": "Keys",
    "transactions": "Transactions",
    "connection": "Connection",
    "server": "Server",
    "cluster": "Cluster",
    "raft": "Raft",
}
"""Headings of the groups, in the order of the page; one that is missing here comes last, under its own name."""

_OURS = frozenset({"lock", "semaphore", "latch", "election", "queue", "cache", "raft"})
_HEAD = """# Commands

Made from the command table by `python -m resp_server.documentation`: change the records in `resp_server/commands/`.
`[x]` may be left out, `<x | y>` is one of them, `...` is more of the same. Names and options are read in any case.
"""


def render() -> str:
    """The whole page, as Markdown."""
    groups: dict[str, list[Command]] = {name: [] for name in TITLES}
    for route in Table().everything():
        groups.setdefault(route.command.group, []).append(route.command)
    groups = {name: commands for name, commands in groups.items() if commands}
    contents = "\n".join(f"- [{_title(name)}](#{_title(name).lower()})" for name in groups)
    sections = (f"## {_title(name)}\n\n{''.join(_entries(commands))}" for name, commands in groups.items())
    return "\n".join([_HEAD, contents, "", *sections]).rstrip() + "\n"


def _title(group: str) -> str:
    return TITLES.get(group, group.capitalize())


def _entries(commands: list[Command]) -> Iterator[str]:
    """The commands of one group by name; containers and their HELP have nothing to say of their own."""
    for command in sorted(commands, key=lambda one: one.name):
        if not command.name.endswith(" HELP") and (not command.subcommands or command.serve is not None):
            yield _entry(command)


def _entry(command: Command) -> str:
    origin = "" if command.group in _OURS else f" In Redis since {command.since}."
    lines = [
        f"### `{f'{command.name} {command.syntax}'.rstrip()}`",
        "",
        command.summary,
        "",
        f"- Reply: {command.reply}",
        f"- Time: {command.complexity.rstrip('.')}.{origin}",
    ]
    if command.example:
        lines.append(f"- Example: `{command.example}`")
    return "\n".join([*lines, "", ""])


if __name__ == "__main__":
    sys.stdout.write(render())
