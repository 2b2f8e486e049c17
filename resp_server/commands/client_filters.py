"""Which clients CLIENT LIST and CLIENT KILL mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from cluster.machine.arguments import Options, integer
from cluster.machine.reply import CommandError, syntax_error
from resp_server.commands.connection import DEFAULT_USER
from resp_server.session import Session

Test: TypeAlias = "Callable[[Session], bool]"

_TYPES = (b"normal", b"master", b"replica", b"slave", b"pubsub")


def of_type(name: bytes) -> Test:
    """Clients of a type; all there are are normal ones."""
    if name.lower() not in _TYPES:
        raise CommandError(b"Unknown client type '%b'" % name[:128])
    normal = name.lower() == b"normal"
    return lambda _session: normal


def listed(args: list[bytes]) -> Test:
    """CLIENT LIST's options."""
    if len(args) == 2:
        return lambda _session: True
    option = args[2].upper()
    if option == b"TYPE" and len(args) == 4:
        return of_type(args[3])
    if option == b"ID" and len(args) > 3:
        ids = {integer(text, "Invalid client ID") for text in args[3:]}
        return lambda session: session.id in ids
    raise syntax_error()


def killed(args: list[bytes], me: Session) -> Test:
    """CLIENT KILL's options; the asking client itself is left out unless SKIPME is no."""
    tests: list[Test] = []
    skip_me = True
    options = Options(args, 2)
    for option in options:
        value = options.value()
        if option == b"SKIPME":
            if value.lower() not in (b"yes", b"no"):
                raise syntax_error()
            skip_me = value.lower() == b"yes"
        elif option in _KILL_TESTS:
            tests.append(_KILL_TESTS[option](value))
        else:
            raise syntax_error()
    return lambda session: not (skip_me and session is me) and all(test(session) for test in tests)


def _by_id(value: bytes) -> Test:
    number = integer(value, "client-id should be greater than 0")
    if number <= 0:
        raise CommandError("client-id should be greater than 0")
    return lambda session: session.id == number


def _by_address(value: bytes) -> Test:
    address = value.decode("utf-8", "surrogateescape")
    return lambda session: session.address == address


def _by_local_address(value: bytes) -> Test:
    address = value.decode("utf-8", "surrogateescape")
    return lambda session: session.local_address == address


def _by_user(value: bytes) -> Test:
    if value != DEFAULT_USER:
        raise CommandError(b"No such user '%b'" % value[:128])
    return lambda session: session.authenticated


def _by_age(value: bytes) -> Test:
    age_s = integer(value, "maxage is not an integer or out of range")
    if age_s <= 0:
        raise CommandError("maxage should be greater than 0")
    return lambda session: (session.server.now_ms() - session.created_ms) // 1000 >= age_s


_KILL_TESTS: dict[bytes, Callable[[bytes], Test]] = {
    b"ID": _by_id,
    b"TYPE": of_type,
    b"ADDR": _by_address,
    b"LADDR": _by_local_address,
    b"USER": _by_user,
    b"MAXAGE": _by_age,
}
