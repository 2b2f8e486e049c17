"""The end of every run: nothing fails any more, so everything must come right, and soon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.machine.loading import KIND as FILL
from cluster.ring.slots import SYSTEM, slot_of
from tests.simulation.clients import Registers
from tests.simulation.emptying import Emptying
from tests.simulation.models import Call, Output, Unknown
from tests.simulation.world import MS, SECOND, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.ring.placement import Placement
    from cluster.shard import Shard
    from tests.simulation.process import Process
    from tests.simulation.sessions import Op
    from tests.simulation.simulation import Simulation

SETTLED_US_MAX = 90 * SECOND
"""So long may a healed cluster take until all agree, and are where they belong.

The slowest is a snapshot whose pieces were lost, and shards that come to a node one after the other.
"""

QUIET_US = 2 * SECOND

BROKEN_US_MAX = 2 * SECOND
"""So long may it take in a healed cluster until a cycle over several shards is broken."""

EMPTIED_US_MAX = 30 * SECOND
"""So long may it take until all that is ready was taken."""

KEYS_LOOKED_AT = 8
"""Of how many registers it is seen that they read the same everywhere."""

LATE_MS = 2_000
"""How long after its time a wait may be ended."""


class Prober(Registers):
    """Writes and reads at one node, once, in every shard."""

    def __init__(self, simulation: Simulation, process: Process) -> None:
        super().__init__(simulation.workload, f"probe-{process.name}")
        self.session = process.connect(self)
        self.asked_all = False

    def probe(self) -> None:
        """Asks."""
        session = self.session
        assert session is not None

        def ask() -> None:
            for call in self.calls():
                session.execute(call)
            self.asked_all = True

        session.process.request(ask)

    def calls(self) -> Iterator[Call]:
        """Every register in use is read, and one of each shard is written, and read again."""
        for kind, keys in (("r", 3), ("c", 2)):
            for _ in range(keys):
                yield (b"GET", self.workload.key(kind, keys))
        for key in keys_of_all(self.simulation):
            yield (b"SET", key, self.workload.value())
            yield (b"GET", key)

    def _act_soon(self) -> None:
        return


class Reader(Prober):
    """Reads the same registers as its likes, each through the cache of its node, beside it, and through it again."""

    def __init__(self, simulation: Simulation, process: Process, keys: list[bytes]) -> None:
        super().__init__(simulation, process)
        self._keys = keys
        self.found: dict[bytes, list[Output | Unknown]] = {}

    def calls(self) -> Iterator[Call]:
        """Looks three times at each."""
        for key in self._keys:
            yield from ((b"CACHE.GET", key), (b"GET", key), (b"CACHE.GET", key))

    def learned(self, op: Op) -> None:
        """What it saw."""
        self.found.setdefault(op.call[1], []).append(op.output)


def keys_of_all(simulation: Simulation, prefix: bytes = b"rp") -> list[bytes]:
    """One key of each shard, that of a register unless told otherwise."""
    slot_shard = simulation.slot_shard
    found: dict[int, bytes] = {}
    for number in range(100_000):
        key = b"%b%d" % (prefix, number)
        found.setdefault(slot_shard[slot_of(key)], key)
        if len(found) == simulation.shape.shards:
            break
    return [found[shard] for shard in sorted(found)]


class Healing:
    """Demands leaders, equal logs and states everywhere, shards where they belong, and answers to all."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._world = simulation.world
        self._standing = simulation.watch.standing
        self._numbers = [*range(simulation.shape.shards), SYSTEM]

    def run(self) -> None:
        """Raises `Violation` unless the cluster comes right."""
        for process in list(self._simulation.processes.values()):
            if process.gone:
                self._simulation.bury(process)
        self._until(self._settled, "a healed cluster settles")
        probers = [Prober(self._simulation, process) for process in self._everybody()]
        for prober in probers:
            prober.probe()
        self._until(
            lambda: all(prober.asked_all and not prober.unanswered() for prober in probers), "a settled cluster answers"
        )
        for op in self._simulation.workload.history:
            if op.session.client in probers and op.returned is None:
                raise Violation("progress", f"{op} got {op.output!r} of a healed cluster")
        self._until(lambda: not any(self._lost_waits()), "who waits here waits in the shard, too")
        self._until(lambda: not self._standing.dead(), "nothing is the dead's")
        self._until(lambda: not self._standing.standing_cycles(), "every cycle is broken", BROKEN_US_MAX)
        self._empty_queues()
        self._until(self._settled, "a healed cluster settles again")
        if any(op.call[0].startswith(b"CACHE.") for op in self._simulation.workload.history):
            self._read_everywhere()
        self._compare()
        self._rest()

    def _read_everywhere(self) -> None:
        """Caches and directories agree, and every node says the same of every register."""
        simulation, caches = self._simulation, self._simulation.watch.caches
        self._until(lambda: not any(caches.unsettled()), "lines are as their directories and memory have them")
        self._until(
            lambda: not any(self._unserved()), "who waits for a key to be loaded waits for somebody who loads it"
        )
        asked = dict.fromkeys(
            op.call[1] for op in reversed(simulation.workload.history) if op.call[1:] and op.call[1][:1] in b"yrc"
        )
        keys = list(asked)[:KEYS_LOOKED_AT]
        readers = [Reader(simulation, process, keys) for process in self._everybody()]
        for reader in readers:
            reader.probe()
        self._until(lambda: all(one.asked_all and not one.unanswered() for one in readers), "caches answer")
        for key in keys:
            found = {output for reader in readers for output in reader.found[key]}
            if len(found) != 1:
                raise Violation("every node says the same", f"of {key!r}: {[one.found[key] for one in readers]}")
        self._until(self._settled, "a cluster that was read settles")
        self._until(lambda: not any(caches.unsettled()), "lines are as their directories and memory have them")

    def _unserved(self) -> Iterator[bytes]:
        """Keys that somebody waits for, and nobody loads."""
        for number in range(self._simulation.shape.shards):
            for leader in self._simulation.leaders(number):
                assert leader.node is not None
                machine = leader.node.shards[number].machine
                for key in machine.waiters.keys():  # noqa: SIM118 - it is no mapping
                    if FILL in machine.waiters.kinds(key) and key not in machine.loaders:
                        yield key

    def _empty_queues(self) -> None:
        """Whoever goes on taking messages gets all that are ready, whatever part of a queue they are in."""
        simulation = self._simulation
        self._until(lambda: not any(self._letters()), "letters are delivered")
        emptying = Emptying(simulation, self._world.chance.choice(self._everybody()))
        emptying.act()
        self._until(lambda: not (emptying.left() or emptying.unanswered()), "queues are emptied", EMPTIED_US_MAX)
        self._until(lambda: not any(self._letters()), "letters are delivered")

    def _letters(self) -> Iterator[int]:
        """How many letters there are in each shard, as its leader has it."""
        for number in range(self._simulation.shape.shards):
            for leader in self._simulation.leaders(number):
                assert leader.node is not None
                yield len(leader.node.shards[number].machine.letters)

    def _rest(self) -> None:
        """Nobody stands for election where nothing is wrong, and nobody comes or goes."""
        world, groups = self._world, self._simulation.watch.groups
        before = {number: (group.elections, group.config) for number, group in groups.items()}
        targets = self._targets()
        until_us = world.now_us + QUIET_US
        while world.now_us < until_us and world.step():
            pass
        restless = [
            number
            for number, group in groups.items()
            if group.elections > before[number][0] and group.config is before[number][1] and self._by_ring(number)
        ]
        if restless and self._targets() == targets:
            raise Violation("progress", f"a healed cluster goes on electing leaders of {restless}")

    def _targets(self) -> list[Placement]:
        """Where all shards should be, as the leader of the system group has it."""
        leaders = self._simulation.leaders(SYSTEM)
        node = leaders[0].node if leaders else None
        return [] if node is None else list(node._moves.targets())

    def _by_ring(self, number: int) -> bool:
        """Whether nobody chose another leader of a shard by hand, lately."""
        nodes = [one.node for one in self._simulation.processes.values() if one.node is not None]
        return number == SYSTEM or all(node.shards[number].chosen_ms is None for node in nodes)

    def _until(self, condition: object, what: str, within_us: int = SETTLED_US_MAX) -> None:
        world = self._world
        world.note("healing", what)
        limit_us = world.now_us + within_us
        assert callable(condition)
        while not condition():
            if not world.step() or world.now_us > limit_us:
                raise Violation("progress", f"not within {within_us // SECOND} s: {what}: {self._describe()}")
            next_us = world.now_us + 20 * MS
            while world.now_us < next_us and world.step():
                pass

    def _members(self, number: int) -> list[Process]:
        """Those of a shard that should be there: the leader's members that run."""
        leaders = self._simulation.leaders(number)
        if not leaders:
            return []
        leader = max(leaders, key=lambda one: one.raft(number).term)
        processes = self._simulation.processes
        found = [processes.get(name) for name in leader.raft(number).config.members]
        return [one for one in found if one is not None and one.up]

    def _everybody(self) -> list[Process]:
        """The nodes of the cluster, as soon as somebody leads it: who did may have left it just now."""
        self._until(lambda: bool(self._members(SYSTEM)), "a healed cluster is led")
        return self._members(SYSTEM)

    def _settled(self) -> bool:
        if self._simulation.workload.unanswered or any(self._late_waits()):
            return False
        in_place = self._in_place()  # it sees to it that shards may move: a node that lost its disk is drained first
        return in_place and all(map(self._agree, self._numbers)) and self._in_touch()

    def _in_touch(self) -> bool:
        """Whether every node has heard of every leader since the links are whole."""
        return all(process.node is not None and process.node.has_leader for process in self._members(SYSTEM))

    def _agree(self, number: int) -> bool:
        """Whether all members of a shard have all of its log."""
        members = self._members(number)
        if not members:
            return False
        first = members[0].raft(number)
        for process in members:
            raft = process.raft(number)
            if raft.term != first.term or raft.leader != first.leader or process.disk.work is not None:
                return False
            if raft.log.last_index != first.log.last_index or raft.applied != raft.log.last_index:
                return False
        return True

    def _in_place(self) -> bool:
        """Whether every shard is where the ring wants it, and nowhere else."""
        leaders = self._simulation.leaders(SYSTEM)
        node = leaders[0].node if leaders else None
        if node is None:
            return False
        if node.atlas.paused:
            self._simulation.faults.operator.pause(pause=False)
            return False
        return all(self._is_where(number, target) for number, target in enumerate(node._moves.targets()))

    def _is_where(self, number: int, target: Placement) -> bool:
        """Whether exactly those have a replica of a shard who should, and the one leads it who should."""
        preferred = self._simulation.processes.get(target.preferred)
        for process in self._members(SYSTEM):
            assert process.node is not None
            shard = process.node.shards[number]
            if process.name not in target.nodes:
                if shard.raft.log.last_index or shard.machine.keyspace.values:
                    return False
                continue
            leads = shard.raft.leading is not None and shard.chosen_ms is None
            if {*shard.raft.config.voters} != {*target.nodes} or shard.raft.config.learners:
                return False
            if leads and preferred is not process and preferred is not None and preferred.up:
                return False
        return True

    def _late_waits(self) -> Iterator[Op]:
        """Those whose time is over by the clock of the shard's leader, and who have not been told."""
        for op, shard in self._waits():
            waiter = shard.machine.waiters.of(op.session.origin)
            if waiter is not None and waiter.deadline_ms is not None and shard.now_ms > waiter.deadline_ms + LATE_MS:
                yield op

    def _waits(self) -> Iterator[tuple[Op, Shard]]:
        """Who waits, and the shard as its leader has it."""
        for client in self._simulation.workload.clients:
            for op in client.unanswered():
                for number in op.session.waits_in if op.waits else ():
                    leaders = self._simulation.leaders(number)
                    if leaders and leaders[0].node is not None:
                        yield op, leaders[0].node.shards[number]

    def _lost_waits(self) -> Iterator[Op]:
        """Those who wait, and whose shard does not know of it."""
        for op, shard in self._waits():
            if shard.machine.waiters.of(op.session.origin) is None:
                yield op

    def _compare(self) -> None:
        """All members are in the same state, and hold what was ever committed."""
        watch = self._simulation.watch
        for number in self._numbers:
            for process in self._members(number):
                assert process.node is not None
                watch.pictured(process, process.node, number)
                if process.raft(number).applied < watch.groups[number].last_committed:
                    raise Violation("nothing is lost", f"{process} ends at {process.raft(number).applied} of {number}")

    def _describe(self) -> str:
        lines = [f"{len(self._simulation.workload.unanswered)} unanswered"]
        lines += [str(op) for op in self._simulation.workload.unanswered[:5]]
        lines += [f"late: {op}" for op in self._late_waits()]
        lines += [f"lost: {op}" for op in self._lost_waits()]
        lines += [f"dead: {what}" for what in self._standing.dead()]
        lines += [f"in a cycle: {wait!r}" for wait in self._standing.standing_cycles()]
        lines += [*self._simulation.watch.caches.unsettled()]
        lines += [f"nobody loads {key!r}" for key in self._unserved()]
        lines += [f"shard {number} does not agree" for number in self._numbers if not self._agree(number)]
        for leader in self._simulation.leaders(SYSTEM):
            assert leader.node is not None
            for number, target in enumerate(leader.node._moves.targets()):
                if not self._is_where(number, target):
                    lines.append(f"shard {number} is not on {target}, as {leader} has it")
        return "\n".join(lines)
