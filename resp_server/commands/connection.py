"""How a client introduces itself and takes its leave: HELLO, AUTH, SELECT, PING, ECHO, RESET, QUIT."""

from __future__ import annotations

import hmac

from cluster.machine.arguments import integer
from cluster.machine.reply import OK, CommandError, Reply, Status, syntax_error
from resp_server import REDIS_VERSION
from resp_server.commands.command import Command
from resp_server.session import Session

DEFAULT_USER = b"default"
"""The only user there is; `requirepass` is its password."""

_PONG = Status("PONG")
_RESET = Status("RESET")
_HANDSHAKE = ("noscript", "loading", "stale", "fast", "no_auth", "allow_busy")


def checked_text(text: bytes, what: str) -> bytes:
    """``text`` if it may stand in a line of CLIENT LIST, else ``-ERR what cannot contain …``."""
    if any(not 33 <= byte <= 126 for byte in text):
        raise CommandError(f"{what} cannot contain spaces, newlines or special characters.")
    return text


def checked_name(text: bytes) -> bytes:
    """A client's name, as CLIENT SETNAME and HELLO SETNAME take it."""
    return checked_text(text, "Client names")


def _log_in(session: Session, user: bytes, password: bytes) -> None:
    """Lets the session in, or raises ``-WRONGPASS``; how long it takes tells nothing of the password."""
    expected = session.server.settings.requirepass.encode("utf-8", "surrogateescape")
    right = not expected or hmac.compare_digest(password, expected)
    if user != DEFAULT_USER or not right:
        raise CommandError("invalid username-password pair or user is disabled.", "WRONGPASS")
    session.authenticated = True


def _auth(session: Session, args: list[bytes]) -> Reply:
    if len(args) > 3:
        raise syntax_error()
    if len(args) == 2 and not session.server.settings.requirepass:
        raise CommandError(
            "AUTH <password> called without any password configured for the default user. "
            "Are you sure your configuration is correct?"
        )
    _log_in(session, args[1] if len(args) == 3 else DEFAULT_USER, args[-1])
    session.settle()
    return OK


def _hello(session: Session, args: list[bytes]) -> Reply:
    protocol = session.protocol
    if len(args) > 1:
        protocol = integer(args[1], "Protocol version is not an integer or out of range")
        if protocol not in (2, 3):
            raise CommandError("unsupported protocol version", "NOPROTO")
    credentials, name = _hello_options(args)
    if credentials is not None:
        _log_in(session, *credentials)
    if not session.authenticated:
        raise CommandError(
            "HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> "
            "<pass> option can be used to authenticate the client and select the RESP protocol version at the same "
            "time",
            "NOAUTH",
        )
    if name is not None:
        session.name = name
    if protocol == 2:
        session.server.observers.leave(session)
    session.protocol = protocol
    session.settle()
    return {
        b"server": b"redis",
        b"version": REDIS_VERSION.encode(),
        b"proto": protocol,
        b"id": session.id,
        b"mode": b"cluster" if len(session.server.node.shards) > 1 else b"standalone",
        b"role": b"master",
        b"modules": [],
    }


def _hello_options(args: list[bytes]) -> tuple[tuple[bytes, bytes] | None, bytes | None]:
    """HELLO's AUTH (user and password) and SETNAME, None for each that is missing."""
    credentials: tuple[bytes, bytes] | None = None
    name: bytes | None = None
    at = 2
    while at < len(args):
        option, left = args[at].upper(), len(args) - at - 1
        if option == b"AUTH" and left >= 2:
            credentials = args[at + 1], args[at + 2]
            at += 3
        elif option == b"SETNAME" and left:
            name = checked_name(args[at + 1])
            at += 2
        else:
            raise CommandError(b"Syntax error in HELLO option '%b'" % args[at][:128])
    return credentials, name


def _select(session: Session, args: list[bytes]) -> Reply:
    if integer(args[1]) != 0:
        raise CommandError("DB index is out of range")
    return OK


def _ping(session: Session, args: list[bytes]) -> Reply:
    if len(args) > 2:
        raise CommandError("wrong number of arguments for 'ping' command")
    return args[1] if len(args) == 2 else _PONG


def _echo(session: Session, args: list[bytes]) -> Reply:
    return args[1]


def _reset(session: Session, args: list[bytes]) -> Reply:
    session.reset()
    session.server.unwatch(session)
    session.server.observers.leave(session)
    return _RESET


def _quit(session: Session, args: list[bytes]) -> Reply:
    session.closing = True
    session.settle()
    return OK


COMMANDS = (
    Command(
        name="PING",
        arity=-1,
        group="connection",
        summary="Tells whether the server answers.",
        syntax="[message]",
        reply="`PONG`, or the message.",
        flags=("fast",),
        example="PING",
        serve=_ping,
    ),
    Command(
        name="ECHO",
        arity=2,
        group="connection",
        summary="Sends the message back.",
        syntax="message",
        reply="The message.",
        flags=("loading", "stale", "fast"),
        example='ECHO "still there?"',
        serve=_echo,
    ),
    Command(
        name="HELLO",
        arity=-1,
        group="connection",
        since="6.0.0",
        summary="Chooses the protocol and, in the same step, logs in and names the connection.",
        syntax="[protover [AUTH username password] [SETNAME clientname]]",
        reply="Map: `server version proto id mode role modules`; `-NOPROTO` for a version other than 2 and 3.",
        flags=_HANDSHAKE,
        example="HELLO 3 SETNAME worker-1",
        serve=_hello,
        alone=True,
    ),
    Command(
        name="AUTH",
        arity=-2,
        group="connection",
        summary="Logs in. The only user is `default`, its password the setting `requirepass`.",
        syntax="[username] password",
        reply="`OK`, or `-WRONGPASS`.",
        flags=_HANDSHAKE,
        example="AUTH default secret",
        serve=_auth,
        alone=True,
    ),
    Command(
        name="SELECT",
        arity=2,
        group="connection",
        summary="Selects the database. There is one: 0.",
        syntax="index",
        reply="`OK`",
        flags=("loading", "stale", "fast"),
        example="SELECT 0",
        serve=_select,
    ),
    Command(
        name="RESET",
        arity=1,
        group="connection",
        since="6.2.0",
        summary="Makes the connection as it was when it was new: protocol, name, login, transaction, watches.",
        reply="`RESET`",
        flags=_HANDSHAKE,
        example="RESET",
        serve=_reset,
        ends_transaction=True,
        alone=True,
    ),
    Command(
        name="QUIT",
        arity=-1,
        group="connection",
        summary="Closes the connection once everything before it is answered.",
        reply="`OK`",
        flags=_HANDSHAKE,
        example="QUIT",
        serve=_quit,
        ends_transaction=True,
        alone=True,
    ),
)
