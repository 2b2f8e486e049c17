"""A cache's standing with the leader of one shard.

It joins with a number, and counts from there what it writes back. Write-backs are
kept until the leader says that they are carried out: they are sent again until
then, only so many of them at a time, and to another leader all of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from cluster.cache.snooping import Overwritten, Replica

REPEAT_MS = 50.0
"""What a leader did not answer by then is said again."""

SENT_MAX = 64
"""Write-backs under way for one shard; what is changed beyond that stays in its line for now."""


class Cell(NamedTuple):
    """What is written back of a line; ``dies_ms`` is when the key is to end, on the node's monotonic clock, if ever."""

    key: bytes
    value: bytes
    dies_ms: float | None


class Unconfirmed:
    """The write-backs of one shard, by number, that are not carried out for all we know: true if there are any.

    ``sent_ms`` is from when on the leader's next word about them is waited for.
    """

    __slots__ = ("_numbered", "_pushed", "sent_ms")

    def __init__(self) -> None:
        self._numbered: deque[tuple[int, list[Cell]]] = deque()
        self._pushed = 0  # the last that was sent in this term
        self.sent_ms = 0.0

    def __bool__(self) -> bool:
        return bool(self._numbered)

    @property
    def is_full(self) -> bool:
        """Whether another one would have to wait."""
        return len(self._numbered) >= SENT_MAX

    @property
    def lines(self) -> int:
        """How many lines are in them."""
        return sum(len(cells) for _, cells in self._numbered)

    def add(self, number: int, cells: list[Cell], now_ms: float) -> None:
        """Another one, the last."""
        self._numbered.append((number, cells))
        if len(self._numbered) == 1:
            self.sent_ms = now_ms

    def to_send(self) -> Iterator[tuple[int, list[Cell]]]:
        """Those that may be under way, and are not; from now on they are."""
        for number, cells in islice(self._numbered, SENT_MAX):
            if number > self._pushed:
                self._pushed = number
                yield number, cells

    def send_again(self) -> None:
        """None of them is under way any more."""
        self._pushed = 0

    def confirm(self, number: int, now_ms: float) -> None:
        """All up to that one are carried out."""
        while self._numbered and self._numbered[0][0] <= number:
            self._numbered.popleft()
            self.sent_ms = now_ms

    def has_any_up_to(self, number: int) -> bool:
        """Whether one of those may not be carried out yet."""
        return bool(self._numbered) and self._numbered[0][0] <= number

    def give_up(self) -> None:
        """None of them will be carried out."""
        self._numbered.clear()


class Office:
    """One shard. ``base`` is the number it joined with, 0 before; ``last`` that of the last write-back.

    ``until_ms`` is when its lease runs out; ``turn`` the one in which a line was last used. ``doubted_ms`` is up to
    when lines were used of which only a longer lease shows that they were good, 0 where there were none.
    ``replica`` is this node's, if it has one.
    """

    __slots__ = (
        "asked_ms", "base", "doubted_ms", "floor", "granted", "joining", "last", "leader", "leads", "number",
        "overwritten", "replica", "term", "through", "turn", "unconfirmed", "until_ms",
    )  # fmt: skip

    def __init__(self, number: int) -> None:
        self.number = number
        self.term = 0
        self.leader = ""
        self.base = self.last = self.joining = 0
        self.unconfirmed = Unconfirmed()
        self.asked_ms = 0.0
        self.floor = 0  # the last recall's serial
        self.granted = 0  # the last grant's
        self.until_ms = self.doubted_ms = 0.0
        self.turn = 0
        self.leads = False
        self.replica: Replica | None = None
        self.overwritten = Overwritten()
        self.through: dict[bytes, int] = {}  # lines that are written to memory at once, with how often since asked

    @property
    def is_in_doubt(self) -> bool:
        """Whether lines were used of which it is not known yet whether they were good."""
        return 0 < self.doubted_ms >= self.until_ms
