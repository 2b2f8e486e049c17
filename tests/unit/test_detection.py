"""Deadlocks over several shards: found, confirmed and broken, whoever leads what, and no others."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import pytest

from cluster.contention import SHORT_MS
from cluster.machine.lock import Lock
from cluster.machine.lock_deadlocks import Link, is_standing, standing
from cluster.raft.messages import Contended, Message
from cluster.ring.slots import SYSTEM, slot_of
from resp_server.session import Session
from tests.unit.several_nodes import STEP_MS, SeveralNodes

SHARDS = 8
FOREVER = "PX 3600000 BLOCK 0"


class Ring:
    """Owners ``o0``, ``o1``, …, each of which holds a key of a shard of its own; their clients take turns on nodes."""

    def __init__(self, nodes: SeveralNodes, owners: int, away: str = "") -> None:
        self.nodes = nodes
        self.keys = [key_in(nodes, shard) for shard in range(owners)]
        names = [name for name in nodes.members if name != away]
        self.clients = [nodes.connect(names[number % len(names)]) for number in range(owners)]
        for number, (client, key) in enumerate(zip(self.clients, self.keys, strict=True)):
            assert nodes.send(client, f"LOCK.ACQUIRE {key} o{number} {FOREVER}").startswith(b":")

    def wait(self, numbers: Sequence[int]) -> None:
        """Each of these owners begins to wait for what the next one holds, one after the other."""
        for number in numbers:
            key = self.keys[(number + 1) % len(self.keys)]
            self.nodes.send(self.clients[number], f"LOCK.ACQUIRE {key} o{number} {FOREVER}")
            self.nodes.pass_time(STEP_MS)

    def told(self) -> dict[int, bytes]:
        """What each client received since the last look, of those that received anything."""
        received = {number: self.nodes.received(client) for number, client in enumerate(self.clients)}
        return {number: bytes_ for number, bytes_ in received.items() if bytes_}


def key_in(nodes: SeveralNodes, shard: int) -> str:
    """A key of this shard."""
    slot_shard = next(iter(nodes.members.values())).node.slot_shard
    return next(
        key for number in count() if slot_shard[slot_of(f"k{number}".encode())] == shard and (key := f"k{number}")
    )


@pytest.fixture
def three() -> SeveralNodes:
    return SeveralNodes(3, SHARDS)


@pytest.mark.parametrize("owners", [2, 3, 8])
def test_a_cycle_is_broken_at_the_last_to_wait(three: SeveralNodes, owners: int) -> None:
    ring = Ring(three, owners)
    ring.wait(range(owners))
    three.pass_time(200)
    [(victim, error)] = ring.told().items()
    assert victim == owners - 1
    steps = [f"o{n} waits for {ring.keys[(n + 1) % owners]} held by o{(n + 1) % owners}" for n in range(owners)]
    told = error.decode().removeprefix("-DEADLOCK ").strip().split(", ")
    assert sorted(told) == sorted(steps)
    assert three.send(ring.clients[victim], f"LOCK.RELEASE {ring.keys[victim]} o{victim}") == b":1\r\n"
    assert list(ring.told()) == [victim - 1]


def test_on_nodes_without_replicas() -> None:
    five = SeveralNodes(5, SHARDS)
    ring = Ring(five, 5)
    ring.wait([2, 3, 4, 0, 1])
    five.pass_time(200)
    assert list(ring.told()) == [1]


def test_clocks_of_shards_that_differ(three: SeveralNodes) -> None:
    """Who began last is told by how long each has waited, not by what the clocks say."""
    ahead = three.members[three.leader_of(1)].node.shards[1]
    ahead._pace.follow(ahead.now_ms + 60_000)
    ring = Ring(three, 2)
    ring.wait([0])
    three.pass_time(100)
    ring.wait([1])
    three.pass_time(200)
    assert list(ring.told()) == [1]


def test_all_the_cycles_there_are(three: SeveralNodes) -> None:
    rings = [Ring(three, 2)]
    one, other = key_in(three, 5), key_in(three, 6)
    clients = [three.connect("n1"), three.connect("n2")]
    for client, key, owner in zip(clients, (one, other), ("x", "y"), strict=True):
        three.send(client, f"LOCK.ACQUIRE {key} {owner} {FOREVER}")
    rings[0].wait([0, 1])
    three.send(clients[0], f"LOCK.ACQUIRE {other} x {FOREVER}")
    three.pass_time(STEP_MS)
    three.send(clients[1], f"LOCK.ACQUIRE {one} y {FOREVER}")
    three.pass_time(300)
    assert list(rings[0].told()) == [1]
    assert [three.received(client)[:9] for client in clients] == [b"", b"-DEADLOCK"]
    told = three.ask("n3", "LOCK.GRAPH")
    assert b"deadlocks\r\n:2\r\n" in told


def test_a_chain_is_no_cycle(three: SeveralNodes) -> None:
    ring = Ring(three, 4)
    ring.wait([0, 1, 2])
    three.pass_time(2_000)
    assert not ring.told()


def test_a_wait_that_ended_closes_nothing(three: SeveralNodes) -> None:
    ring = Ring(three, 3)
    ring.wait([0])
    three.pass_time(200)
    assert three.send(ring.clients[1], f"LOCK.RELEASE {ring.keys[1]} o1") == b":1\r\n"
    assert list(ring.told()) == [0]
    ring.wait([1, 2])  # which would close it, were the first still waiting
    three.pass_time(2_000)
    assert not ring.told()


def test_a_lock_that_changed_hands_closes_a_cycle(three: SeveralNodes) -> None:
    """Nobody began to wait last: the next in line got what another waits for."""
    ring = Ring(three, 2)
    other = three.connect("n2")
    three.send(other, f"LOCK.ACQUIRE third x {FOREVER}")
    more = three.connect("n3")
    three.send(more, f"LOCK.ACQUIRE third o1 {FOREVER}")  # in a session of its own
    ring.wait([1])
    three.send(ring.clients[0], f"LOCK.ACQUIRE third o0 {FOREVER}")
    three.pass_time(500)
    assert not ring.told()
    three.send(other, "LOCK.RELEASE third x")
    assert three.received(more).startswith(b":")
    three.pass_time(200)
    assert [(number, error[:9]) for number, error in ring.told().items()] == [(0, b"-DEADLOCK")]


def test_waits_behind_somebody_who_waits_for_several(three: SeveralNodes) -> None:
    one, two = "{a}1", "{a}2"
    clients = {owner: three.connect(node) for owner, node in (("a", "n1"), ("b", "n2"), ("c", "n3"))}
    other = next(
        f"k{n}" for n in count() if three.members["n1"].node.slot_shard[slot_of(b"k%d" % n)] != shard_of(three, one)
    )
    three.send(clients["a"], f"LOCK.ACQUIRE {one} a {FOREVER}")
    three.send(clients["c"], f"LOCK.ACQUIRE {other} c {FOREVER}")
    three.send(clients["b"], f"LOCK.MACQUIRE 2 {one} {two} b {FOREVER}")
    three.send(clients["c"], f"LOCK.ACQUIRE {two} c {FOREVER}")  # free, but b comes first
    three.pass_time(STEP_MS)
    three.send(clients["a"], f"LOCK.ACQUIRE {other} a {FOREVER}")
    three.pass_time(300)
    told = {owner: three.received(client) for owner, client in clients.items()}
    assert told["b"] == told["c"] == b""
    assert b"c waits for {a}2 behind b, b waits for {a}1 held by a" in told["a"]


def shard_of(nodes: SeveralNodes, key: str) -> int:
    """The shard a key is in."""
    return nodes.members["n1"].node.slot_shard[slot_of(key.encode())]


# Whoever leads


@pytest.mark.parametrize("before", [True, False], ids=["before", "meanwhile"])
def test_another_leader_of_the_system_group(before: bool) -> None:
    """Whoever looks for deadlocks is gone, and its successor is told everything."""
    five = SeveralNodes(5, SHARDS)
    gone = five.leader_of(SYSTEM)
    ring = Ring(five, 4, away=gone)
    others = [member.node for name, member in five.members.items() if name != gone]
    if before:
        ring.wait([0, 1])
    five.cut.add(gone)
    five.until(lambda: all(shard.leader not in (None, gone) for node in others for shard in node.each()))
    ring.wait([2, 3] if before else [0, 1, 2, 3])
    five.until(lambda: any(client.out for client in ring.clients))
    assert [number for number, told in ring.told().items() if told.startswith(b"-DEADLOCK")] == [3]


def test_another_leader_of_a_shard(three: SeveralNodes) -> None:
    """What it has carried out itself it reports, whoever led when that was asked for."""
    ring = Ring(three, 3)
    ring.wait([0, 1])
    old = three.leader_of(0)
    resign = next(name for name in three.members if name != old)
    three.members[old].node.stir(three.members[old].node.shards[0])
    three.members[old].node.shards[0].resign()
    three.until(lambda: three.members[resign].node.shards[0].leader not in (None, old))
    ring.wait([2])
    three.until(lambda: any(client.out for client in ring.clients))
    assert [number for number, told in ring.told().items() if told.startswith(b"-DEADLOCK")] == [2]


# What is said, and what is not


@pytest.fixture
def reports(three: SeveralNodes, monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """The reports any node receives."""
    found: list[Message] = []
    for member in three.members.values():
        receive = member.node.receive

        def hear(peer: str, number: int, message: Message, held_ms: float = 0.0, receive=receive) -> None:  # type: ignore[no-untyped-def]
            if isinstance(message, Contended):
                found.append(message)
            receive(peer, number, message, held_ms)

        monkeypatch.setattr(member.node, "receive", hear)
    return found


def far_key(nodes: SeveralNodes) -> str:
    """A key of a shard that the looking node does not lead."""
    looks = nodes.leader_of(SYSTEM)
    shard = next(number for number in range(SHARDS) if nodes.leader_of(number) != looks)
    return key_in(nodes, shard)


def test_what_does_not_last_is_not_spoken_of(three: SeveralNodes, reports: list[Message]) -> None:
    key = far_key(three)
    holder, waiter = three.connect("n1"), three.connect("n2")
    for _ in range(20):
        three.send(holder, f"LOCK.ACQUIRE {key} a PX 60000")
        three.send(waiter, f"LOCK.ACQUIRE {key} b PX 60000 BLOCK 0")  # `send` takes no time
        three.send(holder, f"LOCK.RELEASE {key} a")
        three.send(waiter, f"LOCK.RELEASE {key} b")
    assert not reports
    three.send(holder, f"LOCK.ACQUIRE {key} a PX 60000")
    three.send(waiter, f"LOCK.ACQUIRE {key} b PX 60000 BLOCK 0")
    three.pass_time(5 * SHORT_MS)
    assert len(reports) == 1
    three.pass_time(1000)
    assert len(reports) == 1, "it was heard, and nothing has happened since"


def test_what_is_kept_to_be_said_does_not_grow(three: SeveralNodes) -> None:
    key = far_key(three)
    changes = (
        three.members[three.leader_of(shard_of(three, key))]
        .node.shards[shard_of(three, key)]
        .machine.lock_waits.changes
    )
    client = three.connect("n1")
    for number in range(50):
        three.send(client, f"LOCK.ACQUIRE {key}{number} a", f"LOCK.RELEASE {key}{number} a")
    assert changes is not None
    assert not [*changes.begun, *changes.ended, *changes.keys]


def test_a_report_that_is_lost_is_said_again(three: SeveralNodes) -> None:
    looks = three.leader_of(SYSTEM)
    ring = Ring(three, 2)
    ring.wait([0])
    lost = [name for name in three.members if name != looks]
    three.send(ring.clients[1], f"LOCK.ACQUIRE {ring.keys[0]} o1 {FOREVER}")
    three.cut.add(looks)
    three.pass_time(50)
    three.cut.clear()
    assert lost
    three.until(lambda: any(client.out for client in ring.clients))
    assert [told[:9] for told in ring.told().values()] == [b"-DEADLOCK"]


# What a shard is asked


def link_of(nodes: SeveralNodes, client: Session, key: str, other: str) -> Link:
    """The wait of a client, as the shard's leader would be asked for it."""
    shard = shard_of(nodes, key)
    machine = nodes.members[nodes.leader_of(shard)].node.shards[shard].machine
    waiter = machine.waiters.of(client.origin)
    assert waiter is not None
    lock = machine.keyspace.values[key.encode()]
    assert isinstance(lock, Lock)
    hold = lock.holder(other.encode())
    assert hold is not None
    return Link(client.origin, waiter.number, key.encode(), other.encode(), hold.token)


def test_only_the_very_wait_and_the_very_hold_stand(three: SeveralNodes) -> None:
    holder, waiter = three.connect("n1"), three.connect("n2")
    three.send(holder, f"LOCK.ACQUIRE k a {FOREVER}")
    three.send(waiter, f"LOCK.ACQUIRE k b {FOREVER}")
    first = link_of(three, waiter, "k", "a")
    shard = shard_of(three, "k")

    def stands(link: Link) -> bool:
        machine = three.members[three.leader_of(shard)].node.shards[shard].machine
        return bool(is_standing(machine, standing([link])))

    assert stands(first)
    three.send(holder, "LOCK.RELEASE k a")
    assert not stands(first)
    three.send(waiter, "LOCK.RELEASE k b")
    three.send(holder, f"LOCK.ACQUIRE k a {FOREVER}")
    three.send(waiter, f"LOCK.ACQUIRE k b {FOREVER}")
    assert not stands(first), "the same again is another wait, for another hold"
    again = link_of(three, waiter, "k", "a")
    assert stands(again)
    assert not stands(Link(again.origin, first.number, again.key, again.other, again.token))
    assert not stands(Link(again.origin, again.number, again.key, again.other, first.token))
    assert not stands(Link(again.origin, again.number, again.key, b"c", again.token))
    assert not stands(Link(again.origin, again.number, b"other", again.other, again.token))
