"""What one shard has to say to another arrives, whoever leads and whatever is lost."""

from __future__ import annotations

import pytest

from tests.unit.several_nodes import SeveralNodes
from tests.unit.test_detection import SHARDS, key_in, shard_of


@pytest.fixture
def three() -> SeveralNodes:
    return SeveralNodes(3, SHARDS)


def die(nodes: SeveralNodes, queue: str, payload: str, *, at: str = "n1") -> None:
    """A message is taken from the queue and refused for good."""
    client = nodes.connect(at)
    nodes.send(client, f"Q.PUSH {queue} {payload} PRIORITY 7 GROUP g")
    receipt = nodes.send(client, f"Q.POP {queue}").split(b"\r\n")[3].decode()
    assert nodes.send(client, f"Q.NACK {queue} {receipt} DEAD") == b":1\r\n"


def letters(nodes: SeveralNodes) -> list[int]:
    """How many each node's replicas keep."""
    return [sum(len(shard.machine.letters) for shard in member.node.shards) for member in nodes.members.values()]


@pytest.fixture
def queues(three: SeveralNodes) -> tuple[str, str]:
    """A queue, and the one for its dead letters, in another shard."""
    source, dlq = key_in(three, 0), key_in(three, 1)
    assert three.ask("n1", f"Q.CREATE {source} DLQ {dlq}") == b"+OK\r\n"
    return source, dlq


def test_a_dead_letter_goes_to_the_queue_it_is_for(three: SeveralNodes, queues: tuple[str, str]) -> None:
    source, dlq = queues
    die(three, source, "payload", at="n2")
    three.until(lambda: three.ask("n3", f"Q.LEN {dlq}") == b":1\r\n")
    told = three.ask("n2", f"Q.DEAD {dlq}").split(b"\r\n")
    assert told[told.index(b"queue") + 2] == source.encode()
    assert told[told.index(b"reason") + 2] == b"refused for good"
    assert b"payload" in three.ask("n1", f"Q.POP {dlq}")
    assert b"dead\r\n$1\r\n1\r\n" in three.ask("n1", f"Q.INFO {source}").replace(b":1\r\n", b"$1\r\n1\r\n")
    three.until(lambda: not any(letters(three)))
    three.pass_time(2_000)
    assert three.ask("n3", f"Q.LEN {dlq}") == b":0\r\n", "it came once"


def test_one_that_is_not_taken_comes_back(three: SeveralNodes, queues: tuple[str, str]) -> None:
    source, dlq = queues
    three.ask("n1", f"SET {dlq} text")
    die(three, source, "payload")
    three.until(lambda: b"payload" in three.ask("n2", f"Q.PEEK {source} DEAD"))
    three.until(lambda: not any(letters(three)))
    assert three.ask("n1", f"GET {dlq}") == b"$4\r\ntext\r\n"
    assert three.ask("n1", f"Q.REDRIVE {source}") == b":1\r\n"
    assert b"payload" in three.ask("n1", f"Q.POP {source}")


def test_one_whose_queue_is_gone_meanwhile_is_gone_with_it(three: SeveralNodes, queues: tuple[str, str]) -> None:
    source, dlq = queues
    three.ask("n1", f"SET {dlq} text")
    client = three.connect("n1")
    three.send(client, f"Q.PUSH {source} payload")
    receipt = three.send(client, f"Q.POP {source}").split(b"\r\n")[3].decode()
    three.send(client, f"Q.NACK {source} {receipt} DEAD", f"DEL {source}")
    three.until(lambda: not any(letters(three)))
    assert three.ask("n1", f"EXISTS {source}") == b":0\r\n"


@pytest.mark.parametrize("number", [0, 1], ids=["of-the-sender", "of-the-receiver"])
def test_a_leader_is_lost_before_it_is_brought(three: SeveralNodes, queues: tuple[str, str], number: int) -> None:
    source, dlq = queues
    lost = three.leader_of(number)
    here = next(name for name in three.members if name != lost)
    client = three.connect(here)
    three.send(client, f"Q.PUSH {source} payload")
    receipt = three.send(client, f"Q.POP {source}").split(b"\r\n")[3].decode()
    three.members[here].dispatcher.execute(client, [[b"Q.NACK", source.encode(), receipt.encode(), b"DEAD"]])
    source_leader = three.members[three.leader_of(0)].node.shards[0]
    three.until(lambda: source_leader.machine.letters)
    three.cut.add(lost)
    three.until(lambda: three.ask(here, f"Q.LEN {dlq}") == b":1\r\n")
    three.cut.clear()
    three.until(lambda: not any(letters(three)))
    assert shard_of(three, dlq) == 1
    assert b"payload" in three.ask(here, f"Q.POP {dlq}")
