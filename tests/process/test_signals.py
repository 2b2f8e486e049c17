"""Signals: a graceful stop whatever the server is doing, and what survives the other kind."""

from __future__ import annotations

import contextlib
import signal
import threading
from pathlib import Path

import pytest
import redis

from tests.conftest import StartSepakat
from tests.servers import Server, ServerFailed, is_stopped, wait_until

SET = b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$1\r\n1\r\n"
EXIT_SECONDS = 60


def flood(server: Server, name: bytes, answered: list[int]) -> None:
    """Sets ``name:0``, ``name:1`` … in pipelines until the server goes; counts the replies."""
    with server.connect() as connection, contextlib.suppress(ConnectionError):
        at = 0
        while True:
            keys = [b"%b:%d" % (name, number) for number in range(at, at + 100)]
            connection.sendall(b"".join(SET % (len(key), key) for key in keys))
            received = b""
            while len(received) < 500:
                data = connection.recv(4096)
                received += data
                answered[0] = at + len(received) // 5
                if not data:
                    return
            at += 100


def accepts(server: Server) -> bool:
    """Whether it takes new connections."""
    try:
        server.connect().close()
    except ConnectionError:
        return False
    return True


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT], [signal.SIGTERM] * 5, [signal.SIGINT] * 3])
def test_a_stop_under_load_loses_nothing(start_sepakat: StartSepakat, signals: list[int]) -> None:
    server = start_sepakat()
    counts = [[0] for _ in range(4)]
    writers = [threading.Thread(target=flood, args=(server, b"w%d" % at, count)) for at, count in enumerate(counts)]
    for writer in writers:
        writer.start()
    wait_until(lambda: min(count[0] for count in counts) > 1000)
    for number in signals:
        with contextlib.suppress(ProcessLookupError):
            server.process.send_signal(number)
    assert server.process.wait(EXIT_SECONDS) == 0
    for writer in writers:
        writer.join()
    client = redis.Redis(port=start_sepakat().port)
    for at, (count,) in enumerate(counts):
        assert client.exists(*(f"w{at}:{number}" for number in range(count))) == count


def test_a_stop_writes_a_checkpoint(start_sepakat: StartSepakat) -> None:
    server = start_sepakat("--loglevel", "notice")
    redis.Redis(port=server.port).set("a", 1)
    assert server.stop() == 0
    start_sepakat("--loglevel", "notice")
    recovered = [line for line in server.said().splitlines() if " recovered " in line]
    assert "keys=1 entries=0" in recovered[-1], "it had to replay what the checkpoint should hold"


@pytest.mark.parametrize("keys", [20_000])
def test_a_stop_while_a_checkpoint_is_written(start_sepakat: StartSepakat, keys: int) -> None:
    server = start_sepakat()
    client = redis.Redis(port=server.port)
    for start in range(0, keys, 1000):
        client.mset({f"key:{number}": "x" * 100 for number in range(start, start + 1000)})
    client.bgsave()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(EXIT_SECONDS) == 0
    assert redis.Redis(port=start_sepakat().port).dbsize() == keys


def test_a_stop_while_a_large_reply_is_unread(start_sepakat: StartSepakat) -> None:
    server = start_sepakat()
    client = redis.Redis(port=server.port)
    client.set("large", b"x" * 50_000_000)
    with server.connect() as deaf:
        deaf.sendall(b"GET large\r\nGET large\r\n")
        deaf.recv(10)
        client.set("after", 1)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not accepts(server))
        server.process.send_signal(signal.SIGTERM)  # while it waits for the client: it knows already
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(EXIT_SECONDS) == 0
    assert redis.Redis(port=start_sepakat().port).get("after") == b"1"


def test_a_stop_ends_what_waits(start_sepakat: StartSepakat) -> None:
    server = start_sepakat()
    with server.connect() as waiting, server.connect() as other:
        waiting.sendall(b"Q.POP queue BLOCK 0\r\n")
        other.sendall(b"PING\r\n")
        other.recv(10)
        server.process.send_signal(signal.SIGTERM)
        assert waiting.recv(100) == b""
    assert server.process.wait(EXIT_SECONDS) == 0


def test_a_pause_is_only_a_pause(start_sepakat: StartSepakat) -> None:
    """SIGSTOP and SIGCONT: clients are answered afterwards, and time has passed."""
    server = start_sepakat()
    client = redis.Redis(port=server.port)
    client.set("short", 1, px=100)
    client.set("long", 1, ex=1000)
    with server.connect() as connection:
        server.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: is_stopped(server.process.pid))
        connection.sendall(b"GET long\r\nGET short\r\n")
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(100)
        server.process.send_signal(signal.SIGCONT)
        connection.settimeout(EXIT_SECONDS)
        received = b""
        while len(received) < len(b"$1\r\n1\r\n$-1\r\n"):
            received += connection.recv(100)
        assert received == b"$1\r\n1\r\n$-1\r\n"


@pytest.mark.parametrize("policy", ["everysec", "no"])
def test_no_policy_loses_anything_to_a_kill(start_sepakat: StartSepakat, policy: str) -> None:
    """What the operating system has taken outlives the process, synced or not."""
    server = start_sepakat("--appendfsync", policy)
    client = redis.Redis(port=server.port)
    for number in range(500):
        client.set(f"key:{number}", number)
    server.process.kill()
    server.process.wait()
    assert redis.Redis(port=start_sepakat("--appendfsync", policy).port).dbsize() == 500


# The Unix socket


def over(path: Path) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(path))


def test_the_unix_socket_comes_and_goes(start_sepakat: StartSepakat, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = start_sepakat("--unixsocket", str(path), "--unixsocketperm", "700")
    assert path.stat().st_mode & 0o777 == 0o700
    over(path).set("a", 1)
    assert redis.Redis(port=server.port).get("a") == b"1"
    assert any(line["addr"].startswith(str(path)) for line in over(path).client_list())
    assert server.stop() == 0
    assert not path.exists()


def test_a_socket_left_behind_is_replaced(start_sepakat: StartSepakat, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = start_sepakat("--unixsocket", str(path))
    inode = path.stat().st_ino
    server.process.kill()
    server.process.wait()
    assert path.stat().st_ino == inode, "a killed server cannot have removed it"
    start_sepakat("--unixsocket", str(path))
    assert over(path).ping()


def test_a_server_that_cannot_start_leaves_no_socket(start_sepakat: StartSepakat, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "stranger").touch()
    path = tmp_path / "socket"
    with pytest.raises(ServerFailed, match="stranger"):
        start_sepakat("--unixsocket", str(path))
    assert not path.exists()


def test_an_ordinary_file_is_never_replaced(start_sepakat: StartSepakat, tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("precious")
    with pytest.raises(ServerFailed, match="cannot listen"):
        start_sepakat("--unixsocket", str(path))
    assert path.read_text() == "precious"
