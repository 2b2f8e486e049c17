"""Members that come, go and come again: what nobody may count on twice, who votes, and who should lead."""

from __future__ import annotations

import pytest

from cluster.raft.core import RANK_SHARE, Raft
from cluster.raft.leading import Leading
from cluster.raft.membership import Member
from cluster.raft.messages import Vote, Voted
from cluster.storage.contract import HardState
from tests.paper.group import Group


def leading(group: Group, name: str = "n1") -> Leading:
    found = group[name].leading
    assert found is not None
    return found


def removed(size: int = 4, writes: int = 3) -> Group:
    """n1 leads, and has removed the last member, which has heard of it."""
    group = Group(size)
    group.elect("n1")
    for _ in range(writes):
        group.write("n1")
    group.pass_ms(60)
    leading(group).change(group["n1"].config.without(f"n{size}"))
    group.pass_ms(200)
    assert group["n1"].commit >= group["n1"].membership.since
    return group


def give_up(group: Group, name: str) -> Raft:
    """A member that is none any more empties its disk."""
    raft = group[name]
    raft.begin_to_give_up()
    group.save(name)
    assert raft.may_go
    hard_state, _ = group.on_disk(name)
    raft.given_up()
    group._disks[name] = (hard_state, {})
    group.applied[name].clear()
    return raft


# Its log is gone


def test_what_was_in_a_log_that_is_given_up_is_not_forgotten() -> None:
    group = removed()
    raft = group["n4"]
    had = (raft.log.last_term, raft.log.last_index)
    assert had[1] > 3
    give_up(group, "n4")
    assert (raft.log.last_index, raft.applied, raft.commit) == (0, 0, 0)
    assert raft.floor == had
    assert group.on_disk("n4")[0] == HardState(raft.term, raft.vote, *had)
    raft = group.start("n4")
    assert raft.floor == had, "nor by a crash"


def test_it_may_only_go_once_that_is_on_the_disk() -> None:
    group = removed()
    raft = group["n4"]
    raft.begin_to_give_up()
    assert not raft.may_go
    group.save("n4")
    assert raft.may_go


def test_whoever_has_less_gets_no_vote_of_it() -> None:
    """It may have been one of the majority that an entry was committed by, and is counted on for that."""
    group = removed()
    raft = give_up(group, "n4")
    raft.membership.restart(0, group.config)  # it is a member again, else nobody gets a vote of it
    group.down |= {"n1", "n2", "n3"}
    group.pass_ms(700)
    term, index = raft.floor
    for last_term, last_index, granted in ((term, index - 1, False), (term - 1, index + 9, False), (term, index, True)):
        raft.receive("n2", Vote(raft.term + 1, last_index, last_term, True, False))
        answers = [message for _, message in raft.outgoing() if isinstance(message, Voted)]
        assert [one.granted for one in answers] == [granted], (last_term, last_index)


def test_it_does_not_stand_before_it_has_what_it_had() -> None:
    group = removed()
    raft = give_up(group, "n4")
    raft.membership.restart(0, group.config)  # an old configuration, as it comes by when its log is filled again
    assert "n4" in raft.config.voters
    assert not raft.stands
    raft.membership.restart(0, group["n1"].config)
    leading(group).change(group["n1"].config.with_learner(Member("n4", "")))
    group.pass_ms(1000, until=lambda: "n4" in group["n1"].config.voters)
    group.pass_ms(200)
    assert raft.stands
    assert raft.up_to_date
    assert group.payloads("n4") == group.payloads("n1")


# The same name again


def test_a_node_that_was_removed_is_taken_again_in_a_new_term() -> None:
    """What the one before it said of its log may still be on its way."""
    group = removed()
    give_up(group, "n4")
    before = group["n1"].term
    assert not leading(group).may_add("n4")
    assert leading(group).may_add("n5")
    group["n1"].renew()
    group.settle()
    assert group.leader() == "n1"
    assert group["n1"].term == before + 1
    assert leading(group).may_add("n4")
    group.write("n1")
    group.pass_ms(60)
    leading(group).change(group["n1"].config.with_learner(Member("n4", "")))
    group.pass_ms(1000, until=lambda: "n4" in group["n1"].config.voters)
    assert group.payloads("n4") == group.payloads("n1")


def test_a_leader_that_renews_its_term_goes_on_with_what_it_had() -> None:
    group = Group()
    group.elect("n1")
    group.slow_disks |= {"n2", "n3"}
    group.write("n1", b"under way")
    group.settle()
    group["n1"].renew()
    group.slow_disks.clear()
    group.pass_ms(100)
    assert group.leader() == "n1"
    assert group.payloads("n2") == [b"under way"]


# How many vote


@pytest.mark.parametrize("voters_max", [3, 4])
def test_learners_get_a_vote_up_to_so_many(voters_max: int) -> None:
    group = Group(3)
    group.elect("n1")
    group.pass_ms(60)
    for raft in group.rafts.values():
        raft.voters_max = voters_max
    group.join("n4")
    leading(group).change(group["n1"].config.with_learner(Member("n4", "n4:1")))
    group.pass_ms(600)
    config = group["n1"].config
    assert len(config.voters) == voters_max
    assert len(config.learners) == 4 - voters_max
    assert group["n4"].applied == group["n1"].applied, "it has everything either way"


def test_a_learner_follows_up_when_a_voter_goes() -> None:
    group = Group(3)
    group.elect("n1")
    group.pass_ms(60)
    for raft in group.rafts.values():
        raft.voters_max = 3
    group.join("n4")
    leading(group).change(group["n1"].config.with_learner(Member("n4", "n4:1")))
    group.pass_ms(600)
    leading(group).change(group["n1"].config.without("n3"))
    group.pass_ms(600)
    assert set(group["n1"].config.voters) == {"n1", "n2", "n4"}
    assert group["n1"].config.learners == ()


# Who should lead


@pytest.mark.parametrize("drawn", [0.0, 0.5, 0.999])
def test_the_ranks_stand_one_after_the_other(drawn: float) -> None:
    group = Group(3)
    waits = []
    for name in ("n1", "n2", "n3"):
        group.draws[name].value = drawn
    for rank in (0, 1, 2, 3, 9, None):
        raft = group["n1"]
        raft.rank = rank
        raft.rest()
        waits.append((raft.election_at_ms - raft.now_ms) / group.timing.election_ms)
    assert all(1.0 <= wait <= 2.0 for wait in waits), "never before the leader may be gone"
    assert waits[:4] == sorted(waits[:4])
    assert waits[1] - waits[0] == pytest.approx(RANK_SHARE)
    assert waits[4] == 2.0
    assert waits[5] == 1.0 + drawn


def test_the_first_rank_is_elected() -> None:
    group = Group(3)
    for rank, name in enumerate(("n3", "n1", "n2")):
        group[name].rank = rank
        group.draws[name].value = 0.9
        group[name].rest()
    group.pass_ms(700, until=lambda: group.leader() is not None)
    assert group.leader() == "n3"
