"""The ring of virtual nodes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.ring.ring import CIRCLE, VIRTUAL_NODES, Ring, point_of

NAMES = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=8, unique=True)


def test_points_are_the_same_in_every_process_and_release() -> None:
    """What a node computes, another must too: also one of an older build."""
    assert point_of("n1#0") == 3644195303879665199
    assert [met.node for met in Ring(["n1", "n2", "n3", "n4", "n5"]).clockwise(0)] == ["n3", "n4", "n5", "n1", "n2"]


@given(names=NAMES, point=st.integers(0, CIRCLE - 1), data=st.data())
def test_every_node_is_met_once_nearest_first_however_they_came(
    names: list[str], point: int, data: st.DataObject
) -> None:
    met = list(Ring(names).clockwise(point))
    assert sorted(node for _, node in met) == sorted(names)
    assert [distance for distance, _ in met] == sorted(distance for distance, _ in met)
    assert list(Ring(data.draw(st.permutations(names))).clockwise(point)) == met
    for distance, node in met:
        points = [point_of(f"{node}#{number}") for number in range(VIRTUAL_NODES)]
        assert distance == min((one - point) % CIRCLE for one in points)


@given(names=NAMES, point=st.integers(0, CIRCLE - 1))
def test_a_node_that_leaves_changes_nothing_between_the_others(names: list[str], point: int) -> None:
    met = list(Ring(names).clockwise(point))
    for gone in names:
        assert list(Ring(name for name in names if name != gone).clockwise(point)) == [
            one for one in met if one.node != gone
        ]


@pytest.mark.parametrize("nodes", [2, 3, 10])
def test_arcs_are_much_alike(nodes: int) -> None:
    """The part of the circle of which a node comes first."""
    names = [f"n{number}" for number in range(1, nodes + 1)]
    points = sorted((point_of(f"{name}#{number}"), name) for name in names for number in range(VIRTUAL_NODES))
    arcs = dict.fromkeys(names, 0)
    for (before, _), (point, name) in pairwise([(points[-1][0] - CIRCLE, ""), *points]):
        arcs[name] += point - before
    assert sum(arcs.values()) == CIRCLE
    assert all(0.75 < arc * nodes / CIRCLE < 1.25 for arc in arcs.values())


def test_an_empty_ring_meets_nobody() -> None:
    assert list(Ring([]).clockwise(7)) == []
