"""What a command may answer, as plain Python values.

The machine speaks no protocol. A handler returns one of the values below and
`resp_server.protocol.replies` writes it as RESP2 or RESP3:

======================  =======================  ==========================
value                   RESP2                    RESP3
======================  =======================  ==========================
``int``                 integer                  integer
``bytes``               bulk string              bulk string
``None``                null bulk                null
``NULL_ARRAY``          null array               null
``list``                array                    array
``dict``                flat array of pairs      map
``float``               bulk string              double
``bool``                integer 0 or 1           boolean
``Status``              simple string            simple string
``Verbatim``            bulk string              verbatim string
``Members``             array                    set
``Push``                array                    push
``CommandError``        error                    error
``WAITING``             nothing yet              nothing yet
======================  =======================  ==========================
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final, TypeAlias


class CommandError(Exception):
    """A command was refused: the reply is ``-CODE message`` and nothing changed.

    Raised by handlers and caught by whoever runs them; inside EXEC it is a
    value among the other replies.
    """

    def __init__(self, message: str | bytes, code: str = "ERR") -> None:
        text = message.decode("utf-8", "surrogateescape") if isinstance(message, bytes) else message
        super().__init__(text)
        self.code = code
        self.message = text

    @property
    def line(self) -> bytes:
        """The error's text on the wire, without the leading ``-`` and on one line."""
        text = f"{self.code} {self.message}".replace("\r", " ").replace("\n", " ")
        return text.encode("utf-8", "surrogateescape")


class Status:
    """A simple string such as ``OK``, kept with its encoded form."""

    __slots__ = ("text", "wire")

    def __init__(self, text: str) -> None:
        self.text = text
        self.wire = b"+%b\r\n" % text.encode()

    def __repr__(self) -> str:
        return f"Status({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Status) and other.text == self.text

    def __hash__(self) -> int:
        return id(type(self))


class Verbatim:
    """Text meant for people (INFO, CLIENT LIST); ``format`` is ``txt`` or ``mkd``."""

    __slots__ = ("format", "text")

    def __init__(self, text: bytes, format: bytes = b"txt") -> None:
        self.text = text
        self.format = format


class Members(list[Any]):
    """A list without duplicates whose order means nothing: a RESP3 set."""


class Push(list[Any]):
    """An out-of-band message: a RESP3 push, its kind first."""


class Signal(Enum):
    """Answers that are not values."""

    WAITING = "waiting"  # the client waits; its answer comes by a later entry
    NULL_ARRAY = "null array"


WAITING: Final = Signal.WAITING
NULL_ARRAY: Final = Signal.NULL_ARRAY
OK: Final = Status("OK")
QUEUED: Final = Status("QUEUED")

Reply: TypeAlias = "int | bytes | list[Any] | dict[Any, Any] | float | Status | Verbatim | Signal | CommandError | None"


def wrong_type() -> CommandError:
    """The error for a key that holds another kind of value."""
    return CommandError("Operation against a key holding the wrong kind of value", "WRONGTYPE")


def syntax_error() -> CommandError:
    """The error for options that do not fit the command."""
    return CommandError("syntax error")
