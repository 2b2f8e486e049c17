"""Many shards in one node: which of them a turn looks after, and that nothing is missed of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from cluster.machine.reply import Reply
from cluster.node import ROUND_MS, Node
from cluster.raft.messages import Append, Heartbeat
from cluster.ring.slots import SYSTEM
from cluster.shard import Shard
from cluster.storage.contract import Entry
from resp_server.settings import load
from tests.front import Front
from tests.scenarios.cluster import Cluster
from tests.scenarios.host import EPOCH_MS, Shape

SHARDS = 4


@pytest.fixture
def advances(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often each shard, of any node, was advanced."""
    counted: Counter[int] = Counter()
    advance = Shard.advance

    def count(shard: Shard, now_ms: int, monotonic_ms: float) -> None:
        counted[shard.number] += 1
        advance(shard, now_ms, monotonic_ms)

    monkeypatch.setattr(Shard, "advance", count)
    return counted


class Alone:
    """A node that is a cluster of its own, and its clock; nothing moves but by `turn`."""

    def __init__(self) -> None:
        self.front = Front(settings=load({"shards": str(SHARDS)}, {}))
        self.node = self.front.node
        self.now_ms = self.front.now_ms
        self.answers: list[Reply] = []
        for _ in range(5):
            self.turn(1_000)

    def turn(self, ms: float = 0, work: Callable[[Node], None] | None = None) -> list[Entry]:
        """One turn after so long; what it logged."""
        node = self.node
        self.now_ms += int(ms)
        node.advance(self.now_ms, self.now_ms)
        if work is not None:
            work(node)
        node.tick()
        made = node.ready()
        if made is not None:
            self.front.make_durable(made)
        self.answers += [reply for _, reply in node.apply().replies]
        assert node.outgoing() == []
        return list(made.entries) if made is not None else []

    def write(self, number: int, text: str, ms: float = 0) -> list[Entry]:
        """One turn with a command for a shard."""

        def work(node: Node) -> None:
            args = [word.encode() for word in text.split()]
            shard = node.shards[number]
            node.touch(shard)
            shard.submit(None, shard.machine.handler(args[0]), args)

        return self.turn(ms, work)


@pytest.fixture
def alone() -> Alone:
    return Alone()


# What is not used costs nothing


def test_a_shard_that_nobody_uses_is_never_advanced(alone: Alone, advances: Counter[int]) -> None:
    for number in range(100):
        alone.write(1, f"SET x {number}", ms=1)
    assert advances[1] == 100
    assert {0, 2, 3} & advances.keys() == set()


def test_a_shard_is_advanced_once_a_turn_however_often_it_is_used(alone: Alone, advances: Counter[int]) -> None:
    def work(node: Node) -> None:
        for _ in range(5):
            node.touch(node.shards[2])

    alone.turn(5, work)
    assert advances == {2: 1}


def test_a_turn_with_nothing_to_do_touches_nothing(alone: Alone, advances: Counter[int]) -> None:
    alone.turn(ROUND_MS)
    advances.clear()
    for _ in range(20):
        alone.turn(1)
    assert advances == {}
    assert not alone.node.busy


def test_a_touched_shard_has_this_turn_s_clocks(alone: Alone) -> None:
    shard = alone.node.shards[3]
    before_ms = shard.now_ms
    alone.turn(5_000)
    assert shard.now_ms == before_ms
    alone.node.touch(shard)
    assert (shard.now_ms, shard.monotonic_ms) == (alone.now_ms, alone.now_ms)
    assert shard.turn == alone.node.turn


def test_followers_of_idle_shards_are_advanced_by_heartbeats_only(advances: Counter[int]) -> None:
    cluster = Cluster(3, Shape(shards=SHARDS))
    cluster.pass_ms(6_000)  # all are led by whom they should be
    advances.clear()
    cluster.pass_ms(1_000)
    for number in range(SHARDS):
        assert 3 <= advances[number] <= 60, f"shard {number} on three nodes"


def test_what_comes_for_one_shard_touches_no_other(advances: Counter[int]) -> None:
    cluster = Cluster(3, Shape(shards=SHARDS))
    cluster.pass_ms(3_000)
    node = cluster.hosts["n1"].node
    node.advance(EPOCH_MS + int(cluster.now_ms), cluster.now_ms)
    advances.clear()
    node.receive("n2", 2, Heartbeat(99, 0, 1, {}))
    node.receive("n2", 2, Append(99, 0, 0, 0, []))
    assert advances == {2: 1}
    node.receive("n2", 77, Heartbeat(99, 0, 1, {}))  # there is no such shard
    assert advances == {2: 1}


# Nothing is missed


def test_an_alarm_of_a_shard_that_nobody_uses_rings_in_time(alone: Alone) -> None:
    end_ms = alone.now_ms + 5_000
    alone.write(2, "SET x 1 PX 5000")
    for number in range(30):
        alone.write(1, f"SET y {number}", ms=100)
    values = alone.node.shards[2].machine.keyspace.values
    assert values.keys() == {b"x"}
    while values:
        due_ms = alone.node.next_due_ms()
        assert due_ms is not None
        assert alone.now_ms < due_ms <= end_ms, "it may be called before it is time, never after"
        alone.now_ms = due_ms
        entries = alone.turn()
    assert alone.now_ms == end_ms
    assert [entry.shard for entry in entries] == [2]
    assert alone.node.next_due_ms() is None


def test_alarms_of_several_shards_ring_each_in_its_time(alone: Alone) -> None:
    begin_ms = alone.now_ms
    for number in (3, 0, 2):
        alone.write(number, f"SET x 1 PX {1_000 + number * 500}")
    rung = []
    while (due_ms := alone.node.next_due_ms()) is not None:
        alone.now_ms = max(alone.now_ms, due_ms)
        rung += [(entry.shard, alone.now_ms - begin_ms) for entry in alone.turn()]
    assert [number for number, _ in rung] == [0, 2, 3]
    for number, after_ms in rung:
        assert 1_000 + number * 500 <= after_ms <= 1_020 + number * 500


def test_alarms_that_are_due_at_once_ring_in_one_turn(alone: Alone) -> None:
    for number in range(SHARDS):
        alone.write(number, "SET x 1 PX 1000")
    assert {entry.shard for entry in alone.turn(2_000)} == set(range(SHARDS))


def test_an_alarm_that_is_set_earlier_than_all_others_counts(alone: Alone) -> None:
    alone.write(1, "SET x 1 PX 60000")
    alone.write(2, "SET x 1 PX 1000")
    alone.write(1, "PEXPIRE x 500")
    (entry,) = alone.turn(600)
    assert entry.shard == 1
    (entry,) = alone.turn(600)
    assert entry.shard == 2


def test_what_was_asked_in_a_turn_that_could_not_take_it_goes_into_the_next(alone: Alone) -> None:
    """The caller skips `ready` while the disk is at something."""
    node = alone.node

    def work(node: Node) -> None:
        shard = node.shards[1]
        node.touch(shard)
        shard.submit("client", shard.machine.handler(b"SET"), [b"SET", b"x", b"1"])

    node.advance(alone.now_ms, alone.now_ms)
    work(node)
    node.tick()
    node.apply()
    node.outgoing()
    assert node.busy
    (entry,) = alone.turn(5)
    assert entry.shard == 1
    assert not node.busy


def test_the_end_of_a_session_that_is_owed_happens_without_anybody_asking(alone: Alone) -> None:
    alone.write(1, "SET x 1")
    origin = alone.node.origin(5)

    def work(node: Node) -> None:
        node.touch(node.shards[1])
        node.shards[1].end_session(origin)

    entries = alone.turn(1, work)
    entries += alone.turn(1)
    assert [entry.shard for entry in entries] == [1]


def test_one_commit_is_for_all_shards_of_a_turn(alone: Alone) -> None:
    def work(node: Node) -> None:
        for shard in node.shards:
            node.touch(shard)
            shard.submit(shard.number, shard.machine.handler(b"SET"), [b"SET", b"x", b"1"])

    entries = alone.turn(1, work)
    assert [entry.shard for entry in entries] == list(range(SHARDS))
    assert len(alone.answers[-SHARDS:]) == SHARDS


def test_elections_of_shards_that_nobody_touches_happen() -> None:
    cluster = Cluster(3, Shape(shards=8))
    cluster.pass_ms(6_000)
    leaders = {number: cluster.leader(number) for number in range(8)}
    assert len(set(leaders.values())) == 3, "they are spread"
    cluster.crash("n1")
    cluster.pass_ms(1_000)
    for number in range(8):
        leader = cluster.leader(number)
        assert leader not in (None, "n1")
        if leaders[number] != "n1":
            assert leader == leaders[number]
    assert all(host.node.has_leader for host in cluster.hosts.values() if host.up)


def test_shards_have_leaders_of_their_own() -> None:
    """What happens to one is nothing to the others."""
    cluster = Cluster(3, Shape(shards=2))
    cluster.pass_ms(6_000)
    cluster.events.clear()
    former = cluster.leader(0)
    other = next(name for name in cluster.hosts if name != former)
    cluster.change(other, "lead", other)
    cluster.pass_ms(50)
    assert cluster.leader(0) == other
    assert not any("shard 1" in event for event in cluster.events)


# Checkpoints, one shard at a time


def test_the_shard_whose_log_grew_most_is_next(alone: Alone) -> None:
    node = alone.node
    for number, length in ((0, 10), (1, 3_000), (2, 500)):
        alone.write(number, f"SET x {'y' * length}")
    done = []
    while (most := node.next_checkpoint()) is not None:
        _, index, _, _ = node.begin_checkpoint(most)
        node.end_checkpoint(most, index, durable=True)
        done.append(most)
    assert done[:2] == [1, 2]
    assert sorted(done) == sorted({*range(SHARDS), SYSTEM} & set(done))
    assert node.bytes_since_checkpoint == 0


def test_a_checkpoint_that_failed_is_wanted_again(alone: Alone) -> None:
    node = alone.node
    alone.write(1, f"SET x {'y' * 3_000}")
    grown = node.bytes_since_checkpoint
    _, index, _, _ = node.begin_checkpoint(1)
    assert node.bytes_since_checkpoint < grown
    node.end_checkpoint(1, index, durable=False)
    assert node.bytes_since_checkpoint == grown
    assert node.next_checkpoint() == 1
