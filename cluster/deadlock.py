"""Cycles of owners that wait for each other.

An *edge* says that one owner waits for a lock another one holds. A new edge is
checked by walking the graph from the owner it starts at; the walk asks for the
edges of one owner at a time, so it costs what it visits and the graph itself
may be spread over many places.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

EDGES_TOLD = 16
NAME_BYTES_TOLD = 64


class Edge(NamedTuple):
    """``waiter`` waits for ``key``, which ``holder`` holds."""

    waiter: bytes
    holder: bytes
    key: bytes


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
    """The cycle in words: ``a waits for k2 held by b, b waits for k1 held by a``, long ones cut short."""
    told = [
        b"%b waits for %b held by %b" % (_name(e.waiter), _name(e.key), _name(e.holder)) for e in cycle[:EDGES_TOLD]
    ]
    if len(cycle) > EDGES_TOLD:
        told.append(b"and %d more" % (len(cycle) - EDGES_TOLD))
    return b", ".join(told)


def _name(name: bytes) -> bytes:
    return name if len(name) <= NAME_BYTES_TOLD else name[:NAME_BYTES_TOLD] + b"..."
