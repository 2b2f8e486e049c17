"""Configurations, how one follows from another, and which of those in the log is in force."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.raft.membership import MARK, Config, Member, Membership, config_in, payload_of, static
from cluster.storage.contract import Entry

THREE = static({"n2": "host2:1", "n1": "host1:1", "n3": "host3:1"})


def entry(index: int, config: Config | None = None) -> Entry:
    return Entry(0, index, 1, b"command" if config is None else payload_of(config))


def test_the_founders_are_voters_in_a_fixed_order() -> None:
    assert THREE.voters == ("n1", "n2", "n3")
    assert THREE.learners == ()
    assert THREE.members["n2"] == Member("n2", "host2:1", "")


def test_a_member_joins_learns_and_votes() -> None:
    config = THREE.with_learner(Member("n4", "host4:1", "disk"))
    assert (config.voters, config.learners) == (("n1", "n2", "n3"), ("n4",))
    assert "n4" in config
    config = config.with_voter("n4")
    assert (config.voters, config.learners) == (("n1", "n2", "n3", "n4"), ())
    assert config.members["n4"].disk == "disk"


def test_a_member_leaves_whatever_it_is() -> None:
    config = THREE.with_learner(Member("n4", "host4:1")).without("n4")
    assert config == THREE
    assert THREE.without("n1").voters == ("n2", "n3")
    assert "n1" not in THREE.without("n1")


def test_what_is_known_of_a_member_changes_no_vote() -> None:
    config = THREE.with_known(Member("n2", "elsewhere:2", "disk"))
    assert (config.voters, config.learners) == (THREE.voters, THREE.learners)
    assert config.members["n2"] == Member("n2", "elsewhere:2", "disk")


def test_nobody_joins_twice() -> None:
    with pytest.raises(AssertionError):
        THREE.with_learner(Member("n1", "host9:1"))


def test_the_others_are_voters_first() -> None:
    assert THREE.with_learner(Member("n0", "host0:1")).others("n2") == ["n1", "n3", "n0"]


@pytest.mark.parametrize(
    ("taken", "free"),
    [([], "n1"), (["n1", "n2"], "n3"), (["n1", "n7"], "n8"), (["alpha", "nx", "n"], "n1"), (["n9", "beta"], "n10")],
)
def test_a_name_that_is_free(taken: list[str], free: str) -> None:
    assert static(dict.fromkeys(taken, "host:1")).free_id() == free


NAMES = st.text("abcn123-", min_size=1, max_size=6)
CONFIGS = st.builds(
    lambda voters, learners, disk: Config(
        tuple(voters), tuple(learners), {name: Member(name, f"{name}:1", disk) for name in (*voters, *learners)}
    ),
    st.lists(NAMES, unique=True, max_size=5),
    st.lists(NAMES, unique=True, max_size=3),
    st.text(max_size=8),
)


@given(CONFIGS)
def test_a_configuration_comes_out_of_the_log_as_it_went_in(config: Config) -> None:
    payload = payload_of(config)
    assert payload[:1] == MARK
    assert config_in(payload) == config


@pytest.mark.parametrize("payload", [b"", b"\x92\x00\x90", b"SET a 1"])
def test_other_entries_hold_none(payload: bytes) -> None:
    assert config_in(payload) is None


def test_the_last_one_in_the_log_is_in_force() -> None:
    membership = Membership(5, THREE)
    assert (membership.now, membership.since) == (THREE, 5)
    assert not membership.note(entry(6))
    two = THREE.without("n3")
    assert membership.note(entry(7, two))
    assert (membership.now, membership.since) == (two, 7)
    assert (membership.at(6), membership.at(7), membership.at(100)) == (THREE, two, two)


def test_one_that_is_cut_off_is_in_force_no_more() -> None:
    two = THREE.without("n3")
    membership = Membership(5, THREE)
    membership.note(entry(7, two))
    assert not membership.cut_from(8)
    assert membership.now == two
    assert membership.cut_from(7)
    assert (membership.now, membership.since) == (THREE, 5)


def test_that_of_the_checkpoint_is_never_cut_off() -> None:
    membership = Membership(5, THREE)
    assert not membership.cut_from(1)
    assert membership.now == THREE


def test_what_nobody_asks_for_any_more_is_forgotten() -> None:
    membership = Membership(0, THREE)
    two = THREE.without("n3")
    membership.note(entry(4, two))
    membership.note(entry(8, two.without("n2")))
    membership.compact(6)
    assert membership.at(6) == two
    with pytest.raises(StopIteration):
        membership.at(3)
    assert membership.at(8).voters == ("n1",)


def test_a_snapshot_brings_its_own() -> None:
    membership = Membership(0, THREE)
    membership.note(entry(4, THREE.without("n3")))
    membership.restart(9, THREE)
    assert (membership.now, membership.since) == (THREE, 9)


def test_who_left_and_who_has_not_come_yet() -> None:
    membership = Membership(0, THREE)
    assert not membership.left("n4")
    membership.note(entry(4, THREE.without("n3")))
    assert membership.left("n3")
    assert not membership.left("n1")
    assert not membership.left("n4")
