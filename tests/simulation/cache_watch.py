"""What must hold of all caches together, and what a judge has to know of them: what memory got, and what was lost.

A *good* line is one that clients may be answered from at that moment: its node's
lease stands by the node's own clock, and its key's life in it is not over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from cluster import batch as batches
from cluster.cache.lines import Line
from cluster.cache.mesi import State
from cluster.machine import caches
from tests.simulation.sessions import LOADS
from tests.simulation.world import Violation

if TYPE_CHECKING:
    from cluster.cache.directory import Directory
    from cluster.machine.loading import Loader
    from cluster.machine.machine import Machine
    from cluster.node import Node
    from cluster.storage.contract import Entry
    from tests.simulation.process import Process
    from tests.simulation.simulation import Simulation

ALONE = frozenset({State.EXCLUSIVE, State.MODIFIED})


class Loss(NamedTuple):
    """A cache lost what it had not written back: of one shard, or (None) of all. ``after`` is when it last did."""

    author: bytes
    shard: int | None
    after: int
    at: int


class _Known:
    """A cache as the log has it."""

    __slots__ = ("base", "is_open", "last")

    def __init__(self, base: int) -> None:
        self.base = self.last = base
        self.is_open = True


class CacheWatch:
    """Of one run. ``written_back`` are the values that came to memory from caches, ``losses`` what did not."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._world = simulation.world
        self._known: dict[int, dict[bytes, _Known]] = {}
        self._bases: dict[bytes, dict[int, int]] = {}
        self._lost_at: dict[tuple[bytes, int | None], int] = {}
        self.written_back: set[bytes] = set()
        self.losses: list[Loss] = []
        self.hits = 0

    # Moments

    def carried_out(self, number: int, call: list[Any]) -> list[bytes]:
        """A call about caches is in a committed entry of a shard; the values that memory got by it."""
        name, author, *rest = call
        known = self._known.setdefault(number, {})
        if name == caches.JOIN:
            self._joins(known, author, int(rest[0]))
        elif name == caches.CLOSE and author in known and known[author].base == int(rest[0]):
            known[author].is_open = False
        elif name == caches.WRITE_BACK:
            cache, count = known.get(author), int(rest[0])
            if cache is not None and cache.is_open and cache.last + 1 == count:
                cache.last = count
                self.written_back.update(rest[2::3])
                return rest[2::3]
        return []

    @staticmethod
    def _joins(known: dict[bytes, _Known], author: bytes, number: int) -> None:
        node = author.partition(b".")[0]
        for other in [one for one in known if one != author and one.partition(b".")[0] == node]:
            del known[other]
        if author not in known or known[author].last < number:
            known[author] = _Known(number)

    def crashed(self, node: Node) -> None:
        """All that a node had is gone."""
        self.hits += node.cache.traffic.hits
        if node.cache.offices:
            self._loses(node.author, None)

    def turned(self, process: Process, node: Node) -> None:
        """A turn of a node is over: it may have been told that it lost what it had."""
        offices = node.cache.offices
        if not offices:
            return
        bases = self._bases.setdefault(node.author, {})
        for number, office in offices.items():
            base = bases.get(number, 0)
            if base != office.base:
                bases[number] = office.base
                if base:
                    self._loses(node.author, number)
        self._judge_owners(process)

    def _loses(self, author: bytes, number: int | None) -> None:
        after = max(self._lost_at.get((author, number), 0), self._lost_at.get((author, None), 0))
        at = self._lost_at[author, number] = self._world.tick()
        self.losses.append(Loss(author, number, after, at))

    # What must hold

    def judge_loaders(self, entry: Entry, before: dict[bytes, Loader], machine: Machine) -> None:
        """Nobody is given the token of a key in an entry while another has one, whose time is not over.

        Nor was the key written meanwhile, or did anybody's session end.
        """
        changed = {
            key: (former, now)
            for key, former in before.items()
            if (now := machine.loaders.get(key)) is not None and former.token != now.token
        }
        if not changed:
            return
        writes = [write for _, _, body in batches.parts_in(entry.payload)[1] for write in batches.writes_in(body)[0]]
        if any(write[0].startswith(b"_") and write[0] not in caches.HANDLERS for write in writes):
            return
        named = {word for write in writes if write[0] != LOADS for word in write if isinstance(word, bytes)}
        for key, (former, now) in changed.items():
            if former.until_ms > machine.now_ms and former.origin != now.origin and key not in named:
                raise Violation("one loads", f"{now} took {key!r} over from {former} in {entry.index}")

    def good_lines(self, process: Process) -> Iterator[tuple[bytes, Line]]:
        """The good lines of a node."""
        node = process.node
        assert node is not None
        for key, line in list(node.cache.lines._lines.items()):
            if self._is_good(process, line):
                yield key, line

    def _is_good(self, process: Process, line: Line) -> bool:
        node, office = process.node, line.office
        assert node is not None
        now_ms = process.clock.monotonic_ms(self._world.now_us)
        until_ms = node.cache._sure_until(office.number, office.term) if office.leads else office.until_ms
        return now_ms < until_ms and now_ms < line.end_ms

    def _judge_owners(self, process: Process) -> None:
        """Who has a good line alone has it alone."""
        others = [one for one in self._simulation.processes.values() if one.node is not None and one is not process]
        for key, line in self.good_lines(process):
            for other in others:
                assert other.node is not None
                theirs = other.node.cache.lines.get(key)
                if theirs is None or not (line.state in ALONE or theirs.state in ALONE):
                    continue
                if self._is_good(other, theirs):
                    raise Violation(
                        "an owner is alone",
                        f"{key!r} is {line.state.value} at {process} and {theirs.state.value} at {other}",
                    )

    # At the end

    def unsettled(self) -> Iterator[str]:
        """What is not yet, or not at all, as it must be where all is quiet."""
        for process in self._simulation.processes.values():
            node = process.node
            if node is None:
                continue
            if node.cache.waiting:
                yield f"{process} waits for lines"
            if node.cache.dirty:
                yield f"{process} has {node.cache.dirty} dirty lines"
            for key, line in self.good_lines(process):
                yield from self._compared(process, node, key, line)

    def _compared(self, process: Process, node: Node, key: bytes, line: Line) -> Iterator[str]:
        """A good line beside its directory, and beside memory."""
        number = line.office.number
        for leader in self._simulation.leaders(number):
            assert leader.node is not None
            shard = leader.node.shards[number]
            directory: Directory | None = leader.node._coherence._directories.get(shard)
            holders = () if directory is None else directory.holders(key)
            owned = directory is not None and directory.is_owned(key)
            where = f"{key!r} is {line.state.value} at {process}, held by {holders}, owned {owned}, as {leader} has it"
            if node.author not in holders or owned != (line.state in ALONE) or (owned and len(holders) > 1):
                yield where
            kept = shard.machine.keyspace.values.get(key)
            if kept != line.value and line.state is not State.MODIFIED:
                yield f"{where}; {line.value!r} there, {kept!r} in memory"
