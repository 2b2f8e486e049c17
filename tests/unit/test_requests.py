"""Requests: samples cut everywhere, Redis's errors, the fast path against the careful one, bounded memory."""

import gc
import random
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from resp_server.protocol.requests import Limits, RequestParser, _shared

LIMITS = Limits(bulk_bytes_max=4096, arguments_max=1000, inline_bytes_max=256)
Result = tuple[list[list[bytes]], bytes | None]


def encode(*arguments: bytes) -> bytes:
    return b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%b\r\n" % (len(text), text) for text in arguments)


def parse(chunks: list[bytes], limits: Limits = LIMITS) -> Result:
    """The commands, and the error line if there was one; a single chunk takes the fast path where it can."""
    parser = RequestParser(limits)
    commands = [command for chunk in chunks for command in parser.feed(chunk)]
    return commands, None if parser.error is None else parser.error.line


def parse_carefully(data: bytes, limits: Limits = LIMITS) -> Result:
    """Byte by byte no chunk holds a whole frame, so hiredis never sees one."""
    return parse([data[at : at + 1] for at in range(len(data))], limits)


def error(reason: bytes) -> bytes:
    return b"ERR Protocol error: " + reason


# Replies of redis-server 7.4.1 to the same bytes.
SAMPLES: list[tuple[bytes, list[list[bytes]], bytes | None]] = [
    (encode(b"GET", b"k"), [[b"GET", b"k"]], None),
    (encode(b"GET", b"k") * 3, [[b"GET", b"k"]] * 3, None),
    (encode(b"SET", b"", bytes(range(256))), [[b"SET", b"", bytes(range(256))]], None),
    (encode(b"+OK", b"=1\r\n", b"(5", b"%2\r\n") * 2, [[b"+OK", b"=1\r\n", b"(5", b"%2\r\n"]] * 2, None),
    (encode(*[b"x"] * 300), [[b"x"] * 300], None),
    (b"*-5\r\n*0\r\n*-1\r\nPING\r\n*1\r\n$4\r\nPING\r\n", [[b"PING"], [b"PING"]], None),
    (b"*1\r\n$4\r\nPINGxxPING\r\n", [[b"PING"], [b"PING"]], None),
    (b"*1\r\n$4\r\nPINGxx" + encode(b"GET", b"k"), [[b"PING"], [b"GET", b"k"]], None),
    (b"*1\rX$4\rYPINGZZ", [[b"PING"]], None),
    (b"*1\r\n$0\r\n\r\n", [[b""]], None),
    (b"*x\r\n", [], error(b"invalid multibulk length")),
    (b"*\r\n", [], error(b"invalid multibulk length")),
    (b"*01\r\n", [], error(b"invalid multibulk length")),
    (b"*+1\r\n", [], error(b"invalid multibulk length")),
    (b"*-0\r\n", [], error(b"invalid multibulk length")),
    (b"*1 \r\n", [], error(b"invalid multibulk length")),
    (b"*2147483648\r\n", [], error(b"invalid multibulk length")),
    (b"*9223372036854775808\r\n", [], error(b"invalid multibulk length")),
    (b"*-9223372036854775809\r\n", [], error(b"invalid multibulk length")),
    (b"*-9223372036854775808\r\n", [], None),
    (b"*1\r\nPING\r\n", [], error(b"expected '$', got 'P'")),
    (b"*1\r\n:4\r\n", [], error(b"expected '$', got ':'")),
    (b"*1\r\n\xff\r\n", [], error(b"expected '$', got '\xff'")),
    (b"*1\r\n\r\n", [], error(b"expected '$', got ' '")),
    (b"*1\r\n\n\r\n", [], error(b"expected '$', got ' '")),
    (b"*1\r\nP", [], None),
    (b"*1\r\n$-1\r\n", [], error(b"invalid bulk length")),
    (b"*1\r\n$-0\r\n", [], error(b"invalid bulk length")),
    (b"*1\r\n$\r\n", [], error(b"invalid bulk length")),
    (b"*1\r\n$x\r\n", [], error(b"invalid bulk length")),
    (b"*1\r\n$04\r\nPING\r\n", [], error(b"invalid bulk length")),
    (b"*1\r\n$4 \r\nPING\r\n", [], error(b"invalid bulk length")),
    (b"*1\r\n$10000000000\r\n", [], error(b"invalid bulk length")),
    (encode(b"GET", b"k") + b"*x\r\n" + encode(b"GET", b"k"), [[b"GET", b"k"]], error(b"invalid multibulk length")),
    (b"PING\r\n*x\r\n", [[b"PING"]], error(b"invalid multibulk length")),
    (b"\r\n\n  \r\nPING\r\n", [[b"PING"]], None),
    (b"PING\n" + encode(b"A") + b"GET k\r\n" + encode(b"B"), [[b"PING"], [b"A"], [b"GET", b"k"], [b"B"]], None),
    (b"$4\r\nPING\r\n", [[b"$4"], [b"PING"]], None),
    (encode(b"PING") + b"$0\r\n\r\n:0\r\n" + encode(b"PING"), [[b"PING"], [b"$0"], [b":0"], [b"PING"]], None),
    (encode(b"PING") + b"+\r\n", [[b"PING"], [b"+"]], None),
    (b'ECHO "a\\x41\\xfF\\n\\r\\t\\b\\a\\\\\\q\\""\r\n', [[b"ECHO", b'aA\xff\n\r\t\b\a\\q"']], None),
    (b'ECHO "\\xZZ\\x4"\n', [[b"ECHO", b"xZZx4"]], None),
    (b"ECHO 'a\\'b\\n'\r\n", [[b"ECHO", b"a'b\\n"]], None),
    (b"ECHO a\\x41\n", [[b"ECHO", b"a\\x41"]], None),
    (b'ECHO "" \'\'\n', [[b"ECHO", b"", b""]], None),
    (b'ECHO a"b c"\r\n', [[b"ECHO", b"ab c"]], None),
    (b"ECHO a\rb\n", [[b"ECHO", b"a", b"b"]], None),
    (b"\x0b\x0cECHO a\x0bb\n", [[b"ECHO", b"a\x0bb"]], None),
    (b'ECHO "a"\x0bb\n', [[b"ECHO", b"a", b"b"]], None),
    (b'ECHO "a"\rb\n', [[b"ECHO", b"a", b"b"]], None),
    (b"PING\r\r\n", [[b"PING"]], None),
    (b"ECHO a \x0b\n", [[b"ECHO", b"a"]], None),
    *[
        (line, [], error(b"unbalanced quotes in request"))
        for line in (
            b'ECHO "abc\r\n', b"ECHO 'abc\r\n", b'ECHO "a"b\r\n', b"ECHO 'a'b\r\n", b'ECHO a"b c"d\r\n',
            b'ECHO "abc\\\n', b"ECHO 'a\\\n", b"ECHO 'a\\'\n", b"ECHO \"a\"'b'\n", b'PI"NG\n',
        )
    ],
]  # fmt: skip


@pytest.mark.parametrize(("data", "commands", "line"), SAMPLES)
def test_sample_whole_byte_by_byte_and_cut_everywhere(
    data: bytes, commands: list[list[bytes]], line: bytes | None
) -> None:
    assert parse([data]) == (commands, line)
    assert parse_carefully(data) == (commands, line)
    for cut in range(len(data) + 1):
        assert parse([data[:cut], data[cut:]]) == (commands, line)


FOREIGN = [
    b"+OK\r\n", b"=7\r\ntxt:abc\r\n", b"(12\r\n", b":1\r\n", b",1.5\r\n", b"#t\r\n", b"_\r\n", b"-ERR\r\n",
    b"-\xff\r\n", b"*1\r\n$1\r\nx\r\n", b"~1\r\n$1\r\nx\r\n", b">1\r\n$1\r\nx\r\n",
    b"%1\r\n$1\r\nx\r\n$1\r\ny\r\n", b"%1\r\n*0\r\n*0\r\n",
    b"|1\r\n+a\r\n+b\r\n$1\r\nx\r\n", b"!3\r\nabc\r\n",
]  # fmt: skip


@pytest.mark.parametrize("element", FOREIGN)
def test_what_hiredis_takes_beyond_bulk_strings_is_refused(element: bytes) -> None:
    expected = error(b"expected '$', got '%b'" % element[:1])
    for before in (b"", encode(b"GET", b"k")):
        commands = [[b"GET", b"k"]] if before else []
        assert parse([before + b"*1\r\n" + element]) == (commands, expected)
        assert parse([before + b"*2\r\n$1\r\nx\r\n" + element + encode(b"PING")]) == (commands, expected)


@pytest.mark.parametrize("frame", [element for element in FOREIGN if element[:1] != b"*"])
def test_a_foreign_frame_between_commands_is_an_inline_line(frame: bytes) -> None:
    data = encode(b"PING") + frame + encode(b"PING")
    assert parse([data]) == parse_carefully(data)
    assert parse([data])[0][1] == [frame.splitlines()[0]]


ARGUMENT = st.one_of(
    st.binary(max_size=40), st.sampled_from([b"a=1\r\n", b"+62", b"<b>", b"50%", b"*1000000", b"$5\r\n"])
)
COMMANDS = st.lists(st.lists(ARGUMENT, min_size=1, max_size=120), max_size=12)


@given(COMMANDS, st.randoms(use_true_random=False))
def test_commands_survive_any_cut(commands: list[list[bytes]], chance: random.Random) -> None:
    data = b"".join(encode(*command) for command in commands)
    cuts = sorted(chance.randint(0, len(data)) for _ in range(chance.randint(0, 8)))
    chunks = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert parse(chunks) == (commands, None)


PIECE = st.one_of(
    st.sampled_from(
        [
            *FOREIGN,
            *(data for data, _, _ in SAMPLES),
            b"\r\n",
            b"\r",
            b"\n",
            b"*",
            b"$",
            b"*2\r\n",
            b"$1\r\n",
            b"*100000\r\n",
        ]
    ),
    st.builds(lambda arguments: encode(*arguments), st.lists(ARGUMENT, max_size=4)),
    st.binary(max_size=6),
)


@settings(max_examples=500)
@given(st.lists(PIECE, max_size=8).map(b"".join), st.integers(0, 400))
@example(b"*1\r\n=5\r\ntxt:=\r\n" + encode(b"="), 3)
@example(b"*2\r\n+ab$\r\n$1\r\nx$$", 9)
def test_both_paths_agree_on_any_bytes(data: bytes, cut: int) -> None:
    for stream in (data, b"*1\r\n$4\r\nPING\r\n" + data):
        expected = parse_carefully(stream)
        assert parse([stream]) == expected
        assert parse([stream[:cut], stream[cut:]]) == expected


@settings(max_examples=300)
@given(COMMANDS.filter(bool), st.data())
def test_both_paths_agree_on_damaged_frames(commands: list[list[bytes]], data: st.DataObject) -> None:
    stream = bytearray(b"".join(encode(*command) for command in commands[:3]))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(stream) - 1))
        stream[at] = data.draw(st.sampled_from(b"*$+=~%>|(:-_#,!0129\r\n\x00\xffa"))
    assert parse([bytes(stream)]) == parse_carefully(bytes(stream))


def test_damage_on_one_connection_does_not_reach_the_next() -> None:
    cut_bulks = [b"*1\r\n$%d\r\n" % length for length in range(1, 40)]
    for data in (b"*1\r\n$4\r\nPI", b"*1\r\n*1\r\n", b"*1\r\n!", b"*1\r\n+OK\r\n", b"*2\r\n", *cut_bulks):
        _shared.renew()
        parse([data])
        assert parse([encode(b"GET", b"k")]) == ([[b"GET", b"k"]], None)


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (b"", b"too big inline request"),
        (b"*", b"too big mbulk count string"),
        (b"*1\r\n", b"too big bulk count string"),
        (b"*1\r\n$", b"too big bulk count string"),
    ],
)
def test_lines_end_in_time(start: bytes, reason: bytes) -> None:
    line_start = b"" if start == b"*1\r\n" else start[-1:]
    allowed = start + b"1" * (LIMITS.inline_bytes_max - len(line_start))
    assert parse([allowed]) == parse_carefully(allowed) == ([], None)
    for tail in (b"1", b"1\r\n"):
        assert parse([allowed + tail]) == parse_carefully(allowed + tail) == ([], error(reason))


def test_limits_are_read_when_a_header_is() -> None:
    limits = Limits(bulk_bytes_max=100, arguments_max=100)
    large = encode(b"SET", b"k", b"v" * 101)
    assert parse([large], limits) == ([], error(b"invalid bulk length"))
    assert parse([encode(*[b""] * 101)], limits) == ([], error(b"invalid multibulk length"))
    assert parse([encode(*[b""] * 100)], limits) == ([[b""] * 100], None)
    limits.bulk_bytes_max = 101
    assert parse([large], limits) == ([[b"SET", b"k", b"v" * 101]], None)


@pytest.mark.parametrize(
    ("allowed", "refused", "reason"),
    [
        (encode(*[b"x"] * 10), encode(*[b"x"] * 11), b"unauthenticated multibulk length"),
        (encode(b"x" * 16384), encode(b"x" * 16385), b"unauthenticated bulk length"),
    ],
)
def test_little_is_allowed_before_authentication(allowed: bytes, refused: bytes, reason: bytes) -> None:
    parser = RequestParser(Limits())
    parser.authenticated = False
    assert len(parser.feed(allowed)) == 1
    assert parser.feed(refused) == []
    assert parser.error is not None
    assert parser.error.line == error(reason)


@pytest.mark.parametrize("large", [encode(*[b"x"] * 11), encode(b"SET", b"k", b"x" * 20000)])
def test_a_large_command_may_follow_its_auth(large: bytes) -> None:
    for authenticated in (True, False):
        parser = RequestParser(Limits())
        parser.authenticated = False
        assert parser.feed(encode(b"AUTH", b"secret") + large) == [[b"AUTH", b"secret"]]
        assert parser.error is None
        parser.authenticated = authenticated
        assert parser.feed(b"") == (parse([large], Limits())[0] if authenticated else [])
        assert (parser.error is None) == authenticated


def test_query_buffer_limit_closes_without_a_reply() -> None:
    parser = RequestParser(Limits(query_buffer_bytes_max=1000))
    assert parser.feed(b"*3\r\n$3\r\nSET\r\n$600\r\n" + b"k" * 600 + b"\r\n$900\r\n") == []
    assert parser.buffered_bytes == 603
    assert parser.feed(b"v" * 397) == []
    assert parser.error is None
    assert parser.feed(b"v") == []
    assert parser.error is not None
    assert parser.error.line == b""
    assert parser.buffered_bytes == 0
    assert parser.feed(encode(b"PING")) == []


def peak_bytes(chunks: list[bytes], parser: RequestParser) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        for chunk in chunks:
            parser.feed(chunk)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "chunk",
    [
        b"*1000000000\r\n",
        b"*1048576\r\n",
        b"*1\r\n~1000000000\r\n",
        b"*1\r\n>1000000000\r\n",
        b"*1\r\n|1000000000\r\n",
        b"*1\r\n%1000000000\r\n",
        encode(b"PINGxx")[:-2] + b"xx*1000000000\r\n",
        b"*9999\r\n" * 9000,
        b"*2\r\n$1\r\nx\r\n*9999\r\n" * 3000,
        b"*1\r\n" * 16000,
        b"*1\r\n$536870912\r\n",
    ],
)
def test_memory_follows_what_was_received_not_what_a_header_claims(chunk: bytes) -> None:
    for cut in (len(chunk), 5):
        assert peak_bytes([chunk[:cut], chunk[cut:]], RequestParser(Limits())) < 4 * 2**20


def test_a_large_bulk_in_pieces_is_held_once_and_then_let_go() -> None:
    value = b"v" * 2**23
    data = encode(b"SET", b"k", value) + encode(b"PING") + b"*1\r\n"
    parser = RequestParser(Limits())
    chunks = [data[at : at + 65536] for at in range(0, len(data), 65536)]
    assert [command for chunk in chunks for command in parser.feed(chunk)] == [[b"SET", b"k", value], [b"PING"]]
    assert parser.buffered_bytes == 0
    assert peak_bytes(chunks, RequestParser(Limits())) < 2.5 * len(value)


def test_an_array_of_the_largest_size_arrives_in_many_chunks() -> None:
    count = Limits().arguments_max
    data = b"*%d\r\n" % count + b"$1\r\nx\r\n" * count + encode(b"PING")
    commands, line = parse([data[at : at + 65521] for at in range(0, len(data), 65521)], Limits())
    assert line is None
    assert [len(command) for command in commands] == [count, 1]
