"""Until when a node may keep its clients' sessions, by what it hears of its own presences."""

from __future__ import annotations

import pytest

from cluster.credit import FOREVER_MS, Credit
from cluster.raft.messages import Presence
from cluster.ring.slots import SYSTEM

TIMEOUT_MS = 10_000
KEEP_MS = 9_000


def begun(shards: int = 1, at_ms: float = 0.0) -> Credit:
    """That of a node that started then."""
    credit = Credit(shards, TIMEOUT_MS)
    assert credit.lapsed(at_ms) == []
    return credit


def presence(echo_ms: float, held_ms: float = 0.0, *, both_ways: bool = True, doubt_ms: float = 0.0) -> Presence:
    """A leader of shard 0 tells which presence of the node it heard last."""
    doubts = [(0, int(doubt_ms * 1000))] if doubt_ms else []
    return Presence(0, 1, int(echo_ms * 1000), int(held_ms * 1000), [(0, 3)], both_ways, doubts, TIMEOUT_MS)


def lapses_ms(credit: Credit) -> float:
    """When shard 0 does."""
    before_ms = next(ms for ms in range(0, 100_000, 10) if 0 in credit.lapsed(ms + 10.0))
    return before_ms + 10.0


def test_a_node_that_just_started_has_credit() -> None:
    credit = begun(at_ms=500.0)
    assert credit.next_ms == 500.0 + KEEP_MS
    assert lapses_ms(credit) == 500.0 + KEEP_MS


def test_credit_is_from_when_the_presence_was_sent() -> None:
    credit = begun()
    credit.hear("n1", presence(4_000.0, 300.0), 4_310.0)
    assert lapses_ms(credit) == 4_000.0 + KEEP_MS


def test_credit_never_gets_less() -> None:
    credit = begun()
    credit.hear("n1", presence(4_000.0), 4_010.0)
    credit.hear("n1", presence(3_000.0), 4_020.0)
    assert lapses_ms(credit) == 4_000.0 + KEEP_MS


def test_a_leader_that_is_not_heard_does_not_count_it() -> None:
    """What it heard did not show that it is heard itself, so it counts the node's silence from before."""
    credit = begun()
    credit.hear("n1", presence(4_000.0, both_ways=False), 4_010.0)
    assert lapses_ms(credit) == KEEP_MS


@pytest.mark.parametrize(("held_ms", "credited_ms"), [(300.0, 3_900.0), (500.0, 4_000.0)])
def test_a_leader_in_doubt_gives_credit_up_to_when_it_was_certain(held_ms: float, credited_ms: float) -> None:
    """It heard the presence so long ago, and was certain to lead 400 ms ago: another one may count from there."""
    credit = begun()
    credit.hear("n1", presence(4_000.0, held_ms, doubt_ms=400.0), 4_600.0)
    assert lapses_ms(credit) == credited_ms + KEEP_MS


def test_others_than_the_leader_give_none() -> None:
    credit = begun()
    credit.hear("n1", Presence(0, 1, 4_000_000, 0, [(SYSTEM, 1)], True), 4_010.0)
    assert lapses_ms(credit) == KEEP_MS


@pytest.mark.parametrize("echo_ms", [1_000.0, 70_000.0])
def test_what_was_sent_by_another_run_gives_none(echo_ms: float) -> None:
    credit = begun(at_ms=2_000.0)
    credit.hear("n1", presence(echo_ms), 5_000.0)
    assert lapses_ms(credit) == 2_000.0 + KEEP_MS


def test_what_was_sent_before_the_machine_was_started_anew_gives_none() -> None:
    """The clock began at 0 again, and passes the time that the other node still tells of."""
    credit = begun(at_ms=1_000.0)
    credit.hear("n1", presence(50_000.0, 60_000.0), 51_000.0)
    assert credit.lapsed(51_000.0) == [0]


def test_each_shard_has_its_own() -> None:
    credit = begun(3)
    credit.note(1, 5_000.0)
    assert credit.lapsed(KEEP_MS - 1.0) == []
    assert credit.lapsed(KEEP_MS) == [0, 2]
    assert credit.next_ms == 5_000.0 + KEEP_MS
    assert credit.lapsed(5_000.0 + KEEP_MS) == [0, 1, 2]
    assert credit.next_ms == FOREVER_MS
    credit.note(2, 20_000.0)
    assert credit.next_ms == 20_000.0 + KEEP_MS
    assert credit.lapsed(20_000.0) == [0, 1]


def test_the_shortest_timeout_of_all_nodes_counts() -> None:
    credit = begun()
    credit.hear("n2", Presence(0, 1, 0, 0, [], session_timeout_ms=2_000), 100.0)
    assert credit.next_ms <= 100.0, "it may be too late already"
    assert credit.keep_ms == 1_800.0
    credit.hear("n3", Presence(0, 1, 0, 0, [], session_timeout_ms=30_000), 100.0)
    assert credit.keep_ms == 1_800.0
    credit.hear("n2", Presence(0, 1, 0, 0, [], session_timeout_ms=30_000), 100.0)
    assert credit.keep_ms == KEEP_MS, "its own"
