"""`sepakat queue` on a cluster whose queues are spread over its nodes: any node can be asked about any queue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.clusters import CALM, Cluster, new_cluster, sepakat
from tests.rings import ring_of

QUEUES = [f"jobs:{number}" for number in range(6)]


@pytest.mark.parametrize("routing", ["proxy", "redirect"])
def test_the_queues_of_all_shards(tmp_path: Path, routing: str) -> None:
    shape = ("--shards", "4", "--replicas", "1", "--routing", routing)
    with new_cluster(tmp_path, 3, *CALM, shape=shape, direct=True) as cluster:
        cluster.start()
        for name in QUEUES:
            for payload in ("first", "second"):
                anywhere(cluster, "Q.PUSH", name, payload, "ID", payload)
            [[receipt, *_]] = anywhere(cluster, "Q.POP", name)
            assert anywhere(cluster, "Q.NACK", name, receipt, "DEAD") == 1
        for node in cluster.nodes.values():
            told = of_a_node(node.port, "list", "--match", "jobs:*")
            assert [one["queue"] for one in told["queues"]] == sorted(QUEUES)
            assert all((one["ready"], one["dead"], one["pushed"]) == (1, 1, 2) for one in told["queues"])
            assert told["complete"]
        port = cluster["n1"].port
        away = away_from(cluster, "n1")
        for name in away:
            assert of_a_node(port, "inspect", name)["maxdeliveries"] == 16
            assert of_a_node(port, "peek", name)["messages"] == [{"id": "second", "deliveries": 0, "payload": "second"}]
            [letter] = of_a_node(port, "dead", name)["messages"]
            assert (letter["id"], letter["deliveries"], letter["reason"]) == ("first", 1, "refused for good")
            assert of_a_node(port, "redrive", name) == {"queue": name, "redriven": 1}
            assert of_a_node(port, "purge", name, "--yes") == {"queue": name, "purged": 2}
            assert anywhere(cluster, "Q.LEN", name) == 0
        assert away, "four shards of one replica are not all on one node of three"
        shown = sepakat("queue", "list", "--port", str(port))
        assert shown.stdout.startswith("6 queues, 5 messages ready, 5 dead letters\n")
        missing = sepakat("queue", "inspect", "nothing", "--port", str(port))
        assert (missing.returncode, missing.stderr) == (1, "sepakat: there is no queue nothing\n")


def away_from(cluster: Cluster, node: str) -> list[str]:
    """One queue that this node does not have."""
    ring = ring_of(cluster[node])
    return [name for name in QUEUES if node not in ring.of(name).nodes][:1]


def of_a_node(port: int, *words: str) -> dict[str, Any]:
    """What a command prints for programs."""
    ended = sepakat("queue", *words, "--port", str(port), "--json")
    assert ended.returncode == 0, ended.stderr
    told: dict[str, Any] = json.loads(ended.stdout)
    return told


def anywhere(cluster: Cluster, *words: str) -> Any:
    """The reply of whatever node takes it, once one does."""
    found: list[Any] = []

    def is_taken() -> bool:
        for node in cluster.nodes.values():
            try:
                found.append(node.ask(*words))
            except ConnectionError:  # another node has it, or nobody leads yet
                continue
            return True
        return False

    cluster.wait_until(is_taken)
    return found[0]
