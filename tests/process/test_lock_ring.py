"""What concerns locks of many shards at once, and steps over several things of one, asked of nodes without them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from redis import cluster as redis_cluster

from tests.clusters import CALM, Cluster, error_of, new_cluster
from tests.raw_client import RawClient
from tests.rings import Ring, wait_for_ring
from tests.servers import HOST
from tests.stages import LONG_MS

SHARDS = 8
LOCKS = 40
LIFE = ("PX", LONG_MS)


@pytest.fixture(scope="module")
def ring_flags() -> Sequence[str]:
    """All nodes are there."""
    return CALM


@pytest.fixture
def ring(five: Cluster) -> Ring:
    """The shards of an empty cluster."""
    assert five["n1"].raw().call("FLUSHALL") == b"OK"
    return wait_for_ring(five)


def scanned(client: RawClient, *options: str | int) -> Iterator[bytes]:
    """What a whole LOCK.SCAN gives."""
    cursor = b"0"
    while True:
        cursor, keys = client.call("LOCK.SCAN", cursor, *options)
        yield from keys
        if cursor == b"0":
            return


def test_locks_are_found_wherever_they_are(five: Cluster, ring: Ring) -> None:
    """Each once, and nothing else."""
    takes = five["n1"].raw()
    locks = [ring.key_in(number % SHARDS, f"lock:{number}") for number in range(LOCKS)]
    for number, lock in enumerate(locks):
        mode = "SHARED" if number % 3 else "EXCLUSIVE"
        assert takes.call("LOCK.ACQUIRE", lock, f"owner:{number % 2}", mode, *LIFE) > 0
        assert takes.call("SET", f"value:{number}", 1) == b"OK"
        assert takes.call("SEM.ACQUIRE", f"sem:{number}", "owner:0", "LIMIT", 2, *LIFE) > 0
    wanted, first_owners = sorted(map(str.encode, locks)), sorted(map(str.encode, locks[::2]))
    for node in five.nodes.values():
        asks = node.raw()
        assert sorted(scanned(asks, "COUNT", 3)) == wanted
        assert sorted(scanned(asks, "MATCH", "lock:1?:*")) == sorted(map(str.encode, locks[10:20]))
        assert sorted(asks.call("LOCK.OWNED", "owner:0")) == first_owners
        assert asks.call("LOCK.OWNED", "nobody") == []
    assert takes.call("LOCK.BREAK", locks[0]) == 1
    assert sorted(scanned(five["n5"].raw())) == sorted(set(wanted) - {locks[0].encode()}), "at once, everywhere"


def test_the_graph_is_that_of_all_shards(five: Cluster, ring: Ring) -> None:
    holder, expected = five["n1"].raw(), []
    for number, node in enumerate(five.nodes.values()):
        lock = ring.key_away_from(node, f"waited:{number}")
        assert holder.call("LOCK.ACQUIRE", lock, f"holder:{number}", *LIFE) > 0
        node.raw().send("LOCK.ACQUIRE", lock, f"waiter:{number}", "BLOCK", 0)
        expected.append((f"waiter:{number}", f"holder:{number}", lock))

    def edges(asks: Any) -> list[tuple[str, str, str]]:
        return sorted((edge["waiter"], edge["holder"], edge["key"]) for edge in asks("LOCK.GRAPH")["edges"])

    for node in five.nodes.values():
        five.wait_until(lambda: edges(node.insist) == expected)  # noqa: B023 - it is called at once


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_job_is_done_in_one_step(five: Cluster, ring: Ring, protocol: int) -> None:
    """Acknowledging it, releasing the lock and writing the result happen together, or not at all."""
    for node in five.nodes.values():
        asks, tag = node.raw(), ring.key_away_from(node, f"job:{protocol}:{node.name}")
        asks.call("HELLO", protocol)
        lock, queue, result = (f"{{{tag}}}{name}" for name in ("lock", "queue", "result"))
        assert asks.call("Q.PUSH", queue, "payload", "ID", "1") == b"1"
        [[receipt, *_]] = asks.call("Q.POP", queue, "VISIBILITY", LONG_MS)
        token = asks.call("LOCK.ACQUIRE", lock, "worker", *LIFE)
        waiter = five.others(node)[0].raw()
        waiter.send("LOCK.ACQUIRE", lock, "next", *LIFE, "BLOCK", 0)
        five.wait_until(lambda: five["n1"].ask("LOCK.INFO", lock)["waiters"])  # noqa: B023 - it is called at once

        step = (("Q.ACK", queue, receipt), ("SET", result, "done"), ("LOCK.RELEASE", lock, "worker", "TOKEN", token))
        assert asks.call("MULTI") == b"OK"
        for words in step:
            assert asks.call(*words) == b"QUEUED"
        assert error_of(asks, "SET", ring.key_in((ring.of(tag).shard + 1) % SHARDS, "other"), 1).startswith(
            "CROSSSLOT "
        )
        assert error_of(asks, "EXEC").startswith("EXECABORT ")
        assert asks.call("GET", result) is None
        assert [one["owner"] for one in node.ask("LOCK.INFO", lock)["holders"]] == ["worker"]

        asks.call("MULTI")
        for words in step:
            asks.call(*words)
        assert asks.call("EXEC") == [1, b"OK", 1]
        granted = waiter.read()
        assert granted > token
        assert asks.call("Q.LEN", queue) == 0

        fenced = ("FENCE", lock, token, "SET", result, "late")
        assert error_of(asks, *fenced) == f"FENCED the lock is not held with token {token}, nothing was changed"
        assert asks.call("MULTI") == b"OK"
        assert asks.call(*fenced) == b"QUEUED"
        assert asks.call("FENCE", lock, granted, "APPEND", result, "!") == b"QUEUED"
        assert asks.call("LOCK.ACQUIRE", lock, "worker", "BLOCK", 0) == b"QUEUED"
        late, length, waits = asks.call("EXEC")
        assert str(late).startswith("FENCED ")
        assert (length, waits) == (5, None), "nobody waits in a step"
        assert asks.call("GET", result) == b"done!"


def test_a_cluster_aware_client_finds_the_way_of_each(tmp_path: Path) -> None:
    """It asks where the keys of a call stand, and goes there; nobody passes on what comes to the wrong node."""
    library: Any = redis_cluster
    shape = ("--shards", "4", "--replicas", "1", "--routing", "redirect")
    with new_cluster(tmp_path, 3, *CALM, shape=shape, direct=True) as cluster:
        cluster.start()
        wait_for_ring(cluster, replicas=1)
        nodes = [library.ClusterNode(HOST, node.port) for node in cluster.nodes.values()]
        with contextlib.closing(library.RedisCluster(startup_nodes=nodes, decode_responses=True)) as client:
            call = client.execute_command
            for number in range(20):
                tag = f"{{{number}}}"
                token = call("LOCK.ACQUIRE", f"{tag}lock", "ann", "PX", 60_000)
                assert call("LOCK.MACQUIRE", 2, f"{tag}a", f"{tag}lock", "ann") == [token + 1, token]
                assert call("FENCE", f"{tag}lock", token, "SET", f"{tag}result", "done") in ("OK", True)
                with pytest.raises(redis.ResponseError, match="FENCED"):
                    call("FENCE", f"{tag}lock", token + 1, "SET", f"{tag}result", "late")
                assert [call("LOCK.RELEASE", f"{tag}lock", "ann") for _ in range(3)] == [1, 1, 0]
                assert call("SEM.ACQUIRE", f"{tag}sem", "ann", "LIMIT", 2, "SESSION") > token
                assert call("LATCH.WAIT", f"{tag}latch", "BLOCK", 10) == 1
                assert call("ELECT.CAMPAIGN", f"{tag}election", "ann", "BLOCK", 10) > token
                assert call("ELECT.OBSERVE", f"{tag}election", "BLOCK", 10)[0] == "ann"
                assert client.get(f"{tag}result") == "done"
