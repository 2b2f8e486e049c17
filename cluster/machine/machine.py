"""The replicated state of one shard, and the only way to change it.

A log entry is a time and the write commands of one turn. `apply` moves the
clock to that time, rings whatever fell due, and executes one command after
another. Every replica does this with the same entries and so arrives at the
same state, the same replies and the same wake-ups. Nothing here reads a clock,
rolls a die or iterates a set.

A command is carried out by its *handler*, ``handler(machine, args)``, which
returns a reply or raises `CommandError` with nothing changed. A handler that
cannot answer yet calls `wait` and returns `WAITING`; when a key it waits for
is `signal`-led, the command's *retry* is tried. Handlers are given from
outside by name, so the command table stays the one list of commands.

Reads run on the leader by `peek`, between entries or in their place in one,
and leave no trace.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from cluster.machine import (
    caches,
    hold_lives,
    letters,
    loading,
    lock_deadlocks,
    locks,
    queue_lives,
    queue_parts,
    queues,
)
from cluster.machine.caches import Caches
from cluster.machine.clockwork import Alarm, Clockwork
from cluster.machine.elections import Election
from cluster.machine.hold import Holding, Issued
from cluster.machine.keyspace import EXPIRY, STRING, Checkpoint, Keyspace, Value
from cluster.machine.latches import Latch
from cluster.machine.letters import Letter
from cluster.machine.loading import Loader
from cluster.machine.lock import Lock
from cluster.machine.lock_deadlocks import Broken
from cluster.machine.lock_waits import LockWaits
from cluster.machine.queue_parts import Dropped
from cluster.machine.reply import NULL_ARRAY, WAITING, CommandError, Reply
from cluster.machine.semaphore import Semaphore
from cluster.machine.sessions import Session, Sessions
from cluster.machine.slots import SLOTS, slot_of
from cluster.machine.waiters import WAIT, Waiter, Waiters
from cluster.storage.contract import Row

Handler: TypeAlias = "Callable[[Machine, list[bytes]], Reply]"
Call: TypeAlias = "tuple[Handler, list[bytes], bytes]"
"""One command of an entry: its handler, its arguments, and the session it came from (empty: none that matters)."""
Retry: TypeAlias = "Callable[[Machine, Waiter], Reply]"
Woken: TypeAlias = "tuple[bytes, int, Reply]"
"""A wait that ended: whose, which (`Waiter.number`), and with what reply."""

ALARMS_PER_ENTRY = 1000
"""How many alarms one entry rings; more that are due at once are left to the next."""

END_SESSION = b"_SESSION.END"
END_SESSIONS = b"_SESSION.ENDALL"
UNBLOCK = b"_SESSION.UNBLOCK"

_log = logging.getLogger("sepakat.machine")


@dataclass(frozen=True, slots=True)
class Commands:
    """What the machine can carry out: a handler for every command, a retry for those that wait."""

    handlers: Mapping[bytes, Handler]
    retries: Mapping[bytes, Retry]


class Ledger(msgspec.Struct, array_like=True):
    """The machine's own small state, saved with every checkpoint; ``waits`` is how many have begun in all."""

    now_ms: int
    counter: int
    waiters: list[Waiter]
    sessions: dict[bytes, Session]
    issued: Issued
    waits: int = 0
    deadlocks: Broken = msgspec.field(default_factory=Broken)
    letters: dict[int, Letter] = {}
    dropped: dict[bytes, Dropped] = {}
    caches: Caches = msgspec.field(default_factory=Caches)
    loaders: dict[bytes, Loader] = {}


class Machine:
    """One shard's state.

    ``log_ms`` is the time of the last entry. ``now_ms`` is what handlers go by:
    the same while an entry is applied, the node's own clock for reads between
    entries. ``origin`` names the session being served. ``behind`` says that
    something is due that has not rung, so that keys and locks outlive their end
    unseen: commands of the log end those they name, reads do not see them.
    ``slots`` are those whose keys are in this shard, one of ``shards``; ``letters``
    what is for others. ``foreign`` are keys of other shards' slots: parts of queues
    (`cluster.machine.queue_parts`), which nobody sees by their keys; ``in_part``
    while a command is carried out for such a part; ``dropped`` are queues whose parts
    are gone from here. ``nodes`` is how many have the shard. ``dlqs`` are the keys that any queue's dead letters
    may have gone to since this replica was made, which is no part of the state.
    """

    def __init__(self, commands: Commands, slots: range = range(SLOTS), shards: int = 1) -> None:
        self.commands = commands
        self.slots = slots
        self.shards = shards
        self.letters: dict[int, Letter] = {}
        self.dropped: dict[bytes, Dropped] = {}
        self.foreign: dict[bytes, None] = {}
        self.dlqs: dict[bytes, None] = {}
        self.caches = Caches()
        self.loaders: dict[bytes, Loader] = {}
        self.in_part = False
        self.nodes = 1
        self.clockwork = Clockwork()
        self.keyspace = Keyspace(self.clockwork)
        self.waiters = Waiters(self.clockwork)
        self.sessions = Sessions()
        self.issued = Issued()
        self.lock_waits = LockWaits(self.waiters)
        self.deadlocks = Broken()
        self.log_ms = 0
        self.now_ms = 0
        self.counter = 0
        self.origin = b""
        self.may_wait = True
        self.behind = False
        self.woken: list[Woken] = []
        self._ready: dict[bytes, None] = {}
        self._internal: dict[bytes, Handler] = {
            END_SESSION: _end_session,
            END_SESSIONS: _end_sessions,
            UNBLOCK: _unblock,
            lock_deadlocks.STANDING: lock_deadlocks.is_standing,
            lock_deadlocks.FAIL: lock_deadlocks.fail,
            letters.DELIVERED: letters.delivered,
            letters.REFUSED: letters.refused,
            queue_parts.CALL: queue_parts.call,
            queue_parts.DROP: queue_parts.drop,
            queue_parts.UNTAKE: queue_parts.untake,
            queue_lives.ARRIVE: queue_lives.arrive,
            queue_lives.COME_BACK: queue_lives.come_back,
            **caches.HANDLERS,
        }

    # Carrying out

    def pass_time(self, now_ms: int) -> bool:
        """Between entries: reads go by ``now_ms`` from now on; whether something is due, so that an entry must come."""
        self.now_ms = max(self.log_ms, now_ms)
        next_ms = self.clockwork.next_due_ms(self.now_ms)
        self.behind = next_ms is not None and next_ms <= self.now_ms
        return self.behind

    def pass_time_until_due(self, now_ms: int) -> None:
        """As `pass_time`, for reads that were asked before: time stands still right before what is due.

        That has not happened yet, and would be seen as over by this node alone.
        """
        if self.pass_time(now_ms):
            next_ms = self.clockwork.next_due_ms(self.now_ms)
            if next_ms is not None and next_ms > self.log_ms:
                self.pass_time(next_ms - 1)

    def begin(self, time_ms: int) -> None:
        """Moves the clock to an entry's time (never back) and rings what is due, at most `ALARMS_PER_ENTRY`."""
        self.now_ms = self.log_ms = max(self.log_ms, time_ms)
        self.origin = b""
        for _ in range(ALARMS_PER_ENTRY):
            rung = self.clockwork.ring(self.now_ms)
            if rung is None:
                self.behind = False
                break
            due_ms, alarm = rung
            _RINGS[alarm.kind](self, alarm, due_ms)
            self.settle()
        else:
            self.behind = True

    def apply(self, time_ms: int, calls: Iterable[Call]) -> list[Reply]:
        """Carries out one entry: moves the clock to its time, then one call after another; their replies."""
        self.begin(time_ms)
        keyspace = self.keyspace
        replies: list[Reply] = []
        for handler, args, origin in calls:
            self.origin = origin
            if self.behind:
                self._expire_named(args)
            try:
                reply = handler(self, args)
            except CommandError as error:
                reply = error
            except Exception:  # noqa: BLE001 - see `bug`
                reply = bug(args)
            replies.append(reply)
            if self._ready or keyspace.vacated or keyspace.touched:
                self.settle()
        return replies

    def run(self, handler: Handler, args: list[bytes]) -> Reply:
        """Carries out one command and whatever it sets free; its reply, or the error it ended with."""
        reply = self.step(handler, args)
        self.settle()
        return reply

    def step(self, handler: Handler, args: list[bytes]) -> Reply:
        """Carries out one command of several: what it sets free is followed up by `run` after the last."""
        if self.behind:
            self._expire_named(args)
        return self._attempt(handler, args)

    def peek(self, handler: Handler, args: list[bytes]) -> Reply:
        """Carries out a command that is not logged; while `behind`, overdue keys it names are hidden from it.

        Nothing ends by being looked at: other replicas do not know that it was.
        """
        if not self.behind:
            return self._attempt(handler, args)
        hidden = self.keyspace.hide([arg for arg in args if self.overdue(arg)])
        try:
            return self._attempt(handler, args)
        finally:
            self.keyspace.show(hidden)

    def _attempt(self, handler: Handler, args: list[bytes]) -> Reply:
        try:
            return handler(self, args)
        except CommandError as error:
            return error
        except Exception:  # noqa: BLE001 - see `bug`
            return bug(args)

    def overdue(self, key: bytes) -> bool:
        """Whether ``key`` is there only because an alarm has not rung: its own, or that of its last hold."""
        deadline_ms = self.keyspace.deadlines.get(key)
        if deadline_ms is not None and deadline_ms <= self.now_ms:
            return True
        value = self.keyspace.values.get(key)
        return isinstance(value, Holding) and not value.living(self.now_ms)

    def handler(self, name: bytes) -> Handler:
        """The handler of a command in the log, by its name in any case."""
        handlers = self.commands.handlers
        found = handlers.get(name)
        if found is not None:  # as nearly always
            return found
        found = handlers.get(name.upper()) or self._internal.get(name)
        if found is None:
            raise LookupError(f"the log holds a command this version does not know: {name!r}")
        return found

    # What handlers call

    def may_come(self, key: bytes) -> bool:
        """Whether a key that is not there may come to be by an entry that does not name it.

        Dead letters make the queue that they go to, and who waits for several locks at once gets
        those that are free together with the last one.
        """
        return key in self.dlqs or Lock.kind in self.waiters.kinds(key)

    def holds(self, key: bytes) -> bool:
        """Whether the key is one of this shard."""
        return len(self.slots) == SLOTS or slot_of(key) in self.slots

    def next_id(self) -> int:
        """A number that was never given before in this shard."""
        self.counter += 1
        return self.counter

    def wait(
        self,
        kind: bytes,
        keys: Iterable[bytes],
        args: list[bytes],
        block_ms: int,
        *,
        null_array: bool = False,
        urgent: Sequence[bytes] = (),
    ) -> Reply:
        """Makes the session wait for a value of ``kind`` at ``keys``, for ever when ``block_ms`` is 0.

        Where waiting is not possible (inside EXEC, or nobody to answer) the
        reply is the null that the end of the wait would bring. A wait of the same
        session that is still there ends unseen: who asks again was told that its
        outcome is not known.
        """
        if not self.may_wait or not self.origin:
            return NULL_ARRAY if null_array else None
        former = self.waiters.of(self.origin)
        if former is not None:
            self.end_wait(former)
        if self.woken:  # the end of such a wait is not the end of this one
            self.woken = [woken for woken in self.woken if woken[0] != self.origin]
        deadline_ms = self.now_ms + block_ms if block_ms else None
        number = self.waiters.next_number()
        self.waiters.add(
            Waiter(self.origin, number, kind, list(keys), args, self.now_ms, deadline_ms, null_array, list(urgent))
        )
        return WAITING

    def end_wait(self, waiter: Waiter) -> None:
        """The wait is over without being served; whoever stood behind it may be served now."""
        self.waiters.remove(waiter)
        for key in waiter.keys:
            self.signal(key)

    def signal(self, key: bytes) -> None:
        """Those who wait for ``key`` may be served now."""
        self._ready[key] = None

    def place(self, key: bytes) -> None:
        """The value at ``key`` came there ready-made, by RENAME or COPY: its alarms and waiters must follow."""
        value = self.keyspace.values.get(key)
        if isinstance(value, queues.Queue):
            queues.placed(self, key)

    def settle(self) -> None:
        """Follows up a change: watched keys, values that went away, waiters that can be served."""
        keyspace = self.keyspace
        for key in keyspace.touched:
            self.sessions.changed(key)
            if key in self.loaders:
                loading.end(self, key)  # what is being loaded may be older than this
        keyspace.touched.clear()
        while self._ready or keyspace.vacated:
            for key, value in keyspace.vacated:
                _VACATED[value.kind](self, key, value)
                self._ready[key] = None
            keyspace.vacated.clear()
            key = next(iter(self._ready))
            del self._ready[key]
            self._serve(key)

    def _serve(self, key: bytes) -> None:
        kinds = self.waiters.kinds(key)
        if not kinds:  # as for most
            return
        origin = self.origin
        for kind in kinds:
            while (waiter := self.waiters.first(key, kind)) is not None:
                self.origin = waiter.origin
                try:
                    reply = self.commands.retries[waiter.args[0].upper()](self, waiter)
                except CommandError as error:
                    reply = error
                if reply is WAITING:
                    break
                self.waiters.remove(waiter)
                for other in waiter.keys:
                    if other != key:
                        self.signal(other)  # whoever stood behind it there may be served
                self.woken.append((waiter.origin, waiter.number, reply))
        self.origin = origin

    def _expire_named(self, args: list[bytes]) -> None:
        """Ends every overdue key or lock the command might mean: an argument that is one is overdue anyway."""
        for arg in args:
            if type(arg) is bytes:
                deadline_ms = self.keyspace.deadlines.get(arg)
                if deadline_ms is not None and deadline_ms <= self.now_ms:
                    self.keyspace.remove(arg)
                hold_lives.expire_overdue(self, arg)
        self.settle()

    # Sessions

    def origins(self) -> list[bytes]:
        """Every session that has something here that ends with it."""
        waiting = (waiter.origin for waiter in self.waiters.everyone())
        return list(dict.fromkeys([*self.sessions.origins(), *waiting]))

    def end_session(self, origin: bytes) -> None:
        """The session is over: its wait, its watches and what it holds with SESSION end."""
        waiter = self.waiters.of(origin)
        if waiter is not None:
            self.end_wait(waiter)
        session = self.sessions.get(origin)
        if session is not None:
            self.unwatch(origin)
            for key in list(session.held):
                hold_lives.drop(self, key, origin)
            for key in list(session.loading):
                loading.end(self, key)
            self.sessions.close(origin)

    def watch(self, key: bytes) -> None:
        """The session being served watches ``key``."""
        if self.sessions.watch(self.origin, key):
            self.keyspace.watch(key)

    def unwatch(self, origin: bytes) -> None:
        """The session watches nothing any more."""
        for key in self.sessions.unwatch(origin):
            self.keyspace.unwatch(key)

    # Checkpoints

    def begin_checkpoint(self) -> tuple[Checkpoint, bytes]:
        """The keyspace's changes to write, and the ledger, both as of now."""
        waiters = self.waiters
        ledger = Ledger(
            self.log_ms,
            self.counter,
            waiters.everyone(),
            self.sessions.snapshot(),
            self.issued,
            waiters.begun,
            self.deadlocks,
            self.letters,
            self.dropped,
            self.caches,
            self.loaders,
        )
        return self.keyspace.begin_checkpoint(), msgspec.msgpack.encode(ledger)

    def restore(self, ledger: bytes, rows: Iterable[Row]) -> None:
        """The state of a finished checkpoint, into a new machine."""
        if ledger:
            known = msgspec.msgpack.decode(ledger, type=Ledger)
            self.now_ms = self.log_ms = known.now_ms
            self.counter, self.issued, self.deadlocks = known.counter, known.issued, known.deadlocks
            self.waiters.begun = known.waits
            self.letters, self.dropped = known.letters, known.dropped
            self.caches = known.caches
            loading.restore(self, known.loaders)
            for waiter in known.waiters:
                self.waiters.add(waiter)
            for key in self.sessions.restore(known.sessions):
                self.keyspace.watch(key)
        self.restore_rows(rows)

    def restore_rows(self, rows: Iterable[Row]) -> None:
        """More rows of a finished checkpoint, in its order."""
        restore = self.keyspace.restore
        for key, part, kind, deadline_ms, body in rows:
            if body is None:
                continue
            if kind == STRING:
                restore(key, body, deadline_ms)
            elif kind in _ROWS:
                type_, restored = _ROWS[kind]
                value = msgspec.msgpack.decode(body, type=type_)
                restored(self, key, value)
                restore(key, value, deadline_ms)
            elif part:
                queues.restore_part(self, key, part, body)
            else:
                restore(key, queues.restore(self, key, body), deadline_ms)


def in_place(handler: Handler, args: list[bytes]) -> tuple[Handler, list[bytes]]:
    """A command that is not logged as a call among those that are: it names nothing that would end before it."""
    return lambda machine, _: machine.peek(handler, args), []


def bug(args: list[bytes]) -> CommandError:
    """Reports the exception being handled, which no command may raise, and the reply for it.

    Every replica hits the same bug at the same entry, so it must not stop them all.
    """
    _log.exception("a command failed by a bug", {"command": args[0].decode("utf-8", "backslashreplace")})
    return CommandError("internal error, see the server's log")


def _expired(machine: Machine, alarm: Alarm, due_ms: int) -> None:
    machine.keyspace.expire(alarm.key, due_ms)


def _wait_over(machine: Machine, alarm: Alarm, due_ms: int) -> None:
    waiter = machine.waiters.of(alarm.detail)
    if waiter is not None and waiter.deadline_ms == due_ms:
        machine.end_wait(waiter)
        machine.woken.append((waiter.origin, waiter.number, NULL_ARRAY if waiter.null_array else None))


def _end_session(machine: Machine, args: list[bytes]) -> Reply:
    machine.end_session(args[1])
    return None


def _end_sessions(machine: Machine, args: list[bytes]) -> Reply:
    """Every session whose origin begins with ``args[1]`` (a node) is over, but those that begin with ``args[2]``."""
    for origin in machine.origins():
        if origin.startswith(args[1]) and not origin.startswith(args[2]):
            machine.end_session(origin)
    return None


def _unblock(machine: Machine, args: list[bytes]) -> Reply:
    """Ends a session's wait as its deadline would, or with an error when ``args[2]`` is ``ERROR``.

    Where ``args[3]`` is there, only the wait of that number.
    """
    waiter = machine.waiters.of(args[1])
    if waiter is None or (len(args) > 3 and waiter.number != int(args[3])):
        return 0
    machine.end_wait(waiter)
    error = CommandError("client unblocked via CLIENT UNBLOCK", "UNBLOCKED")
    null: Reply = NULL_ARRAY if waiter.null_array else None
    machine.woken.append((waiter.origin, waiter.number, error if args[2] == b"ERROR" else null))
    return 1


_RINGS: dict[int, Callable[[Machine, Alarm, int], None]] = {
    EXPIRY: _expired,
    WAIT: _wait_over,
    **hold_lives.RINGS,
    **queues.RINGS,
    **loading.RINGS,
}


def _nothing(machine: Machine, key: bytes, value: Value) -> None:
    """A value without alarms comes and goes."""


_VACATED: dict[bytes, Callable[[Machine, bytes, Any], None]] = {
    Lock.kind: locks.forget,
    Semaphore.kind: hold_lives.forget,
    Election.kind: hold_lives.forget,
    Latch.kind: _nothing,
    queues.Queue.kind: queues.forget,
}
"""What becomes of a value's alarms when the value went away."""

_ROWS: dict[bytes, tuple[type[Value], Callable[[Machine, bytes, Any], None]]] = {
    Lock.kind: (Lock, locks.restored),
    Semaphore.kind: (Semaphore, hold_lives.set_alarms),
    Election.kind: (Election, hold_lives.set_alarms),
    Latch.kind: (Latch, _nothing),
}
"""What a value without parts is in a checkpoint's row, and what it needs to be complete again."""
