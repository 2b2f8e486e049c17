"""Clients: what they ask of the nodes, how long they wait, and where they go when their node is gone.

Each kind uses a few keys, which change now and then so that the history of one
key stays short enough to be judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.simulation.models import UNKNOWN, Call
from tests.simulation.sessions import Op, Session
from tests.simulation.world import MS, SECOND, Violation

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.simulation import Simulation

KEY_CALLS = 150
"""After so many calls of one kind its keys change."""

FOR_EVER_MS = b"1000000000"
ANSWER_US_MAX = 7 * SECOND
"""A node that runs answers within this time, and so much more for each part of a queue, whatever else happens."""


class Workload:
    """All clients of a run, and the history of what they saw."""

    def __init__(
        self, simulation: Simulation, *, registers: int = 3, locks: int = 2, others: int = 1, transactions: int = 1
    ) -> None:
        self.simulation = simulation
        self.history: list[Op] = []
        self.pushed: dict[bytes, bytes] = {}  # into which queue each message was
        self.going = True
        self.think_us = simulation.profile.think_ms * MS
        self._calls: dict[str, int] = {}
        self._value = 0
        kinds = [Registers] * registers + [Locks] * locks + [Others] * others + [Transactions] * transactions
        self.clients: list[Client] = [kind(self, f"{kind.__name__[0].lower()}{i}") for i, kind in enumerate(kinds)]

    def start(self) -> None:
        """The clients begin to ask."""
        for client in self.clients:
            client.start()

    def join(self, *clients: Client) -> None:
        """More of them."""
        self.clients += clients

    def stop(self) -> None:
        """Nothing more is asked."""
        self.going = False

    def key(self, kind: str, keys: int, calls_max: int = KEY_CALLS) -> bytes:
        """One of the keys of a kind in use now; after ``calls_max`` calls there are others."""
        calls = self._calls[kind] = self._calls.get(kind, 0) + 1
        return f"{kind}{calls // calls_max}.{self.simulation.world.chance.randrange(keys)}".encode()

    def value(self) -> bytes:
        """A value that was never given before."""
        self._value += 1
        return b"v%d" % self._value

    @property
    def unanswered(self) -> list[Op]:
        """What somebody waits for, unless it waits for a lock or a message."""
        return [op for client in self.clients for op in client.unanswered() if not op.waits]


class Client:
    """One client: with a session at some node, or about to have one. Kinds say what to ask in ``calls``.

    ``leaves`` is how likely it closes its connection when it has all answers.
    """

    leaves = 0.05

    def __init__(self, workload: Workload, name: str) -> None:
        self.workload = workload
        self.simulation = workload.simulation
        self.world = workload.simulation.world
        self.name = name
        self.session: Session | None = None
        self._asking = False
        self._acts_soon = False

    def calls(self) -> Iterator[Call]:
        """What to send next, as one pipeline."""
        raise NotImplementedError

    def learned(self, op: Op) -> None:
        """One of its commands was answered, or never will be."""

    # What happens to it

    def start(self) -> None:
        """Begins to ask, some time soon."""
        self.world.after(self.world.chance.randrange(SECOND), self.act)

    def act(self) -> None:
        """Asks something, unless it waits for what it asked before."""
        if not self.workload.going:
            return
        if self.session is None:
            process = self._choose()
            if process is None:
                self._act_soon()
                return
            self.session = process.connect(self)
        session = self.session
        if self._asking or (session.queue and not self._may_go_on(session)):
            return
        calls = list(self.calls())
        self._asking = True

        def ask() -> None:
            self._asking = False
            for call in calls:
                if not session.closed:
                    session.execute(call)

        session.process.request(ask)
        patience_us = self.world.between_us(SECOND, 12 * SECOND)
        self.world.after(patience_us, lambda: self._lose_patience(session))
        if self.world.happens(0.1):
            self.world.after(self.world.between_us(0, 30 * MS), self.act)

    def _may_go_on(self, session: Session) -> bool:
        """Whether it asks more before it has all answers."""
        return not session.queue[-1].may_wait and self.world.happens(0.3)

    def asked(self, op: Op) -> None:
        """It sent a command."""
        self.workload.history.append(op)
        if op.call[0] in (b"Q.PUSH", b"Q.MPUSH"):
            self.workload.pushed.update(dict.fromkeys(op.call[2:], op.call[1]))
        self.world.note(str(op.session), "asks", op.call)

    def answered(self, op: Op) -> None:
        """It got an answer."""
        if op.void and op.call[0] in (b"SET", b"CACHE.SET") and op.call[2][:1] == b"v":
            self.simulation.watch.refused(op.call[2])
        elif op.void and op.call[0] == b"EXEC":
            self.simulation.watch.refused(op.call[3])
        self.learned(op)
        if not op.session.queue and self.session is op.session:
            if self.world.happens(self.leaves):
                self._leave(op.session)
            self._act_soon()

    def disconnected(self, session: Session) -> None:
        """Its connection is gone, and with it whatever was unanswered."""
        if self.session is session:
            self.session = None
            self._asking = False
            for op in session.queue:
                self.learned(op)
            self._act_soon()

    def unanswered(self) -> list[Op]:
        """What it waits for."""
        return list(self.session.queue) if self.session is not None else []

    def _act_soon(self) -> None:
        if self._acts_soon:
            return
        self._acts_soon = True

        def act() -> None:
            self._acts_soon = False
            self.act()

        self.world.after(self.world.between_us(200, self.workload.think_us), act)

    def _choose(self) -> Process | None:
        up = [process for process in self.simulation.processes.values() if process.up and not process.gone]
        return self.world.chance.choice(up) if up else None

    def _lose_patience(self, session: Session) -> None:
        if session.closed or self.session is not session:
            return
        waited_us = max((overdue_us(op) - op.parts * ANSWER_US_MAX for op in session.owed if not op.waits), default=0)
        if waited_us > ANSWER_US_MAX:
            raise Violation("answered in time", f"{session.queue[0]} is not answered for {waited_us / SECOND:.1f} s")
        if session.queue and self.world.happens(0.3):
            self._leave(session)
            self._act_soon()

    def _leave(self, session: Session) -> None:
        self.world.note(str(session), "leaves")
        self.session = None
        self._asking = False
        session.close()
        session.process.sessions.pop(session.origin, None)
        for op in session.queue:
            self.learned(op)


def overdue_us(op: Op) -> int:
    """How long its node has owed an answer, but for the times it could not move."""
    process = op.session.process
    return process.world.now_us - op.asked_us - (process.excused_us - op.excused_us)


class Registers(Client):
    """Strings and counters."""

    def calls(self) -> Iterator[Call]:
        """A pipeline of a few commands on a few keys."""
        chance = self.world.chance
        for _ in range(1 if chance.random() < 0.6 else chance.randrange(2, 5)):
            draw = chance.random()
            if draw < 0.2:
                key = self.workload.key("c", 2)
                yield (b"INCR", key) if chance.random() < 0.6 else (b"GET", key)
                continue
            if draw < 0.35:
                yield self._fleeting()
                continue
            key = self.workload.key("r", 3)
            if draw < 0.65:
                yield (b"GET", key)
            elif draw < 0.85:
                yield (b"SET", key, self.workload.value())
            elif draw < 0.9:
                yield (b"SET", key, self.workload.value(), b"NX")
            else:
                yield (b"DEL", key)

    def _fleeting(self) -> Call:
        """A command on a key that expires."""
        chance = self.world.chance
        key = self.workload.key("f", 2)
        if chance.random() < 0.6:
            return (b"GET", key)
        if chance.random() < 0.2:
            return (b"DEL", key)
        call: Call = (b"SET", key, self.workload.value(), b"PX", b"%d" % chance.choice((20, 200, 1500)))
        return (*call, b"NX") if chance.random() < 0.4 else call


class Locks(Client):
    """Somebody who takes a lock, perhaps more than once, and gives it back; never two, or there were deadlocks."""

    def __init__(self, workload: Workload, name: str) -> None:
        super().__init__(workload, name)
        self._owners = 0
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Goes on as another owner, who has nothing."""
        self._owners += 1
        self._owner = f"{self.name}.{self._owners}".encode()
        self._held = b""
        self._holds = 0

    def calls(self) -> Iterator[Call]:
        """Acquire when it has none, else release (or once more acquire)."""
        chance = self.world.chance
        if self._holds and chance.random() < 0.8:
            yield (b"LOCK.RELEASE", self._held, self._owner)
            return
        key = self._held if self._holds else self.workload.key("l", 2)
        call: Call = (b"LOCK.ACQUIRE", key, self._owner, b"PX", FOR_EVER_MS)
        if chance.random() < 0.7:
            call = (*call, b"BLOCK", b"%d" % chance.choice((0, 50, 400, 3000)))
        yield call

    def _may_go_on(self, session: Session) -> bool:
        """It must know what it holds."""
        return False

    def learned(self, op: Op) -> None:
        """Whether it has the lock now; when it cannot know, it goes on as somebody else."""
        if op.void:
            return
        if op.output is None and op.call[-2:] == (b"BLOCK", b"0"):
            raise Violation("a wait without limit", f"{op} ended without what it waited for")
        if op.output is UNKNOWN:
            self._begin_anew()
        elif op.call[0] == b"LOCK.RELEASE":
            self._holds -= 1
        elif isinstance(op.output, int):
            self._held = op.call[1]
            self._holds += 1


class Others(Client):
    """Queues, keys that expire, locks that end with their session: not judged as a history, but replicated."""

    def calls(self) -> Iterator[Call]:
        """One command of many kinds."""
        chance = self.world.chance
        queue, key = self.workload.key("q", 2), self.workload.key("x", 4)
        owner = self.name.encode()
        kinds: list[Call] = [
            (b"Q.PUSH", queue, self.workload.value()),
            (b"Q.PUSH", queue, self.workload.value(), b"DELAY", b"%d" % chance.randrange(1, 500)),
            (b"Q.MPUSH", queue, *(self.workload.value() for _ in range(4))),
            (b"Q.POP", queue, b"VISIBILITY", b"%d" % chance.randrange(20, 2000)),
            (b"Q.POP", queue, b"BLOCK", b"%d" % chance.randrange(1, 500), b"VISIBILITY", b"300"),
            (b"SET", key, self.workload.value(), b"PX", b"%d" % chance.randrange(1, 2000)),
            (b"SET", key, b"x" * chance.randrange(3000)),
            (b"PEXPIRE", key, b"%d" % chance.randrange(1, 3000)),
            (b"DEL", key),
            (b"DEL", queue),
            (b"LOCK.ACQUIRE", self.workload.key("s", 2), owner, b"SESSION"),
            (b"LOCK.ACQUIRE", self.workload.key("s", 2), owner, b"PX", b"%d" % chance.randrange(1, 900)),
        ]
        yield chance.choice(kinds)


class Transactions(Client):
    """Replaces what is in a register, if that is still what it watched and saw."""

    def __init__(self, workload: Workload, name: str) -> None:
        super().__init__(workload, name)
        self._watched: tuple[Session, bytes] | None = None
        self._seen: bytes | None = None

    def calls(self) -> Iterator[Call]:
        """Watches and looks, or else replaces."""
        watched, self._watched = self._watched, None
        if watched is not None and watched[0] is self.session and self._seen is not None:
            yield (b"EXEC", watched[1], self._seen, self.workload.value())
            return
        self._seen = None
        key = self.workload.key("r", 3)
        yield (b"WATCH", key)
        yield (b"GET", key)

    def _may_go_on(self, session: Session) -> bool:
        """It must know what is there."""
        return False

    def learned(self, op: Op) -> None:
        """What was there, if it was watched by then."""
        if op.call[0] == b"WATCH":
            self._watched = (op.session, op.call[1]) if op.output == "OK" else None
        elif op.call[0] == b"GET" and not op.void and op.output is not UNKNOWN:
            self._seen = op.output if isinstance(op.output, bytes) else b""
