"""What leases of caches may stand from before a leader's term, by what is known when it begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cluster.batch import node_of, parts_in, writes_in
from cluster.machine import caches


class FormerLeases:
    """Of one shard. ``unknown`` are the entries that the new leader has, and that are not carried out yet."""

    __slots__ = ("_home", "_until_ms")

    def __init__(self, known: caches.Caches, unknown: Iterable[bytes], now_ms: float) -> None:
        self._home = node_of(known.home) if known.home else ""  # who granted caches their lines last
        lease_ms = known.lease_ms
        for payload in unknown:
            for _, _, body in parts_in(payload)[1] if caches.HOME in payload else ():
                for call in writes_in(body)[0]:
                    if call[0] == caches.HOME:
                        self._home, lease_ms = "", max(lease_ms, int(call[2]))
        self._until_ms = now_ms + lease_ms

    def are_over(self, node: str, now_ms: float, hears: Callable[[str], bool]) -> bool:
        """Whether that node's cache goes by none any more.

        They end with time; that of the leader before with the last word of it: it was good while it led.
        """
        return now_ms >= self._until_ms or (node == self._home and not hears(node))
