"""What commands of locks cost among very many held locks and waiting clients, against among few.

A command is carried out by some clients at once, so that both what it costs and
what a turn costs would show if it grew.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from statistics import median

from benchmarks.bench import Bench, Measure, Sampler, Samplers
from benchmarks.crowds import ByHand, Node, OverSockets, Words, most_sockets, words
from benchmarks.probes import MeasureFailed

FEW = 1_000
MANY = 100_000
AT_ONCE = 50
"""Clients that are timed, each with the same command at the same time."""
TURNS = 40
SOCKET_TURNS = 20
HOUR_MS = 3_600_000
BATCH = 500
SLOWER_MAX = 3.0
LINE = "line"
"""A lock that all wait for, when they do not wait for one each."""

Cost = tuple[str, float | None]
"""What was done, and the seconds it took each time; None where that cannot be seen."""


class Crowd:
    """A node with so many held locks and as many waiters, one for each lock or all ``in_line`` for one.

    The clients that are timed have locks of their own, ``mine:0`` and so on.
    """

    def __init__(self, node: Node, size: int, *, in_line: bool) -> None:
        self._node = node
        self._size = size
        self._turn = 0
        keys = [LINE, *(f"held:{number}" for number in range(1, size))]
        holders = [node.connect() for _ in range(BATCH)]
        for first in range(0, size, BATCH):
            # Lives end over an hour, as they would if not all had begun at once.
            asked = [
                (holder, words(f"LOCK.ACQUIRE {keys[at]} holder:{at} PX {HOUR_MS + HOUR_MS * at // size}"))
                for holder, at in zip(holders, range(first, min(size, first + BATCH)), strict=False)
            ]
            node.carry_out(asked, [holder for holder, _ in asked])
        self._waiters = [node.connect() for _ in range(size)]
        for first in range(0, size, BATCH):
            batch = range(first, min(size, first + BATCH))
            node.queue([self._wait(at, LINE if in_line else keys[at]) for at in batch])
        self._first, self._second = ([node.connect() for _ in range(AT_ONCE)] for _ in range(2))
        self._line = deque(range(size)) if in_line else deque[int]()
        if in_line:
            self._holder = self._hand_over("holder:0")[0]

    def _wait(self, at: int, key: str) -> tuple[int, Words]:
        return self._waiters[at], words(f"LOCK.ACQUIRE {key} waiter:{at} PX {HOUR_MS} BLOCK 0")

    def costs(self) -> Iterator[Cost]:
        """Does one thing after the other."""
        first, second = self._first, self._second
        self._turn += 1
        start = 1 + self._turn * AT_ONCE % (self._size - AT_ONCE)
        held = range(start, start + AT_ONCE)
        yield "ACQUIRE", self._each(first, "LOCK.ACQUIRE mine:{} a:{} PX 600000")
        yield "EXTEND", self._each(first, "LOCK.EXTEND mine:{} a:{} PX 500000")
        yield "INFO", self._each(first, "LOCK.INFO held:{}", held)
        yield "OWNED", self._each(first, "LOCK.OWNED holder:{}", held)
        yield "SCAN COUNT 10", self._each(first, "LOCK.SCAN {} COUNT 10", held)
        yield "ACQUIRE that waits", self._queue(second, "LOCK.ACQUIRE mine:{} b:{} BLOCK 0")
        yield "RELEASE that hands over", self._each(first, "LOCK.RELEASE mine:{} a:{}", others=second)
        yield "DOWNGRADE", self._each(second, "LOCK.DOWNGRADE mine:{} b:{}")
        yield "RELEASE", self._each(second, "LOCK.RELEASE mine:{} b:{}")
        yield "MACQUIRE of two", self._each(first, "LOCK.MACQUIRE 2 mine:{} too:{} a:{}")
        yield "BREAK", self._each(first, "LOCK.BREAK mine:{}")
        self._each(first, "LOCK.RELEASE too:{} a:{}")
        yield from self._connections_end()
        if self._line:
            yield from self._line_moves()

    def _connections_end(self) -> Iterator[Cost]:
        """Of those who hold with SESSION, which serves who waits, and of those who wait."""
        self._each(self._first, "LOCK.ACQUIRE mine:{} a:{} SESSION")
        self._queue(self._second, "LOCK.ACQUIRE mine:{} b:{} BLOCK 0")
        seconds, _ = self._node.carry_out([], self._second, self._first)
        yield "a holder's connection ends", seconds / AT_ONCE
        self._first = [self._node.connect() for _ in range(AT_ONCE)]
        self._queue(self._first, "LOCK.ACQUIRE mine:{} a:{} BLOCK 0")
        yield "a waiter's connection ends", _each_of(AT_ONCE, self._node.leave(self._first))
        self._first = [self._node.connect() for _ in range(AT_ONCE)]
        self._each(self._second, "LOCK.RELEASE mine:{} b:{}")

    def _line_moves(self) -> Iterator[Cost]:
        """The lock all wait for goes on to the next, and who had it to the end of the line; one leaves the middle."""
        before = self._holder
        self._holder, seconds = self._hand_over(f"waiter:{before}")
        yield "hand-over in the line", seconds
        yield "to the line's end", self._node.queue([self._wait(before, LINE)])
        self._line.append(before)
        middle = self._line[len(self._line) // 2]
        yield "out of the line's middle", self._node.leave([self._waiters[middle]])
        self._waiters[middle] = self._node.connect()
        self._node.queue([self._wait(middle, LINE)])
        self._line.remove(middle)
        self._line.append(middle)

    def _hand_over(self, holder: str) -> tuple[int, float]:
        """Who has the lock all wait for gives it back: who has it now, and after how many seconds."""
        now = self._line.popleft()
        asked = [(self._first[0], words(f"LOCK.RELEASE {LINE} {holder}"))]
        seconds, _ = self._node.carry_out(asked, [self._first[0], self._waiters[now]])
        return now, seconds

    def _each(
        self, clients: Sequence[int], line: str, numbers: Sequence[int] = range(AT_ONCE), others: Sequence[int] = ()
    ) -> float:
        """Clients each carry out the line, with a number of their own; ``others`` are answered as well."""
        asked = [(client, _numbered(line, number)) for client, number in zip(clients, numbers, strict=True)]
        seconds, replies = self._node.carry_out(asked, [*clients, *others])
        if any(isinstance(reply, Exception) or not reply for reply in replies):
            raise MeasureFailed(f"{line} was answered {replies!r:.200}")
        return seconds / len(asked)

    def _queue(self, clients: Sequence[int], line: str) -> float | None:
        """Clients each begin to wait."""
        return _each_of(
            AT_ONCE, self._node.queue([(client, _numbered(line, number)) for number, client in enumerate(clients)])
        )


def _numbered(line: str, number: int) -> Words:
    return words(line.replace("{}", str(number)))


def _each_of(count: int, seconds: float | None) -> float | None:
    return None if seconds is None else seconds / count


def _compared(bench: Bench, few: Crowd, many: Crowd, turns: int) -> float:
    """How many times as dear the command is among many that grew dearest; all of them go into the notes."""
    costs: dict[str, tuple[list[float], list[float]]] = {}
    for _ in range(max(2, turns // bench.divisor)):
        for which, crowd in enumerate((few, many)):
            for what, seconds in crowd.costs():
                if seconds is not None:
                    costs.setdefault(what, ([], []))[which].append(1e6 * seconds)
    ratios = []
    for what, (among_few, among_many) in costs.items():
        less, more = median(among_few), median(among_many)
        ratios.append(more / less)
        slowest = f"slowest turn {max(among_many):.3g} and {max(among_few):.3g}"
        bench.notes.append(f"{what}: {more:.3g} µs, among few {less:.3g}: {more / less:.2f} ({slowest})")
    return max(ratios)


@contextmanager
def _as_in_a_server() -> Iterator[None]:
    """Garbage is collected as rarely as in a server, and not what is there now."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def by_hand(*, in_line: bool) -> Callable[[Bench], AbstractContextManager[tuple[Sampler, Sampler | None]]]:
    """Among 100,000 of each, in one process without sockets and disks."""

    @contextmanager
    def samplers(bench: Bench) -> Samplers:
        few, many = (Crowd(ByHand(), size, in_line=in_line) for size in (FEW, MANY // bench.divisor))
        with _as_in_a_server():
            yield lambda: _compared(bench, few, many, TURNS), None

    return samplers


@contextmanager
def over_sockets(bench: Bench) -> Samplers:
    """Among as many of each as a process may have sockets."""
    most = min(MANY, most_sockets()) // bench.divisor
    if most <= 3 * FEW // bench.divisor:
        raise MeasureFailed(f"a process may have {most} sockets only: raise the hard limit of open files")
    flags = "--maxclients", str(MANY)
    with bench.ours(*flags) as one, bench.ours(*flags) as two, ExitStack() as until:
        few = Crowd(OverSockets(one, until), FEW // bench.divisor, in_line=False)
        size = most - 2 * FEW // bench.divisor  # both servers' connections are this process's
        many = Crowd(OverSockets(two, until), size, in_line=False)
        bench.notes.append(f"{size} held locks and as many waiters")
        yield lambda: _compared(bench, few, many, SOCKET_TURNS), None


MEASURES = (
    Measure(
        "lock-many", "100,000 locks and waiters: worst", "", "1,000", SLOWER_MAX, False, by_hand(in_line=False),
        repeats=False,
    ),
    Measure(
        "lock-many-line", "the same, all wait for one lock", "", "1,000", SLOWER_MAX, False, by_hand(in_line=True),
        repeats=False,
    ),
    Measure(
        "lock-many-sockets", "as many as there are sockets", "", "1,000", SLOWER_MAX, False, over_sockets, repeats=False
    ),
)  # fmt: skip
