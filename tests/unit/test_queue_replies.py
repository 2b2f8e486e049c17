"""Every Q. command as it is answered on the wire, in RESP2 and RESP3, byte by byte where no time is in it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from resp_server.session import Session
from tests.unit.wire_front import WireFront, wire

OK = b"+OK\r\n"
NO_ARRAY = {2: b"*-1\r\n", 3: b"_\r\n"}
NOT_AN_INTEGER = b"-ERR value is not an integer or out of range\r\n"
SETTINGS = {
    b"partitions": 1, b"visibility": 30000, b"maxdeliveries": 16, b"backoff": [100, 60000], b"dlq": None,
    b"maxlen": 0, b"px": 0, b"dedup": 300000,
}  # fmt: skip
COUNTS = ("ready", "delayed", "in-flight", "dead", "pushed", "acked", "redelivered", "expired", "oldest-ms")


class Client:
    """One client of a new server; a line is a command."""

    def __init__(self, protocol: int) -> None:
        self.front = WireFront()
        self.protocol = protocol
        self.session = self.another()

    def another(self) -> Session:
        session = self.front.connect()
        self.front.send(session, f"HELLO {self.protocol}")
        return session

    def __call__(self, call: str | list[bytes], session: Session | None = None) -> bytes:
        return self.front.send(session or self.session, call)

    def wire(self, reply: Any) -> bytes:
        return wire(reply, self.protocol)

    def receipt(self, line: str = "Q.POP q") -> str:
        """Of the one message that is taken."""
        found = re.search(rb"\$\d+\r\n(\d+-\d+)\r\n", self(line))
        assert found is not None
        return found[1].decode()


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def client(request: pytest.FixtureRequest) -> Client:
    return Client(request.param)


def test_settings(client: Client) -> None:
    assert client("Q.CONFIG q") == NO_ARRAY[client.protocol]
    assert client("Q.CREATE q") == OK
    assert client("Q.CREATE q") == b"-BUSYKEY Target queue already exists.\r\n"
    assert client("Q.CONFIG q") == client.wire(SETTINGS)
    assert client("q.config q VISIBILITY 5 backoff 1 2 DLQ d PARTITIONS 1") == OK
    assert client("Q.CONFIG q") == client.wire(SETTINGS | {b"visibility": 5, b"backoff": [1, 2], b"dlq": b"d"})


def test_messages(client: Client) -> None:
    assert client("Q.POP q") == client("Q.PEEK q") == client("Q.INFO q") == NO_ARRAY[client.protocol]
    assert client("Q.LEN q") == b":0\r\n"
    assert client("Q.PUSH q one ID a") == client.wire(b"a")
    assert client("Q.PUSH q other ID a") == client.wire(b"a")
    assert re.fullmatch(rb"\$\d+\r\n\d+-\d+\r\n", client("Q.PUSH q two"))
    assert re.fullmatch(rb"\*2\r\n(\$\d+\r\n\d+-\d+\r\n){2}", client("Q.MPUSH q three four"))
    assert client("Q.LEN q") == b":4\r\n"
    assert client("Q.PEEK q COUNT 1") == client.wire([[None, b"one", 0, b"a"]])
    receipt = client.receipt()
    assert client(f"Q.EXTEND q {receipt} 100") == b":1\r\n"
    assert client(f"Q.NACK q {receipt} DELAY 0") == b":1\r\n"
    for late in (f"Q.ACK q {receipt}", f"Q.NACK q {receipt}", f"Q.EXTEND q {receipt} 100", "Q.ACK q x 9-9 1-"):
        assert client(late) == b":0\r\n", late
    again = client.receipt()
    assert client(f"Q.ACK q {again} {again} {receipt}") == b":1\r\n"
    assert client("Q.LIST") == client("Q.LIST MATCH ?") == client.wire([b"q"])
    assert client("Q.LIST MATCH no*") == client.wire([])


def test_receipts_of_another_queue_are_stale(client: Client) -> None:
    client("Q.PUSH q x")
    client("Q.PUSH other y")
    receipt = client.receipt()
    for line in (f"Q.ACK other {receipt}", f"Q.NACK other {receipt}", f"Q.EXTEND other {receipt} 5"):
        assert client(line) == b":0\r\n"
    assert client(f"Q.ACK q {receipt}") == b":1\r\n"


def test_a_message_of_all_bytes(client: Client) -> None:
    strange = bytes(range(256))
    assert client([b"Q.PUSH", b"q", strange, b"ID", strange]) == client.wire(strange)
    assert client("Q.PEEK q") == client.wire([[None, strange, 0, strange]])
    assert client([b"Q.PUSH", b"", b"", b"ID", b""]) == client.wire(b"")
    assert client([b"Q.PEEK", b""]) == client.wire([[None, b"", 0, b""]])


def test_a_wait(client: Client) -> None:
    other = client.another()
    assert client("Q.POP q BLOCK 0") == b""
    assert client("Q.POP q BLOCK 60", other) == b""
    client.front.pass_time()
    assert client("PING", other).startswith(NO_ARRAY[client.protocol])
    client("Q.PUSH q x ID a", other)
    got = client("PING")
    assert re.fullmatch(rb"\*1\r\n\*4\r\n\$\d+\r\n\d+-1\r\n\$1\r\nx\r\n:1\r\n\$1\r\na\r\n\+PONG\r\n", got)


def test_dead_letters(client: Client) -> None:
    client("Q.PUSH q x ID a")
    assert client(f"Q.NACK q {client.receipt()} DEAD") == b":1\r\n"
    assert client("Q.POP q") == NO_ARRAY[client.protocol]
    assert client("Q.PEEK q") == client.wire([])
    assert client("Q.PEEK q DEAD") == client.wire([[None, b"x", 1, b"a"]])
    assert client("Q.DEAD none") == NO_ARRAY[client.protocol]
    shown = re.sub(rb":1\d{12}\r\n", b":0\r\n", client("Q.DEAD q"))
    letter = {
        b"id": b"a", b"payload": b"x", b"queue": b"q", b"deliveries": 1, b"pushed-ms": 0, b"died-ms": 0,
        b"reason": b"refused for good",
    }  # fmt: skip
    assert shown == client.wire([letter])
    assert client("Q.REDRIVE q COUNT 5") == b":1\r\n"
    assert client("Q.REDRIVE q") == client("Q.REDRIVE none") == client("Q.PURGE none DEAD") == b":0\r\n"
    assert client("Q.PEEK q") == client.wire([[None, b"x", 0, b"a"]])
    assert client("Q.PURGE q DEAD") == b":0\r\n"
    assert client("Q.PURGE q") == b":1\r\n"


def test_info_has_every_count_and_the_settings(client: Client) -> None:
    client("Q.PUSH q x")
    numbers = dict.fromkeys((name.encode() for name in COUNTS), 0) | {b"ready": 1, b"pushed": 1}
    expected = numbers | {b"consumers": 0, b"partitions": 1, b"nodes": 1} | SETTINGS
    shown = re.sub(rb"(oldest-ms\r\n):\d+", rb"\1:0", client("Q.INFO q"))
    assert shown == client.wire(expected)


def test_a_full_queue(client: Client) -> None:
    client("Q.CREATE q MAXLEN 1")
    client("Q.PUSH q x ID a")
    for line in ("Q.PUSH q y", "Q.MPUSH q y z"):
        assert client(line).startswith(b"-QUEUEFULL ")
    assert client("Q.PUSH q x ID a") == client.wire(b"a"), "a repeated push needs no room"
    assert client("Q.LEN q") == b":1\r\n"


def test_in_a_transaction_nothing_waits(client: Client) -> None:
    client("MULTI")
    for line in ("Q.PUSH q x ID a", "Q.LEN q", "Q.POP none BLOCK 0", "Q.ACK q 1-1"):
        assert client(line) == b"+QUEUED\r\n"
    assert client("EXEC") == client.wire([b"a", 1]).replace(b"*2", b"*4") + NO_ARRAY[client.protocol] + b":0\r\n"


@pytest.mark.parametrize(
    "text", ["-1", "9223372036854775807", "9223372036854775808", "18446744073709551616", "1e3", "1.5", "+1", "01", "x"]
)
def test_what_is_no_time_or_number_is_refused_and_changes_nothing(client: Client, text: str) -> None:
    client("Q.PUSH q x")
    receipt = client.receipt()
    before = client("Q.CONFIG q") + client("Q.PEEK q") + client("Q.LEN q")
    for line in (
        *(f"Q.CREATE new {name} {text}" for name in ("PARTITIONS", "VISIBILITY", "MAXDELIVERIES", "MAXLEN", "DEDUP")),
        *(f"Q.CONFIG q {name} {text}" for name in ("VISIBILITY", "PX", "BACKOFF 1", "DEDUP")),
        *(f"Q.PUSH q y DELAY {text}", f"Q.PUSH q y PRIORITY {text}", f"Q.PUSH new y DELAY {text}"),
        *(f"Q.POP q VISIBILITY {text}", f"Q.EXTEND q {receipt} {text}", f"Q.NACK q {receipt} DELAY {text}"),
    ):
        assert client(line) == NOT_AN_INTEGER, line
    assert client(f"Q.PUSH q y PX {text}") in (NOT_AN_INTEGER, b"-ERR invalid expire time in 'q.push' command\r\n")
    negative = b"-ERR timeout is negative\r\n"
    assert client(f"Q.POP q BLOCK {text}") in (negative, b"-ERR timeout is not an integer or out of range\r\n")
    if len(text) < 19:
        for line in (f"Q.POP q COUNT {text}", f"Q.PEEK q COUNT {text}", f"Q.REDRIVE q COUNT {text}"):
            assert client(line) in (NOT_AN_INTEGER, b"-ERR value is out of range, must be positive\r\n"), line
    assert client("Q.CONFIG q") + client("Q.PEEK q") + client("Q.LEN q") == before
    assert client("Q.LEN new") == b":0\r\n"
    assert client(f"Q.ACK q {receipt}") == b":1\r\n"


@pytest.mark.parametrize(
    "line",
    [
        *("Q.CREATE", "Q.CONFIG", "Q.PUSH q", "Q.MPUSH q", "Q.POP", "Q.ACK q", "Q.NACK q", "Q.EXTEND q 1-1"),
        *("Q.EXTEND q 1-1 5 5", "Q.PEEK", "Q.LEN", "Q.LEN q q", "Q.INFO", "Q.INFO q q", "Q.REDRIVE", "Q.PURGE"),
    ],
)
def test_the_wrong_number_of_words(client: Client, line: str) -> None:
    name = line.split()[0].lower().encode()
    assert client(line) == b"-ERR wrong number of arguments for '%b' command\r\n" % name


@pytest.mark.parametrize(
    "line",
    [
        *("Q.CREATE q NO 1", "Q.CREATE q BACKOFF 1", "Q.CREATE q DLQ", "Q.CONFIG q PX", "Q.CONFIG q NO 1"),
        *("Q.PUSH q x NO 1", "Q.PUSH q x ID", "Q.PUSH q x GROUP", "Q.POP q NO 1", "Q.POP q COUNT", "Q.POP q CONSUMER"),
        *("Q.NACK q 1-1 NO", "Q.NACK q 1-1 DELAY", "Q.PEEK q NO", "Q.PEEK q COUNT", "Q.REDRIVE q NO", "Q.PURGE q NO"),
        *("Q.LIST NO", "Q.LIST MATCH"),
    ],
)
def test_words_nobody_knows(client: Client, line: str) -> None:
    if "CONFIG" in line:
        client("Q.CREATE q")
    assert client(line) == b"-ERR syntax error\r\n"
    assert client("Q.LEN q") == b":0\r\n"
