"""Queues against a slow and plain model of the contract, with checkpoints in the middle of anything.

The model keeps a list of messages and searches it for every question. After
every step its counts, its order and its dead letters must be the queue's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from cluster.machine.keyspace import Checkpoint
from cluster.machine.machine import Commands, Machine
from cluster.machine.queue import Queue
from cluster.machine.reply import NULL_ARRAY, OK, WAITING
from cluster.storage.contract import Row
from resp_server.commands.queues import COMMANDS

HANDLERS = {command.name.encode(): command.run for command in COMMANDS if command.run is not None}
RETRIES = {command.name.encode(): command.retry for command in COMMANDS if command.retry is not None}

KEY = b"q"
START_MS = 1_000_000
VISIBILITY_MS = 400
BACKOFF_MS = (50, 120)
MAXDELIVERIES = 3
DEDUP_MS = 600
CREATE = b"Q.CREATE q VISIBILITY 400 BACKOFF 50 120 MAXDELIVERIES 3 DEDUP 600"


@dataclass
class Letter:
    """A message of the model; ``due_ms`` is None while nothing is to happen to it."""

    number: int
    id: bytes
    payload: bytes
    priority: int
    group: bytes | None
    pushed_ms: int
    expires_ms: int | None
    state: str = "ready"
    due_ms: int | None = None
    deliveries: int = 0
    consumer: bytes = b""


@dataclass
class Wait:
    origin: bytes
    count: int
    deadline_ms: int | None


@dataclass
class Model:
    """The contract, plainly."""

    now_ms: int = START_MS
    letters: list[Letter] = field(default_factory=list)
    dead: list[Letter] = field(default_factory=list)
    seen: dict[bytes, int] = field(default_factory=dict)
    waits: list[Wait] = field(default_factory=list)
    woken: list[tuple[bytes, list[Letter] | None]] = field(default_factory=list)
    numbers: int = 0
    pushed: int = 0
    acked: int = 0
    redelivered: int = 0
    expired: int = 0
    purged: int = 0

    def push(self, message_id: bytes, payload: bytes, **more: Any) -> Letter:
        self.numbers += 1
        delay_ms, px_ms = more.get("delay_ms", 0), more.get("px_ms", 0)
        letter = Letter(
            self.numbers,
            message_id,
            payload,
            more.get("priority", 0),
            more.get("group"),
            self.now_ms,
            self.now_ms + px_ms if px_ms else None,
        )
        if delay_ms:
            letter.state, letter.due_ms = "delayed", self.now_ms + delay_ms
        self.letters.append(letter)
        return letter

    def take(self, consumer: bytes, count: int) -> list[Letter]:
        taken: list[Letter] = []
        while len(taken) < count and (waiting := self.waiting()):
            letter = waiting[0]
            letter.state, letter.due_ms = "in flight", self.now_ms + VISIBILITY_MS
            self.redelivered += letter.deliveries > 0
            letter.deliveries += 1
            letter.consumer = consumer
            taken.append(letter)
        return taken

    def waiting(self) -> list[Letter]:
        heads: dict[bytes, int] = {}
        for letter in self.letters:
            if letter.group is not None:
                heads[letter.group] = min(letter.number, heads.get(letter.group, letter.number))
        ready = [
            letter
            for letter in self.letters
            if letter.state == "ready" and (letter.group is None or heads[letter.group] == letter.number)
        ]
        return sorted(ready, key=lambda letter: (-letter.priority, letter.number))

    def as_if_acknowledged_at_once(self) -> list[Letter]:
        """What Q.PEEK shows: take, remove, take … until nothing can go."""
        kept, shown = self.letters, []
        self.letters = list(kept)
        while waiting := self.waiting():
            shown.append(waiting[0])
            self.letters.remove(waiting[0])
        self.letters = kept
        return shown

    def fail(self, letter: Letter, delay_ms: int | None = None) -> None:
        if letter.deliveries >= MAXDELIVERIES:
            self.bury(letter)
        elif self.is_old(letter):
            self.expire(letter)
        else:
            if delay_ms is None:
                delay_ms = min(BACKOFF_MS[1], BACKOFF_MS[0] * 2 ** (letter.deliveries - 1))
            letter.state, letter.due_ms = ("delayed", self.now_ms + delay_ms) if delay_ms else ("ready", None)

    def bury(self, letter: Letter) -> None:
        self.letters.remove(letter)
        letter.state = "dead"
        self.dead.append(letter)
        self.dead.sort(key=lambda letter: letter.number)

    def is_old(self, letter: Letter) -> bool:
        return letter.expires_ms is not None and letter.expires_ms <= self.now_ms

    def expire(self, letter: Letter) -> None:
        self.letters.remove(letter)
        letter.state = "gone"
        self.expired += 1

    def serve(self) -> None:
        while self.waits and (taken := self.take(self.waits[0].origin, self.waits[0].count)):
            self.woken.append((self.waits.pop(0).origin, taken))

    def tick(self, ms: int) -> None:
        """Everything that falls due, each in its turn, waiters served in between."""
        self.now_ms += ms
        while events := sorted(self.events(), key=lambda event: event[:3]):
            due_ms, kind, _, subject = events[0]
            if due_ms > self.now_ms:
                break
            if isinstance(subject, Wait):
                self.waits.remove(subject)
                self.woken.append((subject.origin, None))
            elif kind == 4 or (subject.state == "delayed" and self.is_old(subject)):
                self.expire(subject)
            elif subject.state == "delayed":
                subject.state, subject.due_ms = "ready", None
            else:
                self.fail(subject)
            self.serve()

    def events(self) -> list[tuple[int, int, Any, Letter | Wait]]:
        events: list[tuple[int, int, Any, Letter | Wait]] = [
            (wait.deadline_ms, 1, wait.origin, wait) for wait in self.waits if wait.deadline_ms is not None
        ]
        for letter in self.letters:
            if letter.due_ms is not None:
                events.append((letter.due_ms, 3, letter.number, letter))
            if letter.expires_ms is not None and letter.state != "in flight":
                events.append((letter.expires_ms, 4, letter.number, letter))
        return events

    def count(self, state: str) -> int:
        return sum(letter.state == state for letter in self.letters)


class Disk:
    """Rows as a storage keeps them, from one checkpoint to the next."""

    def __init__(self) -> None:
        self.rows: dict[tuple[bytes, bytes], Row] = {}
        self.ledger = b""

    def write(self, checkpoint: Checkpoint, ledger: bytes, rows: list[Row]) -> None:
        gone = set(checkpoint.erased)
        kept = {} if checkpoint.cleared else {at: row for at, row in self.rows.items() if at[0] not in gone}
        for row in rows:
            kept[row.key, row.part] = row
        self.rows = {at: row for at, row in kept.items() if row.body is not None}
        self.ledger = ledger

    def machine(self) -> Machine:
        machine = Machine(Commands(HANDLERS, RETRIES))
        machine.restore(self.ledger, [self.rows[at] for at in sorted(self.rows)])
        return machine


def fingerprint(machine: Machine) -> Any:
    """All that must be equal on two replicas."""
    queue = machine.keyspace.values.get(KEY)
    waiters = [(waiter.origin, waiter.args, waiter.deadline_ms) for waiter in machine.waiters.everyone()]
    if queue is None:
        return machine.now_ms, machine.counter, waiters
    assert isinstance(queue, Queue)
    queue.check()
    parts = [(part, queue.part(part)) for part in sorted(queue.parts())]
    return machine.now_ms, machine.counter, waiters, queue.header(), parts, [one.id for one in queue.waiting()]


class QueueLaws(RuleBasedStateMachine):
    """One queue, its model, its log since the last checkpoint began, and its disk."""

    receipts = Bundle("receipts")

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine(Commands(HANDLERS, RETRIES))
        self.model = Model()
        self.given: dict[bytes, tuple[Letter, int]] = {}
        self.finished: set[bytes] = set()  # payloads, each pushed once
        self.disk = Disk()
        self.checkpoint: Checkpoint | None = None
        self.ledger = b""
        self.rows: list[Row] = []
        self.log: list[tuple[int, list[bytes], bytes]] = []
        self.as_it_began: Any = None
        assert self.do(CREATE.split()) is OK

    # Driving both

    def do(self, args: list[bytes], origin: bytes = b"n1.a.1") -> Any:
        """One entry of the log."""
        self.log.append((self.model.now_ms, args, origin))
        return apply(self.machine, self.model.now_ms, args, origin)

    def look(self, line: bytes) -> Any:
        args = line.split()
        return HANDLERS[args[0]](self.machine, args)

    def handed(self, reply: Any, taken: list[Letter]) -> list[bytes]:
        """Checks a Q.POP's messages and remembers their receipts."""
        if not taken:
            assert reply is NULL_ARRAY
            return []
        assert [message[1:] for message in reply] == [[one.payload, one.deliveries, one.id] for one in taken]
        for message, letter in zip(reply, taken, strict=True):
            assert message[0] not in self.given
            assert message[1] not in self.finished
            self.given[message[0]] = (letter, letter.deliveries)
        return [message[0] for message in reply]

    def settle(self) -> None:
        """The waiters of both were served alike."""
        self.model.serve()
        assert [origin for origin, _, _ in self.machine.woken] == [origin for origin, _ in self.model.woken]
        for (_, _, reply), (_, taken) in zip(self.machine.woken, self.model.woken, strict=True):
            self.handed(reply, taken or [])
        self.machine.woken.clear()
        self.model.woken.clear()

    def current(self, receipt: bytes) -> Letter | None:
        letter, deliveries = self.given.get(receipt, (None, 0))
        if letter is None or letter.state != "in flight" or letter.deliveries != deliveries:
            return None
        return letter

    # What clients do

    @rule(
        priority=st.sampled_from([0, 0, 0, 5, 255]),
        group=st.sampled_from([None, None, b"g", b"h"]),
        delay_ms=st.sampled_from([0, 0, 30, 500]),
        px_ms=st.sampled_from([0, 0, 40, 700]),
        given_id=st.sampled_from([None, None, None, b"x", b"y"]),
    )
    def push(self, priority: int, group: bytes | None, delay_ms: int, px_ms: int, given_id: bytes | None) -> None:
        payload = b"p%d" % self.model.numbers
        args = [b"Q.PUSH", KEY, payload, b"PRIORITY", b"%d" % priority, b"DELAY", b"%d" % delay_ms]
        args += [b"GROUP", group] if group is not None else []
        args += [b"PX", b"%d" % px_ms] if px_ms else []
        args += [b"ID", given_id] if given_id is not None else []
        message_id = self.do(args)
        seen_ms = self.model.seen.get(message_id)
        if given_id is None:
            assert seen_ms is None
        else:
            assert message_id == given_id
            if seen_ms is not None and seen_ms + DEDUP_MS > self.model.now_ms:
                return
        self.model.seen[message_id] = self.model.now_ms
        self.model.pushed += 1
        self.model.push(message_id, payload, priority=priority, group=group, delay_ms=delay_ms, px_ms=px_ms)
        self.settle()

    @rule(count=st.integers(1, 4))
    def mpush(self, count: int) -> None:
        payloads = [b"m%d" % (self.model.numbers + place) for place in range(count)]
        for message_id, payload in zip(self.do([b"Q.MPUSH", KEY, *payloads]), payloads, strict=True):
            self.model.pushed += 1
            self.model.push(message_id, payload)
        self.settle()

    @rule(target=receipts, count=st.integers(1, 3), consumer=st.sampled_from([b"n1.a.1", b"me"]))
    def pop(self, count: int, consumer: bytes) -> Any:
        reply = self.do([b"Q.POP", KEY, b"COUNT", b"%d" % count, b"CONSUMER", consumer])
        return self.handed(reply, self.model.take(consumer, count))

    @rule(count=st.integers(1, 2), block_ms=st.sampled_from([0, 200]), session=st.integers(1, 5))
    def pop_waiting(self, count: int, block_ms: int, session: int) -> None:
        origin = b"n1.w.%d" % session
        if any(wait.origin == origin for wait in self.model.waits):
            return
        reply = self.do([b"Q.POP", KEY, b"COUNT", b"%d" % count, b"BLOCK", b"%d" % block_ms], origin)
        taken = self.model.take(origin, count)
        if taken:
            self.handed(reply, taken)
        else:
            assert reply is WAITING
            self.model.waits.append(Wait(origin, count, self.model.now_ms + block_ms if block_ms else None))

    @rule(batch=receipts)
    def ack(self, batch: list[bytes]) -> None:
        letters = [letter for letter in map(self.current, batch) if letter is not None]
        assert self.do([b"Q.ACK", KEY, b"7-7", *batch, *batch]) == len(letters)
        for letter in letters:
            self.model.letters.remove(letter)
            letter.state = "gone"
            self.model.acked += 1
            self.finished.add(letter.payload)
        self.settle()

    @rule(batch=receipts, delay_ms=st.sampled_from([None, 0, 70]), dead=st.booleans())
    def nack(self, batch: list[bytes], delay_ms: int | None, dead: bool) -> None:
        for receipt in batch[:1]:
            letter = self.current(receipt)
            options = [b"DEAD"] if dead else [b"DELAY", b"%d" % delay_ms] if delay_ms is not None else []
            assert self.do([b"Q.NACK", KEY, receipt, *options]) == (letter is not None)
            if letter is not None and dead:
                self.model.bury(letter)
            elif letter is not None:
                self.model.fail(letter, delay_ms)
        self.settle()

    @rule(batch=receipts, visibility_ms=st.integers(1, 900))
    def extend(self, batch: list[bytes], visibility_ms: int) -> None:
        for receipt in batch:
            letter = self.current(receipt)
            assert self.do([b"Q.EXTEND", KEY, receipt, b"%d" % visibility_ms]) == (letter is not None)
            if letter is not None:
                letter.due_ms = self.model.now_ms + visibility_ms

    @rule(batch=consumes(receipts))
    def lose_receipts(self, batch: list[bytes]) -> None:
        """A consumer crashed."""

    @rule(ms=st.sampled_from([1, 30, 50, 100, 399, 400, 1100]))
    def pass_time(self, ms: int) -> None:
        self.model.tick(ms)
        self.do([b"Q.CONFIG", KEY])
        self.settle()

    @rule(count=st.integers(1, 3))
    def redrive(self, count: int) -> None:
        driven = self.model.dead[:count]
        assert self.do([b"Q.REDRIVE", KEY, b"COUNT", b"%d" % count]) == len(driven)
        for letter in driven:
            self.model.dead.remove(letter)
            age_ms = 0 if letter.expires_ms is None else letter.expires_ms - letter.pushed_ms
            self.model.push(letter.id, letter.payload, priority=letter.priority, group=letter.group, px_ms=age_ms)
        self.settle()

    @precondition(lambda self: len(self.model.letters) + len(self.model.dead) > 8)
    @rule(dead_only=st.booleans())
    def purge(self, dead_only: bool) -> None:
        dropped = self.model.dead if dead_only else self.model.letters + self.model.dead
        assert self.do([b"Q.PURGE", KEY, *([b"DEAD"] if dead_only else [])]) == len(dropped)
        for letter in dropped:
            letter.state = "gone"
        self.model.purged += len(dropped)
        self.model.dead = []
        if not dead_only:
            self.model.letters = []
        self.settle()

    # Checkpoints

    @precondition(lambda self: self.checkpoint is None)
    @rule()
    def begin_checkpoint(self) -> None:
        self.as_it_began = fingerprint(self.machine)
        self.checkpoint, self.ledger = self.machine.begin_checkpoint()
        self.rows, self.log = [], []

    @precondition(lambda self: self.checkpoint is not None)
    @rule(limit=st.integers(1, 4))
    def write_some(self, limit: int) -> None:
        assert self.checkpoint is not None
        self.rows += self.checkpoint.slice(limit)

    @precondition(lambda self: self.checkpoint is not None)
    @rule()
    def finish_checkpoint_and_restart(self) -> None:
        assert self.checkpoint is not None
        while rows := self.checkpoint.slice(3):
            self.rows += rows
        self.disk.write(self.checkpoint, self.ledger, self.rows)
        self.machine.keyspace.end_checkpoint(durable=True)
        self.checkpoint = None
        again = self.disk.machine()
        assert fingerprint(again) == self.as_it_began
        for time_ms, args, origin in self.log:
            apply(again, time_ms, args, origin)
        assert fingerprint(again) == fingerprint(self.machine)

    @precondition(lambda self: self.checkpoint is not None)
    @rule()
    def lose_checkpoint(self) -> None:
        self.machine.keyspace.end_checkpoint(durable=False)
        self.checkpoint = None

    # What must hold

    @invariant()
    def the_counts_are_the_models(self) -> None:
        model, info = self.model, self.look(b"Q.INFO q")
        taken = [letter for letter in model.letters if letter.state == "in flight"]
        assert (info[b"ready"], info[b"delayed"], info[b"in-flight"], info[b"dead"]) == (
            model.count("ready"),
            model.count("delayed"),
            len(taken),
            len(model.dead),
        )
        assert (info[b"pushed"], info[b"acked"]) == (model.pushed, model.acked)
        assert (info[b"redelivered"], info[b"expired"]) == (model.redelivered, model.expired)
        assert info[b"consumers"] == len({letter.consumer for letter in taken})
        assert info[b"oldest-ms"] == max((model.now_ms - letter.pushed_ms for letter in model.letters), default=0)
        here = info[b"ready"] + info[b"delayed"] + info[b"in-flight"] + info[b"dead"]
        assert info[b"pushed"] == here + info[b"acked"] + info[b"expired"] + model.purged

    @invariant()
    def the_order_is_the_models(self) -> None:
        shown = [(letter.payload, letter.deliveries, letter.id) for letter in self.model.as_if_acknowledged_at_once()]
        assert [tuple(message[1:]) for message in self.look(b"Q.PEEK q COUNT 1000")] == shown
        dead = [letter.id for letter in self.model.dead]
        assert [message[3] for message in self.look(b"Q.PEEK q COUNT 1000 DEAD")] == dead
        queue = self.machine.keyspace.values[KEY]
        assert isinstance(queue, Queue)
        queue.check()

    def teardown(self) -> None:
        """No alarm outlives what it was set for."""
        for letter in list(self.model.letters):
            if letter.state == "in flight":
                receipt = next(receipt for receipt, given in self.given.items() if given == (letter, letter.deliveries))
                self.do([b"Q.NACK", KEY, receipt, b"DEAD"])
        self.do([b"Q.PURGE", KEY])
        for wait in self.model.waits:
            self.machine.end_session(wait.origin)
        self.machine.begin(self.model.now_ms + 2048)
        assert len(self.machine.clockwork) == 0


def apply(machine: Machine, time_ms: int, args: list[bytes], origin: bytes) -> Any:
    machine.begin(time_ms)
    machine.origin = origin
    return machine.run(HANDLERS[args[0]], args)


TestQueueLaws = QueueLaws.TestCase
TestQueueLaws.settings = settings(
    max_examples=60, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
