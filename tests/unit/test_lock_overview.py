"""`sepakat locks`: what is made of LOCK.SCAN, LOCK.INFO and LOCK.GRAPH."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from cluster.machine.glob import matcher
from resp_server import ask, lock_overview
from resp_server.address import Address
from resp_server.ask import AskError
from tests.unit.terminal import Run, lines


def hold(owner: str, **known: Any) -> dict[str, Any]:
    """A holder in LOCK.INFO."""
    usual = {"owner": owner, "mode": "exclusive", "holds": 1, "token": 7, "ttl-ms": 4200, "session": 0}
    return usual | {key.replace("_", "-"): value for key, value in known.items()}


def lock(holders: list[dict[str, Any]], *waiters: str) -> dict[str, Any]:
    """LOCK.INFO."""
    return {
        "mode": holders[0]["mode"] if holders else "free",
        "token": 7,
        "holders": holders,
        "waiters": [{"owner": owner, "mode": "exclusive", "waited-ms": 3100} for owner in waiters],
    }


class Node:
    """Locks, and what is asked of them; a page of LOCK.SCAN has two keys, and the next one the last of them again."""

    def __init__(self) -> None:
        self.locks: dict[str, dict[str, Any]] = {}
        self.graph: dict[str, Any] | None = None
        self.moved: set[str] = set()
        self.overwritten: set[str] = set()
        self.asked: list[tuple[str | bytes, ...]] = []

    def ask(self, where: Address, *calls: tuple[str | bytes, ...], password: str = "", timeout_s: float = 5.0) -> Any:
        """Stands in for `resp_server.ask.ask`."""
        self.asked += calls
        return [self._answer(where, *call) for call in calls]

    def _answer(self, where: Address, name: str | bytes, *words: str | bytes) -> Any:
        match name:
            case "LOCK.SCAN":
                assert isinstance(words[0], str)
                assert isinstance(words[2], bytes)
                first, keys, wanted = int(words[0]), list(self.locks), matcher(words[2])
                last = first + 2 >= len(keys)
                found = [key for key in keys[max(0, first - 1) : first + 2] if wanted(as_bytes(key))]
                return ["0" if last else str(first + 2), found]
            case "LOCK.INFO":
                key = next(one for one in self.locks if as_bytes(one) == words[0])
                if key in self.moved and where.port == 6379:
                    raise AskError(f"{where} answers: MOVED 7 127.0.0.1:7002", "MOVED")
                if key in self.overwritten:
                    raise AskError(f"{where} answers: WRONGTYPE it is not", "WRONGTYPE")
                return self.locks[key]
            case "LOCK.GRAPH":
                return self.graph
        assert (name, *words) == ("COMMAND", "INFO", "LOCK.GRAPH")
        return [None if self.graph is None else ["lock.graph", 1]]


def as_bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    node = Node()
    for module in (lock_overview, ask):
        monkeypatch.setattr(module, "ask", node.ask)
    return node


@pytest.fixture
def run(run: Run) -> Run:
    return partial(run, "locks")


def test_nothing_is_locked(node: Node, run: Run) -> None:
    assert run() == (0, "0 locks, 0 waiters\n", "")


def test_holders_and_who_waits_for_them(node: Node, run: Run) -> None:
    node.locks = {
        "a": lock([hold("ann", token=3)]),
        "b": lock([hold("bob", holds=2, session=1, ttl_ms=-1)], "cid", "dan"),
        "c": lock([hold("eve", mode="shared"), hold("fay", mode="shared", ttl_ms=700_000)], "bob"),
    }
    code, output, said = run()
    assert (code, said) == (0, "")
    assert lines(output) == [
        "3 locks, 3 waiters",
        "lock mode held by token ends in waiting",
        "b exclusive bob (2 times) 7 its connection 2",
        "c shared eve 7 4.2 s 1",
        "fay 7 11 min",
        "a exclusive ann 3 4.2 s",
        "eve",
        "└── bob waits for c, exclusive, for 3.1 s, held by 1 more",
        "├── cid waits for b, exclusive, for 3.1 s",
        "└── dan waits for b, exclusive, for 3.1 s",
    ]
    shown = [line.strip() for line in output.splitlines() if line.strip()]
    assert shown[2] == "─" * len(shown[2])


def test_who_waits_for_whom_is_asked_where_it_can_be(node: Node, run: Run) -> None:
    """It knows of a lock that is free, and kept for one who waits for several."""
    node.locks = {"a": lock([hold("ann")], "bob"), "kept": lock([], "cid")}
    node.graph = {
        "edges": [
            {"waiter": "bob", "holder": "ann", "key": "a"},
            {"waiter": "cid", "holder": "bob", "key": "kept"},
        ],
        "deadlocks": 2,
        "last": {"cycle": "x waits for y held by x", "victim": "x", "key": "y", "time-ms": 1},
    }
    code, output, _ = run()
    assert code == 0
    assert lines(output)[:2] == [
        "2 locks, 2 waiters; 2 deadlocks broken so far",
        "the last deadlock: x waits for y held by x",
    ]
    assert "kept free - 7 - 1" in lines(output)
    assert lines(output)[-3:] == [
        "ann",
        "└── bob waits for a, exclusive, for 3.1 s",
        "└── cid waits for kept, exclusive, for 3.1 s",
    ]
    assert "cid" not in run("--match", "a")[1]


def test_a_circle_is_shown(node: Node, run: Run) -> None:
    node.locks = {
        "a": lock([hold("ann")], "bob"),
        "b": lock([hold("bob")], "ann"),
        "c": lock([hold("ann")], "eve"),
    }
    code, output, _ = run()
    assert code == 0
    shown = " ".join(lines(output))
    assert "a circle was seen: bob waits for a held by ann, ann waits for b held by bob" in shown
    assert shown.count("eve waits for c") == 1


def test_an_owner_that_waits_for_itself_is_no_circle(node: Node, run: Run) -> None:
    node.locks = {"a": lock([hold("ann", mode="shared"), hold("bob", mode="shared")], "ann")}
    assert lines(run()[1])[-2:] == ["bob", "└── ann waits for a, exclusive, for 3.1 s"]


def test_json_has_everything(node: Node, run: Run) -> None:
    node.locks = {"a": lock([hold("ann")], "bob"), "b": lock([hold("ann", mode="shared")])}
    code, output, _ = run("--json")
    assert code == 0
    assert json.loads(output) == {
        "locks": [{"key": "a", **node.locks["a"]}, {"key": "b", **node.locks["b"]}],
        "edges": [{"waiter": "bob", "holder": "ann", "key": "a"}],
        "deadlocks": None,
        "last": None,
        "complete": True,
    }


def test_locks_can_be_chosen(node: Node, run: Run) -> None:
    node.locks = {name: lock([hold("ann")]) for name in ("job:1", "job:2", "other", "job:3", "another")}
    keys = [one["key"] for one in json.loads(run("--json", "--match", "job:*")[1])["locks"]]
    assert keys == ["job:1", "job:2", "job:3"]


def test_no_more_is_asked_than_is_wanted(node: Node, run: Run) -> None:
    node.locks = {f"job:{number}": lock([hold("ann")]) for number in range(250)}
    told = json.loads(run("--json", "--limit", "201")[1])
    assert (len(told["locks"]), told["complete"]) == (201, False)
    assert sum(call[0] == "LOCK.INFO" for call in node.asked) == 201
    assert "there are more: choose with --match, or raise --limit" in run("--limit", "7")[1]
    assert run("--limit", "250")[1].count("job:") == lock_overview.LOCKS_SHOWN_MAX
    assert "150 more" in run()[1]


def test_what_is_printed_is_bounded(node: Node, run: Run) -> None:
    node.locks = {
        "many": lock([hold("ann")], *(f"w{number}" for number in range(1000))),
        "shared": lock([hold(f"h{number}", mode="shared") for number in range(1000)], "z1", "z2"),
    } | {f"chain{number}": lock([hold(f"c{number}")], f"c{number + 1}") for number in range(500)}
    code, output, _ = run()
    assert code == 0
    assert len(output.splitlines()) < lock_overview.LOCKS_SHOWN_MAX + lock_overview.WAITS_SHOWN_MAX + 50
    assert "1402 waits more: --json shows all" in output
    assert "and 990 more" in output


def test_a_lock_of_another_node_is_asked_there(node: Node, run: Run) -> None:
    node.locks = {"a": lock([hold("ann")]), "b": lock([hold("bob")]), "c": lock([hold("cid")])}
    node.moved, node.overwritten = {"b"}, {"c"}
    assert [one["key"] for one in json.loads(run("--json")[1])["locks"]] == ["a", "b"]


def test_names_that_are_no_text(node: Node, run: Run) -> None:
    node.locks = {"\udcff\x1b[2J[bold]": lock([hold("a\nn")], "\udcfe")}
    code, output, _ = run()
    assert code == 0
    assert "\\xff\\x1b[2J[bold]" in output
    assert "a\\nn" in output
    assert "\\xfe waits for \\xff" in output
    [one] = json.loads(run("--json")[1])["locks"]
    assert one["key"] == "\udcff\x1b[2J[bold]"


def test_what_goes_wrong_is_one_line(node: Node, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(where: Address, *calls: tuple[str, ...], password: str = "") -> Any:
        raise AskError(f"{where} cannot be reached: Connection refused")

    monkeypatch.setattr(lock_overview, "ask", refuse)
    assert run() == (1, "", "sepakat: 127.0.0.1:6379 cannot be reached: Connection refused\n")
