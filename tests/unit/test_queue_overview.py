"""`sepakat queue`: what is made of Q.LIST, Q.INFO, Q.PEEK, Q.DEAD, Q.REDRIVE and Q.PURGE."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any

import click
import pytest

from cluster.machine.glob import matcher
from resp_server import ask, queue_overview
from resp_server.address import Address
from resp_server.ask import AskError
from resp_server.cli_queues import queue
from tests.unit.terminal import Run, lines


def info(**known: Any) -> dict[str, Any]:
    """Q.INFO."""
    usual = {
        "ready": 0, "delayed": 0, "in-flight": 0, "dead": 0, "pushed": 0, "acked": 0, "redelivered": 0, "expired": 0,
        "oldest-ms": 0, "consumers": 0, "nodes": 1, "partitions": 1, "visibility": 30000, "maxdeliveries": 16,
        "backoff": [100, 60000], "dlq": None, "maxlen": 0, "px": 0, "dedup": 300000,
    }  # fmt: skip
    return usual | {key.replace("_", "-"): value for key, value in known.items()}


class Node:
    """Queues, and what is asked of them; those of another node are answered there only."""

    def __init__(self) -> None:
        self.queues: dict[str, dict[str, Any]] = {}
        self.messages: list[Any] = []
        self.moved: set[str] = set()
        self.overwritten: set[str] = set()
        self.gone: set[str] = set()
        self.asked: list[tuple[str | bytes, ...]] = []

    def ask(self, where: Address, *calls: tuple[str | bytes, ...], password: str = "", timeout_s: float = 5.0) -> Any:
        """Stands in for `resp_server.ask.ask`."""
        self.asked += calls
        return [self._answer(where, *call) for call in calls]

    def _answer(self, where: Address, command: str | bytes, *words: str | bytes) -> Any:
        if command == "Q.LIST":
            assert isinstance(words[1], bytes)
            wanted = matcher(words[1])
            return [name for name in sorted(self.queues) if wanted(as_bytes(name))]
        name = next((one for one in self.queues if as_bytes(one) == words[0]), None)
        if name in self.moved and where.port == 6379:
            raise AskError(f"{where} answers: MOVED 7 127.0.0.1:7002", "MOVED")
        if name in self.overwritten:
            raise AskError(f"{where} answers: WRONGTYPE it is not", "WRONGTYPE")
        exists = name is not None and name not in self.gone
        match command:
            case "Q.INFO":
                return self.queues[name] if exists and name is not None else None
            case "Q.PEEK" | "Q.DEAD":
                return self.messages if exists else None
        return 3 if exists else 0


def as_bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    node = Node()
    for module in (queue_overview, ask):
        monkeypatch.setattr(module, "ask", node.ask)
    return node


@pytest.fixture
def run(run: Run) -> Run:
    return partial(run, "queue")


def test_there_is_no_queue(node: Node, run: Run) -> None:
    assert run("list") == (0, "0 queues, 0 messages ready, 0 dead letters\n", "")
    for command in ("inspect", "peek", "dead"):
        assert run(command, "jobs") == (1, "", "sepakat: there is no queue jobs\n")


def test_all_queues(node: Node, run: Run) -> None:
    node.queues = {
        "mail": info(ready=3, delayed=2, in_flight=1, oldest_ms=4200, consumers=1),
        "jobs": info(dead=1),
    }
    code, output, said = run("list")
    assert (code, said) == (0, "")
    assert lines(output) == [
        "2 queues, 3 messages ready, 1 dead letter",
        "queue ready delayed in flight dead oldest consumers",
        "jobs 0 0 0 1 - 0",
        "mail 3 2 1 0 4.2 s 1",
    ]
    told = json.loads(run("list", "--json")[1])
    assert told == {
        "queues": [{"queue": "jobs", **node.queues["jobs"]}, {"queue": "mail", **node.queues["mail"]}],
        "complete": True,
    }


def test_queues_can_be_chosen(node: Node, run: Run) -> None:
    node.queues = {name: info() for name in ("mail:a", "mail:b", "jobs")}
    told = json.loads(run("list", "--json", "--match", "mail:*")[1])
    assert [one["queue"] for one in told["queues"]] == ["mail:a", "mail:b"]


def test_no_more_is_asked_or_printed_than_is_wanted(node: Node, run: Run) -> None:
    node.queues = {f"q{number:03}": info() for number in range(250)}
    told = json.loads(run("list", "--json", "--limit", "201")[1])
    assert (len(told["queues"]), told["complete"]) == (201, False)
    assert sum(call[0] == "Q.INFO" for call in node.asked) == 201
    assert "there are more: choose with --match, or raise --limit" in run("list", "--limit", "7")[1]
    output = run("list")[1]
    assert sum(line.startswith("q0") for line in lines(output)) == queue_overview.QUEUES_SHOWN_MAX
    assert "150 more" in output


def test_a_queue_of_another_node_is_asked_there_and_what_is_none_left_out(node: Node, run: Run) -> None:
    node.queues = {name: info() for name in ("a", "b", "c", "d")}
    node.moved, node.overwritten, node.gone = {"b"}, {"c"}, {"d"}
    told = json.loads(run("list", "--json")[1])
    assert [one["queue"] for one in told["queues"]] == ["a", "b"]
    assert run("inspect", "b")[0] == 0
    assert run("peek", "b")[0] == 0
    assert run("redrive", "b")[1] == "3 dead letters went back\n"


def test_one_queue(node: Node, run: Run) -> None:
    node.queues = {"jobs": info(ready=3, pushed=9, oldest_ms=700_000, maxlen=50, px=60_000, dlq="jobs:dead")}
    code, output, said = run("inspect", "jobs")
    assert (code, said) == (0, "")
    shown = " ".join(lines(output))
    for words in (
        *("jobs", "ready 3", "pushed 9", "in flight 0", "oldest 11 min", "consumers 0", "visibility 30 s"),
        *("backoff 0.1 s to 60 s", "dlq jobs:dead", "maxlen 50", "px 60 s", "dedup 300 s", "maxdeliveries 16"),
    ):
        assert words in shown
    assert json.loads(run("inspect", "jobs", "--json")[1]) == {"queue": "jobs", **node.queues["jobs"]}
    node.queues["jobs"] |= {"maxlen": 0, "px": 0, "dlq": None}
    shown = " ".join(lines(run("inspect", "jobs")[1]))
    assert all(f"{name} none" in shown for name in ("maxlen", "px", "dlq"))


def test_messages(node: Node, run: Run) -> None:
    command, noun = "peek", "message"
    node.queues = {"jobs": info()}
    assert run(command, "jobs") == (0, f"0 {noun}s\n", "")
    node.messages = [[None, "hello", 1, "17-1"], [None, "\udcff\x1b[2J" + "x" * 500, 3, "own id"]]
    code, output, _ = run(command, "jobs", "--count", "7")
    assert code == 0
    assert node.asked[-1] == ("Q.PEEK", b"jobs", "COUNT", "7")
    assert lines(output)[:3] == [f"2 {noun}s", "id deliveries bytes payload", "17-1 1 5 hello"]
    assert lines(output)[3].startswith("own id 3 505 \\xff\\x1b[2Jxxx")
    assert lines(output)[3].endswith("x…")
    assert json.loads(run(command, "jobs", "--json")[1])["messages"] == [
        {"id": "17-1", "deliveries": 1, "payload": "hello"},
        {"id": "own id", "deliveries": 3, "payload": "\udcff\x1b[2J" + "x" * 500},
    ]


@pytest.mark.parametrize("words", [("dead",), ("peek", "--dead")])
def test_dead_letters(node: Node, run: Run, words: tuple[str, ...]) -> None:
    node.queues = {"jobs": info()}
    assert run(*words, "jobs") == (0, "0 dead letters\n", "")
    letter = {
        "id": "17-1", "payload": "hello", "queue": "mail", "deliveries": 3, "pushed-ms": 1_700_000_000_000,
        "died-ms": 1_700_000_061_999, "reason": "torn\n" + "x" * 500,
    }  # fmt: skip
    node.messages = [letter]
    code, output, _ = run(*words, "jobs", "--count", "7")
    assert code == 0
    assert node.asked[-1] == ("Q.DEAD", b"jobs", "COUNT", "7")
    title, head, row = lines(output)
    assert (title, head) == ("1 dead letter", "id queue pushed died deliveries bytes reason payload")
    assert row.startswith("17-1 mail 2023-11-14 22:13:20Z 2023-11-14 22:14:21Z 3 5 torn\\nxxx")
    assert row.endswith("x… hello")
    assert json.loads(run(*words, "jobs", "--json")[1])["messages"] == [letter]


def test_dead_letters_are_sent_back(node: Node, run: Run) -> None:
    node.queues = {"jobs": info()}
    assert run("redrive", "jobs") == (0, "3 dead letters went back\n", "")
    assert run("redrive", "jobs", "--count", "5", "--json") == (0, '{"queue": "jobs", "redriven": 3}\n', "")
    assert node.asked == [("Q.REDRIVE", b"jobs"), ("Q.REDRIVE", b"jobs", "COUNT", "5")]


@pytest.mark.parametrize(
    ("flags", "asked", "line"),
    [
        ((), ("Q.PURGE", b"jobs"), "3 messages dropped\n"),
        (("--dead",), ("Q.PURGE", b"jobs", "DEAD"), "3 dead letters dropped\n"),
    ],
)
def test_messages_are_dropped_when_it_is_meant(
    node: Node, run: Run, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], asked: Any, line: str
) -> None:
    node.queues = {"jobs": info()}
    answers = iter([False, True])
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "y" if next(answers) else "n")
    assert run("purge", "jobs", *flags)[0] == 1
    assert node.asked == []
    assert run("purge", "jobs", *flags)[:2] == (0, line)
    assert run("purge", "jobs", "--yes", *flags) == (0, line, "")
    assert node.asked == [asked, asked]


def test_names_that_are_no_text(node: Node, run: Run) -> None:
    node.queues = {"\udcff\x1b[2J[bold]": info()}
    assert "\\xff\\x1b[2J[bold]" in run("list")[1]
    assert "\\xff\\x1b[2J[bold]" in run("inspect", "\udcff\x1b[2J[bold]")[1]


@pytest.mark.parametrize("command", sorted(queue.commands))
def test_each_command_explains_itself_and_every_option(run: Run, command: str) -> None:
    code, shown, _ = run(command, "--help")
    assert code == 0
    for param in queue.commands[command].params:
        name = param.opts[0] if isinstance(param, click.Option) else param.make_metavar(click.Context(queue))
        assert re.search(rf"^  {name}( \w+)? +\w+|Usage: .*{name}", shown, re.MULTILINE), name
    assert command in run("--help")[1]


def test_what_goes_wrong_is_one_line(node: Node, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(where: Address, *calls: Any, password: str = "", timeout_s: float = 5.0) -> Any:
        raise AskError(f"{where} cannot be reached: Connection refused")

    for module in (queue_overview, ask):
        monkeypatch.setattr(module, "ask", refuse)
    for words in (("list",), ("inspect", "jobs"), ("peek", "jobs"), ("redrive", "jobs"), ("purge", "jobs", "--yes")):
        assert run(*words) == (1, "", "sepakat: 127.0.0.1:6379 cannot be reached: Connection refused\n")
    code, _, said = run("peek")
    assert (code, said) == (2, "sepakat: Missing argument 'QUEUE'.\n")
