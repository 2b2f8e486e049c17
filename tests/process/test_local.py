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
from tests.clusters import CHANGE_SECONDS
from tests.servers import HOST, START_SECONDS, STOP_SECONDS, free_ports_in_a_row, wait_until

PROGRAM = [sys.executable, "-m", "resp_server"]
ROOT = Path(__file__).parents[2]


UNHURRIED = {"SEPAKAT_ELECTION_TIMEOUT": "1000", "SEPAKAT_HEARTBEAT_INTERVAL": "70"}
"""The machine may be busy with other things."""


def environment() -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("SEPAKAT_")}
    return {**own, **UNHURRIED, "PYTHONPATH": str(ROOT)}


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
    return subprocess.run([*PROGRAM, *words], env=environment(), capture_output=True, text=True, timeout=CHANGE_SECONDS)


def seen(port: int) -> dict[str, Any]:
    """The cluster as the node at this port sees it; empty while it does not answer."""
    told = sepakat("status", "--port", str(port), "--json")
    found: dict[str, Any] = json.loads(told.stdout) if told.stdout else {}
    return found


def leaders(port: int) -> list[str | None]:
    """Who leads each shard."""
    return [shard["leader"] for shard in seen(port)["shards"]]


def call(port: int, *words: str) -> Any:
    """One reply, an `AskError` if it is an error."""
    try:
        return ask(Address(HOST, port), words, timeout_s=START_SECONDS)[0]
    except AskError as error:
        return error


def wait_for(reply: str, port: int, *words: str) -> None:
    """Returns once a command is answered like this."""
    wait_until(lambda: call(port, *words) == reply)


def test_a_cluster_in_one_terminal(tmp_path: Path) -> None:
    """Four nodes and eight shards: one node is killed, comes back, leads all it has, and is removed."""
    first = free_ports_in_a_row(4)
    ports = {f"n{number}": first + number - 1 for number in range(1, 5)}
    log = tmp_path / "local.log"
    local = [*PROGRAM, "local", "--nodes", "4", "--shards", "8", "--port", str(first), "--dir", "demo"]
    with started(local, log) as terminal:
        wait_until(lambda: all(seen(port).get("serves") for port in ports.values()))
        keys = [f"key:{number}" for number in range(50)]
        for key in keys:
            assert call(ports["n3"], "SET", key, "1") == "OK"
        assert [call(ports["n2"], "GET", key) for key in keys] == ["1"] * len(keys)
        assert {path.name for path in (tmp_path / "demo").iterdir()} == set(ports)
        assert [len(shard["nodes"]) for shard in seen(first)["shards"]] == [3] * 8

        shown = sepakat("status", "--port", str(first))
        assert shown.returncode == 0
        assert all(f"{HOST}:{port}" in shown.stdout for port in ports.values())

        # kill -9: writes go on, and the terminal tells how to start it again
        gone, survivor = "n2", ports["n1"]
        about = call(ports[gone], "INFO", "server")
        os.kill(int(about.split("process_id:")[1].split()[0]), signal.SIGKILL)
        for key in keys:
            wait_for("OK", survivor, "SET", key, "2")
        told = f"{gone} was ended by SIGKILL; start it again by: "
        wait_until(lambda: told in log.read_text())
        again = log.read_text().split(told)[1].splitlines()[0]
        with started(shlex.split(again), tmp_path / "again.log"):
            for key in keys:
                wait_for("2", ports[gone], "GET", key)

            def moved() -> bool:
                """Nobody hands over to a node that is not up to date: asking again is what a person would do."""
                done = sepakat("transfer", gone, "--port", str(survivor))
                if done.returncode:
                    return False
                assert (done.stdout, done.stderr) == (f"{gone} leads\n", "")
                return {shard["leader"] for shard in seen(survivor)["shards"] if gone in shard["nodes"]} == {gone}

            wait_until(moved)

            for flag, state in (("--pause", "paused"), ("--resume", "on")):
                done = sepakat("rebalance", flag, "--port", str(survivor))
                assert done.stdout.startswith(f"rebalancing is {state}"), done.stderr

            removed = sepakat("remove", gone, "--port", str(survivor))
            assert (removed.returncode, removed.stdout, removed.stderr) == (0, f"{gone} is removed\n", "")
            assert gone not in leaders(survivor)
            assert [node["id"] for node in seen(survivor)["nodes"]] == ["n1", "n3", "n4"]
            assert [call(survivor, "GET", key) for key in keys] == ["2"] * len(keys)

        terminal.send_signal(signal.SIGINT)
        assert terminal.wait(STOP_SECONDS) == 0
    assert "Traceback" not in log.read_text()
    assert all(isinstance(call(port, "PING"), AskError) for port in ports.values())
