"""`sepakat cache`: what is made of CACHE.STATS, CACHE.TRAFFIC and CACHE.TOP of every node."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from resp_server import cache_overview
from resp_server.address import Address
from resp_server.ask import AskError
from tests.unit.terminal import Run, lines


def stats(**known: Any) -> dict[str, Any]:
    """CACHE.STATS."""
    usual = {
        "lines": 0, "bytes": 0, "max-bytes": 2**28, "hits": 0, "misses": 0, "hit-ratio": 0.0, "invalidations-sent": 0,
        "invalidations-received": 0, "write-backs": 0, "evictions": 0, "modified": 0, "exclusive": 0, "shared": 0,
        "leases-lost": 0,
    }  # fmt: skip
    return usual | {key.replace("_", "-"): value for key, value in known.items()}


def line(key: str, state: str, reads: int, size_bytes: int = 300) -> dict[str, Any]:
    """A line in CACHE.TOP."""
    return {"key": key, "state": state, "reads": reads, "bytes": size_bytes}


def traffic(**kinds: tuple[int, int]) -> list[dict[str, Any]]:
    """CACHE.TRAFFIC; the kinds that are not named were never sent."""
    counts = {"want": (0, 0), "grant": (0, 0), "lost": (0, 0)} | kinds
    return [{"kind": kind, "sent": sent, "received": received} for kind, (sent, received) in counts.items()]


class Cluster:
    """Three nodes; n1 is asked first. Those in ``gone`` do not answer."""

    def __init__(self) -> None:
        self.stats = {f"n{number}": stats() for number in (1, 2, 3)}
        self.traffic = {name: traffic() for name in self.stats}
        self.top: dict[str, list[dict[str, Any]]] = {name: [] for name in self.stats}
        self.gone: set[str] = set()
        self.asked: list[tuple[str, tuple[str, ...], str]] = []

    def ask(self, where: Address, *calls: tuple[str, ...], password: str = "", timeout_s: float = 5.0) -> Any:
        """Stands in for `resp_server.ask.ask`."""
        name = f"n{where.port - 7000}" if where.port != 6379 else "n1"
        self.asked += [(name, call, password) for call in calls]
        if name in self.gone:
            raise AskError(f"{where} cannot be reached: refused")
        return [self._answer(name, *call) for call in calls]

    def _answer(self, name: str, command: str, *words: str) -> Any:
        match command:
            case "INFO":
                return f"# Sepakat\r\nnode_id:{name}\r\n"
            case "RAFT.NODES":
                return [{"id": one, "address": f"127.0.0.1:700{one[1:]}"} for one in self.stats]
            case "CACHE.STATS":
                return self.stats[name]
            case "CACHE.TRAFFIC":
                return self.traffic[name]
        assert (command, words[0]) == ("CACHE.TOP", "COUNT")
        return self.top[name][: int(words[1])]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster()
    monkeypatch.setattr(cache_overview, "ask", cluster.ask)
    return cluster


@pytest.fixture
def run(run: Run) -> Run:
    return partial(run, "cache")


HEADER = "node lines M E S bytes hits misses ratio written back evicted invalidated leases lost"
EMPTY = "0 0 0 0 0.0 KiB of 256.0 MiB 0 0 - 0 0 0 0"


def test_caches_that_nobody_uses(cluster: Cluster, run: Run) -> None:
    code, output, said = run()
    assert (code, said) == (0, "")
    assert lines(output) == [
        "0 lines on 3 nodes, hit ratio -",
        HEADER,
        *(f"n{number} {EMPTY}" for number in (1, 2, 3)),
    ]


def test_all_that_is_shown(cluster: Cluster, run: Run) -> None:
    cluster.stats["n1"] = stats(lines=3, modified=1, exclusive=2, bytes=5 * 2**20, hits=90, misses=10, write_backs=4)
    cluster.stats["n2"] = stats(lines=1, shared=1, bytes=2048, hits=9, misses=1, evictions=5, leases_lost=1)
    cluster.stats["n3"] = stats(lines=1, shared=1, bytes=100, invalidations_received=7)
    cluster.traffic["n1"] = traffic(want=(0, 5), grant=(5, 0))
    cluster.traffic["n2"] = traffic(want=(5, 0), grant=(0, 4))
    cluster.top = {
        "n1": [line("a", "E", 50), line("only", "M", 40, 900)],
        "n2": [line("b\n", "S", 9)],
        "n3": [line("b\n", "S", 60, 310)],
    }
    code, output, said = run("--port", "7001")
    assert (code, said) == (0, "")
    assert lines(output) == [
        "5 lines on 3 nodes, hit ratio 90.0 %",
        HEADER,
        "n1 3 1 2 0 5.0 MiB of 256.0 MiB 90 10 90.0 % 4 0 0 0",
        "n2 1 0 0 1 2.0 KiB of 256.0 MiB 9 1 90.0 % 0 5 0 1",
        "n3 1 0 0 1 0.1 KiB of 256.0 MiB 0 0 - 0 0 7 0",
        "messages, sent / received n1 n2 n3",
        "want 0 / 5 5 / 0 0 / 0",
        "grant 5 / 0 0 / 4 0 / 0",
        "most read where reads bytes",
        "b\\n n2 S, n3 S 69 310",
        "a n1 E 50 300",
        "only n1 M 40 900",
    ]


def test_how_many_lines_are_shown(cluster: Cluster, run: Run) -> None:
    cluster.top["n1"] = [line(f"k{number:02}", "E", 100 - number) for number in range(30)]
    assert "k09" in run()[1]
    assert "k10" not in run()[1]
    output = run("--top", "12")[1]
    assert "k11" in output
    assert "k12" not in output
    assert len(json.loads(run("--top", "12", "--json")[1])["nodes"][0]["top"]) == 12
    for number in ("0", "10001", "x"):
        assert run("--top", number)[0] == 2


def test_for_programs(cluster: Cluster, run: Run) -> None:
    cluster.gone = {"n3"}
    cluster.top["n2"] = [line("k", "S", 3)]
    code, output, said = run("--json")
    assert (code, said) == (0, "")
    [first, second, third] = json.loads(output)["nodes"]
    assert first == {
        "node": "n1", "address": "127.0.0.1:7001", "stats": stats(), "traffic": traffic(), "top": [],
    }  # fmt: skip
    assert second["top"] == [line("k", "S", 3)]
    assert third == {"node": "n3", "address": "127.0.0.1:7003", "stats": None, "traffic": None, "top": None}


def test_a_node_that_does_not_answer_has_dashes(cluster: Cluster, run: Run) -> None:
    cluster.gone = {"n2"}
    cluster.traffic["n1"] = traffic(want=(1, 2))
    code, output, said = run()
    assert (code, said) == (0, "")
    assert lines(output) == [
        "0 lines on 2 nodes, hit ratio -",
        HEADER,
        f"n1 {EMPTY}",
        "n2" + 12 * " -",
        f"n3 {EMPTY}",
        "no answer from n2",
        "messages, sent / received n1 n3",
        "want 1 / 2 0 / 0",
    ]


def test_the_node_that_is_asked_must_answer(cluster: Cluster, run: Run) -> None:
    cluster.gone = {"n2"}
    code, output, said = run("--port", "7002")
    assert (code, output) == (1, "")
    assert said == "sepakat: 127.0.0.1:7002 cannot be reached: refused\n"


def test_everybody_is_asked_with_the_password(cluster: Cluster, run: Run) -> None:
    run("--password", "secret")
    assert {password for _, _, password in cluster.asked} == {"secret"}
    assert {name for name, _, _ in cluster.asked} == {"n1", "n2", "n3"}
