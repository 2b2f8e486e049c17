"""Calls of every command in the table as hypothesis strategies: right ones read off its syntax line, and wrong ones."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from resp_server.commands.command import Command
from resp_server.commands.syntax import Argument, arguments
from resp_server.commands.table import Table

Words = list[bytes]

KEYS = (b"a", b"b", b"c", b"{a}d", b"", b"\xff\x00\r\n")
OWNERS = (b"ann", b"bob", b"\xc3(")
PLACES = {
    "key", "queue", "lock", "source", "destination", "newkey", "key1", "key2"
}  # fmt: skip
VALUES: dict[str, Sequence[bytes]] = {
    "owner": OWNERS,
    "value": (b"1", b"-7", b"text", b"", b"3.25", b"\x00\xff"),
    "increment": (b"1", b"-3", b"0.5", b"9223372036854775807"),
    "decrement": (b"1", b"5"),
    "seconds": (b"1", b"2", b"-1"),
    "milliseconds": (b"1", b"700", b"5000", b"0"),
    "unix-time-seconds": (b"1700000002", b"1"),
    "unix-time-milliseconds": (b"1700000000500", b"1"),
    "ms": (b"1", b"5", b"700", b"5000"),
    "min-ms": (b"1", b"50"),
    "max-ms": (b"60", b"2000"),
    "n": (b"1", b"2", b"3"),
    "0-255": (b"0", b"9", b"255"),
    "token": (b"1", b"2", b"3", b"5"),
    "receipt": (b"1-1", b"2-1", b"3-1", b"1-2", b"4-1"),
    "payload": (b"job", b"", b"\xff"),
    "id": (b"i1", b"i2"),
    "g": (b"g1", b"g2"),
    "request": (b"r1", b"r2"),
    "cursor": (b"0", b"7"),
    "offset": (b"0", b"3", b"20"),
    "pattern": (b"*", b"a*", b"[^a]", b"[", b"\\"),
    "option": (b"MAXLEN", b"VISIBILITY"),
}
ANY = (b"0", b"1", b"x")
INNER = (
    [b"SET", b"b", b"fenced"],
    [b"INCR", b"c"],
    [b"Q.PUSH", b"b", b"fenced"],
    [b"LOCK.ACQUIRE", b"c", b"ann"],
    [b"LOCK.RELEASE", b"a", b"ann"],
    [b"DEL", b"a"],
)
"""What stands where a syntax line says ``command [arg ...]``."""

EDGES = (
    b"", b"0", b"1", b"-1", b"2", b"00", b"+1", b" 1", b"1.5", b"nan", b"inf", b"-inf", b"1e400", b"0x10", b"9" * 400,
    b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808", b"4294967296", b"18446744073709551615",
    b"\x00", b"\r\n", b"a\r\n+OK\r\n", b"\xff\xfe\xc3(", b"*", b"[", b"x" * 2_000, b"ON", b"SKIP", b"nosuchoption",
    *KEYS, *OWNERS,
)  # fmt: skip

STOPS = {"SHUTDOWN", "DEBUG SLEEP"}
"""Commands that end or stop the server as they should: nothing to try at random."""


def commands(table: Table) -> list[Command]:
    """Every command and subcommand that may be called at random."""
    return [route.command for route in table.everything() if route.command.name not in STOPS | {"DEBUG"}]


def right(command: Command) -> SearchStrategy[Words]:
    """Calls as the syntax line has them, with values that often make sense."""
    tree = arguments(command.syntax)
    return st.tuples(*map(_spelled, tree)).map(
        lambda parts: [*_name(command), *(word for part in parts for word in part)]
    )


def wrong(command: Command) -> SearchStrategy[Words]:
    """Calls with any number of arguments of any kind, the command's own words among them."""
    own = tuple(word.encode() for word in re.findall(r"[A-Z][A-Z0-9-]+", command.syntax))
    anything = st.sampled_from((*own, *own, *EDGES))
    return st.lists(anything, max_size=9).map(lambda arguments: [*_name(command), *arguments])


def _name(command: Command) -> Words:
    return command.name.encode().split(b" ")


def _spelled(argument: Argument) -> SearchStrategy[Words]:
    """One argument of a syntax tree, with everything it consists of."""
    kind = argument[b"type"]
    words: SearchStrategy[Words]
    if kind == b"pure-token":
        return _flagged(argument, st.just([argument[b"token"]]))
    if kind == b"oneof":
        words = st.one_of([_spelled(one) for one in argument[b"arguments"]])
    elif kind == b"block":
        members = st.tuples(*map(_spelled, argument[b"arguments"]))
        words = members.map(lambda parts: [word for part in parts for word in part])
    elif argument[b"name"] == b"command":
        words = st.sampled_from(INNER)
    elif argument[b"name"] == b"arg":
        return st.just([])
    else:
        words = _value(argument[b"name"].decode())
    token = argument.get(b"token")
    return _flagged(argument, words if token is None else words.map(lambda found: [token, *found]))


def _value(name: str) -> SearchStrategy[Words]:
    return st.sampled_from(KEYS if name in PLACES else VALUES.get(name, ANY)).map(lambda word: [word])


def _flagged(argument: Argument, words: SearchStrategy[Words]) -> SearchStrategy[Words]:
    flags = [flag.text for flag in argument.get(b"flags", ())]
    if "multiple" in flags:
        words = st.lists(words, min_size=1, max_size=3).map(lambda found: [word for one in found for word in one])
    return st.one_of(st.just([]), words) if "optional" in flags else words
