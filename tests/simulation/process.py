"""One process: the production `Node` with a simulated disk, clock and network around it.

It takes turns as resp_server/edge/reactor.py does, and like any process it can
be killed, stopped for a while (also in the middle of a turn), and started again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from functools import lru_cache
from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from cluster import wire
from cluster.machine.machine import Commands
from cluster.node import Answers, Node
from cluster.raft.core import Raft, Timing
from cluster.raft.membership import Config
from cluster.raft.messages import Message
from cluster.ring.slots import SYSTEM
from cluster.shard import FOREVER_MS, Shard
from cluster.status import status_of
from cluster.storage.contract import Identity
from resp_server import peering
from resp_server.commands.table import Table
from resp_server.lapses import Lapses
from resp_server.partitions import Partitions
from resp_server.peering import Hello, Refused
from tests.simulation.clocks import Clock
from tests.simulation.disk import PROBE_US, Disk
from tests.simulation.keeping import Keeping
from tests.simulation.sessions import Session
from tests.simulation.world import MS, SECOND, Violation, World

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

CLUSTER = "c0ffee"
NONCE = "0" * 32
TURN_US = 40
"""What a turn takes at the least: so much later comes the next."""

BUSY_TURNS_MAX = 400
"""A node that says it is busy gets something done, or it would take all of a processor."""

SETTLE_MS = 10.0
"""After this time a turn is whole, whatever it brings, as the reactor has it."""

PAUSE_MS = 100.0
"""After a pause of this length in a turn mail is read before any timer runs, as the reactor does."""

LEADERLESS_US_MAX = 10 * SECOND
"""Who waits is told after so long that there is no leader, as the reactor does."""

Task: TypeAlias = Generator[int, None, None]
"""Work beside the turns; it yields how many microseconds the next step takes."""


class Run(NamedTuple):
    """One run of a process, as others see it: its number and its data folder."""

    boot: int
    disk: str


class Accepted(NamedTuple):
    """Whose messages are taken: of which run of the sender, judged by which configuration."""

    boot: int
    config: Config


@lru_cache(maxsize=1)
def commands() -> Commands:
    """All commands of the log."""
    return Table().machine_commands()


class Process:
    """``node`` is None while it is not running. ``excused_us`` is how long it could not have answered, all in all.

    ``founders`` are the nodes the cluster began with, none as far as a node knows that joined; that one was told the
    ``members`` once, and forgets them when it stops.
    """

    def __init__(self, simulation: Simulation, name: str, disk: Disk, clock: Clock, zone: str = "") -> None:
        self.simulation = simulation
        self.world: World = simulation.world
        self.name = name
        self.disk = disk
        self.clock = clock
        self.node: Node | None = None
        self.boot = 0
        self.this_run = Run(0, disk.id)
        self.started_us = 0
        self.running_us = 0
        self.excused_us = 0
        self.stopped_until_us = 0
        self.stalls = 0.0  # how likely a turn is interrupted in the middle
        self.late_us = 0  # for how long the next turn is interrupted before clients are served
        self.gone = False  # removed for good
        self.port = 1
        self.zone = zone
        self.founders = Config()
        self.members = Config()
        self.empty = False  # it lost its disk, and must join again
        self.direct: list[Session] = []
        self.partly: list[Session] = []  # of whose answer some was read in this turn, and the rest is waited for
        self.keeping = Keeping(self)
        self.sessions: dict[bytes, Session] = {}
        self._inbox: list[tuple[int, int, Process, Run, bytes]] = []
        self._mail: list[tuple[Process, Run, bytes]] = []  # read, and not handed to the node yet
        self._received = 0
        self._requests: list[Callable[[], None]] = []
        self._turn_us: int | None = None
        self._in_turn = False
        self._accepted: dict[str, Accepted] = {}
        self._session_number = 0
        self._probe_us = 0
        self._busy_turns = 0
        self._applied = 0
        self._settle_at_ms = 0.0
        self._whole = True
        self._leaderless_us: int | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def up(self) -> bool:
        """Whether it runs (or is stopped)."""
        return self.node is not None

    @property
    def stopped(self) -> bool:
        """Whether nothing in it moves just now."""
        return self.world.now_us < self.stopped_until_us

    @property
    def cannot_move(self) -> bool:
        """Whether it is stopped, in a turn or between two."""
        return self.stopped or self._in_turn

    def shard(self, number: int) -> Shard:
        """A shard of its node, ready to be used in this turn by clients."""
        node = self.node
        assert node is not None
        shard = node.shards[number]
        node.touch(shard)
        return shard

    def stirred(self, number: int) -> Shard:
        """A shard of its node, or the system's, with which more is done than clients do."""
        node = self.node
        assert node is not None
        shard = node.system if number == SYSTEM else node.shards[number]
        node.stir(shard)
        return shard

    def raft(self, number: int) -> Raft:
        """Its part in a shard's group, to be looked at."""
        node = self.node
        assert node is not None
        return node.system.raft if number == SYSTEM else node.shards[number].raft

    # Life

    def start(self, timing: Timing) -> None:
        """Starts it on what its disk holds."""
        world, shape = self.world, self.simulation.shape
        assert self.node is None
        self.boot += 1
        self.this_run = Run(self.boot, self.disk.id)
        self.clock.boot(world.now_us)
        boot = f"{self.disk.id}x{self.boot}"
        node = Node(
            commands(),
            identity=Identity(CLUSTER, self.name, self.disk.id, shape.shards, shape.replicas),
            boot=boot,
            timing=timing,
            chance=random.Random(world.chance.getrandbits(64)),
            members=self.founders if self.founders.members else self.members,
            founders=self.founders,
            address=f"{self.name}:{self.port}",
            zone=self.zone,
            node_timeout_ms=shape.node_timeout_ms,
            session_timeout_ms=self.simulation.session_timeout_ms,
            **self.simulation.caching._asdict(),
        )
        self.members = Config()
        storage = self.disk.storage
        for shard in node.each():
            found = storage.load(shard.number)
            entries = storage.entries(shard.number, found.checkpoint_index + 1)
            node.recover(shard.number, found, storage.rows(shard.number), entries)
            if found.last_index:
                world.note(self.name, "recovers", (shard.number, found))
        self.node = node
        node.cache.clock_ms = lambda: self.clock.monotonic_ms(world.now_us)
        self._lapses = Lapses(self)  # type: ignore[arg-type]
        self.partitions = Partitions(self)  # type: ignore[arg-type]
        self.started_us = world.now_us
        self._leaderless_us = None
        self._whole = True
        self._settle_at_ms = 0.0
        world.note(self.name, "starts")
        self.simulation.watch.started(self)
        self.wake(world.now_us)

    def crash(self) -> None:
        """The power goes."""
        world = self.world
        world.note(self.name, "crashes")
        assert self.node is not None
        self.running_us += world.now_us - self.started_us
        self.disk.crash()
        self.simulation.watch.crashed(self, self.node)
        self.node = None
        self.boot += 1  # what was planned for this run is void
        self.keeping = Keeping(self)
        self._inbox.clear()
        self._mail.clear()
        self._requests.clear()
        self._accepted.clear()
        self.direct.clear()
        self.partly.clear()
        self._turn_us = None
        self._in_turn = False
        self.stopped_until_us = 0
        sessions, self.sessions = self.sessions, {}
        for session in sessions.values():
            session.closed = True
            session.client.disconnected(session)

    def stop(self, for_us: int) -> None:
        """Nothing moves in it for a while, as after SIGSTOP."""
        now_us = self.world.now_us
        until_us = now_us + for_us
        if until_us > self.stopped_until_us:
            self.excused_us += until_us - max(now_us, self.stopped_until_us)
            self.stopped_until_us = until_us
            self.world.note(self.name, "stops", f"for {for_us / MS:.0f} ms")

    # What comes in

    def connect(self, client: object) -> Session:
        """A new connection."""
        self._session_number += 1
        session = Session(client, self, self._session_number)  # type: ignore[arg-type]
        self.sessions[session.origin] = self.simulation.watch.standing.sessions[session.origin] = session
        return session

    def request(self, what: Callable[[], None]) -> None:
        """Something a client does, in the next turn."""
        self._requests.append(what)
        self.wake(self.world.now_us)

    def mail(self, sender: Process, data: bytes, arrival_us: int) -> None:
        """A message on its way here."""
        self._received += 1
        heappush(self._inbox, (arrival_us, self._received, sender, sender.this_run, data))
        if self._turn_us is None or arrival_us < self._turn_us:
            self.wake(arrival_us)

    def wake(self, at_us: int) -> None:
        """There is a turn at that time, or before."""
        if self.node is not None and (self._turn_us is None or at_us < self._turn_us):
            self._turn_us = at_us
            world = self.world
            if at_us < world.now_us:
                at_us = world.now_us
            boot = self.boot
            turn_us = self._turn_us
            world.at(at_us, lambda: self._turn(boot, turn_us))

    def run(self, task: Task) -> None:
        """Runs something beside the turns until it ends or the process does."""
        self._step(self.boot, task)

    def _step(self, boot: int, task: Task) -> None:
        if boot != self.boot:
            task.close()
            return
        world = self.world
        if self.stopped:
            world.at(self.stopped_until_us, lambda: self._step(boot, task))
            return
        delay_us = next(task, None)
        if delay_us is not None:
            world.after(delay_us, lambda: self._step(boot, task))

    # A turn

    def _turn(self, boot: int, turn_us: int) -> None:
        if boot != self.boot or turn_us != self._turn_us or self.node is None:
            return
        if self.stopped:
            self._turn_us = None
            self.wake(self.stopped_until_us)
            return
        self._turn_us = None
        if self._in_turn:
            return  # it is stopped in the middle of one, whose end looks what is next
        self.simulation.turns += 1
        self._collect_mail()
        self._go_on(self._hear)

    def _collect_mail(self) -> None:
        now_us, inbox = self.world.now_us, self._inbox
        while inbox and inbox[0][0] <= now_us:
            self._mail.append(heappop(inbox)[2:])

    def _go_on(self, then: Callable[[Node], None]) -> None:
        """With the next part of the turn, maybe not at once."""
        if self.stalls and self.world.happens(self.stalls):
            self._stall(then, self.world.between_us(1, 700 * MS))
        elif self.node is not None:
            then(self.node)

    def _stall(self, then: Callable[[Node], None], for_us: int) -> None:
        """The turn is interrupted here."""
        world = self.world
        self._in_turn = True
        self.excused_us += for_us
        world.note(self.name, "is interrupted", f"for {for_us / MS:.1f} ms")
        boot = self.boot

        def resume() -> None:
            if boot == self.boot and self.node is not None:
                if self.stopped:
                    world.at(self.stopped_until_us, resume)
                    return
                self._in_turn = False
                then(self.node)

        world.after(for_us, resume)

    def _hear(self, node: Node) -> None:
        """Clocks, messages, and a commit that is done."""
        self._receive(node)
        late_us, self.late_us = self.late_us, 0
        if late_us:
            self._stall(self._serve, late_us)
        else:
            self._go_on(self._serve)

    def _receive(self, node: Node) -> None:
        now_us = self.world.now_us
        clock, disk = self.clock, self.disk
        node.advance(clock.wall_ms(now_us), clock.monotonic_ms(now_us))
        if self._mail:
            mail, self._mail = self._mail, []
            for sender, run, data in mail:
                if self._accepts(sender, run, node):
                    for number, message in wire.decode(data):
                        self.world.note(self.name, "hears", (sender.name, number, message))
                        node.receive(sender.name, number, message)
            self._whole = True
        if disk.work is not None and disk.done_us <= now_us:
            disk.finish(node)
            self._whole = True
        self._close_lapsed()

    def _serve(self, node: Node) -> None:
        """What clients ask."""
        requests, self._requests = self._requests, []
        for request in requests:
            request()
        self._whole = self._whole or not requests
        self._go_on(self._answer)

    def _close_lapsed(self) -> None:
        """Whose session may have been ended by others gets nothing more."""
        now_ms = self.clock.monotonic_ms(self.world.now_us)
        if now_ms < self._lapses.next_ms:
            return
        for session in self._lapses.look(now_ms):
            self.world.note(str(session), "lapsed")
            session.hang_up()  # type: ignore[attr-defined]

    @property
    def clients(self) -> dict[bytes, Session]:
        """The sessions, as what looks for those that lapsed calls them."""
        return self.sessions

    def may_lose(self, session: Session, number: int) -> bool:
        """Whether a shard may hold something of a session."""
        return session.may_lose(number)

    def _answer(self, node: Node) -> None:
        """Timers, the log and the disk, messages and answers, unless the turn only brought what is answered already."""
        world, disk = self.world, self.disk
        self._close_lapsed()
        read = bool(self.direct or self.partly)
        lapsed = read and node.reads_lapsed(self.clock.monotonic_ms(world.now_us))
        direct, self.direct = self.direct, []
        for session in direct:
            session.send_direct(lapsed=lapsed)
        partly, self.partly = self.partly, []
        for session in partly:
            if lapsed and not session.closed:
                session.hang_up()
        if not (self._whole or node.busy or node.monotonic_ms >= self._settle_at_ms):
            self._plan(node)
            return
        monotonic_ms = self.clock.monotonic_ms(world.now_us)
        if monotonic_ms - node.monotonic_ms > PAUSE_MS:
            self._collect_mail()
            self._receive(node)
        node.pass_time(monotonic_ms)
        node.tick()
        if disk.free:
            work = node.ready()
            if work is not None:
                self._send(node)
                disk.begin(work)
                if disk.done_us <= world.now_us:
                    self._go_on(self._finish_commit)
                    return
        self._finish(node)

    def _finish_commit(self, node: Node) -> None:
        if self.disk.work is not None:
            self.disk.finish(node)
        self._finish(node)

    def _finish(self, node: Node) -> None:
        self._close_lapsed()
        self._deliver(node, node.apply())
        self._send(node)
        self.keeping.look(node)
        self._mend(node)
        self._count_leaderless(node)
        self.simulation.watch.turned(self, node)
        self._whole = False
        self._settle_at_ms = min(node.next_tick_ms(), node.monotonic_ms + SETTLE_MS)
        self._plan(node)

    def _send(self, node: Node) -> None:
        """One frame for each peer, of what all shards have for it."""
        processes, network = self.simulation.processes, self.simulation.network
        watch = self.simulation.watch
        frames: dict[str, list[tuple[int, Message]]] = {}
        for peer, number, message in node.outgoing():
            watch.says(self, node, peer, number, message)
            frames.setdefault(peer, []).append((number, message))
        for peer, letters in frames.items():
            receiver = processes.get(peer)
            if receiver is None or receiver.node is None:
                continue
            data = wire.encode(letters)
            for arrival_us in network.arrivals(self.name, peer):
                receiver.mail(self, data, arrival_us)

    def _deliver(self, node: Node, answers: Answers) -> None:
        for client, reply in answers.replies:
            if client is not None:
                client.fill(reply)
        for number, origin, reply in answers.woken:
            session = self.sessions.get(origin)
            if session is not None:
                session.wake(number, reply)
        self.partitions.known()
        for session in list(self.sessions.values()):
            if session.may_resume:
                self.request(session.resume)

    def _mend(self, node: Node) -> None:
        """A disk that takes nothing is tried now and then."""
        if self.disk.refusal is not None and self.world.now_us >= self._probe_us:
            self._probe_us = self.world.now_us + PROBE_US
            self.excused_us += PROBE_US
            if self.disk.mend(node):
                self.world.note(self.name, "disk mended")

    def _count_leaderless(self, node: Node) -> None:
        if node.has_leader:
            self._leaderless_us = None
        elif self._leaderless_us is None:
            self._leaderless_us = self.world.now_us
        elif self.world.now_us - self._leaderless_us > LEADERLESS_US_MAX:
            self._leaderless_us = self.world.now_us
            for session in list(self.sessions.values()):
                for number in session.waits_in:
                    if not node.shards[number].has_leader:
                        session.give_up_wait(number)

    def _plan(self, node: Node) -> None:
        """When the next turn is."""
        world, clock, disk = self.world, self.clock, self.disk
        soon_us = world.now_us + TURN_US
        if (node.busy and disk.free) or self._requests:
            applied = sum(shard.applied_index for shard in node.each())
            self._busy_turns = self._busy_turns + 1 if applied == self._applied else 0
            self._applied = applied
            if self._busy_turns > BUSY_TURNS_MAX:
                raise Violation("never spins", f"{self} has been busy for {self._busy_turns} turns: {status_of(node)}")
            self.wake(soon_us)
            return
        self._busy_turns = 0
        next_us = world.now_us + 10 * SECOND
        tick_ms = min(node.next_tick_ms(), self._lapses.next_ms)
        if tick_ms < FOREVER_MS:
            tick_us = clock.us_of_monotonic(tick_ms)
            if tick_us < next_us:
                next_us = tick_us
        if disk.free:
            due_ms = node.next_due_ms()
            if due_ms is not None:
                due_us = clock.us_of_wall(due_ms)
                if due_us < next_us:
                    next_us = due_us
        else:
            disk_us = disk.done_us if disk.work is not None else self._probe_us
            if disk_us < next_us:
                next_us = disk_us
        if self._inbox and self._inbox[0][0] < next_us:
            next_us = self._inbox[0][0]
        self.wake(max(next_us, soon_us))

    # Who is listened to

    def _accepts(self, sender: Process, run: Run, node: Node) -> bool:
        """Whether the production's handshake would have let in a message of that run of the sender."""
        name = sender.name
        known = self._accepted.get(name)
        if known is not None:
            if known.boot == run.boot and known.config is node.members:
                return True
            if known.boot > run.boot:
                return False  # another connection took the place of that one
        if sender.node is None or sender.boot != run.boot:
            return known is not None and known.boot == run.boot  # it is gone, and what was on its way still comes
        try:
            peering.judge_caller(_hello(sender, run, node), node)
            peering.judge_disk(self.name, self.disk.id, sender.node)
        except Refused as refused:
            self.world.note(self.name, "refuses", (name, refused.kind))
            self._accepted.pop(name, None)
            return False
        if name in node.members:
            node.meet(name, run.disk)
        sender.node.meet(self.name, self.disk.id)
        self._accepted[name] = Accepted(run.boot, node.members)
        if known is None or known.boot != run.boot:
            sender.node.connected(self.name)
        return True


def _hello(sender: Process, run: Run, node: Node) -> Hello:
    """What that run of the sender says when it calls the node."""
    shape = peering.shape_of(node.identity)
    return Hello(CLUSTER, sender.name, f"{sender.name}:{sender.port}", node.name, run.disk, shape, NONCE)
