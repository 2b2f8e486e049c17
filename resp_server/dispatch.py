"""From parsed commands to replies: look up, check, route, keep the order.

Three kinds of command. A *read* is answered from the state at once on a leader
that is sure to be one, elsewhere when the leader has said up to where the
state must be. A *write* takes its place in the turn's log entry and is answered
when that is committed. A *local* command (PING, CLIENT, INFO …) is answered by this node.

Order on a connection: once a write is unanswered, everything behind it goes
into the entry as well and runs in its place; behind a command that may wait,
everything is held back until that is answered.

There are two ways through. `execute` is the hottest code of the program: it
knows only quick reads and writes of sessions in no special state. All else
goes the careful way, and so does everything while the table of quick commands
is taken away (`hurry`).
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING

from cluster.machine import transactions
from cluster.machine.machine import Call, Handler, Machine, bug, in_place
from cluster.machine.reply import OK, QUEUED, WAITING, CommandError, Reply
from cluster.node import Answers
from resp_server.commands.table import Route
from resp_server.protocol.replies import BULK_HEADERS, SHORT_BYTES
from resp_server.session import Session, Transaction

if TYPE_CHECKING:
    from resp_server.server import Server

LARGE_REPLY_BYTES = 16 * 1024
UNREAD_BYTES_MAX = 4 * 1024 * 1024
"""A client owed this much in large replies gets no further command carried out until it has read them."""

UNANSWERED_MAX = 64
"""A client owed more replies than this from the log gets no read carried out behind them before they are sent."""


WRITES_UNANSWERED_MAX = 2048
"""A client owed more replies than this from the log is not listened to until it got them."""


class Dispatcher:
    """Runs the commands of all sessions of one node.

    ``outbox`` names the sessions the edge must look after at the end of the turn:
    most have something to send. ``resumed`` lists those whose backlog may go on.
    The edge empties both.
    """

    def __init__(self, server: Server) -> None:
        self.outbox: dict[Session, None] = {}
        self.resumed: list[Session] = []
        self._server = server
        self._node = server.node
        self._clients = server.node.clients
        self._table = server.table
        self._fast: dict[bytes, Route] = {}
        self.hurry()

    def hurry(self) -> None:
        """Takes up the fast way, unless all must be looked at: no writes now, or a slow log of microseconds."""
        careful = self._server.refusal is not None or self._server.slowlog.watches_everything
        self._fast = {} if careful else self._table.fast

    def execute(self, session: Session, commands: list[list[bytes]]) -> None:  # noqa: C901 - a call costs each command
        """Carries out commands of one client, in order; replies land in ``session.out`` now or by `deliver`."""
        machine = self._node.machine
        fast = self._fast
        out = session.out
        encode = session.encode
        plain = session.plain
        direct = not (session.pending or self._node.reads_wait)
        writes: list[Call] = []
        for args in commands:
            route = fast.get(args[0])
            if plain and route is not None and (len(args) == route.arguments_min or route.takes(len(args))):
                if route.logged:
                    route.calls += 1
                    writes.append((route.run, args, b""))
                    direct = False
                    continue
                if direct:
                    route.calls += 1
                    try:
                        reply = route.run(machine, args)
                    except CommandError as error:
                        self._server.stats.count_error(error)
                        reply = error
                    except Exception:  # noqa: BLE001 - see `bug`
                        reply = bug(args)
                    if type(reply) is bytes and (size := len(reply)) < SHORT_BYTES:
                        out.append(BULK_HEADERS[size] + reply + b"\r\n")  # as `encode` would, without the call
                        continue
                    wire = encode(reply)
                    out.append(wire)
                    if len(wire) > LARGE_REPLY_BYTES:
                        self._count_large(session, len(wire))
                        plain = session.plain
                    continue
            if writes:
                self._submit(session, writes)
                writes = []
            self._carefully(session, args)
            fast = self._fast
            encode = session.encode
            plain = session.plain
            direct = not (session.pending or self._node.reads_wait)
        if writes:
            self._submit(session, writes)

    def _submit(self, session: Session, writes: list[Call]) -> None:
        session.pending += len(writes)
        self._clients.submit_writes(session, writes)
        if session.pending > WRITES_UNANSWERED_MAX:
            session.held = True
            session.settle()

    def deliver(self, answers: Answers) -> None:
        """Hands answers from the log to their sessions."""
        outbox = self.outbox
        last: Session | None = None
        for session, reply in answers.replies:
            if session is None:
                continue
            if session is not last:
                last = session
                outbox[session] = None
            session.pending -= 1
            if session.plain and type(reply) is not CommandError:
                session.out.append(OK.wire if reply is OK else session.encode(reply))
            else:
                self._deliver_carefully(session, reply)
        for origin, reply in answers.woken:
            waiter = self._server.session_of(origin)
            if waiter is not None and waiter.waiting:
                self._end_wait(waiter, reply)

        if answers.restored:
            self._release_unseen()

    def _release_unseen(self) -> None:
        """The state was replaced: tells those whose wait has ended in what was skipped."""
        for session in list(self._server.clients.values()):
            if session.waiting and self._node.machine.waiters.of(session.origin) is None:
                self._end_wait(session, CommandError("the wait ended, it is not known how", "UNCERTAIN"))

    def give_up_waits(self) -> None:
        """There has been no leader for long: tells those who wait, and ends their waits once there is one."""
        for session in list(self._server.clients.values()):
            if session.waiting and self._node.machine.waiters.of(session.origin) is not None:
                self._node.unblock(None, session.origin, b"TIMEOUT")
                self._end_wait(session, CommandError("no leader; it may still be served", "UNCERTAIN"))

    def _end_wait(self, session: Session, reply: Reply) -> None:
        session.waiting = False
        self.outbox[session] = None
        session.answer(reply)
        self._release_when_done(session)

    def _deliver_carefully(self, session: Session, reply: Reply) -> None:
        if reply is WAITING:
            session.waiting = True
            return
        if type(reply) is CommandError:
            self._server.stats.count_error(reply)
        session.answer(reply)
        self._release_when_done(session)

    def relieve(self, session: Session) -> None:
        """The client has read what it was owed."""
        session.glutted = False
        self._release_when_done(session)

    def _release_when_done(self, session: Session) -> None:
        """Lets the session's backlog go on once all that it was held for is over."""
        if session.held and not (session.pending or session.waiting or session.glutted):
            session.held = False
            session.settle()
            self.resumed.append(session)

    def refuse(self, session: Session, line: bytes) -> None:
        """Answers a broken protocol, in its place, and takes nothing more from the client."""
        if session.held:
            session.broken = line
            return
        if line:
            text = line.decode("utf-8", "surrogateescape").partition(" ")
            self._reply(session, CommandError(text[2], text[0]))
        session.closing = True
        session.settle()
        self.outbox[session] = None

    def resume(self, session: Session) -> None:
        """Carries out what was held back."""
        backlog, session.backlog = session.backlog, []
        self.execute(session, backlog)
        if session.broken is not None:
            self.refuse(session, session.broken)

    # The careful way

    def _carefully(self, session: Session, args: list[bytes]) -> None:
        """Any command of any session, with every check."""
        if session.held:
            session.backlog.append(args)
            return
        if session.closing:
            return
        try:
            route = self._table.find(args)
            if route.command.alone and session.pending:
                self._hold(session, args)
                return
            args = self._admitted(session, route, args)
            if session.transaction is not None and not route.command.ends_transaction:
                self._reply(session, self._queue(session, session.transaction, route, args))
            elif route.command.name == "EXEC":
                self._execute_transaction(session)
            else:
                self._start(session, route, args)
        except CommandError as error:
            if session.transaction is not None:
                session.transaction.failed = True
            self._reply(session, error)

    def _hold(self, session: Session, args: list[bytes]) -> None:
        """Keeps a command and what follows it until everything before is answered."""
        session.held = True
        session.settle()
        session.backlog.append(args)

    def _admitted(self, session: Session, route: Route, args: list[bytes]) -> list[bytes]:
        """The arguments as they are to be carried out; raises what speaks against this command from this client."""
        command = route.command
        route.check_arity(args)
        if not session.authenticated and "no_auth" not in command.flags:
            raise CommandError("Authentication required.", "NOAUTH")
        if command.logged and self._server.refusal is not None:
            raise self._server.refusal
        session.last_command = route.name
        route.calls += 1
        return args if command.prepare is None else command.prepare(self._server, args)

    def _queue(self, session: Session, transaction: Transaction, route: Route, args: list[bytes]) -> Reply:
        if "no_multi" in route.command.flags:
            raise CommandError("Command not allowed inside a transaction")
        if route.command.name == "WATCH":  # refused, yet the transaction stays good
            return CommandError("WATCH inside MULTI is not allowed")
        transaction.add(route, args)
        if transaction.size_bytes > self._server.settings.client_query_buffer_limit:
            session.closing = True
            raise CommandError("the transaction is larger than client-query-buffer-limit")
        return QUEUED

    def _start(self, session: Session, route: Route, args: list[bytes]) -> None:
        """Runs the command now, or gives it its place in the log."""
        node, command = self._node, route.command
        handler = self._handler(session, route)
        if command.logged:
            if route.blocking and b"BLOCK" in map(bytes.upper, args):
                session.held = True
                session.settle()
            session.pending += 1
            node.submit(session, handler, args, origin=session.origin if route.of_session else b"")
        else:
            self._look(session, handler, args, is_local=command.serve is not None and "readonly" not in command.flags)

    def _look(self, session: Session, handler: Handler, args: list[bytes], *, is_local: bool = False) -> None:
        """Runs what is not logged: now, or in its place behind what is unanswered.

        What is not local waits too while this node may not read by itself, or
        something is due; not for what is due while the disk lets nothing happen.
        """
        node = self._node
        in_vain = node.due and self._server.refusal is not None
        if session.pending or (node.reads_wait and not is_local and not in_vain):
            session.pending += 1
            node.submit_read(session, handler, args)
            if session.pending > UNANSWERED_MAX:
                session.held = True  # what it reads may be large: see first what that comes to
                session.settle()
        else:
            self._reply(session, node.read(handler, args))

    def _handler(self, session: Session, route: Route) -> Handler:
        """What carries out a command for this session, timed for the slow log unless it cannot be slow."""
        serve = route.command.serve
        if serve is not None:
            return self._timed(session, lambda machine, args: serve(session, args))
        run = route.run
        if route.quick and not self._server.slowlog.watches_everything:
            return run
        return self._timed(session, run)

    def _affordable(self, session: Session, reply: Reply) -> Reply:
        """The reply, unless it alone is past what the client may leave unread: then it is not even encoded."""
        limit = self._server.settings.client_output_buffer_limit.hard_bytes
        if not limit or type(reply) is not list or size_bytes(reply) <= limit:
            return reply
        self._server.stats.output_limit_disconnections += 1
        self._server.edge.close(session)
        return CommandError("the reply is larger than client-output-buffer-limit")

    def _timed(self, session: Session, handler: Handler) -> Handler:
        def timed(machine: Machine, args: list[bytes]) -> Reply:
            started_ns = perf_counter_ns()
            try:
                return self._affordable(session, handler(machine, args))
            finally:
                self._server.slowlog.note(session, args, (perf_counter_ns() - started_ns) // 1000)

        return timed

    def _execute_transaction(self, session: Session) -> None:
        """EXEC: the queued commands become one command of the log.

        Other replicas carry out those that are logged; here the reads and the
        local ones (PING, CLIENT …) run in their places too. When there is
        nothing to log, all are carried out as one read is.
        """
        transaction = session.transaction
        if transaction is None:
            raise CommandError("EXEC without MULTI")
        session.transaction = None
        session.settle()
        if transaction.failed:
            self._server.unwatch(session)
            raise CommandError("Transaction discarded because of previous errors.", "EXECABORT")
        steps = [self._step(session, route, args) for route, args in transaction.commands]
        writes = [args for route, args in transaction.commands if route.command.logged]
        if not (writes or session.pending or self._node.knows_session(session.origin)):
            self._look(
                session,
                lambda machine, _: self._affordable(session, transactions.look(machine, steps)),
                [b"EXEC"],
            )
            return
        refusal = self._server.refusal
        if refusal is not None:
            self._server.unwatch(session)
            reason = f"{refusal.code} {refusal.message}"
            raise CommandError(f"Transaction discarded because of: {reason}", "EXECABORT")
        session.pending += 1
        self._node.submit(
            session,
            lambda machine, _: self._affordable(session, transactions.execute(machine, steps)),
            [b"EXEC"],
            logged=[b"EXEC", *writes],
            origin=session.origin,
        )

    def _step(self, session: Session, route: Route, args: list[bytes]) -> tuple[Handler, list[bytes]]:
        """A command of a transaction."""
        handler = self._handler(session, route)
        return (handler, args) if route.command.logged else in_place(handler, args)

    def _reply(self, session: Session, reply: Reply) -> None:
        """Answers now when nothing is owed before, else in its place.

        A local command that answers `WAITING` has seen to it that its answer
        comes by `deliver`, and holds the session until then.
        """
        if reply is WAITING:
            return
        if session.pending:
            session.pending += 1
            self._node.submit_read(session, lambda machine, args: reply, [])
            return
        if type(reply) is CommandError:
            self._server.stats.count_error(reply)
        session.answer(reply)
        if session.out and len(session.out[-1]) > LARGE_REPLY_BYTES:
            self._count_large(session, len(session.out[-1]))

    def _count_large(self, session: Session, size_bytes: int) -> None:
        session.out_bytes += size_bytes
        if session.out_bytes > UNREAD_BYTES_MAX:
            session.held = session.glutted = True
            session.settle()


def size_bytes(reply: Reply) -> int:
    """How many bytes of values a reply holds: a key asked for a thousand times counts a thousand times."""
    if type(reply) is bytes:
        return len(reply)
    return sum(map(size_bytes, reply)) if isinstance(reply, list) else 0
