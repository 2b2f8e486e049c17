"""Section 7: snapshots that are interrupted, and followers that are away. The paper leaves all of it open."""

from __future__ import annotations

import random

import pytest

from cluster.raft.messages import Chunk, ChunkTaken
from cluster.raft.transfer import ABANDONED_MS, RESEND_MS
from tests.paper.group import Group
from tests.paper.snapshots import KEYS, Courier, behind, first_piece


@pytest.mark.parametrize("what", ["piece", "answer"])
def test_a_piece_or_an_answer_that_is_lost_costs_one_piece(what: str) -> None:
    """Ours, for figure 13's "offset": the leader sends the same piece again, and the follower goes on from there."""
    group, courier = behind()
    first_piece(group, courier)
    sent: list[int] = []
    for _ in range(30):
        group.pass_ms(RESEND_MS / 4)
        sent += [one.position for one in courier.send("n1")]
        group.collect()
        if what == "piece" and len(sent) == 1:
            group.lose(Chunk)
        group.settle()
        while (piece := courier.take("n3")) is not None:
            courier.finish("n3", piece)
        if what == "answer" and len(sent) == 1:
            group.lose(ChunkTaken)
    assert [name for name, _ in courier.installed] == ["n3"]
    assert sent == [1, 1, 2, 3, 4]
    assert courier.state("n3") == courier.state("n1")


def test_a_longer_interruption_costs_one_piece_too() -> None:
    """Ours: as long as nobody gave up, the leader is the same and the follower was not started again."""
    group, courier = behind()
    first_piece(group, courier)
    group.settle()
    piece = courier.take("n3")
    assert piece is not None
    courier.finish("n3", piece)
    group.cut("n3")
    group.lose()
    group.pass_ms(ABANDONED_MS - 1000)
    group.heal()
    courier.move()
    positions = []
    for _ in range(8):
        group.pass_ms(RESEND_MS / 2)
        positions += [one.position for one in courier.send("n1")]
        courier.move(1)
    assert 0 not in positions[1:]
    assert courier.state("n3") == courier.state("n1")


def test_a_follower_that_is_not_there_gets_no_snapshot() -> None:
    """Ours: what must follow a snapshot is kept in memory, and that must not be for as long as somebody is away."""
    group = Group()
    group.elect("n1")
    group.crash("n3")
    courier = Courier(group)
    for number in range(3):
        group.write("n1", b"%d" % number)
        group.pass_ms(1000)
        courier.checkpoint("n1")
        assert courier.send("n1") == []
        assert group["n1"].log.base_index == group["n1"].log.last_index
    group.start("n3")
    courier.watch("n3")
    group.pass_ms(400)
    courier.move()
    assert courier.state("n3") == courier.state("n1")


def test_a_snapshot_for_a_follower_that_went_away_is_given_up() -> None:
    """Ours: after as long as the follower waits for a piece; then the log is cut again as if it were not there."""
    group, courier = behind()
    first_piece(group, courier)
    group.crash("n3")
    group.write("n1", b"later")
    group.pass_ms(ABANDONED_MS / 2)
    courier.checkpoint("n1")
    assert group["n1"].log.base_index < group["n1"].log.last_index
    group.pass_ms(ABANDONED_MS)
    assert not courier.snapshots["n1"].moving
    courier.checkpoint("n1")
    assert group["n1"].log.base_index == group["n1"].log.last_index
    group.start("n3")
    courier.watch("n3")
    group.pass_ms(400)
    courier.move()
    assert courier.state("n3") == courier.state("n1")


def test_a_follower_that_was_away_when_the_leader_was_elected_gets_what_it_lacks_from_the_log() -> None:
    """5.3: that it did not answer says nothing of how far it is, so it is no reason for a snapshot."""
    group = Group()
    group.elect("n2")
    for number in range(5):
        group.write("n2", b"%d" % number)
    group.pass_ms(100)
    group.crash("n3")
    for name in ("n1", "n2"):
        group[name].compact(3, 0)
    group.elect("n1")
    group.write("n1", b"while it was away")
    group.pass_ms(5000)
    leading = group["n1"].leading
    assert leading is not None
    assert not leading.transfers
    group.start("n3")
    group.pass_ms(400)
    assert group.payloads("n3")[-1] == b"while it was away"


def test_a_follower_that_starts_again_gets_the_snapshot_from_the_beginning() -> None:
    """Ours: what it had stored was a checkpoint under way, which no crash survives."""
    group, courier = behind()
    first_piece(group, courier)
    group.settle()
    piece = courier.take("n3")
    assert piece is not None
    courier.finish("n3", piece)
    group.crash("n3")
    group.start("n3")
    courier.watch("n3")
    for _ in range(8):
        group.pass_ms(RESEND_MS / 2)
        courier.move()
    assert courier.installed == [("n3", KEYS + 1)]
    assert courier.state("n3") == courier.state("n1")


def test_a_snapshot_interrupted_by_a_change_of_leader_is_taken_from_the_next() -> None:
    """Ours: leaders' checkpoints differ, so their pieces are never mixed."""
    group, courier = behind()
    first_piece(group, courier)
    group.settle()
    piece = courier.take("n3")
    assert piece is not None
    courier.finish("n3", piece)
    group.write("n1", b"later")
    group.pass_ms(100)
    group.crash("n1")
    courier.checkpoint("n2")
    group.elect("n2")
    for _ in range(8):
        group.pass_ms(RESEND_MS / 2)
        for _ in range(10):
            group.settle()
            courier.send("n2")
            while (piece := courier.take("n3")) is not None:
                courier.finish("n3", piece)
    assert courier.installed == [("n3", group["n2"].log.base_index)]
    assert courier.state("n3") == courier.state("n2")


def test_a_snapshot_that_was_given_up_in_the_middle_begins_anew() -> None:
    """Ours: a follower that heard no more of it for long makes room for its own checkpoints."""
    group, courier = behind()
    first_piece(group, courier)
    group.settle()
    piece = courier.take("n3")
    assert piece is not None
    courier.finish("n3", piece)
    courier.storages["n3"].abandon_checkpoint()
    courier.snapshots["n3"].abandon()
    for _ in range(8):
        group.pass_ms(RESEND_MS / 2)
        courier.move()
    assert courier.state("n3") == courier.state("n1")


@pytest.mark.parametrize("seed", range(10))
def test_pieces_that_come_twice_late_or_in_the_wrong_order_end_in_the_same_state(seed: int) -> None:
    """5.5 for figure 13."""
    chance = random.Random(seed)
    group, courier = behind()
    late = []
    for _ in range(1500):
        group.now_ms += 20
        group.tick()
        for name in group.names:
            group.save(name)
            group.carry_out(name)
        courier.send("n1")
        group.collect()
        chance.shuffle(group.wire)
        for packet in list(group.wire):
            if chance.random() < 0.1:
                group.wire.remove(packet)
                continue
            if isinstance(packet.message, Chunk | ChunkTaken) and chance.random() < 0.2:
                late.append(packet)
            group.deliver(packet)
        if late and chance.random() < 0.3:
            group.deliver(late.pop(chance.randrange(len(late))))
        if chance.random() < 0.8 and (piece := courier.take("n3")) is not None:
            courier.finish("n3", piece)
        if courier.installed:
            break
    group.pass_ms(300)
    assert courier.installed[0] == ("n3", KEYS + 1)
    assert courier.state("n3") == courier.state("n1")
    assert len(courier.installed) == 1
