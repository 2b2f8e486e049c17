"""Situations that chance seldom finds, set up by hand: who is cut from whom, who crashes, and when.

Each is a function of a `Script`. Without a planted bug all of them end well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias
from unittest.mock import patch

from cluster.machine.reply import Reply
from cluster.node import Node
from cluster.raft.core import Raft
from cluster.raft.leading import Leading
from cluster.raft.membership import Config
from cluster.ring.slots import SYSTEM
from cluster.shard import Shard
from cluster.wishes import Change, grant
from tests.simulation import keeping
from tests.simulation.clients import FOR_EVER_MS, Client
from tests.simulation.clocks import DRIFT
from tests.simulation.faults import Profile
from tests.simulation.models import Call
from tests.simulation.network import Weather
from tests.simulation.process import Process
from tests.simulation.sessions import Op, Session
from tests.simulation.simulation import ONE, Shape, Simulation
from tests.simulation.world import MS, SECOND, Violation

CALM = Profile(weights={})

Play: TypeAlias = "Callable[[Script], None]"

NODES = {"leader_with_new_disk": 5}
"""Scripts that need more than three."""

OF_SYSTEM = ("leader_with_new_disk", "stale_wish", "empty_disk")
"""Scripts about the system group, and who leads that."""

MOVING = ("leader_with_new_disk",)
"""Scripts in which shards may be moved."""


class Typist(Client):
    """A client that asks what the script says."""

    leaves = 0.0

    def act(self) -> None:
        """Nothing by itself."""

    def calls(self) -> Iterator[Call]:
        """Nothing by itself."""
        yield from ()

    def ask(self, process: Process, *words: str) -> Session:
        """Asks in the next turn of that process."""
        session = self.session if self.session is not None else process.connect(self)
        self.session = session
        call = tuple(word.encode() for word in words)
        session.process.request(lambda: session.execute(call))
        return session

    def leave(self) -> None:
        """Closes its connection."""
        if self.session is not None:
            self._leave(self.session)


class Told:
    """Somebody who wished another membership, and what that one was told."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []

    def fill(self, reply: Reply) -> None:
        """An answer."""
        self.replies.append(reply)


class Script:
    """A calm cluster of three (or more): ``a`` leads, ``b`` and ``c`` follow; ``others`` come last.

    What is said of leaders and logs is meant of the group of shard ``number``.
    """

    def __init__(self, simulation: Simulation, number: int = 0, *, moving: bool = False) -> None:
        self.simulation = simulation
        self.world = simulation.world
        self.network = simulation.network
        self.number = number
        self._clients = 0
        for process in simulation.processes.values():
            process.clock.rate = 1.0
        self.run(1500)
        simulation.by_hand = not moving
        if not moving:
            simulation.faults.operator.pause(pause=True)
            self.until(lambda: all(_node(one).atlas.paused for one in simulation.processes.values()))
        rank = {True: 0, False: 1}
        leader, *followers = sorted(
            simulation.processes.values(),
            key=lambda one: (rank[self.leads(one)], rank[self.raft(one).log.last_index > 0]),
        )
        assert self.leads(leader)
        self.a, self.b, self.c, *self.others = leader, *followers

    def raft(self, process: Process) -> Raft:
        """A process's part in the group."""
        return process.raft(self.number)

    def shard(self, process: Process) -> Shard:
        """A process's shard, with which something is about to be done."""
        return process.stirred(self.number)

    def run(self, ms: float) -> None:
        """Time passes."""
        end_us = self.world.now_us + int(ms * MS)
        self.world.at(end_us, lambda: None)
        self.until(lambda: self.world.now_us >= end_us, 10 * SECOND)

    def until(self, condition: Callable[[], bool], limit_us: int = 5 * SECOND) -> None:
        """Time passes until something is so."""
        limit_us += self.world.now_us
        self.world.at(limit_us, lambda: None)
        while not condition():
            assert self.world.step(), "nothing is planned any more"
            assert self.world.now_us <= limit_us, "the script waits for what does not happen"
        return

    def cut(self, *links: tuple[Process, Process]) -> None:
        """Cuts links, each in one direction."""
        self.network.cut([(one.name, other.name) for one, other in links])

    def isolate(self, process: Process) -> None:
        """Cuts a process from all others."""
        others = [one for one in self.simulation.processes.values() if one is not process]
        self.cut(*[pair for other in others for pair in ((process, other), (other, process))])

    def heal(self) -> None:
        """All links work."""
        self.network.heal()

    def weather(self, one: Process, other: Process, weather: Weather) -> None:
        """How a link is from now on."""
        self.network.link(one.name, other.name).weather = weather

    def typist(self) -> Typist:
        """A new client."""
        self._clients += 1
        return Typist(self.simulation.workload, f"t{self._clients}")

    def ask(self, process: Process, *words: str) -> None:
        """A new client asks something."""
        self.typist().ask(process, *words)

    def send(self, process: Process, *words: str, typist: Typist | None = None) -> Op:
        """A client asks something, and the node has it."""
        history = self.simulation.workload.history
        before = len(history)
        (typist or self.typist()).ask(process, *words)
        self.until(lambda: len(history) > before)
        return history[before]

    def call(self, process: Process, *words: str) -> Op:
        """A new client asks something, and has the answer."""
        op = self.send(process, *words)
        self.until(lambda: op.done)
        return op

    def wait(self, process: Process, *words: str) -> Op:
        """A new client asks something, and waits for it."""
        op = self.send(process, *words)
        self.until(lambda: op.waits)
        return op

    def stands(self, *processes: Process) -> None:
        """These are the first to stand for election, as soon as nobody has heard a leader for long enough."""
        at_us = self.world.now_us
        for other in self.simulation.processes.values():
            if other.node is not None and not self.leads(other):
                raft = self.raft(other)
                raft.election_at_ms += 3000  # nobody else does for a while
                at_us = max(at_us, other.clock.us_of_monotonic(raft.contact_ms + raft.timing.election_ms + 1))
        for process in processes:
            self.stands_at(process, at_us)
            at_us += MS

    def stands_at(self, process: Process, at_us: int) -> None:
        """When this one stands for election."""
        self.raft(process).election_at_ms = process.clock.monotonic_ms(at_us)
        self.shard(process)
        process.wake(at_us)

    def elect(self, process: Process) -> None:
        """The process stands for election, and wins."""
        self.stands(process)
        self.until(lambda: self.leads(process))

    def leads(self, process: Process) -> bool:
        """Whether it does."""
        return process.up and self.raft(process).leading is not None

    def hand_over(self, process: Process) -> None:
        """Makes a process the leader."""
        for leader in self.simulation.leaders(self.number):
            leading = self.shard(leader).raft.leading
            assert leading is not None
            leading.hand_over(process.name)
            leader.wake(self.world.now_us)
        self.until(lambda: self.leads(process))

    def leader(self) -> Process:
        """Who leads in the latest term."""
        return max(self.simulation.leaders(self.number), key=lambda one: self.raft(one).term)

    def leads_one(self) -> bool:
        """Whether there is a leader."""
        return bool(self.simulation.leaders(self.number))

    def leading(self) -> Leading:
        """What it does as such."""
        leading = self.raft(self.leader()).leading
        assert leading is not None
        return leading

    def stir(self, process: Process) -> None:
        """Something was done to its part in the group."""
        self.shard(process)
        process.wake(self.world.now_us)

    def configure(self, config: Config) -> None:
        """The leader begins to change the group."""
        leader = self.leader()
        self.leading().change(config)
        self.stir(leader)

    def hand_over_system(self, process: Process) -> None:
        """Makes a process the leader of the system group."""
        for leader in self.simulation.leaders(SYSTEM):
            leading = leader.stirred(SYSTEM).raft.leading
            assert leading is not None
            if leader is not process:
                leading.hand_over(process.name)
                leader.wake(self.world.now_us)
        self.until(lambda: process.raft(SYSTEM).leading is not None)

    def grant(self, process: Process, change: Change) -> None:
        """The leader does what it can towards another configuration of the group."""
        grant(self.shard(process).raft, change)
        process.wake(self.world.now_us)

    def change(self, process: Process, change: Change) -> Told:
        """Somebody wishes another node in the cluster, or one less."""
        told = Told()
        _node(process).change(told, change)
        process.wake(self.world.now_us)
        return told

    def wish(self, process: Process, change: Change) -> Told:
        """Somebody wishes another leader of the group."""
        told = Told()
        self.shard(process).change(told, change)
        process.wake(self.world.now_us)
        return told

    def checkpoint(self, process: Process) -> None:
        """Writes a checkpoint and cuts the log all the way behind it."""
        index = self.raft(process).applied
        with patch("cluster.shard.RETAIN_BYTES", 0):
            process.keeping.checkpoint(self.number)
            self.until(lambda: self.raft(process).log.base_index >= index)


def _node(process: Process) -> Node:
    assert process.node is not None
    return process.node


def play(script: Play, *, shape: Shape = ONE, leases: bool = True, seed: int = 1) -> None:
    """Plays a script to its healed end; raises `Violation`."""
    nodes = NODES.get(script.__name__, 3 if shape is ONE else 4)
    simulation = Simulation(seed, nodes=nodes, shape=shape, profile=CALM, leases=leases, caches=False)
    number = SYSTEM if script.__name__ in OF_SYSTEM else 0
    script(Script(simulation, number, moving=script.__name__ in MOVING))
    simulation.by_hand = False
    simulation.end()


# Elections


def two_candidates(script: Script) -> None:
    """Two lose patience with a dead leader at the same moment, and both find that they could win."""
    for one, other in ((script.b, script.c), (script.c, script.b)):
        script.weather(one, other, Weather(delay_us=0, least_us=20 * MS))
    script.a.crash()
    script.stands(script.b, script.c)
    script.run(600)
    script.simulation.start(script.a)


def apart(script: Script) -> None:
    """One that has no link to the leader stands for election, while the other has."""
    script.cut((script.a, script.c), (script.c, script.a))
    script.stands(script.c)
    script.run(600)


def deaf_and_restarted(script: Script) -> None:
    """As `apart`, and the one that hears the leader restarts just before it is asked for its vote."""
    script.cut((script.a, script.c), (script.b, script.c))
    script.run(500)
    script.heal()
    script.cut((script.a, script.c))
    script.b.crash()
    script.run(5)
    script.simulation.start(script.b)
    script.run(1)
    script.stands_at(script.c, script.world.now_us)
    script.run(200)


# Logs


def diverged(script: Script) -> None:
    """A leader alone goes on for a moment; two others lead after it, the last with a log no longer than its own."""
    a, b, c = script.a, script.b, script.c
    script.isolate(a)
    for number in range(6):
        script.ask(a, "SET", "r", f"lost{number}")
        script.run(2)
    script.elect(b)
    script.call(b, "SET", "r", "kept")
    script.hand_over(c)
    script.heal()
    script.run(500)


def behind(script: Script) -> None:
    """One that lacks a committed entry is the first to stand for election."""
    a, c = script.a, script.c
    script.isolate(c)
    script.call(a, "SET", "r", "1")
    a.crash()
    script.heal()
    script.stands(c)
    script.run(600)
    script.simulation.start(a)


def checkpoint_behind(script: Script) -> None:
    """A checkpoint is written while entries behind it wait for their majority."""
    a, b, c = script.a, script.b, script.c
    script.cut((b, a), (c, a))
    script.send(a, "SET", "r", "1")
    script.send(a, "SET", "r", "2")
    script.checkpoint(a)
    script.heal()
    script.run(300)


def figure_8(script: Script) -> None:
    """An entry of an earlier term comes to a majority before one of the leader's own term does."""
    a, b, c = script.a, script.b, script.c
    with patch("cluster.raft.leading.APPEND_BYTES_MAX", 1):
        script.cut((a, b), (b, a), (c, a))
        script.send(a, "SET", "r", "1")
        script.run(10)
        script.isolate(a)
        script.elect(c)
        script.run(100)


def hurried_changes(script: Script) -> None:
    """Two changes of membership are asked for at once, of a leader that nobody answers."""
    a, b, c = script.a, script.b, script.c
    script.cut((b, a), (c, a))
    script.grant(a, Change("remove", b.name))
    script.grant(a, Change("remove", c.name))
    script.run(200)


def hurried_leader(script: Script) -> None:
    """A change of membership is asked of a new leader before anything of its term is committed."""
    a, b, c = script.a, script.b, script.c
    script.isolate(a)
    script.elect(b)
    script.cut((c, b))
    script.grant(b, Change("remove", a.name))
    script.run(100)


def stale_tail(script: Script) -> None:
    """A leader alone has more uncommitted entries than the snapshot it gets later, and crashes right after that."""
    a, b = script.a, script.b
    script.isolate(a)
    for number in range(40):
        script.ask(a, "SET", "r", f"lost{number}")
        script.run(2)
    script.elect(b)
    script.call(b, "SET", "r", "kept")
    script.checkpoint(b)
    installed = script.simulation.snapshots
    script.heal()
    script.until(lambda: script.simulation.snapshots > installed)
    a.crash()
    script.run(50)
    script.simulation.start(a)
    script.run(500)


def doubled_snapshot(script: Script) -> None:
    """The pieces of a snapshot come again when it is long in force and the log goes on."""
    a, c = script.a, script.c
    script.isolate(c)
    script.run(100)
    script.call(a, "SET", "r", "1")
    script.checkpoint(a)
    installed = script.simulation.snapshots
    script.heal()
    script.weather(a, c, Weather(double=1.0, late_us=200 * MS, ordered=False))
    script.until(lambda: script.simulation.snapshots > installed)
    for number in range(20):
        script.ask(a, "SET", "r", f"again{number}")
        script.run(15)


def overtaken_snapshot(script: Script) -> None:
    """While the last piece of a snapshot is being written another one leads, who has all the entries."""
    a, b, c = script.a, script.b, script.c
    script.isolate(c)
    script.call(a, "SET", "r", "1")
    script.checkpoint(a)
    script.call(a, "SET", "r", "2")
    with slow_steps():
        script.heal()
        script.until(lambda: script.raft(c).chunks != [] or c.keeping.storing)
        script.run(1)
        a.crash()
        script.elect(b)
        script.ask(b, "SET", "r", "3")
        script.run(2000)
    script.simulation.start(a)


@contextmanager
def slow_steps() -> Iterator[None]:
    """Every step of a checkpoint and of an installation takes a second."""
    with patch.object(keeping.Keeping, "_pause", lambda _: SECOND):
        yield


# Reads


def fast_followers(script: Script) -> None:
    """The leader's clock is slow, the others' are fast, and they lose it; somebody reads at each moment."""
    a, b, c = script.a, script.b, script.c
    for process, rate in ((a, 1 - DRIFT), (b, 1 + DRIFT), (c, 1 + DRIFT)):
        process.clock.change_rate(rate, script.world.now_us)
    script.run(100)
    script.call(b, "SET", "r", "old")
    contact_ms = script.raft(b).contact_ms
    script.until(lambda: script.raft(b).contact_ms > contact_ms)  # a heartbeat came just now
    script.run(2)
    script.isolate(a)
    script.elect(b)
    script.ask(b, "SET", "r", "new")
    for _ in range(20):
        script.ask(a, "GET", "r")
        script.run(1)
    script.run(500)


def unheard_successor(script: Script) -> None:
    """A leader hands over, and does not hear that the other one leads."""
    a, b = script.a, script.b
    script.run(100)
    script.cut((b, a))
    script.hand_over(b)
    script.run(300)


def missed_append(script: Script) -> None:
    """A follower is asked for what it has missed: the leader's answer comes before the entry does."""
    a, c = script.a, script.c
    script.call(a, "SET", "r", "old")
    script.run(100)
    script.cut((a, c))
    script.call(a, "SET", "r", "new")
    script.heal()
    script.call(c, "GET", "r")


def clocks_apart(script: Script) -> None:
    """A key ends by one leader's clock, which nobody else's has reached when another one leads."""
    a, b, c = script.a, script.b, script.c
    _slow_followers(script)
    script.call(a, "SET", "f", "v", "PX", "1500")
    _until_left(script, 100)
    script.cut((a, b), (a, c))
    _until_left(script, -2)
    script.ask(a, "GET", "f")
    script.run(3)
    _hand_over_after_beat(script)
    script.call(b, "GET", "f")


def confirmed_late(script: Script) -> None:
    """A read is confirmed when a key it was asked of is over by the leader's clock, and nobody else has heard that."""
    a, b, c = script.a, script.b, script.c
    _slow_followers(script)
    script.call(a, "SET", "f", "v", "PX", "1500")
    for follower in (b, c):
        script.weather(follower, a, Weather(delay_us=0, least_us=200 * MS))
    _until_left(script, 190)
    script.send(a, "GET", "f")
    script.run(5)
    script.cut((a, b), (a, c))
    _until_left(script, -20)
    script.isolate(a)
    script.elect(b)
    script.call(b, "GET", "f")


def _slow_followers(script: Script) -> None:
    """The followers' clocks go slower than their leader's as long as they do not hear of it: their walls say so."""
    for process, ahead_ms, rate in ((script.a, 9000, 1 + DRIFT), (script.b, 0, 1 - DRIFT), (script.c, 0, 1 - DRIFT)):
        process.clock.ahead_ms = ahead_ms
        process.clock.change_rate(rate, script.world.now_us)
    script.run(3000)


def _until_left(script: Script, ms: int) -> None:
    """The key has so long to live by its leader's clock."""
    shard = _node(script.a).shards[0]
    deadline_ms = shard.machine.keyspace.deadlines.get(b"f")
    if deadline_ms is not None:
        script.until(lambda: shard.now_ms >= deadline_ms - ms)


def _hand_over_after_beat(script: Script) -> None:
    """The leader hands over, and its clock is not heard any more."""
    leading = script.leading()
    beat_ms = leading.next_beat_ms
    script.until(lambda: leading.next_beat_ms > beat_ms)
    script.heal()
    leading.hand_over(script.b.name)
    script.stir(script.a)
    until_us = script.world.now_us + 50 * MS
    script.until(lambda: script.leads(script.b) or script.world.now_us > until_us)


def slow_answers(script: Script) -> None:
    """Answers to heartbeats are on the way for long; the leader is lost before they arrive."""
    a, b, c = script.a, script.b, script.c
    for follower in (b, c):
        script.weather(follower, a, Weather(delay_us=0, least_us=200 * MS))
    script.run(450)
    contact_ms = script.raft(b).contact_ms
    script.until(lambda: script.raft(b).contact_ms > contact_ms)
    script.cut((a, b), (a, c))
    script.stands(b)
    script.run(450)


def unsettled(script: Script) -> None:
    """A new leader does not know yet that what it has was committed, and cannot commit anything of its own."""
    read_from_the_unsettled(script, script.b)


def read_from_the_unsettled(script: Script, asked: Process) -> None:
    """Reads at ``asked`` while the leader is not settled."""
    a, b, c = script.a, script.b, script.c
    script.call(a, "SET", "r", "old")
    script.run(200)
    script.cut((a, c))
    script.call(a, "SET", "r", "new")
    a.crash()
    script.heal()
    script.elect(b)
    c.disk.least_us = 2 * SECOND
    for _ in range(60):
        script.ask(asked, "GET", "r")
        script.run(5)
    c.disk.least_us = 0
    script.simulation.start(a)


# What is forwarded and answered


def late_forward(script: Script) -> None:
    """The first batch forwarded to a leader arrives when it leads again, two terms later."""
    a, b, c = script.a, script.b, script.c
    script.hand_over(b)
    script.run(100)
    script.weather(c, b, Weather(delay_us=0, least_us=1200 * MS, ordered=False))
    script.send(c, "SET", "r", "v-forwarded")
    script.run(20)
    script.heal()
    script.hand_over(a)
    script.run(100)
    script.hand_over(b)
    script.run(1500)


def hurried_forward(script: Script) -> None:
    """A batch is forwarded to a new leader before anything is committed in its term, and the leader is lost then."""
    a, b, c = script.a, script.b, script.c
    a.disk.least_us = c.disk.least_us = 200 * MS
    script.isolate(a)
    script.stands(b)
    script.until(lambda: script.leads(b))
    script.heal()
    script.send(c, "SET", "r", "v-hurried")
    first = script.raft(b).log.last_index
    script.until(lambda: script.raft(b).log.last_index > first)
    script.until(lambda: script.raft(c).applied >= first)
    b.crash()
    script.run(300)
    a.disk.least_us = c.disk.least_us = 0
    script.run(2000)
    script.simulation.start(b)
    script.run(500)


def kept_forward(script: Script) -> None:
    """What was forwarded to a leader whose disk is slow is still there when it leads again, two terms later."""
    a, b, c = script.a, script.b, script.c
    a.disk.least_us = 600 * MS
    script.send(a, "SET", "r", "slow")
    forwarded = script.send(c, "SET", "r", "v-forwarded")
    script.run(20)
    script.isolate(a)
    script.stands(b)
    script.until(lambda: forwarded.done)
    a.disk.least_us = 0
    script.run(400)
    script.heal()
    script.run(400)
    script.hand_over(a)
    script.run(200)


def given_up_forward(script: Script) -> None:
    """A follower is cut off until it has given up what it forwarded, and comes back in the same term."""
    c = script.c
    script.isolate(c)
    forwarded = script.send(c, "SET", "r", "1")
    script.until(lambda: forwarded.done)
    script.heal()
    script.run(300)
    again = script.send(c, "SET", "r", "2")
    script.run(1000)
    if again.output != "OK":
        raise Violation("progress", f"{again} got {again.output!r}")


def waits_twice(script: Script) -> None:
    """A client is told that the outcome of its wait is not known, and waits again on the same connection."""
    a, b, c = script.a, script.b, script.c
    script.call(a, "LOCK.ACQUIRE", "l", "holder", "PX", FOR_EVER_MS.decode())
    waits = ("LOCK.ACQUIRE", "l", "PX", FOR_EVER_MS.decode(), "BLOCK", "0")
    typist = script.typist()
    script.run(100)
    first = script.send(c, *waits[:2], "first", *waits[2:], typist=typist)
    script.cut((a, c))
    script.until(lambda: first.done)
    script.heal()
    contact_ms = script.raft(c).contact_ms
    script.until(lambda: script.raft(c).contact_ms > contact_ms)
    second = script.send(c, *waits[:2], "second", *waits[2:], typist=typist)
    script.run(500)
    if second.done and second.output is None:
        raise Violation("a wait without limit", f"{second} ended with the wait before it")
    script.checkpoint(b)
    b.crash()
    script.simulation.start(b)
    script.run(500)
    assert typist.session is not None
    typist.session.close()
    typist.session = None


# Disks


def leader_with_new_disk(script: Script) -> None:
    """A member gets a new disk and leads; one that was away meanwhile, and one that joins, know it by the old one."""
    simulation = script.simulation
    a, b, c = script.a, script.b, script.c
    script.run(1000)
    script.isolate(c)
    b.crash()
    simulation.give_new_disk(b)
    script.change(a, Change("remove", b.name))
    script.until(lambda: b.name not in _node(a).members)
    script.run(100)
    script.change(a, Change("add", b.name, f"{b.name}:1", b.disk.id))
    script.until(lambda: b.name in _node(a).members)
    simulation.join(b.name, b.disk.id, _node(a).members)
    script.until(lambda: b.name in _node(a).members.voters)
    script.run(400)
    script.hand_over(b)
    script.heal()
    script.run(400)
    script.change(b, Change("add", "n9", "n9:1", "d9"))
    script.until(lambda: "n9" in _node(b).members)
    simulation.join("n9", "d9", _node(b).members)


def stale_wish(script: Script) -> None:
    """One that has not heard of a new member is asked to remove it."""
    a, c = script.a, script.c
    script.isolate(c)
    script.change(a, Change("add", "n9", "n9:1", "d9"))
    script.until(lambda: "n9" in _node(a).members)
    script.run(100)
    told = script.change(c, Change("remove", "n9"))
    script.run(500)
    if told.replies:
        raise Violation("told too early", f"{c} says {told.replies} of what it has not heard of")
    script.heal()
    script.until(lambda: told.replies != [])
    if "n9" in _node(a).members:
        raise Violation("told too early", f"{c} says {told.replies}, and n9 is a member")


def empty_disk(script: Script) -> None:
    """A member comes back with an empty disk, and with it the one that had been cut off would be a majority."""
    simulation = script.simulation
    a, b, c = script.a, script.b, script.c
    script.run(1000)
    script.isolate(c)
    script.call(a, "SET", "r", "kept")
    b.crash()
    simulation.give_new_disk(b)
    a.crash()
    script.heal()
    simulation.pretend(b)
    script.run(3000)
    simulation.start(a)
    script.run(500)
    b.crash()


SCRIPTS: tuple[Play, ...] = (
    two_candidates,
    apart,
    deaf_and_restarted,
    diverged,
    behind,
    checkpoint_behind,
    figure_8,
    hurried_changes,
    hurried_leader,
    stale_tail,
    doubled_snapshot,
    overtaken_snapshot,
    fast_followers,
    unheard_successor,
    missed_append,
    clocks_apart,
    confirmed_late,
    slow_answers,
    unsettled,
    late_forward,
    hurried_forward,
    kept_forward,
    given_up_forward,
    waits_twice,
    leader_with_new_disk,
    stale_wish,
    empty_disk,
)
"""All of them."""
