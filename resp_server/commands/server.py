"""What concerns the whole server: its clock, its checkpoints, its role, its end."""

from __future__ import annotations

import math
import time

from cluster.machine.arguments import integer
from cluster.machine.reply import OK, WAITING, CommandError, Reply, Status, syntax_error
from resp_server.commands.command import Command
from resp_server.commands.help import help_for
from resp_server.session import Session

SLEEP_S_MAX = 60.0
"""The longest DEBUG SLEEP: all clients wait as long."""

_SAVING = Status("Background saving started")
_NO_CLUSTER = "This instance has cluster support disabled"


def _time(session: Session, args: list[bytes]) -> Reply:
    seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
    return [b"%d" % seconds, b"%d" % microseconds]


def _save_in_background(session: Session, args: list[bytes]) -> Reply:
    if len(args) > 2 or (len(args) == 2 and args[1].upper() != b"SCHEDULE"):
        raise syntax_error()
    if not session.server.edge.start_checkpoint():
        raise CommandError("Background save already in progress")
    return _SAVING


def _last_save(session: Session, args: list[bytes]) -> Reply:
    return session.server.saving.last_unix_s


def _shutdown(session: Session, args: list[bytes]) -> Reply:
    """As in Redis the reply to SHUTDOWN is that the connection closes."""
    options = {arg.upper() for arg in args[1:]}
    if not options <= {b"SAVE", b"NOSAVE", b"NOW", b"FORCE", b"ABORT"} or options >= {b"SAVE", b"NOSAVE"}:
        raise syntax_error()
    if b"ABORT" in options:
        if len(options) > 1:
            raise syntax_error()
        raise CommandError("No shutdown in progress.")
    session.reply_mode = "off"
    session.closing = True
    session.settle()
    session.server.edge.stop(checkpoint=b"NOSAVE" not in options)
    return OK


def _role(session: Session, args: list[bytes]) -> Reply:
    """Every node answers every command, so to a client each is a master; RAFT.INFO tells what it is to the others."""
    return [b"master", 0, []]


def _wait(session: Session, args: list[bytes]) -> Reply:
    wanted = integer(args[1])
    timeout_ms = integer(args[2], "timeout is not an integer or out of range")
    if timeout_ms < 0:
        raise CommandError("timeout is negative")
    found = session.server.acknowledgements.begin(session, wanted, timeout_ms)
    return WAITING if found is None else found


def _in_cluster(session: Session) -> None:
    """Raises Redis's error where there is one shard only, which is to clients a server without a cluster."""
    if len(session.server.node.shards) == 1:
        raise CommandError(_NO_CLUSTER)


def _read_only(session: Session, args: list[bytes]) -> Reply:
    _in_cluster(session)
    session.readonly = True
    return OK


def _read_write(session: Session, args: list[bytes]) -> Reply:
    _in_cluster(session)
    session.readonly = False
    return OK


def _asking(session: Session, args: list[bytes]) -> Reply:
    """Nothing to ask for: a shard that moves is served by its leader all the time, and nobody answers ``-ASK``."""
    _in_cluster(session)
    return OK


def _modules(session: Session, args: list[bytes]) -> Reply:
    return []


def _sleep(session: Session, args: list[bytes]) -> Reply:
    """Stops the server for a while, all of it: that is what it is for."""
    try:
        seconds = float(args[2])
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= SLEEP_S_MAX:
        raise CommandError(f"seconds must be a number from 0 to {SLEEP_S_MAX:g}")
    time.sleep(seconds)
    return OK


_DEBUG = (
    Command(
        name="DEBUG SLEEP",
        arity=3,
        group="server",
        summary="Stops the server for some seconds, with all its clients: a test of what depends on it.",
        syntax="seconds",
        reply="`OK`, when the time is over.",
        complexity="O(N) where N is the number of seconds",
        flags=("admin", "noscript", "loading", "stale"),
        example="DEBUG SLEEP 0.5",
        serve=_sleep,
    ),
)

_MODULE = (
    Command(
        name="MODULE LIST",
        arity=2,
        group="server",
        since="4.0.0",
        summary="Lists the loaded modules. There are none.",
        reply="Empty array.",
        flags=("admin", "noscript"),
        example="MODULE LIST",
        serve=_modules,
    ),
)

COMMANDS = (
    Command(
        name="TIME",
        arity=1,
        group="server",
        since="2.6.0",
        summary="Returns the server's time.",
        reply="Array: Unix time in seconds, and the microseconds of this second.",
        flags=("loading", "stale", "fast"),
        example="TIME",
        serve=_time,
    ),
    Command(
        name="BGSAVE",
        arity=-1,
        group="server",
        summary="Starts a checkpoint, which makes the next start quicker. Writes are durable without it.",
        syntax="[SCHEDULE]",
        reply="`Background saving started`, or an error when one is under way.",
        flags=("admin", "noscript", "no_async_loading"),
        example="BGSAVE",
        serve=_save_in_background,
    ),
    Command(
        name="LASTSAVE",
        arity=1,
        group="server",
        summary="Tells when the last checkpoint was finished.",
        reply="Unix time in seconds.",
        flags=("loading", "stale", "fast"),
        more_categories=("admin", "dangerous"),
        example="LASTSAVE",
        serve=_last_save,
    ),
    Command(
        name="SHUTDOWN",
        arity=-1,
        group="server",
        summary="Ends the server, after a checkpoint unless `NOSAVE`. What was acknowledged is durable either way.",
        syntax="[NOSAVE | SAVE] [NOW] [FORCE] [ABORT]",
        reply="None: the connection closes.",
        complexity="O(N) when saving, where N is the number of keys changed since the last checkpoint",
        flags=("admin", "noscript", "loading", "stale", "no_multi", "allow_busy"),
        example="SHUTDOWN",
        serve=_shutdown,
        alone=True,
    ),
    Command(
        name="ROLE",
        arity=1,
        group="server",
        since="2.8.12",
        summary="Returns the replication role.",
        reply="Array: `master`, an offset, and the replicas.",
        flags=("noscript", "loading", "stale", "fast"),
        more_categories=("admin", "dangerous"),
        example="ROLE",
        serve=_role,
    ),
    Command(
        name="WAIT",
        arity=3,
        group="connection",
        since="3.0.0",
        summary="Waits until so many other nodes have all writes of this connection on their disks. That a majority has"
        " a write is what the reply to it says.",
        syntax="numreplicas timeout",
        reply="How many have them, which is fewer when `timeout` milliseconds were over; 0 waits for ever. A single"
        " node answers 0 at once. Of several shards it is about the one written to last; a node that has no replica of"
        " that answers at once how many nodes are a majority.",
        flags=("blocking",),
        example="WAIT 2 100",
        serve=_wait,
        alone=True,
    ),
    Command(
        name="READONLY",
        arity=1,
        group="connection",
        since="3.0.0",
        summary="Lets reads of this connection be answered by any node that has the shard, where `routing` is"
        " `redirect`. They are as new as the leader's all the same.",
        reply="`OK`; an error where there is one shard, and every node answers every command.",
        flags=("loading", "stale", "fast"),
        example="READONLY",
        serve=_read_only,
    ),
    Command(
        name="READWRITE",
        arity=1,
        group="connection",
        since="3.0.0",
        summary="Takes READONLY back.",
        reply="`OK`; an error where there is one shard.",
        flags=("loading", "stale", "fast"),
        example="READWRITE",
        serve=_read_write,
    ),
    Command(
        name="ASKING",
        arity=1,
        group="connection",
        since="3.0.0",
        summary="Is what a client says after `-ASK`, which no node answers.",
        reply="`OK`; an error where there is one shard.",
        flags=("fast",),
        example="ASKING",
        serve=_asking,
    ),
    Command(
        name="DEBUG",
        arity=-2,
        group="server",
        summary="Commands for tests.",
        reply="Depends on the subcommand.",
        complexity="Depends on subcommand.",
        flags=("admin", "noscript", "loading", "stale"),
        subcommands=(*_DEBUG, help_for("DEBUG", _DEBUG, group="server", since="1.0.0")),
    ),
    Command(
        name="MODULE",
        arity=-2,
        group="server",
        since="4.0.0",
        summary="Commands about modules.",
        reply="Depends on the subcommand.",
        complexity="Depends on subcommand.",
        subcommands=(*_MODULE, help_for("MODULE", _MODULE, group="server", since="5.0.0")),
    ),
)
