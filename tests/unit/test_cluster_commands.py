"""CLUSTER, RAFT, INFO and WAIT: on nodes that agree, that are cut from each other, and on one that is alone."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import hiredis
import pytest

from cluster.machine.slots import slot_of
from cluster.status import status_of
from tests.unit.several_nodes import ADDRESSES, SeveralNodes
from tests.unit.wire_front import WireFront

OK = b"+OK\r\n"


@pytest.fixture
def nodes() -> SeveralNodes:
    return SeveralNodes()


@pytest.fixture
def ring() -> SeveralNodes:
    """Eight shards, each on three of five nodes."""
    return SeveralNodes(5, shards=8)


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


def told(nodes: SeveralNodes, name: str, call: str) -> Any:
    """What a node answers in RESP3."""
    session = nodes.connect(name)
    nodes.send(session, "HELLO 3")
    return parsed(nodes.send(session, call))


def hex_id(node: str) -> str:
    return hashlib.sha1(f"c {node}".encode()).hexdigest()


# RAFT


@pytest.mark.parametrize("of", ["leader", "follower"])
def test_raft_info_is_the_same_story_from_everybody(nodes: SeveralNodes, of: str) -> None:
    name = nodes.leader if of == "leader" else nodes.followers[0]
    nodes.ask(name, "SET a 1")
    nodes.pass_time(200)
    (shard,) = told(nodes, name, "RAFT.INFO")
    assert list(shard) == [
        "shard", "leader", "term", "role", "commit", "applied", "last-index", "members", "learners", "peers",
    ]  # fmt: skip
    assert (shard["shard"], shard["leader"], shard["role"]) == (0, nodes.leader, of)
    assert sorted(shard["members"]) == ["n1", "n2", "n3"]
    assert shard["commit"] == shard["applied"] == shard["last-index"]
    assert [peer["id"] for peer in shard["peers"]] == [one for one in nodes.addresses if one != name]
    for peer in shard["peers"]:
        assert peer["address"] == ADDRESSES[peer["id"]]
        assert peer["role"] == ("leader" if peer["id"] == nodes.leader else "follower")
        assert (peer["state"], peer["match"], peer["lag"]) == ("reachable", shard["last-index"], 0)
        assert 0 <= peer["last-contact-ms"] < 600
        assert peer["round-trip-us"] > 0


def test_raft_info_tells_who_cannot_be_reached_and_how_far_behind_it_is(nodes: SeveralNodes) -> None:
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


def test_raft_ring_has_all_slots_in_one_shard(nodes: SeveralNodes) -> None:
    (row,) = told(nodes, nodes.followers[0], "RAFT.RING")
    assert sorted(row.pop("nodes")) == ["n1", "n2", "n3"]
    assert row == {
        "shard": 0, "slots": [[0, 16383]], "leader": nodes.leader, "preferred": nodes.leader, "moving": [],
    }  # fmt: skip


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


def test_cluster_nodes_has_redis_s_fields(nodes: SeveralNodes) -> None:
    name = nodes.followers[0]
    lines = told(nodes, name, "CLUSTER NODES").splitlines()
    assert len(lines) == 3
    for node, line in zip(nodes.addresses, lines, strict=True):
        identity, where, flags, master, sent, received, epoch, link, *slots = line.split(" ")
        assert identity == hex_id(node)
        assert where == f"{ADDRESSES[node]}@{ADDRESSES[node].split(':')[1]}"
        role = "master" if node == nodes.leader else "slave"
        assert flags == (f"myself,{role}" if node == name else role)
        assert master == ("-" if node == nodes.leader else hex_id(nodes.leader))
        assert (sent, link, slots) == ("0", "connected", ["0-16383"] if node == nodes.leader else [])
        assert (received == "0") == (node == name)
        assert int(epoch) == max(one.term for one in nodes.members[name].node.each())
    assert parsed(nodes.ask(name, "CLUSTER MYID")) == hex_id(name)


def test_cluster_nodes_marks_who_is_not_heard(nodes: SeveralNodes) -> None:
    gone = nodes.followers[0]
    nodes.cut.add(gone)
    nodes.pass_time(1000)
    lines = told(nodes, nodes.leader, "CLUSTER NODES").splitlines()
    (line,) = [line for line in lines if line.startswith(hex_id(gone))]
    _, _, flags, _, sent, received, _, link = line.split(" ")
    assert (flags, link) == ("slave,fail?", "disconnected")
    assert sent == received != "0"


def test_cluster_slots_lists_the_leader_and_who_can_be_reached(nodes: SeveralNodes) -> None:
    def entry(node: str) -> list[Any]:
        host, port = ADDRESSES[node].split(":")
        return [host, int(port), hex_id(node), {}]

    leader, followers = nodes.leader, nodes.followers
    assert told(nodes, followers[1], "CLUSTER SLOTS") == [[0, 16383, entry(leader), *map(entry, followers)]]
    nodes.cut.add(followers[0])
    nodes.pass_time(1000)
    assert told(nodes, leader, "CLUSTER SLOTS") == [[0, 16383, entry(leader), entry(followers[1])]]


def test_cluster_shards_tells_how_the_nodes_are(nodes: SeveralNodes) -> None:
    nodes.cut.add(gone := nodes.followers[1])
    nodes.pass_time(1000)
    leader = nodes.leader
    (shard,) = told(nodes, leader, "CLUSTER SHARDS")
    assert shard["slots"] == [0, 16383]
    assert list(shard["nodes"][0]) == ["id", "port", "ip", "endpoint", "role", "replication-offset", "health"]
    assert shard["nodes"][0]["id"] == hex_id(leader)
    assert [one["role"] for one in shard["nodes"]] == ["master", "replica", "replica"]
    health = {one["id"]: one["health"] for one in shard["nodes"]}
    assert health == {hex_id(node): "fail" if node == gone else "online" for node in nodes.addresses}


def fields(text: str) -> dict[str, str]:
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def test_cluster_info_says_whether_there_is_a_leader(nodes: SeveralNodes) -> None:
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


def test_a_node_that_listens_everywhere_is_where_the_client_found_it(
    alone: WireFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resp_server.commands.cluster.status_of", lambda node: status_of(node)._replace(address=""))
    assert re.fullmatch(r"[0-9a-f]{40} 127.0.0.1:6379@6379 myself,master - 0 0 1 connected 0-16383\n\r\n",
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
def test_forget_removes_a_node_and_answers_when_it_is_gone(nodes: SeveralNodes, named: str) -> None:
    leader, (gone, asked) = nodes.leader, nodes.followers
    session = nodes.connect(asked)
    name = gone if named == "n" else hex_id(gone)
    received = nodes.send(session, f"CLUSTER FORGET {name}", "GET a")
    nodes.until(lambda: not (session.held or session.pending))
    assert received + nodes.received(session) == OK + b"$-1\r\n"
    (shard,) = told(nodes, leader, "RAFT.INFO")
    assert gone not in shard["members"]
    assert nodes.ask(leader, f"CLUSTER FORGET {name}") == b"-ERR Unknown node %b\r\n" % name.encode()


def test_failover_makes_the_node_that_is_asked_the_leader(nodes: SeveralNodes) -> None:
    follower = nodes.followers[1]
    session = nodes.connect(follower)
    received = nodes.send(session, "CLUSTER FAILOVER 0", "SET a 1")
    nodes.pass_time(2000)
    assert received + nodes.received(session) == OK + OK
    assert nodes.leader == follower
    assert nodes.ask(follower, "CLUSTER FAILOVER") == OK  # it leads already


def test_a_change_without_a_majority_is_given_up_in_the_end(nodes: SeveralNodes) -> None:
    nodes.cut.update(nodes.followers)
    session = nodes.connect(next(iter(set(nodes.addresses) - nodes.cut)))
    assert nodes.send(session, f"CLUSTER FORGET {min(nodes.cut)}", "PING") == b""
    nodes.until(lambda: session.out)
    assert nodes.received(session).startswith((b"-UNCERTAIN the cluster did not agree in time", b"-TRYAGAIN"))


def test_changes_are_no_part_of_a_transaction(nodes: SeveralNodes) -> None:
    session = nodes.connect(nodes.leader)
    refused = b"-ERR Command not allowed inside a transaction\r\n"
    for write, done in (("PING", b"+PONG\r\n"), ("SET a 1", OK)):
        received = nodes.send(session, "MULTI", write, "CLUSTER FAILOVER", "EXEC")
        assert received == OK + b"+QUEUED\r\n" * 2 + b"*2\r\n" + done + refused


# WAIT


def test_wait_counts_the_nodes_that_have_the_writes(nodes: SeveralNodes) -> None:
    session = nodes.connect(nodes.leader)
    assert nodes.send(session, "SET a 1", "WAIT 2 0", "PING") == OK + b":2\r\n+PONG\r\n"
    assert nodes.send(session, "WAIT -1 0") == b":2\r\n"


def test_wait_works_on_every_node(nodes: SeveralNodes) -> None:
    session = nodes.connect(nodes.followers[0])
    received = nodes.send(session, "SET a 1", "WAIT 2 0", "PING")
    nodes.pass_time(200)  # a follower hears with the heartbeats how far the others are
    assert received + nodes.received(session) == OK + b":2\r\n+PONG\r\n"


def behind(nodes: SeveralNodes) -> str:
    """Cuts a follower off, and gives its name."""
    gone = nodes.followers[0]
    nodes.cut.add(gone)
    return gone


def test_wait_blocks_until_enough_nodes_have_the_writes(nodes: SeveralNodes) -> None:
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


def test_wait_gives_up_after_its_timeout(nodes: SeveralNodes) -> None:
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
def test_wait_in_a_transaction_answers_at_once(nodes: SeveralNodes, write: str) -> None:
    behind(nodes)
    session = nodes.connect(nodes.leader)
    assert nodes.send(session, "SET b 1") == OK
    assert nodes.send(session, "MULTI", write, "WAIT 2 0", "EXEC", "PING").endswith(b":1\r\n+PONG\r\n")


@pytest.mark.parametrize(
    ("reason", "reply"),
    [("", b":1\r\n"), (" TIMEOUT", b":1\r\n"), (" ERROR", b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n")],
)
def test_wait_can_be_ended_by_hand(nodes: SeveralNodes, reason: str, reply: bytes) -> None:
    behind(nodes)
    session = nodes.connect(nodes.leader)
    assert nodes.send(session, "SET a 1", "WAIT 2 0", "PING") == OK
    assert nodes.ask(nodes.leader, f"CLIENT UNBLOCK {session.id}{reason}") == b":1\r\n"
    assert nodes.received(session) == reply + b"+PONG\r\n"
    assert nodes.ask(nodes.leader, f"CLIENT UNBLOCK {session.id}{reason}") == b":0\r\n"


def test_a_client_that_left_is_waited_for_no_more(nodes: SeveralNodes) -> None:
    behind(nodes)
    session = nodes.connect(nodes.leader)
    nodes.send(session, "SET a 1", "WAIT 2 0")
    server = nodes.members[nodes.leader].server
    server.disconnect(session)
    nodes.pass_time(100)
    assert not server.acknowledgements.waiting
    assert session.out == []


# INFO


def test_info_tells_of_the_cluster_and_of_each_peer(nodes: SeveralNodes) -> None:
    name = nodes.followers[0]
    nodes.pass_time(200)
    info = fields(told(nodes, name, "INFO sepakat"))
    term = str(nodes.members[name].node.shards[0].term)
    expected = {
        "node_id": name, "cluster_id": "c", "node_address": ADDRESSES[name], "node_zone": "", "shards": "1",
        "shards_here": "1", "shards_led": "0", "shards_without_leader": "0", "shards_moving": "0",
        "rebalancing_paused": "0", "raft_role": "follower", "raft_leader": nodes.leader, "raft_term": term,
        "raft_learners": "", "log_term": term,
    }  # fmt: skip
    assert info | expected == info
    assert sorted(info["raft_voters"].split(",")) == ["n1", "n2", "n3"]
    peer = dict(pair.split("=") for pair in info[f"peer_{nodes.leader}"].split(","))
    assert list(peer) == [
        "address", "zone", "state", "reachable", "leads", "replicas", "last_contact_ms", "round_trip_us",
    ]  # fmt: skip
    assert (peer["address"], peer["state"], peer["reachable"]) == (ADDRESSES[nodes.leader], "up", "1")
    assert (peer["leads"], peer["replicas"]) == ("1", "1")
    assert told(nodes, name, "INFO replication").startswith("# Replication\r\nrole:master\r\n")
    assert told(nodes, name, "ROLE") == ["master", 0, []]


def test_info_has_minus_one_for_what_is_not_known(nodes: SeveralNodes, monkeypatch: pytest.MonkeyPatch) -> None:
    status = status_of(nodes.members["n1"].node)
    unknown = status.peers[0]._replace(reachable=False, last_contact_ms=None, round_trip_us=None)
    monkeypatch.setattr("resp_server.commands.info.status_of", lambda node: status._replace(peers=(unknown,)))
    assert fields(told(nodes, "n1", "INFO sepakat"))[f"peer_{unknown.id}"].endswith(
        ",state=up,reachable=0,leads=1,replicas=1,last_contact_ms=-1,round_trip_us=-1"
    )


def test_info_of_several_shards_has_a_line_for_each_that_is_here(ring: SeveralNodes) -> None:
    node = ring.members["n1"].node
    info = fields(told(ring, "n1", "INFO sepakat"))
    here = [shard.number for shard in node.shards if shard.here]
    assert (info["shards"], info["shards_here"]) == ("8", str(len(here)))
    assert {name for name in info if re.fullmatch(r"shard_\d+", name)} == {f"shard_{number}" for number in here}
    first = dict(pair.split("=") for pair in info[f"shard_{here[0]}"].split(","))
    assert list(first) == ["role", "leader", "term", "last_index", "commit", "applied"]
    assert first["leader"] == ring.leader_of(here[0])
    assert "raft_leader" not in info, "there is none for all"


def test_info_says_that_it_is_a_cluster_when_there_are_several_shards(ring: SeveralNodes, nodes: SeveralNodes) -> None:
    for cluster, enabled, mode in ((ring, "1", "cluster"), (nodes, "0", "standalone")):
        info = fields(told(cluster, "n1", "INFO server cluster"))
        assert (info["cluster_enabled"], info["redis_mode"]) == (enabled, mode)
        assert dict(cluster_settings(cluster))["cluster-enabled"] == ("yes" if enabled == "1" else "no")


def cluster_settings(cluster: SeveralNodes) -> list[tuple[str, str]]:
    return list(told(cluster, "n1", "CONFIG GET cluster-enabled").items())


def with_keys(ring: SeveralNodes) -> int:
    """Sets keys in all shards, every fourth with an end; how many."""
    session = ring.connect("n1")
    for number in range(40):
        ring.send(session, f"SET key:{number} x{' PX 60000' if number % 4 == 0 else ''}")
    return 40


def test_info_keyspace_covers_the_cluster_on_every_node(ring: SeveralNodes) -> None:
    count = with_keys(ring)
    for name in ring.addresses:
        session = ring.connect(name)
        ring.send(session, "HELLO 3")
        received = ring.send(session, "SET last x", "INFO keyspace", "DEL last", "PING")
        assert received.startswith(OK), "replies keep their order"
        assert b"db0:keys=%d,expires=%d\r\n" % (count + 1, count // 4) in received
        assert received.endswith(b":1\r\n+PONG\r\n")


def test_info_of_a_node_without_a_replica_of_the_only_shard() -> None:
    five = SeveralNodes(5)
    name = next(name for name, member in five.members.items() if not member.node.shards[0].here)
    assert five.ask(name, "SET a 1") == OK
    assert b"db0:keys=1,expires=0\r\n" in five.ask(name, "INFO")
    info = fields(told(five, name, "INFO sepakat"))
    assert (info["raft_leader"], info["shards_here"]) == (five.leader, "0")
    assert "raft_role" not in info


def test_info_needs_nobody_but_those_who_lead(ring: SeveralNodes) -> None:
    with_keys(ring)
    here = b"db0:keys=%d," % sum(len(shard.machine.keyspace) for shard in ring.members["n1"].node.shards)
    ring.cut.add("n1")
    session = ring.connect("n1")
    assert ring.send(session, "INFO") == b"", "it does not know yet that it is alone"
    ring.pass_time(2000)
    assert here in ring.received(session)
    assert here in ring.ask("n1", "INFO"), "at once"


def test_info_within_a_transaction_tells_what_is_here(ring: SeveralNodes) -> None:
    with_keys(ring)
    here = sum(len(shard.machine.keyspace) for shard in ring.members["n1"].node.shards)
    received = ring.send(ring.connect("n1"), "MULTI", "SET a 1", "INFO keyspace", "DEL a", "EXEC", "PING")
    assert b"db0:keys=%d," % here in received
    assert received.endswith(b":1\r\n+PONG\r\n")


# Several shards


def test_raft_info_has_the_shards_the_node_has(ring: SeveralNodes) -> None:
    for name, member in ring.members.items():
        here = [shard.number for shard in member.node.shards if shard.here]
        found = told(ring, name, "RAFT.INFO")
        assert [shard["shard"] for shard in found] == here
        assert [shard["leader"] for shard in found] == [ring.leader_of(number) for number in here]
        for shard in found:
            others = {peer["id"]: peer["role"] for peer in shard["peers"]}
            assert sorted(others) == sorted(ring.addresses.keys() - {name})
            assert {peer for peer, role in others.items() if role != "none"} == set(shard["members"]) - {name}
        absent = next(number for number in range(8) if number not in here)
        assert (
            told_error(ring, name, f"RAFT.INFO {absent}") == f"{name} has no replica of shard {absent}: see RAFT.RING"
        )
        (one,) = told(ring, name, f"RAFT.INFO {here[-1]}")
        assert one["shard"] == here[-1]


def test_what_is_no_shard_is_said(ring: SeveralNodes) -> None:
    assert told_error(ring, "n1", "RAFT.INFO 8") == "no such shard: this cluster has 8, 0 to 7"


def test_info_tells_who_agrees_on_the_cluster_itself() -> None:
    six = SeveralNodes(6, shards=2)
    info = fields(told(six, "n6", "INFO sepakat"))
    assert sorted(info["system_voters"].split(",")) == ["n1", "n2", "n3", "n4", "n5"]
    assert info["system_learners"] == "n6"
    assert info["system_leader"] in info["system_voters"].split(",")
    assert int(info["system_term"]) > 0


def told_error(nodes: SeveralNodes, name: str, call: str) -> str:
    reply = told(nodes, name, call)
    assert isinstance(reply, hiredis.ReplyError)
    return str(reply).partition(" ")[2]


def test_raft_ring_is_the_same_on_every_node(ring: SeveralNodes) -> None:
    rings = [told(ring, name, "RAFT.RING") for name in ring.addresses]
    assert all(one == rings[0] for one in rings)
    assert [row["slots"] for row in rings[0]] == [[[number * 2048, number * 2048 + 2047]] for number in range(8)]
    for row in rings[0]:
        assert len(row["nodes"]) == 3
        assert row["leader"] == row["preferred"] == ring.leader_of(row["shard"])


def test_raft_nodes_tells_of_every_node(ring: SeveralNodes) -> None:
    ring.cut.add("n5")
    ring.pass_time(1500)
    nodes = {node["id"]: node for node in told(ring, "n1", "RAFT.NODES")}
    assert list(nodes) == list(ring.addresses)
    assert list(nodes["n1"]) == [
        "id", "address", "zone", "state", "reachable", "leads", "replicas", "last-contact-ms", "round-trip-us",
    ]  # fmt: skip
    assert {name: node["reachable"] for name, node in nodes.items()} == dict.fromkeys(nodes, 1) | {"n5": 0}
    assert {node["state"] for node in nodes.values()} == {"up"}
    assert sum(node["replicas"] for node in nodes.values()) == 24
    assert sum(node["leads"] for node in nodes.values()) == 8
    assert nodes["n5"]["leads"] == 0, "others took over"


def test_slots_nodes_and_shards_tell_the_same(ring: SeveralNodes) -> None:
    for name in ring.addresses:
        rows = told(ring, name, "RAFT.RING")
        slots = told(ring, name, "CLUSTER SLOTS")
        shards = told(ring, name, "CLUSTER SHARDS")
        assert [(first, last) for first, last, *_ in slots] == [tuple(row["slots"][0]) for row in rows]
        for row, (_, _, master, *replicas), shard in zip(rows, slots, shards, strict=True):
            assert [master[2], *(one[2] for one in replicas)] == [one["id"] for one in shard["nodes"]]
            assert master[2] == hex_id(row["leader"])
            assert {one[2] for one in replicas} == {hex_id(node) for node in row["nodes"]} - {master[2]}
            assert shard["slots"] == row["slots"][0]
        owners: dict[int, str] = {}
        for line in told(ring, name, "CLUSTER NODES").splitlines():
            (
                identity,
                _,
                flags,
                master_id,
                *_,
            ) = line.split(" ")
            for part in line.split(" ")[8:]:
                first, last = map(int, part.split("-"))
                owners.update(dict.fromkeys(range(first, last + 1), identity))
            assert (master_id == "-") == ("master" in flags)
        assert len(owners) == 16384
        assert all(owners[first] == owners[last] == master[2] for first, last, master, *_ in slots)


def test_during_an_election_every_slot_has_an_owner(ring: SeveralNodes) -> None:
    gone = ring.leader_of(3)
    ring.cut.add(gone)
    asked = next(name for name in ring.addresses if name != gone)
    for _ in range(150):
        ring.pass_time(10)
        slots = told(ring, asked, "CLUSTER SLOTS")
        assert [first for first, *_ in slots] == [number * 2048 for number in range(8)]
    assert all(master[2] != hex_id(gone) for _, _, master, *_ in told(ring, asked, "CLUSTER SLOTS"))
    info = fields(told(ring, asked, "CLUSTER INFO"))
    assert (info["cluster_state"], info["cluster_slots_ok"], info["cluster_size"]) == ("ok", "16384", "4")


def test_slots_without_a_leader_are_counted(ring: SeveralNodes) -> None:
    ring.cut |= {"n3", "n4", "n5"}
    ring.pass_time(2000)
    info = fields(told(ring, "n1", "CLUSTER INFO"))
    assert info["cluster_state"] == "fail"
    assert int(info["cluster_slots_ok"]) + int(info["cluster_slots_fail"]) == 16384
    assert int(info["cluster_slots_fail"]) > 0


def test_failover_of_one_shard(ring: SeveralNodes) -> None:
    row = told(ring, "n1", "RAFT.RING")[2]
    taker = next(node for node in row["nodes"] if node != row["leader"])
    stranger = next(node for node in ring.addresses if node not in row["nodes"])
    assert told_error(ring, stranger, "CLUSTER FAILOVER 2") == f"{stranger} has no replica of shard 2: see RAFT.RING"
    session = ring.connect(taker)
    received = ring.send(session, "CLUSTER FAILOVER 2", "SET a 1")
    ring.pass_time(1000)
    assert received + ring.received(session) == OK + OK
    assert ring.leader_of(2) == taker


def test_failover_of_all_a_node_has(ring: SeveralNodes) -> None:
    session = ring.connect("n2")
    received = ring.send(session, "CLUSTER FAILOVER", "PING")
    ring.pass_time(3000)
    assert received + ring.received(session) == OK + b"+PONG\r\n"
    rows = told(ring, "n2", "RAFT.RING")
    assert {row["leader"] for row in rows if "n2" in row["nodes"]} == {"n2"}


def test_failover_that_succeeds_in_part_says_so(ring: SeveralNodes) -> None:
    ring.cut.add("n2")
    ring.pass_time(1000)
    session = ring.connect("n2")
    assert ring.send(session, "CLUSTER FAILOVER", "PING") == b""
    ring.until(lambda: session.out)
    assert re.match(rb"-UNCERTAIN [0-9]+ of [0-9]+ shards: the cluster did not agree in time", ring.received(session))


def test_keys_in_a_slot_are_asked_of_its_shard(ring: SeveralNodes) -> None:
    session = ring.connect("n1")
    ring.send(session, "SET {foo}1 x", "SET {foo}2 x")
    for name in ring.addresses:
        session = ring.connect(name)
        assert ring.send(session, "CLUSTER COUNTKEYSINSLOT 12182", "CLUSTER COUNTKEYSINSLOT 0") == b":2\r\n:0\r\n"
        assert sorted(parsed(ring.send(session, "CLUSTER GETKEYSINSLOT 12182 9"))) == ["{foo}1", "{foo}2"]
        assert ring.send(session, "CLUSTER COUNTKEYSINSLOT x").startswith(b"-ERR value is not an integer")
        assert ring.send(session, "CLUSTER COUNTKEYSINSLOT 16384") == b"-ERR Invalid slot\r\n"


# Rebalancing


def test_moves_are_held_up_and_let_go_on(ring: SeveralNodes) -> None:
    assert told(ring, "n1", "RAFT.REBALANCE") == {
        "paused": 0, "moving": [], "leaving": [], "lost": [], "bandwidth": 32 * 2**20,
    }  # fmt: skip
    assert ring.ask("n1", "RAFT.REBALANCE PAUSE") == OK
    ring.pass_time(200)
    assert {told(ring, name, "RAFT.REBALANCE")["paused"] for name in ring.addresses} == {1}
    assert b"rebalancing_paused:1" in ring.ask("n4", "INFO sepakat")
    session = ring.connect("n2")
    received = ring.send(session, "CLUSTER FORGET n5", "PING")
    ring.until(lambda: session.out)
    assert re.match(rb"-TRYAGAIN n5 is being drained: [0-9]+ shards are left", received + ring.received(session))
    assert told(ring, "n1", "RAFT.REBALANCE")["leaving"] == ["n5"]
    assert told(ring, "n1", "RAFT.REBALANCE")["moving"] != []
    assert ring.ask("n3", "RAFT.REBALANCE RESUME") == OK
    ring.pass_time(200)
    assert told(ring, "n5", "RAFT.REBALANCE")["paused"] == 0


@pytest.mark.parametrize(
    ("call", "line"),
    [
        ("RAFT.REBALANCE stop", b"-ERR syntax error\r\n"),
        ("RAFT.REBALANCE PAUSE n1", b"-ERR wrong number of arguments for 'raft.rebalance' command\r\n"),
        ("RAFT.NODES 1", b"-ERR wrong number of arguments for 'raft.nodes' command\r\n"),
    ],
)
def test_what_is_wrong_with_it_is_said(call: str, line: bytes, alone: WireFront) -> None:
    assert alone.ask(call) == line


def test_rebalancing_is_no_part_of_a_transaction(nodes: SeveralNodes) -> None:
    received = nodes.send(nodes.connect("n1"), "MULTI", "SET a 1", "RAFT.REBALANCE PAUSE", "RAFT.REBALANCE", "EXEC")
    assert b"-ERR Command not allowed inside a transaction\r\n" in received
