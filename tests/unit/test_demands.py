"""What may be committed while some members must have an entry, whatever a majority has."""

from __future__ import annotations

from cluster.raft.demands import Demands


def test_nothing_is_held_up_where_nothing_is_demanded() -> None:
    demands = Demands()
    assert not demands
    assert demands.allowed(7, lambda _: 0) == 7


def test_an_entry_waits_for_who_must_have_it_and_so_does_what_comes_after() -> None:
    demands, match = Demands(), {"a": 4, "b": 9}
    demands.add("a", 5)
    demands.add("a", 8)
    demands.add("b", 6)
    assert demands.allowed(9, match.__getitem__) == 4
    assert demands.members() == ["a"]
    match["a"] = 5
    assert demands.allowed(9, match.__getitem__) == 7
    match["a"] = 8
    assert demands.allowed(9, match.__getitem__) == 9
    assert not demands


def test_who_is_excused_is_not_waited_for_until_something_new_is_demanded() -> None:
    demands = Demands()
    demands.add("a", 5)
    demands.excuse("a")
    demands.excuse("nobody")
    assert demands.allowed(6, lambda _: 0) == 6
    demands.add("a", 7)
    assert demands.allowed(7, lambda _: 6) == 6
