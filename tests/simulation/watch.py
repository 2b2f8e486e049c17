"""What must hold after every turn, whatever happens: of each shard's group, and of all together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cluster.machine import caches
from cluster.raft.messages import Message
from cluster.ring.slots import SYSTEM
from tests.simulation.cache_watch import CacheWatch
from tests.simulation.groups import Group
from tests.simulation.standing import Standing
from tests.simulation.world import Violation

if TYPE_CHECKING:
    from cluster.node import Node
    from tests.simulation.process import Process
    from tests.simulation.simulation import Simulation

UNTOUCHED_EVERY = 16
"""Shards that a turn did not touch are looked at in every so many turns."""


class Watch:
    """The record of a run: one `Group` for each shard. ``commands`` counts what was carried out."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.standing = Standing(simulation.world)
        self.caches = CacheWatch(simulation)
        numbers = [*range(simulation.shape.shards), SYSTEM]
        self.groups = {number: Group(simulation, self, number) for number in numbers}
        self.standing.referees += [group.referee for group in self.groups.values() if group.referee is not None]
        self._void: set[bytes] = set()
        self._written: dict[bytes, tuple[int, int]] = {}
        self._turns = 0
        self._reported: dict[tuple[str, int, int], int] = {}
        self._dropped_in: dict[tuple[str, int], int] = {}  # by process and shard: the run in which it is to be emptied
        self.commands = 0

    @property
    def compared(self) -> int:
        """How often two states were."""
        return sum(group.compared for group in self.groups.values())

    @property
    def elections(self) -> int:
        """How many there were."""
        return sum(group.elections for group in self.groups.values())

    @property
    def deadlocks(self) -> int:
        """How many waits were failed because of one."""
        return sum(referee.victims for referee in self.standing.referees)

    # Moments

    def started(self, process: Process) -> None:
        """A process recovered from its disk."""
        assert process.node is not None
        for shard in process.node.each():
            self.groups[shard.number].started(process, shard)

    def crashed(self, process: Process, node: Node) -> None:
        """A run is over."""
        self.caches.crashed(node)
        for shard in node.each():
            self.groups[shard.number].crashed(process, shard.raft)

    def installed(self, process: Process, node: Node, number: int) -> None:
        """A snapshot took the place of a log."""
        self.groups[number].installed(process, node._by_number[number])

    def pictured(self, process: Process, node: Node, number: int) -> None:
        """A checkpoint of what is applied begins."""
        self.groups[number].pictured(process, node._by_number[number])

    def compacted(self, process: Process, node: Node, number: int) -> None:
        """A log was cut behind a checkpoint."""
        self.groups[number].compacted(process, node._by_number[number])

    def gives_up(self, process: Process, node: Node, number: int) -> None:
        """A replica is about to be emptied."""
        self.groups[number].gives_up(process, node._by_number[number])

    def empties(self, process: Process, node: Node, number: int) -> None:
        """A replica is emptied now."""
        self.groups[number].empties(process, node._by_number[number])

    def given_up(self, process: Process, node: Node, number: int) -> None:
        """A replica was emptied."""
        self._dropped_in.pop((process.name, number), None)
        self.groups[number].given_up(process, node._by_number[number])

    def turned(self, process: Process, node: Node) -> None:
        """A turn is over."""
        self._turns += 1
        for shard in node._touched if self._turns % UNTOUCHED_EVERY else node.each():
            self.groups[shard.number].turned(process, shard)
        if not self._turns % UNTOUCHED_EVERY:
            self._judge_reports(process, node)
        self.caches.turned(process, node)
        for number in node._to_drop:
            if self._dropped_in.get((process.name, number)) != process.boot:
                self._dropped_in[process.name, number] = process.boot
                self.groups[number].forsakes(process, node)

    def _judge_reports(self, process: Process, node: Node) -> None:
        """Where shards are is known better and better."""
        for number, place in node.atlas.places.items():
            key = (process.name, process.boot, number)
            if place.index < self._reported.get(key, -1):
                raise Violation("a report never goes back", f"{process} has shard {number} on {place}")
            self._reported[key] = place.index

    def says(self, process: Process, node: Node, peer: str, number: int, message: Message) -> None:
        """A message leaves."""
        group = self.groups.get(number)
        if group is not None:
            group.says(process, node._by_number[number], peer, message)

    # Of all shards

    def wiped(self, number: int, voter: str, disk: str) -> bool:
        """Whether a voter has another data folder than the one it acknowledged with."""
        config = self.groups[SYSTEM].config or self._simulation.founding
        member = config.members.get(voter)
        return member is not None and member.disk not in ("", disk)

    # What was written

    def written(self, number: int, write: list[Any], index: int) -> None:
        """A write is in a committed entry for the first time."""
        self.commands += 1
        if write[0] in caches.HANDLERS:
            for value in self.caches.carried_out(number, write):
                self._judge_refused(value, write, number, index)
            return
        writes = [write]
        if write[0] == b"EXEC":
            writes = [one for one in write[1:] if one is not True and type(one[0]) is bytes]
        for one in writes:
            if len(one) > 2 and one[0] == b"SET":
                self._written.setdefault(one[2], (number, index))
                self._judge_refused(one[2], one, number, index)

    def _judge_refused(self, value: bytes, call: list[Any], number: int, index: int) -> None:
        if value in self._void:
            raise Violation("never happened", f"{call} was refused and is carried out in {index} of {number}")

    def refused(self, value: bytes) -> None:
        """A client was told that the SET of this value never happened; no other has the same one."""
        self._void.add(value)
        if self.has(value):
            raise Violation("never happened", f"SET of {value!r} was refused after it had been committed")

    def has(self, value: bytes) -> bool:
        """Whether the SET of a value, or what a cache wrote back of it, is in a committed entry."""
        return value in self._written or value in self.caches.written_back

    def older(self, one: bytes, other: bytes) -> bool:
        """Whether the SET of one value is known to stand in an entry before that of another in its shard."""
        return one in self._written and self._written[one] < self._written.get(other, (-1, 0))
