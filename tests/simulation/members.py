"""Somebody who adds members, removes them, puts a new disk into one, and chooses who leads.

Works as a person with the command line would: asks any node, and asks another
one when that does not answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.machine.reply import CommandError, Reply
from cluster.raft.core import Raft
from cluster.raft.membership import Config
from cluster.ring.slots import SYSTEM
from cluster.wishes import Change
from tests.simulation.world import MS, SECOND

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.simulation import Simulation

MEMBERS_MAX = 8
MEMBERS_MIN = 3


class Request:
    """One change asked of one node."""

    def __init__(self, operator: Operator, process: Process, change: Change) -> None:
        self._operator = operator
        self._process = process
        self._change = change
        self.answered = False

    def fill(self, reply: Reply) -> None:
        """What the node says."""
        assert not self.answered, "a change is answered once"
        self.answered = True
        self._operator.world.note("operator", "is told", (self._change, reply))
        node = self._process.node
        self._operator.told(self._change, reply, node.members if node is not None else Config())


class Told:
    """Somebody who does not care what it is told."""

    def fill(self, reply: Reply) -> None:
        """What the node says."""


class Operator:
    """One change at a time."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.world = simulation.world
        self._wanted: Change | None = None
        self._replacing: str | None = None
        self._members = len(simulation.processes)

    # Wishes

    def transfer(self) -> None:
        """Any node should lead a shard."""
        process = self.world.chance.choice(list(self.simulation.processes.values()))
        number = self.world.chance.choice([*range(self.simulation.shape.shards), SYSTEM])
        self._ask(Change("lead", process.name), number)

    def pause(self, *, pause: bool) -> None:
        """No shard should move, or they should go on."""
        up = [one for one in self.simulation.processes.values() if one.node is not None and not one.stopped]
        if up:
            process = self.world.chance.choice(up)
            assert process.node is not None
            process.node.pause(Told(), pause=pause)
            process.wake(self.world.now_us)

    def add(self) -> None:
        """One more member."""
        if self._wanted is None and len(self.simulation.processes) < MEMBERS_MAX:
            name, disk = self.simulation.free_name(), self.simulation.new_disk_id()
            self._want(Change("add", name, f"{name}:1", disk, self.simulation.any_zone()))

    def remove(self) -> None:
        """One less."""
        members = [one for one in self.simulation.processes.values() if not one.gone]
        if self._wanted is None and len(members) > MEMBERS_MIN:
            self._want(Change("remove", self.world.chance.choice(members).name))

    def replace(self) -> None:
        """A member loses its disk: it is removed, and joins again with an empty one.

        Only once everybody knows which disk it had: until then nobody could tell
        the new one from the old. Before anybody has removed it, somebody may start
        it with the empty disk as it was started first.
        """
        members = [one for one in self.simulation.processes.values() if not one.gone]
        if self._wanted is not None or len(members) < MEMBERS_MIN:
            return
        process = self.world.chance.choice(members)
        if not all(_knows(one, process) and _may_lose(one, process) for one in members):
            return
        self.world.note("operator", "throws away the disk of", process.name)
        if process.up:
            process.crash()
        self.simulation.give_new_disk(process)
        if self.world.happens(0.5):
            self.simulation.pretend(process)
        self._replacing = process.name
        self._want(Change("remove", process.name))

    # Asking until it is so

    def _want(self, change: Change) -> None:
        self._wanted = change
        self._pursue(change)

    def _pursue(self, change: Change) -> None:
        if self._wanted == change:
            self._ask(change)
            self.world.after(self.world.between_us(2 * SECOND, 6 * SECOND), lambda: self._pursue(change))

    def _ask(self, change: Change, number: int = SYSTEM) -> None:
        up = [one for one in self.simulation.processes.values() if one.up and not one.stopped and not one.gone]
        up = [one for one in up if one.name != change.node] or up
        if up:
            process = self.world.chance.choice(up)
            self.world.note("operator", f"asks {process.name}", change)
            process.stirred(number).change(Request(self, process, change), change)
            process.wake(self.world.now_us)

    def told(self, change: Change, reply: Reply, members: Config) -> None:
        """An answer came, of a node that knew these members."""
        if change != self._wanted or (isinstance(reply, CommandError) and reply.code in ("UNCERTAIN", "TRYAGAIN")):
            return
        self._wanted = None
        if isinstance(reply, CommandError):
            self._replacing = None
            return
        if change.kind == "add":
            self._replacing = None
            self.simulation.join(change.node, change.disk, members, change.zone)
        elif change.kind == "remove":
            self._removed(change.node)

    def _removed(self, name: str) -> None:
        process = self.simulation.processes[name]
        process.gone = True
        if self._replacing == name:
            self._rejoin(process)
        else:
            self.world.after(self.world.between_us(MS, 8 * SECOND), lambda: self.simulation.bury(process))

    def _rejoin(self, process: Process) -> None:
        """The new disk joins, under the old name or under another one."""
        if process.up:
            process.crash()
        if self.world.happens(0.7):
            self.simulation.give_new_disk(process)
            process.port = 1
            self._want(Change("add", process.name, f"{process.name}:1", process.disk.id, process.zone))
            return
        self.simulation.bury(process)
        self._replacing = None
        self.add()


def _applied(raft: Raft) -> Config:
    """The configuration that a replica has carried out."""
    return raft.membership.at(raft.applied)


def _may_lose(one: Process, other: Process) -> bool:
    """Whether a majority is left, as far as ``one`` knows, when the ``other`` has lost all it had."""
    if one.node is None:
        return False
    for shard in one.node.each():
        for config in (_applied(shard.raft), shard.raft.config):
            if other.name in config.voters and len(config.voters) < MEMBERS_MIN:
                return False
    return True


def _knows(one: Process, other: Process) -> bool:
    """Whether what ``one`` has on its disk, and so will always have, names the disk of ``other``."""
    if one.node is None:
        return False
    member = _applied(one.raft(SYSTEM)).members.get(other.name)
    return member is not None and member.disk == other.disk.id
