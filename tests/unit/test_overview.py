"""`sepakat status`, `remove`, `transfer` and `rebalance`: what is made of the nodes' answers."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from resp_server import cli, draining, overview
from resp_server.address import Address
from resp_server.ask import AskError
from tests.unit.terminal import Run

PORTS = {"n1": 7001, "n2": 7002, "n3": 7003}


def node(name: str, **known: Any) -> dict[str, Any]:
    """A node in RAFT.NODES."""
    usual = {
        "id": name, "address": f"127.0.0.1:{PORTS[name]}", "zone": "", "state": "up", "reachable": 1,
        "leads": 1, "replicas": 2, "last-contact-ms": 12, "round-trip-us": 310,
    }  # fmt: skip
    return usual | {key.replace("_", "-"): value for key, value in known.items()}


def row(number: int, slots: list[int], nodes: str, leader: str | None, moving: str = "") -> dict[str, Any]:
    """A shard in RAFT.RING; nodes are given in one text."""
    names = nodes.split()
    return {
        "shard": number, "slots": [slots], "nodes": names, "leader": leader, "preferred": names[0],
        "moving": moving.split(),
    }  # fmt: skip


def replica(number: int, leader: str, role: str, **lags: int | None) -> dict[str, Any]:
    """A shard in RAFT.INFO, with how far other nodes are behind; those without a replica are among them."""
    peers = [{"id": name, "role": "follower", "lag": lag} for name, lag in lags.items()]
    peers += [{"id": name, "role": "none", "lag": None} for name in PORTS if name not in lags]
    return {"shard": number, "leader": leader, "term": 5, "role": role, "last-index": 10, "peers": peers}


class Cluster:
    """Three nodes of two shards, which n1 and n2 lead: what each of them answers, and what they are asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, tuple[str, ...], str]] = []  # port, call, password
        self.nodes = [node("n1"), node("n2"), node("n3", leads=0)]
        self.ring = [row(0, [0, 8191], "n1 n2", "n1", "n3"), row(1, [8192, 16383], "n2 n3", "n2")]
        self.replicas = {
            7001: [replica(0, "n1", "leader", n2=0, n3=4)],
            7002: [replica(0, "n1", "follower", n3=None), replica(1, "n2", "leader", n3=2)],
            7003: [replica(1, "n2", "follower")],
        }
        self.gone: set[int] = set()  # ports
        self.rebalancing: dict[str, Any] = {"paused": 0, "moving": [0], "leaving": [], "lost": []}
        self.system_leader = "n2"
        self.refusals: list[str] = []  # what CLUSTER FORGET answers before it is OK

    def ask(self, where: Address, *calls: tuple[str, ...], password: str = "", timeout_s: float = 5.0) -> list[Any]:
        """Stands in for `resp_server.ask.ask`."""
        self.asked += [(where.port, call, password) for call in calls]
        if where.port in self.gone or where.port not in self.replicas:
            raise AskError(f"{where} cannot be reached: Connection refused")
        return [self._answer(where, call) for call in calls]

    def _answer(self, where: Address, call: tuple[str, ...]) -> Any:
        name = next(name for name, port in PORTS.items() if port == where.port)
        if call[:2] == ("CLUSTER", "FORGET") and self.refusals:
            refusal = self.refusals.pop(0)
            raise AskError(f"{where} answers: {refusal}", refusal.split()[0])
        return {
            (
                "INFO",
                "sepakat",
            ): f"# Sepakat\r\nnode_id:{name}\r\ncluster_id:c1\r\nsystem_leader:{self.system_leader}\r\n",
            ("RAFT.NODES",): self.nodes,
            ("RAFT.RING",): self.ring,
            ("RAFT.INFO",): self.replicas[where.port],
            ("RAFT.REBALANCE",): self.rebalancing,
        }.get(call, "OK")


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    nodes = Cluster()
    for module in (overview, cli, draining):
        monkeypatch.setattr(module, "ask", nodes.ask)
    monkeypatch.delenv("SEPAKAT_REQUIREPASS", raising=False)
    return nodes


def tables(output: str) -> dict[str, list[str]]:
    """The rows of both tables, by node or number of the shard."""
    lines = [line.split() for line in output.splitlines()]
    return {words[0]: words[1:] for words in lines if len(words) > 1 and re.match("n?[0-9]+ [0-9]", " ".join(words))}


def only_one_shard(nodes: Cluster) -> None:
    nodes.ring = [row(0, [0, 16383], "n1 n2 n3", "n1")]
    nodes.replicas = {7001: [replica(0, "n1", "leader", n2=0, n3=3)], 7002: [], 7003: []}


# status


def test_status_shows_the_nodes_and_the_shards(nodes: Cluster, run: Run) -> None:
    nodes.nodes[2] |= {"zone": "z1", "reachable": 0, "last-contact-ms": 75_000, "round-trip-us": None}
    code, output, _ = run("status", "--port", "7001")
    assert code == 0
    assert output.splitlines()[:2] == ["cluster c1: 2 shards, led by 2 of 3 nodes", "1 of 2 shards are moving"]
    assert tables(output) == {
        "n1": ["127.0.0.1:7001", "-", "up", "1", "2", "0"],
        "n2": ["127.0.0.1:7002", "-", "up", "1", "2", "0", "12", "ms", "0.31", "ms"],
        "n3": ["127.0.0.1:7003", "z1", "unreachable", "0", "2", "6", "75", "s"],
        "0": ["0-8191", "n1*", "n2", "+n3:", "4", "entries", "behind"],
        "1": ["8192-16383", "n2*", "n3"],
    }


@pytest.mark.parametrize(
    ("lag", "told"),
    [(10, "+n3: its keys are being sent"), (None, "+n3"), (0, "+n3: 0 entries behind")],
)
def test_how_far_a_newcomer_is_is_what_the_leader_says(lag: int | None, told: str, nodes: Cluster, run: Run) -> None:
    nodes.replicas[7001] = [replica(0, "n1", "leader", n2=0, n3=lag)]
    _, output, _ = run("status", "--port", "7002")
    assert tables(output)["0"] == ["0-8191", "n1*", "n2", *told.split()]


def test_who_goes_is_told_apart_from_who_comes(nodes: Cluster, run: Run) -> None:
    nodes.ring[0] = row(0, [0, 8191], "n1 n2", "n1", "n3 n2")
    assert tables(run("status", "--port", "7001")[1])["0"][-1] == "-n2"


def test_a_leader_that_does_not_answer_leaves_its_numbers_unknown(nodes: Cluster, run: Run) -> None:
    nodes.gone.add(7002)
    code, output, _ = run("status", "--port", "7001", "--json")
    told = json.loads(output)
    assert code == 0, "n1 hears of n2 that it leads"
    assert (told["shards"][1]["leader"], told["shards"][1]["term"], told["shards"][1]["behind"]) == ("n2", None, {})


def test_status_for_programs(nodes: Cluster, run: Run) -> None:
    code, output, _ = run("status", "--port", "7001", "--json")
    told = json.loads(output)
    assert code == 0
    assert {name: told[name] for name in told if name not in ("nodes", "shards")} == {
        "cluster": "c1", "asked": "n1", "serves": True, "leader": None, "system-leader": "n2", "paused": False,
    }  # fmt: skip
    assert told["nodes"][2] == {
        "id": "n3", "address": "127.0.0.1:7003", "zone": "", "state": "up", "reachable": True, "leads": 0,
        "replicas": 2, "behind": 6, "last-contact-ms": 12, "round-trip-us": 310,
    }  # fmt: skip
    assert told["shards"][0] == {
        "shard": 0, "slots": [[0, 8191]], "nodes": ["n1", "n2"], "leader": "n1", "preferred": "n1", "moving": ["n3"],
        "term": 5, "last-index": 10, "behind": {"n2": 0, "n3": 4},
    }  # fmt: skip


def test_one_shard_needs_no_table_of_shards(nodes: Cluster, run: Run) -> None:
    only_one_shard(nodes)
    code, output, _ = run("status", "--port", "7002")
    assert code == 0
    assert output.startswith("cluster c1: n1 leads in term 5\n")
    assert set(tables(output)) == {"n1", "n2", "n3"}
    assert json.loads(run("status", "--port", "7002", "--json")[1])["leader"] == "n1"


def test_of_many_shards_those_in_their_places_are_only_counted(nodes: Cluster, run: Run) -> None:
    moving = row(0, [0, 99], "n1 n2", "n1", "n3")
    nodes.ring = [moving, *(row(number, [number * 100, number * 100 + 99], "n1 n2", "n1") for number in range(1, 100))]
    _, output, _ = run("status", "--port", "7001")
    assert set(tables(output)) == {*PORTS, "0"}
    assert "99 shards are in their places: --shards shows them" in output
    _, output, _ = run("status", "--port", "7001", "--shards")
    assert set(tables(output)) == {*PORTS, *map(str, range(100))}


def test_shards_without_a_leader_are_named_and_exit_1(nodes: Cluster, run: Run) -> None:
    nodes.ring[1]["leader"] = None
    code, output, _ = run("status", "--port", "7001")
    assert code == 1
    assert output.startswith("cluster c1: 1 of 2 shards have no leader (1). Nothing of that is read or written until")
    only_one_shard(nodes)
    nodes.ring[0]["leader"] = None
    code, output, _ = run("status", "--port", "7001")
    assert code == 1
    assert output.startswith("cluster c1: no leader. Nothing of that is read or written until a majority")


def test_a_cluster_that_cannot_agree_on_itself_says_so_and_serves(nodes: Cluster, run: Run) -> None:
    nodes.system_leader = ""
    code, output, _ = run("status", "--port", "7001")
    assert code == 0
    assert "nobody can join or leave" in output


def test_a_pause_is_said(nodes: Cluster, run: Run) -> None:
    nodes.rebalancing["paused"] = 1
    told = "1 of 2 shards are moving: rebalancing is paused, sepakat rebalance --resume ends that"
    assert told in run("status", "--port", "7001")[1].splitlines()
    nodes.ring[0]["moving"] = []
    assert "nothing moves: rebalancing is paused" in run("status", "--port", "7001")[1]


def test_a_node_that_was_removed_says_so(nodes: Cluster, run: Run) -> None:
    nodes.nodes[0]["state"] = "removed"
    code, output, _ = run("status", "--port", "7001")
    assert code == 1
    assert output.startswith("cluster c1: n1 is no member of it any more\n")


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


# remove


def test_remove_asks_the_node_it_is_given(nodes: Cluster, run: Run) -> None:
    assert run("remove", "n3", "--port", "7002") == (0, "n3 is removed\n", "")
    assert nodes.asked == [(7002, ("CLUSTER", "FORGET", "n3"), "")]


def test_remove_asks_until_no_shard_is_left(nodes: Cluster, run: Run) -> None:
    nodes.refusals = [f"TRYAGAIN n3 is being drained: {left} shards are left" for left in (2, 1)]
    nodes.nodes[2]["state"] = "leaving"
    assert run("remove", "n3", "--port", "7001") == (0, "n3 is removed\n", "")
    assert [call for _, call, _ in nodes.asked].count(("CLUSTER", "FORGET", "n3")) == 3


def test_a_node_that_went_in_the_last_moment_is_removed(nodes: Cluster, run: Run) -> None:
    nodes.refusals = ["TRYAGAIN n3 is being drained: 1 shards are left", "ERR Unknown node n3"]
    nodes.nodes.pop()
    assert run("remove", "n3", "--port", "7001") == (0, "n3 is removed\n", "")


def test_a_node_that_cannot_be_removed_is_one_line_and_exit_1(nodes: Cluster, run: Run) -> None:
    nodes.refusals = ["TRYAGAIN n3 is being drained: 2 shards are left", "UNCERTAIN the cluster did not agree"]
    nodes.nodes[2]["state"] = "leaving"
    code, output, errors = run("remove", "n3", "--port", "7001")
    assert (code, output) == (1, "")
    assert errors == "sepakat: 127.0.0.1:7001 answers: UNCERTAIN the cluster did not agree\n"


def test_a_cluster_that_does_not_agree_is_not_waited_for(nodes: Cluster, run: Run) -> None:
    nodes.refusals = ["TRYAGAIN n3 is being drained: 2 shards are left"] * 2
    code, output, errors = run("remove", "n3", "--port", "7001")
    assert (code, output) == (1, "")
    assert errors == "sepakat: the cluster did not agree to remove n3: see sepakat status, and try again\n"


def test_a_pause_is_not_waited_for(nodes: Cluster, run: Run) -> None:
    nodes.refusals = ["TRYAGAIN n3 is being drained: 2 shards are left"] * 2
    nodes.nodes[2]["state"] = "leaving"
    nodes.rebalancing["paused"] = 1
    code, output, errors = run("remove", "n3", "--port", "7001")
    assert (code, output) == (1, "")
    assert errors.startswith("sepakat: n3 keeps its shards while rebalancing is paused: sepakat rebalance --resume,")


# transfer


@pytest.mark.parametrize("name", PORTS)
def test_transfer_asks_the_node_that_is_to_lead(name: str, nodes: Cluster, run: Run) -> None:
    assert run("transfer", name, "--port", "7001") == (0, f"{name} leads\n", "")
    assert nodes.asked[-1] == (PORTS[name], ("CLUSTER", "FAILOVER"), "")


def test_transfer_of_one_shard(nodes: Cluster, run: Run) -> None:
    assert run("transfer", "n3", "--shard", "1", "--port", "7001") == (0, "n3 leads shard 1\n", "")
    assert nodes.asked[-1] == (7003, ("CLUSTER", "FAILOVER", "1"), "")


def test_a_node_alone_knows_no_address_and_is_asked_where_it_was_found(nodes: Cluster, run: Run) -> None:
    nodes.nodes = [node("n1", address="")]
    assert run("transfer", "n1", "--port", "7001") == (0, "n1 leads\n", "")
    assert nodes.asked[-1] == (7001, ("CLUSTER", "FAILOVER"), "")


def test_transfer_to_nobody_is_one_clear_line(nodes: Cluster, run: Run) -> None:
    assert run("transfer", "n9", "--port", "7001") == (1, "", "sepakat: n9 is no node of this cluster\n")


# rebalance


@pytest.mark.parametrize(("flag", "word"), [("--pause", "PAUSE"), ("--resume", "RESUME")])
def test_rebalancing_is_paused_and_resumed(flag: str, word: str, nodes: Cluster, run: Run) -> None:
    code, output, _ = run("rebalance", flag, "--port", "7001")
    assert (code, output) == (0, "rebalancing is on; shards on their way: 0\n")
    assert nodes.asked == [(7001, ("RAFT.REBALANCE", word), ""), (7001, ("RAFT.REBALANCE",), "")]


@pytest.mark.parametrize("flags", [(), ("--status",)])
def test_what_is_moving_is_told(flags: tuple[str, ...], nodes: Cluster, run: Run) -> None:
    nodes.rebalancing = {"paused": 1, "moving": [], "leaving": ["n2"], "lost": ["n3"]}
    code, output, _ = run("rebalance", *flags, "--port", "7001")
    assert code == 0
    assert output.splitlines() == [
        "rebalancing is paused; shards on their way: none", "being drained: n2", "taken for lost: n3",
    ]  # fmt: skip
    assert nodes.asked == [(7001, ("RAFT.REBALANCE",), "")]
