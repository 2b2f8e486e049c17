"""Starting servers for tests: failing with what the server said, and never leaving one behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.servers import ServerFailed, free_port, running, wait_until

LISTENS = """
import contextlib, socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = server.accept()
    with connection, contextlib.suppress(OSError):  # who asked may have given up
        connection.recv(64)
        connection.sendall(b"+PONG\\r\\n")
"""


def test_a_server_that_ends_at_once_is_reported_with_what_it_said(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such folder')"]
    with pytest.raises(ServerFailed, match="ended with code 1:\nno such folder"), running(command, 1, tmp_path / "log"):
        pass


def test_a_server_that_never_answers_is_reported_and_stopped(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    silent = running(command, free_port(), tmp_path / "log", seconds=0.1)
    with pytest.raises(ServerFailed, match="did not answer within"), silent:
        pass


def test_a_server_is_stopped_when_the_block_ends(tmp_path: Path) -> None:
    port = free_port()
    with running([sys.executable, "-c", LISTENS, str(port)], port, tmp_path / "log") as server:
        wait_until(server.answers)
    assert server.process.poll() is not None
    assert not server.answers()
