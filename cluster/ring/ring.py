"""The ring: points on a circle, many for each node, and what is met from a point on, clockwise."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import NamedTuple

VIRTUAL_NODES = 150
"""Points of one node: enough of them that each node meets the others everywhere, and their arcs are much alike."""

CIRCLE = 1 << 64


class Met(NamedTuple):
    """A node, and how far clockwise of where one looked its nearest point is."""

    distance: int
    node: str


def point_of(name: str) -> int:
    """Where a name is on the circle: the same in every process and release."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")


class Ring:
    """The points of a set of nodes; in which order they are named makes no difference."""

    __slots__ = ("_nodes", "_points", "_size")

    def __init__(self, nodes: Iterable[str]) -> None:
        names = sorted(nodes)
        marks = sorted((point_of(f"{name}#{number}"), name) for name in names for number in range(VIRTUAL_NODES))
        self._size = len(names)
        self._points = [point for point, _ in marks]
        self._nodes = [node for _, node in marks]

    def clockwise(self, point: int) -> Iterator[Met]:
        """Every node once, in the order in which it is first met from ``point`` on."""
        start = bisect_left(self._points, point)
        seen: set[str] = set()
        for step in range(start, start + len(self._points)):
            if len(seen) == self._size:
                return
            place = step % len(self._points)
            node = self._nodes[place]
            if node not in seen:
                seen.add(node)
                yield Met((self._points[place] - point) % CIRCLE, node)
