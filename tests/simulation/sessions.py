"""Clients' connections as a node's process sees them: what was asked on each, in order, and what was answered.

This is resp_server/dispatch.py's part: what is read at once, what takes its
place in the log, what is refused while the disk takes nothing.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeAlias

from cluster.machine.reply import WAITING, CommandError, Reply, Status
from tests.simulation.models import UNKNOWN, Call, Operation, Output, Unknown
from tests.simulation.world import Violation

if TYPE_CHECKING:
    from tests.simulation.clients import Client
    from tests.simulation.process import Process

READS = frozenset({b"GET", b"LOCK.INFO", b"Q.LEN", b"EXISTS"})
SESSION_COMMANDS = frozenset({b"LOCK.ACQUIRE", b"Q.POP"})
"""Their place in the log names the session, because they may wait."""

NEVER_HAPPENED = frozenset({"CLUSTERDOWN", "MISCONF"})
"""Errors that promise it."""

Seen: TypeAlias = "Output | Unknown"


class Op:
    """One command of one client, from when it was sent until it is answered.

    ``void``: the answer promised that it never happened.
    """

    __slots__ = ("asked_us", "call", "done", "excused_us", "invoked", "output", "returned", "session", "void", "waits")

    def __init__(self, session: Session, call: Call, invoked: int, asked_us: int, excused_us: int) -> None:
        self.session = session
        self.call = call
        self.invoked = invoked
        self.asked_us = asked_us
        self.excused_us = excused_us  # how long the node had had an excuse not to answer by then
        self.returned: int | None = None
        self.output: Seen = UNKNOWN
        self.done = False
        self.void = False
        self.waits = False

    @property
    def may_wait(self) -> bool:
        """Whether nothing is carried out behind it until it is answered."""
        return b"BLOCK" in self.call

    def answer(self, reply: Reply) -> None:
        """What its node says to it."""
        self.session.answer(self, reply)

    def operation(self) -> Operation:
        """As a history has it."""
        return Operation(self.session.client.name, self.call, self.invoked, self.returned, self.output)

    def __str__(self) -> str:
        return f"{self.session} {b' '.join(self.call).decode()}"


class Session:
    """One connection of one client to one run of one process."""

    __slots__ = ("client", "closed", "direct", "number", "origin", "process", "queue", "written")

    def __init__(self, client: Client, process: Process, number: int) -> None:
        self.client = client
        self.process = process
        self.number = number
        assert process.node is not None
        self.origin = process.node.origin(number)
        self.queue: deque[Op] = deque()
        self.closed = False
        self.written: dict[bytes, bytes] = {}  # the values it wrote, by key
        self.direct: list[tuple[Op, Reply]] = []  # answered in this turn by a look at the state, not sent yet

    def __str__(self) -> str:
        return f"{self.client.name}@{self.process.name}#{self.number}"

    # In

    def execute(self, call: Call) -> None:
        """One command: now, or in its place behind what is unanswered."""
        process = self.process
        node, disk, world = process.node, process.disk, process.world
        assert node is not None
        op = Op(self, call, world.tick(), world.now_us, process.excused_us)
        self.client.asked(op)
        args = list(call)
        name = args[0]
        handler = node.machine.handler(name)
        if name in READS:
            in_vain = node.due and disk.refusal is not None
            if self._pending or (node.reads_wait and not in_vain):
                self.queue.append(op)
                node.submit_read(op, handler, args)
            else:
                self._now(op, node.read(handler, args))
            return
        if disk.refusal is not None:
            refusal = disk.refusal
            if self._pending:
                self.queue.append(op)
                node.submit_read(op, lambda machine, args: refusal, [])
            else:
                self._now(op, refusal)
            return
        self.queue.append(op)
        if name in SESSION_COMMANDS:
            node.submit(op, handler, args, origin=self.origin)
        else:
            node.clients.submit_writes(op, [(handler, args, b"")])

    @property
    def _pending(self) -> bool:
        """Whether something waits for the log, so that nothing may be answered before it."""
        return len(self.queue) > len(self.direct)

    def _now(self, op: Op, reply: Reply) -> None:
        self.queue.append(op)
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
            self.answer(op, reply)

    # Out

    def answer(self, op: Op, reply: Reply) -> None:
        """The answer to one command, or that it waits."""
        if op.done:
            raise Violation("one answer", f"a second answer to {op}: {reply!r}")
        if not self.queue or self.queue[0] is not op:
            raise Violation("order of replies", f"{op} is answered before {self.queue[0] if self.queue else 'asked'}")
        if reply is WAITING:
            op.waits = True
            return
        self._end(op, reply)

    @property
    def waiting(self) -> bool:
        """Whether its command waits for a wake-up."""
        return bool(self.queue) and self.queue[0].waits

    def wake(self, reply: Reply) -> None:
        """The wait of this session ended."""
        if self.waiting:
            self.queue[0].waits = False
            self._end(self.queue[0], reply)

    def _end(self, op: Op, reply: Reply) -> None:
        self.queue.popleft()
        op.done = True
        if self.closed:
            return
        op.output, op.void = _seen(reply)
        if op.output is not UNKNOWN and not op.void:
            op.returned = self.process.world.tick()
        self.process.world.note(str(self), "got", (op, reply))
        self._check_own_writes(op)
        self.client.answered(op)

    def _check_own_writes(self, op: Op) -> None:
        """Whoever wrote a value sees it afterwards, or a later one."""
        if op.call[0] == b"SET" and op.output == "OK":
            self.written[op.call[1]] = op.call[2]
        elif op.call[0] == b"GET" and isinstance(op.output, bytes) and op.call[1] in self.written:
            own = self.written[op.call[1]]
            if self.process.simulation.watch.older(op.output, own):
                raise Violation("own writes", f"{op} got {op.output!r} after it had written {own!r}")

    def close(self) -> None:
        """The client goes away: whatever is unanswered stays so."""
        self.closed = True
        node = self.process.node
        if node is not None and (self.queue or node.knows_session(self.origin)):
            node.end_session(self.origin)


def _seen(reply: Reply) -> tuple[Seen, bool]:
    """What a client makes of a reply, and whether it says that nothing happened."""
    if isinstance(reply, CommandError):
        if reply.code == "UNCERTAIN":
            return UNKNOWN, False
        return f"-{reply.code} {reply.message}", reply.code in NEVER_HAPPENED
    if isinstance(reply, Status):
        return reply.text, False
    if reply is None or isinstance(reply, int | bytes):
        return reply, False
    return repr(reply), False
