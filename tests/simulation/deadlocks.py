"""Situations of locks and deadlocks, set up by hand: as scripts.py."""

from __future__ import annotations

from cluster.ring.slots import SYSTEM
from tests.simulation.clients import FOR_EVER_MS
from tests.simulation.healing import keys_of_all
from tests.simulation.network import Weather
from tests.simulation.process import Process
from tests.simulation.scripts import Play, Script
from tests.simulation.sessions import Op
from tests.simulation.simulation import ONE, Shape
from tests.simulation.world import MS, Violation

LIVES = ("PX", FOR_EVER_MS.decode())


def closed_by_a_grant(script: Script) -> None:
    """An owner in two sessions is granted what one waits for who holds what it wants in the other session."""
    a, b, c = script.a, script.b, script.c
    script.call(a, "LOCK.ACQUIRE", "l", "x", *LIVES)
    script.call(a, "LOCK.ACQUIRE", "m", "w", *LIVES)
    first = script.wait(b, "LOCK.ACQUIRE", "l", "u", *LIVES, "BLOCK", "0")
    second = script.wait(c, "LOCK.ACQUIRE", "l", "w", *LIVES, "BLOCK", "0")
    third = script.wait(a, "LOCK.ACQUIRE", "m", "u", *LIVES, "BLOCK", "0")
    script.call(a, "LOCK.RELEASE", "l", "x")
    script.run(500)
    if not isinstance(first.output, int) or second.done or not str(third.output).startswith("-DEADLOCK"):
        raise Violation("every cycle is broken", f"{first.output!r} {second.output!r} {third.output!r}")


def upgraded_first(script: Script) -> None:
    """Two share a lock and another waits to have it alone; then one of the two wants it alone."""
    a, b, c = script.a, script.b, script.c
    script.call(a, "LOCK.ACQUIRE", "s", "u", *LIVES, "SHARED")
    script.call(b, "LOCK.ACQUIRE", "s", "v", *LIVES, "SHARED")
    behind = script.wait(c, "LOCK.ACQUIRE", "s", "w", *LIVES, "BLOCK", "0")
    upgrade = script.wait(a, "LOCK.ACQUIRE", "s", "u", *LIVES, "BLOCK", "0")
    script.call(b, "LOCK.RELEASE", "s", "v")
    script.until(lambda: upgrade.done)
    if not isinstance(upgrade.output, int) or behind.done:
        raise Violation("upgrades first", f"{upgrade.output!r} {behind.output!r}")


# Over several shards

BROKEN_MS_MAX = 1000
"""So long may it take until a cycle is broken where nothing is wrong (any more)."""

ON_FOUR = Shape(shards=4, replicas=3)


class Cycle:
    """Two owners: ``a`` has a lock in shard 1 and waits for one in shard 0, which ``b`` has; then `close` it.

    Who looks for deadlocks leads no shard of these two, and each of them is led by another node.
    """

    def __init__(self, script: Script) -> None:
        self._script = script
        simulation = script.simulation
        self.first, self.second = (keys_of_all(simulation, b"w")[number].decode() for number in (0, 1))
        everybody = list(simulation.processes.values())
        for number in (0, 1):
            self._lead_apart(number, everybody)
        leaders = (self.leader(0), self.leader(1))
        self.looker = next(one for one in everybody if one not in leaders)
        script.hand_over_system(self.looker)
        script.run(300)
        self.at = leaders[0]
        script.call(self.at, "LOCK.ACQUIRE", self.second, "a", *LIVES)
        script.call(self.at, "LOCK.ACQUIRE", self.first, "b", *LIVES)
        self.waits = [self._wait(self.first, "a")]

    def _lead_apart(self, number: int, everybody: list[Process]) -> None:
        """Another node than the one that leads shard 0 leads this one."""
        script = self._script
        if number and self.leader(0) is self.leader(number):
            voters = self.leader(number).raft(number).config.voters
            other = next(one for one in everybody if one.name in voters and one is not self.leader(0))
            self.hand_over(number, other)
            script.run(100)

    def leader(self, number: int) -> Process:
        """Who leads a shard."""
        return max(self._script.simulation.leaders(number), key=lambda one: one.raft(number).term)

    def hand_over(self, number: int, other: Process) -> None:
        """Makes another node lead a shard."""
        leader = self.leader(number)
        leading = leader.stirred(number).raft.leading
        assert leading is not None
        leading.hand_over(other.name)
        leader.wake(self._script.world.now_us)
        self._script.until(lambda: other.raft(number).leading is not None)

    def another(self, number: int) -> Process:
        """A node that could lead a shard, does not, and does not look for deadlocks."""
        leader = self.leader(number)
        simulation = self._script.simulation
        voters = [simulation.processes[name] for name in leader.raft(number).config.voters]
        return next(one for one in voters if one not in (leader, self.looker) and one.up)

    def _wait(self, key: str, owner: str) -> Op:
        return self._script.wait(self.at, "LOCK.ACQUIRE", key, owner, *LIVES, "BLOCK", "0")

    def close(self) -> None:
        """``b`` waits, too."""
        self.waits.append(self._wait(self.second, "b"))

    def is_broken(self, within_ms: int = BROKEN_MS_MAX) -> None:
        """One of the two is told so before the time is over."""
        script = self._script
        begun_us = script.world.now_us
        script.run(within_ms)
        told = [op for op in self.waits if str(op.output).startswith("-DEADLOCK")]
        if len(told) != 1:
            raise Violation("every cycle is broken", f"not from {begun_us} us on: {[op.output for op in self.waits]}")


def over_two_shards(script: Script) -> None:
    """Two owners in two shards wait for each other; the second who begins to is failed."""
    cycle = Cycle(script)
    script.run(200)
    cycle.close()
    cycle.is_broken()
    if cycle.waits[0].done:
        raise Violation("the last to wait is the victim", f"{cycle.waits[0]} is failed")


def new_leader_of_a_shard(script: Script) -> None:
    """Who told of a wait does not lead any more when the cycle is closed."""
    cycle = Cycle(script)
    script.run(200)
    cycle.hand_over(0, cycle.another(0))
    script.run(200)
    cycle.close()
    cycle.is_broken()


def new_looker(script: Script) -> None:
    """Who was told of a wait does not look for deadlocks any more when the cycle is closed."""
    cycle = Cycle(script)
    script.run(200)
    script.hand_over_system(cycle.leader(0))
    script.run(200)
    cycle.close()
    cycle.is_broken()


def looker_lost(script: Script) -> None:
    """Who looks for deadlocks is lost when the cycle is closed."""
    cycle = Cycle(script)
    script.run(200)
    cycle.close()
    cycle.looker.crash()
    script.until(lambda: bool(script.simulation.leaders(SYSTEM)))
    cycle.is_broken()
    script.simulation.start(cycle.looker)


def old_report(script: Script) -> None:
    """What one that led before told comes late, when the one that leads told of a wait."""
    simulation = script.simulation
    cycle = Cycle(script)
    _end_of_waits(script, cycle)
    former, other = cycle.leader(0), cycle.another(0)
    cycle.hand_over(0, other)
    script.run(100)
    script.weather(former, cycle.looker, Weather(delay_us=0, least_us=1500 * MS, ordered=False))
    cycle.hand_over(0, former)
    script.run(60)
    cycle.hand_over(0, other)
    script.network.link(former.name, cycle.looker.name).weather = simulation.network.fair
    script.call(cycle.at, "LOCK.ACQUIRE", cycle.first, "b", *LIVES)
    cycle.waits = [script.wait(cycle.at, "LOCK.ACQUIRE", cycle.first, "a", *LIVES, "BLOCK", "0")]
    script.run(2000)
    cycle.close()
    cycle.is_broken()


def _end_of_waits(script: Script, cycle: Cycle) -> None:
    """``b`` gives its lock back, and so does ``a``, who was granted it."""
    script.call(cycle.at, "LOCK.RELEASE", cycle.first, "b")
    script.until(lambda: cycle.waits[0].done)
    script.call(cycle.at, "LOCK.RELEASE", cycle.first, "a")


def wait_that_is_over(script: Script) -> None:
    """That a wait has ended is not heard of when what would have closed the cycle begins."""
    cycle = Cycle(script)
    script.run(200)
    script.cut((cycle.leader(0), cycle.looker))
    script.call(cycle.at, "LOCK.RELEASE", cycle.first, "b")
    script.until(lambda: cycle.waits[0].done)
    cycle.at = cycle.leader(1)
    cycle.close()
    script.run(400)
    script.heal()
    script.run(400)
    if cycle.waits[1].done:
        raise Violation("no victim without a cycle", f"{cycle.waits[1]} ended with {cycle.waits[1].output!r}")


def asked_in_vain(script: Script) -> None:
    """What is asked of a shard when the cycle is closed is not answered in time."""
    cycle = Cycle(script)
    cycle.at = cycle.leader(1)
    script.run(200)
    leader = cycle.leader(0)
    script.cut((cycle.looker, leader), (leader, cycle.looker))
    cycle.close()
    script.run(4000)
    if any(op.done for op in cycle.waits):
        raise Violation("no victim without a cycle", f"{[op.output for op in cycle.waits]} while nobody could ask")
    script.heal()
    cycle.is_broken()


def two_at_once(script: Script) -> None:
    """Two cycles with one owner in both are closed at the same time: it takes two victims."""
    cycle = Cycle(script)
    third = keys_of_all(script.simulation, b"wt")[0].decode()
    script.call(cycle.at, "LOCK.ACQUIRE", third, "c", *LIVES)
    cycle.waits.append(script.wait(cycle.at, "LOCK.ACQUIRE", third, "a", *LIVES, "BLOCK", "0"))
    script.run(200)
    last = [script.send(cycle.at, "LOCK.ACQUIRE", cycle.second, who, *LIVES, "BLOCK", "0") for who in ("b", "c")]
    script.run(BROKEN_MS_MAX)
    if not all(str(op.output).startswith("-DEADLOCK") for op in last) or any(op.done for op in cycle.waits):
        raise Violation("every cycle is broken", f"{[op.output for op in (*cycle.waits, *last)]}")


def eight_in_a_ring(script: Script) -> None:
    """Eight owners, each in a session of its own, have a lock each and wait for the next one's."""
    simulation = script.simulation
    script.run(300)
    nodes = list(simulation.processes.values())
    shards = simulation.shape.shards
    keys = [keys_of_all(simulation, b"w%d." % round_)[number].decode() for round_ in (0, 1) for number in range(shards)]
    for place, key in enumerate(keys):
        script.call(nodes[place % len(nodes)], "LOCK.ACQUIRE", key, f"o{place}", *LIVES)
    waits = []
    for place in range(len(keys)):
        wanted, node = keys[(place + 1) % len(keys)], nodes[place // 2 % len(nodes)]
        waits.append(script.wait(node, "LOCK.ACQUIRE", wanted, f"o{place}", *LIVES, "BLOCK", "0"))
        script.run(30)
    script.run(BROKEN_MS_MAX)
    if [op for op in waits if op.done] != waits[-1:] or not str(waits[-1].output).startswith("-DEADLOCK"):
        raise Violation("every cycle is broken", f"{[op.output for op in waits]}")


DEADLOCKS: dict[Play, Shape] = {
    closed_by_a_grant: ONE,
    upgraded_first: ONE,
    over_two_shards: ON_FOUR,
    new_leader_of_a_shard: ON_FOUR,
    new_looker: ON_FOUR,
    looker_lost: ON_FOUR,
    old_report: ON_FOUR,
    wait_that_is_over: ON_FOUR,
    asked_in_vain: ON_FOUR,
    eight_in_a_ring: ON_FOUR,
    two_at_once: ON_FOUR,
}
"""All of them, and the cluster each needs."""
