"""Section 5.1: terms are a logical clock, and whoever lags behind one follows."""

from __future__ import annotations

import pytest

from cluster.raft.messages import Alive, Append, Appended, Heartbeat, Message, Vote, Voted
from tests.paper.group import Group, entries


@pytest.mark.parametrize("role", ["follower", "candidate", "leader"])
def test_a_later_term_is_entered_and_a_leader_or_candidate_steps_down(role: str) -> None:
    """5.1: "if one server's current term is smaller than the other's, then it updates its current term"."""
    group = Group()
    one = group["n1"]
    if role == "leader":
        group.elect("n1")
    elif role == "candidate":
        group.cut("n1")
        group.pass_ms(400, until=lambda: one.candidacy is not None)
    term = one.term + 5
    one.receive("n2", Append(term, 0, 0, 0, []))
    assert (one.term, one.role, one.leader) == (term, "follower", "n2")
    assert one.vote == ""


@pytest.mark.parametrize(
    "stale",
    [
        Append(1, 0, 0, 9, [(1, b"stale")]),
        Heartbeat(1, 9, 0, {}),
        Vote(1, 99, 1, pre=False, forced=True),
        Appended(1, 1),
        Voted(1, granted=True, pre=False),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_of_an_earlier_term_changes_nothing(stale: Message) -> None:
    """5.1: "if a server receives a request with a stale term number, it rejects the request"."""
    group = Group()
    group.load("n1", entries([1, 2]), term=3)
    one = group["n1"]
    one.receive("n2", stale)
    assert (one.term, one.vote, one.leader, one.commit, one.log.last_index) == (3, "", None, 0, 2)


@pytest.mark.parametrize("stale", [Append(1, 0, 0, 0, []), Heartbeat(1, 0, 0, {})], ids=["append", "heartbeat"])
def test_a_leader_of_an_earlier_term_is_told_that_it_is_over(stale: Message) -> None:
    """Figure 2: the reply to AppendEntries has the "currentTerm, for leader to update itself"."""
    group = Group()
    group.load("n2", [], term=4)
    group["n2"].receive("n1", stale)
    assert group.sent("n2", Alive) == [Alive(4, 0, False)]
    group.settle()
    assert group["n1"].term == 4


def test_a_term_is_never_entered_again() -> None:
    """5.1: terms increase monotonically, over restarts too."""
    group = Group()
    seen = 0
    for _ in range(3):
        for name in ("n1", "n2"):
            group.elect(name)
            assert group[name].term > seen
            seen = group[name].term
            group.crash(name)
            assert group.start(name).term == seen


def test_whatever_is_on_the_disk_of_a_later_term_counts_when_it_starts() -> None:
    """5.1: the current term is part of the persistent state, and no entry is of a later one."""
    group = Group()
    group.load("n1", entries([1, 1, 7]))
    assert group["n1"].term == 7
