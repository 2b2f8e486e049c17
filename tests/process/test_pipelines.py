"""Very much at once from one client: all of it answered, in order."""

from __future__ import annotations

import hiredis
import pytest

from tests.raw_client import KIB, MIB, RawClient, neighbour, packed
from tests.servers import Server


def test_a_hundred_thousand_commands_in_one_write(sepakat: Server) -> None:
    count = 100_000
    with neighbour(sepakat), RawClient(sepakat) as client:
        client.socket.settimeout(300)
        assert_answered = iter(range(1, count + 1))
        sender = packed("INCR", "count") * count
        sent = memoryview(sender)
        while sent:
            sent = sent[client.socket.send(sent[: 256 * KIB]) :]
            for number in assert_answered:
                assert client.read() == number
                if number * len(packed("INCR", "count")) + 512 * KIB > len(sender) - len(sent) and sent:
                    break
        assert client.call("GET", "count") == b"%d" % count


def test_mixed_commands_keep_their_order(sepakat: Server) -> None:
    """Reads, writes, waits, local commands and transactions of one pipeline are answered in the order they came."""
    rounds = 300
    with neighbour(sepakat), RawClient(sepakat) as client:
        pipeline = b"".join(
            packed("SET", "a", number) + packed("GET", "a") + packed("ECHO", number) + packed("Q.PUSH", "q", number)
            + packed("Q.POP", "q", "BLOCK", 0, "VISIBILITY", 600_000) + packed("NO", "SUCH")
            + packed("MULTI") + packed("INCR", "a") + packed("PING") + packed("EXEC")
            + packed("GET", "a") + packed("Q.POP", "none", "BLOCK", 1)
            for number in range(rounds)
        )  # fmt: skip
        client.socket.sendall(pipeline)
        for number in range(rounds):
            text = b"%d" % number
            assert [client.read() for _ in range(3)] == [b"OK", text, text]
            client.read()
            assert client.read()[0][1] == text
            assert isinstance(client.read(), hiredis.ReplyError)
            assert [client.read() for _ in range(3)] == [b"OK", b"QUEUED", b"QUEUED"]
            assert client.read() == [number + 1, b"PONG"]
            assert client.read() == b"%d" % (number + 1)
            assert client.read() is None


def test_a_transaction_of_ten_thousand_commands(sepakat: Server) -> None:
    with neighbour(sepakat), RawClient(sepakat) as client:
        client.socket.sendall(packed("MULTI") + packed("INCR", "a") * 10_000 + packed("EXEC"))
        assert client.read() == b"OK"
        assert all(client.read() == b"QUEUED" for _ in range(10_000))
        assert client.read() == list(range(1, 10_001))


@pytest.mark.slow
def test_the_largest_value(sepakat: Server) -> None:
    value = b"x" * (512 * MIB)
    with neighbour(sepakat) as other, RawClient(sepakat) as client:
        for one in (other, client):
            one.socket.settimeout(300)
        assert client.call("SET", "largest", value) == b"OK"
        assert other.call("STRLEN", "largest") == len(value)
        assert client.call("GET", "largest") == value
