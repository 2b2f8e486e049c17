"""Clients that ask for more than they take, or say half of what they mean: nobody else notices."""

from __future__ import annotations

import contextlib

import pytest

from tests.conftest import StartSepakat
from tests.raw_client import KIB, MIB, RawClient, neighbour, packed, peak_bytes, resident_bytes
from tests.servers import Server, wait_until


# Clients that do not read
@pytest.mark.parametrize("asked", [600, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_pipeline_of_large_replies_nobody_reads(sepakat: Server, asked: int) -> None:
    """A few of them wait in the server, the others are not made before there is room; then all of them come."""
    with neighbour(sepakat) as other, RawClient(sepakat) as client:
        other.call("SET", "large", b"x" * MIB)
        before = resident_bytes(sepakat)
        client.socket.sendall(packed("GET", "large") * asked)
        for number in range(200):
            assert other.call("SET", "n", number) == b"OK"
        assert resident_bytes(sepakat) - before < 100 * MIB
        for number in range(asked):
            assert len(client.read()) == MIB, number
        assert client.call("PING") == b"PONG"


def test_large_replies_behind_writes_nobody_reads(sepakat: Server) -> None:
    """The same by way of the log, where reads behind a write take their place."""
    with neighbour(sepakat) as other, RawClient(sepakat) as client:
        other.call("SET", "large", b"x" * MIB)
        before = resident_bytes(sepakat)
        client.socket.sendall((packed("INCR", "count") + packed("GET", "large") * 20) * 30)
        for number in range(200):
            assert other.call("SET", "n", number) == b"OK"
        assert resident_bytes(sepakat) - before < 200 * MIB
        for number in range(1, 31):
            assert client.read() == number
            assert [len(client.read()) for _ in range(20)] == [MIB] * 20


def test_a_client_that_never_reads_is_closed_past_the_limit(start_sepakat: StartSepakat) -> None:
    server = start_sepakat("--client-output-buffer-limit", "normal 1mb 0 0")
    with neighbour(server) as other, RawClient(server) as deaf:
        other.call("SET", "large", b"x" * 20 * MIB)
        deaf.send("GET", "large")
        wait_until(lambda: b"client_output_buffer_limit_disconnections:1\r\n" in other.call("INFO", "stats"))
        assert deaf.is_closed()


def test_a_slow_reader_is_closed_past_the_soft_limit(start_sepakat: StartSepakat) -> None:
    server = start_sepakat("--client-output-buffer-limit", "normal 0 1mb 1")
    with neighbour(server) as other, RawClient(server) as deaf:
        other.call("SET", "large", b"x" * 20 * MIB)
        deaf.send("GET", "large")
        wait_until(lambda: b"client_output_buffer_limit_disconnections:1\r\n" in other.call("INFO", "stats"))


@pytest.mark.parametrize("how", ["MGET", "EXEC"])
def test_a_small_request_for_a_huge_reply(start_sepakat: StartSepakat, how: str) -> None:
    """One value asked for a thousand times: past the limit it is refused before it is put together."""
    server = start_sepakat("--client-output-buffer-limit", "normal 10mb 0 0")
    with neighbour(server) as other, RawClient(server) as client:
        other.call("SET", "large", b"x" * MIB)
        before = peak_bytes(server)
        if how == "MGET":
            client.send("MGET", *["large"] * 1000)
        else:
            client.socket.sendall(packed("MULTI") + packed("GET", "large") * 1000 + packed("EXEC"))
        wait_until(lambda: b"client_output_buffer_limit_disconnections:1\r\n" in other.call("INFO", "stats"))
        assert client.is_closed()
        assert peak_bytes(server) - before < 100 * MIB


def test_a_client_that_only_asks(sepakat: Server) -> None:
    """Small replies, too, are not made for ever for one who reads none: the server stops reading the client."""
    with neighbour(sepakat) as other, RawClient(sepakat) as deaf:
        before = resident_bytes(sepakat)
        deaf.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            deaf.socket.sendall(b"PING\r\n" * 10_000_000)
        assert other.call("PING") == b"PONG"
        assert resident_bytes(sepakat) - before < 50 * MIB


# Clients that say half of what they mean
@pytest.mark.parametrize(
    "start",
    [b"*2\r\n$3\r\nGET\r\n$500000000\r\n", b"*1000000\r\n"],
    ids=["a large argument", "many arguments"],
)
def test_half_a_command_past_the_limit(start_sepakat: StartSepakat, start: bytes) -> None:
    server = start_sepakat("--client-query-buffer-limit", "1mb")
    more = b"x" * 64 * KIB if b"00000000" in start else b"$1000\r\n" + b"x" * 1000 + b"\r\n"
    with neighbour(server) as other, RawClient(server) as client:
        before = resident_bytes(server)
        with contextlib.suppress(ConnectionError):
            client.socket.sendall(start)
            for _ in range(20 * MIB // len(more)):
                client.socket.sendall(more)
        assert client.is_closed()
        assert other.call("PING") == b"PONG"
        assert resident_bytes(server) - before < 50 * MIB


def test_a_command_byte_by_byte(sepakat: Server) -> None:
    with neighbour(sepakat) as other, RawClient(sepakat) as client:
        *bytes_before, last = packed("SET", "slow", "loris")
        for byte in bytes_before:
            client.socket.sendall(bytes([byte]))
            assert other.call("GET", "slow") is None
        client.socket.sendall(bytes([last]))
        assert client.read() == b"OK"


def test_a_transaction_without_end(start_sepakat: StartSepakat) -> None:
    """What MULTI has queued counts as the request that it is."""
    server = start_sepakat("--client-query-buffer-limit", "1mb")
    with neighbour(server) as other, RawClient(server) as client:
        before = resident_bytes(server)
        client.send("MULTI")
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                client.socket.sendall(packed("SET", "a", b"x" * 32 * KIB))
        assert client.is_closed()
        assert resident_bytes(server) - before < 50 * MIB
        assert other.call("EXISTS", "a") == 0


def test_an_argument_one_byte_too_long(start_sepakat: StartSepakat) -> None:
    server = start_sepakat("--proto-max-bulk-len", "1mb")
    with neighbour(server), RawClient(server) as client:
        assert client.call("SET", "a", b"x" * MIB) == b"OK"
        client.socket.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1048577\r\n")
        assert str(client.read()) == "ERR Protocol error: invalid bulk length"
        assert client.is_closed()


@pytest.mark.parametrize("behind", [b"", b"Q.POP nothing BLOCK 100\r\n"], ids=["reads", "a wait"])
def test_what_came_before_nonsense_is_answered(sepakat: Server, behind: bytes) -> None:
    """Redis's order: every whole command of a pipeline, then the error, then the end."""
    with neighbour(sepakat), RawClient(sepakat) as client:
        pipeline = packed("SET", "a", 1) + packed("GET", "a") * 200 + behind + packed("INCR", "a")
        client.socket.sendall(pipeline + b"*1\r\n+nonsense\r\n" + packed("INCR", "a"))
        assert client.read() == b"OK"
        assert [client.read() for _ in range(200)] == [b"1"] * 200
        if behind:
            assert client.read() is None
        assert client.read() == 2
        assert str(client.read()) == "ERR Protocol error: expected '$', got '+'"
        assert client.is_closed()
