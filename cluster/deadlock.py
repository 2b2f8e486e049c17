"""Cycles of owners that wait for each other.

An *edge* says that one owner waits for a lock another one holds. Who stands
in line behind somebody who waits for several locks waits for all of them, too;
such an edge names those it goes through. A new edge is checked by walking the
graph from the owner it starts at; the walk asks for the edges of one owner at
a time, so it costs what it visits and the graph itself may be spread over many
places.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

EDGES_TOLD = 16
NAME_BYTES_TOLD = 64


class Edge(NamedTuple):
    """``waiter`` waits for ``key``, which ``holder`` holds.

    With ``behind``, it waits for the first key there behind the owner named
    with it, who waits for the next; the last of those owners waits for ``key``.
    """

    waiter: bytes
    holder: bytes
    key: bytes
    behind: tuple[tuple[bytes, bytes], ...] = ()


class Step(NamedTuple):
    """``waiter`` waits for ``key``, which ``other`` holds or, when not ``held``, is to get first."""

    waiter: bytes
    key: bytes
    other: bytes
    held: bool


def steps(cycle: Iterable[Edge]) -> list[Step]:
    """Every wait of a cycle, those it goes through included."""
    found: list[Step] = []
    for edge in cycle:
        waiter = edge.waiter
        for key, other in edge.behind:
            found.append(Step(waiter, key, other, held=False))
            waiter = other
        found.append(Step(waiter, edge.key, edge.holder, held=True))
    return found


def find_cycle(owner: bytes, edges_of: Callable[[bytes], Iterable[Edge]]) -> list[Edge]:
    """A shortest cycle through ``owner``, beginning with an edge of its own; empty when there is none."""
    reached: dict[bytes, Edge] = {}
    ahead = deque([owner])
    while ahead:
        for edge in edges_of(ahead.popleft()):
            if edge.holder == owner:
                return _path(reached, edge, owner)
            if edge.holder not in reached:
                reached[edge.holder] = edge
                ahead.append(edge.holder)
    return []


def _path(reached: dict[bytes, Edge], last: Edge, owner: bytes) -> list[Edge]:
    path = [last]
    while path[-1].waiter != owner:
        path.append(reached[path[-1].waiter])
    return path[::-1]


def describe(cycle: list[Edge]) -> bytes:
    """The cycle in words: ``a waits for k2 held by b, b waits for k1 held by a``, long ones cut short.

    Who stands in line ``waits for k1 behind`` somebody.
    """
    found = steps(cycle)
    told = [
        b"%b waits for %b %b %b"
        % (_name(step.waiter), _name(step.key), b"held by" if step.held else b"behind", _name(step.other))
        for step in found[:EDGES_TOLD]
    ]
    if len(found) > EDGES_TOLD:
        told.append(b"and %d more" % (len(found) - EDGES_TOLD))
    return b", ".join(told)


def _name(name: bytes) -> bytes:
    return name if len(name) <= NAME_BYTES_TOLD else name[:NAME_BYTES_TOLD] + b"..."
