"""ACL, as far as it is true here: one user, ``default``, who may do everything."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cluster.machine.reply import CommandError, Reply
from resp_server.commands.command import CATEGORIES, Command, wrong_subcommand
from resp_server.commands.connection import DEFAULT_USER
from resp_server.commands.help import help_for
from resp_server.session import Session

if TYPE_CHECKING:
    from resp_server.commands.table import Table

_FLAGS = ("noscript", "loading", "stale")
_ADMIN = ("admin", *_FLAGS)


def _who_am_i(session: Session, args: list[bytes]) -> Reply:
    return DEFAULT_USER


def _users(session: Session, args: list[bytes]) -> Reply:
    return [DEFAULT_USER]


def _list(session: Session, args: list[bytes]) -> Reply:
    password = session.server.settings.requirepass.encode("utf-8", "surrogateescape")
    secret = b"sanitize-payload #%b" % hashlib.sha256(password).hexdigest().encode()
    return [b"user %b on %b ~* &* +@all" % (DEFAULT_USER, secret if password else b"nopass sanitize-payload")]


def _categories(session: Session, args: list[bytes]) -> Reply:
    by_category = _commands_by_category(session.server.table)
    if len(args) == 2:
        return [name.encode() for name in by_category]
    if len(args) > 3:
        raise wrong_subcommand(args)
    commands = by_category.get(args[2].decode("utf-8", "surrogateescape").lower())
    if commands is None:
        raise CommandError(b"Unknown category '%b'" % args[2][:128])
    return [name.encode() for name in commands]


def _commands_by_category(table: Table) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: [] for name in CATEGORIES}
    for route in table.everything():
        for category in route.command.categories:
            found[category.removeprefix("@")].append(route.command.full_name)
    return found


_SUBCOMMANDS = (
    Command(
        name="ACL WHOAMI",
        arity=2,
        group="server",
        since="6.0.0",
        summary="Returns the user of this connection.",
        reply="`default`",
        flags=_FLAGS,
        example="ACL WHOAMI",
        serve=_who_am_i,
    ),
    Command(
        name="ACL USERS",
        arity=2,
        group="server",
        since="6.0.0",
        summary="Lists the users.",
        reply="Array of the one name there is.",
        complexity="O(N). Where N is the number of configured users.",
        flags=_ADMIN,
        example="ACL USERS",
        serve=_users,
    ),
    Command(
        name="ACL LIST",
        arity=2,
        group="server",
        since="6.0.0",
        summary="Lists the users with what they may do.",
        reply="Array of rules as text; a password is shown as its SHA-256.",
        complexity="O(N). Where N is the number of configured users.",
        flags=_ADMIN,
        example="ACL LIST",
        serve=_list,
    ),
    Command(
        name="ACL CAT",
        arity=-2,
        group="server",
        since="6.0.0",
        summary="Lists the categories of commands, or the commands of a category.",
        syntax="[category]",
        reply="Array of names.",
        complexity="O(N) where N is the number of commands",
        flags=_FLAGS,
        example="ACL CAT lock",
        serve=_categories,
    ),
)

COMMANDS = (
    Command(
        name="ACL",
        arity=-2,
        group="server",
        since="6.0.0",
        summary="Commands about users and what they may do.",
        reply="Depends on the subcommand.",
        complexity="Depends on subcommand.",
        subcommands=(*_SUBCOMMANDS, help_for("ACL", _SUBCOMMANDS, group="server", since="6.0.0")),
    ),
)
