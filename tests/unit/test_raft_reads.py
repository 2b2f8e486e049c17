"""Reads that wait for a majority, and a snapshot on its way: both are a few marks that only move forward."""

from __future__ import annotations

from cluster.raft.messages import ChunkTaken
from cluster.raft.patience import extra_ms
from cluster.raft.reads import Asked, Reads
from cluster.raft.transfer import RESEND_MS, Transfer


def asked(number: int, after_us: int, author: bytes = b"n2") -> Asked:
    return Asked(author, number, 10, after_us)


def test_reads_are_confirmed_up_to_the_heartbeat_a_majority_answered() -> None:
    reads = Reads()
    for number, after_us in ((1, 100), (2, 100), (3, 250)):
        reads.ask(asked(number, after_us))
    assert reads.confirmed(99) == []
    assert [one.number for one in reads.confirmed(100)] == [1, 2]
    assert [one.number for one in reads.confirmed(249)] == []
    assert [one.number for one in reads.confirmed(9999)] == [3]
    assert len(reads) == 0


def test_what_the_newest_one_waits_for() -> None:
    reads = Reads()
    assert reads.newest_us == 0
    reads.ask(asked(1, 100))
    reads.ask(asked(2, 250))
    assert reads.newest_us == 250


def test_what_somebody_asked_last() -> None:
    reads = Reads()
    reads.ask(asked(4, 100, b"n1"))
    reads.ask(asked(9, 100, b"n2"))
    assert (reads.asked_by(b"n1"), reads.asked_by(b"n2"), reads.asked_by(b"n3")) == (4, 9, 0)


def test_the_first_piece_is_due_at_once_and_the_next_when_it_is_answered() -> None:
    transfer = Transfer()
    assert transfer.due(0.0)
    transfer.sent(50, 100, 0.0)
    assert not transfer.due(RESEND_MS)
    transfer.taken(ChunkTaken(1, 50, 1, False), 5.0)
    assert (transfer.index, transfer.position, transfer.due(5.0)) == (50, 1, True)


def test_a_piece_that_is_not_answered_is_due_again() -> None:
    transfer = Transfer()
    transfer.sent(50, 100, 0.0)
    assert transfer.due(RESEND_MS + 1)
    assert transfer.position == 0


def test_a_large_piece_is_given_the_time_it_takes() -> None:
    transfer = Transfer()
    transfer.still_sending(1.0)
    assert transfer.due(1.0), "nothing was sent"
    transfer.sent(50, 100_000_000, 0.0)
    late_ms = RESEND_MS + extra_ms(100_000_000)
    assert late_ms > 20_000
    assert (transfer.due(late_ms), transfer.due(late_ms + 1)) == (False, True)
    transfer.still_sending(late_ms)
    assert (transfer.due(2 * late_ms), transfer.due(2 * late_ms + 1)) == (False, True)


def test_an_answer_that_comes_twice_asks_for_nothing_new() -> None:
    transfer = Transfer()
    transfer.sent(50, 100, 0.0)
    transfer.taken(ChunkTaken(1, 50, 1, False), 5.0)
    transfer.sent(50, 100, 6.0)
    transfer.taken(ChunkTaken(1, 50, 1, False), 7.0)
    assert not transfer.due(8.0)


def test_an_answer_about_another_snapshot_is_none() -> None:
    transfer = Transfer()
    transfer.sent(50, 100, 0.0)
    transfer.taken(ChunkTaken(1, 40, 3, False), 5.0)
    assert (transfer.index, transfer.position, transfer.due(6.0)) == (50, 0, False)


def test_a_follower_that_asks_for_the_first_piece_gets_the_newest_snapshot() -> None:
    transfer = Transfer()
    transfer.sent(50, 100, 0.0)
    transfer.taken(ChunkTaken(1, 50, 1, False), 1.0)
    transfer.sent(50, 100, 1.0)
    transfer.taken(ChunkTaken(1, 50, 0, False), 2.0)
    assert (transfer.index, transfer.position, transfer.due(2.0)) == (None, 0, True)
