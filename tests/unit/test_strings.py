"""The string commands, driven through the machine by the table's records."""

from __future__ import annotations

import random
from itertools import product

import pytest

from cluster.machine import lcs, longdouble, strings
from cluster.machine.reply import OK
from resp_server.commands import strings as table
from tests.unit.shard import START_MS, Shard


@pytest.fixture
def shard() -> Shard:
    return Shard()


NOT_AN_INTEGER = b"ERR value is not an integer or out of range"
NOT_A_FLOAT = b"ERR value is not a valid float"
SYNTAX = b"ERR syntax error"
WRONG_TYPE = b"WRONGTYPE Operation against a key holding the wrong kind of value"


def test_every_example_of_the_table_is_understood(shard: Shard) -> None:
    for command in table.COMMANDS:
        words = command.example.split()
        assert words[0] == command.name
        assert command.arguments_min <= len(words) <= command.arguments_max
        reply = shard(*words)
        assert not isinstance(reply, bytes) or not reply.startswith(b"ERR"), (command.name, reply)


def test_keys_of_the_table_stand_where_the_syntax_says(shard: Shard) -> None:
    for command in table.COMMANDS:
        words = command.example.encode().split()
        named = [words[at] for at in command.keys.positions(words)]
        before = set(shard.machine.keyspace.values)
        shard(*words)
        assert set(shard.machine.keyspace.values) - before <= set(named)
        assert named


# SET


def test_set_drops_the_deadline_unless_told_to_keep_it(shard: Shard) -> None:
    shard("SET", "k", "1", "EX", "100")
    shard("SET", "k", "2", "KEEPTTL")
    assert shard("TTL", "k") == 100
    shard("SET", "k", "3")
    assert shard("TTL", "k") == -1


def test_set_conditions(shard: Shard) -> None:
    assert shard("SET", "k", "1", "XX") is None
    assert shard("SET", "k", "1", "NX") == OK
    assert shard("SET", "k", "2", "nx") is None
    assert shard("GET", "k") == b"1"
    assert shard("SET", "k", "2", "XX") == OK
    assert shard("SET", "k", "3", "NX", "GET") == b"2"
    assert shard("SET", "k", "3", "XX", "GET") == b"2"
    assert shard("GET", "k") == b"3"
    assert shard("SET", "new", "1", "NX", "GET") is None
    assert shard("GET", "new") == b"1"


@pytest.mark.parametrize(
    "options",
    ["NX XX", "EX 1 PX 1", "EX 1 KEEPTTL", "KEEPTTL PXAT 9", "EX", "FOO", "PERSIST", "NX GET XX"],
)
def test_set_options_that_do_not_go_together(shard: Shard, options: str) -> None:
    assert shard("SET", "k", "v", *options.split()) == SYNTAX
    assert shard("EXISTS", "k") == 0


def test_an_option_may_be_repeated_and_its_last_value_counts(shard: Shard) -> None:
    assert shard("SET", "k", "v", "EX", "5", "NX", "ex", "7", "NX") == OK
    assert shard("PTTL", "k") == 7000


@pytest.mark.parametrize(
    "command", ["SET k v EX {}", "SET k v PX {}", "SET k v EXAT {}", "SETEX k {} v", "PSETEX k {} v"]
)
@pytest.mark.parametrize("time", ["0", "-1", "9223372036854775807"])
def test_a_time_must_be_positive_and_not_overflow(shard: Shard, command: str, time: str) -> None:
    words = command.format(time).split()
    assert shard(*words) == b"ERR invalid expire time in '%b' command" % words[0].lower().encode()
    assert shard("EXISTS", "k") == 0


@pytest.mark.parametrize("time", ["", "x", "1.5", "+1"])
def test_a_time_must_be_an_integer(shard: Shard, time: str) -> None:
    assert shard("SET", "k", "v", "EX", time) == NOT_AN_INTEGER


def test_a_deadline_that_is_past_deletes_at_once(shard: Shard) -> None:
    shard("SET", "k", "old")
    assert shard("SET", "k", "new", "PXAT", str(START_MS)) == OK
    assert shard("EXISTS", "k") == 0
    assert shard.machine.keyspace.deadlines == {}


def test_set_replaces_any_type_but_get_refuses_it(shard: Shard) -> None:
    assert shard("LOCK.ACQUIRE", "k", "me") == 1
    assert shard("SET", "k", "v", "GET") == WRONG_TYPE
    assert shard("GET", "k") == WRONG_TYPE
    assert shard("MGET", "k", "none") == [None, None]
    assert shard("SET", "k", "v") == OK
    assert shard("GET", "k") == b"v"


@pytest.mark.parametrize(
    "call",
    [
        "GETSET k v",
        "GETDEL k",
        "GETEX k",
        "APPEND k v",
        "SETRANGE k 0 v",
        "STRLEN k",
        "GETRANGE k 0 1",
        "INCR k",
        "DECRBY k 2",
        "INCRBYFLOAT k 1",
    ],
)
def test_other_types_are_refused_and_left_alone(shard: Shard, call: str) -> None:
    shard("LOCK.ACQUIRE", "k", "me")
    assert shard(*call.split()) == WRONG_TYPE
    assert shard("TYPE", "k") != OK
    assert shard("LOCK.RELEASE", "k", "me") == 1


# Several keys


def test_mset_drops_deadlines_and_its_last_pair_wins(shard: Shard) -> None:
    shard("SET", "a", "0", "EX", "100")
    assert shard("MSET", "a", "1", "b", "2", "a", "3") == OK
    assert shard("MGET", "a", "b", "c") == [b"3", b"2", None]
    assert shard("TTL", "a") == -1


@pytest.mark.parametrize("name", ["MSET", "MSETNX"])
def test_pairs_must_be_complete(shard: Shard, name: str) -> None:
    assert shard(name, "a", "1", "b") == b"ERR wrong number of arguments for '%b' command" % name.lower().encode()
    assert shard("DBSIZE") == 0


def test_msetnx_is_all_or_nothing(shard: Shard) -> None:
    shard("SET", "b", "0")
    assert shard("MSETNX", "a", "1", "b", "2") == 0
    assert shard("MGET", "a", "b") == [None, b"0"]
    assert shard("MSETNX", "c", "1", "c", "2") == 1
    assert shard("GET", "c") == b"2"


# Reading and changing


def test_getex(shard: Shard) -> None:
    shard("SET", "k", "v", "EX", "100")
    assert shard("GETEX", "k") == b"v"
    assert shard("TTL", "k") == 100
    assert shard("GETEX", "k", "PERSIST") == b"v"
    assert shard("TTL", "k") == -1
    assert shard("GETEX", "k", "EX", "0") == b"ERR invalid expire time in 'getex' command"
    assert shard("GETEX", "k", "EX", "") == NOT_AN_INTEGER
    assert shard("GETEX", "none", "EX", "0") is None
    assert shard("GETEX", "k", "PERSIST", "EX", "5") == SYNTAX
    assert shard("GETEX", "k", "EXAT", "1") == b"v"
    assert shard("GET", "k") is None


def test_append_and_setrange_keep_the_deadline(shard: Shard) -> None:
    shard("SET", "k", "Hello", "EX", "100")
    assert shard("APPEND", "k", " World") == 11
    assert shard("SETRANGE", "k", "6", "Redis") == 11
    assert shard("GET", "k") == b"Hello Redis"
    assert shard("TTL", "k") == 100


def test_setrange_fills_gaps_and_writes_nothing_for_nothing(shard: Shard) -> None:
    assert shard("SETRANGE", "k", "5", "") == 0
    assert shard("EXISTS", "k") == 0
    assert shard("SETRANGE", "k", "3", "ab") == 5
    assert shard("GET", "k") == b"\0\0\0ab"
    assert shard("SETRANGE", "k", "1", "xy") == 5
    assert shard("GET", "k") == b"\0xyab"
    assert shard("SETRANGE", "k", "-1", "x") == b"ERR offset is out of range"


def test_strings_have_a_greatest_length(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    too_long = b"ERR string exceeds maximum allowed size (proto-max-bulk-len)"
    assert shard("SETRANGE", "k", str(2**29), "x") == too_long
    assert shard("SETRANGE", "k", str(2**63 - 1), "x") == too_long
    monkeypatch.setattr(strings, "STRING_BYTES_MAX", 4)
    shard("SET", "k", "abc")
    assert shard("APPEND", "k", "d") == 4
    assert shard("APPEND", "k", "e") == too_long
    assert shard("GET", "k") == b"abcd"


@pytest.mark.parametrize(
    ("start", "end", "part"),
    [
        (0, 2, b"Thi"),
        (-3, -1, b"ing"),
        (0, -1, b"This is a string"),
        (10, 100, b"string"),
        (5, 3, b""),
        (-1, -3, b""),
        (0, -100, b"T"),
        (-100, 2, b"Thi"),
        (16, 20, b""),
        (-(2**63), 2**63 - 1, b"This is a string"),
    ],
)
def test_getrange(shard: Shard, start: int, end: int, part: bytes) -> None:
    shard("SET", "k", "This is a string")
    assert shard("GETRANGE", "k", str(start), str(end)) == part
    assert shard("SUBSTR", "k", str(start), str(end)) == part
    assert shard("GETRANGE", "none", str(start), str(end)) == b""


# Numbers


def test_counting_keeps_the_deadline_and_stops_at_64_bits(shard: Shard) -> None:
    shard("SET", "k", "9223372036854775806", "EX", "100")
    assert shard("INCR", "k") == 2**63 - 1
    assert shard("INCR", "k") == b"ERR increment or decrement would overflow"
    assert shard("DECRBY", "k", "9223372036854775807") == 0
    assert shard("DECR", "k") == -1
    assert shard("INCRBY", "k", "-9223372036854775807") == -(2**63)
    assert shard("DECR", "k") == b"ERR increment or decrement would overflow"
    assert shard("DECRBY", "k", "-9223372036854775808") == b"ERR decrement would overflow"
    assert shard("TTL", "k") == 100


@pytest.mark.parametrize("value", ["", " 1", "1 ", "01", "+1", "-0", "1.0", "9223372036854775808", "x", "1\n", "1_0"])
def test_what_is_no_integer_is_not_counted(shard: Shard, value: str) -> None:
    shard("SET", "k", value)
    assert shard("INCR", "k") == NOT_AN_INTEGER
    assert shard("INCRBY", "other", value) == NOT_AN_INTEGER
    assert shard("GET", "k") == value.encode()
    assert shard("EXISTS", "other") == 0


# The sums below are what redis-server 7.4 on x86-64 answers.
@pytest.mark.parametrize(
    ("value", "increment", "total"),
    [
        ("10.50", "0.1", b"10.6"),
        ("5.0e3", "2.0e2", b"5200"),
        ("0.1", "0.2", b"0.3"),
        ("0", "1e-17", b"0.00000000000000001"),
        ("0", "4e-18", b"0"),
        ("-0", "-0", b"0"),
        ("1", "-1e-18", b"1"),
        ("0x1p-3", "-0X.8p0", b"-0.375"),
        ("18446744073709551615", "0.5", b"18446744073709551616"),
        ("18446744073709551615", "1", b"18446744073709551616"),
        ("18446744073709551616", "1", b"18446744073709551616"),
        ("9007199254740993", "0", b"9007199254740993"),
        ("3.6e-4951", "0", b"0"),
    ],
)
def test_sums_of_floats(shard: Shard, value: str, increment: str, total: bytes) -> None:
    shard("SET", "k", value)
    assert shard("INCRBYFLOAT", "k", increment) == total
    assert shard("GET", "k") == total


@pytest.mark.parametrize(
    "text", ["", ".", "1e", "x", "nan", "-NaN", "1e4933", "1e-4952", " 1", "1 ", "0x", "1_0", "1,5", "1\0", "9" * 5120]
)
def test_what_is_no_float(shard: Shard, text: str) -> None:
    assert shard("INCRBYFLOAT", "k", text) == NOT_A_FLOAT
    shard("SET", "k", text)
    assert shard("INCRBYFLOAT", "k", "1") == NOT_A_FLOAT


@pytest.mark.parametrize(
    ("value", "increment"),
    [("inf", "1"), ("1", "-Infinity"), ("inf", "-inf"), ("1.18973149535723176502e4932", "1.18973149535723176502e4932")],
)
def test_sums_must_be_finite(shard: Shard, value: str, increment: str) -> None:
    shard("SET", "k", value)
    assert shard("INCRBYFLOAT", "k", increment) == b"ERR increment would produce NaN or Infinity"
    assert shard("GET", "k") == value.encode()


def test_long_doubles_of_any_length_read_back_as_written() -> None:
    dice = random.Random(7)
    for _ in range(300):
        number = longdouble.Finite(dice.getrandbits(64) | 1 << 63, dice.randrange(-63, 16384 - 63))
        assert longdouble.parse(b"%b" % longdouble.text(number)) is not None
        if number.exponent >= 0:
            found = longdouble.parse(longdouble.text(number))
            assert found is not None
            assert found.mantissa << found.exponent == number.mantissa << number.exponent


# LCS


def test_lcs_shapes(shard: Shard) -> None:
    shard("MSET", "a", "ohmytext", "b", "mynewtext")
    assert shard("LCS", "a", "b") == b"mytext"
    assert shard("LCS", "a", "b", "LEN") == 6
    assert shard("LCS", "a", "b", "IDX") == {b"matches": [[[4, 7], [5, 8]], [[2, 3], [0, 1]]], b"len": 6}
    assert shard("LCS", "a", "b", "IDX", "MINMATCHLEN", "4", "WITHMATCHLEN") == {
        b"matches": [[[4, 7], [5, 8], 4]],
        b"len": 6,
    }
    assert shard("LCS", "a", "none") == b""
    assert shard("LCS", "a", "b", "IDX", "LEN") == b"ERR If you want both the length and indexes, please just use IDX."
    assert shard("LCS", "a", "b", "MINMATCHLEN") == SYNTAX
    shard("LOCK.ACQUIRE", "l", "me")
    assert shard("LCS", "a", "l") == b"ERR The specified keys must contain string values"


def test_lcs_length_is_that_of_the_plain_table() -> None:
    dice = random.Random(3)
    for size_a, size_b in product((0, 1, 2, 7, 40), repeat=2):
        a, b = bytes(dice.choices(b"abc", k=size_a)), bytes(dice.choices(b"abc", k=size_b))
        row = [0] * (size_b + 1)
        for byte in a:
            before = row
            row = [0]
            for at, other in enumerate(b):
                row.append(before[at] + 1 if byte == other else max(before[at + 1], row[at]))
        grows = lcs.rows(a, b)
        assert grows[-1].bit_count() == row[-1]
        runs = lcs.matches(grows, a, b)
        assert sum(run.size for run in runs) == row[-1]
        assert all(a[run.a : run.a + run.size] == b[run.b : run.b + run.size] for run in runs)


def test_lcs_refuses_what_would_take_too_long(shard: Shard) -> None:
    shard("MSET", "a", "x" * 12000, "b", "y" * 12000, "long", "z" * lcs.TEXT_BYTES_MAX, "short", "z")
    assert shard("LCS", "a", "b") == (b"ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len")
    assert shard("LCS", "long", "short") == b"ERR String too long for LCS"
