"""Figure 2, "persistent state ... updated on stable storage before responding to RPCs"."""

from __future__ import annotations

import pytest

from cluster.raft.messages import Append, Appended, Heartbeat, Message, Vote, Voted
from tests.paper.group import Group, entries


def is_told(group: Group, name: str, kind: type[Message]) -> bool:
    """Whether a member said something of that kind."""
    return bool(group.waiting(kind, sender=name))


def test_a_vote_is_durable_before_anybody_hears_of_it() -> None:
    """Figure 2: votedFor and currentTerm, before the answer to RequestVote."""
    group = Group()
    group["n2"].receive("n1", Vote(5, 0, 0, pre=False, forced=True))
    group.give("n2")
    assert not is_told(group, "n2", Voted)
    group.finish_save("n2")
    assert is_told(group, "n2", Voted)
    assert (group.on_disk("n2")[0].term, group.on_disk("n2")[0].vote) == (5, "n1")


def test_a_candidate_s_own_vote_is_durable_before_it_asks_for_others() -> None:
    """Figure 2: it votes for itself; after a crash it might vote for another in the same term."""
    group = Group()
    one = group["n1"]
    group.wait(301)
    group.tick("n1")
    assert is_told(group, "n1", Vote), "a pre-vote promises nothing"
    group.lose()
    one.receive("n2", Voted(1, granted=True, pre=True))
    assert one.term == 1
    group.give("n1")
    assert not is_told(group, "n1", Vote)
    group.finish_save("n1")
    assert is_told(group, "n1", Vote)
    assert group.on_disk("n1")[0].vote == "n1"


def test_a_candidate_that_won_before_its_own_vote_was_durable_says_nothing_before_it_is() -> None:
    """Figure 2: nor as the leader of that term."""
    group = Group(1)
    group.wait(301)
    group.tick("n1")
    assert group["n1"].leading is not None
    assert group["n1"].commit == 0
    group.save("n1")
    assert group["n1"].commit == 1
    assert group.on_disk("n1")[0].term == 1


def test_a_later_term_is_durable_before_anything_is_said_in_it() -> None:
    """Figure 2: currentTerm; here a follower that hears of the term from its leader."""
    group = Group()
    group["n2"].receive("n1", Heartbeat(7, 0, 0, {}))
    group.give("n2")
    group.collect("n2")
    assert group.wire == []
    group.finish_save("n2")
    group.collect("n2")
    assert group.wire != []


def test_an_entry_is_durable_before_it_is_acknowledged() -> None:
    """Figure 2: log[], before the answer to AppendEntries."""
    group = Group()
    group.elect("n1")
    index = group.write("n1")
    group.slow_disks.add("n2")
    group.settle()
    assert group["n2"].log.last_index == index
    leading = group["n1"].leading
    assert leading is not None
    assert leading.progress["n2"].match == index - 1
    group.give("n2")
    assert not is_told(group, "n2", Appended)
    group.finish_save("n2")
    assert is_told(group, "n2", Appended)


def test_what_comes_while_the_disk_is_at_it_is_acknowledged_with_the_next_commit() -> None:
    """Figure 2: each acknowledgement waits for its own entries."""
    group = Group()
    two = group["n2"]
    two.receive("n1", Append(1, 0, 0, 0, [(1, b"first")]))
    group.give("n2")
    two.receive("n1", Append(1, 1, 1, 0, [(1, b"second")]))
    group.finish_save("n2")
    assert group.sent("n2", Appended) == [Appended(1, 1)]
    group.save("n2")
    assert group.sent("n2", Appended) == [Appended(1, 1), Appended(1, 2)]


def test_an_append_that_comes_again_is_acknowledged_no_sooner() -> None:
    """Figure 2: that an entry is in memory says nothing."""
    group = Group()
    two = group["n2"]
    for _ in range(3):
        two.receive("n1", Append(1, 0, 0, 0, [(1, b"x")]))
        group.give("n2")
    assert not is_told(group, "n2", Appended)
    group.finish_save("n2")
    assert group.sent("n2", Appended) == [Appended(1, 1)] * 3


def test_an_entry_that_was_replaced_while_the_disk_was_at_it_is_not_acknowledged() -> None:
    """Figure 2 and 5.3: the disk has the entry that lost; the one that won is not there yet."""
    group = Group()
    two = group["n2"]
    two.receive("n1", Append(1, 0, 0, 0, [(1, b"old"), (1, b"old")]))
    group.give("n2")
    two.receive("n3", Append(2, 0, 0, 0, [(2, b"new")]))
    group.finish_save("n2")
    assert not is_told(group, "n2", Appended)
    group.save("n2")
    assert group.sent("n2", Appended) == [Appended(2, 1)]
    assert [entry.payload for entry in group.on_disk("n2")[1]] == [b"new"]


def test_an_acknowledgement_to_an_earlier_leader_is_dropped() -> None:
    """5.1: it belongs to a term that is over."""
    group = Group()
    two = group["n2"]
    two.receive("n1", Append(1, 0, 0, 0, [(1, b"x")]))
    two.receive("n3", Heartbeat(2, 0, 0, {}))
    group.save("n2")
    assert not is_told(group, "n2", Appended)


def test_a_disk_that_failed_is_given_the_same_again() -> None:
    """Figure 2: what it did not take is not durable, whatever was asked of it."""
    group = Group()
    two = group["n2"]
    two.receive("n1", Append(1, 0, 0, 0, [(1, b"x")]))
    taken, hard_state = two.unsaved()
    assert [entry.payload for entry in taken] == [b"x"]
    two.log.unsaved_again()
    assert two.unsaved() == (taken, hard_state)
    assert not is_told(group, "n2", Appended)


@pytest.mark.parametrize("saved", [True, False])
def test_what_a_crash_takes_was_not_acknowledged(saved: bool) -> None:
    """Figure 2: the other way round, what was acknowledged is there after a crash."""
    group = Group()
    group.elect("n1")
    group.slow_disks.add("n2")
    group.write("n1", b"x")
    group.settle()
    group.give("n2")
    if saved:
        group.finish_save("n2")
    group.collect()
    acknowledged = is_told(group, "n2", Appended)
    group.crash("n2")
    two = group.start("n2")
    assert acknowledged == saved
    assert (two.log.last_index == group["n1"].log.last_index) == saved


def test_a_member_that_starts_has_its_term_its_vote_and_its_log() -> None:
    """Figure 2: and nothing else, so what is committed it must hear again."""
    group = Group()
    group.load("n2", entries([1, 2, 2]), term=3, vote="n1")
    two = group["n2"]
    assert (two.term, two.vote, two.log.last_index, two.commit, two.role) == (3, "n1", 3, 0, "follower")


def test_a_member_whose_disk_takes_nothing_does_not_stand_for_election() -> None:
    """Ours: its vote for itself could never be durable."""
    group = Group()
    group["n1"].able = False
    group.pass_ms(3000)
    assert group.leader() in ("n2", "n3")
    group["n1"].receive("n2", Heartbeat(9, 0, 0, {}))
    assert group["n1"].next_tick_ms() is None
