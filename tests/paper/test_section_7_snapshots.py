"""Section 7: InstallSnapshot, in pieces."""

from __future__ import annotations

from cluster.raft.messages import Append, Appended, Chunk, ChunkTaken, Heartbeat
from cluster.raft.progress import State
from tests.paper.group import Group, entries
from tests.paper.snapshots import KEYS, Courier, behind, chunk, first_piece


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
