"""`sepakat cache` on a cluster: any node can be asked about the caches of all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.clusters import PATIENT_CACHES, Node, calm_cluster, sepakat
from tests.servers import wait_until


def of_all(node: Node, *silent: Node) -> dict[str, dict[str, Any]]:
    """What is printed for programs when this node is asked, by node, once all but some have answered it."""
    seen: dict[str, dict[str, Any]] = {}

    def answered() -> bool:
        ended = sepakat("cache", "--port", str(node.port), "--json")
        assert ended.returncode == 0, ended.stderr
        seen.update((one["node"], one) for one in json.loads(ended.stdout)["nodes"])
        return {name for name, one in seen.items() if one["stats"] is None} == {one.name for one in silent}

    wait_until(answered)
    return seen


def shown_by(node: Node) -> str:
    """What is printed for people when this node is asked."""
    ended = sepakat("cache", "--port", str(node.port))
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def counts(seen: dict[str, Any], direction: str) -> dict[str, int]:
    """How many messages of each kind a node sent, or received."""
    return {row["kind"]: row[direction] for row in seen["traffic"]}


def test_the_caches_of_all_nodes(tmp_path: Path) -> None:
    with calm_cluster(tmp_path, 3, *PATIENT_CACHES) as cluster:
        leader = cluster.wait_for_leader()
        reader, writer = cluster.others(leader)
        assert writer.raw().call("CACHE.SET", "page", "html") == b"OK"
        client = reader.raw()
        for _ in range(10):
            assert client.call("CACHE.GET", "page") == b"html"
        for node in cluster.nodes.values():
            seen = of_all(node)
            assert {name: one["stats"]["shared"] for name, one in seen.items()} == {
                leader.name: 0, reader.name: 1, writer.name: 1,
            }  # fmt: skip
            assert (seen[reader.name]["stats"]["hits"], seen[writer.name]["stats"]["write-backs"]) == (9, 1)
            [line] = seen[reader.name]["top"]
            assert (line["key"], line["state"]) == ("page", "S")
            sent, received = counts(seen[writer.name], "sent"), counts(seen[leader.name], "received")
            for kind in ("want", "write-back", "yield"):  # more of them where an answer was slow
                assert sent[kind] >= 1
                assert received[kind] >= 1
            assert counts(seen[leader.name], "sent")["grant"] >= 2
        wait_until(lambda: "no answer from" not in shown_by(leader))
        shown = shown_by(leader)
        assert shown.startswith("2 lines on 3 nodes, hit ratio ")
        assert "page" in shown
        writer.pause()
        seen = of_all(reader, writer)
        assert (seen[writer.name]["stats"], seen[writer.name]["top"]) == (None, None)
        assert seen[leader.name]["stats"] is not None
