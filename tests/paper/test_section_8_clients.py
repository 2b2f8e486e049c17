"""Section 8 and the dissertation's 6.3 and 6.4: what clients may rely on: reads, and a leader's first entry."""

from __future__ import annotations

import pytest

from cluster.raft.core import Timing
from cluster.raft.leading import Leading
from cluster.raft.messages import Alive, Append, Appended, Commit, Heartbeat, TimeoutNow, Vote
from tests.paper.group import Group, entries


def leading(group: Group, name: str = "n1") -> Leading:
    """What a leader knows."""
    found = group[name].leading
    assert found is not None
    return found


def without_leases() -> Group:
    """n1 leads, and every read asks a majority."""
    group = Group(timing=Timing(leases=False))
    group.elect("n1")
    return group


def with_leases(size: int = 3) -> Group:
    """n1 leads and has a lease."""
    group = Group(size)
    group.elect("n1")
    group.pass_ms(60)
    return group


def beat(group: Group, name: str = "n1") -> list[Heartbeat]:
    """A leader's timers run; the heartbeats on the wire."""
    group.tick(name)
    return group.sent(name, Heartbeat)


# The first entry of a term


def test_a_leader_begins_its_term_with_an_empty_entry() -> None:
    """8: "each leader ... commit a blank no-op entry into the log at the start of its term"."""
    group = Group()
    group.load("n1", entries([1, 1]))
    group.load("n3", entries([1, 1]))
    group.elect("n1", settled=False)
    assert group.log_of("n1")[2:] == [(2, b"")]
    assert group["n1"].commit == 0
    group.settle()
    assert group["n1"].commit == 3


def test_before_that_is_committed_no_read_is_answered() -> None:
    """8: "it may not know which" entries are committed; so the read waits for its own first one (6.4, step 1)."""
    group = Group()
    for name in group.names:
        group.load(name, entries([1, 1]))
    group.elect("n1", settled=False)
    group.slow_disks |= {"n2", "n3"}
    group.settle()
    one = leading(group)
    assert not one.settled
    one.ask_read(b"n1", 1)
    group.pass_ms(120)
    assert one.confirmed == []
    group.slow_disks.clear()
    group.pass_ms(60)
    assert [(asked.number, asked.index) for asked in one.confirmed] == [(1, 3)]


# ReadIndex


def test_a_read_index_needs_a_round_of_heartbeats_sent_after_it_was_asked() -> None:
    """6.4, step 3: "it issues a new round of heartbeats and waits for ... a majority"."""
    group = without_leases()
    group.wait(50)
    group.tick("n1")
    one = leading(group)
    one.ask_read(b"n1", 7)
    group.settle()  # the answers to the heartbeats that were under way when it was asked
    assert one.confirmed == []
    assert beat(group) != []
    group.settle()
    assert [(asked.author, asked.number, asked.index) for asked in one.confirmed] == [(b"n1", 7, group["n1"].commit)]


def test_a_read_index_is_the_commit_index_when_it_was_asked() -> None:
    """6.4, step 2: what is written later need not be seen, what was acknowledged before must be."""
    group = without_leases()
    index = group.write("n1")
    group.settle()
    one = leading(group)
    one.ask_read(b"n2", 1)
    group.write("n1")
    group.settle()
    beat(group)
    group.settle()
    assert [(asked.author, asked.index) for asked in one.confirmed] == [(b"n2", index)]


def test_a_minority_s_answers_confirm_nothing() -> None:
    """6.4: a leader that was deposed and does not know it must not serve reads."""
    group = Group(5, timing=Timing(leases=False))
    group.elect("n1")
    one = leading(group)
    group.cut("n3", "n4", "n5")
    one.ask_read(b"n1", 1)
    group.pass_ms(200)
    assert one.confirmed == []
    group.heal()
    group.pass_ms(60)
    assert [asked.number for asked in one.confirmed] == [1]


def test_several_reads_share_one_round() -> None:
    """6.4: "to amortize this cost" over all reads that came meanwhile."""
    group = without_leases()
    one = leading(group)
    for number in range(1, 6):
        one.ask_read(b"n1", number)
    assert len(beat(group)) == 2
    group.settle()
    assert [asked.number for asked in one.confirmed] == [1, 2, 3, 4, 5]


def test_answers_of_an_earlier_term_confirm_nothing() -> None:
    """6.4: they say who led then."""
    group = without_leases()
    group.elect("n2")
    group.elect("n1")
    one = leading(group)
    one.ask_read(b"n1", 1)
    late = Alive(1, one.reads.newest_us + 10**9, True)
    group["n1"].receive("n2", late)
    assert one.confirmed == []


def test_an_answer_of_somebody_who_follows_nobody_confirms_nothing() -> None:
    """6.4: a node that is there need not follow."""
    group = without_leases()
    one = leading(group)
    one.ask_read(b"n1", 1)
    group["n1"].receive("n2", Alive(1, one.reads.newest_us, False))
    assert one.confirmed == []


# Leases


def test_a_lease_counts_from_when_its_heartbeat_was_sent() -> None:
    """6.4.1: "start the lease ... at the time it sent the heartbeats": when the answers come says nothing."""
    group = with_leases()
    one = leading(group)
    group.wait(50)
    sent_ms = group.now_ms
    beat(group)
    group.wait(200)
    group.tick("n2", "n3")
    for name in group.names:
        group[name].advance(group.now_ms)
    group.settle()
    assert one.lease_until_ms() == pytest.approx(sent_ms + group.timing.lease_ms)


def test_under_a_lease_a_read_is_served_at_once() -> None:
    """6.4.1: no messages at all."""
    group = with_leases()
    one = leading(group)
    one.ask_read(b"n2", 5)
    assert [(asked.author, asked.number) for asked in one.confirmed] == [(b"n2", 5)]


def test_a_lease_that_ran_out_leaves_a_read_to_the_next_round() -> None:
    """6.4.1: a leader that is cut off does not answer."""
    group = with_leases()
    one = leading(group)
    group.cut("n1")
    group.pass_ms(250)
    assert one.lease_until_ms() <= group.now_ms
    one.ask_read(b"n1", 1)
    assert one.confirmed == []


def test_a_lease_ends_before_anybody_else_can_be_elected() -> None:
    """6.4.1: as long as clocks differ in pace by less than a tenth."""
    for drift in (0.0, 0.1):
        group = Group(timing=Timing())
        group.elect("n1")
        group.pass_ms(60)
        one = leading(group)
        until_ms = one.lease_until_ms()
        sent_ms = until_ms - group.timing.lease_ms
        # The earliest that a follower gives its vote away: an election timeout after it heard that heartbeat, on its
        # clock; the leader's clock shows this by then, if the follower's is fast and the leader's slow.
        vote_ms = sent_ms + group.timing.election_ms / (1 + drift) * (1 - drift)
        assert until_ms < vote_ms


def test_who_heard_the_leader_gives_its_vote_to_nobody_else_while_the_lease_lasts() -> None:
    """6.4.1 with 4.2.3: every other way to become the leader is closed for as long."""
    group = with_leases(5)
    one = leading(group)
    group.cut("n1")
    elected_ms = None
    for _ in range(200):
        group.pass_ms(5)
        if group.leader() != "n1":
            elected_ms = group.now_ms
            break
    assert elected_ms is not None
    assert one.lease_until_ms() < elected_ms


def test_a_follower_that_starts_again_may_have_promised_its_vote_to_nobody_else() -> None:
    """6.4.1: that promise is not on its disk, so it waits an election timeout before it votes, or stands itself."""
    group = with_leases()
    one = leading(group)
    group.cut("n1")
    for name in ("n2", "n3"):
        group.crash(name)
        group.start(name)
        group[name].receive("n9", Vote(5, 99, 4, pre=False, forced=False))
        assert (group[name].term, group[name].vote) == (1, "n1")
    until_ms = one.lease_until_ms()
    group.pass_ms(1000, until=lambda: group["n2"].leading is not None or group["n3"].leading is not None)
    assert group.now_ms > until_ms


def test_a_lease_ends_with_a_hand_over() -> None:
    """6.4.1: the election that a leader asks for is held back by nobody."""
    group = with_leases()
    one = leading(group)
    one.hand_over("n2")
    assert group.sent("n1", TimeoutNow) == [TimeoutNow(1)]
    assert one.lease_until_ms() <= group.now_ms
    group.lose(TimeoutNow)
    group.pass_ms(1000)
    assert one.successor is None
    assert one.lease_until_ms() <= group.now_ms, "that message may still come"


def test_who_is_alone_needs_no_lease() -> None:
    """6.4: there is no majority but itself."""
    group = Group(1)
    group.pass_ms(10)
    assert leading(group).lease_until_ms() == float("inf")
    leading(group).ask_read(b"n1", 1)
    assert [asked.number for asked in leading(group).confirmed] == [1]


def test_no_lease_when_reads_must_ask_a_majority() -> None:
    """Ours: ``read-mode quorum`` trusts no clock."""
    group = without_leases()
    group.pass_ms(200)
    assert leading(group).lease_until_ms() == 0


# What is told to others


def test_nobody_hears_of_a_commit_before_the_leader_has_carried_it_out() -> None:
    """Ours: else a client of a follower could see a write that a read on the leader, right after, does not show."""
    group = with_leases()
    one = group["n1"]
    index = group.write("n1")
    group.save("n1")
    group.lose()
    one.receive("n2", Appended(1, index))
    assert (one.commit, one.applied) == (index, index - 1)
    one.propose(b"next")
    leading(group).replicate_all()
    leading(group).tell("n2")
    group.wait(50)
    group.tick("n1")
    told = [append.commit for append in group.sent("n1", Append)]
    told += [heartbeat.commit for heartbeat in group.sent("n1", Heartbeat)]
    assert told
    assert max(told) == index - 1
    assert group.sent("n1", Commit) == []
    group.carry_out("n1")
    leading(group).tell("n2")
    assert group.sent("n1", Commit) == [Commit(1, index)]


def test_a_follower_that_waits_for_a_commit_is_told_at_once() -> None:
    """Ours: without waiting for the next append or heartbeat."""
    group = Group()
    group.elect("n1")
    group.pass_ms(60)
    index = group.write("n1")
    group.settle()
    assert group["n2"].commit == index - 1
    leading(group).tell("n2")
    group.settle()
    assert group["n2"].commit == index
