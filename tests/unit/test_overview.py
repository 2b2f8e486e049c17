"""`sepakat status`, `remove` and `transfer`: what is made of the nodes' answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from resp_server import cli, overview
from resp_server.address import Address
from resp_server.ask import AskError

Run = Callable[..., tuple[Any, str, str]]
"""Runs ``sepakat words``: exit code, standard output, standard error."""


def peer(name: str, port: int, role: str = "follower", **known: Any) -> dict[str, Any]:
    """A node in another's RAFT.INFO; nothing is known unless given."""
    unknown = {"last-contact-ms": None, "round-trip-us": None, "match": None, "lag": None}
    heard = {"id": name, "address": f"127.0.0.1:{port}", "role": role, "state": "reachable"}
    return heard | unknown | {key.replace("_", "-"): value for key, value in known.items()}


class Cluster:
    """Nodes by port; each has a name and its RAFT.INFO, and a cluster of n1, n2, n3 is there to begin with."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, tuple[str, ...], str]] = []  # port, call, password
        n1, n2 = peer("n1", 7001, "leader"), peer("n2", 7002, last_contact_ms=12, round_trip_us=310, match=9, lag=1)
        n3 = peer("n3", 7003, state="unreachable", last_contact_ms=75_000, lag=10)
        self.nodes = {
            7001: ("n1", self.info("n1", "leader", 10, [n2, n3])),
            7002: ("n2", self.info("n1", "follower", 9, [n1, n3])),
        }

    @staticmethod
    def info(leader: str | None, role: str, last_index: int, peers: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "shard": 0, "leader": leader, "term": 5, "role": role, "commit": 8, "applied": 7,
            "last-index": last_index, "members": ["n1", "n2", "n3"], "learners": [], "peers": peers,
        }  # fmt: skip

    def ask(self, where: Address, *calls: tuple[str, ...], password: str = "", timeout_s: float = 5.0) -> list[Any]:
        """Stands in for `resp_server.ask.ask`."""
        self.asked += [(where.port, call, password) for call in calls]
        if where.port not in self.nodes:
            raise AskError(f"{where} cannot be reached: Connection refused")
        name, told = self.nodes[where.port]
        text = f"# Sepakat\r\nnode_id:{name}\r\ncluster_id:c1\r\nnode_address:127.0.0.1:{where.port}\r\n"
        return [text if call[0] == "INFO" else [told] if call[0] == "RAFT.INFO" else "OK" for call in calls]


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    nodes = Cluster()
    monkeypatch.setattr(overview, "ask", nodes.ask)
    monkeypatch.setattr(cli, "ask", nodes.ask)
    monkeypatch.delenv("SEPAKAT_REQUIREPASS", raising=False)
    return nodes


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["sepakat", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err

    return run


def table(output: str) -> dict[str, list[str]]:
    """The rows of the table, by node."""
    lines = [line.split() for line in output.splitlines()]
    return {words[0]: words[1:] for words in lines if words and words[0][0] == "n" and words[0][1:].isdigit()}


def test_status_shows_each_node_as_it_is_seen_and_as_it_tells(nodes: Cluster, run: Run) -> None:
    code, output, _ = run("status", "--port", "7001")
    assert code == 0
    assert output.startswith("cluster c1: n1 leads in term 5\n")
    assert table(output) == {
        "n1": ["127.0.0.1:7001", "leader", "reachable", "5", "8", "7", "10", "0"],
        "n2": ["127.0.0.1:7002", "follower", "reachable", "5", "8", "7", "9", "1", "12", "ms", "0.31", "ms"],
        "n3": ["127.0.0.1:7003", "follower", "unreachable", "-", "-", "-", "-", "10", "75", "s"],
    }


def test_status_of_a_follower_has_the_leader_s_lead_over_it(nodes: Cluster, run: Run) -> None:
    code, output, _ = run("status", "--port", "7002")
    assert code == 0
    assert table(output)["n2"] == ["127.0.0.1:7002", "follower", "reachable", "5", "8", "7", "9", "1"]
    assert table(output)["n1"][-1] == "never"  # it was asked itself, but n2 has not heard from it


def test_status_for_programs(nodes: Cluster, run: Run) -> None:
    code, output, _ = run("status", "--port", "7001", "--json")
    told = json.loads(output)
    assert (code, told["cluster"], told["asked"], told["leader"]) == (0, "c1", "n1", "n1")
    assert told["nodes"][1:] == [
        {
            "id": "n2", "address": "127.0.0.1:7002", "role": "follower", "state": "reachable", "term": 5, "commit": 8,
            "applied": 7, "last-index": 9, "lag": 1, "last-contact-ms": 12, "round-trip-us": 310,
        },
        {
            "id": "n3", "address": "127.0.0.1:7003", "role": "follower", "state": "unreachable", "term": None,
            "commit": None, "applied": None, "last-index": None, "lag": 10, "last-contact-ms": 75_000,
            "round-trip-us": None,
        },
    ]  # fmt: skip


def test_no_leader_is_said_plainly(nodes: Cluster, run: Run) -> None:
    nodes.nodes = {7001: ("n1", Cluster.info(None, "candidate", 10, [peer("n2", 7002, state="unreachable")]))}
    code, output, _ = run("status", "--port", "7001")
    assert code == 1
    assert output.startswith("cluster c1: no leader. Nothing is read or written until a majority")


def test_a_leader_that_the_node_does_not_hear_is_named(nodes: Cluster, run: Run) -> None:
    nodes.nodes[7002] = ("n2", Cluster.info(None, "follower", 9, [peer("n1", 7001, state="unreachable")]))
    code, output, _ = run("status", "--port", "7002")
    assert code == 1
    assert output.startswith("cluster c1: no leader that n2 hears, though n1 leads in term 5\n")


def test_a_node_that_was_removed_says_so(nodes: Cluster, run: Run) -> None:
    nodes.nodes[7003] = ("n3", Cluster.info(None, "removed", 9, [peer("n1", 7001, state="unreachable")]))
    code, output, _ = run("status", "--port", "7003")
    assert code == 1
    assert output.startswith("cluster c1: n3 is no member of it any more\n")


def test_nobody_there_is_one_line_and_exit_1(nodes: Cluster, run: Run) -> None:
    assert run("status", "--port", "7009") == (1, "", "sepakat: 127.0.0.1:7009 cannot be reached: Connection refused\n")


def test_the_password_goes_to_every_node(nodes: Cluster, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPAKAT_REQUIREPASS", "hunter2")
    run("status", "--port", "7001")
    assert {(port, password) for port, _, password in nodes.asked} == {
        (7001, "hunter2"), (7002, "hunter2"), (7003, "hunter2"),
    }  # fmt: skip
    nodes.asked.clear()
    run("status", "--port", "7001", "--password", "other")
    assert {password for _, _, password in nodes.asked} == {"other"}


def test_remove_asks_the_node_it_is_given(nodes: Cluster, run: Run) -> None:
    assert run("remove", "n3", "--port", "7002") == (0, "n3 is removed\n", "")
    assert nodes.asked == [(7002, ("CLUSTER", "FORGET", "n3"), "")]


@pytest.mark.parametrize(("node", "port"), [("n1", 7001), ("n2", 7002)])
def test_transfer_asks_the_node_that_is_to_lead(node: str, port: int, nodes: Cluster, run: Run) -> None:
    assert run("transfer", node, "--port", "7001") == (0, f"{node} leads\n", "")
    assert nodes.asked[-1] == (port, ("CLUSTER", "FAILOVER"), "")


def test_transfer_to_nobody_is_one_clear_line(nodes: Cluster, run: Run) -> None:
    assert run("transfer", "n9", "--port", "7001") == (1, "", "sepakat: n9 is no node of this cluster\n")
