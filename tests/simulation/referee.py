"""The rules of locks, watched while what is committed in one shard is carried out once more, command by command.

Every replica carries out the same entries, and groups.py sees to it that all
come to the same state. So it is enough to watch one that has no other work: it
is looked at between any two commands, and compared with what it was before.
The rules are the contract's: who may have what, in which order, and when.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from cluster import batch as batches
from cluster.machine.hold import Issued
from cluster.machine.lock import Lock
from cluster.machine.machine import END_SESSION, Call, Commands, Handler, Machine
from cluster.machine.reply import WAITING, CommandError, Reply
from cluster.machine.semaphore import Semaphore
from cluster.machine.waiters import Waiter
from cluster.ring.slots import ranges
from tests.simulation.lines import judge_waits
from tests.simulation.pictures import NOTHING, Had, Picture, Thing, picture
from tests.simulation.queue_referee import QueueReferee
from tests.simulation.waiting import (
    Graph,
    add_shard,
    asks_alone,
    comes_back,
    has_enough,
    holds,
    owner_in,
    waits_for_locks,
)
from tests.simulation.world import Violation, World

if TYPE_CHECKING:
    from cluster.storage.contract import Entry
    from tests.simulation.standing import Standing

CONCERNS = (b"LOCK.", b"SEM.", b"LATCH.", b"ELECT.", b"_")
CONCERN = (b"FENCE", b"DEL", b"EXEC")
"""Commands that may change what is held or waited for."""

OF_QUEUES = (b"_Q.", b"_LETTER.")
"""Commands between parts of queues, which concern no lock."""

ALARMS = b"an alarm"
"""What ends a hold when no command does."""

Calls: TypeAlias = "dict[tuple[bytes, tuple[Any, ...]], list[Reply]]"


class Past(NamedTuple):
    """The end of a hold: in which call (`ALARMS`: its time was up), when in the world, and if its life was ever set."""

    by: bytes
    at_us: int
    extended: bool


class _Woken(list[Any]):
    """The machine's ends of waits; whoever is failed is looked at when it happens."""

    def __init__(self, failed: Callable[[int, CommandError], None], ended: list[Any]) -> None:
        super().__init__(ended)
        self._failed = failed

    def append(self, ended: tuple[bytes, int, Reply]) -> None:
        super().append(ended)
        if isinstance(ended[2], CommandError) and ended[2].code == "DEADLOCK":
            self._failed(ended[1], ended[2])


class _Tokens(Issued, dict=True):
    """The machine's tokens: each is greater than all before it of the same key. ``by_key`` is no part of its state."""

    def __post_init__(self) -> None:
        self.by_key: dict[bytes, list[int]] = {}

    def issue(self, key: bytes) -> int:
        token = Issued.issue(self, key)
        given = self.by_key.setdefault(key, [])
        if given and token <= given[-1]:
            raise Violation("tokens grow", f"{token} is given of {key!r} after {given[-1]}")
        given.append(token)
        return token


class Referee:
    """Watches the locks of one shard; ``queues`` is the referee of its queues.

    ``answers`` are what calls came to, by session and words; ``pasts`` how the
    holds of a key ended, by key and token; ``issued`` the tokens of a key, and
    ``owners`` who was seen with them; ``ended`` the sessions that are over; ``victims`` counts waits that were failed.
    """

    def __init__(self, world: World, commands: Commands, number: int, shards: int, standing: Standing) -> None:
        self.number = number
        first, last = ranges(shards)[number]
        self.machine = Machine(commands, range(first, last + 1), shards)
        self.machine.issued = tokens = _Tokens()
        self.issued = tokens.by_key
        self.queues = QueueReferee(self.machine, shards)
        self.answers: Calls = {}
        self.pasts: dict[tuple[bytes, int], Past] = {}
        self.owners: dict[tuple[bytes, int], bytes] = {}
        self.ended: dict[bytes, None] = {}
        self.victims = 0
        self._world = world
        self._standing = standing
        self._before = NOTHING
        self._found: Violation | None = None
        self._unseen = False  # something happened since the last picture that may concern locks
        self._call: list[Any] = []
        self._waiting: dict[bytes, tuple[int, tuple[bytes, tuple[Any, ...]]]] = {}
        self._extended: dict[tuple[bytes, bytes], None] = {}
        self._claims: list[tuple[str, bytes]] = []

    def carry_out(self, entry: Entry) -> None:
        """A committed entry, the next one in order."""
        machine = self.machine
        time_ms, parts = batches.parts_in(entry.payload)
        calls = []
        for _, _, body in parts:
            writes, origins = batches.writes_in(body)
            calls += [self.queues.watched(self._watched(args, origins.get(at, b""))) for at, args in enumerate(writes)]
        self.queues.begin(time_ms)
        due_ms = machine.clockwork.next_due_ms(time_ms)
        self._call = [ALARMS]
        self._unseen = due_ms is not None and due_ms <= time_ms
        machine.woken = _Woken(self._failed, [])
        machine.apply(time_ms, calls)
        if self._found is not None:
            raise self._found
        self.queues.end(machine.woken)
        self._look()
        for origin, number, reply in machine.woken:
            self._ends(origin, number, reply)
        machine.woken = []
        for text, victim in self._claims:
            self._standing.judge_cycle(text, victim)
        self._claims.clear()

    def _watched(self, args: list[Any], origin: bytes) -> Call:
        """A call that is looked at when it is carried out."""
        handler = self.machine.handler(args[0])
        name = args[0]
        if name.startswith(OF_QUEUES) or not (name.startswith(CONCERNS) or name in CONCERN):
            return handler, args, origin

        def run(machine: Machine, args: list[Any]) -> Reply:
            try:
                return self._carry_out(handler, args, origin)
            except Violation as found:  # the machine takes any error for a bug of its own, and goes on
                self._found = self._found or found
                raise

        return run, args, origin

    def _carry_out(self, handler: Handler, args: list[Any], origin: bytes) -> Reply:
        machine = self.machine
        self._look()
        self._call, self._unseen = args, True
        if type(machine.woken) is not _Woken:
            machine.woken = _Woken(self._failed, machine.woken)
        try:
            reply = handler(machine, args)
        except CommandError as error:
            if error.code == "DEADLOCK":
                self._refused(origin, args)
            self._answered(origin, args, error)
            raise
        if reply is WAITING:
            self._waiting[origin] = (machine.waiters.begun, (origin, tuple(args)))
        else:
            self._answered(origin, args, reply)
        return reply

    # What calls came to

    def _answered(self, origin: bytes, args: list[Any], reply: Reply) -> None:
        name = args[0]
        if name == b"FENCE":
            self._judge_fence(args, reply)
        elif name == END_SESSION:
            self.ended[args[1]] = None
            self._standing.ends(args[1], self._before, self.number)
        if name != b"EXEC" and name[:1] != b"_":
            self.answers.setdefault((origin, tuple(args)), []).append(reply)

    def _ends(self, origin: bytes, number: int, reply: Reply) -> None:
        known = self._waiting.get(origin)
        if known is not None and known[0] == number:
            del self._waiting[origin]
            self.answers.setdefault(known[1], []).append(reply)

    def _judge_fence(self, args: list[Any], reply: Reply) -> None:
        """FENCE writes while the token is a holder's, and then only."""
        thing = self._before.things.get(args[1])
        held = thing is not None and any(had.token == int(args[2]) for had in thing.by.values())
        fenced = isinstance(reply, CommandError) and reply.code == "FENCED"
        if fenced is held:
            raise Violation("fenced", f"{args} got {reply!r}, and the lock was {thing}")

    # Deadlocks

    def _refused(self, origin: bytes, args: list[bytes]) -> None:
        """A wait was refused: it would have closed a cycle."""
        machine = self.machine
        owner = owner_in(args)
        keys = args[2 : 2 + int(args[1])] if args[0] == b"LOCK.MACQUIRE" else [args[1]]
        keys = list(dict.fromkeys(keys))
        alone, values = asks_alone(args), machine.keyspace.values
        upgrades = [key for key in keys if holds(machine, key, owner)]
        urgent = [key for key in upgrades if not has_enough(values[key], owner, alone=alone)]
        wait = Waiter(origin, machine.waiters.begun, Lock.kind, keys, args, machine.now_ms, None, False, urgent)
        self._judge_victim(wait)

    def _failed(self, number: int, error: CommandError) -> None:
        """Somebody who waited is failed."""
        wait = self._before.waits.get(number)
        if wait is None:
            raise Violation("a victim waits", f"{error} for wait {number} of shard {self.number}, which nobody waited")
        if self._call[0].startswith(b"_") and not self._call[0].startswith(b"_SESSION"):
            self.victims += 1
            self._claims.append((error.message, owner_in(wait.args)))
            return
        self._judge_victim(wait)

    def _judge_victim(self, victim: Waiter) -> None:
        self.victims += 1
        graph: Graph = {}
        waits = [*waits_for_locks(self.machine), victim]
        add_shard(graph, self.number, self.machine, waits)
        node = (self.number, victim.number)
        if not comes_back(graph, node):
            raise Violation("no victim without a cycle", f"{victim} in {graph}")
        graph = {}
        add_shard(graph, self.number, self.machine, [wait for wait in waits if wait.number <= victim.number])
        if not comes_back(graph, node):
            raise Violation("the last to wait is the victim", f"{victim} in {graph}")

    # Between two commands

    def _look(self) -> None:
        if not self._unseen:
            return
        self._unseen = False
        before, now = self._before, picture(self.machine)
        self._before = now
        for key in dict.fromkeys((*before.things, *now.things)):
            if before.things.get(key) != now.things.get(key):
                self._judge_change(key, before, now)
        self._standing.changed(self.number, before, now)
        judge_waits(self.number, self.machine, now)
        self._judge_dead(before, now)

    def _judge_change(self, key: bytes, before: Picture, now: Picture) -> None:
        """What is held at a key changed: who has it, and came in its turn."""
        one, other = before.things.get(key), now.things.get(key)
        earlier = {} if one is None else one.by
        later = {} if other is None else other.by
        for owner, had in earlier.items():
            have = later.get(owner)
            if have is None or (have.token != had.token and not _upgraded(one, other)):
                self._judge_end(key, owner, had)
            elif have.ends_ms != had.ends_ms and self._call[0] == b"LOCK.EXTEND":
                self._extended[key, owner] = None
        if other is None:
            return
        if other.kind == Semaphore.kind:
            self._judge_places(key, one, other)
        elif other.kind == Lock.kind and other.alone and len(later) > 1:
            raise Violation("one holder", f"{key!r} is held alone by {other}")
        for owner, have in sorted(later.items(), key=lambda item: item[1].token):
            self._judge_grant(key, owner, earlier.get(owner), have, before, now)

    def _judge_grant(self, key: bytes, owner: bytes, had: Had | None, have: Had, before: Picture, now: Picture) -> None:
        """An owner has this at a key, and had that: what is new was its turn, and has a token as great as none yet."""
        kind = now.things[key].kind
        if had is not None and had.token == have.token:
            if kind == Semaphore.kind and have.holds > had.holds:
                self._judge_turn(key, owner, kind, before, now)
            return
        if self.owners.setdefault((key, have.token), owner) != owner:
            raise Violation("tokens grow", f"{owner!r} got {have.token} of {key!r}, and so did another")
        if had is None:
            self._extended.pop((key, owner), None)
            self._judge_turn(key, owner, kind, before, now)

    def _judge_end(self, key: bytes, owner: bytes, had: Had) -> None:
        """A hold is over: by its time not before that, by its session not for another one's end."""
        call = self._call
        if call[0] == ALARMS and (had.ends_ms is None or had.ends_ms > self.machine.log_ms):
            raise Violation("a hold lives", f"{had} of {owner!r} at {key!r} ended at {self.machine.log_ms}")
        if call[0] == END_SESSION and had.origin != call[1] and (had.ends_ms or 0) > self.machine.log_ms:
            raise Violation("a hold lives", f"{had} of {owner!r} at {key!r} ended with {call}")
        self.pasts[key, had.token] = Past(call[0], self._world.now_us, (key, owner) in self._extended)

    def _judge_turn(self, key: bytes, owner: bytes, kind: bytes, before: Picture, now: Picture) -> None:
        """Somebody was given something who did not have it: nobody who came before goes on waiting."""
        line = [wait for wait in before.waits.values() if wait.kind == kind and key in wait.keys]
        own = [before.places[wait.number, key] for wait in line if owner_in(wait.args) == owner]
        own = [at for at in own if at[1] not in now.waits]
        turn = min(own, default=(True, self.machine.waiters.begun + 1))
        for wait in line:
            if wait.number not in now.waits or owner_in(wait.args) == owner:
                continue
            # An upgrade whose hold ends in this very entry stands where it stands from then on.
            if max(before.places[wait.number, key], now.places[wait.number, key]) < turn:
                raise Violation("first come, first served", f"{owner!r} got {key!r} before {wait}")

    def _judge_places(self, key: bytes, one: Thing | None, other: Thing) -> None:
        used = sum(had.holds for had in other.by.values())
        value = self.machine.keyspace.values[key]
        assert type(value) is Semaphore
        if value.used != used:
            raise Violation("places are counted", f"{key!r} has {value.used} in use, {other}")
        former = 0 if one is None or one.kind != other.kind else sum(had.holds for had in one.by.values())
        if used > max(former, other.places):
            raise Violation("places are limited", f"{key!r} went from {one} to {other}")

    def _judge_dead(self, before: Picture, now: Picture) -> None:
        """Nothing is given to a session that is over, and it does not wait."""
        for wait in now.waits.values():
            if wait.origin in self.ended:
                raise Violation("nothing for the dead", f"{wait} goes on, and its session is over")
        for key, thing in now.things.items():
            if thing is before.things.get(key):
                continue
            for owner, had in thing.by.items():
                if had.origin and had.origin in self.ended:
                    raise Violation("nothing for the dead", f"{owner!r} has {had} of {key!r}, its session is over")


def _upgraded(one: Thing | None, other: Thing | None) -> bool:
    """Whether a lock that was shared is held alone."""
    return one is not None and other is not None and one.kind == Lock.kind and other.alone and not one.alone
