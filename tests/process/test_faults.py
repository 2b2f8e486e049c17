"""What keeps a server from starting: one clear line on standard error, a code that is not zero, no traceback."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest
import redis

from resp_server.settings import FIELDS
from tests.conftest import StartSepakat
from tests.servers import HOST, ServerFailed, free_port, sepakat_server, wait_until

ROOT = Path(__file__).parents[2]
SECONDS = 60
FILES = ("log.sqlite", "keyspace.sqlite")


def refusal(
    *flags: str | Path, code: int = 1, program: tuple[str, ...] = ("-m", "resp_server"), **variables: str
) -> str:
    """The one line that ``sepakat serve`` ends with."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("SEPAKAT_")}
    run = subprocess.run(
        [sys.executable, *program, "serve", *map(str, flags)],
        env={**own, "PYTHONPATH": str(ROOT), **variables}, capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip
    assert run.returncode == code, run.stderr
    assert run.stderr.startswith("sepakat: ")
    assert run.stderr.count("\n") == 1, run.stderr
    return run.stderr


def flags_for(folder: Path) -> tuple[str, ...]:
    return ("--port", str(free_port()), "--dir", str(folder))


@pytest.fixture(scope="module")
def once_used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a server that was killed, with a checkpoint and a log."""
    folder = tmp_path_factory.mktemp("used")
    with sepakat_server(folder / "data", folder / "log") as server:
        redis.Redis(port=server.port).mset({f"key:{number}": "x" * 100 for number in range(2000)})
        server.stop()
    with sepakat_server(folder / "data", folder / "log") as server:
        redis.Redis(port=server.port).mset({f"later:{number}": "x" * 100 for number in range(2000)})
        server.process.kill()
        server.process.wait()
    return folder / "data"


@pytest.fixture
def used_folder(once_used: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(once_used, tmp_path / "data"))


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--port", "70000"),
        ("--port", "x"),
        ("--port", "-1"),
        ("--maxclients", "0"),
        ("--appendfsync", "sometimes"),
        ("--proto-max-bulk-len", "1kb"),
        ("--client-output-buffer-limit", "normal 1"),
        ("--loglevel", "loud"),
        ("--logfile", "/nowhere/at/all.log"),
        ("--unixsocketperm", "999"),
        ("--nosuchsetting", "1"),
    ],
)
def test_a_bad_setting(flag: str, value: str) -> None:
    assert flag.strip("-") in refusal(flag, value, code=2)


def test_a_bad_variable() -> None:
    assert "SEPAKAT_PORT" in refusal(code=2, SEPAKAT_PORT="many")


@pytest.mark.parametrize("host", ["nosuchhost.invalid", "203.0.113.1", "a..b", "x" * 300])
def test_an_address_that_is_not_here(tmp_path: Path, host: str) -> None:
    assert "cannot listen on" in refusal(*flags_for(tmp_path / "data"), "--bind", host)


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert port in refusal("--port", port, "--dir", tmp_path / "data")
    assert not (tmp_path / "data").exists(), "it made a folder for nothing"


def test_a_socket_in_use(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(path))
        taken.listen()
        assert str(path) in refusal(*flags_for(tmp_path / "data"), "--unixsocket", path)
    assert path.exists()


def test_a_socket_path_that_is_too_long(tmp_path: Path) -> None:
    assert "too long" in refusal(*flags_for(tmp_path / "data"), "--unixsocket", tmp_path / ("x" * 200))


def test_a_folder_in_use(start_sepakat: StartSepakat, tmp_path: Path) -> None:
    server = start_sepakat()
    line = refusal(*flags_for(tmp_path / "data"))
    assert f"pid {server.process.pid}" in line
    assert redis.Redis(port=server.port).set("a", 1), "the first server is none the worse"


def test_a_foreign_folder(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert "thesis.txt" in refusal(*flags_for(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.txt"]


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    assert str(tmp_path / "data") in refusal(*flags_for(tmp_path / "data"))


AS_NOBODY = """
import os, sys, encodings.idna
from resp_server.cli import main
from resp_server.edge import app
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
main()
"""


@pytest.mark.parametrize("there", [False, True], ids=["to be made", "read-only"])
def test_an_unwritable_folder(there: bool) -> None:
    """Root may write anywhere, so the server gives that up after its modules are read, which may be root's own."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "data"
        if there:
            folder.mkdir(0o555)
        Path(parent).chmod(0o555)
        line = refusal(*flags_for(folder), program=("-c", AS_NOBODY))
        Path(parent).chmod(0o755)
    assert f"{folder} cannot be used (Permission denied)" in line


@pytest.mark.parametrize("file", FILES)
def test_a_newer_version(used_folder: Path, file: str) -> None:
    with sqlite3.connect(used_folder / file) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    assert "newer version" in refusal(*flags_for(used_folder))


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("how", ["overwritten", "emptied", "missing", "text", "cut"])
def test_a_damaged_file(used_folder: Path, file: str, how: str) -> None:
    path = used_folder / file
    for suffix in ("-wal", "-shm"):
        (used_folder / f"{file}{suffix}").unlink(missing_ok=True)
    content = path.read_bytes()
    match how:
        case "overwritten":
            if len(content) < 3 * 4096:
                pytest.skip("all of it was in the write-ahead log")
            path.write_bytes(content[:4096] + os.urandom(len(content) - 4096))
        case "emptied":
            path.write_bytes(b"")
        case "missing":
            path.unlink()
        case "text":
            path.write_text("not a database\n" * 1000)
        case "cut":
            path.write_bytes(content[: len(content) // 2 + 100])
    assert str(used_folder) in refusal(*flags_for(used_folder))


def test_an_entry_nobody_can_read(used_folder: Path) -> None:
    with sqlite3.connect(used_folder / "log.sqlite") as database:
        changed = database.execute("UPDATE log SET payload = x'c1c1c1'").rowcount
    database.close()
    assert changed
    assert "cannot be read" in refusal(*flags_for(used_folder))


def test_a_checkpoint_nobody_can_read(used_folder: Path) -> None:
    with sqlite3.connect(used_folder / "keyspace.sqlite") as database:
        assert database.execute("UPDATE checkpoint SET ledger = x'c1c1c1'").rowcount
    database.close()
    assert "cannot be read" in refusal(*flags_for(used_folder))


def test_a_command_of_another_version(used_folder: Path) -> None:
    payload = msgspec.msgpack.encode((1, [(b"n1.b", 1, ([[b"NO.SUCH.COMMAND"]], {}))]))
    with sqlite3.connect(used_folder / "log.sqlite") as database:
        assert database.execute("UPDATE log SET payload = ?", (payload,)).rowcount
    database.close()
    assert "NO.SUCH.COMMAND" in refusal(*flags_for(used_folder))


def test_a_folder_that_goes_away(start_sepakat: StartSepakat, tmp_path: Path) -> None:
    """What would be acknowledged now would be lost: writes are refused for good, what is in memory can be saved."""
    server = start_sepakat()
    client = redis.Redis(port=server.port)
    client.set("a", 1)
    shutil.rmtree(tmp_path / "data")

    def refused() -> bool:
        try:
            client.set("b", 1)
        except redis.ResponseError as error:
            return str(error).startswith("MISCONF the data folder was deleted")
        return False

    wait_until(refused)
    (tmp_path / "data").mkdir()
    assert client.get("a") == b"1"
    client.bgsave()
    wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
    assert refused(), "a new folder does not have what came before"
    assert server.stop() == 0
    assert "the data folder was deleted" in server.said()


EXTREMES = ("0", "1", "32768", str(2**31 - 1), str(2**63 - 1), "9" * 30)


def test_no_setting_in_force_stops_the_server(start_sepakat: StartSepakat) -> None:
    """Every value CONFIG SET accepts is one that the server can live with: it takes clients and serves them."""
    server = start_sepakat()
    client = redis.Redis(port=server.port)
    taken = 0
    for field in FIELDS:
        if not field.live or field.name in ("requirepass", "maxclients", "maxmemory"):
            continue
        before = str(client.config_get(field.name)[field.name])
        for value in EXTREMES:
            with contextlib.suppress(redis.ResponseError):
                client.config_set(field.name, value)
                taken += 1
            assert redis.Redis(port=server.port).set("a", 1), (field.name, value)
        client.config_set(field.name, before)
    assert taken > 20


@pytest.mark.parametrize(
    "flag", ["--slowlog-max-len", "--cache-max-bytes", "--tcp-backlog", "--tcp-keepalive", "--timeout"]
)
def test_a_large_setting_is_taken_or_refused(start_sepakat: StartSepakat, flag: str) -> None:
    for value in (str(2**31 - 1), "9" * 30):
        try:
            server = start_sepakat(flag, value)
        except ServerFailed:
            assert flag in refusal(flag, value, code=2)
        else:
            assert server.stop() == 0
