"""Clients' connections as a node's process sees them: what was asked on each, in order, and what was answered.

This is resp_server/dispatch.py's part: what is read at once, what takes its
place in the log of its shard, what is refused while the disk takes nothing, what
goes to several shards, as to the parts of a queue (resp_server/partitions.py), what
goes through the node's cache, and holds up all behind it, and that answers of
several shards come in the order in which they were asked for.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

from cluster.clients import no_leader
from cluster.machine import transactions
from cluster.machine.queue_parts import Shape
from cluster.machine.reply import WAITING, CommandError, Reply, Status
from cluster.ring.slots import slot_of
from cluster.shard import Shard
from resp_server.commands.cache import ANSWERED_FROM_LINES
from resp_server.commands.command import PLAINLY
from resp_server.commands.spreading import Shares
from resp_server.commands.table import Route, Table
from resp_server.partitions import Awaiting, News
from resp_server.places import Finish, Gather, Place, Share, merged
from tests.simulation.models import UNKNOWN, Call, Operation, Output, Unknown
from tests.simulation.world import Violation

if TYPE_CHECKING:
    from tests.simulation.clients import Client
    from tests.simulation.process import Process

_ROUTES = {route.command.name.encode(): route for route in Table()}

READS = frozenset(name for name, route in _ROUTES.items() if "readonly" in route.command.flags and not route.logged)
SESSION_COMMANDS = frozenset({b"EXEC", *(name for name, route in _ROUTES.items() if route.of_session)})
"""Their place in the log names the session, because they may wait, or leave something of it there."""

KEY_AT = {b"LOCK.MACQUIRE": 2}
"""Where the first key stands, if it is not the second word."""

WALKS = frozenset({b"Q.POP", b"Q.REDRIVE"})
"""What asks the parts of a queue one after the other."""

LOADS = b"CACHE.FETCH"
"""It waits as a pop with BLOCK does, and answers with a pair: the value, or a token."""

NEVER_HAPPENED = frozenset({"CLUSTERDOWN", "MISCONF"})
"""Errors that promise it."""

Seen: TypeAlias = "Output | Unknown"


def key_of(call: Call) -> bytes:
    """The key that says in which shard a call belongs; nothing where it has none."""
    return call[KEY_AT.get(call[0], 1)] if len(call) > 1 else b""


class Op:
    """One command of one client, from when it was sent until it is answered.

    ``void``: the answer promised that it never happened. ``reply`` is what a shard answered; it is `WAITING` as long
    as none did, or as the command waits. ``parts`` is how many parts of a queue may be asked for it one after the
    other, 0 where only one shard, that of the key, is.
    """

    __slots__ = (
        "answered",
        "asked_us",
        "call",
        "done",
        "excused_us",
        "invoked",
        "output",
        "parts",
        "reply",
        "returned",
        "session",
        "shard",
        "void",
        "waits_in_shard",
    )

    def __init__(self, session: Session, call: Call, shard: int, invoked: int, asked_us: int, excused_us: int) -> None:
        self.session = session
        self.call = call
        self.shard = shard
        self.reply: Any = WAITING
        self.answered = False
        self.invoked = invoked
        self.asked_us = asked_us
        self.excused_us = excused_us  # how long the node had had an excuse not to answer by then
        self.returned: int | None = None
        self.output: Seen = UNKNOWN
        self.done = False
        self.void = False
        self.waits_in_shard = False
        self.parts = 0

    @property
    def waits(self) -> bool:
        """Whether it waits for a wake-up, wherever that is to come from."""
        return self.waits_in_shard or (self.parts > 0 and not self.answered and self.session.awaiting is not None)

    @property
    def may_wait(self) -> bool:
        """Whether nothing is carried out behind it until it is answered."""
        return b"BLOCK" in self.call or self.call[0] == LOADS

    def fill(self, reply: Reply) -> None:
        """What its shard says to it."""
        self.session.answer(self, reply)

    def finish(self, reply: Reply) -> Reply:
        """What the parts of a queue say to it, all together."""
        self.session.fill(self, reply)
        return reply

    def operation(self) -> Operation:
        """As a history has it."""
        return Operation(self.session.client.name, self.call, self.invoked, self.returned, self.output)

    def __str__(self) -> str:
        return f"{self.session} {b' '.join(self.call).decode()}"


class Session:
    """One connection of one client to one run of one process.

    ``shards`` are those that may hold something of it, with since when at the earliest on its node's monotonic clock;
    ``unsure``: it was not told what became of something it asked. ``awaiting`` are the parts of a queue in which it
    waits: what it asks meanwhile, as it was answered by one of them and the others have not ended yet, is held back.
    ``author`` is its node's name in the log. What waits for a line of the cache is ``cached``.
    """

    __slots__ = (
        "_held",
        "author",
        "awaiting",
        "cached",
        "client",
        "closed",
        "direct",
        "number",
        "origin",
        "process",
        "queue",
        "shards",
        "unsure",
        "written",
        "wrote",
    )

    def __init__(self, client: Client, process: Process, number: int) -> None:
        self.client = client
        self.process = process
        self.number = number
        assert process.node is not None
        self.origin = process.node.shards[0].clients.origin(number)
        self.author = process.node.author
        self.queue: deque[Op] = deque()
        self.closed = False
        self.shards: dict[int, float] = {}
        self.unsure = False
        self.awaiting: Awaiting | None = None
        self.written: Shard | None = None
        self.wrote: dict[bytes, bytes] = {}  # the values it wrote, by key
        self._held: deque[Op] = deque()
        self.cached: Op | None = None
        self.direct: list[tuple[Op, Reply]] = []  # answered in this turn by a look at the state, not sent yet

    def __str__(self) -> str:
        return f"{self.client.name}@{self.process.name}#{self.number}"

    # In

    def execute(self, call: Call) -> None:
        """One command: now, or in its place behind what is unanswered."""
        process = self.process
        node, world = process.node, process.world
        assert node is not None
        number = node.slot_shard[slot_of(key_of(call))]
        op = Op(self, call, number, world.tick(), world.now_us, process.excused_us)
        self.client.asked(op)
        self.queue.append(op)
        self._held.append(op)
        self.resume()

    def resume(self) -> None:
        """Begins what need not be held back any more."""
        while self.may_resume:
            op = self._held.popleft()
            if self.cached is not None:  # it stood behind one that waited for a line
                op.asked_us = self.process.world.now_us
                op.excused_us = self.process.excused_us
            self._begin(op)

    @property
    def owed(self) -> list[Op]:
        """What is not answered, and stands behind nothing that has to be answered first."""
        return [op for op in self.queue if op not in self._held]

    @property
    def may_resume(self) -> bool:
        """Whether something is held back that need not be any more."""
        if not self._held or self.awaiting is not None or self.closed:
            return False
        if self.cached is not None and not self.cached.answered:
            return False
        return not (_ROUTES[self._held[0].call[0]].command.alone and self._pending(self._held[0]))

    def _begin(self, op: Op) -> None:
        process = self.process
        args, name = list(op.call), op.call[0]
        refusal = process.disk.refusal
        if refusal is not None and name not in READS:
            self._reply(op, refusal)
            return
        shard, route = process.shard(op.shard), _ROUTES[name]
        if (refusal is None or self._is_held(op, args)) and self._through(op, args):
            return
        try:
            shape = process.partitions.shape_of(route, args)
            if shape is not None:
                self._to_parts(op, args, shape)
                return
        except CommandError as error:
            self._reply(op, error)
            return
        shares = self._shares(route, args)
        if shares is not None:
            op.parts = 1
            self._spread(op, shares, process.partitions.news_of(route, args))
            return
        if name in READS:
            self._look(op, shard, args)
        else:
            self._log(op, route, shard, args)

    def _log(self, op: Op, route: Route, shard: Shard, args: list[bytes]) -> None:
        process, name = self.process, op.call[0]
        node = process.node
        assert node is not None
        if name in SESSION_COMMANDS:
            self.shards.setdefault(op.shard, node.monotonic_ms)
        if name == b"EXEC":
            self._execute_transaction(op, shard)
        elif (news := process.partitions.news_of(route, args)) is not None:
            op.parts = 1
            place = Place(self, op.finish)  # type: ignore[arg-type]
            shard.submit(process.partitions.hearing(place, news), shard.machine.handler(name), args)
        elif name in SESSION_COMMANDS:
            shard.submit(op, shard.machine.handler(name), args, origin=self.origin)
        else:
            shard.clients.submit_writes(op, [(shard.machine.handler(name), args, b"")])

    def _is_held(self, op: Op, args: list[bytes]) -> bool:
        node = self.process.node
        assert node is not None
        return op.call[0].decode() in ANSWERED_FROM_LINES and node.cache.holds(args[1:])

    def _through(self, op: Op, args: list[bytes]) -> bool:
        """Carries it out by way of the node's cache, if it can be."""
        through = _ROUTES[op.call[0]].command.through
        if through is None:
            return False

        places: list[Place] = []

        def asking(finish: Finish | None = None) -> Place:
            places.append(Place(self, lambda reply: op.finish(reply if finish is None else finish(reply))))  # type: ignore[arg-type]
            return places[-1]

        reply = through(self.process, args, asking)  # type: ignore[arg-type]
        if reply is WAITING:
            if not op.answered:
                self.cached = op
            if any(place.partly_read for place in places):
                self.process.partly.append(self)
        elif reply is not PLAINLY:
            self._now(op, reply)
        return reply is not PLAINLY

    def _look(self, op: Op, shard: Shard, args: list[bytes]) -> None:
        handler = shard.machine.handler(args[0])
        if self._pending(op) or self._reads_wait(shard, args):
            shard.submit_read(op, handler, args)
        else:
            self._now(op, shard.read(handler, args))

    def _reads_wait(self, shard: Shard, args: list[bytes]) -> bool:
        stuck = shard.due and self.process.disk.refusal is not None
        return shard.reads_wait and not (stuck and shard.gate.is_free([args]))

    def _reply(self, op: Op, reply: Reply) -> None:
        if self._pending(op):
            self.fill(op, reply)
        else:
            self._now(op, reply)

    # Several shards

    def _shares(self, route: Route, args: list[bytes]) -> Shares | None:
        """What each shard has to do for a command that concerns several; None for any other."""
        node, spread = self.process.node, route.command.spread
        assert node is not None
        if spread is None or len(node.shards) == 1:
            return None
        shares = spread(route.command.keys, args, node.slot_shard)
        return None if shares.merge is None else shares

    def _spread(self, op: Op, shares: Shares, news: News | None = None) -> None:
        """Hands every shard its share at once."""
        process, logged = self.process, op.call[0] not in READS
        assert shares.merge is not None
        merge = merged(shares.merge, logged=logged)
        parts = [(process.shard(number), args) for number, args in shares.parts]
        calls = [(shard, shard.machine.handler(args[0]), args) for shard, args in parts]
        if not logged and not self._pending(op) and not any(self._reads_wait(shard, args) for shard, args in parts):
            self._now(op, merge([shard.read(handler, args) for shard, handler, args in calls]))
            return
        place = Place(self, op.finish)  # type: ignore[arg-type]
        gather = Gather(place if news is None else process.partitions.hearing(place, news), merge, len(parts))
        for number, (shard, handler, args) in enumerate(calls):
            submit = shard.submit if logged else shard.submit_read
            submit(Share(gather, number), handler, args)

    # Queues with parts

    def _to_parts(self, op: Op, args: list[bytes], shape: Shape) -> None:
        """Gives a command to the parts of its queue that are concerned."""
        process = self.process
        op.parts = shape.count
        if args[0] in WALKS:
            process.partitions.walk(self, args, shape, lambda session: Place(session, op.finish))  # type: ignore[arg-type]
            return
        self._spread(op, process.partitions.shares(args, shape))

    def known_to(self, shard: Shard) -> bytes:
        """Its name in the log of a shard that may hold something of it from now on."""
        assert self.process.node is not None
        self.shards.setdefault(shard.number, self.process.node.monotonic_ms)
        return self.origin

    def _execute_transaction(self, op: Op, shard: Shard) -> None:
        """What was watched is replaced if it is what it was: EXEC key expected value."""
        _, key, _, value = op.call
        queued = [([b"GET", key], True), ([b"SET", key, value], False)]
        steps = [(shard.machine.handler(args[0]), args, reads) for args, reads in queued]
        shard.submit(
            op,
            lambda machine, _: transactions.execute(machine, steps, watched=True),
            [b"EXEC"],
            logged=transactions.logged(queued, watched=True),
            origin=self.origin,
        )

    def _pending(self, op: Op) -> bool:
        """Whether something before it waits for the log, so that it may not be answered yet."""
        return self.queue[len(self.direct)] is not op

    def _now(self, op: Op, reply: Reply) -> None:
        if not self.direct:
            self.process.direct.append(self)
        self.direct.append((op, reply))

    def send_direct(self, *, lapsed: bool) -> None:
        """What was answered at once goes out; or the connection is closed, because it may be stale by now."""
        direct, self.direct = self.direct, []
        if lapsed:
            self.close()
            self.client.disconnected(self)
            for op, _ in direct:
                op.done = True
                self.queue.remove(op)
            return
        for op, reply in direct:
            self.fill(op, reply)

    # Out

    def answer(self, op: Op, reply: Reply) -> None:
        """The answer of its shard to one command, or that it waits."""
        if op.answered:
            raise Violation("one answer", f"a second answer to {op}: {reply!r}")
        first = next((one for one in self.queue if one.shard == op.shard and not (one.answered or one.parts)), None)
        if first is not op:
            raise Violation("order of replies", f"{op} is answered before {first}")
        if reply is WAITING:
            op.answered = op.waits_in_shard = True
            return
        self.fill(op, reply)

    def fill(self, op: Op, reply: Reply) -> None:
        """There is an answer, which goes out as soon as all before it have one."""
        op.answered, op.waits_in_shard, op.reply = True, False, reply
        while self.queue and self.queue[0].reply is not WAITING:
            self._end(self.queue.popleft())

    @property
    def _waiting(self) -> Op | None:
        """Its command that waits in one shard."""
        return self.queue[-1] if self.queue and self.queue[-1].waits_in_shard else None

    @property
    def waits_in(self) -> list[int]:
        """The shards in which it waits, none if it does not."""
        if self.awaiting is not None:
            return list(self.awaiting.open)
        op = self._waiting
        return [] if op is None else [op.shard]

    def _still_waits(self, op: Op) -> bool:
        """Whether a session that was told to wait still does, as far as its node can tell."""
        node = self.process.node
        assert node is not None
        shard = node.shards[op.shard]
        return not shard.here or shard.machine.waiters.of(self.origin) is not None

    def wake(self, number: int, reply: Reply) -> None:
        """A wait of this session in that shard ended."""
        op = self._waiting
        if op is not None and op.shard == number:
            if op.call[0] == b"Q.POP":
                self._check_message(op, reply)
            self.fill(op, reply)
        elif self.awaiting is not None and number in self.awaiting.open:
            self.awaiting.ended(number, reply)

    def give_up_wait(self, number: int) -> None:
        """A shard in which it waits has had no leader for long."""
        shard, op = self.process.shard(number), self._waiting
        if op is None:
            assert self.awaiting is not None
            shard.unblock(None, self.origin, b"TIMEOUT")
            self.awaiting.ended(number, no_leader(number))
        elif self._still_waits(op):
            shard.unblock(None, self.origin, b"TIMEOUT")
            self.fill(op, CommandError("no leader; it may still be served", "UNCERTAIN"))

    def _end(self, op: Op) -> None:
        op.done = True
        if self.closed:
            return
        self.process.simulation.watch.standing.judge_answer(self)
        op.output, op.void = _seen(op)
        self.unsure |= op.output is UNKNOWN
        if op.output is not UNKNOWN and not op.void:
            op.returned = self.process.world.tick()
        self.process.world.note(str(self), "got", (op, op.reply))
        self._check_own_writes(op)
        self.client.answered(op)

    def _check_message(self, op: Op, reply: Reply) -> None:
        """What a wait for a message ends with is a message of that queue."""
        if not isinstance(reply, list | dict):
            return
        queue, pushed = op.call[1], self.client.workload.pushed
        values = [value for value in _values_in(reply) if value in pushed]
        if queue[:1] == b"q" and (not values or any(pushed[value] != queue for value in values)):
            raise Violation("its own outcome", f"{op} ended with {reply!r}")

    def _check_own_writes(self, op: Op) -> None:
        """Whoever wrote a value sees it afterwards, or a later one."""
        if op.output == "OK" and op.call[0] in (b"SET", b"EXEC"):
            self.wrote[op.call[1]] = op.call[2 if op.call[0] == b"SET" else 3]
        elif op.call[0] == b"GET" and isinstance(op.output, bytes) and op.call[1] in self.wrote:
            own = self.wrote[op.call[1]]
            if self.process.simulation.watch.older(op.output, own):
                raise Violation("own writes", f"{op} got {op.output!r} after it had written {own!r}")

    def close(self) -> None:
        """The client goes away: whatever is unanswered stays so."""
        self.closed = True
        if self.process.node is None:
            return
        for number in self.shards:
            if self.may_lose(number):
                self.process.shard(number).end_session(self.origin)

    def may_lose(self, number: int) -> bool:
        """Whether that shard may hold something of it."""
        return bool(self.queue) or self.unsure or self.process.shard(number).knows_session(self.origin)

    def hang_up(self) -> None:
        """Its node closes the connection."""
        self.direct.clear()
        self.close()
        self.process.sessions.pop(self.origin, None)
        self.client.disconnected(self)


def _seen(op: Op) -> tuple[Seen, bool]:
    """What a client makes of a reply, and whether it says that nothing happened."""
    reply = op.reply
    if isinstance(reply, CommandError):
        if reply.code == "UNCERTAIN":
            return UNKNOWN, False
        asks_again = reply.code == "TRYAGAIN" and op.call[0] in READS  # a cache may have had what it reads
        return f"-{reply.code} {reply.message}", asks_again or reply.code in NEVER_HAPPENED
    if op.call[0] == LOADS and isinstance(reply, list):
        value, token = reply
        return token if value is None else value, False
    if op.call[0] == b"EXEC" and isinstance(reply, list):
        if reply[0] != (op.call[2] or None):
            raise Violation("a watched key", f"{op} went on, and found {reply[0]!r}")
        return reply[1].text, False
    if isinstance(reply, Status):
        return reply.text, False
    if reply is None or isinstance(reply, int | bytes):
        return reply, False
    return ("nothing", False) if op.call[0] == b"EXEC" else (repr(reply), False)


def _values_in(reply: Any) -> list[bytes]:
    """All texts in a reply."""
    if isinstance(reply, bytes):
        return [reply]
    if isinstance(reply, dict):
        reply = [*reply, *reply.values()]
    return [found for one in reply for found in _values_in(one)] if isinstance(reply, list | tuple) else []
