"""A question to a node over the network, and its answer: what the command line speaks of the protocol."""

from __future__ import annotations

import socket
import time
from typing import Any

import hiredis

from resp_server.address import Address, parse

RECEIVE_BYTES = 65536
CHANGE_TIMEOUT_S = 30.0
"""How long to wait for a change: the cluster gives up one that it cannot agree on after half of that."""

PASSWORD_ERRORS = {
    "NOAUTH": "asks for a password: give --password or set SEPAKAT_REQUIREPASS",
    "WRONGPASS": "does not take this password",
}


class AskError(Exception):
    """There is no answer, or it is an error; the message is one line for a person.

    ``code`` is the error's first word, such as TRYAGAIN, and empty where there is no answer.
    """

    def __init__(self, line: str, code: str = "") -> None:
        super().__init__(line)
        self.code = code


def ask(where: Address, *calls: tuple[str | bytes, ...], password: str = "", timeout_s: float = 5.0) -> list[Any]:
    """The replies to some commands, sent as one pipeline, in RESP3 with all texts decoded.

    Raises `AskError` when the node cannot be reached, has not answered all
    within ``timeout_s``, or answers any of them with an error.
    """
    hello = ("HELLO", "3", "AUTH", "default", password) if password else ("HELLO", "3")
    request = b"".join(hiredis.pack_command(call) for call in (hello, *calls))  # type: ignore[arg-type]
    reader = hiredis.Reader(encoding="utf-8", errors="surrogateescape")
    replies: list[Any] = []
    until_s = time.monotonic() + timeout_s
    try:
        with socket.create_connection(where, timeout_s) as connection:
            connection.sendall(request)
            while len(replies) <= len(calls):
                connection.settimeout(max(0.001, until_s - time.monotonic()))
                data = connection.recv(RECEIVE_BYTES)
                if not data:
                    raise AskError(f"{where} closed the connection")
                reader.feed(data)
                while (reply := reader.gets()) is not False:
                    replies.append(_checked(where, reply))
    except TimeoutError:
        raise AskError(f"{where} does not answer within {timeout_s:g} s") from None
    except OSError as error:
        raise AskError(f"{where} cannot be reached: {error.strerror or error}") from None
    except hiredis.ProtocolError:
        raise AskError(f"{where} does not speak the Redis protocol") from None
    return replies[1:]


def ask_owner(where: Address, call: tuple[str | bytes, ...], *, password: str = "", timeout_s: float = 5.0) -> Any:
    """The reply to a command about one key, from the node that has it when ``where`` only names that one."""
    try:
        (reply,) = ask(where, call, password=password, timeout_s=timeout_s)
    except AskError as error:
        if error.code != "MOVED":
            raise
        (reply,) = ask(parse(str(error).rpartition(" ")[2]), call, password=password, timeout_s=timeout_s)
    return reply


def _checked(where: Address, reply: Any) -> Any:
    if not isinstance(reply, hiredis.ReplyError):
        return reply
    code, _, message = str(reply).partition(" ")
    if code in PASSWORD_ERRORS:
        raise AskError(f"{where} {PASSWORD_ERRORS[code]}", code)
    if message.startswith("unknown command"):
        raise AskError(f"{where} is no sepakat server, or an older one", code)
    raise AskError(f"{where} answers: {message if code == 'ERR' else reply}", code)
