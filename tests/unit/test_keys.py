"""Names, deadlines, walks and patterns, driven through the machine by the table's records."""

from __future__ import annotations

import random
from collections import Counter
from itertools import product

import pytest

from cluster.machine import glob, scanning
from cluster.machine.keyspace import BUCKETS
from cluster.machine.machine import ALARMS_PER_ENTRY
from cluster.machine.reply import OK, Status
from resp_server.commands import keys as table
from tests.unit.shard import START_MS, Shard


@pytest.fixture
def shard() -> Shard:
    return Shard()


NOT_AN_INTEGER = b"ERR value is not an integer or out of range"
SYNTAX = b"ERR syntax error"


def test_every_example_of_the_table_is_understood(shard: Shard) -> None:
    for command in (one for container in table.COMMANDS for one in container.subcommands or (container,)):
        if command.run is None:
            continue
        shard("FLUSHALL")
        shard("MSET", "draft", "1", "a", "1")
        words = command.example.split()
        assert command.example.startswith(command.name)
        assert command.arguments_min <= len(words) <= command.arguments_max
        reply = shard(*words)
        is_error = isinstance(reply, bytes) and reply.startswith(b"ERR")
        assert is_error == command.summary.startswith("Refuses"), (command.name, reply)


# Names


def test_counting_and_deleting(shard: Shard) -> None:
    shard("MSET", "a", "1", "b", "2", "c", "3")
    assert shard("EXISTS", "a", "a", "none") == 2
    assert shard("TOUCH", "a", "b", "none") == 2
    assert shard("DEL", "a", "a", "none") == 1
    assert shard("UNLINK", "b") == 1
    assert shard("DBSIZE") == 1


def test_type(shard: Shard) -> None:
    shard("SET", "s", "1")
    shard("LOCK.ACQUIRE", "l", "me")
    assert [shard("TYPE", key) for key in ("s", "l", "none")] == [Status("string"), Status("lock"), Status("none")]


def test_rename_takes_the_deadline_along(shard: Shard) -> None:
    shard("SET", "a", "1", "EX", "100")
    shard("SET", "b", "2", "EX", "5")
    assert shard("RENAME", "a", "b") == OK
    assert shard("EXISTS", "a") == 0
    assert (shard("GET", "b"), shard("TTL", "b")) == (b"1", 100)
    shard("SET", "c", "3")
    assert shard("RENAME", "c", "b") == OK
    assert shard("TTL", "b") == -1
    shard.pass_ms(200_000)
    assert shard("GET", "b") == b"3"


def test_rename_of_what_is_missing_or_itself(shard: Shard) -> None:
    assert shard("RENAME", "none", "none") == b"ERR no such key"
    assert shard("RENAMENX", "none", "a") == b"ERR no such key"
    shard("MSET", "a", "1", "b", "2")
    assert shard("RENAME", "a", "a") == OK
    assert shard("RENAMENX", "a", "a") == 0
    assert shard("RENAMENX", "a", "b") == 0
    assert shard("RENAMENX", "a", "c") == 1
    assert shard("MGET", "a", "b", "c") == [None, b"2", b"1"]


def test_copy(shard: Shard) -> None:
    shard("SET", "a", "1", "EX", "100")
    assert shard("COPY", "a", "b") == 1
    assert (shard("GET", "b"), shard("TTL", "b")) == (b"1", 100)
    assert shard("COPY", "a", "b") == 0
    shard("SET", "c", "3")
    assert shard("COPY", "c", "b", "DB", "0", "REPLACE") == 1
    assert (shard("GET", "b"), shard("TTL", "b")) == (b"3", -1)
    assert shard("COPY", "none", "b", "REPLACE") == 0
    assert shard("COPY", "a", "a") == b"ERR source and destination objects are the same"
    assert shard("COPY", "a", "b", "DB", "1") == b"ERR DB index is out of range"
    assert shard("COPY", "a", "b", "DB", "2147483648") == (
        b"ERR value is out of range, value must between -2147483648 and 2147483647"
    )
    assert shard("COPY", "a", "b", "DB") == SYNTAX


@pytest.mark.parametrize("name", ["FLUSHALL", "FLUSHDB"])
def test_flush(shard: Shard, name: str) -> None:
    shard("SET", "a", "1", "EX", "100")
    assert shard(name, "NOW") == SYNTAX
    assert shard(name, "SYNC", "ASYNC") == SYNTAX
    assert shard("DBSIZE") == 1
    assert shard(name, "async") == OK
    assert shard("DBSIZE") == 0
    assert shard.walk() == []


# Deadlines


@pytest.mark.parametrize(
    ("call", "left_ms"),
    [
        ("EXPIRE k 10", 10_000),
        ("PEXPIRE k 10", 10),
        (f"EXPIREAT k {START_MS // 1000 + 5}", 5000),
        (f"PEXPIREAT k {START_MS + 7}", 7),
    ],
)
def test_setting_a_deadline(shard: Shard, call: str, left_ms: int) -> None:
    assert shard(*call.split()) == 0
    shard("SET", "k", "v")
    assert shard(*call.split()) == 1
    assert shard("PTTL", "k") == left_ms
    assert shard("PEXPIRETIME", "k") == START_MS + left_ms
    shard.pass_ms(left_ms - 1)
    assert shard("GET", "k") == b"v"
    shard.pass_ms(1)
    assert shard("GET", "k") is None
    assert shard("TTL", "k") == -2


@pytest.mark.parametrize(
    "call", ["EXPIRE k 0", "PEXPIRE k -1", "EXPIREAT k 1", f"PEXPIREAT k {START_MS}", "PEXPIREAT k -5"]
)
def test_a_deadline_that_is_past_deletes_at_once(shard: Shard, call: str) -> None:
    shard("SET", "k", "v", "EX", "100")
    assert shard(*call.split()) == 1
    assert shard("EXISTS", "k") == 0


def test_a_later_deadline_outlives_the_first(shard: Shard) -> None:
    shard("SET", "k", "v", "PX", "10")
    shard("PEXPIRE", "k", "5000")
    shard.pass_ms(4999)
    assert shard("PTTL", "k") == 1
    assert shard("PERSIST", "k") == 1
    assert shard("PERSIST", "k") == 0
    shard.pass_ms(10_000)
    assert (shard("GET", "k"), shard("TTL", "k"), shard("PEXPIRETIME", "k")) == (b"v", -1, -1)


@pytest.mark.parametrize(
    ("old", "condition", "new", "done"),
    [
        (None, "NX", 50, 1),
        (50, "NX", 90, 0),
        (None, "XX", 50, 0),
        (50, "XX", 90, 1),
        (50, "GT", 50, 0),
        (50, "GT", 51, 1),
        (None, "GT", 50, 0),
        (50, "LT", 50, 0),
        (50, "LT", 49, 1),
        (None, "LT", 50, 1),
        (None, "XX LT", 50, 0),
        (50, "xx gt", 51, 1),
        (50, "GT XX", 49, 0),
    ],
)
def test_conditions(shard: Shard, old: int | None, condition: str, new: int, done: int) -> None:
    shard("SET", "k", "v")
    if old is not None:
        shard("EXPIRE", "k", str(old))
    assert shard("EXPIRE", "k", str(new), *condition.split()) == done
    assert shard("TTL", "k") == (new if done else -1 if old is None else old)


def test_conditions_that_exclude_each_other(shard: Shard) -> None:
    for other in ("XX", "GT", "LT"):
        assert shard("EXPIRE", "k", "1", "NX", other) == (
            b"ERR NX and XX, GT or LT options at the same time are not compatible"
        )
    assert shard("EXPIRE", "k", "1", "LT", "GT") == b"ERR GT and LT options at the same time are not compatible"
    assert shard("EXPIRE", "k", "x", "Foo") == b"ERR Unsupported option Foo"


@pytest.mark.parametrize(
    ("name", "time"),
    [("EXPIRE", 2**63 - 1), ("EXPIRE", -(2**63)), ("EXPIREAT", 2**63 // 1000 + 1), ("PEXPIRE", 2**63 - START_MS)],
)
def test_times_that_overflow(shard: Shard, name: str, time: int) -> None:
    shard("SET", "k", "v")
    assert shard(name, "k", str(time)) == b"ERR invalid expire time in '%b' command" % name.lower().encode()
    assert shard("TTL", "k") == -1


def test_the_largest_times_that_do_not(shard: Shard) -> None:
    shard("SET", "k", "v")
    assert shard("PEXPIREAT", "k", str(2**63 - 1)) == 1
    assert shard("PEXPIRETIME", "k") == 2**63 - 1
    assert shard("PEXPIRE", "k", str(2**63 - 1 - START_MS)) == 1
    assert shard("EXPIRE", "k", "x") == NOT_AN_INTEGER


def test_seconds_are_rounded_to_the_nearest(shard: Shard) -> None:
    shard("SET", "k", "v", "PXAT", str(START_MS + 1499))
    assert (shard("TTL", "k"), shard("EXPIRETIME", "k")) == (1, START_MS // 1000 + 1)
    shard("SET", "k", "v", "PXAT", str(START_MS + 1500))
    assert (shard("TTL", "k"), shard("EXPIRETIME", "k")) == (2, START_MS // 1000 + 2)


# Walks


def test_a_walk_meets_every_key_once_whatever_changes_meanwhile(shard: Shard) -> None:
    stays = [b"stays:%d" % number for number in range(3000)]
    for key in stays:
        shard("SET", key, "1")
    met: list[bytes] = []
    cursor, turn = b"0", 0
    while True:
        reply = shard("SCAN", cursor, "COUNT", "50")
        assert isinstance(reply, list)
        cursor, found = reply
        met += found
        turn += 1
        shard("SET", f"comes:{turn}", "1")
        shard("DEL", f"comes:{turn - 3}")
        if cursor == b"0":
            break
    assert sorted(key for key in met if key.startswith(b"stays")) == sorted(stays)
    assert turn > 40


def test_scan_options(shard: Shard) -> None:
    shard("MSET", "a1", "", "a2", "", "b1", "")
    shard("LOCK.ACQUIRE", "a3", "me")
    assert sorted(shard.walk("MATCH", "a*")) == [b"a1", b"a2", b"a3"]
    assert shard.walk("TYPE", "LOCK") == [b"a3"]
    assert sorted(shard.walk("TYPE", "string", "MATCH", "*1", "COUNT", "1")) == [b"a1", b"b1"]
    assert shard.walk("TYPE", "hash") == shard.walk("TYPE", "") == []


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("SCAN x", b"ERR invalid cursor"),
        ("SCAN -1", b"ERR invalid cursor"),
        (f"SCAN {2**64}", b"ERR invalid cursor"),
        ("SCAN 0 COUNT 0", SYNTAX),
        ("SCAN 0 COUNT x", NOT_AN_INTEGER),
        ("SCAN 0 COUNT", SYNTAX),
        ("SCAN 0 FOO", SYNTAX),
    ],
)
def test_scan_errors(shard: Shard, call: str, error: bytes) -> None:
    assert shard(*call.split()) == error


def test_a_cursor_of_another_server_still_comes_to_an_end(shard: Shard) -> None:
    shard("MSET", "a", "", "b", "")
    for cursor in (BUCKETS - 1, BUCKETS, 2**64 - 1):
        reply = shard("SCAN", str(cursor), "COUNT", str(BUCKETS))
        assert isinstance(reply, list)
        assert reply[0] == b"0"


def test_overdue_keys_are_not_shown(shard: Shard) -> None:
    for number in range(ALARMS_PER_ENTRY + 20):
        shard("SET", f"short:{number}", "1", "PX", "5")
    shard("SET", "long", "1")
    shard.pass_ms(5)
    assert shard.machine.behind
    assert shard("DBSIZE") == 21
    assert shard("KEYS", "*") == [b"long"]
    assert shard.walk() == [b"long"]
    assert shard("RANDOMKEY") == b"long"
    shard("DEL", "long")
    assert shard("RANDOMKEY") is None


@pytest.mark.parametrize("total", [1, 5, BUCKETS])
def test_random_keys(shard: Shard, total: int) -> None:
    dice = random.Random(11)
    handler = scanning.random_key(dice.randrange)
    assert handler(shard.machine, [b"RANDOMKEY"]) is None
    for number in range(total):
        shard("SET", str(number), "")
    drawn = Counter(handler(shard.machine, [b"RANDOMKEY"]) for _ in range(2000))
    if total <= 5:
        assert set(drawn) == {b"%d" % number for number in range(total)}
        assert max(drawn.values()) < 2 * min(drawn.values())
    else:
        assert len(drawn) > 1700  # 2000 draws of 16384, all alike: about 1880 differ


# Patterns


def matches_slowly(pattern: bytes, text: bytes) -> bool:
    """The rule for ``*``, ``?`` and plain bytes, as plainly as it can be said."""
    if not pattern:
        return not text
    if pattern[:1] == b"*":
        return any(matches_slowly(pattern[1:], text[at:]) for at in range(len(text) + 1))
    return bool(text) and pattern[:1] in (b"?", text[:1]) and matches_slowly(pattern[1:], text[1:])


def test_stars_and_question_marks_against_the_plain_rule() -> None:
    texts = [bytes(text) for size in range(1, 6) for text in product(b"ab", repeat=size)]
    for pattern in (bytes(pattern) for size in range(1, 6) for pattern in product(b"ab*?", repeat=size)):
        found = [text for text in texts if glob.matcher(pattern)(text)]
        assert found == [text for text in texts if matches_slowly(pattern, text)], pattern


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (b"h[ae]llo", [b"hello", b"hallo"], [b"hillo", b"hllo"]),
        (b"h[^e]llo", [b"hallo", b"h\nllo"], [b"hello"]),
        (b"h[a-c]llo", [b"hbllo"], [b"hdllo"]),
        (b"[c-a]", [b"b"], [b"d"]),
        (b"\\*", [b"*"], [b"a"]),
        (b"a\\", [b"a\\"], [b"a"]),
        (b"[\\]]", [b"]"], [b"\\"]),
        (b"[a-]", [b"]", b"_", b"a"], [b"-", b"b"]),
        (b"[ab", [b"a", b"b"], [b"[", b"ab"]),
        (b"[", [], [b"[", b""]),
        (b"[]a", [], [b"]", b"a", b"]a"]),
        (b"[^", [b"x", b"^"], [b"", b"xx"]),
        (b"[\x01-\xff]", [b"\x00", b"\x01", b"\xff"], [b"\x02", b"\xfe"]),
        (b"[^]*", [b"\x00", b"ab"], [b""]),
        (b"*", [b"", b"a\n"], []),
        (b"**", [b"a"], [b""]),
        (b"", [b""], [b"a"]),
        (b"(a|b)+.{2}$", [b"(a|b)+.{2}$"], [b"aab"]),
    ],
)
def test_patterns(pattern: bytes, yes: list[bytes], no: list[bytes]) -> None:
    matches = glob.matcher(pattern)
    assert [text for text in yes + no if matches(text)] == yes


def test_a_hostile_pattern_is_no_slower_than_its_length_times_the_key_s(shard: Shard) -> None:
    matches = glob.matcher(b"*a" * 900 + b"*b")
    assert not matches(b"a" * 5000)  # going back over earlier stars would never end
    assert matches(b"a" * 5000 + b"b")
    assert not glob.matcher(b"*a" * (glob.STARS_MAX + 1))(b"a" * 5000)
    too_long = shard("KEYS", b"a" * (glob.PATTERN_BYTES_MAX + 1))
    assert too_long == b"ERR pattern is too long, use 16384 bytes at most"


# Looking inside


@pytest.mark.parametrize(
    ("value", "encoding"),
    [
        ("12", b"int"),
        (str(-(2**63)), b"int"),
        (str(2**63), b"embstr"),
        ("012", b"embstr"),
        ("x" * 44, b"embstr"),
        ("x" * 45, b"raw"),
    ],
)
def test_encodings(shard: Shard, value: str, encoding: bytes) -> None:
    shard("SET", "k", value)
    assert shard("OBJECT", "ENCODING", "k") == encoding


def test_object_of_what_is_missing_and_of_what_is_not_tracked(shard: Shard) -> None:
    shard("SET", "k", "v")
    assert shard("OBJECT", "REFCOUNT", "k") == 1
    for word, begins in (
        ("FREQ", b"ERR An LFU maxmemory policy is not selected"),
        ("IDLETIME", b"ERR No maxmemory policy"),
    ):
        reply = shard("OBJECT", word, "k")
        assert isinstance(reply, bytes)
        assert reply.startswith(begins)
    assert [shard("OBJECT", word, "none") for word in ("ENCODING", "REFCOUNT", "FREQ", "IDLETIME")] == [None] * 4


def test_memory_usage_grows_with_the_value(shard: Shard) -> None:
    shard("MSET", "small", "x" * 10, "large", "x" * 10_010)
    shard("LOCK.ACQUIRE", "lock", "me")
    small, large, lock = (shard("MEMORY", "USAGE", key, "SAMPLES", "0") for key in ("small", "large", "lock"))
    assert isinstance(small, int)
    assert isinstance(large, int)
    assert isinstance(lock, int)
    assert large - small == 10_000
    assert lock > 0
    assert shard("MEMORY", "USAGE", "none") is None
    assert shard("MEMORY", "USAGE", "small", "SAMPLES", "-1") == SYNTAX
    assert shard("MEMORY", "USAGE", "small", "SAMPLES") == SYNTAX


def test_help_lists_every_subcommand() -> None:
    for container in (command for command in table.COMMANDS if command.subcommands):
        helping = container.subcommands[-1]
        assert helping.serve is not None
        lines = [status.text for status in helping.serve(None, [])]  # type: ignore[arg-type, union-attr]
        assert lines[0] == f"{container.name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"
        for subcommand in container.subcommands:
            assert any(line.startswith(subcommand.name.split()[1]) for line in lines)
