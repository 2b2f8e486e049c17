"""Very many clients, idle ones, and very many keys that end at once."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator

import pytest

from tests.conftest import StartSepakat
from tests.raw_client import KIB, RawClient, neighbour, packed, resident_bytes
from tests.servers import Server, wait_until


# Very many clients
@pytest.fixture
def descriptors() -> Iterator[int]:
    """How many files this process may open, raised as far as allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_ten_thousand_idle_clients(start_sepakat: StartSepakat, descriptors: int) -> None:
    count = 10_000
    if descriptors < count + 200:
        pytest.skip(f"this process may open {descriptors} files only")
    server = start_sepakat("--maxclients", str(count + 10))
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(neighbour(server))
        before = resident_bytes(server)
        for number in range(count):
            stack.enter_context(server.connect())
            if number % 500 == 0:
                assert other.call("PING") == b"PONG"
        wait_until(lambda: b"connected_clients:%d\r\n" % (count + 1) in other.call("INFO", "clients"))
        each = (resident_bytes(server) - before) / count
        assert each < 8 * KIB, f"{each:.0f} bytes for an idle client"


def test_one_client_too_many(start_sepakat: StartSepakat) -> None:
    server = start_sepakat("--maxclients", "3")
    with neighbour(server) as first, RawClient(server) as second:
        wait_until(lambda: b"connected_clients:2\r\n" in first.call("INFO", "clients"))  # who looked for it has left
        assert second.call("PING") == b"PONG"
        with RawClient(server) as third:
            assert third.call("PING") == b"PONG"
            with RawClient(server) as fourth:
                assert str(fourth.read()) == "ERR max number of clients reached"
                assert fourth.is_closed()
        wait_until(server.answers)


def test_no_descriptor_left(sepakat: Server) -> None:
    """Whoever is connected goes on; others wait their turn, and the log is not filled with it."""
    pid = sepakat.process.pid
    with neighbour(sepakat) as other, contextlib.ExitStack() as stack:
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (40, hard))
        crowd = [stack.enter_context(RawClient(sepakat)) for _ in range(60)]
        for client in crowd:
            client.send("PING")
        wait_until(lambda: "cannot be accepted" in sepakat.said())
        for _ in range(2000):
            assert other.call("PING") == b"PONG"
        assert sepakat.said().count("cannot be accepted") < 20
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
        assert [client.read() for client in crowd] == [b"PONG"] * len(crowd)


def test_idle_clients_are_closed(start_sepakat: StartSepakat) -> None:
    server = start_sepakat("--timeout", "4")
    with RawClient(server) as idle, RawClient(server) as waiting, RawClient(server) as busy:
        waiting.send("Q.POP", "queue", "BLOCK", 0)
        assert idle.call("PING") == b"PONG"
        wait_until(lambda: b"connected_clients:2\r\n" in busy.call("INFO", "clients"))
        assert idle.is_closed()
        busy.call("Q.PUSH", "queue", "job")
        assert waiting.read()[0][1] == b"job"


# Very many deadlines
def test_a_hundred_thousand_keys_end_at_once(sepakat: Server) -> None:
    """Nobody is kept waiting meanwhile, and none is seen after its end."""
    count = 100_000
    with neighbour(sepakat) as other, RawClient(sepakat) as client:
        client.socket.sendall(packed("MULTI"))
        for number in range(count):  # in one transaction, so that all of them end in the same millisecond
            client.socket.sendall(packed("SET", f"key:{number}", "", "PX", 5000))
            client.read()
        client.read()
        assert client.call("EXEC") == [b"OK"] * count
        ends_ms = client.call("PEXPIRETIME", "key:0")
        counts = {other.call("DBSIZE")}
        while (left := other.call("DBSIZE")) > 1:
            counts.add(left)
            seconds, microseconds = map(int, client.call("TIME"))
            if seconds * 1000 + microseconds // 1000 > ends_ms:
                assert client.call("GET", f"key:{count - 1}") is None
        assert len(counts) > 3, "all of them went before anybody else was answered"
        assert other.call("SET", "neighbour", "here") == b"OK"
