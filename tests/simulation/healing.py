"""The end of every run: nothing fails any more, so everything must come right, and soon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.clients import Registers
from tests.simulation.models import Call
from tests.simulation.world import MS, SECOND, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.process import Process
    from tests.simulation.simulation import Simulation

SETTLED_US_MAX = 40 * SECOND
"""So long may a healed cluster take until all agree: the slowest is a snapshot whose pieces were lost."""


class Prober(Registers):
    """Writes and reads at one node, once."""

    def __init__(self, simulation: Simulation, process: Process) -> None:
        super().__init__(simulation.workload, f"probe-{process.name}")
        self.session = process.connect(self)

    def probe(self) -> None:
        """Asks."""
        session = self.session
        assert session is not None

        def ask() -> None:
            for call in self.calls():
                session.execute(call)

        session.process.request(ask)

    def calls(self) -> Iterator[Call]:
        """Every register in use is read, one is written, and read again."""
        for kind, keys in (("r", 3), ("c", 2)):
            for _ in range(keys):
                yield (b"GET", self.workload.key(kind, keys))
        key = self.workload.key("r", 3)
        yield (b"SET", key, self.workload.value())
        yield (b"GET", key)

    def _act_soon(self) -> None:
        return


class Healing:
    """Demands a leader, equal logs and states everywhere, and answers to all that was and is asked."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._world = simulation.world

    def run(self) -> None:
        """Raises `Violation` unless the cluster comes right."""
        for process in list(self._simulation.processes.values()):
            if process.gone:
                self._simulation.bury(process)
        self._until(self._settled, "a healed cluster settles")
        probers = [Prober(self._simulation, process) for process in self._members()]
        for prober in probers:
            prober.probe()
        self._until(lambda: all(not prober.unanswered() for prober in probers), "a settled cluster answers")
        for op in self._simulation.workload.history:
            if op.session.client in probers and op.returned is None:
                raise Violation("progress", f"{op} got {op.output!r} of a healed cluster")
        self._until(self._settled, "a healed cluster settles again")
        self._compare()

    def _until(self, condition: object, what: str) -> None:
        world = self._world
        world.note("healing", what)
        limit_us = world.now_us + SETTLED_US_MAX
        assert callable(condition)
        while not condition():
            if not world.step() or world.now_us > limit_us:
                raise Violation("progress", f"not within {SETTLED_US_MAX // SECOND} s: {what}: {self._describe()}")
            next_us = world.now_us + 20 * MS
            while world.now_us < next_us and world.step():
                pass

    def _members(self) -> list[Process]:
        """Those that should be there: the leader's members that run."""
        leaders = self._simulation.leaders()
        if not leaders:
            return []
        leader = max(leaders, key=lambda one: one.node.raft.term if one.node is not None else 0)
        assert leader.node is not None
        processes = self._simulation.processes
        found = [processes.get(name) for name in leader.node.members.members]
        return [one for one in found if one is not None and one.up]

    def _settled(self) -> bool:
        members = self._members()
        if not members or self._simulation.workload.unanswered:
            return False
        first = members[0].node
        assert first is not None
        for process in members:
            node = process.node
            assert node is not None
            raft = node.raft
            if raft.term != first.raft.term or raft.leader != first.raft.leader or process.disk.work is not None:
                return False
            if raft.log.last_index != first.raft.log.last_index or raft.applied != raft.log.last_index:
                return False
        return True

    def _compare(self) -> None:
        """All members are in the same state, and hold what was ever committed."""
        watch = self._simulation.watch
        for process in self._members():
            assert process.node is not None
            watch.pictured(process, process.node)
            if process.node.raft.applied < watch.last_committed:
                raise Violation("nothing is lost", f"{process} ends at {process.node.raft.applied}")

    def _describe(self) -> str:
        lines = [f"{len(self._simulation.workload.unanswered)} unanswered"]
        lines += [str(op) for op in self._simulation.workload.unanswered[:5]]
        for process in self._simulation.processes.values():
            node = process.node
            lines.append(f"{process}: {'down' if node is None else node.status()}")
        return "\n".join(lines)
