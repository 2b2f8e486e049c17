"""What the system group knows of the cluster: where shards are, who leaves or is lost, whether shards may be moved."""

from __future__ import annotations

import pytest

from cluster.atlas import COMMANDS, LEAVING, LOST, UP, Atlas, Marks, Place, marked, paused, placed
from cluster.machine.machine import Call, Machine
from cluster.machine.reply import OK


class System:
    """The system's state, and a view of it."""

    def __init__(self) -> None:
        self.machine = Machine(COMMANDS)
        self.atlas = Atlas()
        self.applied = 0

    def carry_out(self, *calls: Call) -> Atlas:
        """One entry with these calls; what is seen then."""
        self.applied += 1
        assert self.machine.apply(self.applied, calls) == [OK] * len(calls)
        self.atlas.read(self.machine, self.applied)
        return self.atlas

    def place(self, shard: int, index: int, *voters: str, learners: tuple[str, ...] = ()) -> Atlas:
        """A leader reports."""
        return self.carry_out(placed(self.machine, shard, Place(index, voters, learners)))

    def mark(self, node: str, mark: str) -> Marks:
        return self.carry_out(marked(self.machine, node, mark)).marks


def test_nothing_is_known_at_first() -> None:
    atlas = System().carry_out()
    assert atlas.place(3) == Place(-1, (), ())
    assert atlas.place(3).nodes == ()
    assert (atlas.places, atlas.marks, atlas.paused) == ({}, Marks((), ()), False)
    assert atlas.held_by("n1") == 0


def test_a_shard_is_where_its_leader_said_last() -> None:
    system = System()
    assert system.place(3, 0, "n1", "n2").place(3) == Place(0, ("n1", "n2"), ())
    place = system.place(3, 7, "n1", "n2", learners=("n4",)).place(3)
    assert place.nodes == ("n1", "n2", "n4")
    assert system.atlas.places.keys() == {3}


@pytest.mark.parametrize("index", [0, 6, 7])
def test_a_report_that_is_late_replaces_none_that_is_newer(index: int) -> None:
    """A leader that is none any more repeats what it knew."""
    system = System()
    system.place(3, 7, "n1", "n4")
    assert system.place(3, index, "n1", "n2").place(3) == Place(7, ("n1", "n4"), ())


def test_how_many_shards_a_node_has_a_part_in() -> None:
    system = System()
    system.place(0, 0, "n1", "n2")
    system.place(1, 0, "n2", learners=("n3",))
    system.place(512, 0, "n3", "n2")
    assert [system.atlas.held_by(node) for node in ("n1", "n2", "n3", "n4")] == [1, 3, 2, 0]


def test_a_node_is_marked_until_it_is_back() -> None:
    system = System()
    assert system.mark("n3", LOST) == Marks((), ("n3",))
    assert system.mark("n1", LOST) == Marks((), ("n1", "n3")), "in one order everywhere"
    assert system.mark("n3", UP) == Marks((), ("n1",))
    assert system.mark("n3", UP) == Marks((), ("n1",))


def test_one_that_leaves_stays_so_until_it_is_gone() -> None:
    system = System()
    assert system.mark("n3", LEAVING) == Marks(("n3",), ())
    assert system.mark("n3", LOST) == Marks(("n3",), ())
    assert system.mark("n3", UP) == Marks((), ())


def test_one_that_is_lost_may_be_told_to_leave() -> None:
    system = System()
    system.mark("n3", LOST)
    assert system.mark("n3", LEAVING) == Marks(("n3",), ())


def test_moves_stop_and_go_on() -> None:
    system = System()
    for pause in (True, True, False, False, True):
        assert system.carry_out(paused(system.machine, pause=pause)).paused == pause


def test_the_state_is_looked_at_again_only_when_something_was_carried_out() -> None:
    system = System()
    system.place(0, 0, "n1")
    before = system.atlas.places
    system.atlas.read(system.machine, system.applied)
    assert system.atlas.places is before
    system.carry_out()
    assert system.atlas.places is not before


def test_a_checkpoint_brings_all_of_it_back() -> None:
    system = System()
    system.place(1, 5, "n1", "n2", learners=("n3",))
    system.mark("n3", LEAVING)
    system.carry_out(paused(system.machine, pause=True))
    checkpoint, ledger = system.machine.begin_checkpoint()
    machine, atlas = Machine(COMMANDS), Atlas()
    machine.restore(ledger, checkpoint.slice(100))
    atlas.read(machine, system.applied)
    assert (atlas.places, atlas.marks, atlas.paused) == (system.atlas.places, system.atlas.marks, True)
