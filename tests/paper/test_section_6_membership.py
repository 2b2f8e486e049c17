"""Section 6 and the dissertation's chapter 4: membership, one server at a time."""

from __future__ import annotations

from cluster.raft.core import Raft
from cluster.raft.leading import Leading
from cluster.raft.membership import Config, Member, payload_of
from cluster.raft.messages import Append, Appended, TimeoutNow, Vote, Voted
from tests.paper.group import Group


def leading(group: Group, name: str) -> Leading:
    """What a leader knows."""
    found = group[name].leading
    assert found is not None
    return found


def member(name: str) -> Member:
    """A member to be."""
    return Member(name, f"{name}:1", f"disk of {name}")


def add(group: Group, leader: str, name: str) -> None:
    """A new process joins as a learner; nothing is delivered yet."""
    group.join(name)
    leading(group, leader).change(group[leader].config.with_learner(member(name)))


def ready_to_change(size: int = 3) -> Group:
    """A group that n1 leads."""
    group = Group(size)
    group.elect("n1")
    return group


# When a configuration counts


def test_a_configuration_counts_from_its_append_on_every_member() -> None:
    """4.1: "the new configuration takes effect on each server as soon as it is added to that server's log"."""
    group = ready_to_change()
    add(group, "n1", "n4")
    assert "n4" in group["n1"].config
    assert group["n1"].commit < group["n1"].membership.since
    assert "n4" not in group["n2"].config
    group.deliver(*group.waiting(Append, to="n2"))
    assert "n4" in group["n2"].config


def test_a_leader_counts_by_the_new_configuration_at_once() -> None:
    """4.1: five voters need three disks for the very entry that makes them five."""
    group = ready_to_change(4)
    index = group["n1"].log.last_index + 1
    config = group["n1"].config
    group.join("n5")
    leading(group, "n1").change(Config((*config.voters, "n5"), (), {**config.members, "n5": member("n5")}))
    group.save("n1")
    group["n1"].receive("n2", Appended(group["n1"].term, index))
    assert group["n1"].commit < index
    group["n1"].receive("n5", Appended(group["n1"].term, index))
    assert group["n1"].commit == index


def test_a_configuration_that_is_cut_off_does_not_count_any_more() -> None:
    """4.1: "a server must be prepared to fall back to the previous configuration in its log"."""
    group = ready_to_change()
    group.cut("n1")
    add(group, "n1", "n4")
    group.save("n1")
    assert "n4" in group["n1"].config
    group.elect("n2")
    group.heal()
    group.pass_ms(500)
    assert group["n1"].leader == "n2"
    assert "n4" not in group["n1"].config


def test_a_configuration_is_the_same_after_a_crash() -> None:
    """4.1: it is in the log, so it is as durable as the log is."""
    group = ready_to_change()
    add(group, "n1", "n4")
    group.settle()
    for name in ("n1", "n2", "n4"):
        group.crash(name)
        group.start(name)
        assert "n4" in group[name].config


# One change at a time


def test_no_change_before_the_one_before_it_is_committed() -> None:
    """4.1: else the majorities before the first and after the second need not overlap."""
    group = ready_to_change()
    assert leading(group, "n1").may_change()
    add(group, "n1", "n4")
    assert not leading(group, "n1").may_change()
    group.settle()
    assert leading(group, "n1").may_change()


def test_no_change_before_an_entry_of_the_own_term_is_committed() -> None:
    """The flaw of the first publication (raft-dev, 10 July 2015): two leaders could else change one server each."""
    group = Group()
    group.elect("n1", settled=False)
    assert not leading(group, "n1").may_change()
    group.settle()
    assert leading(group, "n1").may_change()


def test_the_known_flaw_of_single_server_changes_does_no_harm() -> None:
    """The counterexample of that message: four servers, one leader adds S5, another removes S1, each alone."""
    group = Group(4)
    group.elect("n1")
    group.cut("n1", from_=["n2", "n3", "n4"])
    add(group, "n1", "n5")  # nobody but n1 has it: {n1 n2 n3 n4} and n5 as a learner
    group.save("n1")
    group.elect("n2")
    group.cut("n2", from_=["n3"])
    two = leading(group, "n2")
    assert two.may_change()
    two.change(group["n2"].config.without("n1"))  # {n2 n3 n4}
    group.settle()
    assert group["n2"].commit == group["n2"].membership.since
    # n1 has the other configuration, cannot win, and so cannot commit anything without what n2 committed.
    group.heal()
    group["n2"].follow_nobody()
    group.pass_ms(3000)
    assert group.leader() in ("n2", "n3", "n4")
    assert group["n2"].config == group["n3"].config == group["n4"].config
    assert "n1" not in group["n2"].config


# Learners


def test_a_learner_has_no_vote() -> None:
    """4.2.1: new servers "join the cluster as non-voting members": not for commits, not for elections."""
    group = ready_to_change()
    for name in ("n4", "n5"):
        add(group, "n1", name)
        group.settle()
    group.cut("n2", "n3")
    index = group.write("n1")
    group.settle()
    assert [leading(group, "n1").progress[name].match for name in ("n4", "n5")] == [index, index]
    assert group["n1"].commit < index, "three of five have it, but one of three voters"
    one = group["n1"]
    one.enter(9)
    one.candidacy = None
    group.wait(1000)
    group.tick("n1")
    for name in ("n4", "n5"):
        one.receive(name, Voted(10, granted=True, pre=True))
    assert one.term == 9


def test_a_learner_never_stands_for_election() -> None:
    """4.2.1: it only listens."""
    group = ready_to_change()
    add(group, "n1", "n4")
    group.settle()
    group.cut("n4")
    group.pass_ms(5000)
    assert group["n4"].role == "learner"
    assert group["n4"].term == group["n1"].term
    group["n4"].receive("n1", TimeoutNow(group["n4"].term))
    assert group["n4"].role == "learner"


def test_a_learner_does_not_keep_a_leader_in_office() -> None:
    """6.2: a majority of *voters* must be heard."""
    group = ready_to_change()
    add(group, "n1", "n4")
    group.settle()
    group.cut("n1", from_=["n2", "n3"])
    group.pass_ms(1000)
    assert group["n1"].leading is None


def test_a_learner_that_is_behind_gets_no_vote_and_one_that_has_caught_up_does() -> None:
    """4.2.1: it is caught up first, so that the majority does not wait for it."""
    group = ready_to_change()
    for number in range(200):
        group.write("n1", b"%d" % number)
    group.settle()
    group.slow_disks.add("n4")
    add(group, "n1", "n4")
    group.pass_ms(1000)
    assert group["n1"].config.learners == ("n4",)
    group.slow_disks.clear()
    group.pass_ms(200)
    assert group["n1"].config.voters == ("n1", "n2", "n3", "n4")
    assert group["n4"].config == group["n1"].config
    assert group.payloads("n4") == group.payloads("n1")


def test_a_learner_that_went_silent_gets_no_vote() -> None:
    """4.2.1: it would only make the majority larger."""
    group = ready_to_change()
    group.slow_disks.add("n1")  # so that it cannot be promoted yet
    add(group, "n1", "n4")
    group.settle()
    group.crash("n4")
    group.wait(400)
    for name in ("n2", "n3"):
        leading(group, "n1").progress[name].heard_ms = group.now_ms
    group.slow_disks.clear()
    group.pass_ms(200)
    assert group["n1"].config.learners == ("n4",)


def test_a_member_votes_though_it_does_not_know_yet_that_it_may() -> None:
    """4.1: "servers process incoming RPC requests without consulting their current configurations"."""
    group = ready_to_change()
    group.slow_disks.add("n1")  # so that it cannot be promoted yet
    add(group, "n1", "n4")
    group.settle()
    four = group["n4"]
    assert four.config.learners == ("n4",)
    four.receive("n2", Vote(9, 500, 8, pre=False, forced=True))
    group.save("n4")
    assert group.sent("n4", Voted) == [Voted(9, granted=True, pre=False)]


def test_one_who_is_no_member_does_not_vote() -> None:
    """A departure from 4.1: a candidate that lost its disk may begin with a configuration of long ago."""
    group = ready_to_change()
    four = group.join("n4")
    four.receive("n2", Vote(9, 5, 1, pre=False, forced=True))
    group.save("n4")
    assert group.sent("n4", Voted) == [Voted(9, granted=False, pre=False)]


# Members that leave


def test_a_removed_follower_does_not_count_and_is_told_before_it_is_forgotten() -> None:
    """4.2.3 tells why: one that never hears of it goes on asking for votes."""
    group = ready_to_change()
    leading(group, "n1").change(group["n1"].config.without("n3"))
    group.pass_ms(200)
    assert group["n1"].config.voters == ("n1", "n2")
    assert "n3" not in leading(group, "n1").progress
    assert group["n3"].role == "removed"
    assert group["n3"].commit == group["n1"].commit
    group.pass_ms(3000)
    assert (group.leader(), group["n1"].term) == ("n1", 1)


def test_a_removed_member_that_does_not_know_it_disturbs_nobody() -> None:
    """6: "servers disregard RequestVote RPCs when they believe a current leader exists"."""
    group = ready_to_change()
    group.cut("n3")
    leading(group, "n1").change(group["n1"].config.without("n3"))
    group.pass_ms(500)
    group.heal()
    group.pass_ms(5000)
    assert "n3" in group["n3"].config.voters
    assert (group.leader(), group["n1"].term, group["n2"].term) == ("n1", 1, 1)


def test_a_removed_leader_leads_until_the_removal_is_committed_and_then_steps_down() -> None:
    """4.2.2: it steps down once that is committed, by a majority in which it does not count itself."""
    group = ready_to_change()
    leading(group, "n1").change(group["n1"].config.without("n1"))
    group.slow_disks.add("n3")
    group.settle()
    assert group["n1"].leading is not None
    assert group["n1"].commit < group["n1"].membership.since, "its own disk and n2's are no majority of n2 and n3"
    group.slow_disks.clear()
    group.pass_ms(1000)
    assert group["n1"].role == "removed"
    assert group.leader() in ("n2", "n3")
    group.pass_ms(3000)
    assert group["n1"].role == "removed"


def test_a_removed_leader_sees_to_it_that_another_leads_at_once() -> None:
    """4.2.2 with 3.10: it asks the one that is furthest, so nobody waits for an election timeout."""
    group = ready_to_change()
    leading(group, "n1").change(group["n1"].config.without("n1"))
    group.pass_ms(100)
    assert group.leader() in ("n2", "n3")


def test_a_leader_that_leaves_uses_no_lease() -> None:
    """6.4.1: of two members, the one that stays needs nobody's vote from the moment it has the new configuration."""
    group = ready_to_change(2)
    group.pass_ms(100)
    assert leading(group, "n1").lease_until_ms() > group.now_ms
    leading(group, "n1").change(group["n1"].config.without("n1"))
    assert leading(group, "n1").lease_until_ms() <= group.now_ms


def test_the_last_voter_left_waits_for_its_leader_as_any_follower_does() -> None:
    """4.2.2: it is its leader that commits the removal, and hears that it is done."""
    group = ready_to_change(2)
    leading(group, "n1").change(group["n1"].config.without("n1"))
    group.save("n1")
    group.deliver(*group.waiting(Append, to="n2"))
    group.tick("n2")
    assert group["n2"].config.voters == ("n2",)
    assert (group["n2"].role, group["n2"].term) == ("follower", 1)
    group.pass_ms(1000)
    assert group.leader() == "n2"
    assert group["n1"].role == "removed"
    assert group["n1"].commit >= group["n1"].membership.since


def test_of_two_members_either_can_be_left() -> None:
    """4.1: from two to one, and from one to two again."""
    group = ready_to_change(2)
    leading(group, "n1").change(group["n1"].config.without("n2"))
    group.pass_ms(500)
    assert (group.leader(), group["n1"].config.voters) == ("n1", ("n1",))
    index = group.write("n1", b"alone")
    group.settle()
    assert group["n1"].commit == index
    add(group, "n1", "n3")
    group.pass_ms(500)
    assert group["n1"].config.voters == ("n1", "n3")
    assert group.payloads("n3") == [b"alone"]


def test_a_member_that_comes_back_is_a_new_one() -> None:
    """4.1: whatever was known of it before it was removed says nothing of what it has now."""
    group = ready_to_change()
    group.write("n1", b"kept")
    group.settle()
    leading(group, "n1").change(group["n1"].config.without("n3"))
    group.settle()
    assert leading(group, "n1").may_change()
    add(group, "n1", "n3")  # with an empty disk, and before the leader's next heartbeat
    assert leading(group, "n1").progress["n3"].match == 0
    group.pass_ms(1000)
    assert group["n1"].config.voters == ("n1", "n2", "n3")
    assert group.payloads("n3") == [b"kept"]


# Growing and shrinking under way


def test_growing_from_one_to_five_and_back() -> None:
    """4.1: any size is reached one server at a time, with writes going on."""
    group = Group(1)
    group.pass_ms(5)
    written: list[bytes] = []

    def write(leader: str) -> None:
        written.append(b"%d" % len(written))
        group.write(leader, written[-1])
        group.pass_ms(100)

    for number in range(2, 6):
        add(group, "n1", f"n{number}")
        group.pass_ms(300)
        write("n1")
    assert group["n1"].config.voters == ("n1", "n2", "n3", "n4", "n5")
    for name in ("n1", "n2", "n3", "n4"):
        leader = group.leader()
        assert leader is not None
        leading(group, leader).change(group[leader].config.without(name))
        group.pass_ms(1500, until=lambda: group.leader() is not None and settled(group[group.leader() or ""]))
        leader = group.leader()
        assert leader is not None
        write(leader)
    assert group["n5"].config.voters == ("n5",)
    assert group.payloads("n5") == written


def settled(raft: Raft) -> bool:
    """Whether a leader is still a member and may change the membership."""
    return raft.name in raft.config.voters and raft.leading is not None and raft.leading.may_change()


def test_a_configuration_is_never_mistaken_for_a_command() -> None:
    """Ours: its payload begins with a byte that no command's does."""
    group = ready_to_change()
    assert payload_of(group["n1"].config)[:1] == b"\xc1"
