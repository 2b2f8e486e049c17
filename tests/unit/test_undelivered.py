"""Who leaves while a message is on its way to it costs the next consumer no visibility, wherever it was connected."""

from __future__ import annotations

import pytest

from resp_server.session import Session
from tests.unit.several_nodes import SeveralNodes
from tests.unit.test_detection import key_in

SHARDS = 8


@pytest.fixture
def three() -> SeveralNodes:
    return SeveralNodes(3, SHARDS)


@pytest.fixture(params=["whole", "in parts"])
def queue(three: SeveralNodes, request: pytest.FixtureRequest) -> str:
    name = key_in(three, 1)
    parts = "PARTITIONS 4" if request.param == "in parts" else ""
    three.ask("n1", f"Q.CREATE {name} VISIBILITY 3600000 {parts}")
    three.pass_time(1_500)
    return name


def begin(nodes: SeveralNodes, client: Session, *calls: str) -> None:
    """Sends calls without letting the nodes talk."""
    words = [[word.encode() for word in call.split()] for call in calls]
    nodes.members[client.server.node.name].dispatcher.execute(client, words)


def leave(client: Session) -> None:
    client.server.disconnect(client)


def is_as_if_never_taken(nodes: SeveralNodes, queue: str) -> None:
    """The one message is handed out as for the first time."""
    nodes.until(lambda: nodes.ask("n1", f"Q.LEN {queue}") == b":1\r\n")
    taker = nodes.connect("n2")
    received = nodes.send(taker, f"Q.POP {queue}")
    assert b"-1\r\n$1\r\nm\r\n:1\r\n" in received, "the first delivery of it"
    assert nodes.send(taker, "PING") == b"+PONG\r\n"


@pytest.mark.parametrize("name", ["n1", "n2", "n3"])
@pytest.mark.parametrize("before", [(), ("SET {x}a b",), ("SET a b", "SET b c", "GET a")])
def test_the_connection_ends_before_the_answer_is_there(
    three: SeveralNodes, queue: str, name: str, before: tuple[str, ...]
) -> None:
    three.ask("n1", f"Q.PUSH {queue} m")
    client = three.connect(name)
    begin(three, client, *before, f"Q.POP {queue}")
    leave(client)
    is_as_if_never_taken(three, queue)


@pytest.mark.parametrize("name", ["n1", "n2", "n3"])
@pytest.mark.parametrize("pushed_at", ["n1", "n2", "n3"])
def test_who_waits_leaves_while_it_is_pushed(three: SeveralNodes, queue: str, name: str, pushed_at: str) -> None:
    client, pushing = three.connect(name), three.connect(pushed_at)
    assert three.send(client, f"Q.POP {queue} BLOCK 0") == b""
    three.pass_time(100)
    begin(three, pushing, f"Q.PUSH {queue} m")
    leave(client)
    is_as_if_never_taken(three, queue)


@pytest.mark.parametrize("name", ["n1", "n2", "n3"])
def test_the_next_in_line_gets_it(three: SeveralNodes, queue: str, name: str) -> None:
    first, second = three.connect(name), three.connect("n1")
    for client in (first, second):
        assert three.send(client, f"Q.POP {queue} BLOCK 0") == b""
        three.pass_time(100)
    begin(three, three.connect("n3"), f"Q.PUSH {queue} m")
    leave(first)
    received: list[bytes] = []

    def came() -> bool:
        received.append(three.received(second))
        return any(received)

    three.until(came)
    assert b"-1\r\n$1\r\nm\r\n:1\r\n" in b"".join(received)


def test_what_was_answered_stays_with_its_visibility(three: SeveralNodes, queue: str) -> None:
    three.ask("n1", f"Q.PUSH {queue} m")
    client = three.connect("n2")
    assert b"\r\nm\r\n" in three.send(client, f"Q.POP {queue}")
    leave(client)
    three.pass_time(2_000)
    assert three.ask("n1", f"Q.LEN {queue}") == b":0\r\n"


def test_another_answer_takes_nothing_back(three: SeveralNodes) -> None:
    """Receipts of one shard say nothing in another, so only the last answer can be that of the last Q.POP."""
    here, there = key_in(three, 1), key_in(three, 2)
    for name in (here, there):
        three.ask("n1", f"Q.CREATE {name} VISIBILITY 3600000")
        three.ask("n1", f"Q.PUSH {name} m")
    holder = three.connect("n3")
    assert b"\r\nm\r\n" in three.send(holder, f"Q.POP {there}")
    client = three.connect("n2")
    begin(three, client, f"Q.POP {here}", f"Q.POP {there}", f"Q.PEEK {here}", "MULTI", "PING", "EXEC")
    leave(client)
    three.pass_time(2_000)
    assert three.ask("n1", f"Q.LEN {there}") == b":0\r\n", "it is still with who has it"
