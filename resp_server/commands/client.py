"""CLIENT: what a connection says of itself, and what one may do to others."""

from __future__ import annotations

from collections.abc import Iterable

from cluster.machine.arguments import integer
from cluster.machine.reply import OK, WAITING, CommandError, Members, Reply, Verbatim, syntax_error
from resp_server.commands import client_filters
from resp_server.commands.command import Command, wrong_subcommand
from resp_server.commands.connection import DEFAULT_USER, checked_name, checked_text
from resp_server.commands.help import help_for
from resp_server.places import NOBODY
from resp_server.session import Session

_OWN = ("noscript", "loading", "stale")
_OTHERS = ("admin", *_OWN)


def _switch(word: bytes) -> bool:
    """ON or OFF."""
    if word.lower() not in (b"on", b"off"):
        raise syntax_error()
    return word.lower() == b"on"


def _id(session: Session, args: list[bytes]) -> Reply:
    return session.id


def _set_name(session: Session, args: list[bytes]) -> Reply:
    session.name = checked_name(args[2])
    return OK


def _get_name(session: Session, args: list[bytes]) -> Reply:
    return session.name or None


def _set_info(session: Session, args: list[bytes]) -> Reply:
    option = args[2].lower()
    if option == b"lib-name":
        session.library_name = checked_text(args[3], "lib-name")
    elif option == b"lib-ver":
        session.library_version = checked_text(args[3], "lib-ver")
    else:
        raise CommandError(b"Unrecognized option '%b'" % args[2][:128])
    return OK


def _no_evict(session: Session, args: list[bytes]) -> Reply:
    session.no_evict = _switch(args[2])
    return OK


def _no_touch(session: Session, args: list[bytes]) -> Reply:
    session.no_touch = _switch(args[2])
    return OK


def _reply(session: Session, args: list[bytes]) -> Reply:
    mode = args[2].lower()
    if mode not in (b"on", b"off", b"skip"):
        raise syntax_error()
    if mode != b"skip" or session.reply_mode != "off":
        session.reply_mode = mode.decode()
    session.settle()
    return OK


def _info(session: Session, args: list[bytes]) -> Reply:
    return Verbatim(_lines([session]))


def _list(session: Session, args: list[bytes]) -> Reply:
    meant = client_filters.listed(args)
    return Verbatim(_lines(filter(meant, session.server.clients.values())))


def _lines(sessions: Iterable[Session]) -> bytes:
    return b"".join(b"%b\n" % describe(session) for session in sessions)


def describe(session: Session) -> bytes:
    """A client as one line of CLIENT LIST; fields of Redis that mean nothing here are left out."""
    server = session.server
    now_ms = server.now_ms()
    transaction = session.transaction
    watched = session.watched
    known = None if watched is None else watched.machine.sessions.get(session.origin)
    fields: dict[str, str | int | bytes] = {
        "id": session.id,
        "addr": session.address,
        "laddr": session.local_address,
        "name": session.name,
        "age": max(0, now_ms - session.created_ms) // 1000,
        "idle": max(0, now_ms - session.last_active_ms) // 1000,
        "flags": _flags(session, dirty=known is not None and known.dirty),
        "db": 0,
        "sub": 0,
        "psub": 0,
        "ssub": 0,
        "multi": -1 if transaction is None else len(transaction.commands),
        "watch": len(known.watched) if known is not None else 0,
        "omem": server.edge.unsent_bytes(session),
        "cmd": session.last_command or "NULL",
        "user": DEFAULT_USER,
        "redir": -1,
        "resp": session.protocol,
        "lib-name": session.library_name,
        "lib-ver": session.library_version,
    }
    return b" ".join(
        b"%b=%b" % (name.encode(), value if isinstance(value, bytes) else str(value).encode())
        for name, value in fields.items()
    )


def _flags(session: Session, *, dirty: bool) -> str:
    signs = (
        ("x", session.transaction is not None),
        ("b", session.blocked or session in session.server.acknowledgements),
        ("d", dirty),
        ("c", session.closing),
        ("r", session.readonly),
        ("U", session.local_address.startswith("/")),
        ("e", session.no_evict),
        ("T", session.no_touch),
    )
    return "".join(sign for sign, holds in signs if holds) or "N"


def _kill(session: Session, args: list[bytes]) -> Reply:
    server = session.server
    if len(args) == 3:
        address = args[2].decode("utf-8", "surrogateescape")
        victims = [one for one in server.clients.values() if one.address == address]
        if not victims:
            raise CommandError("No such client")
    else:
        victims = list(filter(client_filters.killed(args, session), server.clients.values()))
    for victim in victims:
        if victim is session:
            session.closing = True
            session.settle()
        else:
            server.edge.close(victim)
    return OK if len(args) == 3 else len(victims)


def _unblock(session: Session, args: list[bytes]) -> Reply:
    reason = args[3].upper() if len(args) > 3 else b"TIMEOUT"
    if len(args) > 4:
        raise wrong_subcommand(args)
    if reason not in (b"TIMEOUT", b"ERROR"):
        raise CommandError("CLIENT UNBLOCK reason should be TIMEOUT or ERROR")
    server = session.server
    blocked = server.clients.get(integer(args[2]))
    if blocked is None:
        return 0
    error = CommandError("client unblocked via CLIENT UNBLOCK", "UNBLOCKED") if reason == b"ERROR" else None
    if server.acknowledgements.unblock(blocked, error):
        return 1
    if blocked.awaiting is not None:
        blocked.awaiting.unblock(reason)
        return 1
    if not blocked.waiting:
        return 0
    shard = server.shard(blocked.lane.number)
    if session.executing:
        shard.unblock(NOBODY, blocked.origin, reason)
        return 1
    session.pending += 1
    session.held = True
    session.settle()
    shard.unblock(session, blocked.origin, reason)  # it tells whether that still waited
    return WAITING


def _get_redirection(session: Session, args: list[bytes]) -> Reply:
    return -1


def _tracking_info(session: Session, args: list[bytes]) -> Reply:
    return {b"flags": Members([b"off"]), b"redirect": -1, b"prefixes": []}


def _tracking(session: Session, args: list[bytes]) -> Reply:
    if _switch(args[2]):
        raise CommandError("CLIENT TRACKING is not supported: this server sends no invalidations")
    return OK


_SUBCOMMANDS = (
    Command(
        name="CLIENT ID",
        arity=2,
        group="connection",
        since="5.0.0",
        summary="Returns the number of this connection; it is never given twice.",
        reply="Integer.",
        flags=_OWN,
        example="CLIENT ID",
        serve=_id,
    ),
    Command(
        name="CLIENT INFO",
        arity=2,
        group="connection",
        since="6.2.0",
        summary="Describes this connection.",
        reply="One line as `CLIENT LIST` gives it.",
        flags=_OWN,
        example="CLIENT INFO",
        serve=_info,
    ),
    Command(
        name="CLIENT LIST",
        arity=-2,
        group="connection",
        since="2.4.0",
        summary="Lists the open connections, all or some.",
        syntax="[TYPE <NORMAL | MASTER | REPLICA | PUBSUB> | ID client-id [client-id ...]]",
        reply="A line for each, of `field=value` pairs.",
        complexity="O(N) where N is the number of client connections",
        flags=_OTHERS,
        example="CLIENT LIST ID 1 2",
        serve=_list,
    ),
    Command(
        name="CLIENT KILL",
        arity=-3,
        group="connection",
        since="2.4.0",
        summary="Closes connections: the one of an address, or all that every filter fits.",
        syntax="<ip:port | [ID client-id] [TYPE <NORMAL | MASTER | REPLICA | PUBSUB>] [USER username] [ADDR ip:port] "
        "[LADDR ip:port] [SKIPME <YES | NO>] [MAXAGE seconds]>",
        reply="How many were closed; with an address alone `OK`, or an error when there is none.",
        complexity="O(N) where N is the number of client connections",
        flags=_OTHERS,
        example="CLIENT KILL ID 7",
        serve=_kill,
    ),
    Command(
        name="CLIENT SETNAME",
        arity=3,
        group="connection",
        since="2.6.9",
        summary="Names this connection; an empty name takes it back.",
        syntax="connection-name",
        reply="`OK`",
        flags=_OWN,
        example="CLIENT SETNAME worker-1",
        serve=_set_name,
    ),
    Command(
        name="CLIENT GETNAME",
        arity=2,
        group="connection",
        since="2.6.9",
        summary="Returns the name of this connection.",
        reply="The name, or null.",
        flags=_OWN,
        example="CLIENT GETNAME",
        serve=_get_name,
    ),
    Command(
        name="CLIENT SETINFO",
        arity=4,
        group="connection",
        since="7.2.0",
        summary="Notes which client library this connection is used by.",
        syntax="<LIB-NAME libname | LIB-VER libver>",
        reply="`OK`",
        flags=_OWN,
        example="CLIENT SETINFO LIB-NAME my-client",
        serve=_set_info,
    ),
    Command(
        name="CLIENT NO-EVICT",
        arity=3,
        group="connection",
        since="7.0.0",
        summary="Takes this connection out of client eviction, which never happens here.",
        syntax="<ON | OFF>",
        reply="`OK`",
        flags=_OTHERS,
        example="CLIENT NO-EVICT ON",
        serve=_no_evict,
    ),
    Command(
        name="CLIENT NO-TOUCH",
        arity=3,
        group="connection",
        since="7.2.0",
        summary="Says that this connection's reads are no sign of use.",
        syntax="<ON | OFF>",
        reply="`OK`",
        flags=_OWN,
        example="CLIENT NO-TOUCH ON",
        serve=_no_touch,
    ),
    Command(
        name="CLIENT REPLY",
        arity=3,
        group="connection",
        since="3.2.0",
        summary="Turns replies on or off for this connection, or off for the next command.",
        syntax="<ON | OFF | SKIP>",
        reply="`OK` for `ON`, else nothing.",
        flags=_OWN,
        example="CLIENT REPLY OFF",
        serve=_reply,
        alone=True,
    ),
    Command(
        name="CLIENT UNBLOCK",
        arity=-3,
        group="connection",
        since="5.0.0",
        summary="Ends the wait of another connection, as its timeout would or with an error.",
        syntax="client-id [TIMEOUT | ERROR]",
        reply="1, or 0 when it was not waiting.",
        flags=_OTHERS,
        example="CLIENT UNBLOCK 7 ERROR",
        serve=_unblock,
        alone=True,
    ),
    Command(
        name="CLIENT GETREDIR",
        arity=2,
        group="connection",
        since="6.0.0",
        summary="Returns where this connection's invalidations are sent.",
        reply="-1: there are none.",
        flags=_OWN,
        example="CLIENT GETREDIR",
        serve=_get_redirection,
    ),
    Command(
        name="CLIENT TRACKINGINFO",
        arity=2,
        group="connection",
        since="6.2.0",
        summary="Tells how this connection is tracked.",
        reply="Map: `flags redirect prefixes`.",
        flags=_OWN,
        example="CLIENT TRACKINGINFO",
        serve=_tracking_info,
    ),
    Command(
        name="CLIENT TRACKING",
        arity=-3,
        group="connection",
        since="6.0.0",
        summary="Turns tracking off. It cannot be turned on: no invalidations are sent.",
        syntax="<ON | OFF>",
        reply="`OK` for `OFF`.",
        flags=_OWN,
        example="CLIENT TRACKING OFF",
        serve=_tracking,
    ),
)

COMMANDS = (
    Command(
        name="CLIENT",
        arity=-2,
        group="connection",
        since="2.4.0",
        summary="Commands about connections.",
        reply="Depends on the subcommand.",
        complexity="Depends on subcommand.",
        subcommands=(*_SUBCOMMANDS, help_for("CLIENT", _SUBCOMMANDS, group="connection", since="5.0.0")),
    ),
)
