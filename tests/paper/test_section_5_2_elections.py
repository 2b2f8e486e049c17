"""Section 5.2: elections."""

from __future__ import annotations

import pytest

from cluster.raft.core import Timing
from cluster.raft.messages import Append, Heartbeat, Vote, Voted
from tests.paper.group import Group


def vote(term: int, last_index: int = 0, last_term: int = 0) -> Vote:
    """A request for a real vote from somebody who was told to ask (so that nobody holds a leader against it)."""
    return Vote(term, last_index, last_term, pre=False, forced=True)


def answers(group: Group, name: str) -> list[tuple[str, bool]]:
    """To whom a member gave its vote, and to whom not."""
    group.save(name)
    return [
        (packet.to, packet.message.granted)
        for packet in group.waiting(Voted, sender=name)
        if isinstance(packet.message, Voted)
    ]


def test_everybody_starts_as_a_follower() -> None:
    """5.2: "when servers start up, they begin as followers"."""
    group = Group()
    assert {group[name].role for name in group.names} == {"follower"}


def test_a_follower_that_hears_its_leader_stays_one() -> None:
    """5.2: "a server remains in follower state as long as it receives valid RPCs from a leader"."""
    group = Group()
    group.elect("n1")
    term = group["n1"].term
    group.pass_ms(3000)
    assert group.leader() == "n1"
    assert {group[name].term for name in group.names} == {term}


def test_a_leader_sends_heartbeats() -> None:
    """5.2: "leaders send periodic heartbeats ... to all followers in order to maintain their authority"."""
    group = Group()
    group.elect("n1")
    group.wait(group.timing.heartbeat_ms)
    group.tick("n1")
    assert {packet.to for packet in group.waiting(Heartbeat, sender="n1")} == {"n2", "n3"}


def test_a_follower_that_hears_nobody_stands_for_election() -> None:
    """5.2: it "increments its current term and transitions to candidate state ... votes for itself"."""
    group = Group()
    one = group["n1"]
    group.pass_ms(400, until=lambda: one.leading is not None)
    assert (one.term, one.vote) == (1, "n1")
    assert {(group[name].term, group[name].vote) for name in ("n2", "n3")} == {(1, "n1")}


@pytest.mark.parametrize(
    ("size", "granted", "refused", "wins"),
    [
        (1, 0, 0, True),
        (2, 0, 0, False),
        (2, 1, 0, True),
        (3, 0, 1, False),
        (3, 1, 0, True),
        (3, 1, 1, True),
        (5, 1, 1, False),
        (5, 2, 2, True),
        (5, 1, 3, False),
        (7, 3, 0, True),
        (7, 2, 4, False),
    ],
)
def test_a_candidate_wins_with_the_votes_of_a_majority(size: int, granted: int, refused: int, wins: bool) -> None:
    """5.2: "a candidate wins an election if it receives votes from a majority of the servers in the full cluster"."""
    group = Group(size)
    one = group["n1"]
    others = group.names[1:]
    group.wait(301)
    group.tick("n1")
    for name in others[: size // 2]:  # it could win: a majority says so
        one.receive(name, Voted(1, granted=True, pre=True))
    group.save("n1")
    for name in others[:granted]:
        one.receive(name, Voted(1, granted=True, pre=False))
    for name in others[granted : granted + refused]:
        one.receive(name, Voted(1, granted=False, pre=False))
    assert one.term == 1
    assert (one.leading is not None) == wins


def test_a_vote_counts_once_however_often_it_comes() -> None:
    """5.2 and 5.5: a majority of servers, not of messages."""
    group = Group(5)
    one = group["n1"]
    group.wait(301)
    group.tick("n1")
    for name in ("n2", "n3"):
        one.receive(name, Voted(1, granted=True, pre=True))
    for _ in range(5):
        one.receive("n2", Voted(1, granted=True, pre=False))
    assert one.leading is None
    one.receive("n3", Voted(1, granted=True, pre=False))
    assert one.leading is not None


def test_a_vote_of_another_election_does_not_count() -> None:
    """5.2: votes are for a given term; an answer to a pre-vote is none at all."""
    group = Group()
    group.load("n1", [], term=4)
    one = group["n1"]
    group.wait(301)
    group.tick("n1")
    one.receive("n2", Voted(5, granted=True, pre=True))
    assert (one.term, one.leading) == (5, None)
    one.receive("n2", Voted(4, granted=True, pre=False))
    one.receive("n2", Voted(5, granted=True, pre=True))
    one.receive("n2", Voted(6, granted=True, pre=True))
    assert one.leading is None


def test_a_server_votes_once_a_term_first_come_first_served() -> None:
    """5.2: "each server will vote for at most one candidate in a given term, on a first-come-first-served basis"."""
    group = Group()
    group["n3"].receive("n2", vote(3))
    group["n3"].receive("n1", vote(3))
    assert answers(group, "n3") == [("n2", True), ("n1", False)]


def test_a_vote_is_given_again_to_whoever_has_it() -> None:
    """5.5: a candidate that did not hear the answer may ask again."""
    group = Group()
    for _ in range(2):
        group["n3"].receive("n2", vote(3))
    assert answers(group, "n3") == [("n2", True), ("n2", True)]


def test_a_vote_outlives_a_crash() -> None:
    """5.2 and figure 2: votedFor is persistent, or one server could vote twice in a term."""
    group = Group()
    group["n3"].receive("n2", vote(3))
    assert answers(group, "n3") == [("n2", True)]
    group.crash("n3")
    group.start("n3")
    group.lose()
    group["n3"].receive("n1", vote(3))
    assert answers(group, "n3") == [("n1", False)]


def test_a_vote_in_a_later_term_is_free_again() -> None:
    """5.2: one vote for each term."""
    group = Group()
    group["n3"].receive("n2", vote(3))
    group["n3"].receive("n1", vote(4))
    assert answers(group, "n3")[-1] == ("n1", True)


@pytest.mark.parametrize("later", [0, 1])
def test_a_candidate_follows_a_leader_of_its_term_or_a_later_one(later: int) -> None:
    """5.2: a candidate that hears a leader whose term "is at least as large as" its own "returns to follower state"."""
    group = Group()
    one = group["n1"]
    group.wait(301)
    group.tick("n1")
    one.receive("n2", Voted(1, granted=True, pre=True))
    assert one.role == "candidate"
    one.receive("n3", Append(one.term + later, 0, 0, 0, []))
    assert (one.role, one.leader) == ("follower", "n3")


def test_a_candidate_goes_on_when_an_old_leader_turns_up() -> None:
    """5.2: "if the term in the RPC is smaller ..., the candidate rejects the RPC and continues in candidate state"."""
    group = Group()
    group.load("n1", [], term=6)
    one = group["n1"]
    group.wait(301)
    group.tick("n1")
    one.receive("n2", Append(5, 0, 0, 0, []))
    assert (one.role, one.term, one.leader) == ("candidate", 6, None)


def test_a_split_vote_ends_with_nobody_and_the_next_election_is_in_another_term() -> None:
    """5.2: "each candidate will time out and start a new election by incrementing its term"."""
    group = Group(4)
    for draw in group.draws.values():
        draw.value = 0.0
    for raft in group.rafts.values():
        raft.rest()
    group.wait(301)
    group.tick("n1", "n2")
    for name, other, voter in (("n1", "n2", "n3"), ("n2", "n1", "n4")):
        group[name].receive(other, Voted(1, granted=True, pre=True))
        group[name].receive(voter, Voted(1, granted=True, pre=True))
    group.lose()
    group.save("n1")
    group.save("n2")
    for packet in group.waiting(Vote):
        keen = {"n3": "n1", "n4": "n2"}.get(packet.to, "")
        if packet.sender == keen or packet.to in ("n1", "n2"):
            group.deliver(packet)
    group.lose(Vote)
    group.settle()
    assert group.leader() is None
    assert (group["n1"].term, group["n2"].term) == (1, 1)
    group.draws["n2"].value = 0.5
    for name in ("n3", "n4"):
        group.draws[name].value = 0.9
    for raft in group.rafts.values():
        raft.rest()
    group.pass_ms(1000, until=lambda: group.leader() is not None)
    assert group.leader() == "n1"
    assert group["n1"].term > 1


def test_election_timeouts_are_drawn_from_one_to_two_times_the_set_one() -> None:
    """5.2: "election timeouts are chosen randomly from a fixed interval", and anew for every election."""
    group = Group(timing=Timing(election_ms=200))
    one = group["n1"]
    for value, expected_ms in ((0.0, 200), (0.25, 250), (0.999, 399.8)):
        group.draws["n1"].value = value
        one.rest()
        assert one.election_at_ms == pytest.approx(group.now_ms + expected_ms)
        assert one.next_tick_ms() == one.election_at_ms


def test_each_heartbeat_and_each_election_draws_a_new_timeout() -> None:
    """5.2: "each candidate restarts its randomized election timeout at the start of an election"."""
    group = Group()
    one = group["n1"]
    group.draws["n1"].value = 0.1
    one.receive("n2", Heartbeat(1, 0, 0, {}))
    assert one.election_at_ms == pytest.approx(330)
    group.wait(331)
    group.draws["n1"].value = 0.7
    group.tick("n1")
    assert one.role == "candidate"
    assert one.election_at_ms == pytest.approx(331 + 510)


def test_timeouts_that_differ_elect_a_leader_without_split_votes() -> None:
    """5.2: randomised timeouts "ensure that split votes are rare": here the most impatient one wins at once."""
    group = Group(5)
    group.pass_ms(400, until=lambda: group.leader() is not None)
    assert (group.leader(), group["n1"].term) == ("n1", 1)
