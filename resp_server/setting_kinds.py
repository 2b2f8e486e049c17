"""What values settings may have: parsing and rendering, with Redis's units and Redis's error texts."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, NamedTuple, TypeVar

from resp_server import address

T = TypeVar("T")
E = TypeVar("E", bound=Enum)

INTEGER_MAX = 2**63 - 1


class FlawError(ValueError):
    """A value of many parts is not allowed; the text says which part is wrong, as ``allowed`` alone would not."""


class BufferLimit(NamedTuple):
    """Unsent bytes a client may have: ``hard_bytes`` at all, ``soft_bytes`` for ``soft_s`` seconds; 0 is no limit."""

    hard_bytes: int
    soft_bytes: int
    soft_s: int


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """What values a setting may have.

    ``allowed`` completes "must be …", ``short`` stands after a flag in the
    help. ``parse`` raises `ValueError` with Redis's own text. ``render`` gives
    the form CONFIG GET answers with.
    """

    short: str
    allowed: str
    parse: Callable[[str], T]
    render: Callable[[T], str] = str


_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]*)")
_MEMORY = re.compile(r"([0-9]+)(|b|kb?|mb?|gb?)")
_UNITS = {"": 1, "b": 1, "k": 10**3, "kb": 2**10, "m": 10**6, "mb": 2**20, "g": 10**9, "gb": 2**30}


def _whole(text: str, low: int, high: int) -> int:
    if not _WHOLE.fullmatch(text) or abs(int(text)) > INTEGER_MAX:
        raise ValueError("argument couldn't be parsed into an integer")
    return _within(int(text), low, high)


def _within(number: int, low: int, high: int) -> int:
    if not low <= number <= high:
        raise ValueError(f"argument must be between {low} and {high} inclusive")
    return number


def _memory(text: str, low: int = 0) -> int:
    matched = _MEMORY.fullmatch(text.lower())
    if not matched:
        raise ValueError("argument must be a memory value")
    return _within(int(matched[1]) * _UNITS[matched[2]], low, INTEGER_MAX)


def integer(low: int, high: int = INTEGER_MAX) -> Kind[int]:
    """A whole number in a range, both ends included."""
    span = f"from {low} to {high}" if high < INTEGER_MAX else f"not below {low}"
    return Kind("N", f"a whole number {span}", lambda text: _whole(text, low, high))


def size(least: str) -> Kind[int]:
    """A number of bytes with Redis's units: ``1k`` is 1000, ``1kb`` is 1024."""
    low = _memory(least)
    return Kind("SIZE", f"a size such as 64mb, not below {least}", lambda text: _memory(text, low))


def choice(members: type[E]) -> Kind[E]:
    """One of an enumeration's values, in any case."""
    names = [member.value for member in members]

    def parse(text: str) -> E:
        if text.lower() not in names:
            raise ValueError(f"argument(s) must be one of the following: {', '.join(names)}")
        return members(text.lower())

    return Kind("|".join(names), f"{', '.join(names[:-1])} or {names[-1]}", parse, lambda member: str(member.value))


def _yes_or_no(text: str) -> bool:
    if text.lower() not in ("yes", "no"):
        raise ValueError("argument must be 'yes' or 'no'")
    return text.lower() == "yes"


YES_OR_NO = Kind("yes|no", "yes or no", _yes_or_no, lambda told: "yes" if told else "no")


def matching(pattern: str, short: str, allowed: str) -> Kind[str]:
    """A text that matches a regular expression as a whole."""

    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"argument must be {allowed}")
        return text

    return Kind(short, allowed, parse)


def _addresses(text: str) -> tuple[str, ...]:
    if not text.split():
        raise ValueError("argument must be one address or more")
    return tuple("0.0.0.0" if address == "*" else address for address in text.split())


def _octal(text: str) -> int:
    if not re.fullmatch("[0-7]{1,4}", text) or int(text, 8) > 0o777:
        raise ValueError("argument couldn't be parsed into an octal number up to 777")
    return int(text, 8)


def _buffer_limit(text: str) -> BufferLimit:
    words = text.lower().split()
    if words[:1] == ["normal"]:
        del words[0]
    if len(words) != 3:
        raise ValueError("Wrong number of arguments in buffer limit configuration.")
    try:
        return BufferLimit(_memory(words[0]), _memory(words[1]), _whole(words[2], 0, INTEGER_MAX))
    except ValueError:
        raise ValueError("Error in hard, soft or soft_seconds setting in buffer limit configuration.") from None


def _address(text: str) -> str:
    """One that others can connect to, as text."""
    try:
        found = address.parse(text)
    except ValueError as error:
        raise FlawError(str(error)) from None
    if not found.reachable:
        raise FlawError(f"nobody can connect to {found.host}")
    return str(found)


def _members(text: str) -> tuple[tuple[str, str], ...]:
    members: dict[str, str] = {}
    for item in text.split(",") if text.strip() else ():
        name, sign, where = item.strip().partition("=")
        if not sign or not re.fullmatch(_WORD, name):
            raise FlawError(f"{item.strip()!r} is not NAME=HOST:PORT")
        if name in members:
            raise FlawError(f"{name} is listed twice")
        where = _address(where)
        for other, taken in members.items():
            if taken == where:
                raise FlawError(f"{other} and {name} have one address")
        members[name] = where
    return tuple(members.items())


_WORD = r"[A-Za-z0-9_.-]{1,64}"

SECRET = Kind("TEXT", "a text", str)
PATH = matching(r"[^\0]+", "PATH", "a path")
OPTIONAL_PATH = matching(r"[^\0]*", "PATH", "a path, or empty")
OPTIONAL_WORD = matching(f"({_WORD})?", "NAME", "up to 64 letters, digits, dots, dashes or underscores")
ADDRESSES = Kind("ADDRESSES", "one address or more, with blanks between them", _addresses, " ".join)
OPTIONAL_ADDRESS = Kind("HOST:PORT", "an address such as host:6379", lambda text: text and _address(text))
MEMBERS = Kind(
    "LIST",
    "a list such as n1=host:port,n2=host:port,n3=host:port",
    _members,
    lambda members: ",".join(f"{name}={where}" for name, where in members),
)
PERMISSIONS = Kind("MODE", "an octal number up to 777", _octal, lambda mode: f"{mode:o}")
BUFFER_LIMIT = Kind(
    "LIMIT",
    "'normal HARD SOFT SECONDS', two sizes and a whole number",
    _buffer_limit,
    lambda limit: f"normal {limit.hard_bytes} {limit.soft_bytes} {limit.soft_s}",
)
