"""`sepakat locks` on a cluster whose locks are spread over its nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.clusters import CALM, Cluster, new_cluster, sepakat


@pytest.mark.parametrize("routing", ["proxy", "redirect"])
def test_the_locks_of_all_shards_are_shown(tmp_path: Path, routing: str) -> None:
    shape = ("--shards", "4", "--replicas", "1", "--routing", routing)
    with new_cluster(tmp_path, 3, *CALM, shape=shape, direct=True) as cluster:
        cluster.start()
        for number in range(20):
            acquire(cluster, f"job:{number}", "ann" if number else "bob")
        waiter = cluster["n1"].raw()
        key = next(f"job:{number}" for number in range(1, 20) if here(cluster, f"job:{number}"))
        waiter.send("LOCK.ACQUIRE", key, "bob", "BLOCK", 0)
        cluster.wait_until(lambda: cluster["n1"].ask("LOCK.INFO", key)["waiters"])
        for node in cluster.nodes.values():
            ended = sepakat("locks", "--port", str(node.port), "--json")
            assert ended.returncode == 0, ended.stderr
            told = json.loads(ended.stdout)
            assert sorted(one["key"] for one in told["locks"]) == sorted(f"job:{number}" for number in range(20))
            assert told["locks"][0]["key"] == key
            assert told["edges"] == [{"waiter": "bob", "holder": "ann", "key": key}]
            assert told["complete"]
        shown = sepakat("locks", "--port", str(cluster["n2"].port), "--match", key)
        assert shown.returncode == 0, shown.stderr
        assert f"bob waits for {key}, exclusive, for " in shown.stdout


def acquire(cluster: Cluster, key: str, owner: str) -> None:
    """At whatever node takes it, once one does."""

    def is_held() -> Any:
        for node in cluster.nodes.values():
            try:
                if node.ask("LOCK.ACQUIRE", key, owner, "PX", 600_000, "ID", "only"):
                    return True
            except OSError:  # another node has it, or nobody leads yet
                continue
        return False

    cluster.wait_until(is_held)


def here(cluster: Cluster, key: str) -> bool:
    """Whether the first node answers for it."""
    try:
        return bool(cluster["n1"].ask("LOCK.INFO", key)["holders"])
    except ConnectionError:
        return False
