"""A cluster in one terminal: ``sepakat local`` and the commands beside it, as a person uses them."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from resp_server.address import Address
from resp_server.ask import AskError, ask
from tests.servers import HOST, STOP_SECONDS, free_ports_in_a_row, wait_until

PROGRAM = [sys.executable, "-m", "resp_server"]
ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("SEPAKAT_")}
    return {**own, "PYTHONPATH": str(ROOT)}


@contextmanager
def started(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command until the block ends, its output in a file."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment(), cwd=log.parent, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def sepakat(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line to its end."""
    return subprocess.run([*PROGRAM, *words], env=environment(), capture_output=True, text=True, timeout=STOP_SECONDS)


def leader(port: int) -> str | None:
    """Who leads, as the node at this port says; None while nobody does or it does not answer."""
    told = sepakat("status", "--port", str(port), "--json")
    found: str | None = json.loads(told.stdout)["leader"] if told.stdout else None
    return found


def call(port: int, *words: str) -> Any:
    """One reply, an `AskError` if it is an error."""
    try:
        return ask(Address(HOST, port), words)[0]
    except AskError as error:
        return error


def test_a_cluster_in_one_terminal(tmp_path: Path) -> None:
    first = free_ports_in_a_row(3)
    ports = {f"n{number}": first + number - 1 for number in (1, 2, 3)}
    log = tmp_path / "local.log"
    local = [*PROGRAM, "local", "--nodes", "3", "--port", str(first), "--dir", "demo"]
    with started(local, log) as terminal:
        wait_until(lambda: leader(first))
        assert call(ports["n3"], "SET", "a", "1") == "OK"
        assert call(ports["n2"], "GET", "a") == "1"
        assert {path.name for path in (tmp_path / "demo").iterdir()} == set(ports)

        shown = sepakat("status", "--port", str(first))
        assert shown.returncode == 0
        assert all(f"{HOST}:{port}" in shown.stdout for port in ports.values())

        # kill -9 the leader: writes go on, and the terminal tells how to start it again
        gone = str(leader(first))
        survivor = next(port for name, port in ports.items() if name != gone)
        about = call(ports[gone], "INFO", "server")
        os.kill(int(about.split("process_id:")[1].split()[0]), signal.SIGKILL)
        wait_until(lambda: call(survivor, "SET", "a", "2") == "OK")
        told = f"{gone} was ended by SIGKILL; start it again by: "
        wait_until(lambda: told in log.read_text())
        again = log.read_text().split(told)[1].splitlines()[0]
        with started(shlex.split(again), tmp_path / "again.log"):
            wait_until(lambda: call(ports[gone], "GET", "a") == "2")

            moved = sepakat("transfer", gone, "--port", str(survivor))
            assert (moved.returncode, moved.stdout, moved.stderr) == (0, f"{gone} leads\n", "")
            assert leader(survivor) == gone

            removed = sepakat("remove", gone, "--port", str(survivor))
            assert (removed.returncode, removed.stdout, removed.stderr) == (0, f"{gone} is removed\n", "")
            wait_until(lambda: leader(survivor) not in (None, gone))
            assert call(survivor, "GET", "a") == "2"

        terminal.send_signal(signal.SIGINT)
        assert terminal.wait(STOP_SECONDS) == 0
    assert "Traceback" not in log.read_text()
    assert all(isinstance(call(port, "PING"), AskError) for port in ports.values())
