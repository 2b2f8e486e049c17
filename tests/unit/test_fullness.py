"""``maxmemory``: what would take memory is refused where there is none left, and the rest goes on."""

from __future__ import annotations

import pytest

from tests.unit.several_nodes import Member, SeveralNodes
from tests.unit.test_detection import key_in
from tests.unit.wire_front import WireFront

OOM = "-OOM command not allowed when used memory > 'maxmemory'.\r\n"
GROWING = (
    "Q.PUSH q b",
    "Q.MPUSH q b c",
    "Q.CREATE other",
    "Q.REDRIVE q",
    "SET s x",
    "LOCK.ACQUIRE l a",
    "FENCE {s} 1 SET s y",
)


def fill(member: Member, *, is_full: bool = True) -> None:
    """The node has too much, or not."""
    if member.server.fullness.weigh(2, 1 if is_full else 3):
        member.dispatcher.hurry()


@pytest.mark.parametrize("shards", ["1", "8"])
def test_a_node_that_is_alone(shards: str) -> None:
    front = WireFront(shards=shards)
    client = front.connect()

    def weigh(used_bytes: int) -> None:
        front.server.fullness.weigh(used_bytes, 10)
        front._front.settings_changed("maxmemory")
        front.pass_time()

    assert front.send(client, "Q.MPUSH q a b", "SET s x").endswith(b"+OK\r\n")
    receipt = front.send(client, "Q.POP q VISIBILITY 50").split(b"\r\n")[3].decode()
    weigh(11)
    for line in GROWING:
        assert front.send(client, line).decode() == OOM, line
    assert front.send(client, "FENCE {s} 1 DEL s").startswith(b"-FENCED"), "what makes room is not refused for it"
    transaction = front.send(client, "MULTI", "Q.PUSH q b", "EXEC").decode()
    assert transaction == f"+OK\r\n{OOM}-EXECABORT Transaction discarded because of previous errors.\r\n"
    assert front.send(client, f"Q.ACK q {receipt}") == b":0\r\n", "its visibility passed meanwhile: it was redelivered"
    assert front.send(client, "Q.LEN q") == b":1\r\n"
    receipt = front.send(client, "Q.POP q COUNT 1").split(b"\r\n")[3].decode()
    assert front.send(client, f"Q.NACK q {receipt} DEAD") == b":1\r\n"
    assert front.send(client, "Q.PURGE q DEAD", "DEL q", "GET s") == b":1\r\n:1\r\n$1\r\nx\r\n"
    weigh(10)
    for line in ("SET s y", "Q.PUSH q b"):
        assert not front.send(client, line).startswith(b"-")


def test_it_is_full_by_the_time_of_exec() -> None:
    front = WireFront()
    client = front.connect()
    assert front.send(client, "MULTI", "Q.PUSH q b").endswith(b"+QUEUED\r\n")
    front.server.fullness.weigh(11, 10)
    text = "-EXECABORT Transaction discarded because of: OOM command not allowed when used memory > 'maxmemory'.\r\n"
    assert front.send(client, "EXEC").decode() == text
    assert front.send(client, "MULTI", "Q.POP q", "EXEC").endswith(b"*1\r\n*-1\r\n")


def test_whichever_node_is_asked() -> None:
    nodes = SeveralNodes(4, 8)
    full = "n1"
    hers = [number for number in range(8) if full in nodes.members["n2"].node.nodes_of(number)]
    assert 0 < len(hers) < 8
    fill(nodes.members[full])
    nodes.until(lambda: all(member.node.atlas.full == (full,) for member in nodes.members.values()))
    nodes.pass_time(50)
    for name in nodes.members:
        for number in range(8):
            told = nodes.ask(name, f"Q.PUSH {key_in(nodes, number)} m")
            assert told.startswith(b"-OOM") == (number in hers), (name, number)
    assert nodes.ask("n3", "Q.CREATE jobs PARTITIONS 8").startswith((b"-OOM", b"+OK"))
    fill(nodes.members[full], is_full=False)
    nodes.until(lambda: not any(member.node.atlas.full for member in nodes.members.values()))
    nodes.pass_time(50)
    assert nodes.ask("n2", f"Q.PUSH {key_in(nodes, hers[0])} m").startswith(b"$")


def test_a_dead_letter_on_its_way_arrives(three: SeveralNodes) -> None:
    source, dlq = key_in(three, 0), key_in(three, 1)
    assert three.ask("n1", f"Q.CREATE {source} DLQ {dlq} MAXDELIVERIES 1 VISIBILITY 100") == b"+OK\r\n"
    three.ask("n1", f"Q.PUSH {source} payload")
    assert b"payload" in three.ask("n1", f"Q.POP {source}")
    for member in three.members.values():
        fill(member)
    three.until(lambda: three.ask("n2", f"Q.LEN {dlq}") == b":1\r\n")
    assert three.ask("n2", f"Q.PUSH {dlq} more").startswith(b"-OOM")


def test_a_part_of_a_queue_without_room(three: SeveralNodes) -> None:
    three.ask("n1", "Q.CREATE jobs PARTITIONS 4")
    three.until(lambda: all(member.node.atlas.queues for member in three.members.values()))
    assert three.ask("n1", "Q.PUSH jobs m").startswith(b"$")
    fill(three.members["n2"])
    three.until(lambda: bool(three.members["n1"].node.atlas.full))
    for line in ("Q.PUSH jobs m", "Q.MPUSH jobs m", "Q.REDRIVE jobs"):
        assert three.ask("n1", line).startswith(b"-OOM"), line
    assert b"\r\nm\r\n" in three.ask("n1", "Q.POP jobs")


def test_one_that_is_gone_is_not_waited_for(three: SeveralNodes) -> None:
    key = key_in(three, 0)
    fill(three.members["n3"])
    three.until(lambda: three.ask("n1", f"Q.PUSH {key} m").startswith(b"-OOM"))
    three.cut.add("n3")
    three.until(lambda: three.ask("n1", f"Q.PUSH {key} m").startswith(b"$"))


@pytest.fixture
def three() -> SeveralNodes:
    return SeveralNodes(3, 8)
