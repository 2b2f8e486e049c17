"""Section 7: log compaction, and InstallSnapshot in pieces."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from cluster.raft.log import Log
from cluster.raft.membership import Member, Membership, static
from cluster.raft.messages import Append, Appended, Chunk, ChunkTaken, Heartbeat
from cluster.raft.progress import State
from cluster.raft.transfer import ABANDONED_MS, RESEND_MS
from cluster.snapshots import ledger_of
from cluster.storage.contract import HardState
from tests.paper.group import Group, entries
from tests.paper.snapshots import Courier

KEYS = 9
"""Written before the checkpoint; with two rows in a piece it has five."""


def behind(log: Sequence[int] = ()) -> tuple[Group, Courier]:
    """n1 leads and has cut its log behind a checkpoint; n3 was cut off before all of it, with a log of its own."""
    group = Group()
    group.load("n3", entries(log, author="n3 "))
    group.cut("n3")
    group.load("n1", [], term=max(log, default=0))
    group.elect("n1")
    for number in range(KEYS):
        group.write("n1", b"key %d" % number)
    group.pass_ms(100)
    courier = Courier(group)
    courier.checkpoint("n1")
    group.heal()
    return group, courier


def first_piece(group: Group, courier: Courier) -> None:
    """Time passes until the leader has found out that n3 needs a snapshot, and has sent the first piece."""
    leading = group["n1"].leading
    assert leading is not None
    group.pass_ms(1000, until=lambda: "n3" in leading.transfers)
    assert [piece.position for piece in courier.send("n1")] == [0]


def chunk(index: int, *, term: int = 3, position: int = 0, last: bool = True) -> Chunk:
    """A piece of a snapshot without keys."""
    return Chunk(term, index, 2, position, ledger_of(static({"n1": "", "n2": "", "n3": ""}), b""), [], last)


# Compaction


def test_what_a_checkpoint_contains_is_cut_off_the_log() -> None:
    """7: "the entire log up to that point is discarded"; its last index and term are kept."""
    group = Group()
    group.elect("n1")
    for _ in range(5):
        group.write("n1")
    group.settle()
    log = group["n1"].log
    index, term, last = group["n1"].applied, log.last_term, log.last_index
    group["n1"].compact(index, 0)
    assert (log.base_index, log.base_term, log.last_index, log.last_term) == (index, term, last, term)
    assert log.holds(index, term)
    group.write("n1", b"after")
    group.settle()
    assert group["n1"].commit == last + 1


def test_some_entries_are_kept_for_followers_that_are_a_little_behind() -> None:
    """Ours: those bytes spare a snapshot."""
    group = Group()
    group.elect("n1")
    for _ in range(10):
        group.write("n1", bytes(100))
    group.settle()
    group["n1"].compact(group["n1"].applied, 300)
    assert group["n1"].log.last_index - group["n1"].log.base_index == 3


def test_entries_the_disk_has_not_taken_are_not_cut_off() -> None:
    """Ours: they may be committed and carried out before that, and the log on the disk must have no gap."""
    group = Group()
    group.elect("n1")
    group.slow_disks.add("n1")
    group.write("n1")
    group.settle()
    one = group["n1"]
    assert one.applied > one.log.saved_index
    one.compact(one.applied, 0)
    assert one.log.base_index == one.log.saved_index


def test_what_must_follow_a_snapshot_on_its_way_is_kept() -> None:
    """7: else the follower would need another snapshot at once, and another."""
    group, courier = behind()
    first_piece(group, courier)
    for number in range(5):
        group.write("n1", b"later %d" % number)
    group.pass_ms(100)
    newer = courier.checkpoint("n1")
    assert group["n1"].log.base_index < newer
    courier.move()
    group.pass_ms(200)
    assert [name for name, _ in courier.installed] == ["n3"]
    assert courier.state("n3") == courier.state("n1")


def test_a_configuration_outlives_the_entry_it_was_in() -> None:
    """7: "the snapshot also includes the latest configuration in the log as of last included index"."""
    group = Group()
    group.elect("n1")
    leading = group["n1"].leading
    assert leading is not None
    group.join("n4")
    leading.change(group["n1"].config.with_learner(Member("n4", "n4:1")))
    group.settle()
    since = group["n1"].membership.since
    for _ in range(3):
        group.write("n1")
    group.settle()
    config = group["n1"].membership.at(since)
    group["n1"].compact(since + 1, 0)
    assert group["n1"].membership.at(since + 1) == config


# InstallSnapshot


def test_a_follower_that_needs_what_was_cut_off_gets_the_snapshot_and_then_the_rest() -> None:
    """7: "the leader must occasionally send snapshots to followers that lag behind"."""
    group, courier = behind()
    first_piece(group, courier)
    group.write("n1", b"while it was on its way")
    courier.move()
    group.pass_ms(200)
    assert courier.installed == [("n3", KEYS + 1)]
    assert courier.state("n3") == courier.state("n1")
    assert b"while it was on its way" in courier.state("n3")
    assert group["n3"].log.base_index == KEYS + 1


def test_nothing_is_appended_while_a_snapshot_is_on_its_way() -> None:
    """7: the follower could not take it anyway."""
    group, courier = behind()
    first_piece(group, courier)
    group.write("n1")
    assert group.sent("n1", Append) == [packet.message for packet in group.waiting(Append, to="n2")]


def test_a_snapshot_replaces_a_log_that_does_not_reach_it() -> None:
    """7: "the follower discards its entire log; it is all superseded by the snapshot"."""
    group, courier = behind([1, 1, 1])
    first_piece(group, courier)
    courier.move()
    assert group["n3"].log.base_index == KEYS + 1
    assert courier.state("n3") == courier.state("n1")


def test_a_snapshot_of_what_the_follower_has_is_ignored_and_what_follows_is_kept() -> None:
    """7: "entries following the snapshot are still valid and must be retained"."""
    group = Group()
    group.load("n2", entries([1, 2, 2, 2]))
    before = group.log_of("n2")
    two = group["n2"]
    two.receive("n1", chunk(3))
    group.save("n2")
    assert two.chunks == []
    assert group.log_of("n2") == before
    assert [(one.index, one.installed) for one in group.sent("n2", ChunkTaken)] == [(3, True)]


def test_an_older_snapshot_than_what_is_committed_is_ignored() -> None:
    """7: it could only take back what was carried out."""
    group = Group()
    group.load("n2", entries([1, 1, 1]))
    group["n2"].receive("n1", Heartbeat(3, 3, 0, {}))
    group["n2"].receive("n1", chunk(2))
    assert group["n2"].chunks == []
    assert group["n2"].commit == 3


def test_a_piece_of_an_earlier_leader_is_ignored() -> None:
    """7, figure 13: "reply immediately if term < currentTerm"."""
    group, courier = behind()
    first_piece(group, courier)
    group.lose()
    three = group["n3"]
    three.receive("n1", chunk(50, position=0, last=False))
    three.receive("n2", Heartbeat(three.term + 1, 0, 0, {}))
    assert courier.take("n3") is None


def test_a_piece_is_answered_once_it_is_stored() -> None:
    """7, figure 13: as everything that is durable before it is acknowledged."""
    group, courier = behind()
    first_piece(group, courier)
    group.settle()
    piece = courier.take("n3")
    assert piece is not None
    assert courier.answers("n3") == []
    courier.finish("n3", piece)
    assert [(one.position, one.installed) for one in courier.answers("n3")] == [(1, False)]


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


def test_a_late_answer_about_another_snapshot_changes_nothing() -> None:
    """Ours: answers name the snapshot they are about."""
    group, courier = behind()
    first_piece(group, courier)
    leading = group["n1"].leading
    assert leading is not None
    leading.chunk_taken("n3", ChunkTaken(1, 4, 3, False))
    assert (leading.transfers["n3"].index, leading.transfers["n3"].position) == (KEYS + 1, 0)


def test_an_answer_of_a_follower_that_gets_no_snapshot_changes_nothing() -> None:
    """Ours: as after it has caught up."""
    group = Group()
    group.elect("n1")
    leading = group["n1"].leading
    assert leading is not None
    before = (leading.progress["n2"].match, leading.progress["n2"].next)
    group["n1"].receive("n2", ChunkTaken(1, 1, 1, True))
    assert (leading.progress["n2"].match, leading.progress["n2"].next) == before
    assert leading.progress["n2"].state is State.REPLICATE


# While the last piece is being stored: the log on the disk is about to be replaced


def last_piece_under_way() -> tuple[Group, Courier, tuple[Chunk, bytes]]:
    """n3 stores the last piece just now."""
    group, courier = behind()
    first_piece(group, courier)
    while True:
        group.settle()
        piece = courier.take("n3")
        if piece is None:
            courier.send("n1")
            continue
        if piece[0].last:
            return group, courier, piece
        courier.finish("n3", piece)


def test_while_the_last_piece_is_being_stored_no_entry_is_taken() -> None:
    """7: what came in between would be acknowledged, and then gone with the log that the snapshot replaces."""
    group, courier, piece = last_piece_under_way()
    group.crash("n1")
    group.elect("n2")  # which has the whole log
    group.write("n2", b"between")
    group.pass_ms(200)
    assert group.waiting(Appended, sender="n3") == []
    assert group["n3"].commit == 0
    courier.finish("n3", piece)
    group.pass_ms(1500)
    assert b"between" in courier.state("n3")
    assert group["n3"].commit == group["n2"].commit


def test_the_last_piece_is_not_stored_while_the_disk_is_at_an_entry() -> None:
    """7: it would be written into the log that replaced its own. The leader sends the piece again."""
    group = Group()
    group.load("n2", entries([1]))
    two = group["n2"]
    two.receive("n1", Append(3, 1, 1, 0, [(2, b"a")]))
    two.receive("n1", chunk(9))
    courier = Courier(group)
    group.give("n2")
    assert courier.take("n2") is None
    group.finish_save("n2")
    two.receive("n1", chunk(9))
    assert courier.take("n2") is not None


def test_a_last_piece_that_cannot_be_stored_keeps_nobody_from_appending() -> None:
    """Ours: the disk that is full for a snapshot may still take entries."""
    group = Group()
    two = group["n2"]
    two.receive("n1", chunk(9))
    courier = Courier(group)
    piece = courier.take("n2")
    assert piece is not None
    assert courier.snapshots["n2"].stored(piece[0], stored=False) is None
    two.receive("n1", Append(3, 0, 0, 0, [(2, b"a")]))
    assert two.log.last_index == 1


def test_a_snapshot_that_the_log_has_caught_up_with_is_not_stored() -> None:
    """7: a snapshot "that describes a prefix of its log", though it did not when it came."""
    group = Group()
    group.load("n2", entries([1]))
    two = group["n2"]
    two.receive("n1", chunk(3, last=False))
    two.receive("n1", Append(3, 1, 1, 0, [(2, b"a"), (2, b"b"), (3, b"c")]))
    courier = Courier(group)
    assert courier.take("n2") is None
    assert group["n2"].log.last_index == 4


def test_a_member_that_starts_behind_a_snapshot_goes_on_from_it() -> None:
    """7: its state, and the index and the term the log begins behind."""
    group = Group()
    raft = group["n2"]
    raft.recover(Log(7, 3, entries([3, 4], 8)), Membership(7, group.config), HardState(4, "n1"))
    assert (raft.commit, raft.applied, raft.log.last_index, raft.term, raft.vote) == (7, 7, 9, 4, "n1")
    raft.receive("n1", Append(5, 7, 3, 0, []))
    group.save("n2")
    assert group.sent("n2", Appended) == [Appended(5, 7)]
