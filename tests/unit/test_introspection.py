"""COMMAND and its subcommands, and the syntax lines behind COMMAND DOCS."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.machine.reply import Members, Status
from resp_server.commands.introspection import documentation, entry
from resp_server.commands.syntax import arguments
from resp_server.commands.table import Table
from tests.unit.wire_front import WireFront, wire


@pytest.fixture
def front() -> WireFront:
    return WireFront()


@pytest.mark.parametrize(
    ("call", "reply"),
    [
        ("COMMAND NOSUCH", b"-ERR unknown subcommand 'NOSUCH'. Try COMMAND HELP.\r\n"),
        ("COMMAND COUNT x", b"-ERR wrong number of arguments for 'command|count' command\r\n"),
        ("COMMAND INFO nosuch", b"*1\r\n$-1\r\n"),
        ("COMMAND DOCS nosuch", b"*0\r\n"),
        ("COMMAND GETKEYS MSET a 1 b 2", b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
        ("COMMAND GETKEYS OBJECT ENCODING k", b"*1\r\n$1\r\nk\r\n"),
        ("COMMAND GETKEYS LOCK.ACQUIRE job me PX 5", b"*1\r\n$3\r\njob\r\n"),
        ("COMMAND GETKEYS Q.PUSH mail hello", b"*1\r\n$4\r\nmail\r\n"),
        ("COMMAND GETKEYS CACHE.MGET a b", b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
        ("COMMAND GETKEYS PING", b"-ERR The command has no key arguments\r\n"),
        ("COMMAND GETKEYS NOSUCH a", b"-ERR Invalid command specified\r\n"),
        ("COMMAND GETKEYS GET", b"-ERR Invalid number of arguments specified for command\r\n"),
        ("COMMAND GETKEYSANDFLAGS MGET a", b"*1\r\n*2\r\n$1\r\na\r\n*2\r\n+RO\r\n+access\r\n"),
        ("COMMAND LIST FILTERBY MODULE any", b"*0\r\n"),
        ("COMMAND LIST FILTERBY ACLCAT nosuch", b"*0\r\n"),
        ("COMMAND LIST FILTERBY PATTERN client|k*", b"*1\r\n$11\r\nclient|kill\r\n"),
        ("COMMAND LIST FILTERBY NAME x", b"-ERR syntax error\r\n"),
    ],
)
def test_replies(front: WireFront, call: str, reply: bytes) -> None:
    assert front.ask(call) == reply


def test_command_info_has_redis_s_ten_fields(front: WireFront) -> None:
    session = front.connect()
    front.send(session, "HELLO 3")
    specification = {
        b"flags": Members([Status("RO"), Status("access")]),
        b"begin_search": {b"type": b"index", b"spec": {b"index": 1}},
        b"find_keys": {b"type": b"range", b"spec": {b"lastkey": 0, b"keystep": 1, b"limit": 0}},
    }
    assert front.send(session, "COMMAND INFO GET") == wire(
        [
            [
                b"get",
                2,
                Members([Status("readonly"), Status("fast")]),
                1,
                1,
                1,
                Members([Status("@read"), Status("@string"), Status("@fast")]),
                Members(),
                Members([specification]),
                Members(),
            ]
        ],
        3,
    )


def test_command_and_its_count_and_list_agree(front: WireFront) -> None:
    count = len(list(front.table))
    assert front.ask("COMMAND COUNT") == b":%d\r\n" % count
    assert front.ask("COMMAND").startswith(b"*%d\r\n*10\r\n" % count)
    assert front.ask("COMMAND") == front.ask("COMMAND INFO")
    assert front.ask("COMMAND LIST").startswith(b"*%d\r\n" % count)
    assert front.ask("COMMAND DOCS").startswith(b"*%d\r\n" % (2 * count))


def test_our_commands_tell_where_their_keys_are() -> None:
    table = Table()
    without = {
        "LOCK.OWNED", "LOCK.SCAN", "LOCK.GRAPH", "Q.LIST", "CACHE.FLUSH", "CACHE.STATS", "CACHE.TOP", "CACHE.TRAFFIC",
    }  # fmt: skip
    for route in table:
        name = route.command.name
        if name.startswith(("LOCK.", "SEM.", "LATCH.", "ELECT.", "Q.", "CACHE.", "FENCE")) and name not in without:
            told = entry(route, table)
            assert told[3] >= 1 or (Status("movablekeys") in told[2] and told[8]), name


def test_every_command_documents_itself() -> None:
    table = Table()
    for route in table.everything():
        told = documentation(route, table)
        assert told[b"summary"].endswith(b"."), route.command.name
        words = len(route.command.name.split())
        if not route.command.subcommands and route.command.name != "QUIT":
            assert (b"arguments" in told) == (route.command.arity != words), route.command.name


def value(name: str, kind: str = "string", **more: Any) -> dict[bytes, Any]:
    return {
        b"name": name.encode(), b"type": kind.encode(), b"display_text": name.encode(),
        **{key.encode(): given for key, given in more.items()},
    }  # fmt: skip


OPTIONAL = Members([Status("optional")])
MULTIPLE = Members([Status("multiple")])


@pytest.mark.parametrize(
    ("syntax", "tree"),
    [
        ("", []),
        ("key owner", [value("key", "key"), value("owner")]),
        ("key [key ...]", [value("key", "key", flags=MULTIPLE)]),
        ("[section [section ...]]", [value("section", flags=Members([Status("optional"), Status("multiple")]))]),
        ("PX ms", [value("ms", "integer", token=b"PX")]),
        ("[BLOCK ms]", [value("ms", "integer", token=b"BLOCK", flags=OPTIONAL)]),
        ("[SYNC]", [value("sync", "pure-token", token=b"SYNC", flags=OPTIONAL)]),
        (
            "key value [key value ...]",
            [
                {
                    b"name": b"key", b"type": b"block", b"flags": MULTIPLE,
                    b"arguments": [value("key", "key"), value("value")],
                }
            ],
        ),
        (
            "[LIMIT offset count | ALL]",
            [
                {
                    b"name": b"limit", b"type": b"oneof", b"flags": OPTIONAL,
                    b"arguments": [
                        {
                            b"name": b"limit", b"type": b"block", b"token": b"LIMIT",
                            b"arguments": [value("offset", "integer"), value("count", "integer")],
                        },
                        value("all", "pure-token", token=b"ALL"),
                    ],
                }
            ],
        ),
        (
            "<ON | OFF>",
            [
                {
                    b"name": b"on", b"type": b"oneof",
                    b"arguments": [value("on", "pure-token", token=b"ON"), value("off", "pure-token", token=b"OFF")],
                }
            ],
        ),
    ],
)  # fmt: skip
def test_syntax_lines_become_argument_trees(syntax: str, tree: list[dict[bytes, Any]]) -> None:
    assert arguments(syntax) == tree


@pytest.mark.parametrize("syntax", ["[a", "a]", "<a]", "[a | <b]>"])
def test_brackets_must_match(syntax: str) -> None:
    with pytest.raises(ValueError, match="brackets do not match"):
        arguments(syntax)
