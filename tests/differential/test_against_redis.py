"""The same calls to a real redis-server and to ours: the replies must be the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import hiredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resp_server.commands import keys, strings
from tests.differential.commands import FAR_S, FLOATS, PATTERNS, VALUES, Call, sequences
from tests.servers import Server

CLOCK_SLACK_S = 30
"""How far apart two times may be that were taken from the clock, one server after the other."""

_INCOMPLETE = object()
_SECONDS = (b"TTL", b"EXPIRETIME")
_MILLISECONDS = (b"PTTL", b"PEXPIRETIME")


class Connection:
    """A client that shows replies as they came."""

    def __init__(self, server: Server) -> None:
        self._socket = server.connect()
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)

    def ask(self, call: Call) -> bytes:
        """The reply's bytes."""
        self._socket.sendall(b"*%d\r\n" % len(call) + b"".join(b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in call))
        reply = b""
        while True:
            piece = self._socket.recv(1 << 16)
            if not piece:
                raise ConnectionError(f"closed after {call!r}")
            reply += piece
            self._reader.feed(piece)
            if self._reader.gets() is not _INCOMPLETE:
                return reply

    def close(self) -> None:
        """Ends it."""
        self._socket.close()


def parsed(reply: bytes) -> Any:
    """A reply's value."""
    reader = hiredis.Reader()
    reader.feed(reply)
    return reader.gets()


@dataclass(frozen=True, slots=True)
class Pair:
    """Both servers, asked the same."""

    redis: Connection
    ours: Connection

    def start_empty(self) -> None:
        """No keys on either."""
        assert self.redis.ask([b"FLUSHALL"]) == self.ours.ask([b"FLUSHALL"]) == b"+OK\r\n"

    def compare(self, call: Call) -> None:
        """Asks both and fails when the replies differ."""
        theirs, ours = self.redis.ask(call), self.ours.ask(call)
        assert ours == theirs or _differ_by_clock(call, theirs, ours) or _differ_by_order(call, theirs, ours), call

    def walk(self, *options: bytes) -> list[set[bytes]]:
        """What a full SCAN walk meets on each."""
        return [_walk(connection, options) for connection in (self.redis, self.ours)]


def _differ_by_clock(call: Call, theirs: bytes, ours: bytes) -> bool:
    name = call[0].upper()
    if name not in _SECONDS + _MILLISECONDS or not theirs[:1] == ours[:1] == b":":
        return False
    unit = 1 if name in _SECONDS else 1000
    numbers = int(theirs[1:]), int(ours[1:])
    if name.endswith(b"EXPIRETIME") and max(numbers) >= FAR_S * unit:
        return False  # it was given as an absolute time
    return min(numbers) > 0 and abs(numbers[0] - numbers[1]) <= CLOCK_SLACK_S * unit


def _differ_by_order(call: Call, theirs: bytes, ours: bytes) -> bool:
    return call[0].upper() == b"KEYS" and sorted(parsed(theirs)) == sorted(parsed(ours))


def _walk(connection: Connection, options: tuple[bytes, ...]) -> set[bytes]:
    found: set[bytes] = set()
    cursor = b"0"
    while True:
        cursor, keys = parsed(connection.ask([b"SCAN", cursor, *options]))
        found |= set(keys)
        if cursor == b"0":
            return found


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def pair(request: pytest.FixtureRequest, real_redis: Server, sepakat: Server) -> Iterator[Pair]:
    """A connection to each, speaking RESP2 or RESP3."""
    with closing(Connection(real_redis)) as redis, closing(Connection(sepakat)) as ours:
        for connection in (redis, ours):
            if request.param == 3:
                connection.ask([b"HELLO", b"3"])
        yield Pair(redis, ours)


def test_sequences_of_calls(pair: Pair) -> None:
    @settings(max_examples=200)
    @given(sequences())
    def check(calls: list[Call]) -> None:
        pair.start_empty()
        for call in calls:
            pair.compare(call)

    check()


def test_sums_of_floats(pair: Pair) -> None:
    @settings(max_examples=300)
    @given(st.lists(FLOATS, min_size=1, max_size=4))
    def check(numbers: list[bytes]) -> None:
        pair.compare([b"SET", b"sum", numbers[0]])
        for number in numbers[1:]:
            pair.compare([b"INCRBYFLOAT", b"sum", number])
        pair.compare([b"GET", b"sum"])

    check()


def test_numbers_of_thousands_of_digits(pair: Pair) -> None:
    for number in (
        b"9" * 4900, b"9" * 5119, b"0." + b"0" * 4930 + b"7", b"1" + b"0" * 5118, b"0" * 5118 + b"7", b"0" * 5120,
        b"1e" + b"0" * 5000 + b"1", b"0x" + b"f" * 4000, b"0x" + b"f" * 4000 + b"p-12000",
    ):  # fmt: skip
        pair.compare([b"SET", b"sum", b"1"])
        pair.compare([b"INCRBYFLOAT", b"sum", number])
        pair.compare([b"INCRBYFLOAT", b"sum", b"-0.5"])


def test_encoding_after_set(pair: Pair) -> None:
    @settings(max_examples=100)
    @given(VALUES)
    def check(value: bytes) -> None:
        pair.compare([b"SET", b"key", value])
        pair.compare([b"OBJECT", b"ENCODING", b"key"])

    check()


def test_patterns(pair: Pair) -> None:
    @settings(max_examples=200)
    @given(
        PATTERNS,
        st.lists(st.one_of(st.text("abk[]^-\\:1", max_size=6).map(str.encode), st.binary(max_size=3)), max_size=30),
    )
    def check(pattern: bytes, keys: list[bytes]) -> None:
        pair.start_empty()
        for key in keys:
            pair.compare([b"SET", key, b""])
        pair.compare([b"KEYS", pattern])
        theirs, ours = pair.walk(b"MATCH", pattern, b"COUNT", b"5")
        assert ours == theirs

    check()


def test_patterns_of_very_many_stars(pair: Pair) -> None:
    pair.start_empty()
    pair.compare([b"SET", b"a" * 2000, b""])
    for stars in (999, 1000, 1001, 1002):
        pair.compare([b"KEYS", b"*a" * stars])
        pair.compare([b"KEYS", b"*a" * stars + b"*"])
        pair.compare([b"KEYS", b"a*" * stars + b"b"])


def test_scan_walks(pair: Pair) -> None:
    pair.start_empty()
    for number in range(500):
        pair.compare([b"SET", b"key:%d" % number, b""])
    for options in ([], [b"TYPE", b"STRING"], [b"TYPE", b"hash"], [b"TYPE", b""], [b"MATCH", b"*7*", b"COUNT", b"50"]):
        theirs, ours = pair.walk(*options)
        assert ours == theirs


@pytest.mark.parametrize(
    "texts",
    [
        (b"ohmytext", b"mynewtext"),
        (b"", b"x"),
        (b"same", b"same"),
        (b"ab" * 300, b"ba" * 200),
        (b"x" * 12000, b"y" * 12000),
    ],
    ids=["words", "empty", "same", "long", "too-long"],
)
def test_lcs(pair: Pair, texts: tuple[bytes, bytes]) -> None:
    pair.compare([b"MSET", b"a", texts[0], b"b", texts[1]])
    for options in ([], [b"LEN"], [b"IDX"], [b"IDX", b"WITHMATCHLEN"], [b"IDX", b"MINMATCHLEN", b"2"]):
        pair.compare([b"LCS", b"a", b"b", *options])


def test_the_table_says_what_command_info_says(real_redis: Server) -> None:
    with closing(Connection(real_redis)) as redis:
        for command in (one for table in (strings, keys) for top in table.COMMANDS for one in (top, *top.subcommands)):
            (theirs,) = parsed(redis.ask([b"COMMAND", b"INFO", command.full_name.encode()]))
            name, arity, flags, first, last, step, categories = theirs[:7]
            assert (command.full_name, command.arity) == (name.decode(), arity)
            assert (command.keys.first, command.keys.last, command.keys.step) == (first, last, step), name
            assert set(command.public_flags) == {flag.decode() for flag in flags}, name
            assert set(command.categories) == {category.decode() for category in categories}, name
