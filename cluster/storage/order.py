"""Where in the log file each shard's entries lie.

Entries are kept in the order they arrived, whichever shard they are of, so a
commit of many shards writes as few pages as one of a single shard. Where an
entry is, is known in memory only: the file is read through once when it is opened.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable


class Order:
    """The places (row numbers) of all entries, by shard and index."""

    __slots__ = ("_indexes", "_places", "next_place")

    def __init__(self, rows: Iterable[tuple[int, int, int]]) -> None:
        """``rows`` are (place, shard, index) of all that is in the file, by place."""
        self._indexes: dict[int, list[int]] = {}
        self._places: dict[int, list[int]] = {}
        self.next_place = 1
        for place, shard, index in rows:
            self.next_place = place
            self.add(shard, index)

    def add(self, shard: int, index: int) -> int:
        """The next entry of the shard; its place."""
        place = self.next_place
        self.next_place = place + 1
        self._indexes.setdefault(shard, []).append(index)
        self._places.setdefault(shard, []).append(place)
        return place

    def tail(self, shard: int) -> int:
        """The last index of the shard, 0 for none."""
        indexes = self._indexes.get(shard)
        return indexes[-1] if indexes else 0

    def place(self, shard: int, index: int) -> int | None:
        """Where an entry is, None when it is not there."""
        indexes = self._indexes.get(shard, [])
        at = bisect_left(indexes, index)
        return self._places[shard][at] if at < len(indexes) and indexes[at] == index else None

    def places_from(self, shard: int, index: int, limit: int) -> list[tuple[int, int]]:
        """(index, place) of up to ``limit`` entries from ``index`` on."""
        indexes = self._indexes.get(shard, [])
        at = bisect_left(indexes, index)
        return list(zip(indexes[at : at + limit], self._places.get(shard, [])[at : at + limit], strict=True))

    def take_from(self, shard: int, index: int) -> list[int]:
        """Forgets the entries from ``index`` on; where they were."""
        indexes = self._indexes.get(shard, [])
        at = bisect_left(indexes, index)
        found = self._places.get(shard, [])[at:]
        if found:
            del indexes[at:], self._places[shard][at:]
        return found

    def places_to(self, shard: int, last: int, limit: int) -> list[int]:
        """The places of the first entries, up to index ``last`` and up to ``limit`` of them."""
        at = bisect_left(self._indexes.get(shard, []), last + 1)
        return self._places.get(shard, [])[: min(at, limit)]

    def forget_first(self, shard: int, count: int) -> None:
        """Those of `places_to` are gone."""
        del self._indexes[shard][:count], self._places[shard][:count]
