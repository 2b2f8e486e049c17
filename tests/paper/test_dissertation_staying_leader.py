"""The dissertation's 3.10 (leadership transfer), 6.2 (check-quorum), 9.6 (pre-vote) and 4.2.3 (disruptive servers)."""

from __future__ import annotations

from itertools import permutations

import pytest

from cluster.raft.leading import Leading
from cluster.raft.messages import TimeoutNow, Vote, Voted
from tests.paper.group import Group, entries


def leading(group: Group, name: str) -> Leading:
    """What a leader knows."""
    found = group[name].leading
    assert found is not None
    return found


# 9.6, pre-vote


def test_who_asks_whether_it_could_win_enters_no_term() -> None:
    """9.6: a candidate increments its term only once a majority "would be willing to grant" it their votes."""
    group = Group()
    group.wait(301)
    group.tick("n1")
    assert group["n1"].term == 0
    assert group.sent("n1", Vote) == [Vote(1, 0, 0, pre=True, forced=False)] * 2
    group.save("n1")
    assert group.on_disk("n1")[0].term == 0


def test_an_answer_to_a_pre_vote_promises_nothing() -> None:
    """9.6: anybody else may still have the vote of that term, and the term is not entered."""
    group = Group()
    group.wait(301)
    group["n2"].advance(group.now_ms)
    for name in ("n1", "n3"):
        group["n2"].receive(name, Vote(1, 0, 0, pre=True, forced=False))
    assert group.sent("n2", Voted) == [Voted(1, granted=True, pre=True)] * 2
    assert (group["n2"].term, group["n2"].vote) == (0, "")
    assert group["n2"].unsaved() == ([], None)


def test_a_majority_that_would_vote_starts_the_real_election() -> None:
    """9.6: with one answer of two, and with none of four."""
    group = Group(5)
    group.wait(301)
    group.tick("n1")
    group["n1"].receive("n2", Voted(1, granted=True, pre=True))
    assert group["n1"].term == 0
    group["n1"].receive("n3", Voted(1, granted=True, pre=True))
    assert group["n1"].term == 1
    group.save("n1")
    group.lose(Vote, to="nobody")
    assert [vote.pre for vote in group.sent("n1", Vote)][-4:] == [False] * 4


def test_a_member_that_was_cut_off_comes_back_without_disturbing_the_leader() -> None:
    """9.6: it asked in vain all the time, and comes back with the term it went with."""
    group = Group()
    group.elect("n1")
    group.cut("n3")
    group.pass_ms(10_000)
    assert group["n3"].term == group["n1"].term
    group.heal()
    group.pass_ms(2000)
    assert (group.leader(), group["n1"].term, group["n3"].leader) == ("n1", 1, "n1")


@pytest.mark.parametrize(("cut", "deaf"), [("n3", "n1"), ("n3", "n2")])
def test_a_one_way_cut_does_not_disturb_a_healthy_majority(cut: str, deaf: str) -> None:
    """9.6 and 4.2.3: one that hears nobody, or not the leader, but is heard by all, asks and is not answered."""
    group = Group()
    group.elect("n1")
    group.cuts.add((deaf, cut))
    group.pass_ms(5000)
    assert (group.leader(), group["n1"].term, group["n2"].term) == ("n1", 1, 1)


def test_a_member_that_only_reaches_one_other_does_not_disturb_either() -> None:
    """9.6: n3 is cut from the leader, both ways, and not from n2."""
    group = Group()
    group.elect("n1")
    group.cut("n3", from_=["n1"])
    group.pass_ms(5000)
    assert (group.leader(), group["n1"].term) == ("n1", 1)


def test_a_link_that_comes_and_goes_changes_nothing() -> None:
    """9.6: each time n3 comes back it is one follower again."""
    group = Group()
    group.elect("n1")
    for _ in range(10):
        group.cut("n3")
        group.pass_ms(700)
        group.heal()
        group.pass_ms(100)
    assert (group.leader(), group["n1"].term) == ("n1", 1)


def test_a_member_of_an_earlier_term_learns_the_later_one_from_a_refusal() -> None:
    """9.6: a log that is up to date is of no use in a term that is over."""
    group = Group()
    group.load("n2", [], term=7)
    group.wait(301)
    for name in ("n1", "n2"):
        group[name].advance(group.now_ms)
    group["n1"].tick()
    group.save("n2")
    group.deliver(*group.waiting(Vote, to="n2"))
    group.deliver(*group.waiting(Voted, to="n1"))
    assert (group["n1"].term, group["n1"].role) == (7, "follower")
    group.pass_ms(2000, until=lambda: group.leader() is not None)


@pytest.mark.parametrize("terms", list(permutations((3, 5, 9))))
def test_whatever_terms_a_group_wakes_up_with_it_finds_a_leader(terms: tuple[int, ...]) -> None:
    """9.6: pre-votes do not make elections impossible."""
    group = Group()
    for name, term in zip(group.names, terms, strict=True):
        group.load(name, entries([1]), term=term)
    group.pass_ms(4000, until=lambda: group.leader() is not None)


# 4.2.3, no vote while there is a leader


@pytest.mark.parametrize("pre", [True, False], ids=["pre-vote", "vote"])
def test_who_hears_a_leader_gives_no_vote_and_enters_no_term(pre: bool) -> None:
    """4.2.3: within "the minimum election timeout of hearing from a current leader"; the leader itself neither."""
    group = Group()
    group.elect("n1")
    group.pass_ms(60)
    for name in ("n1", "n2"):
        group[name].receive("n3", Vote(50, 99, 49, pre, forced=False))
        assert group[name].term == 1
    assert not any(vote.granted for name in ("n1", "n2") for vote in group.sent(name, Voted))


def test_who_has_not_heard_one_for_an_election_timeout_does() -> None:
    """4.2.3: that is the end of it."""
    group = Group()
    group.elect("n1")
    group.crash("n1")
    group.wait(299)
    group["n2"].advance(group.now_ms)
    group["n2"].receive("n3", Vote(2, 99, 1, pre=False, forced=False))
    assert group["n2"].term == 1
    group.wait(2)
    group["n2"].advance(group.now_ms)
    group["n2"].receive("n3", Vote(2, 99, 1, pre=False, forced=False))
    assert (group["n2"].term, group["n2"].vote) == (2, "n3")


# 6.2, check-quorum


def test_a_leader_without_a_majority_steps_down_within_an_election_timeout() -> None:
    """6.2: "a leader ... steps down if an election timeout elapses without a successful round of heartbeats"."""
    group = Group()
    group.elect("n1")
    group.pass_ms(60)
    group.cut("n1")
    group.pass_ms(group.timing.election_ms + group.timing.heartbeat_ms + 5)
    assert (group["n1"].role, group["n1"].leader) != ("leader", "n1")


def test_a_leader_with_a_majority_does_not() -> None:
    """6.2: half of the others may be gone."""
    group = Group(5)
    group.elect("n1")
    group.crash("n4")
    group.crash("n5")
    group.pass_ms(5000)
    assert (group.leader(), group["n1"].term) == ("n1", 1)


def test_a_leader_that_hears_nothing_though_it_is_heard_steps_down() -> None:
    """6.2: a one-way cut; its heartbeats alone would keep all others from electing anybody."""
    group = Group()
    group.elect("n1")
    group.pass_ms(60)
    group.cuts |= {("n2", "n1"), ("n3", "n1")}
    group.pass_ms(3000, until=lambda: group.leader() in ("n2", "n3"))


def test_a_leader_that_was_stopped_does_not_blame_the_others() -> None:
    """6.2: after a pause of its own it has heard nobody, and answers wait: it looks at them first."""
    group = Group()
    group.elect("n1")
    group.pass_ms(60)
    group.tick("n1")
    group.wait(250)
    group["n1"].advance(group.now_ms)
    group.settle()
    group.pass_ms(500)
    assert (group.leader(), group["n1"].term) == ("n1", 1)


def test_a_leader_that_stepped_down_votes_at_once() -> None:
    """6.2: it knows that there is no leader, and it knows for how long."""
    group = Group()
    group.elect("n1")
    group.pass_ms(60)
    group.cut("n1")
    group.pass_ms(400)
    one = group["n1"]
    assert one.leading is None
    assert not one.hears_leader


# 3.10, leadership transfer


def test_a_transfer_makes_the_chosen_one_leader_without_an_election_timeout() -> None:
    """3.10: the target gets TimeoutNow and "starts a new election ... "; the next term is its own."""
    group = Group()
    group.elect("n1")
    group.pass_ms(60)
    before_ms = group.now_ms
    leading(group, "n1").hand_over("n3")
    group.settle()
    assert (group.leader(), group["n3"].term, group.now_ms) == ("n3", 2, before_ms)
    group.pass_ms(60)
    assert {group[name].leader for name in group.names} == {"n3"}


def test_a_successor_is_caught_up_first() -> None:
    """3.10, step 2: "the prior leader ... brings the target's log up to date"; else it could not win."""
    group = Group()
    group.elect("n1")
    group.slow_disks.add("n3")
    group.write("n1", b"x")
    group.settle()
    leading(group, "n1").hand_over("n3")
    assert group.sent("n1", TimeoutNow) == []
    group.slow_disks.clear()
    group.settle()
    assert group.leader() == "n3"
    group.pass_ms(60)
    assert group.payloads("n3") == [b"x"]


def test_a_transfer_that_does_not_happen_is_given_up_after_an_election_timeout() -> None:
    """3.10: "if leadership transfer does not complete after about an election timeout", it goes on as leader.

    In another term: in this one its successor may still be elected by what it was told, lease or no lease.
    """
    group = Group()
    group.elect("n1")
    group.crash("n3")
    one = leading(group, "n1")
    one.hand_over("n3")
    group.pass_ms(group.timing.election_ms - 10)
    assert one.successor == "n3"
    group.pass_ms(60)
    group.settle()
    assert one.successor is None
    assert (group.leader(), group["n1"].term) == ("n1", 2)
    assert group["n1"].leading is not one
    group.pass_ms(60)
    assert leading(group, "n1").lease_until_ms() > group.now_ms
    index = group.write("n1")
    group.settle()
    assert group["n1"].commit == index


def test_a_forced_election_is_not_held_back_by_a_leader() -> None:
    """3.10 and 4.2.3: "a RequestVote ... with a special flag" is one that the leader itself asked for."""
    group = Group()
    group.elect("n1")
    group["n2"].receive("n3", Vote(2, 99, 1, pre=False, forced=True))
    assert (group["n2"].term, group["n2"].vote) == (2, "n3")


def test_a_forced_election_still_needs_an_up_to_date_log() -> None:
    """3.10: safety does not depend on who asked."""
    group = Group()
    group.elect("n1")
    group.cut("n3")
    group.write("n1", b"x")
    group.settle()
    group.heal()
    group["n3"].receive("n1", TimeoutNow(1))
    group.settle()
    assert group["n3"].leading is None
    group.pass_ms(3000)
    assert group.leader() in ("n1", "n2")
    assert group.payloads(group.leader() or "") == [b"x"]


def test_a_late_wish_to_hand_over_does_nothing() -> None:
    """3.10 and 5.1: it is of the term in which it was sent."""
    group = Group()
    group.elect("n1")
    group.elect("n2")
    term = group["n2"].term
    group["n3"].receive("n1", TimeoutNow(1))
    group.settle()
    assert (group.leader(), group["n2"].term) == ("n2", term)


def test_a_leader_that_resigns_asks_the_one_that_is_furthest() -> None:
    """3.10: as before it is stopped, or when its disk fails."""
    group = Group(5)
    group.elect("n1")
    group.slow_disks |= {"n2", "n4", "n5"}
    group.write("n1", b"x")
    group.settle()
    leading(group, "n1").resign()
    assert [packet.to for packet in group.waiting(TimeoutNow)] == ["n3"]
