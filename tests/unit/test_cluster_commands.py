"""CLUSTER, RAFT and WAIT on three nodes that agree, that are cut from each other, and on one that is alone."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import hiredis
import pytest

from cluster.machine.slots import slot_of
from tests.unit.three_nodes import ADDRESSES, ThreeNodes
from tests.unit.wire_front import WireFront

OK = b"+OK\r\n"


@pytest.fixture
def nodes() -> ThreeNodes:
    return ThreeNodes()


@pytest.fixture
def alone() -> WireFront:
    return WireFront()


def parsed(wire: bytes) -> Any:
    """One reply, its texts decoded."""
    reader = hiredis.Reader(encoding="utf-8")
    reader.feed(wire)
    reply = reader.gets()
    assert reader.gets() is False
    return reply


def told(nodes: ThreeNodes, name: str, call: str) -> Any:
    """What a node answers in RESP3."""
    session = nodes.connect(name)
    nodes.send(session, "HELLO 3")
    return parsed(nodes.send(session, call))


def hex_id(node: str) -> str:
    return hashlib.sha1(f"c {node}".encode()).hexdigest()


# RAFT


@pytest.mark.parametrize("of", ["leader", "follower"])
def test_raft_info_is_the_same_story_from_everybody(nodes: ThreeNodes, of: str) -> None:
    name = nodes.leader if of == "leader" else nodes.followers[0]
    nodes.ask(name, "SET a 1")
    nodes.pass_time(200)
    (shard,) = told(nodes, name, "RAFT.INFO")
    assert list(shard) == [
        "shard", "leader", "term", "role", "commit", "applied", "last-index", "members", "learners", "peers",
    ]  # fmt: skip
    assert (shard["shard"], shard["leader"], shard["role"]) == (0, nodes.leader, of)
    assert shard["members"] == ["n1", "n2", "n3"]
    assert shard["commit"] == shard["applied"] == shard["last-index"]
    assert [peer["id"] for peer in shard["peers"]] == [one for one in ADDRESSES if one != name]
    for peer in shard["peers"]:
        assert peer["address"] == ADDRESSES[peer["id"]]
        assert peer["role"] == ("leader" if peer["id"] == nodes.leader else "follower")
        assert (peer["state"], peer["match"], peer["lag"]) == ("reachable", shard["last-index"], 0)
        assert 0 <= peer["last-contact-ms"] < 600
        assert peer["round-trip-us"] > 0


def test_raft_info_tells_who_cannot_be_reached_and_how_far_behind_it_is(nodes: ThreeNodes) -> None:
    gone = nodes.followers[0]
    nodes.cut.add(gone)
    nodes.pass_time(1000)
    nodes.ask(nodes.leader, "SET a 1")
    (shard,) = told(nodes, nodes.leader, "RAFT.INFO 0")
    (peer,) = [peer for peer in shard["peers"] if peer["id"] == gone]
    assert (peer["state"], peer["lag"]) == ("unreachable", 1)
    assert peer["last-contact-ms"] >= 900
    (shard,) = told(nodes, gone, "RAFT.INFO")
    assert shard["leader"] is None
    assert shard["role"] != "leader"


def test_raft_info_of_a_node_alone(alone: WireFront) -> None:
    shard = dict(zip(*[iter(parsed(alone.ask("RAFT.INFO"))[0])] * 2, strict=True))
    assert (shard["leader"], shard["role"], shard["members"], shard["peers"]) == ("n1", "leader", ["n1"], [])


def test_raft_ring_has_all_slots_in_one_shard(nodes: ThreeNodes) -> None:
    assert told(nodes, nodes.followers[0], "RAFT.RING") == [
        {
            "shard": 0, "slots": [[0, 16383]], "nodes": ["n1", "n2", "n3"], "leader": nodes.leader,
            "preferred": None, "moving": [],
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "line"),
    [
        ("RAFT.INFO 1", "-ERR no such shard: this cluster has one, 0"),
        ("RAFT.INFO x", "-ERR shard is not an integer or out of range"),
        ("RAFT.INFO 0 0", "-ERR wrong number of arguments for 'raft.info' command"),
        ("RAFT.RING 0", "-ERR wrong number of arguments for 'raft.ring' command"),
        ("CLUSTER", "-ERR wrong number of arguments for 'cluster' command"),
        ("CLUSTER MEET a 1", "-ERR unknown subcommand 'MEET'. Try CLUSTER HELP."),
        ("CLUSTER INFO x", "-ERR wrong number of arguments for 'cluster|info' command"),
        ("CLUSTER COUNTKEYSINSLOT 16384", "-ERR Invalid slot"),
        ("CLUSTER COUNTKEYSINSLOT x", "-ERR value is not an integer or out of range"),
        ("CLUSTER GETKEYSINSLOT 0 -1", "-ERR Invalid slot or number of keys"),
        ("CLUSTER GETKEYSINSLOT -1 1", "-ERR Invalid slot or number of keys"),
        ("CLUSTER FORGET n9", "-ERR Unknown node n9"),
        ("CLUSTER FORGET n1", "-ERR n1 is the last voter: stop it to end the cluster"),
        ("CLUSTER FAILOVER x", "-ERR syntax error"),
        ("CLUSTER FAILOVER 1", "-ERR no such shard: this cluster has one, 0"),
        ("CLUSTER FAILOVER force", "-ERR a leader cannot be made without the others' votes: leave FORCE and TAKEOVER"),
        ("CLUSTER FAILOVER 0 0", "-ERR unknown subcommand or wrong number of arguments for 'FAILOVER'. Try CLUSTER"),
        ("READONLY", "-ERR This instance has cluster support disabled"),
        ("READWRITE", "-ERR This instance has cluster support disabled"),
    ],
)
def test_what_is_wrong_is_said(alone: WireFront, call: str, line: str) -> None:
    assert alone.ask(call).decode().startswith(line)


# CLUSTER


def test_cluster_nodes_has_redis_s_fields(nodes: ThreeNodes) -> None:
    name = nodes.followers[0]
    lines = told(nodes, name, "CLUSTER NODES").splitlines()
    assert len(lines) == 3
    for node, line in zip(ADDRESSES, lines, strict=True):
        identity, where, flags, master, sent, received, epoch, link, *slots = line.split(" ")
        assert identity == hex_id(node)
        assert where == f"{ADDRESSES[node]}@{ADDRESSES[node].split(':')[1]}"
        role = "master" if node == nodes.leader else "slave"
        assert flags == (f"myself,{role}" if node == name else role)
        assert master == ("-" if node == nodes.leader else hex_id(nodes.leader))
        assert (sent, link, slots) == ("0", "connected", ["0-16383"] if node == nodes.leader else [])
        assert (received == "0") == (node == name)
        assert int(epoch) == nodes.members[name].node.term
    assert parsed(nodes.ask(name, "CLUSTER MYID")) == hex_id(name)


def test_cluster_nodes_marks_who_is_not_heard(nodes: ThreeNodes) -> None:
    gone = nodes.followers[0]
    nodes.cut.add(gone)
    nodes.pass_time(1000)
    lines = told(nodes, nodes.leader, "CLUSTER NODES").splitlines()
    (line,) = [line for line in lines if line.startswith(hex_id(gone))]
    _, _, flags, _, sent, received, _, link = line.split(" ")
    assert (flags, link) == ("slave,fail?", "disconnected")
    assert sent == received != "0"


def test_cluster_slots_lists_the_leader_and_who_can_be_reached(nodes: ThreeNodes) -> None:
    def entry(node: str) -> list[Any]:
        host, port = ADDRESSES[node].split(":")
        return [host, int(port), hex_id(node), {}]

    leader, followers = nodes.leader, nodes.followers
    assert told(nodes, followers[1], "CLUSTER SLOTS") == [[0, 16383, entry(leader), *map(entry, followers)]]
    nodes.cut.add(followers[0])
    nodes.pass_time(1000)
    assert told(nodes, leader, "CLUSTER SLOTS") == [[0, 16383, entry(leader), entry(followers[1])]]


def test_cluster_shards_tells_how_the_nodes_are(nodes: ThreeNodes) -> None:
    nodes.cut.add(gone := nodes.followers[1])
    nodes.pass_time(1000)
    leader = nodes.leader
    (shard,) = told(nodes, leader, "CLUSTER SHARDS")
    assert shard["slots"] == [0, 16383]
    assert list(shard["nodes"][0]) == ["id", "port", "ip", "endpoint", "role", "replication-offset", "health"]
    assert shard["nodes"][0]["id"] == hex_id(leader)
    assert [one["role"] for one in shard["nodes"]] == ["master", "replica", "replica"]
    health = {one["id"]: one["health"] for one in shard["nodes"]}
    assert health == {hex_id(node): "fail" if node == gone else "online" for node in ADDRESSES}


def fields(text: str) -> dict[str, str]:
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def test_cluster_info_says_whether_there_is_a_leader(nodes: ThreeNodes) -> None:
    info = fields(told(nodes, nodes.followers[0], "CLUSTER INFO"))
    expected = {
        "cluster_state": "ok", "cluster_slots_assigned": "16384", "cluster_slots_ok": "16384",
        "cluster_slots_pfail": "0", "cluster_slots_fail": "0", "cluster_known_nodes": "3", "cluster_size": "1",
    }  # fmt: skip
    assert info | expected == info
    nodes.cut.add(gone := nodes.followers[0])
    nodes.pass_time(1000)
    info = fields(told(nodes, gone, "CLUSTER INFO"))
    assert (info["cluster_state"], info["cluster_slots_ok"], info["cluster_slots_fail"]) == ("fail", "0", "16384")


def test_a_node_that_listens_everywhere_leaves_its_address_to_the_client(alone: WireFront) -> None:
    status = alone.server.node.status()
    alone.server.node.status = lambda: status._replace(address="")  # type: ignore[method-assign]
    assert re.fullmatch(r"[0-9a-f]{40} :6379@6379 myself,master - 0 0 1 connected 0-16383\n\r\n",
                        alone.ask("CLUSTER NODES").decode().split("\r\n", 1)[1])  # fmt: skip


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        (b"", 0), (b"123456789", 12739), (b"bar", 5061), (b"foo{bar}{zap}", 5061), (b"foo{}{bar}", 8363),
        (b"foo{{bar}}zap", 4015), (b"{bar}", 5061), (b"{bar", 4015),
    ],
)  # fmt: skip
def test_keys_have_redis_s_slots(key: bytes, slot: int, alone: WireFront) -> None:
    assert slot_of(key) == slot
    assert alone.ask([b"CLUSTER", b"KEYSLOT", key]) == b":%d\r\n" % slot


def test_keys_in_a_slot(alone: WireFront) -> None:
    session = alone.connect()
    alone.send(session, *(f"SET {{foo}}{number} x" for number in range(5)), "SET bar x", "SET {foo}gone x PX 1")
    assert alone.send(session, "CLUSTER COUNTKEYSINSLOT 12182") == b":6\r\n"
    alone._front.advance(10)
    assert alone.send(session, "CLUSTER COUNTKEYSINSLOT 12182", "CLUSTER COUNTKEYSINSLOT 0") == b":5\r\n:0\r\n"
    assert len(parsed(alone.send(session, "CLUSTER GETKEYSINSLOT 12182 3"))) == 3
    assert sorted(parsed(alone.send(session, "CLUSTER GETKEYSINSLOT 12182 99"))) == [
        f"{{foo}}{one}" for one in range(5)
    ]


# Changes


@pytest.mark.parametrize("named", ["n", "hex"])
def test_forget_removes_a_node_and_answers_when_it_is_gone(nodes: ThreeNodes, named: str) -> None:
    leader, (gone, asked) = nodes.leader, nodes.followers
    session = nodes.connect(asked)
    name = gone if named == "n" else hex_id(gone)
    received = nodes.send(session, f"CLUSTER FORGET {name}", "GET a")
    nodes.pass_time(2000)
    assert received + nodes.received(session) == OK + b"$-1\r\n"
    (shard,) = told(nodes, leader, "RAFT.INFO")
    assert gone not in shard["members"]
    assert nodes.ask(leader, f"CLUSTER FORGET {name}") == b"-ERR Unknown node %b\r\n" % name.encode()


def test_failover_makes_the_node_that_is_asked_the_leader(nodes: ThreeNodes) -> None:
    follower = nodes.followers[1]
    session = nodes.connect(follower)
    received = nodes.send(session, "CLUSTER FAILOVER 0", "SET a 1")
    nodes.pass_time(2000)
    assert received + nodes.received(session) == OK + OK
    assert nodes.leader == follower
    assert nodes.ask(follower, "CLUSTER FAILOVER") == OK  # it leads already


def test_a_change_without_a_majority_is_uncertain_in_the_end(nodes: ThreeNodes) -> None:
    nodes.cut.update(nodes.followers)
    session = nodes.connect(next(iter(set(ADDRESSES) - nodes.cut)))
    assert nodes.send(session, f"CLUSTER FORGET {min(nodes.cut)}", "PING") == b""
    nodes.until(lambda: session.out)
    assert nodes.received(session).startswith(b"-UNCERTAIN the cluster did not agree in time")


def test_changes_are_no_part_of_a_transaction(nodes: ThreeNodes) -> None:
    session = nodes.connect(nodes.leader)
    refused = b"-ERR Command not allowed inside a transaction\r\n"
    for write, done in (("PING", b"+PONG\r\n"), ("SET a 1", OK)):
        received = nodes.send(session, "MULTI", write, "CLUSTER FAILOVER", "EXEC")
        assert received == OK + b"+QUEUED\r\n" * 2 + b"*2\r\n" + done + refused


# WAIT


def test_wait_counts_the_nodes_that_have_the_writes(nodes: ThreeNodes) -> None:
    session = nodes.connect(nodes.leader)
    assert nodes.send(session, "SET a 1", "WAIT 2 0", "PING") == OK + b":2\r\n+PONG\r\n"
    assert nodes.send(session, "WAIT -1 0") == b":2\r\n"


def test_wait_works_on_every_node(nodes: ThreeNodes) -> None:
    session = nodes.connect(nodes.followers[0])
    received = nodes.send(session, "SET a 1", "WAIT 2 0", "PING")
    nodes.pass_time(200)  # a follower hears with the heartbeats how far the others are
    assert received + nodes.received(session) == OK + b":2\r\n+PONG\r\n"


def behind(nodes: ThreeNodes) -> str:
    """Cuts a follower off, and gives its name."""
    gone = nodes.followers[0]
    nodes.cut.add(gone)
    return gone


def test_wait_blocks_until_enough_nodes_have_the_writes(nodes: ThreeNodes) -> None:
    gone = behind(nodes)
    session = nodes.connect(nodes.leader)
    assert nodes.send(session, "SET a 1", "WAIT 1 0") == OK + b":1\r\n"
    assert nodes.send(session, "WAIT 2 0", "SET b 1", "PING") == b""
    assert b"blocked_clients:1" in nodes.ask(nodes.leader, "INFO clients")
    assert b" flags=b " in nodes.ask(nodes.leader, f"CLIENT LIST ID {session.id}")
    nodes.pass_time(2000)
    assert nodes.received(session) == b""
    nodes.cut.remove(gone)
    nodes.pass_time(1000)
    assert nodes.received(session) == b":2\r\n" + OK + b"+PONG\r\n"
    assert b"blocked_clients:0" in nodes.ask(nodes.leader, "INFO clients")


def test_wait_gives_up_after_its_timeout(nodes: ThreeNodes) -> None:
    behind(nodes)
    session = nodes.connect(nodes.leader)
    assert nodes.send(session, "SET a 1", "WAIT 2 500", "PING") == OK
    acknowledgements = nodes.members[nodes.leader].server.acknowledgements
    due_ms = acknowledgements.next_due_ms()
    assert due_ms is not None
    nodes.pass_time(400)
    assert nodes.received(session) == b""
    nodes.pass_time(200)
    assert nodes.received(session) == b":1\r\n+PONG\r\n"
    assert acknowledgements.next_due_ms() is None


def test_wait_needs_no_others_where_there_are_none(alone: WireFront) -> None:
    assert alone.send(alone.connect(), "SET a 1", "WAIT 1 0") == OK + b":0\r\n"


@pytest.mark.parametrize("write", ["PING", "SET a 1"])
def test_wait_in_a_transaction_answers_at_once(nodes: ThreeNodes, write: str) -> None:
    behind(nodes)
    session = nodes.connect(nodes.leader)
    assert nodes.send(session, "SET b 1") == OK
    assert nodes.send(session, "MULTI", write, "WAIT 2 0", "EXEC", "PING").endswith(b":1\r\n+PONG\r\n")


@pytest.mark.parametrize(
    ("reason", "reply"),
    [("", b":1\r\n"), (" TIMEOUT", b":1\r\n"), (" ERROR", b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n")],
)
def test_wait_can_be_ended_by_hand(nodes: ThreeNodes, reason: str, reply: bytes) -> None:
    behind(nodes)
    session = nodes.connect(nodes.leader)
    assert nodes.send(session, "SET a 1", "WAIT 2 0", "PING") == OK
    assert nodes.ask(nodes.leader, f"CLIENT UNBLOCK {session.id}{reason}") == b":1\r\n"
    assert nodes.received(session) == reply + b"+PONG\r\n"
    assert nodes.ask(nodes.leader, f"CLIENT UNBLOCK {session.id}{reason}") == b":0\r\n"


def test_a_client_that_left_is_waited_for_no_more(nodes: ThreeNodes) -> None:
    behind(nodes)
    session = nodes.connect(nodes.leader)
    nodes.send(session, "SET a 1", "WAIT 2 0")
    server = nodes.members[nodes.leader].server
    server.disconnect(session)
    nodes.pass_time(100)
    assert not server.acknowledgements.waiting
    assert session.out == []


# INFO


def test_info_tells_of_the_cluster_and_of_each_peer(nodes: ThreeNodes) -> None:
    name = nodes.followers[0]
    nodes.pass_time(200)
    info = fields(told(nodes, name, "INFO sepakat"))
    term = str(nodes.members[name].node.term)
    expected = {
        "node_id": name, "cluster_id": "c", "node_address": ADDRESSES[name], "raft_role": "follower",
        "raft_leader": nodes.leader, "raft_term": term, "raft_voters": "n1,n2,n3", "raft_learners": "",
        "log_term": term,
    }  # fmt: skip
    assert info | expected == info
    peer = dict(pair.split("=") for pair in info[f"peer_{nodes.leader}"].split(","))
    assert list(peer) == ["address", "role", "state", "last_contact_ms", "round_trip_us", "match", "lag"]
    assert (peer["address"], peer["role"], peer["state"]) == (ADDRESSES[nodes.leader], "leader", "reachable")
    assert told(nodes, name, "INFO replication").startswith("# Replication\r\nrole:master\r\n")
    assert told(nodes, name, "ROLE") == ["master", 0, []]


def test_info_has_minus_one_for_what_is_not_known(nodes: ThreeNodes) -> None:
    node = nodes.members["n1"].node
    status = node.status()
    unknown = status.peers[0]._replace(reachable=False, last_contact_ms=None, round_trip_us=None, match=None)
    node.status = lambda: status._replace(peers=(unknown,))  # type: ignore[method-assign]
    assert fields(told(nodes, "n1", "INFO sepakat"))[f"peer_{unknown.id}"] == (
        f"address={unknown.address},role={unknown.role},state=unreachable,"
        "last_contact_ms=-1,round_trip_us=-1,match=-1,lag=-1"
    )
