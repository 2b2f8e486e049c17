"""The coherence of caches, explored: what can happen with one line is followed step by step, and the rules hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

import pytest

from cluster.cache import directory, lines
from cluster.cache.mesi import HOME, LINE, Call, Event, Holding, State
from tests.simulation.exploring import begun
from tests.simulation.mutations_of_caches import OF_CACHES, Planted
from tests.simulation.small_scenes import SCENES
from tests.simulation.small_world import GOES_ON, LEASE_MS, Budget, SmallWorld

WIDTH = 18
DEPTH = 40

FAST = {(state, Event.READ) for state in State}
"""A read of a good line is answered without a look at the table."""

ELSEWHERE = {
    (State.INVALID, Event.WRITE),
    (State.SHARED, Event.WRITE),
    (Holding.UNCACHED, Call.PLAIN_READ),
    (Holding.UNCACHED, Call.PLAIN_WRITE),
}
"""What happens all the time, and is known before the table is asked: no line, or one to be owned."""

Key = TypeVar("Key")
Entry = TypeVar("Entry")


class Watched(Mapping[Key, Entry], Generic[Key, Entry]):
    """A table, and what was looked up in it."""

    def __init__(self, table: Mapping[Key, Entry]) -> None:
        self.table = table
        self.reached: set[Key] = set()

    def __getitem__(self, key: Key) -> Entry:
        self.reached.add(key)
        return self.table[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self.table)

    def __len__(self) -> int:
        return len(self.table)


def test_every_rule_holds_and_every_transition_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    line, home = Watched(LINE), Watched(HOME)
    monkeypatch.setattr(lines, "LINE", line)
    monkeypatch.setattr(directory, "HOME", home)
    states = 0
    for scene in SCENES.values():
        states += scene.explore(depth=DEPTH, width=WIDTH).states
    assert states > 20_000
    missing = {*set(LINE) - line.reached, *set(HOME) - home.reached}
    assert missing == FAST | ELSEWHERE


@pytest.mark.parametrize("name", ["from nothing", "shared, and given up", "joining, crashes", "snooping"])
def test_all_that_can_happen_is_right(name: str) -> None:
    explored = SCENES[name].explore(depth=100, width=1_000_000)
    assert explored.depth < 100, "it went on"
    assert explored.whole_depth == explored.depth


@pytest.mark.parametrize("planted", OF_CACHES, ids=lambda planted: planted.name)
def test_a_planted_bug_is_caught(planted: Planted) -> None:
    found = planted.catch(DEPTH)
    assert found is not None, planted.plant.__doc__
    assert found.rule in planted.rules, found


@pytest.mark.parametrize("wants", ["read", "write"])
def test_a_line_that_comes_too_late_to_be_used_is_asked_for_anew(wants: str) -> None:
    """By who is to write it; for who reads, what it says was so after the question, and that is the answer."""
    world = begun(SmallWorld(2, Budget()), ("read", "a"), ("write", "b"), ("evict", "b"))
    world.take((wants, "b"))
    grant = next(key for key in _run_until(world, "Grant"))
    world.take(("pause",))
    world.take(("pause",))
    world.take(("comes", grant))
    assert world.judge_waits == (wants == "write")
    world.come_to_rest()


def test_a_line_that_was_overwritten_is_given_up_at_once() -> None:
    world = begun(SmallWorld(2, Budget(), "ab"), ("read", "b"), ("read", "a"))
    world.take(("plain write",))
    world.take(("entry", "b", True))
    world.take(("log",))
    world.take(("read", "b"))  # it waits for the entry, which is not carried out here yet
    world.take(("write", "a"))
    for _ in _run_until(world, "applies"):
        raise AssertionError("nothing else is under way")
    assert [op.name for op in world.judge.pending] == []


def is_answered_though_one_lags() -> bool:
    """Whether a write is answered that a reader never gets, though it says again and again that it is there."""
    world = begun(SmallWorld(2, Budget(), "ab"), ("read", "b"), ("read", "a"))
    world.budget = Budget(whiles=1000)
    world.take(("plain write",))
    while world.judge_waits and world.now_ms < 10 * LEASE_MS:
        world.take(("while",))
        for _ in _run_until(world, "'entry'"):
            raise AssertionError("nothing else is under way")
    return not world.judge_waits


def test_who_lags_for_ever_is_not_waited_for_for_ever() -> None:
    assert is_answered_though_one_lags()


def _run_until(world: SmallWorld, kind: str) -> Iterator[object]:
    """Lets everything happen but what is of that kind, which is what is left."""
    for _ in range(1000):
        left = [choice for choice in world.choices() if choice[0] in GOES_ON]
        others = [choice for choice in left if kind not in repr(choice)]
        if not others:
            yield from (key for key in world.bag if kind in repr(key))
            return
        world.take(others[0])
    raise AssertionError("there is always something on its way")
