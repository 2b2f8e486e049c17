"""Any bytes at all on a socket: an error or a closed connection, and nobody else notices."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import hiredis
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from resp_server.commands.table import Table
from tests.calls import commands, right, wrong
from tests.raw_client import packed, resident_bytes
from tests.servers import Server, sepakat_server

HANG_SECONDS = 30
MEBIBYTE = 2**20
LAST_WORD = packed(b"ECHO", b"that was all")
ANSWER = b"$12\r\nthat was all\r\n"

TRIED = [command for command in commands(Table()) if command.name != "CLIENT KILL"]  # which would end the neighbour
FRAMES = st.one_of([st.one_of(right(command), wrong(command)) for command in TRIED]).map(lambda words: packed(*words))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all the bytes of this file; a traceback in its log fails the last test."""
    folder: Path = tmp_path_factory.mktemp("protocol")
    with sepakat_server(folder / "data", folder / "log", "--loglevel", "notice") as started:
        yield started


@contextmanager
def neighbour(server: Server) -> Iterator[Callable[[], None]]:
    """Another client, which is answered as if nothing happened, before, while and after."""
    with server.connect() as connection:

        def ask() -> None:
            connection.sendall(b"SET neighbour here\r\nGET neighbour\r\n")
            expected = b"+OK\r\n$4\r\nhere\r\n"
            received = b""
            while len(received) < len(expected):
                data = connection.recv(4096)
                assert data, "the neighbour was disconnected"
                received += data
            assert received == expected

        ask()
        yield ask
        ask()


def told(server: Server, data: bytes) -> bytes:
    """Everything the server answers to ``data`` and a last ECHO until it has answered that or closes."""
    with server.connect() as connection:
        connection.settimeout(HANG_SECONDS)
        with suppress(OSError):  # ENOTCONN, of a server that has closed already, is no ConnectionError
            connection.sendall(data + LAST_WORD)
            connection.shutdown(socket.SHUT_WR)
        received = b""
        with suppress(ConnectionError):
            while not received.endswith(ANSWER) and (chunk := connection.recv(65536)):
                received += chunk
        return received


def check_replies(received: bytes) -> None:
    """Nothing but whole, well-formed replies."""
    reader = hiredis.Reader(replyError=hiredis.ReplyError)
    reader.feed(received)
    while reader.has_data():
        assert reader.gets() is not False, f"the last reply is not whole: {received[-200:]!r}"


@settings(max_examples=150)
@given(st.binary(max_size=300))
@example(b"*1000000000\r\n")
@example(b"*1000000000\r\n$4\r\nPING\r\n")
@example(b"*1048576\r\n")
@example(b"*-1\r\n*0\r\n*-9223372036854775808\r\n")
@example(b"*2\r\n$10000000000\r\nx")
@example(b"*1\r\n$-1\r\n*1\r\n$+4\r\nPING\r\n")
@example(b"*1\r\n" * 10_000)
@example(b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n$4\r\nPING\r\n")
@example(b"%1\r\n$4\r\nPING\r\n$1\r\nx\r\n~1000000000\r\n>1000000000\r\n|1000000000\r\n")
@example(b"PING " + b"x" * 70_000 + b"\r\n")
@example(b"\x00\xff\r\n\r\n\r\n\n\n\r")
@example(b'"unbalanced\r\n')
@example(b"\xff\xfe \xc3(\r\n")
@example(b"*1\r\n$0\r\n\r\n*2\r\n$0\r\n\r\n$0\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
@example(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
@example(LAST_WORD * 2000 + b"\x00\xff*")
def test_any_bytes(server: Server, data: bytes) -> None:
    with neighbour(server):
        check_replies(told(server, data))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A pipeline of good frames in which some bytes were changed, dropped or doubled."""
    data = bytearray(b"".join(draw(st.lists(FRAMES, min_size=1, max_size=6))))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data) - 1)) if data else 0
        replaced = draw(st.sampled_from([0, 1, 1, 4]))
        data[at : at + replaced] = draw(st.one_of(st.binary(max_size=3), st.sampled_from([b"\r\n", b"*", b"$", b"-1"])))
    return bytes(data)


@settings(max_examples=300)
@given(damaged())
def test_damaged_frames(server: Server, data: bytes) -> None:
    with neighbour(server):
        check_replies(told(server, data))


@pytest.mark.parametrize(
    "claim",
    [b"*1000000000\r\n", b"*1048576\r\n", b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$536870912\r\n", b"*2\r\n$10000000000\r\n"],
)
def test_a_claim_takes_no_memory(server: Server, claim: bytes) -> None:
    """What a header announces costs nothing until it comes."""
    with neighbour(server) as ask, ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(20)]
        before = resident_bytes(server)
        for connection in connections:
            connection.sendall(claim)
        ask()
        assert resident_bytes(server) - before < 64 * MEBIBYTE


HOSTILE = (b"a\r\n+OK\r\n:1", b"\r", b"\n", b"\x00", b"\xff\xfe", b"'\"", b"x" * 300)


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize(
    "words",
    [
        (b"?",),
        (b"NOSUCH", b"?", b"?"),
        (b"CLIENT", b"?"),
        (b"CLIENT", b"SETNAME", b"?"),
        (b"CLIENT", b"SETINFO", b"?", b"?"),
        (b"CLIENT", b"KILL", b"?"),
        (b"CLIENT", b"LIST", b"TYPE", b"?"),
        (b"HELLO", b"3", b"?"),
        (b"HELLO", b"3", b"SETNAME", b"?"),
        (b"CONFIG", b"SET", b"?", b"?"),
        (b"CONFIG", b"GET", b"?"),
        (b"SET", b"?", b"1", b"?"),
        (b"EXPIRE", b"?", b"1", b"?"),
        (b"OBJECT", b"?", b"?"),
        (b"LOCK.ACQUIRE", b"?", b"?", b"?"),
        (b"FENCE", b"?", b"1", b"?", b"?"),
        (b"Q.CREATE", b"?", b"?"),
        (b"Q.CONFIG", b"?", b"?", b"?"),
        (b"COMMAND", b"GETKEYS", b"?", b"?"),
        (b"COMMAND", b"DOCS", b"?"),
        (b"INFO", b"?"),
        (b"AUTH", b"?", b"?"),
    ],
    ids=lambda words: b" ".join(words).decode(),
)
def test_what_an_error_quotes_never_ends_its_line(server: Server, words: tuple[bytes, ...], hostile: bytes) -> None:
    call = packed(*(hostile if word == b"?" else word for word in words))
    received = told(server, call)
    assert received.endswith(ANSWER)
    first = received.removesuffix(ANSWER)
    reader = hiredis.Reader(replyError=hiredis.ReplyError)
    reader.feed(first)
    assert reader.gets() is not False
    assert not reader.has_data(), f"more than one reply: {first!r}"


def test_a_deadlock_names_its_owners_on_one_line(server: Server) -> None:
    one, two = b"\xff\r\n+one", b"two\r\n"
    with server.connect() as first, server.connect() as second:
        for connection, key, owner in ((first, b"deadlock:1", one), (second, b"deadlock:2", two)):
            connection.sendall(packed(b"LOCK.ACQUIRE", key, owner))
            assert connection.recv(100).startswith(b":")
        first.sendall(packed(b"LOCK.ACQUIRE", b"deadlock:2", one, b"BLOCK", b"0"))
        with neighbour(server):
            second.sendall(packed(b"LOCK.ACQUIRE", b"deadlock:1", two, b"BLOCK", b"0") + LAST_WORD)
            received = b""
            while not received.endswith(ANSWER):
                received += second.recv(4096)
        error = received.removesuffix(ANSWER)
        assert error.startswith(b"-DEADLOCK")
        assert error.count(b"\r\n") == 1
        assert error.endswith(b"\r\n")
