"""Majorities, against counting them out."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.raft.quorum import decided, reached

VOTERS = st.integers(0, 7).map(lambda size: [f"n{number}" for number in range(size)])


@given(voters=VOTERS, data=st.data())
def test_a_majority_has_reached_what_is_reached_and_none_has_more(voters: list[str], data: st.DataObject) -> None:
    values = {voter: data.draw(st.integers(0, 9)) for voter in voters}
    found = reached(voters, values.__getitem__)
    if not voters:
        assert found == 0
        return
    majority = len(voters) // 2 + 1
    assert sum(value >= found for value in values.values()) >= majority
    assert sum(value > found for value in values.values()) < majority


@given(voters=VOTERS, data=st.data())
def test_an_election_is_decided_when_no_vote_can_change_it(voters: list[str], data: st.DataObject) -> None:
    drawn = {voter: data.draw(st.sampled_from((True, False, None))) for voter in voters}
    votes: dict[str, bool] = {voter: vote for voter, vote in drawn.items() if vote is not None}
    open_votes = len(voters) - len(votes)
    granted = sum(votes.values())
    majority = len(voters) // 2 + 1
    if not voters:
        assert decided(voters, votes) is False or decided(voters, votes) is None
    elif granted >= majority:
        assert decided(voters, votes) is True
    elif granted + open_votes < majority:
        assert decided(voters, votes) is False
    else:
        assert decided(voters, votes) is None


def test_the_votes_of_others_do_not_count() -> None:
    assert decided(["n1", "n2", "n3"], {"n1": True, "n8": True, "n9": True}) is None


@pytest.mark.parametrize("size", range(1, 8))
def test_any_two_majorities_share_a_voter_also_when_one_server_comes_or_goes(size: int) -> None:
    """What every safety argument rests on, and membership changes of one server at a time."""
    voters = {f"n{number}" for number in range(size)}
    for others in (voters, voters | {"new"}, voters - {"n0"} or voters):
        for mine in combinations(sorted(voters), size // 2 + 1):
            for theirs in combinations(sorted(others), len(others) // 2 + 1):
                assert set(mine) & set(theirs)
