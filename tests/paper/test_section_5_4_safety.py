"""Section 5.4: who may be elected, and what may be committed."""

from __future__ import annotations

import pytest

from cluster.raft.messages import Append, Appended, Vote, Voted
from tests.paper.group import Group, entries

UP_TO_DATE = [
    # the voter's log by terms, the candidate's last index and term, whether it may have the vote
    ([], 0, 0, True),
    ([1], 0, 0, False),
    ([1, 1], 2, 1, True),
    ([1, 1], 3, 1, True),
    ([1, 1], 1, 1, False),  # the same term: the longer log wins
    ([1, 2], 1, 3, True),  # another term: the later one wins, however long the log is
    ([1, 1, 1], 1, 2, True),
    ([1, 2], 9, 1, False),
    ([3], 99, 2, False),
]


@pytest.mark.parametrize("pre", [False, True], ids=["vote", "pre-vote"])
@pytest.mark.parametrize(("log", "last_index", "last_term", "granted"), UP_TO_DATE)
def test_a_vote_goes_to_whoever_is_at_least_as_up_to_date(
    log: list[int], last_index: int, last_term: int, granted: bool, pre: bool
) -> None:
    """5.4.1: "the voter denies its vote if its own log is more up-to-date than that of the candidate"."""
    group = Group()
    group.load("n2", entries(log), term=5)
    group.wait(301)  # no leader to be heard
    group["n2"].advance(group.now_ms)
    group["n2"].receive("n1", Vote(6, last_index, last_term, pre, forced=False))
    group.save("n2")
    answers = group.sent("n2", Voted)
    assert [answer.granted for answer in answers] == [granted]
    assert [answer.pre for answer in answers] == [pre]


def test_a_candidate_is_judged_by_its_log_and_not_by_what_it_knows_to_be_committed() -> None:
    """5.4.1: it is the last entry that is sent."""
    group = Group()
    group.load("n1", entries([1, 3, 3]))
    group.wait(301)
    group.tick("n1")
    assert group.sent("n1", Vote) == [Vote(4, 3, 3, pre=True, forced=False)] * 2


def test_a_member_without_a_committed_entry_is_not_elected() -> None:
    """5.4.1 and figure 3, leader completeness: n3 lost patience first, and may still not lead."""
    group = Group()
    group.elect("n1")
    group.cut("n3")
    group.write("n1", b"committed")
    group.settle()
    group.crash("n1")
    group.heal()
    group.draws["n3"].value, group.draws["n2"].value = 0.0, 0.9
    for name in ("n2", "n3"):
        group[name].rest()
    group.pass_ms(3000, until=lambda: group.leader() is not None)
    assert group.leader() == "n2"
    group.pass_ms(200)
    assert group.payloads("n3") == [b"committed"]


@pytest.fixture
def figure_8() -> Group:
    """Figure 8 up to (b), and the election in (c): S1 leads in term 4, of which nobody has heard yet.

    Its entry of term 2 is on S2 too; at the same index S5 has one of term 3.
    """
    group = Group(5)
    one, two, three = entries([1]), entries([2], 2, "S1 "), entries([3], 2, "S5 ")
    group.load("n1", [*one, *two], term=3)
    group.load("n2", [*one, *two])
    group.load("n3", one, term=2)
    group.load("n4", one, term=3)
    group.load("n5", [*one, *three])
    group.cut("n4", "n5")
    group.elect("n1", settled=False)
    group.save("n1")
    assert group["n1"].term == 4
    return group


def test_figure_8_an_entry_of_an_earlier_term_is_not_committed_by_counting(figure_8: Group) -> None:
    """5.4.2, (c) and (d): S1's entry of term 2 is on a majority, and may still be overwritten: by S5, in term 5."""
    group = figure_8
    group.lose()
    group["n3"].receive("n1", Append(4, 1, 1, 0, [(2, b"S1 2@2")]))
    group.save("n3")
    group.deliver(*group.waiting(Appended, sender="n3", to="n1"))
    group["n1"].receive("n2", Appended(4, 2))
    assert [group[name].log.term(2) for name in ("n1", "n2", "n3")] == [2, 2, 2]
    assert group["n1"].commit == 0
    group.crash("n1")
    group.lose()
    group.heal()
    group.elect("n5")
    group.pass_ms(200)
    assert {group[name].log.entry(2).payload for name in ("n2", "n3", "n4", "n5")} == {b"S5 2@3"}
    group.start("n1")
    group.pass_ms(1000, until=lambda: group.log_of("n1") == group.log_of("n5"))


def test_figure_8_an_entry_of_the_own_term_commits_what_is_before_it(figure_8: Group) -> None:
    """5.4.2, (e): "if S1 replicates an entry from its current term on a majority", S5 cannot win an election."""
    group = figure_8
    group.settle()
    assert group["n1"].commit == 3
    assert group.payloads("n1") == [b"1@1", b"S1 2@2"]
    group.crash("n1")
    group.heal()
    group.draws["n5"].value = 0.0
    group["n5"].rest()
    group.pass_ms(4000, until=lambda: group.leader() is not None)
    assert group.leader() in ("n2", "n3")
    group.pass_ms(300)
    assert {group[name].log.entry(2).payload for name in ("n2", "n3", "n4", "n5")} == {b"S1 2@2"}


def test_what_is_committed_is_in_the_log_of_every_later_leader() -> None:
    """5.4.3 and figure 3, leader completeness: leader after leader is lost, and nothing that was committed."""
    group = Group(5)
    written: list[bytes] = []
    for number in range(6):
        group.pass_ms(3000, until=lambda: group.leader() is not None)
        name = group.leader()
        assert name is not None
        payload = b"%d" % number
        group.write(name, payload)
        group.pass_ms(200)
        written.append(payload)
        assert group.payloads(name) == written
        group.crash(name)
        group.pass_ms(1500, until=lambda: group.leader() is not None)
        group.start(name)
    group.pass_ms(1000)
    assert {tuple(group.payloads(name)) for name in group.names} == {tuple(written)}


def test_an_entry_that_only_a_minority_has_may_be_lost_and_is_never_carried_out() -> None:
    """5.4: it was not committed, so nobody was told that it happened."""
    group = Group()
    group.elect("n1")
    group.cut("n1")
    group.write("n1", b"lost")
    group.pass_ms(1500, until=lambda: group.leader() in ("n2", "n3"))
    new = group.leader()
    assert new is not None
    group.write(new, b"kept")
    group.pass_ms(100)
    group.heal()
    group.pass_ms(500)
    assert {tuple(group.payloads(name)) for name in group.names} == {(b"kept",)}
