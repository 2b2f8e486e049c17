"""Messages as large as values may be, through real sockets and a real disk."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.clusters import Cluster
from tests.proxy import PENDING_BYTES_MAX
from tests.servers import HOST, Server, sepakat_server, wait_until

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


LINK_BYTES_PER_S = 10 * 1024 * 1024


@pytest.mark.parametrize("at", ["leader", "follower"])
def test_three_nodes_keep_their_leader_while_32_mb_are_on_their_way(calm: Cluster, at: str) -> None:
    """Over links that take longer for it than nodes wait for a sign of life."""
    payload = PAYLOAD[: 32 * 1024 * 1024]
    leader = calm.wait_for_lasting_leader()
    term = calm.term()
    node = leader if at == "leader" else calm.others(leader)[0]
    queue = f"big-{at}"
    calm.network.delay(PENDING_BYTES_MAX / LINK_BYTES_PER_S)
    redis = node.client()
    redis.execute_command("Q.CREATE", queue, "VISIBILITY", "600000")
    own = redis.execute_command("Q.PUSH", queue, payload)
    calm.network.delay(0)
    for other in calm.serving:
        assert other.client().execute_command("Q.PEEK", queue) == [[None, payload, 0, own]]
    assert (calm.wait_for_leader(), calm.term()) == (leader, term)
    assert redis.execute_command("DEL", queue) == 1


def test_a_follower_that_is_cut_off_in_the_midst_of_32_mb_gets_them_later(calm: Cluster) -> None:
    """And the leader that is left with one that has not got them either goes on."""
    payload = PAYLOAD[: 32 * 1024 * 1024]
    leader = calm.wait_for_lasting_leader()
    cut = calm.others(leader)[0]
    redis = leader.client()
    redis.execute_command("Q.CREATE", "cut", "VISIBILITY", "600000")
    calm.network.delay(PENDING_BYTES_MAX / LINK_BYTES_PER_S)
    before = leader.raft()["last-index"]
    with ThreadPoolExecutor(1) as pushing:
        pushed = pushing.submit(redis.execute_command, "Q.PUSH", "cut", payload)
        wait_until(lambda: leader.raft()["last-index"] > before)
        calm.network.isolate(cut.name)
        own = pushed.result()
    calm.network.delay(0)
    calm.network.heal()
    calm.wait_until_caught_up()
    assert cut.client().execute_command("Q.PEEK", "cut") == [[None, payload, 0, own]]
    assert redis.execute_command("DEL", "cut") == 1
