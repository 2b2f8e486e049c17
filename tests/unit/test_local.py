"""``sepakat local``: what it starts, what it says, and how it ends, with small programs in place of the nodes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from resp_server import local
from resp_server.local import LocalError
from tests.servers import free_port, free_ports_in_a_row, is_stopped, wait_until

ROOT = Path(__file__).parents[2]
WAIT_S = 60.0

DRIVER = """
import json, os, sys
from resp_server import local
local.STOP_S = float(sys.argv[2])
children = [local.Child(name, 7001, [sys.executable, path]) for name, path in json.loads(sys.argv[1])]
sys.exit(0 if local.run(children, os.environ) else 1)
"""

PATIENT = """
import os, signal, sys
def end(*_):
    print("bye")
    sys.exit(3)
signal.signal(signal.SIGTERM, end)
print("ready")
while True:
    signal.pause()
"""
STUBBORN = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready')\nsignal.pause()"
STOPPED = PATIENT.replace('"ready"', '"ready", os.getpid()').replace(
    "while True:", "os.kill(os.getpid(), signal.SIGSTOP)\nwhile True:"
)


@contextmanager
def running(folder: Path, stop_s: float = WAIT_S, **programs: str) -> Iterator[subprocess.Popen[str]]:
    """Runs programs, by name, as `local` runs nodes."""
    paths = {name: folder / f"{name}.py" for name in programs}
    for name, program in programs.items():
        paths[name].write_text(program)
    children = json.dumps([(name, str(path)) for name, path in paths.items()])
    command = [sys.executable, "-c", DRIVER, children, str(stop_s)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=WAIT_S)
        except (subprocess.TimeoutExpired, ValueError):  # it hangs, or its output was closed by the test
            process.kill()
            process.wait()


def said(process: subprocess.Popen[str], *beginnings: str) -> list[str]:
    """What it says until there was a line with each of these beginnings."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if all(any(one.startswith(beginning) for one in lines) for beginning in beginnings):
            return lines
    raise AssertionError(f"it never said all of {beginnings}, but: {lines}")


def rest(process: subprocess.Popen[str]) -> list[str]:
    """What it says until it ends, without a word on standard error."""
    output, errors = process.communicate(timeout=WAIT_S)
    assert errors == ""
    return output.splitlines()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_ends_all_gracefully(number: signal.Signals, tmp_path: Path) -> None:
    with running(tmp_path, n1=PATIENT, n10=PATIENT) as process:
        lines = said(process, "n1  | ready", "n10 | ready")
        assert lines[0].startswith("2 nodes on 127.0.0.1")
        assert "redis-cli -p 7001" in lines[0]
        again = [f"{name} can be started again by: {sys.executable} {tmp_path}/{name}.py" for name in ("n1", "n10")]
        assert lines[1:3] == again
        assert sorted(lines[3:]) == ["n1  | ready", "n10 | ready"]
        process.send_signal(number)
        ending = rest(process)
        assert process.returncode == 0
        assert ending[0] == "ending all nodes"
        assert sorted(ending[1:]) == [
            "n1  | bye", "n1 ended with code 3", "n10 ended with code 3", "n10 | bye"
        ]  # fmt: skip


def test_a_node_that_ends_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    with running(tmp_path, n1="print('half a line', end='')", n2=PATIENT) as process:
        lines = said(process, "n1 ended", "n2 | ready")
        assert "n1 | half a line" in lines
        (told,) = [line for line in lines if line.startswith("n1 ended with code 0; start it again by: ")]
        assert told.split("by: ")[1] == next(line for line in lines if "n1 can be started" in line).split("by: ")[1]
        process.send_signal(signal.SIGINT)
        rest(process)
        assert process.returncode == 0


def test_a_node_that_was_killed_is_told_by_which_signal(tmp_path: Path) -> None:
    with running(tmp_path, n1="import os\nos.kill(os.getpid(), 9)") as process:
        assert "n1 was ended by SIGKILL; start it again by: " in "\n".join(rest(process))
        assert process.returncode == 1  # nothing is left to run


def test_a_node_that_does_not_end_is_killed_after_a_while(tmp_path: Path) -> None:
    with running(tmp_path, n1=STUBBORN, stop_s=0.2) as process:
        said(process, "n1 | ready")
        process.send_signal(signal.SIGTERM)
        assert rest(process) == ["ending all nodes", "n1 does not end: it is killed", "n1 was ended by SIGKILL"]
        assert process.returncode == 0


def test_a_node_that_is_stopped_ends_all_the_same(tmp_path: Path) -> None:
    with running(tmp_path, n1=STOPPED) as process:
        ready = said(process, "n1 | ready")[-1]
        wait_until(partial(is_stopped, int(ready.split()[-1])))
        process.send_signal(signal.SIGTERM)
        assert rest(process)[-1] == "n1 ended with code 3"


def test_nodes_end_when_nobody_reads_what_they_say(tmp_path: Path) -> None:
    chatty = PATIENT.replace("signal.pause()", "print('still there')")
    with running(tmp_path, n1=chatty) as process:
        assert process.stdout is not None
        said(process, "n1 | ready")
        process.stdout.close()
        assert process.wait(WAIT_S) == 0


# What is planned


def test_each_node_has_its_place_in_one_list_and_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/opt/bin/sepakat", "local"])
    port = free_ports_in_a_row(2)
    first, second = local.plan(2, port, tmp_path / "demo", {})
    members = f"n1=127.0.0.1:{port},n2=127.0.0.1:{port + 1}"
    assert (first.name, first.port, second.name, second.port) == ("n1", port, "n2", port + 1)
    own = ["--node-id", "n2", "--cluster", members, "--dir", f"{tmp_path}/demo/n2", "--loglevel", "notice"]
    assert second.command == ["/opt/bin/sepakat", "serve", *own]
    assert "--loglevel" not in local.plan(1, port, tmp_path, {"SEPAKAT_LOGLEVEL": "debug"})[0].command


def test_the_shape_of_the_cluster_is_said_to_each_node(tmp_path: Path) -> None:
    children = local.plan(3, free_ports_in_a_row(3), tmp_path, {}, local.Shape(shards="16", zones=2))
    for child, zone in zip(children, ("z1", "z2", "z1"), strict=True):
        command = child.command
        assert command[command.index("--shards") :][:4] == ["--shards", "16", "--zone", zone]
        assert "--replicas" not in command
    (child,) = local.plan(1, free_port(), tmp_path, {}, local.Shape(replicas="2"))
    assert child.command[child.command.index("--replicas") + 1] == "2"
    assert not {"--shards", "--zone"} & set(child.command)


def test_a_folder_given_from_here_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (child,) = local.plan(1, free_port(), Path("demo"), {})
    assert child.command[child.command.index("--dir") + 1] == f"{tmp_path}/demo/n1"


def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LocalError) as refused:
            local.plan(1, port, tmp_path, {})
    expected = f"port {port} cannot be had: Address already in use; stop what uses it or choose another --port"
    assert str(refused.value) == expected


def test_ports_end_somewhere(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=r"3 nodes from port 65534 on would go past port 65535"):
        local.plan(3, 65534, tmp_path, {})


def test_a_folder_that_cannot_be_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LocalError, match=r"file/demo cannot be used \(Not a directory\): choose another --dir"):
        local.plan(1, free_port(), tmp_path / "file" / "demo", {})
