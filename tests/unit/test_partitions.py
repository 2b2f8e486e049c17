"""Queues that are spread over shards, as clients of several nodes see them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import hiredis
import msgspec
import pytest

from cluster.machine import queue_parts
from cluster.machine.machine import Machine
from cluster.machine.queue import Settings
from cluster.machine.queue_parts import Shape
from cluster.ring.slots import slot_of
from resp_server.partitions import KNOWN_MS
from resp_server.session import Session
from tests.unit.several_nodes import SeveralNodes

SHARDS = 8
PARTS = 4


@pytest.fixture
def three() -> SeveralNodes:
    nodes = SeveralNodes(3, SHARDS)
    made = create(nodes, "n1", f"Q.CREATE jobs PARTITIONS {PARTS} VISIBILITY 5000 MAXDELIVERIES 2 BACKOFF 0 0")
    assert made == b"+OK\r\n"
    return nodes


def create(nodes: SeveralNodes, name: str, line: str) -> bytes:
    """Makes a queue, which takes until others are known to know of it; the answer."""
    client = nodes.connect(name)
    told = nodes.send(client, line)
    if not told:
        nodes.until(lambda: client.out)
        told = nodes.received(client)
    return told


def parsed(data: bytes) -> list[Any]:
    """The replies in these bytes."""
    reader = hiredis.Reader(replyError=hiredis.ReplyError)
    reader.feed(data)
    found = []
    while (reply := reader.gets()) is not False:
        found.append(reply)
    return found


def call(nodes: SeveralNodes, client: Session | str, line: str) -> Any:
    """One call and its only answer."""
    session = nodes.connect(client) if isinstance(client, str) else client
    [reply] = parsed(nodes.send(session, line))
    return reply


def info(nodes: SeveralNodes, name: str = "n1") -> dict[bytes, Any]:
    told = call(nodes, name, "Q.INFO jobs")
    return dict(zip(told[::2], told[1::2], strict=True))


def parts(nodes: SeveralNodes) -> list[int]:
    """How many messages live in each part that is there."""
    found = {}
    for member in nodes.members.values():
        for shard in member.node.shards:
            queue = shard.machine.keyspace.values.get(b"jobs")
            if shard.raft.leading is not None and queue is not None:
                found[shard.number] = len(queue.living)  # type: ignore[union-attr]
    return list(found.values())


def test_messages_go_round_and_come_from_everywhere(three: SeveralNodes) -> None:
    ids = [call(three, f"n{number % 3 + 1}", f"Q.PUSH jobs m{number}") for number in range(24)]
    assert len(set(ids)) == 24
    assert len(parts(three)) == PARTS
    assert min(parts(three)) > 0
    assert call(three, "n2", "Q.LEN jobs") == 24
    taken = [call(three, f"n{number % 3 + 1}", "Q.POP jobs")[0] for number in range(24)]
    assert sorted(message[1] for message in taken) == sorted(b"m%d" % number for number in range(24))
    assert call(three, "n1", "Q.POP jobs") is None
    assert info(three)[b"in-flight"] == 24
    receipts = " ".join(message[0].decode() for message in taken)
    assert call(three, "n3", f"Q.ACK jobs {receipts}") == 24
    assert call(three, "n3", f"Q.ACK jobs {receipts}") == 0
    told = info(three)
    assert (told[b"acked"], told[b"pushed"], told[b"in-flight"], told[b"partitions"]) == (24, 24, 0, PARTS)
    assert told[b"nodes"] == 3
    call(three, "n1", "Q.CREATE plain")
    plain = call(three, "n2", "Q.INFO plain")
    assert plain[plain.index(b"nodes") + 1] == 3


def test_several_are_made_at_once(three: SeveralNodes) -> None:
    """Each is answered when it is known, whatever became of others meanwhile."""
    clients = [three.connect(f"n{number % 3 + 1}") for number in range(6)]
    for number, client in enumerate(clients):
        words = [b"Q.CREATE", b"q%d" % number, b"PARTITIONS", b"2"]
        three.members[client.server.node.name].dispatcher.execute(client, [words, words])
        three.pass_time(10)
    three.pass_time(1_500)
    for client in clients:
        assert three.received(client) == b"+OK\r\n-BUSYKEY Target queue already exists.\r\n"


@pytest.mark.parametrize("maker", ["n1", "n2", "n3"])
def test_who_is_told_that_it_is_made_finds_it_at_every_node(three: SeveralNodes, maker: str) -> None:
    for number in range(5):
        three.pass_time(10 * number)  # at any moment between two heartbeats
        assert create(three, maker, f"Q.CREATE {maker}.{number} PARTITIONS 2") == b"+OK\r\n"
        assert all(f"{maker}.{number}".encode() in one.node.atlas.queues for one in three.members.values())
    assert call(three, maker, f"Q.CREATE {maker} PARTITIONS 1") == b"OK"
    assert str(call(three, maker, f"Q.CREATE {maker}.x PARTITIONS 0")).startswith("ERR")


def test_a_node_that_is_away_is_not_waited_for(three: SeveralNodes) -> None:
    three.cut.add("n3")
    three.pass_time(3_000)
    began_ms = three.now_ms
    assert create(three, "n1", "Q.CREATE without PARTITIONS 2") == b"+OK\r\n"
    assert three.now_ms - began_ms < KNOWN_MS
    assert b"without" in three.members["n2"].node.atlas.queues
    three.cut.clear()
    three.until(lambda: b"without" in three.members["n3"].node.atlas.queues)


def test_it_is_one_key(three: SeveralNodes) -> None:
    for number in range(12):
        call(three, "n1", f"Q.PUSH jobs m{number}")
    assert call(three, "n1", "DBSIZE") == 1
    assert call(three, "n2", "KEYS *") == [b"jobs"]
    assert call(three, "n3", "Q.LIST") == [b"jobs"]
    assert call(three, "n3", "RANDOMKEY") == b"jobs"
    assert call(three, "n1", "TYPE jobs") == b"queue"


@pytest.mark.parametrize(
    "line", ["SET jobs x", "RENAME jobs jobs", "RENAME other jobs", "COPY jobs j", "LOCK.ACQUIRE jobs a"]
)
def test_nothing_else_touches_it(three: SeveralNodes, line: str) -> None:
    call(three, "n1", "Q.PUSH jobs m")
    assert "queue with partitions" in str(call(three, "n2", line))
    assert call(three, "n2", "Q.LEN jobs") == 1


def test_it_takes_part_in_no_transaction(three: SeveralNodes) -> None:
    client = three.connect("n1")
    for line in ("Q.PUSH jobs m", "DEL jobs"):
        replies = parsed(three.send(client, "MULTI", line, "EXEC"))
        assert "queue with partitions" in str(replies[1])
        assert str(replies[2]).startswith("EXECABORT")
    assert call(three, "n1", "Q.LEN jobs") == 0


def test_a_group_is_in_one_part_and_in_order(three: SeveralNodes) -> None:
    for number in range(9):
        call(three, f"n{number % 3 + 1}", f"Q.PUSH jobs m{number} GROUP g")
    assert sorted(parts(three)) == [0, 9] or parts(three) == [9]
    for number in range(9):
        [message] = call(three, f"n{number % 3 + 1}", "Q.POP jobs")
        assert message[1] == b"m%d" % number
        assert call(three, "n2", "Q.POP jobs") is None
        assert call(three, "n1", f"Q.ACK jobs {message[0].decode()}") == 1


def test_an_id_counts_once_wherever_it_is_pushed(three: SeveralNodes) -> None:
    for number in range(6):
        assert call(three, f"n{number % 3 + 1}", f"Q.PUSH jobs m ID same{number // 3}") == b"same%d" % (number // 3)
    assert call(three, "n1", "Q.LEN jobs") == 2


def test_a_receipt_is_good_for_its_part_only(three: SeveralNodes) -> None:
    call(three, "n1", "Q.PUSH jobs m")
    [message] = call(three, "n1", "Q.POP jobs")
    number, _, deliveries = message[0].decode().partition("-")
    assert call(three, "n1", f"Q.ACK jobs {int(number) + 1}-{deliveries} x-1 99999999999999999999-1 -") == 0
    assert call(three, "n2", f"Q.EXTEND jobs {message[0].decode()} 60000") == 1
    assert call(three, "n2", f"Q.NACK jobs {message[0].decode()}") == 1
    assert call(three, "n3", "Q.LEN jobs") == 1


def test_dead_letters_are_seen_driven_back_and_purged(three: SeveralNodes) -> None:
    for number in range(8):
        call(three, "n1", f"Q.PUSH jobs m{number}")
    for _ in range(8):
        [message] = call(three, "n2", "Q.POP jobs")
        assert call(three, "n1", f"Q.NACK jobs {message[0].decode()} DEAD REASON torn") == 1
    assert len(call(three, "n1", "Q.PEEK jobs DEAD COUNT 5")) == 5
    assert len(call(three, "n1", "Q.PEEK jobs DEAD")) == 8
    told = [dict(zip(one[::2], one[1::2], strict=True)) for one in call(three, "n3", "Q.DEAD jobs COUNT 7")]
    assert len(told) == 7
    assert {(one[b"queue"], one[b"deliveries"], one[b"reason"]) for one in told} == {(b"jobs", 1, b"torn")}
    pushed = [one[b"pushed-ms"] for one in told]
    assert pushed == sorted(pushed)
    assert call(three, "n3", "Q.DEAD none") is None
    assert call(three, "n3", "Q.REDRIVE jobs COUNT 3") == 3
    assert call(three, "n3", "Q.LEN jobs") == 3
    assert call(three, "n3", "Q.REDRIVE jobs") == 5
    assert len(call(three, "n2", "Q.PEEK jobs COUNT 20")) == 8
    assert call(three, "n1", "Q.PURGE jobs") == 8
    assert info(three)[b"ready"] == 0
    assert call(three, "n1", "DBSIZE") == 1  # an empty part is still no key


def test_settings_reach_every_part(three: SeveralNodes) -> None:
    assert call(three, "n2", "Q.CONFIG jobs MAXLEN 8") == b"OK"
    nodes = [member.node for member in three.members.values()]
    three.until(lambda: all(node.atlas.queues[b"jobs"].settings.maxlen == 8 for node in nodes))
    for number in range(8):
        call(three, "n1", f"Q.PUSH jobs m{number}")
    assert str(call(three, "n1", "Q.PUSH jobs m")).startswith("QUEUEFULL")
    assert "cannot be changed" in str(call(three, "n1", "Q.CONFIG jobs PARTITIONS 2"))
    assert str(call(three, "n3", "Q.CREATE jobs PARTITIONS 2")).startswith("BUSYKEY")
    assert "-ERR" in three.ask("n1", "Q.PEEK jobs COUNT x").decode()
    assert "-ERR" in three.ask("n1", "Q.POP jobs BLOCK x").decode()
    assert "-ERR" in three.ask("n1", "Q.REDRIVE jobs COUNT 0").decode()


# Waiting


def test_who_waits_is_served_by_whatever_part_has_something(three: SeveralNodes) -> None:
    waiters = [three.connect(f"n{number % 3 + 1}") for number in range(6)]
    for client in waiters:
        assert three.send(client, "Q.POP jobs BLOCK 0") == b""
    assert (
        sum("cmd=q.pop" in line and " flags=b" in line for line in three.ask("n1", "CLIENT LIST").decode().split("\n"))
        == 2
    )
    served: Counter[bytes] = Counter()
    for number in range(6):
        call(three, "n1", f"Q.PUSH jobs m{number}")
        three.pass_time(100)
        for client in waiters:
            served.update(message[1] for reply in parsed(three.received(client)) for message in reply)
        assert sum(served.values()) == number + 1
    assert set(served.values()) == {1}
    for client in waiters:
        assert three.send(client, "PING") == b"+PONG\r\n", "nothing holds it any more"


def test_those_who_wait_elsewhere_get_nothing_twice(three: SeveralNodes) -> None:
    """Several parts have something in the same moment: what is too much is as it was."""
    client = three.connect("n1")
    assert three.send(client, "Q.POP jobs BLOCK 0") == b""
    pushing = three.connect("n2")
    three.send(pushing, *(f"Q.PUSH jobs m{number}" for number in range(8)))
    three.pass_time(500)
    [messages] = parsed(three.received(client))
    assert len(messages) == 1
    assert call(three, "n3", "Q.LEN jobs") == 7
    assert info(three)[b"in-flight"] == 1
    rest = [call(three, "n3", "Q.POP jobs")[0] for _ in range(7)]
    assert {message[2] for message in rest} == {1}, "nobody saw it before"
    assert three.send(client, "PING") == b"+PONG\r\n"


def test_a_wait_ends_in_time_and_by_hand(three: SeveralNodes) -> None:
    timed, unblocked, failed = three.connect("n1"), three.connect("n1"), three.connect("n1")
    assert three.send(timed, "Q.POP jobs BLOCK 300") == b""
    for client in (unblocked, failed):
        assert three.send(client, "Q.POP jobs BLOCK 0", "PING") == b""
    three.pass_time(1000)
    assert three.received(timed) == b"*-1\r\n"
    assert call(three, "n1", f"CLIENT UNBLOCK {unblocked.id}") == 1
    assert call(three, "n1", f"CLIENT UNBLOCK {failed.id} ERROR") == 1
    three.pass_time(200)
    assert three.received(unblocked) == b"*-1\r\n+PONG\r\n"
    assert three.received(failed).startswith(b"-UNBLOCKED")
    assert call(three, "n1", f"CLIENT UNBLOCK {failed.id}") == 0


def test_who_is_gone_costs_nobody_a_message(three: SeveralNodes) -> None:
    gone, stays = three.connect("n1"), three.connect("n2")
    assert three.send(gone, "Q.POP jobs BLOCK 0") == b""
    assert three.send(stays, "Q.POP jobs BLOCK 0") == b""
    three.members["n1"].server.disconnect(gone)
    three.pass_time(200)
    call(three, "n3", "Q.PUSH jobs m")
    three.pass_time(200)
    [[message]] = parsed(three.received(stays))
    assert message[1:3] == [b"m", 1]


def test_a_part_without_a_leader_keeps_nobody_from_the_others(three: SeveralNodes) -> None:
    for number in range(8):
        call(three, "n1", f"Q.PUSH jobs m{number}")
    three.cut.add("n3")
    there = "n1"
    three.until(lambda: all(shard.leader not in (None, "n3") for shard in three.members[there].node.each()))
    taken = [call(three, there, "Q.POP jobs")[0][1] for _ in range(8)]
    assert sorted(taken) == sorted(b"m%d" % number for number in range(8))


def test_a_node_that_has_not_heard_of_it_says_so(three: SeveralNodes) -> None:
    three.members["n2"].node.atlas.queues = {}
    assert str(call(three, "n2", "Q.PUSH jobs m GROUP g")).startswith("TRYAGAIN")
    assert str(call(three, "n2", "Q.POP jobs")).startswith("TRYAGAIN")


def test_who_waits_before_it_is_made_is_told_to_ask_again(three: SeveralNodes) -> None:
    waiters = [three.connect(name) for name in three.members]
    for client in waiters:
        assert three.send(client, "Q.POP later BLOCK 0", "PING") == b""
    elsewhere = three.connect("n1")
    assert three.send(elsewhere, "Q.POP other BLOCK 0") == b""
    busy = three.connect("n1")
    assert three.send(busy, "Q.POP later", "LOCK.ACQUIRE other-lock me") == b"*-1\r\n:1\r\n"
    assert three.send(busy, "LOCK.ACQUIRE other-lock it BLOCK 0") == b""
    assert create(three, "n2", f"Q.CREATE later PARTITIONS {PARTS}") == b"+OK\r\n"
    three.pass_time(500)
    for client in waiters:
        assert three.received(client) == b"*-1\r\n+PONG\r\n"
        assert three.send(client, "Q.POP later BLOCK 0") == b""
    assert three.received(elsewhere) + three.received(busy) == b"", "what they wait for is something else"
    for number in range(PARTS):
        call(three, "n3", f"Q.PUSH later m{number}")
    three.pass_time(500)
    assert all(parsed(three.received(client)) for client in waiters)


def test_who_is_about_to_wait_when_it_is_made_is_told_to_ask_again(three: SeveralNodes) -> None:
    waiter = three.connect("n2")
    three.members["n2"].dispatcher.execute(waiter, [b"Q.POP later BLOCK 0".split()])
    assert create(three, "n2", f"Q.CREATE later PARTITIONS {PARTS}") == b"+OK\r\n"
    three.pass_time(500)
    assert three.received(waiter) == b"*-1\r\n"


# Its end


def late(nodes: SeveralNodes, client: Session | str, line: str) -> Any:
    """One call, and its answer once there is one."""
    session = nodes.connect(client) if isinstance(client, str) else client
    received = [nodes.send(session, line)]

    def came() -> bool:
        received.append(nodes.received(session))
        return any(received)

    nodes.until(came)
    [reply] = parsed(b"".join(received))
    return reply


def kept(nodes: SeveralNodes) -> int:
    """How many replicas hold anything of the queue."""
    return sum(
        b"jobs" in shard.machine.keyspace.values for member in nodes.members.values() for shard in member.node.shards
    )


def settled(nodes: SeveralNodes) -> None:
    """Waits until nothing has to be told to anybody any more."""
    shards = [shard for member in nodes.members.values() for shard in member.node.shards]
    nodes.until(lambda: not any(shard.machine.letters for shard in shards))
    nodes.pass_time(200)


@pytest.mark.parametrize("end", ["DEL jobs", "UNLINK other jobs", "FLUSHALL", "FLUSHDB", "PEXPIRE jobs 50"])
@pytest.mark.parametrize("parts", [2, PARTS, SHARDS, 1])
def test_it_ends_and_another_begins(three: SeveralNodes, end: str, parts: int) -> None:
    """With another number of parts, or one; nothing of the first comes back."""
    for number in range(8):
        call(three, "n1", f"Q.PUSH jobs old{number}")
    assert late(three, "n2", end) in (1, b"OK")
    if end.startswith("PEXPIRE"):
        three.until(lambda: not any(member.node.atlas.queues for member in three.members.values()))
    else:
        assert not three.members["n2"].node.atlas.queues
    assert call(three, "n2", "EXISTS jobs") == 0
    assert late(three, "n2", f"Q.CREATE jobs PARTITIONS {parts} MAXLEN 1000") == b"OK"
    for number in range(8):
        assert isinstance(late(three, "n2", f"Q.PUSH jobs new{number}"), bytes)
    settled(three)
    assert call(three, "n3", "Q.LEN jobs") == 8
    assert info(three)[b"partitions"] == parts
    taken = [late(three, "n1", "Q.POP jobs")[0][1] for _ in range(8)]
    assert sorted(taken) == [b"new%d" % number for number in range(8)]
    assert late(three, "n1", "Q.POP jobs") is None
    assert late(three, "n1", "DEL jobs") == 1
    settled(three)
    assert kept(three) == 0
    assert call(three, "n3", "DBSIZE") == 0


def test_who_has_not_heard_of_its_end_puts_nothing_where_nobody_looks(three: SeveralNodes) -> None:
    old = dict(three.members["n3"].node.atlas.queues)
    for number in range(8):
        call(three, "n1", f"Q.PUSH jobs old{number}")
    assert late(three, "n1", "DEL jobs") == 1
    settled(three)
    atlas = three.members["n3"].node.atlas
    for line in ("Q.PUSH jobs m", "Q.MPUSH jobs m n", "Q.PUSH jobs m GROUP g"):
        for _ in range(PARTS):
            atlas.queues = dict(old)
            assert str(call(three, "n3", line)).startswith("TRYAGAIN"), line
    for line in ("Q.POP jobs", "Q.POP jobs BLOCK 0", "Q.ACK jobs 1-1", "Q.PURGE jobs"):
        atlas.queues = dict(old)
        assert str(call(three, "n3", line)).startswith("TRYAGAIN"), line
    for line, nothing in (("Q.LEN jobs", 0), ("Q.PEEK jobs", None)):
        atlas.queues = dict(old)
        assert call(three, "n3", line) == nothing, line
    assert kept(three) == 0
    assert late(three, "n1", f"Q.CREATE jobs PARTITIONS {PARTS}") == b"OK"
    atlas.queues = dict(old)
    for _ in range(PARTS):
        call(three, "n3", "Q.PUSH jobs m")
    settled(three)
    seen = call(three, "n1", "Q.LEN jobs")
    assert isinstance(seen, int)
    assert len([1 for _ in range(seen) if call(three, "n1", "Q.POP jobs") is not None]) == seen
    assert call(three, "n1", "Q.POP jobs") is None


def test_a_part_that_could_not_be_dropped_yet_does_not_come_back(three: SeveralNodes) -> None:
    """The news of the end is held up, and the next queue of that name is there before it."""
    for number in range(16):
        call(three, "n1", f"Q.PUSH jobs old{number}")
    home = three.members["n1"].node.shards[three.members["n1"].node.slot_shard[slot_of(b"jobs")]]
    leader = three.members[home.leader or ""].node.shards[home.number]
    version = leader.machine.next_id()
    for member in three.members.values():
        member.node.atlas.queues[b"jobs"] = Shape(version + 9, PARTS, Settings(), version + 9)
    assert [call(three, name, "Q.LEN jobs") for name in three.members] == [0, 0, 0]
    assert call(three, "n1", "Q.PEEK jobs COUNT 20") is None
    for number in range(8):
        call(three, "n1", f"Q.PUSH jobs new{number}")
        for member in three.members.values():
            member.node.atlas.queues[b"jobs"] = Shape(version + 9, PARTS, Settings(), version + 9)
    found = [message[1] for message in call(three, "n1", "Q.PEEK jobs COUNT 20")]
    assert sorted(found) == [b"new%d" % number for number in range(8)]


def test_a_leader_is_lost_while_it_ends(three: SeveralNodes) -> None:
    for number in range(16):
        call(three, "n1", f"Q.PUSH jobs m{number}")
    client = three.connect("n1")
    three.members["n1"].dispatcher.execute(client, [[b"DEL", b"jobs"]])
    shards = [shard for member in three.members.values() for shard in member.node.shards]
    three.until(lambda: any(shard.machine.letters for shard in shards))
    three.cut.add("n3")
    three.pass_time(3_000)
    three.cut.clear()
    three.until(lambda: kept(three) == 0 and not any(member.node.atlas.queues for member in three.members.values()))
    settled(three)
    assert late(three, "n2", "Q.CREATE jobs PARTITIONS 2") == b"OK"
    assert call(three, "n2", "Q.LEN jobs") == 0


def test_those_who_wait_for_it_are_told(three: SeveralNodes) -> None:
    waiters = [three.connect(name) for name in three.members]
    for client in waiters:
        assert three.send(client, "Q.POP jobs BLOCK 0") == b""
    assert late(three, "n1", "DEL jobs") == 1
    settled(three)
    for client in waiters:
        assert three.received(client) == b"*-1\r\n"
        assert three.send(client, "PING") == b"+PONG\r\n"


def test_that_it_is_gone_is_forgotten_in_the_end(three: SeveralNodes) -> None:
    assert late(three, "n1", "DEL jobs") == 1
    settled(three)
    system = three.members["n1"].node.system.machine
    shard = next(shard.machine for shard in three.members["n1"].node.shards if shard.machine.dropped)
    assert list(shard.dropped) == [b"jobs"]
    again = Machine(shard.commands)
    again.restore(shard.begin_checkpoint()[1], [])
    assert again.dropped == shard.dropped
    for one in (system, shard):
        one.now_ms += 2 * queue_parts.REMEMBERED_MS
    encode = msgspec.msgpack.encode
    queue_parts.drop(shard, [queue_parts.DROP, b"other", encode((1, 2, 7))])
    assert list(shard.dropped) == [b"other"]
    assert [key for key in system.keyspace.values if key.startswith(b"queue:")] == [b"queue:jobs"]
    system.handler(queue_parts.SHAPED)(system, [queue_parts.SHAPED, b"other", encode(Shape(7, 0, Settings()))])
    assert [key for key in system.keyspace.values if key.startswith(b"queue:")] == [b"queue:other"]


def test_new_settings_hold_in_every_part_for_what_happens_then(three: SeveralNodes) -> None:
    for number in range(8):
        call(three, "n1", f"Q.PUSH jobs old{number}")
    line = "Q.CONFIG jobs VISIBILITY 100 MAXDELIVERIES 1 BACKOFF 0 0 DLQ graves PX 400 DEDUP 0"
    assert call(three, "n2", line) == b"OK"
    settings = [b"visibility", 100, b"maxdeliveries", 1, b"backoff", [0, 0], b"dlq", b"graves"]
    assert call(three, "n3", "Q.CONFIG jobs")[2:10] == settings
    nodes = [member.node for member in three.members.values()]
    three.until(lambda: all(node.atlas.queues[b"jobs"].settings.px_ms == 400 for node in nodes))
    for number in range(8):
        assert call(three, "n1", f"Q.PUSH jobs new{number} ID same") == b"same", "no id is remembered any more"
    assert call(three, "n3", "Q.LEN jobs") == 16
    taken = [late(three, "n3", "Q.POP jobs")[0][1] for _ in range(3)]
    three.until(lambda: call(three, "n1", "Q.LEN graves") == 3)
    told = [dict(zip(one[::2], one[1::2], strict=True)) for one in call(three, "n2", "Q.DEAD graves")]
    assert sorted(one[b"payload"] for one in told) == sorted(taken)
    assert {(one[b"queue"], one[b"reason"]) for one in told} == {(b"jobs", b"timed out")}
    three.pass_time(500)
    left = call(three, "n3", "Q.PEEK jobs COUNT 20")
    assert {message[1][:3] for message in left} <= {b"old"}, "those pushed since then are too old"
