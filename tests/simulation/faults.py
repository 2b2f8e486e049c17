"""What goes wrong, and when: each fault is planned, begins, and ends by itself.

A `Profile` says how often which fault happens; a run draws one, so that seeds
differ in character and not only in order.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cluster.ring.slots import SYSTEM
from tests.simulation.keeping import STEP_US
from tests.simulation.members import Operator
from tests.simulation.network import Weather
from tests.simulation.world import MS

if TYPE_CHECKING:
    from cluster.raft.core import Raft
    from tests.simulation.process import Process
    from tests.simulation.simulation import Simulation

LONG_US = 60_000 * MS

WEIGHTS: dict[str, float] = {
    "partition": 3,
    "one_way": 3,
    "only_one": 2,
    "isolate_leader": 2,
    "flap": 2,
    "weather": 3,
    "crash": 4,
    "crash_leader": 3,
    "crash_all": 0.5,
    "leave": 1.5,
    "move": 0.5,
    "stop": 3,
    "stop_leader": 2,
    "stalls": 1,
    "slow_disk": 3,
    "full_disk": 1.5,
    "uncertain_disk": 1,
    "failing_rows": 1,
    "slow_rows": 1.5,
    "jump": 1.5,
    "checkpoint": 8,
    "checkpoint_crash": 1,
    "lag": 2,
    "rush": 1,
    "transfer": 1.5,
    "add": 1,
    "remove": 0.7,
    "replace": 0.7,
    "mover": 2,
    "lose": 0.3,
    "pause": 0.5,
}
"""How often each fault comes, in a run of no special character."""

CHARACTERS: dict[str, tuple[str, ...]] = {
    "mixed": (),
    "network": ("partition", "one_way", "only_one", "isolate_leader", "flap", "weather"),
    "crashes": ("crash", "crash_leader", "crash_all", "checkpoint_crash", "leave"),
    "pauses": ("stop", "stop_leader", "stalls", "jump"),
    "disks": ("slow_disk", "full_disk", "uncertain_disk", "failing_rows"),
    "snapshots": ("checkpoint", "checkpoint_crash", "lag", "failing_rows", "slow_rows", "weather"),
    "members": ("transfer", "add", "remove", "replace"),
    "moves": ("mover", "lose", "add", "remove", "pause", "checkpoint"),
}
"""What there is more of."""


@dataclass(frozen=True)
class Profile:
    """``gap_ms`` is the time between two faults, about; ``weights`` how likely each is next.

    ``delay_ms`` is what a message takes at the most while the network is well,
    ``think_ms`` how long clients wait before they ask again.
    """

    gap_ms: int = 400
    weights: dict[str, float] = field(default_factory=lambda: dict(WEIGHTS))
    delay_ms: float = 0.5
    think_ms: int = 150

    @classmethod
    def drawn(cls, chance: random.Random) -> Profile:
        """One of some character."""
        favoured = CHARACTERS[chance.choice(list(CHARACTERS))]
        weights = {name: weight * (8 if name in favoured else 1) for name, weight in WEIGHTS.items()}
        return cls(
            chance.choice((200, 600, 2000)),
            weights,
            delay_ms=chance.choice((0.5, 0.5, 0.5, 5, 50)),
            think_ms=chance.choice((150, 600, 4000)),
        )


class Faults:
    """The faults of one run."""

    def __init__(self, simulation: Simulation, profile: Profile) -> None:
        self.simulation = simulation
        self.world = simulation.world
        self.network = simulation.network
        self.operator = Operator(simulation)
        self.going = True
        self.counts: dict[str, int] = {}
        self._profile = profile
        self._names = [name for name, weight in profile.weights.items() if weight]
        self._weights = [profile.weights[name] for name in self._names]
        self._actions: dict[str, Callable[[], None]] = {name: getattr(self, f"_{name}") for name in self._names}

    def start(self) -> None:
        """Faults begin."""
        self._later()

    def _later(self) -> None:
        gap_us = int(self.world.chance.expovariate(1) * self._profile.gap_ms * MS)
        self.world.after(gap_us, self._one)

    def _one(self) -> None:
        if not self.going:
            return
        [name] = self.world.chance.choices(self._names, self._weights)
        self.counts[name] = self.counts.get(name, 0) + 1
        self.world.note("fault", name)
        self._actions[name]()
        self._later()

    def stop(self) -> None:
        """All faults end, and every process runs."""
        self.going = False
        simulation = self.simulation
        self.network.heal()
        self.world.note("fault", "end of all faults")
        for process in list(simulation.processes.values()):
            process.disk.slow_us = 0
            process.disk.full_until_us = 0
            process.disk.fails_uncertainly = False
            process.stalls = process.keeping.fails = 0
            process.keeping.step_us = STEP_US
            simulation.restart(process)

    # Whom it hits

    def _any(self) -> Process:
        return self.world.chance.choice(list(self.simulation.processes.values()))

    def _up(self) -> list[Process]:
        return [process for process in self.simulation.processes.values() if process.up]

    def _leader(self) -> Process:
        """Somebody who leads a shard."""
        number = self.world.chance.randrange(self.simulation.shape.shards)
        leading = self.simulation.leaders(number if self.world.happens(0.9) else SYSTEM)
        return self.world.chance.choice(leading) if leading else self._any()

    def _time(self, least_ms: int = 50, most_ms: int = 0) -> int:
        """How long a fault lasts; unless told otherwise, so long that a few overlap."""
        return self.world.between_us(least_ms * MS, (most_ms or min(8000, 8 * self._profile.gap_ms)) * MS)

    # The network

    def _cut(self, pairs: list[tuple[str, str]], for_us: int) -> None:
        if not self.going:
            return
        self.network.cut(pairs)
        self.world.note("network", "cut", pairs)
        broken = self.world.happens(0.5)

        def mend() -> None:
            self.network.mend(pairs)
            self.world.note("network", "mended", pairs)
            if broken:
                for sender, receiver in pairs:
                    self._hint(sender, receiver)

        self.world.after(for_us, mend)

    def _hint(self, sender: str, receiver: str) -> None:
        """The sender finds out that its connection broke, and makes another."""
        process = self.simulation.processes.get(sender)
        if process is not None and process.node is not None and not process.stopped:
            process.node.disconnected(receiver)
            process.node.connected(receiver)

    def _partition(self) -> None:
        names = list(self.simulation.processes)
        side = {name for name in names if self.world.happens(0.5)}
        self._cut([(a, b) for a in names for b in names if (a in side) != (b in side)], self._time())

    def _one_way(self) -> None:
        names = list(self.simulation.processes)
        one = self._any().name
        others = [name for name in names if name != one and self.world.happens(0.6)]
        pairs = [(one, other) for other in others]
        self._cut(pairs if self.world.happens(0.5) else [(b, a) for a, b in pairs], self._time())

    def _only_one(self) -> None:
        names = list(self.simulation.processes)
        one, friend = self._any().name, self._any().name
        others = [name for name in names if name not in (one, friend)]
        self._cut([pair for other in others for pair in ((one, other), (other, one))], self._time())

    def _isolate_leader(self) -> None:
        self._isolate(self._leader())

    def _flap(self) -> None:
        one, other = self._any().name, self._any().name
        period_us = self._time(20, 400)
        times = self.world.chance.randrange(2, 12)
        for number in range(times):
            self.world.after(2 * number * period_us, lambda: self._cut([(one, other), (other, one)], period_us))

    def _weather(self) -> None:
        chance = self.world.chance
        bad = Weather(
            loss=chance.choice((0, 0.05, 0.3)),
            double=chance.choice((0, 0.1, 0.5)),
            late=chance.choice((0, 0.1, 0.5)),
            delay_us=chance.choice((500, 5 * MS, 60 * MS)),
            late_us=chance.choice((5 * MS, 100 * MS, 800 * MS)),
            ordered=chance.random() < 0.4,
        )
        names = list(self.simulation.processes)
        links = [self.network.link(a, b) for a in names for b in names if a != b and self.world.happens(0.6)]
        for link in links:
            link.weather = bad

        def clear() -> None:
            for link in links:
                if link.weather is bad:
                    link.weather = self.network.fair

        self.world.note("network", "weather", bad)
        self.world.after(self._time(200), clear)

    # Processes

    def _down(self, process: Process, least_ms: int = 0, most_ms: int = 3000) -> None:
        if process.up and self.going:
            process.crash()
            self.world.after(self._time(least_ms, most_ms), lambda: self.simulation.restart(process))

    def _crash(self) -> None:
        self._down(self._any())

    def _crash_leader(self) -> None:
        self._down(self._leader())

    def _crash_all(self) -> None:
        for process in self._up():
            self._down(process, 0, 1000)

    def _leave(self) -> None:
        """A leader is stopped as it should be: it hands over first."""
        process = self._leader()
        if process.node is not None and not process.stopped:
            process.node.resign()
            process.wake(self.world.now_us)
            self.world.after(self._time(1, 400), lambda: self._down(process))

    def _move(self) -> None:
        """A node restarts at another address."""
        process = self._any()
        process.port += 1
        self._down(process)

    def _stop(self) -> None:
        process = self._any()
        if process.up:
            process.stop(self._time(5, 2500))

    def _stop_leader(self) -> None:
        self._leader().stop(self._time(5, 1500))

    def _stalls(self) -> None:
        process = self._any()
        process.stalls = self.world.chance.choice((0.005, 0.03))

        def end() -> None:
            process.stalls = 0

        self.world.after(self._time(500, 4000), end)

    def _jump(self) -> None:
        process = self._any()
        process.clock.ahead_ms += self.world.chance.choice((-60_000, -1000, -50, 50, 1000, 5000))
        process.wake(self.world.now_us)

    # Disks

    def _slow_disk(self) -> None:
        process = self._any()
        process.disk.slow_us = self.world.chance.choice((2 * MS, 20 * MS, 200 * MS, 900 * MS))

        def end() -> None:
            process.disk.slow_us = 0

        self.world.after(self._time(500, 6000), end)

    def _full_disk(self) -> None:
        process = self._any()
        process.disk.full_until_us = self.world.now_us + self._time(50, 3000)

    def _uncertain_disk(self) -> None:
        self._any().disk.fails_uncertainly = True

    def _failing_rows(self) -> None:
        self._any().keeping.fails = 0.5

    def _slow_rows(self) -> None:
        self._any().keeping.step_us = self.world.chance.choice((30 * MS, 300 * MS))

    def _checkpoint(self) -> None:
        process = self._any()
        if process.up and not process.stopped:
            process.keeping.checkpoint()

    def _checkpoint_crash(self) -> None:
        process = self._any()
        if process.up and not process.stopped:
            process.keeping.checkpoint()
            self.world.after(self._time(0, 20), lambda: self._down(process))

    def _lag(self) -> None:
        """One node misses much, so that it needs a snapshot: the others cut their logs meanwhile."""
        process = self._any()
        for_us = self._time(500)
        others = [name for name in self.simulation.processes if name != process.name]
        self._cut([pair for name in others for pair in ((process.name, name), (name, process.name))], for_us)
        for name in others:
            other = self.simulation.processes[name]
            self.world.after(for_us * 9 // 10, lambda other=other: other.up and other.keeping.checkpoint())  # type: ignore[misc]

    # Clients and members

    def _rush(self) -> None:
        """All clients are in a hurry for a moment."""
        workload = self.simulation.workload
        usual_us, workload.think_us = workload.think_us, 2 * MS

        def end() -> None:
            workload.think_us = usual_us

        self.world.after(self._time(20, 400), end)

    def _transfer(self) -> None:
        self.operator.transfer()

    def _add(self) -> None:
        self.operator.add()

    def _remove(self) -> None:
        self.operator.remove()

    def _replace(self) -> None:
        self.operator.replace()

    def _mover(self) -> None:
        """Something happens to whoever leads a shard that is on its way, soon."""
        leading = [
            (number, process)
            for number in range(self.simulation.shape.shards)
            for process in self.simulation.leaders(number)
        ]
        moving = [(number, process) for number, process in leading if _moves(process.raft(number))] or leading
        if not moving:
            return
        number, process = self.world.chance.choice(moving)

        def strike() -> None:
            if self.going and process.up and process.raft(number).leading is not None:
                self.world.note("fault", f"hits {process.name}, who moves {number}")
                self.world.chance.choice((self._down, self._pause_it, self._isolate))(process)

        self.world.after(self.world.between_us(0, 800 * MS), strike)

    def _pause_it(self, process: Process) -> None:
        process.stop(self._time(5, 1500))

    def _isolate(self, process: Process) -> None:
        others = [name for name in self.simulation.processes if name != process.name]
        self._cut([pair for other in others for pair in ((process.name, other), (other, process.name))], self._time())

    def _lose(self) -> None:
        """A node is away for so long that its shards are put elsewhere, if that is not very long."""
        timeout_us = int(self.simulation.shape.node_timeout_ms) * MS
        process = self._any()
        if process.up and timeout_us < LONG_US:
            process.crash()
            self.world.after(timeout_us + self._time(0, 5000), lambda: self.simulation.restart(process))

    def _pause(self) -> None:
        """Nothing is moved for a while."""
        self.operator.pause(pause=True)
        self.world.after(self._time(100), lambda: self.operator.pause(pause=False))


def _moves(raft: Raft) -> bool:
    """Whether a shard is on its way, as its leader has it."""
    return bool(raft.config.learners) or raft.membership.since > raft.commit
