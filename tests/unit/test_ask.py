"""One question over the network: whole and broken answers, and one clear line for everything that goes wrong."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from resp_server.address import Address, parse
from resp_server.ask import AskError, ask
from tests.servers import free_port

HELLO = b"%1\r\n$5\r\nproto\r\n:3\r\n"


@contextmanager
def node(*pieces: bytes, closes: bool = True) -> Iterator[tuple[Address, list[bytes]]]:
    """A node that sends these pieces, whatever it is asked, and what it was asked."""
    asked: list[bytes] = []
    over = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            asked.append(connection.recv(65536))
            for piece in pieces:
                connection.sendall(piece)
            if not closes:
                over.wait()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Address("127.0.0.1", listener.getsockname()[1]), asked
        finally:
            over.set()
            thread.join()


def test_replies_come_in_order_with_their_texts_decoded() -> None:
    with node(HELLO, b"%1\r\n$1\r\na\r\n*2\r\n:1\r\n_\r\n$3\r\n\xc3\xa4\xff\r\n") as (where, asked):
        assert ask(where, ("A",), ("B", "c")) == [{"a": [1, None]}, "ä\udcff"]
    assert asked == [b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n*1\r\n$1\r\nA\r\n*2\r\n$1\r\nB\r\n$1\r\nc\r\n"]


def test_a_password_goes_with_the_first_word() -> None:
    with node(HELLO + b"+OK\r\n") as (where, asked):
        assert ask(where, ("PING",), password="hunter2") == ["OK"]
    assert b"$4\r\nAUTH\r\n$7\r\ndefault\r\n$7\r\nhunter2\r\n" in asked[0]


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (
            b"-NOAUTH HELLO must be called with AUTH\r\n",
            "asks for a password: give --password or set SEPAKAT_REQUIREPASS",
        ),
        (b"-WRONGPASS invalid username-password pair\r\n", "does not take this password"),
        (HELLO + b"-ERR unknown command 'RAFT.INFO', with args\r\n", "is no sepakat server, or an older one"),
        (HELLO + b"-ERR Unknown node n9\r\n", "answers: Unknown node n9"),
        (HELLO + b"-UNCERTAIN no time\r\n", "answers: UNCERTAIN no time"),
        (HELLO, "closed the connection"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak the Redis protocol"),
    ],
)
def test_what_is_no_answer_is_one_clear_line(answer: bytes, line: str) -> None:
    with node(answer) as (where, _), pytest.raises(AskError) as failed:
        ask(where, ("PING",))
    assert str(failed.value) == f"{where} {line}"


@pytest.mark.parametrize(("answer", "code"), [(HELLO + b"-TRYAGAIN n2 is being drained\r\n", "TRYAGAIN"), (HELLO, "")])
def test_the_error_s_first_word_is_for_programs(answer: bytes, code: str) -> None:
    with node(answer) as (where, _), pytest.raises(AskError) as failed:
        ask(where, ("PING",))
    assert failed.value.code == code


def test_nobody_there_is_one_clear_line() -> None:
    where = Address("127.0.0.1", free_port())
    with pytest.raises(AskError, match=rf"{where} cannot be reached: Connection refused"):
        ask(where, ("PING",))


def test_an_answer_that_does_not_come_is_not_waited_for() -> None:
    with node(HELLO, closes=False) as (where, _), pytest.raises(AskError, match=r"does not answer within 0\.1 s"):
        ask(where, ("PING",), timeout_s=0.1)


@pytest.mark.parametrize("text", ["a.b-c_d:1", "127.0.0.1:65535", "[::1]:6379", "[fe80::1%eth0]:6379"])
def test_an_address_is_its_own_text(text: str) -> None:
    assert str(parse(text)) == text
