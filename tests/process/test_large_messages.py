"""Messages as large as values may be, through real sockets and a real disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.servers import HOST, Server, sepakat_server

PAYLOAD = bytes(range(256)) * 256 * 1024  # 64 MB


@pytest.mark.parametrize("restarted", [False, True])
def test_one_node_takes_64_mb(tmp_path: Path, restarted: bool) -> None:
    with sepakat_server(tmp_path / "data", tmp_path / "log") as server:
        redis = client(server)
        redis.execute_command("Q.CREATE", "big", "VISIBILITY", "600000")
        own = redis.execute_command("Q.PUSH", "big", PAYLOAD)
        assert redis.execute_command("Q.PEEK", "big") == [[None, PAYLOAD, 0, own]]
        assert redis.info("sepakat")["large_payloads"] == 1
        if not restarted:
            work_off(redis, own)
    if restarted:
        with sepakat_server(tmp_path / "data", tmp_path / "log") as server:
            work_off(client(server), own)


def client(server: Server) -> Any:
    return Redis(HOST, server.port, socket_timeout=60)


def work_off(redis: Any, own: bytes) -> None:
    [[receipt, payload, deliveries, popped]] = redis.execute_command("Q.POP", "big")
    assert payload == PAYLOAD
    assert (deliveries, popped) == (1, own)
    assert redis.execute_command("Q.ACK", "big", receipt) == 1
    assert redis.execute_command("Q.LEN", "big") == 0
