"""One run: a cluster, its clients and its faults from one seed, and the healed end where all must come right."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

from cluster.raft.core import Timing
from cluster.raft.membership import VOTERS_MAX, Config, static
from cluster.ring.slots import shard_of_slots
from tests.simulation.cache_clients import cache_users, clearers
from tests.simulation.clients import Workload
from tests.simulation.clocks import DRIFT, Clock
from tests.simulation.disk import Disk
from tests.simulation.faults import Faults, Profile
from tests.simulation.healing import Healing
from tests.simulation.history import judge
from tests.simulation.limits import small_caches, small_limits
from tests.simulation.network import Network
from tests.simulation.owners import lockers
from tests.simulation.process import Process
from tests.simulation.queue_clients import queue_users
from tests.simulation.queue_told import judge_queues
from tests.simulation.told import judge_told
from tests.simulation.watch import Watch
from tests.simulation.world import MS, SECOND, Violation, World

HOUR_US = 3600 * SECOND

SIZES = (1, 2, 3, 3, 3, 3, 4, 5)
"""How many nodes clusters of one shard begin with."""

SIZES_OF_MANY = (3, 4, 5, 5, 6, 7)
SHARDS_OF_MANY = (1, 4, 4, 8)
"""What worlds have in which a shard is not on every node."""

SESSION_TIMEOUTS_MS = (2_000, 2_000, 5_000)

ZONES = ("x", "y", "z")


@dataclass(frozen=True)
class Shape:
    """What is fixed when a cluster is founded. ``zones``: nodes are in one of three."""

    shards: int = 1
    replicas: int = VOTERS_MAX
    zones: bool = False
    node_timeout_ms: float = 300_000.0

    @classmethod
    def drawn(cls, chance: random.Random, shards: int) -> Shape:
        """Of many shards, or (``shards`` -1) of as many as chance will have; not every node has each."""
        return cls(
            shards if shards > 0 else chance.choice(SHARDS_OF_MANY),
            chance.choice((2, 3, 3)),
            zones=chance.random() < 0.3,
            node_timeout_ms=chance.choice((4_000.0, 10_000.0, 300_000.0)),
        )


ONE = Shape()
"""One shard, which is on every node."""


class Caching(NamedTuple):
    """How nodes are told to cache: see `cluster.node.Node`."""

    cache_max_bytes: int = 256 * 1024 * 1024
    cache_lease_ms: int = 500
    cache_writeback_ms: int = 100

    @classmethod
    def drawn(cls, chance: random.Random) -> Caching:
        """As chance will have it: for few lines or all, for short or long."""
        return cls(
            chance.choice((700, 1_000, 1_000_000, 1_000_000)),
            chance.choice((200, 500, 500, 2_000)),
            chance.choice((5, 100, 100, 1_000)),
        )


def are_cached(seed: int) -> bool:
    """In half of the worlds, unless told otherwise, there are clients that use the caches."""
    return seed // 2 % 2 == 0


def are_cleared(seed: int) -> bool:
    """In an eighth of the worlds, unless told otherwise, all keys are deleted now and then; none is a lock or queue."""
    return seed // 2 % 8 == 6


@dataclass(frozen=True)
class Result:
    """What a run that found nothing did."""

    seed: int
    turns: int
    node_hours: float
    commands: int
    judged: int
    compared: int
    elections: int
    snapshots: int
    deadlocks: int
    hits: int
    losses: int
    faults: dict[str, int]


class Simulation:
    """A run to be. ``nodes`` 0 lets the seed choose how many there are.

    ``shards`` 1 is the cluster whose only shard is on every node. Of more, as of -1, which lets the seed choose how
    many, each is on some nodes only. ``caches`` says whether clients use the caches, and ``clears`` whether some of
    those use FLUSHALL, and nobody locks or queues; the seed decides unless told.

    ``processes`` are by name, in the order they came; ``turns`` counts those of all of them.
    """

    def __init__(
        self,
        seed: int,
        *,
        nodes: int = 0,
        shards: int = 1,
        shape: Shape | None = None,
        profile: Profile | None = None,
        leases: bool | None = None,
        caches: bool | None = None,
        clears: bool | None = None,
        keep_all: bool = False,
    ) -> None:
        self.world = World(seed, keep_all=keep_all)
        self.profile = profile or Profile.drawn(self.world.chance)
        self.shape = shape or (ONE if shards == 1 else Shape.drawn(self.world.chance, shards))
        self.slot_shard = shard_of_slots(self.shape.shards)
        self.caches = are_cached(seed) if caches is None else caches
        self.caching = Caching.drawn(random.Random(seed)) if self.caches else Caching()
        self.network = Network(self.world, int(self.profile.delay_ms * MS))
        self.processes: dict[str, Process] = {}
        self.turns = 0
        self.snapshots = 0
        self.buried_us = 0
        self._runs_buried: dict[str, int] = {}  # of processes that were shut down for good
        self.by_hand = False  # shards are changed by a script
        self.watch = Watch(self)
        self._names = 0
        self._disks = 0
        chance = self.world.chance
        self.timing = Timing(leases=chance.random() < 0.8 if leases is None else leases)
        self.session_timeout_ms = SESSION_TIMEOUTS_MS[seed % len(SESSION_TIMEOUTS_MS)]
        sizes = SIZES if self.shape is ONE else SIZES_OF_MANY
        count = nodes or chance.choice(sizes)
        founders = [self._make(self.free_name(), self.new_disk_id(), self.any_zone()) for _ in range(count)]
        self.founding = static({process.name: f"{process.name}:1" for process in founders})
        for process in founders:
            process.founders = self.founding
            self.world.at(chance.randrange(300 * MS), lambda process=process: self.start(process))  # type: ignore[misc]
        if self.caches and (are_cleared(seed) if clears is None else clears):
            self.workload = Workload(self, locks=0, others=0)
            self.workload.join(*clearers(self.workload))
        else:
            self.workload = Workload(self)
            self.workload.join(*lockers(self.workload), *queue_users(self.workload))
        if self.caches:
            self.workload.join(*cache_users(self.workload))
        self.faults = Faults(self, self.profile)

    def run(self, steps: int) -> Result:
        """Takes ``steps`` turns among faults, heals, and judges; raises `Violation`."""
        world = self.world
        with small_limits(world.chance), small_caches(world.chance, small=self.caches):
            world.after(SECOND, self.faults.start)
            self.workload.start()
            while self.turns < steps and world.step():
                pass
            return self.end()

    def end(self) -> Result:
        """Heals, and judges."""
        world = self.world
        self.workload.stop()
        self.faults.stop()
        Healing(self).run()
        judged = judge(self.workload.history, self.watch) + judge_told(self.workload.history, self.watch)
        judged += judge_queues(self.workload.history, self.watch)
        watch = self.watch
        return Result(
            world.seed,
            self.turns,
            self.node_hours,
            watch.commands,
            judged,
            watch.compared,
            watch.elections,
            self.snapshots,
            watch.deadlocks,
            watch.caches.hits + sum(one.node.cache.traffic.hits for one in self.processes.values() if one.node),
            len(watch.caches.losses),
            self.faults.counts,
        )

    @property
    def node_hours(self) -> float:
        """How long all nodes have run, together."""
        now_us = self.world.now_us
        running = sum(one.running_us + (now_us - one.started_us if one.up else 0) for one in self.processes.values())
        return (running + self.buried_us) / HOUR_US

    # Processes

    def free_name(self) -> str:
        """A name that no node ever had."""
        self._names += 1
        return f"n{self._names}"

    def new_disk_id(self) -> str:
        """The id of an empty data folder."""
        self._disks += 1
        return f"d{self._disks}"

    def any_zone(self) -> str:
        """A zone for a new node."""
        return self.world.chance.choice(ZONES) if self.shape.zones else ""

    def _make(self, name: str, disk: str, zone: str) -> Process:
        chance = self.world.chance
        clock = Clock(1 + chance.uniform(-DRIFT, DRIFT), chance.randrange(-2000, 2000))
        process = self.processes[name] = Process(self, name, Disk(self.world, disk), clock, zone)
        process.boot = self._runs_buried.get(name, 0)  # a later run than any of that name
        return process

    def start(self, process: Process) -> None:
        """Starts a process that is not running."""
        if not process.up:
            process.start(self.timing)

    def restart(self, process: Process) -> None:
        """Starts it again after a crash, unless it is gone or has nothing to start with."""
        if not process.up and not process.gone and not process.empty:
            process.start(self.timing)

    def join(self, name: str, disk: str, members: Config, zone: str = "") -> None:
        """The cluster, of these members as it was told, took a new one in: it starts, with an empty disk."""
        process = self.processes.get(name)
        if process is None:
            process = self._make(name, disk, zone)
        process.gone = process.empty = False
        process.founders, process.members = Config(), members
        self.start(process)

    def give_new_disk(self, process: Process) -> None:
        """Its disk is lost; it stays down until the cluster has taken it in again."""
        assert not process.up
        process.disk = Disk(self.world, self.new_disk_id())
        process.empty = True

    def pretend(self, process: Process) -> None:
        """A founder is started with an empty disk as if nothing had been: the others must not take it for itself."""
        if process.name in self.founding and len(self.founding.voters) > 1:
            process.founders = self.founding
            self.start(process)

    def bury(self, process: Process) -> None:
        """A removed member is shut down for good."""
        if process.gone and self.processes.get(process.name) is process:
            if process.up:
                process.crash()
            self.buried_us += process.running_us
            self._runs_buried[process.name] = process.boot
            del self.processes[process.name]

    def leaders(self, number: int = 0) -> list[Process]:
        """Who believes to lead a shard."""
        return [one for one in self.processes.values() if one.up and one.raft(number).leading is not None]


def run(seed: int, steps: int, *, nodes: int = 0, shards: int = 1, profile: Profile | None = None) -> Result:
    """One run from a seed; raises `Violation`, with the end of the trace as a note."""
    simulation = Simulation(seed, nodes=nodes, shards=shards, profile=profile)
    try:
        return simulation.run(steps)
    except Exception as error:
        from tests.simulation.trace import tail

        error.add_note(tail(simulation))
        raise


__all__ = ["ONE", "Result", "Shape", "Simulation", "Violation", "run"]
