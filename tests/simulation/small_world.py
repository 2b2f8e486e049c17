"""Two or three caches and the directory of one shard, with one key and nothing else: production classes, made to go
step by step.

A `SmallWorld` is one state. `choices` are what can happen next, as words; `after` gives the state that follows and
leaves this one alone: only what the step touches is copied. Raft is taken as it promises to be: a log whose entries
are carried out in turn, one leader at a time that is sure to lead; those that are not yet carried out may be lost
with it. The nodes' clocks are as slow as is allowed, so that they use their leases longest.

Nodes may have a replica, which is what entries come to one by one. There are always enough others, which do not use
caches, to make a majority: so what is not committed yet is what a node must have, and has not, and who leads next is
one of those that have all that was carried out anywhere. Where there are no replicas at all, anybody is.

After every step the rules hold: see `check`.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from cluster import batch as batches
from cluster.batch import node_of
from cluster.cache.controller import MISS, Controller, Leader, Write
from cluster.cache.directory import Directory
from cluster.cache.former import FormerLeases
from cluster.cache.lines import Line, Lines
from cluster.cache.mesi import State
from cluster.clients import no_leader
from cluster.coherence import TO_LEADERS
from cluster.gate import Gate, Kept, KeptReads
from cluster.machine.caches import JOIN
from cluster.machine.reply import CommandError, Reply
from cluster.raft.demands import Demands
from cluster.raft.messages import Grant, Join, Message, Renew, Renewed
from tests.simulation.small_judge import Judge, Op, may_read
from tests.simulation.small_log import KEY, Entry, Log, Replica
from tests.simulation.twins import print_of, twin
from tests.simulation.world import Violation

LEASE_MS = 500
WRITEBACK_MS = 50
PACE = 0.9
"""How fast the caches' clocks go."""

A_WHILE_MS = 60
A_LEASE_MS = 470
"""Over at the node, and not yet at the leader; after two it is over for everybody."""

NAMES = "abc"


@dataclass(frozen=True, slots=True)
class Budget:
    """How often each thing may still happen."""

    reads: int = 0
    writes: int = 0
    plain_reads: int = 0
    plain_writes: int = 0
    evictions: int = 0
    flushes: int = 0
    whiles: int = 0
    leases: int = 0
    elections: int = 0
    doubles: int = 0
    losses: int = 0
    crashes: int = 0
    snapshots: int = 0

    def less(self, name: str) -> Budget:
        """After it happened once more."""
        return replace(self, **{name: getattr(self, name) - 1})


class Seat:
    """What a node knows of who leads, and what it has of the log."""

    def __init__(self, leader: str, term: int, sure_until: float, replica: Replica | None = None) -> None:
        self.leader, self.term, self.sure_until = leader, term, sure_until
        self.replica = replica

    def leader_of(self, number: int) -> Leader:
        """As the controller asks."""
        return Leader(self.leader, self.term)

    def sure_until_of(self, number: int, term: int) -> float:
        """As the controller asks."""
        return self.sure_until if term == self.term else 0.0

    def replica_of(self, number: int) -> Replica | None:
        """As the controller asks."""
        return self.replica

    def is_lost(self, number: int) -> bool:
        """As the controller asks: there is always a leader."""
        return False


class Member:
    """A node: its cache, and what it knows."""

    def __init__(self, author: bytes, seat: Seat, now_ms: float) -> None:
        self.seat = seat
        self.cache = Controller(
            author,
            Lines(100_000),
            leader_of=seat.leader_of,
            is_lost=seat.is_lost,
            sure_until=seat.sure_until_of,
            replica_of=seat.replica_of,
            writeback_ms=WRITEBACK_MS,
            no_leader=no_leader,
        )
        self.cache.now_ms = now_ms


class Ground:
    """The leader, as its directory sees it; ``replicas`` are the others that have one."""

    def __init__(
        self, author: bytes, term: int, log: Log, applied: int, now_ms: float, replicas: list[str], first_index: int = 0
    ) -> None:
        self.author = author
        self.term = term
        self.machine = log.machine(applied)
        self.applied = applied
        self.last_index, self.commit = log.last_index, applied
        self.now_ms = self.began_ms = now_ms
        self.unheard = ""
        self.first_index = first_index
        self.demands = Demands()
        self.matches = dict.fromkeys(replicas, 0)

    @property
    def log_ms(self) -> int:
        """No key ends here."""
        return self.machine.now_ms

    def count(self) -> None:
        """As a leader does whenever something changes."""
        index = self.demands.allowed(self.last_index, lambda member: self.matches[member])
        if index >= self.first_index:
            self.commit = max(self.commit, index)

    @property
    def settled(self) -> bool:
        """Whether an entry of this term is carried out."""
        return self.applied >= self.first_index

    def sure(self) -> bool:
        """There is no other."""
        return True

    def hears_node(self, node: str) -> bool:
        """Whether it is not cut off."""
        return node != self.unheard

    def hears(self, author: bytes) -> bool:
        """Whether that cache's node is not cut off."""
        return self.hears_node(node_of(author))

    def replicates_to(self, author: bytes) -> bool:
        """Whether that cache's node has a replica."""
        return author == self.author or node_of(author) in self.matches

    def demand(self, author: bytes, index: int) -> None:
        """It must have that entry."""
        self.demands.add(node_of(author), index)

    def tell(self, author: bytes) -> None:
        """It may carry out at any time what this one has."""

    def has(self, author: bytes, index: int) -> bool:
        """Whether it has said so."""
        return self.matches[node_of(author)] >= index

    def excuse(self, author: bytes) -> None:
        """It need not have anything."""
        self.demands.excuse(node_of(author))


class Home:
    """The leader: its directory, and what it keeps back. ``asks`` are writes for the next entry, ``looks`` reads.

    ``former`` is what it waits for before anything is carried out, if there is anything.
    """

    def __init__(self, ground: Ground, log: Log) -> None:
        self.ground = ground
        self.gate = Gate()
        self.asks: list[tuple[int, list[bytes]]] = []
        self.looks: list[int] = []
        self.kept: list[int] = []
        self.former: FormerLeases | None = None
        self.heed_leases([entry.payload for entry in log.entries[ground.applied :]])
        self.open_if(bool(ground.machine.caches.known))

    def heed_leases(self, unknown: list[bytes]) -> None:
        """As `cluster.leadership` does."""
        ground = self.ground
        known = ground.machine.caches
        if ground.first_index and (known.known or any(JOIN in payload for payload in unknown)):
            self.former = FormerLeases(known, unknown, ground.now_ms)
            for node in ground.matches:
                ground.demands.add(node, ground.first_index)

    def open_if(self, wanted: bool) -> None:
        """There is a directory once a cache asks for it, or may hold something, and all is known of before."""
        if wanted and self.ground.settled and self.gate.directory is None:
            self.gate.directory = Directory(self.ground, LEASE_MS)
            self.gate.directory.holding = True

    @property
    def is_too_early(self) -> bool:
        """Whether caches may hold lines, and it is not known which."""
        return self.former is not None and self.gate.directory is None

    def wait_out_leases(self) -> None:
        """As `cluster.leadership` does."""
        ground, former = self.ground, self.former
        if former is None or ground.settled:
            return
        for node in ground.demands.members():
            if former.are_over(node, ground.now_ms, ground.hears_node):
                ground.demands.excuse(node)


Choice = tuple[Any, ...]
GOES_ON = ("comes", "log", "learn", "entry", "heard", "applies")
"""What happens by itself, sooner or later."""

HOME = "home"


class SmallWorld:
    """One state."""

    def __init__(self, nodes: int, budget: Budget, replicas: str = "") -> None:
        self.budget = budget
        self.now_ms = 1000.0
        self.log = Log()
        self.done = 0  # entries that were carried out anywhere
        self.judge = Judge()
        self.bag: dict[Hashable, tuple[str, Message]] = {}
        self.number = 0
        self.lossy = False
        names = NAMES[:nodes]
        self.members: dict[str, Member] = {}
        for name in names:
            author = name.encode() + b".1"
            replica = Replica(author, self.log) if name in replicas else None
            seat = Seat("a", 1, float("inf") if name == "a" else 0.0, replica)
            self.members[name] = Member(author, seat, self.now_ms * PACE)
        others = [one for one in replicas if one != "a"]
        self.home = Home(Ground(b"a.1", 1, self.log, 0, self.now_ms, others), self.log)
        self.plain: tuple[int, ...] = ()  # writes that go the way of every other command
        self._own: deque[Message] = deque()
        self._fresh: set[str] = set()
        self._prints: dict[str, Hashable] = {}

    # Copies

    def fork(self) -> SmallWorld:
        """Another that is the same."""
        other = copy.copy(self)
        other.members, other.bag, other._prints = dict(self.members), dict(self.bag), dict(self._prints)
        other._own, other._fresh = deque(), set()
        return other

    def _member(self, name: str) -> Member:
        """A node, to be changed."""
        self._prints.pop(name, None)
        if name not in self._fresh:
            self._fresh.add(name)
            self.members[name] = twin(self.members[name], {})
        member = self.members[name]
        member.cache.now_ms = self.now_ms * PACE
        member.cache.turn += 1
        return member

    def _leader(self) -> Home:
        """The leader, to be changed."""
        self._prints.pop(HOME, None)
        if HOME not in self._fresh:
            self._fresh.add(HOME)
            self.home = twin(self.home, {})
        self.home.ground.now_ms = self.now_ms
        return self.home

    def print(self) -> Hashable:
        """Equal for states from which the same can happen."""
        prints = self._prints
        for name, member in self.members.items():
            if name not in prints:
                replica = member.seat.replica
                has = replica.print() if replica is not None else None
                prints[name] = _short((print_of(member, self.now_ms * PACE), has))
        if HOME not in prints:
            ground = self.home.ground
            known = ground.machine.caches
            memory = (ground.machine.keyspace.values.get(KEY), known.home, known.lease_ms, *print_of(known.known, 0.0))  # type: ignore[misc]
            carried_out = min([ground.applied, *(one.applied for _, one in self.replicas())])
            log = self.log.entries[carried_out:]
            prints[HOME] = _short((print_of(self.home, self.now_ms, ground.applied), memory, log))
        bag = tuple(sorted(_short(one) for one in self.bag))
        return self.budget, self.judge, bag, tuple(prints[name] for name in (*self.members, HOME))

    # What can happen

    def choices(self) -> Iterator[Choice]:
        """What can happen next."""
        yield from self._arrivals()
        waiting = {op.name for op in self.judge.pending}
        for name in self.members:
            if name not in waiting:
                yield from self._of_budget({"reads": "read", "writes": "write"}, name)
            yield from self._of_node(name)
        if "" not in waiting:
            yield from self._of_budget({"plain_reads": "plain read", "plain_writes": "plain write"})
        yield from self._of_budget({"whiles": "while"})
        if self.budget.leases:
            yield ("lease",)
            yield ("pause",)

    def _of_budget(self, kinds: dict[str, str], *told: str) -> Iterator[Choice]:
        for field, kind in kinds.items():
            if getattr(self.budget, field):
                yield kind, *told

    def _arrivals(self) -> Iterator[Choice]:
        """What becomes of messages, and of what is in the log."""
        for key in self.bag:
            if self._can_come(key):
                yield "comes", key
                yield from (("comes twice", key) for _ in range(self.budget.doubles > 0))
            if self.budget.losses:
                yield "is lost", key
        if self.home.ground.applied < self.home.ground.commit:
            yield ("log",)

    def _of_node(self, name: str) -> Iterator[Choice]:
        """What a node does, or what becomes of it."""
        budget, member, ground = self.budget, self.members[name], self.home.ground
        if budget.evictions and len(member.cache.lines):
            yield "evict", name
        if budget.flushes and member.cache.dirty:
            yield "flush", name
        if member.seat.term < ground.term:
            yield "learn", name
        if name == node_of(ground.author):
            return
        if budget.crashes:
            yield "crash", name
        replica = member.seat.replica
        if replica is not None:
            yield from self._of_replica(name, replica)
        elif budget.elections and not self.replicated:
            for keep in (True, False) if ground.applied < self.log.last_index else (True,):
                yield "elect", name, keep, True
                yield "elect", name, keep, False

    def _of_replica(self, name: str, replica: Replica) -> Iterator[Choice]:
        budget, ground = self.budget, self.home.ground
        same = replica.log.common(self.log)
        if same < self.log.last_index:
            yield "entry", name, True
            if name in ground.demands.members():
                yield "entry", name, False
            if budget.snapshots and ground.applied > same:
                yield "snapshot", name
        if ground.matches[name] < same and name in ground.demands.members():
            yield "heard", name
        if replica.applied < min(same, self.done):
            yield "applies", name
        if budget.elections and same >= self.done:
            yield "elect", name, True, True
            yield "elect", name, True, False

    def after(self, choice: Choice) -> SmallWorld:
        """What follows. `Violation` if it must not be."""
        world = self.fork()
        world.take(choice)
        return world

    def take(self, choice: Choice) -> None:
        """It happens to this one."""
        kind, *told = choice
        _HAPPENINGS[kind](self, *told)
        self._settle()
        self.check()

    def _can_come(self, key: Hashable) -> bool:
        to, message = self.bag[key]
        return to == HOME or message.term <= self.members[to].seat.term

    def _comes(self, key: Hashable) -> None:
        self._deliver(*self.bag.pop(key))

    def _comes_twice(self, key: Hashable) -> None:
        self.budget = self.budget.less("doubles")
        self._deliver(*self.bag[key])

    def _is_lost(self, key: Hashable) -> None:
        self.budget = self.budget.less("losses")
        self.lossy = True
        del self.bag[key]

    def _call(self, name: str, writes: bool) -> int:
        self.number += 1
        value = b"v%d" % self.number if writes else None
        self.judge = self.judge.called(Op(self.number, name, writes, value))
        return self.number

    def _read(self, name: str) -> None:
        self.budget = self.budget.less("reads")
        cache, number = self._member(name).cache, self._call(name, writes=False)
        reply = cache.read(KEY)
        if reply is MISS:
            cache.await_read(number, 0, KEY)
        else:
            self.judge = self.judge.returned(number, reply)  # type: ignore[arg-type]

    def _write(self, name: str) -> None:
        self.budget = self.budget.less("writes")
        cache, number = self._member(name).cache, self._call(name, writes=True)
        value = b"v%d" % number
        reply = cache.write(KEY, value)
        if reply is MISS:
            cache.await_write(Write(number, value, None, b"", [b"SET", KEY, value]), 0, KEY)
        else:
            self._acknowledged(cache, number)

    def _acknowledged(self, cache: Controller, number: int) -> None:
        value = self.judge.op(number).value
        self.judge = self.judge.returned(number, value).acknowledged(cache.author, value)

    def _evict(self, name: str) -> None:
        self.budget = self.budget.less("evictions")
        self._member(name).cache.evict(KEY)

    def _flush(self, name: str) -> None:
        self.budget = self.budget.less("flushes")
        self._member(name).cache.flush(None)

    def _learn(self, name: str) -> None:
        member = self._member(name)
        ground = self.home.ground
        member.seat.leader, member.seat.term = node_of(ground.author), ground.term
        member.cache.look()

    def _crash(self, name: str) -> None:
        """It is there again at once, with an empty cache, and in another run."""
        self.budget = self.budget.less("crashes")
        self.lossy = True
        former, ground = self.members[name], self.home.ground
        author = name.encode() + b".%d" % (int(former.cache.author.split(b".")[1]) + 1)
        had = former.seat.replica
        replica = Replica(author, had.log, had.applied) if had is not None else None
        seat = Seat(node_of(ground.author), ground.term, 0.0, replica)
        self._prints.pop(name, None)
        self._fresh.add(name)
        self.members[name] = Member(author, seat, self.now_ms * PACE)
        for op in self.judge.pending:
            if op.name == name:  # nobody hears of it, and it may happen yet
                self.judge = self.judge._replace(
                    pending=tuple(one._replace(name=name + "?") if one is op else one for one in self.judge.pending)
                )

    def _elect(self, name: str, keep: bool, heard: bool) -> None:
        """Another leads. Of what was not carried out that is, or will be, which it has."""
        self.budget = self.budget.less("elections")
        former = self._leader()
        member = self._member(name)
        replica, replicas = member.seat.replica, [one for one, _ in self.replicas() if one != name]
        if replica is None:
            while keep and former.ground.applied < self.log.last_index:
                self._carry_out()
        self.log = self.log.upto(former.ground.applied) if replica is None else replica.log
        applied = former.ground.applied if replica is None else replica.applied
        self._member(node_of(former.ground.author)).seat.sure_until = 0.0
        term = former.ground.term + 1
        member.seat.leader, member.seat.term, member.seat.sure_until = name, term, float("inf")
        first_index = 0 if replica is None else self.log.last_index + 1
        ground = Ground(member.cache.author, term, self.log, applied, self.now_ms, replicas, first_index)
        ground.unheard = "" if heard else node_of(former.ground.author)
        self.home = Home(ground, self.log)
        self.home.looks = [*former.looks, *(one.number for one in former.gate.reads)]
        answered = {op for entry in self.log.entries for op in entry.ops}
        for op in self.judge.pending:
            if op.number in self.plain and op.number not in answered:
                assert op.value is not None
                self.home.asks.append((op.number, [b"SET", KEY, op.value]))
        self._prints.pop(HOME, None)
        member.cache.look()
        if first_index:
            self._append(Entry(term, ()))

    def _entry(self, name: str, heard: bool) -> None:
        """The next entry comes to a node, in the place of another if it has one there that the leader has not."""
        self._learn(name)
        replica = self._replica(name)
        index = replica.log.common(self.log) + 1
        replica.log = self.log.upto(index)
        self._snoop(name, index)
        if heard:
            self._heard(name)

    def _heard(self, name: str) -> None:
        """The leader hears what a node has."""
        self._leader().ground.matches[name] = self._replica(name).log.common(self.log)

    def _applies(self, name: str) -> None:
        """A node carries out the next entry."""
        self._replica(name).applied += 1

    def _snapshot(self, name: str) -> None:
        """A node gets what the leader has carried out at once."""
        self.budget = self.budget.less("snapshots")
        self._learn(name)
        replica, index = self._replica(name), self.home.ground.applied
        replica.log = self.log.upto(index)
        replica.base = replica.applied = index
        self._member(name).cache.replace(0)

    def _replica(self, name: str) -> Replica:
        """A node's, to be changed."""
        replica = self._member(name).seat.replica
        assert replica is not None
        return replica

    def _snoop(self, name: str, index: int) -> None:
        """An entry is in a node's log: as `Coherence.logged`."""
        cache = self._member(name).cache
        line, named = cache.lines.get(KEY), self.log.named(index, cache.author)
        was = line.state if line is not None else None
        for word in named or ():
            cache.overwrite(0, word, index)
        calls = [call for call in self.log.entries[index - 1].calls if KEY in call]
        if line is not None and line.state is not was and all(cache.author in call for call in calls):
            raise Violation("overwritten by others", f"{cache.author!r} lost its line for {calls}")

    @property
    def replicated(self) -> bool:
        """Whether only nodes with a replica may lead."""
        return self.members[node_of(self.home.ground.author)].seat.replica is not None

    def replicas(self) -> Iterator[tuple[str, Replica]]:
        """Those there are, by node."""
        for name, member in self.members.items():
            if member.seat.replica is not None:
                yield name, member.seat.replica

    def _plain_read(self) -> None:
        self.budget = self.budget.less("plain_reads")
        number = self._call("", writes=False)
        self._leader().looks.append(number)

    def _plain_write(self) -> None:
        self.budget = self.budget.less("plain_writes")
        number = self._call("", writes=True)
        self.plain = (*self.plain, number)
        self._leader().asks.append((number, [b"SET", KEY, b"v%d" % number]))

    def _while(self) -> None:
        self.budget = self.budget.less("whiles")
        self._pass(A_WHILE_MS)

    def _lease(self) -> None:
        self.budget = self.budget.less("leases")
        self._pass(A_LEASE_MS)

    def _pause(self) -> None:
        """As long as that nobody gets to run; then, messages come first."""
        self.budget = self.budget.less("leases")
        self.now_ms += A_LEASE_MS
        self._prints.clear()

    def _pass(self, ms: float) -> None:
        self.now_ms += ms
        for name in self.members:
            cache = self._member(name).cache
            cache.look()
            for leader, offices in cache.to_renew().items():
                self._post(HOME, Renew(offices[0][1], cache.author, int(cache.now_ms * 1000), offices), leader)
        self._prints.clear()
        self._leader()

    # What it leads to

    def _log(self) -> None:
        """One more entry is carried out."""
        self._leader()
        self._carry_out()

    def _carry_out(self) -> None:
        ground = self.home.ground
        before = ground.machine
        ground.applied += 1
        ground.machine = self.log.machine(ground.applied)
        if self.replicated:
            self._replica(node_of(ground.author)).applied = ground.applied
        if ground.applied <= self.done:
            return
        self.done = ground.applied
        memory = self.log.memory(ground.applied)
        for op in self.log.entries[ground.applied - 1].ops:
            self.judge = self.judge.returned(op, self.judge.op(op).value)
        self.judge = self.judge.stored(memory)
        for author, cache in before.caches.known.items():
            now = ground.machine.caches.known.get(author)
            if cache.is_open and (now is None or not now.is_open or now.base != cache.base):
                self.judge = self.judge.lost(author, memory)

    def _post(self, to: str, message: Message, leader: str = "") -> None:
        if isinstance(message, Grant) and not self.replicated:
            message = msgspec.structs.replace(message, index=0)  # which nobody looks at
        if to != HOME or leader == node_of(self.home.ground.author):
            self.bag[to, print_of(message, 0.0)] = to, message

    def _deliver(self, to: str, message: Message) -> None:
        if to != HOME:
            cache = self._member(to).cache
            if message.author != cache.author:  # type: ignore[attr-defined]
                return
            if isinstance(message, Renewed):
                cache.renewed(message)
            else:
                cache.receive(0, message)
            return
        home = self._leader()
        if isinstance(message, Renew):
            directory = home.gate.directory
            offices = [
                office
                for office in message.offices
                if directory is not None
                and office[1] == home.ground.term
                and directory.renews(message.author, office[2])
            ]
            self._post(node_of(message.author), Renewed(0, message.author, message.sent_us, LEASE_MS, offices))
        else:
            self._to_leader(message)

    def _to_leader(self, message: Message) -> None:
        home = self._leader()
        home.open_if(isinstance(message, Join) and message.term == home.ground.term)
        if home.gate.directory is not None:
            home.gate.directory.receive(message)

    def _settle(self) -> None:
        """Everybody does what they can, as in a turn."""
        leader = node_of(self.home.ground.author)
        while True:
            if HOME in self._fresh or self._own:
                self._lead()
            for name in sorted(self._fresh - {HOME}):
                self._collect(name, leader)
            if not self._own:
                return
            message = self._own.popleft()
            if type(message) in TO_LEADERS:
                self._to_leader(message)
            else:
                self._member(leader).cache.receive(0, message)

    def _collect(self, name: str, leader: str) -> None:
        cache = self.members[name].cache
        cache.look()
        plain, cache.plain = cache.plain, []
        for _, number, args in plain:
            self.plain = (*self.plain, number)
            self._leader().asks.append((number, args))
            self._lead()
        mail, cache.mail = cache.mail, []
        office = cache.offices.get(0)
        for _, message in mail:
            assert office is not None
            if office.leader == name == leader and message.term == self.home.ground.term:
                self._own.append(message)
            else:
                self._post(HOME, message, office.leader)
        answers, cache.answers = cache.answers, []
        for number, reply in answers:
            self._answered(cache, number, reply)

    def _answered(self, cache: Controller, number: int, reply: Reply) -> None:
        if isinstance(reply, CommandError):
            self.judge = self.judge.failed(number)
        elif self.judge.op(number).writes:
            self._acknowledged(cache, number)
        else:
            assert reply is None or isinstance(reply, bytes)
            self.judge = self.judge.returned(number, reply)

    def _lead(self) -> None:
        """As `cluster.leadership` does: calls first, then what was kept back, then what is new, then reads."""
        home = self._leader()
        ground, gate = home.ground, home.gate
        home.wait_out_leases()
        home.open_if(bool(ground.machine.caches.known))
        directory = gate.directory
        if directory is not None:
            directory.go_on()
            if directory.calls:
                self._append(Entry(ground.term, tuple(tuple(call) for call in directory.calls)))
                directory.calls = []
            kept = gate.take_entry(ground.last_index + 1)
            if kept is not None:
                self._append_kept(home, kept)
                gate.let_go(ground.last_index)
        if not home.is_too_early:
            self._ask(home)
        ground.count()
        if directory is None:
            return
        if directory.holding:
            for one in gate.take_reads():
                self._see(one.number)
            gate.let_go(ground.last_index)
        mail, directory.mail = directory.mail, []
        for author, message in mail:
            if author == ground.author:
                self._own.append(message)
            else:
                self._post(node_of(author), message)

    def _ask(self, home: Home) -> None:
        """What is new goes through the gate."""
        gate = home.gate
        if home.asks and not gate.is_shut:
            asks, home.asks = home.asks, []
            kept = Kept([batches.nobodys([args for _, args in asks])], None)
            home.kept = [number for number, _ in asks]
            if gate.admits(kept, home.ground.last_index + 1):
                self._append_kept(home, kept)
        looks, home.looks = home.looks, []
        for number in looks:
            read = KeptReads(b"r%d" % number, number, [[b"GET", KEY]], False)
            if gate.directory is None or gate.admits_reads(read):
                self._see(number)

    def _see(self, number: int) -> None:
        value = self.home.ground.machine.keyspace.values.get(KEY)
        assert value is None or isinstance(value, bytes)
        self.judge = self.judge.returned(number, value)

    def _append_kept(self, home: Home, kept: Kept) -> None:
        calls = batches.writes_in(kept.parts[0][2])[0]
        ops, home.kept = tuple(home.kept), []
        self._append(Entry(home.ground.term, tuple(tuple(bytes(arg) for arg in call) for call in calls), ops))

    def _append(self, entry: Entry) -> None:
        ground = self._leader().ground
        self.log = self.log.after(entry)
        ground.last_index = self.log.last_index
        ground.count()
        if self.replicated:
            leader = node_of(ground.author)
            self._replica(leader).log = self.log
            self._snoop(leader, ground.last_index)

    # The rules

    def leased_lines(self) -> Iterator[tuple[Member, Line]]:
        """The lines that clients may use now, or once what is in the log is carried out."""
        for member in self.members.values():
            line = member.cache.lines.get(KEY)
            if line is None:
                continue
            office = line.office
            until_ms = member.seat.sure_until_of(0, office.term) if office.leads else office.until_ms
            if self.now_ms * PACE < until_ms:
                yield member, line

    def check(self) -> None:
        """Never two owners, never a sharer beside one, good lines may be read, and the directory knows of each."""
        leased = list(self.leased_lines())
        self._check_values(leased)
        good = [(member, line.state) for member, line in leased]
        owners = [member for member, state in good if state in (State.EXCLUSIVE, State.MODIFIED)]
        if len(owners) > 1:
            raise Violation("one owner", " and ".join(repr(one.cache.author) for one in owners))
        if owners and len(good) > 1:
            raise Violation("no sharer beside an owner", repr([(one.cache.author, state) for one, state in good]))
        if not self.home.ground.settled:
            return
        directory = self.home.gate.directory
        if directory is not None and directory.counting:
            return
        holders = directory.holders(KEY) if directory is not None else ()
        for member, state in good:
            if member.cache.author not in holders:
                raise Violation("the directory knows", f"{member.cache.author!r} has {state}, and not {holders}")
            if member in owners and directory is not None and not directory.is_owned(KEY):
                raise Violation("the directory knows", f"{member.cache.author!r} owns what is shared")

    def _check_values(self, leased: list[tuple[Member, Line]]) -> None:
        for member in self.members.values():
            member.cache.lines.check()
        for member, line in leased:
            if self.now_ms * PACE < line.end_ms and not may_read(self.judge, line.value):
                raise Violation("good lines may be read", f"{member.cache.author!r} has {line.value!r}: {self.judge}")

    # To the end

    def come_to_rest(self) -> None:
        """All that is under way arrives, all that is logged is carried out, and time passes until nobody waits."""
        self.budget = Budget()
        for _ in range(80):
            self.run_dry()
            if not self.judge_waits:
                break
            self._pass(A_WHILE_MS)
            self._settle()
            self.check()
        if self.judge_waits:
            raise Violation("everybody is answered", f"{self.judge.pending}")
        self._pass(A_WHILE_MS)
        self._settle()
        self.run_dry()
        self._agree()

    @property
    def judge_waits(self) -> bool:
        """Whether a client waits for an answer."""
        return any(not op.name.endswith("?") for op in self.judge.pending)

    def run_dry(self) -> None:
        """All that is under way arrives, and all that is logged is carried out."""
        for _ in range(200):
            choice = next((one for one in self.choices() if one[0] in GOES_ON), None)
            if choice is None:
                return
            self.take(choice)
        raise Violation("rest", f"there is always something on its way: {list(self.bag)}")

    def _agree(self) -> None:
        directory = self.home.gate.directory
        holders = set(directory.holders(KEY)) if directory is not None else set()
        memory = self.home.ground.machine.keyspace.values.get(KEY)
        for member in self.members.values():
            line = member.cache.lines.get(KEY)
            if line is None:
                continue
            if member.cache.author not in holders:
                raise Violation("the directory agrees", f"{member.cache.author!r} has a line, and not {holders}")
            if line.state is not State.MODIFIED and line.value != memory:
                raise Violation("lines agree with memory", f"{line.value!r} in {line.state}, {memory!r} in memory")
        if not self.lossy:
            with_lines = {member.cache.author for member in self.members.values() if len(member.cache.lines)}
            if holders - with_lines:
                raise Violation("the directory agrees", f"{holders} have lines, in fact {with_lines}")


_HAPPENINGS: dict[str, Callable[..., None]] = {
    "comes": SmallWorld._comes,
    "comes twice": SmallWorld._comes_twice,
    "is lost": SmallWorld._is_lost,
    "log": SmallWorld._log,
    "entry": SmallWorld._entry,
    "heard": SmallWorld._heard,
    "applies": SmallWorld._applies,
    "snapshot": SmallWorld._snapshot,
    "read": SmallWorld._read,
    "write": SmallWorld._write,
    "evict": SmallWorld._evict,
    "flush": SmallWorld._flush,
    "learn": SmallWorld._learn,
    "crash": SmallWorld._crash,
    "elect": SmallWorld._elect,
    "plain read": SmallWorld._plain_read,
    "plain write": SmallWorld._plain_write,
    "while": SmallWorld._while,
    "lease": SmallWorld._lease,
    "pause": SmallWorld._pause,
}

_numbers: dict[Hashable, int] = {}


def _short(thing: Hashable) -> int:
    """A number for each print there ever was."""
    return _numbers.setdefault(thing, len(_numbers))
