"""The time of a shard's log: at the pace of the monotonic clock, whoever leads and whatever is done to wall clocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.pace import BACKWARD, FORWARD, Pace

NOON = 1_700_000_000_000


def test_it_begins_with_the_wall_clock() -> None:
    assert Pace().pass_time(NOON, 12345.0) == NOON


def test_it_passes_as_the_wall_clock_does() -> None:
    pace = Pace()
    pace.pass_time(NOON, 0)
    assert [pace.pass_time(NOON + ms, 10) for ms in (10, 20, 30)] == [NOON + 10, NOON + 20, NOON + 30]


def test_a_wall_clock_that_jumps_ahead_hurries_it_a_little() -> None:
    pace = Pace()
    pace.pass_time(NOON, 0)
    hour_ms = 3_600_000
    assert pace.pass_time(NOON + hour_ms, 1000) == NOON + 1000 + int(1000 * FORWARD)


def test_a_wall_clock_that_jumps_back_slows_it_down_and_never_turns_it() -> None:
    pace = Pace()
    pace.pass_time(NOON, 0)
    assert pace.pass_time(NOON - 3_600_000, 1000) == NOON + 1000 - int(1000 * BACKWARD)


def test_it_ends_where_the_wall_clock_is() -> None:
    pace = Pace()
    pace.pass_time(NOON, 0)
    times = [pace.pass_time(NOON + 5 + ms, 1.0) for ms in range(1000)]
    assert times[-1] == NOON + 5 + 999


def test_a_follower_keeps_its_leaders_time_going() -> None:
    pace = Pace()
    pace.pass_time(NOON + 50_000, 0)  # a node whose clock is ahead
    pace.follow(NOON)
    assert pace.pass_time(NOON + 50_100, 100) == NOON + 100 + int(100 * FORWARD)


@given(
    st.lists(
        st.tuples(st.integers(-(10**7), 10**7), st.floats(0, 10_000)).map(lambda step: (NOON + step[0], step[1])),
        min_size=2,
    )
)
def test_whatever_the_wall_clock_does_time_goes_on_and_hardly_faster(steps: list[tuple[int, float]]) -> None:
    pace = Pace()
    before = pace.pass_time(*steps[0])
    for wall_ms, elapsed_ms in steps[1:]:
        now = pace.pass_time(wall_ms, elapsed_ms)
        assert before <= now <= before + elapsed_ms * (1 + FORWARD) + 1
        before = now


@pytest.mark.parametrize("leader_ms", [NOON - 1000, NOON, NOON + 1000])
def test_a_change_of_leader_makes_no_jump(leader_ms: int) -> None:
    """A hold of 30 seconds that was granted under one leader lives as long under the next, whose clock is its own."""
    old, new = Pace(), Pace()
    old.pass_time(leader_ms, 0)
    new.pass_time(NOON, 0)
    for _ in range(10):
        new.follow(old.pass_time(leader_ms, 100))
        new.pass_time(NOON, 0)
    ends_ms = old.pass_time(leader_ms, 0) + 30_000
    lived_ms = 0.0
    while new.pass_time(NOON, 100.0) < ends_ms:
        lived_ms += 100
    assert lived_ms >= 30_000 / (1 + FORWARD) - 100
