"""A disk that takes nothing more: writes are refused, reads go on, and it heals by itself."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import redis

from tests.conftest import StartSepakat
from tests.servers import Server, wait_until

Full: TypeAlias = Callable[[Server], AbstractContextManager[None]]

BYTES_LEFT = 4096
REFUSED = ("MISCONF", "UNCERTAIN")


@contextlib.contextmanager
def full(server: Server) -> Iterator[None]:
    """No file of the server may grow past a few bytes: what it writes beyond them fails."""
    pid = server.process.pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (BYTES_LEFT, hard))
    try:
        yield
    finally:
        if server.process.poll() is None:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))


def connect(server: Server, *, single_connection_client: bool = False) -> Any:
    """A client of it; Any, as what redis-py says of its replies depends on options it cannot see."""
    return redis.Redis(port=server.port, single_connection_client=single_connection_client)


def error_of(client: Any, *words: object) -> str:
    """The error a command ends with, "" for none."""
    try:
        client.execute_command(*words)
    except redis.ResponseError as error:
        return str(error)
    return ""


def exhaust(client: Any) -> set[str]:
    """Writes until the first write is refused; the keys whose fate is uncertain."""
    uncertain = set()
    number = 0
    while not (error := error_of(client, "SET", f"exhaust:{number}", "x" * 100)):
        number += 1
    assert error.startswith(REFUSED)
    if error.startswith("UNCERTAIN"):
        uncertain.add(f"exhaust:{number}")
    wait_until(lambda: error_of(client, "SET", "refused", 1).startswith("MISCONF"))
    return uncertain


def heal(client: Any) -> None:
    """Waits until writes are taken again."""
    wait_until(lambda: not error_of(client, "SET", "healed", 1))


def kill(server: Server) -> None:
    server.process.kill()
    server.process.wait()


def test_reads_go_on_and_writes_come_back(start_sepakat: StartSepakat) -> None:
    server = start_sepakat()
    client = connect(server)
    client.set("a", 1)
    client.execute_command("Q.PUSH", "queue", "job")
    with full(server):
        uncertain = exhaust(client)
        for words in (("INCR", "a"), ("LOCK.ACQUIRE", "lock", "ann"), ("Q.POP", "queue", "BLOCK", 0), ("FLUSHALL",)):
            assert error_of(client, *words).startswith("MISCONF"), words
        assert client.get("a") == b"1"
        assert client.execute_command("Q.LEN", "queue") == 1
        assert client.execute_command("LOCK.INFO", "lock")[b"mode"] == b"free"
        assert client.ping()
        assert client.info("persistence")["aof_last_write_status"] == "err"
        acknowledged = client.keys("exhaust:*")
    heal(client)
    assert client.info("persistence")["aof_last_write_status"] == "ok"
    assert client.incr("a") == 2
    kill(server)
    client = connect(start_sepakat())
    assert client.get("a") == b"2"
    assert client.get("refused") is None
    assert {key.decode() for key in client.keys("exhaust:*")} - {key.decode() for key in acknowledged} <= uncertain
    assert set(acknowledged) <= set(client.keys("exhaust:*"))


def test_what_ends_during_the_outage_is_gone(start_sepakat: StartSepakat) -> None:
    server = start_sepakat()
    client = connect(server)
    client.set("short", 1, px=500)
    client.execute_command("LOCK.ACQUIRE", "lock", "ann", "PX", 500)
    with full(server):
        exhaust(client)
        wait_until(lambda: client.get("short") is None)
        wait_until(lambda: client.execute_command("LOCK.INFO", "lock")[b"mode"] == b"free")
        assert client.exists("short") == 0
        assert client.ttl("short") == -2
    heal(client)
    assert client.exists("short") == 0
    assert client.execute_command("LOCK.ACQUIRE", "lock", "bob") > 0


def test_transactions_during_the_outage(start_sepakat: StartSepakat) -> None:
    """EXEC is refused when it would write, also if it was queued before; one that only reads goes on."""
    server = start_sepakat()
    client = connect(server)
    queued, watching = (connect(server, single_connection_client=True) for _ in range(2))
    client.set("a", 1)
    queued.execute_command("MULTI")
    queued.execute_command("SET", "a", 2)
    watching.execute_command("WATCH", "a")
    watching.execute_command("MULTI")
    watching.execute_command("GET", "a")
    with full(server):
        exhaust(client)
        for session in (queued, watching):
            with pytest.raises(redis.exceptions.ExecAbortError, match="MISCONF"):
                session.execute_command("EXEC")
            assert session.get("a") == b"1", "the connection is as good as before"
        assert client.pipeline().get("a").ping().execute() == [b"1", True]
    heal(client)
    assert client.pipeline().incr("a").execute() == [2]


def test_who_waits_is_served_after_the_outage(start_sepakat: StartSepakat) -> None:
    server = start_sepakat()
    client = connect(server)
    client.execute_command("LOCK.ACQUIRE", "lock", "ann")
    with server.connect() as waits, server.connect() as leaves:
        waits.sendall(b"LOCK.ACQUIRE lock bob BLOCK 0\r\n")
        leaves.sendall(b"LOCK.ACQUIRE other ann SESSION\r\nPING\r\n")
        assert leaves.recv(100).startswith(b":")
        wait_until(lambda: client.info("clients")["blocked_clients"] == 1)
        with full(server):
            exhaust(client)
            leaves.close()
            wait_until(lambda: client.info("clients")["connected_clients"] == 2)
            assert client.execute_command("LOCK.INFO", "other")[b"mode"] == b"exclusive"
        heal(client)
        wait_until(lambda: client.execute_command("LOCK.INFO", "other")[b"mode"] == b"free")
        assert client.execute_command("LOCK.RELEASE", "lock", "ann") == 1
        assert waits.recv(100).startswith(b":")


def test_a_checkpoint_that_fails_changes_nothing(start_sepakat: StartSepakat) -> None:
    server = start_sepakat()
    client = connect(server)
    client.mset({f"key:{number}": "x" * 100 for number in range(5000)})
    status: Callable[[], Any] = lambda: client.info("persistence")["rdb_last_bgsave_status"]  # noqa: E731
    with full(server):
        client.bgsave()
        wait_until(lambda: status() == "err")
        assert client.get("key:7") == b"x" * 100
    heal(client)
    client.delete("key:7")
    kill(server)
    client = connect(start_sepakat())
    assert client.dbsize() == 5000  # one deleted, one to see that it healed
    client.bgsave()
    wait_until(lambda: client.info("persistence")["rdb_last_save_time"] > 0)
    assert status() == "ok"


def test_a_stop_during_the_outage(start_sepakat: StartSepakat) -> None:
    server = start_sepakat()
    client = connect(server)
    client.set("a", 1)
    with full(server):
        exhaust(client)
        assert server.stop() == 0
    assert connect(start_sepakat()).get("a") == b"1"


# A file system that is really full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two mebibytes; only root can mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    mounted = subprocess.run([mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_file_system(small_disk: Path, start_sepakat: StartSepakat) -> None:
    """Nothing that was refused is there afterwards: SQLite is told before it has written all of it."""
    flags = ("--dir", str(small_disk / "data"))
    server = start_sepakat(*flags)
    client = connect(server)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    uncertain = exhaust(client)
    acknowledged = set(client.keys("exhaust:*"))
    ballast.unlink()
    heal(client)
    kill(server)
    client = connect(start_sepakat(*flags))
    assert {key.decode() for key in set(client.keys("exhaust:*")) - acknowledged} <= uncertain
    assert acknowledged <= set(client.keys("exhaust:*"))
    assert client.get("refused") is None


@pytest.mark.parametrize("bytes_left", [0, 100, 4096, 20_000])
def test_full_from_the_start(tmp_path: Path, bytes_left: int) -> None:
    """One line that says why, and a code that is not zero."""
    code = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({bytes_left}, {bytes_left}));"
        "from resp_server.cli import main; sys.argv = ['sepakat', 'serve', '--port', '0', '--unixsocket',"
        f"{str(tmp_path / 'socket')!r}, '--dir', {str(tmp_path / 'data')!r}]; main()"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert run.returncode == 1, run.stderr
    assert run.stderr.count("\n") == 1, run.stderr
    assert str(tmp_path / "data") in run.stderr
