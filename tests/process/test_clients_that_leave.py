"""Clients that go without a word: what they waited for and what they held is free for others at once."""

from __future__ import annotations

import socket

import pytest

from tests.raw_client import RawClient, neighbour, packed
from tests.servers import Server, wait_until


def test_a_client_that_sends_and_closes(sepakat: Server) -> None:
    """What it sent is carried out, and answered if it still listens: all there is is read before the end is seen."""
    with neighbour(sepakat) as other:
        with RawClient(sepakat) as client:
            client.socket.sendall(packed("INCR", "a") * 5000)
            client.socket.shutdown(socket.SHUT_WR)
            assert [client.read() for _ in range(5000)] == list(range(1, 5001))
            with pytest.raises(ConnectionError):
                client.read()
        with RawClient(sepakat) as client:
            client.send("INCR", "b")
        wait_until(lambda: other.call("GET", "b") == b"1")


def test_a_client_that_closes_behind_what_must_wait_its_turn(sepakat: Server) -> None:
    """As ``printf … | nc`` does: what is held back until the write before it is answered is answered too."""
    with RawClient(sepakat) as client:
        calls = (["SET", "a", 1], ["MULTI"], ["INCR", "a"], ["EXEC"], ["WAIT", 0, 0], ["GET", "a"])
        client.socket.sendall(b"".join(packed(*words) for words in calls))
        client.socket.shutdown(socket.SHUT_WR)
        assert [client.read() for _ in calls] == [b"OK", b"OK", b"QUEUED", [2], 0, b"2"]
        with pytest.raises(ConnectionError):
            client.read()


LEAVE = ["close", "reset", "kill", "kill with more behind"]


def leave(client: RawClient, how: str, other: RawClient) -> None:
    """Makes a client go, one way or another."""
    if how == "reset":
        client.reset()
    elif how == "close":
        client.socket.close()
    else:
        assert other.call("CLIENT", "KILL", "ADDR", "{}:{}".format(*client.socket.getsockname())) == 1


@pytest.mark.parametrize("how", LEAVE)
def test_who_waited_is_forgotten(sepakat: Server, how: str) -> None:
    """The next in line is served, and nothing is given to one who has left."""
    with neighbour(sepakat) as other, RawClient(sepakat) as first, RawClient(sepakat) as second:
        assert other.call("LOCK.ACQUIRE", "lock", "ann") > 0
        behind = (packed("PING") + packed("SET", "behind", 1)) * 100 if "behind" in how else b""
        first.socket.sendall(packed("LOCK.ACQUIRE", "lock", "bob", "BLOCK", 0) + behind)
        wait_until(lambda: len(lock(other)[b"waiters"]) == 1)
        second.send("LOCK.ACQUIRE", "lock", "cid", "BLOCK", 0)
        wait_until(lambda: len(lock(other)[b"waiters"]) == 2)
        leave(first, how, other)
        wait_until(lambda: [waiter[1] for waiter in lock(other)[b"waiters"]] == [b"cid"])
        assert other.call("LOCK.RELEASE", "lock", "ann") == 1
        assert second.read() > 0
        assert other.call("EXISTS", "behind") == 0


def lock(client: RawClient) -> dict[bytes, list[list[bytes]]]:
    """LOCK.INFO of ``lock``, as RESP2 gives it."""
    flat = client.call("LOCK.INFO", "lock")
    return dict(zip(flat[::2], flat[1::2], strict=True))


@pytest.mark.parametrize("how", LEAVE[:3])
def test_a_message_is_not_given_to_one_who_left(sepakat: Server, how: str) -> None:
    with neighbour(sepakat) as other, RawClient(sepakat) as first, RawClient(sepakat) as second:
        first.send("Q.POP", "queue", "BLOCK", 0)
        wait_until(lambda: b"blocked_clients:1\r\n" in other.call("INFO", "clients"))
        leave(first, how, other)
        wait_until(lambda: b"blocked_clients:0\r\n" in other.call("INFO", "clients"))
        second.send("Q.POP", "queue", "BLOCK", 0)
        other.call("Q.PUSH", "queue", "job")
        assert second.read()[0][1:3] == [b"job", 1]


@pytest.mark.parametrize("how", LEAVE[:3])
def test_session_locks_go_with_the_connection(sepakat: Server, how: str) -> None:
    with neighbour(sepakat) as other, RawClient(sepakat) as client, RawClient(sepakat) as waiting:
        token = client.call("LOCK.ACQUIRE", "lock", "ann", "SESSION")
        assert client.call("LOCK.ACQUIRE", "kept", "ann", "PX", 600_000) > token
        waiting.send("LOCK.ACQUIRE", "lock", "bob", "BLOCK", 0)
        wait_until(lambda: lock(other)[b"waiters"])
        leave(client, how, other)
        assert waiting.read() > token
        assert other.call("EXISTS", "kept") == 1
