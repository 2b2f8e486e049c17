"""CONFIG: the settings in force, under Redis's names where Redis has them."""

from __future__ import annotations

from cluster.machine.glob import matcher
from cluster.machine.reply import OK, CommandError, Reply, syntax_error
from resp_server import settings
from resp_server.commands.command import Command
from resp_server.commands.help import help_for
from resp_server.commands.topology import clustered
from resp_server.session import Session
from resp_server.settings import SettingError, Settings

FIXED = {
    "appendonly": "yes",
    "databases": "1",
    "maxmemory-policy": "noeviction",
    "notify-keyspace-events": "",
    "replicaof": "",
    "save": "",
}
"""Redis's settings that clients ask for, with what is true here; they cannot be changed."""

CLUSTER_ENABLED = "cluster-enabled"

_FLAGS = ("admin", "noscript", "loading", "stale")
_IMMUTABLE = {*FIXED, CLUSTER_ENABLED}


def in_force(session: Session) -> dict[str, str]:
    """Every setting by name, as text."""
    server = session.server
    known = {field.name: field.text(server.settings) for field in settings.FIELDS}
    here = {"port": str(server.port), CLUSTER_ENABLED: "yes" if clustered(server) else "no"}
    return dict(sorted({**known, **FIXED, **here}.items()))


def _get(session: Session, args: list[bytes]) -> Reply:
    known = {name.encode(): text.encode("utf-8", "surrogateescape") for name, text in in_force(session).items()}
    shown: dict[bytes, bytes] = {}  # names found, as they were asked for
    for pattern in args[2:]:
        lowered = pattern.lower()
        if lowered in known:
            shown.setdefault(lowered, pattern)
        else:
            for name in filter(matcher(lowered), known):
                shown.setdefault(name, name)
    return {name: known[found] for found, name in shown.items()}


def _set(session: Session, args: list[bytes]) -> Reply:
    """All of the settings, or none of them."""
    if len(args) % 2:
        raise syntax_error()
    server = session.server
    names = [_settable(name) for name in args[2::2]]
    for at, name in enumerate(names):
        if name in names[:at]:
            raise _failed(name, "duplicate parameter")
        if name in _IMMUTABLE or not settings.named(name).live:
            raise _failed(name, "can't set immutable config")
    changed = server.settings
    for name, text in zip(names, args[3::2], strict=True):
        changed = _changed(changed, name, text)
    server.settings = changed
    for name in names:
        server.edge.settings_changed(name)
    return OK


def _settable(given: bytes) -> str:
    name = given.decode("utf-8", "surrogateescape").lower()
    if name not in _IMMUTABLE and name not in {field.name for field in settings.FIELDS}:
        raise CommandError(b"Unknown option or number of arguments for CONFIG SET - '%b'" % given[:128])
    return name


def _changed(before: Settings, name: str, text: bytes) -> Settings:
    try:
        return before.changed(name, text.decode("utf-8", "surrogateescape"))
    except SettingError as error:
        raise _failed(name, error.reason) from None


def _failed(name: str, reason: str) -> CommandError:
    return CommandError(f"CONFIG SET failed (possibly related to argument '{name}') - {reason}")


def _reset_statistics(session: Session, args: list[bytes]) -> Reply:
    server = session.server
    server.stats = type(server.stats)()
    for route in server.table.everything():
        route.reset()
    return OK


def _rewrite(session: Session, args: list[bytes]) -> Reply:
    raise CommandError("The server is running without a config file")


_SUBCOMMANDS = (
    Command(
        name="CONFIG GET",
        arity=-3,
        group="server",
        since="2.0.0",
        summary="Returns the settings that match any of the patterns.",
        syntax="parameter [parameter ...]",
        reply="Map of names and values.",
        complexity="O(N) when N is the number of configuration parameters provided",
        flags=_FLAGS,
        example="CONFIG GET max* timeout",
        serve=_get,
    ),
    Command(
        name="CONFIG SET",
        arity=-4,
        group="server",
        since="2.0.0",
        summary="Changes settings until the server stops: all that are given, or none.",
        syntax="parameter value [parameter value ...]",
        reply="`OK`",
        complexity="O(N) when N is the number of configuration parameters provided",
        flags=_FLAGS,
        example="CONFIG SET timeout 300",
        serve=_set,
    ),
    Command(
        name="CONFIG RESETSTAT",
        arity=2,
        group="server",
        since="2.0.0",
        summary="Sets the counts that INFO shows back to zero.",
        reply="`OK`",
        complexity="O(N) where N is the number of commands",
        flags=_FLAGS,
        example="CONFIG RESETSTAT",
        serve=_reset_statistics,
    ),
    Command(
        name="CONFIG REWRITE",
        arity=2,
        group="server",
        since="2.8.0",
        summary="Is always refused: settings come from flags, variables or a file that people write.",
        reply="An error.",
        flags=_FLAGS,
        example="CONFIG REWRITE",
        serve=_rewrite,
    ),
)

COMMANDS = (
    Command(
        name="CONFIG",
        arity=-2,
        group="server",
        since="2.0.0",
        summary="Commands about the server's settings.",
        reply="Depends on the subcommand.",
        complexity="Depends on subcommand.",
        subcommands=(*_SUBCOMMANDS, help_for("CONFIG", _SUBCOMMANDS, group="server", since="5.0.0")),
    ),
)
