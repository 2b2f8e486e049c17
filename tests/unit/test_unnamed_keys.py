"""Keys that come to be by an entry that does not name them: no cache goes on saying that there is none."""

from __future__ import annotations

import pytest

from cluster.cache.naming import words_of
from cluster.machine.queue import Settings
from cluster.machine.queue_parts import Shape, part_call
from resp_server.session import Session
from tests.unit.several_nodes import SeveralNodes


def replies(nodes: SeveralNodes, calls: list[str], session: Session) -> list[bytes]:
    return [nodes.send(session, call) for call in calls]


DIES = {
    "refused": ["Q.CREATE j DLQ k", "Q.PUSH j m", "Q.POP j"],
    "told later": ["Q.CREATE j", "Q.PUSH j m", "Q.POP j", "Q.CONFIG j DLQ k"],
    "renamed": ["Q.CREATE i DLQ k", "RENAME i j", "Q.PUSH j m", "Q.POP j"],
}


@pytest.fixture(params=[0, 1, 2], ids=["at the leader", "with a replica", "without one"])
def reader(request: pytest.FixtureRequest) -> tuple[SeveralNodes, Session]:
    nodes = SeveralNodes(3, replicas=2)
    (near,) = [name for name in nodes.followers if nodes.members[name].node.shards[0].here]
    (distant,) = [name for name in nodes.followers if name != near]
    return nodes, nodes.connect([nodes.leader, near, distant][request.param])


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("name", DIES)
def test_a_queue_of_dead_letters(reader: tuple[SeveralNodes, Session], name: str, early: bool) -> None:
    nodes, session = reader
    client = nodes.connect(nodes.leader)
    if early:
        assert nodes.send(session, "CACHE.GET k") == b"$-1\r\n"
    receipt = next(one for one in replies(nodes, DIES[name], client) if one.startswith(b"*")).split(b"\r\n")[3]
    assert nodes.send(session, "CACHE.GET k", "CACHE.SET other 1") == b"$-1\r\n+OK\r\n"
    assert nodes.send(client, f"Q.NACK j {receipt.decode()} DEAD") == b":1\r\n"
    assert nodes.send(session, "CACHE.GET k").startswith(b"-WRONGTYPE")
    assert nodes.send(session, "CACHE.SET k v NX") == b"$-1\r\n"
    assert nodes.ask(nodes.leader, "Q.LEN k") == b":1\r\n"


def test_what_is_written_through_a_cache_is_there_when_a_message_dies(reader: tuple[SeveralNodes, Session]) -> None:
    """It is no place for dead letters, which stay where they were."""
    nodes, session = reader
    client = nodes.connect(nodes.leader)
    receipt = replies(nodes, DIES["refused"], client)[-1].split(b"\r\n")[3]
    assert nodes.send(session, "CACHE.GET k", "CACHE.SET k v") == b"$-1\r\n+OK\r\n"
    assert nodes.send(client, f"Q.NACK j {receipt.decode()} DEAD") == b":1\r\n"
    nodes.pass_time(300)
    assert nodes.ask(nodes.leader, "GET k") == b"$1\r\nv\r\n"
    assert b"$1\r\nm\r\n" in nodes.ask(nodes.leader, "Q.PEEK j DEAD")


def test_a_lock_that_is_granted_with_the_last_of_several(reader: tuple[SeveralNodes, Session]) -> None:
    nodes, session = reader
    client, waiter = nodes.connect(nodes.leader), nodes.connect(nodes.leader)
    nodes.send(session, "CACHE.GET k")
    assert nodes.send(client, "LOCK.ACQUIRE last ann") == b":1\r\n"
    assert nodes.send(waiter, "LOCK.MACQUIRE 2 k last bob BLOCK 0") == b""
    assert nodes.send(session, "CACHE.GET k") == b"$-1\r\n"
    assert nodes.send(client, "LOCK.RELEASE last ann") == b":1\r\n"
    assert nodes.received(waiter).startswith(b"*2")
    assert nodes.send(session, "CACHE.GET k").startswith(b"-WRONGTYPE")
    assert nodes.send(session, "CACHE.SET k v NX") == b"$-1\r\n"


def test_a_command_for_a_part_names_where_its_dead_letters_go() -> None:
    call = part_call(1, Shape(2, 3, Settings(dlq=b"k")), [b"Q.PUSH", b"j", b"m"])
    assert b"k" in words_of(call)
    assert b"k" in words_of([b"EXEC", call])
    assert b"k" not in words_of(part_call(1, Shape(2, 3, Settings()), [b"Q.PUSH", b"j", b"m"]))
