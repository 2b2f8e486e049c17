"""From parsed commands to replies: look up, check, route, keep the order.

Three kinds of command. A *read* is answered from the state at once on a leader
that is sure to be one, elsewhere when the leader has said up to where the
state must be. A *write* takes its place in the turn's log entry and is answered
when that is committed. A *local* command (PING, CLIENT, INFO …) is answered by this node.

Reads and writes are the business of the shard their keys are in, and reach it
the same way whether this node has a replica of it or not. Some are shared out
over several shards, as their records say (commands/spreading.py).

Order on a connection: once a write is unanswered, everything behind it in its
shard goes into the entry as well and runs in its place; what goes to another
shard goes there at once, and its answer waits for its turn (places.py). Behind
a command that may wait, everything is held back until that is answered.

There are two ways through. `execute` is the hottest code of the program: it
knows only quick reads and writes of sessions in no special state. All else
goes the careful way, and so does everything while the table of quick commands
is taken away (`hurry`). Both keep the same order of answers, which is why all of
it is in one file.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cluster.clients import no_leader
from cluster.machine import queue_parts, transactions
from cluster.machine.machine import Call, Handler, bug
from cluster.machine.queue_parts import Shape
from cluster.machine.reply import OK, QUEUED, WAITING, CommandError, Reply
from cluster.node import Answers
from cluster.ring.slots import SLOTS, slot_of
from cluster.shard import Shard
from resp_server.calls import Calls
from resp_server.commands.cache import ANSWERED_FROM_LINES
from resp_server.commands.command import PLAINLY, Command
from resp_server.commands.spreading import Shares, cross_slot
from resp_server.commands.table import Route
from resp_server.partitions import Awaiting, News, Partitions
from resp_server.places import Finish, Gather, Place, Share, merged
from resp_server.protocol.replies import BULK_HEADERS, SHORT_BYTES
from resp_server.session import Session, Transaction
from resp_server.settings import Routing
from resp_server.targets import Targets

if TYPE_CHECKING:
    from resp_server.server import Server

LARGE_REPLY_BYTES = 16 * 1024
UNREAD_BYTES_MAX = 4 * 1024 * 1024
"""A client owed this much in large replies gets no further command carried out until it has read them."""

UNANSWERED_MAX = 64
"""A client owed more replies than this from the log gets no read carried out behind them before they are sent."""


WRITES_UNANSWERED_MAX = 2048
"""A client owed more replies than this from the log is not listened to until it got them."""

UNCERTAIN = "UNCERTAIN"

BRACE = ord("{")  # found ten times as fast as b"{" is
SLOT_BITS = SLOTS - 1
assert SLOTS & SLOT_BITS == 0


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
        self._only: Shard | None = None
        self._by_slot = [server.node.shards[number] for number in server.node.slot_shard]
        self._table = server.table
        self._targets = Targets(server)
        self._partitions = Partitions(server)
        self._calls = Calls(server)
        self._fast: dict[bytes, Route] = {}
        self._cached: dict[bytes, Route] = {}
        self._line_of = server.node.cache.hit
        self.hurry()

    def hurry(self) -> None:
        """Takes up the fast way, unless all must be looked at: no writes now, or a slow log of microseconds."""
        self._full = self._node.atlas.full
        careful = (
            self._server.refusal is not None
            or self._server.fullness.somewhere
            or self._server.slowlog.watches_everything
        )
        self._targets.redirecting = self._server.settings.routing is Routing.REDIRECT
        shards = self._node.shards
        self._only = None if len(shards) > 1 or self._targets.redirecting else shards[0]
        self._fast = {} if careful else self._table.fast if self._only is not None else self._table.fast_by_key
        cached = self._table.find([b"CACHE.GET"])
        self._cached = {} if careful else {b"CACHE.GET": cached, b"cache.get": cached}

    def execute(self, session: Session, commands: list[list[bytes]]) -> None:  # noqa: C901 - a call costs each command
        """Carries out commands of one client, in order; replies land in ``session.out`` now or by `deliver`."""
        shard = self._only
        if shard is None:
            self._execute_by_key(session, commands)
            return
        machine = shard.machine  # the node looks after an only shard in every turn: no need to touch it
        fast = self._fast
        out = session.out
        encode = session.encode
        plain = session.plain
        direct = not (session.pending or shard.reads_wait)
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
                    self._submit(session, shard, writes)
                    writes = []
                    plain = session.plain
                if plain:
                    route.calls += 1
                    session.pending += 1
                    shard.clients.submit_read(session, route.run, args)
                    self._hold_readers(session)
                    plain = session.plain
                    continue
            if writes:
                self._submit(session, shard, writes)
                writes = []
            if plain and (route := self._cached.get(args[0])) is not None and self._hit(session, route, args):
                plain = session.plain
                continue
            self._carefully(session, args)
            fast = self._fast
            encode = session.encode
            plain = session.plain
            direct = not (session.pending or shard.reads_wait)
        if writes:
            self._submit(session, shard, writes)

    def _submit(self, session: Session, shard: Shard, writes: list[Call]) -> None:
        session.pending += len(writes)
        shard.clients.submit_writes(session, writes)
        if session.pending > WRITES_UNANSWERED_MAX:
            session.held = True
            session.settle()

    def _execute_by_key(self, session: Session, commands: list[list[bytes]]) -> None:  # noqa: C901 - as `execute`
        """`execute` where a command's key says which shard it goes to."""
        node, by_slot = self._node, self._by_slot
        turn, redirecting, queues = node.turn, self._targets.redirecting, node.atlas.queues
        fast = self._fast
        simple = session.simple
        for args in commands:
            route = fast.get(args[0])
            if simple and route is not None and (len(args) == route.arguments_min or route.takes(len(args))):
                key = args[1]
                shard = by_slot[slot_of(key) if BRACE in key else crc_hqx(key, 0) & SLOT_BITS]
                if shard.turn != turn:
                    node.touch(shard)
                if (not redirecting or shard.leader == node.name) and not (queues and key in queues):
                    route.calls += 1
                    if route.logged:
                        session.written = shard
                        shard.clients.submit_writes(self._claim(session, shard), [(route.run, args, b"")])
                        if session.pending > WRITES_UNANSWERED_MAX:
                            session.held = True
                            session.settle()
                            simple = session.simple
                        continue
                    if session.pending or shard.reads_wait:
                        shard.clients.submit_read(self._claim(session, shard), route.run, args)
                        self._hold_readers(session)
                        simple = session.simple
                        continue
                    shard.read_turn = turn
                    try:
                        reply = route.run(shard.machine, args)
                    except CommandError as error:
                        reply = error
                    except Exception:  # noqa: BLE001 - see `bug`
                        reply = bug(args)
                    if type(reply) is bytes and (size := len(reply)) < SHORT_BYTES:
                        session.out.append(BULK_HEADERS[size] + reply + b"\r\n")
                        continue
                    self._reply(session, reply)
                    simple = session.simple
                    continue
            if simple and (route := self._cached.get(args[0])) is not None and self._hit(session, route, args):
                simple = session.simple
                continue
            self._carefully(session, args)
            fast = self._fast
            simple = session.simple

    # What clients are owed

    def _claim(self, session: Session, shard: Shard, finish: Finish | None = None) -> Session | Place:
        """Who is to get the next answer of ``shard``: the session, or a place when it is owed one from elsewhere."""
        if finish is not None:
            return self._place(session, finish)
        if not session.pending:
            session.lane = shard
        elif session.places or session.lane is not shard:
            return self._place(session)
        session.pending += 1
        return session

    def _place(self, session: Session, finish: Finish | None = None) -> Place:
        """A place behind all that the session is owed."""
        place = Place(session, finish)
        session.pending += 1
        session.places.append(place)
        if len(session.places) == 1:
            session.settle()
        return place

    def deliver(self, answers: Answers) -> None:
        """Hands answers from the log to their sessions."""
        outbox = self.outbox
        last: object = self  # nobody yet
        for client, reply in answers.replies:
            if client is not last:
                if type(client) is not Session:
                    if client is not None:
                        self._fill(client, reply)
                    continue
                last = client
                outbox[client] = None
            client.pending -= 1
            if client.plain and type(reply) is not CommandError:
                client.out.append(OK.wire if reply is OK else client.encode(reply))
            else:
                self._deliver_carefully(client, reply)
        for number, origin, reply in answers.woken:
            self._wake(number, origin, reply)
        if self._full is not self._node.atlas.full:
            self.hurry()
        self._partitions.look_at_waits()
        if self._partitions.made:
            for session in self._partitions.known():
                self._clear(session)

    def _fill(self, client: Any, reply: Reply) -> None:
        if client.fill(reply):
            self._clear(client.session)
        elif type(client) is Place and client.session.closed:
            self._server.undelivered.take_back(client.popped, reply)

    def _wake(self, number: int, origin: bytes, reply: Reply) -> None:
        """A wait in a shard is over."""
        waiter = self._server.session_of(origin)
        if waiter is None:
            self._server.undelivered.woken(number, origin, reply)
            observer = self._server.observers.woken(origin, reply)
            if observer is not None:
                self.outbox[observer] = None
        elif waiter.waiting and waiter.lane.number == number:
            self._end_wait(waiter, reply)
        elif waiter.awaiting is not None and number in waiter.awaiting.open:
            self._end_part(waiter, waiter.awaiting, number, reply)

    def give_up_waits(self, shard: Shard) -> None:
        """A shard has had no leader for long: tells those who wait there, and ends their waits once there is one."""
        for session in list(self._server.clients.values()):
            if session.waiting and session.lane is shard:
                self._server.shard(shard.number).unblock(None, session.origin, b"TIMEOUT")
                self._end_wait(session, CommandError("no leader; it may still be served", UNCERTAIN))
            elif session.awaiting is not None and shard.number in session.awaiting.open:
                self._server.shard(shard.number).unblock(None, session.origin, b"TIMEOUT")
                self._end_part(session, session.awaiting, shard.number, no_leader(shard.number))

    def _end_part(self, session: Session, awaiting: Awaiting, number: int, reply: Reply) -> None:
        """A wait for a message is over in one part of a queue."""
        if awaiting.ended(number, reply):
            self._clear(session)

    def _end_wait(self, session: Session, reply: Reply) -> None:
        session.waiting = False
        self.outbox[session] = None
        if session.places:  # what was asked before is not all answered
            session.places[-1].fill(reply)
            self._clear(session)
            return
        self._answer(session, reply)
        self._release_when_done(session)

    def _deliver_carefully(self, session: Session, reply: Reply) -> None:
        if session.closed:
            self._server.undelivered.answered(session, reply)
            return
        if reply is WAITING:
            session.waiting = True
            return
        self._answer(session, reply)
        if session.places:
            self._clear(session)
        self._release_when_done(session)

    def _answer(self, session: Session, reply: Reply) -> None:
        if type(reply) is CommandError:
            self._server.stats.count_error(reply)
            session.unsure |= reply.code == UNCERTAIN
        session.answer(reply)

    def _clear(self, session: Session) -> None:
        """Answers from the front of the places, as far as they are filled and nothing from before them is open.

        A session that waits is owed nothing but the end of its wait, once all from before it is answered.
        """
        places = session.places
        if session.closed or session.pending > len(places):
            return
        while places and (reply := places[0].reply) is not WAITING:
            places.popleft()
            session.pending -= 1
            if type(reply) is CommandError or session.reply_mode != "on":
                self._answer(session, reply)
            else:
                session.out.append(session.encode(reply))
        if session.waiting and len(places) == 1:
            places.clear()
            session.pending -= 1
        if not places:
            session.settle()
        self.outbox[session] = None
        self._release_when_done(session)

    def relieve(self, session: Session) -> None:
        """The client has read what it was owed."""
        session.glutted = False
        self._release_when_done(session)

    def _release_when_done(self, session: Session) -> None:
        """Lets the session's backlog go on once all that it was held for is over."""
        if session.held and not (session.pending or session.waiting or session.awaiting or session.glutted):
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

    def _start(self, session: Session, route: Route, args: list[bytes]) -> None:
        """Runs the command now, or gives it its place in the log of its shard, or of several."""
        if route.local:
            self._reply(session, self._calls.serve(session, route, args))
            return
        if self._through(session, route, args):
            return
        shape = self._partitions.shape_of(route, args)
        if shape is not None:
            self._to_parts(session, route, args, shape)
            return
        parts, merge = self._targets.of(session, route, args)
        self._check_room(route, args, [number for number, _ in parts])
        news = self._partitions.news_of(route, args)
        if merge is not None:
            self._spread(session, route, Shares(parts, merge), news)
            return
        number, args = parts[0]
        shard = self._server.shard(number)
        handler = self._calls.handler(session, route, shard)
        if not route.logged:
            self._look(session, shard, handler, args)
            return
        self._log(session, route, args, shard, handler, news)

    def _log(
        self, session: Session, route: Route, args: list[bytes], shard: Shard, handler: Handler, news: News | None
    ) -> None:
        """Gives a command its place in a shard's batch."""
        if route.command.name == "WATCH":
            if session.watched not in (None, shard):
                raise cross_slot()
            session.watched = shard
        if news is not None:
            shard.submit(self._partitions.hearing(self._place(session), news), handler, args)
            return
        client = self._claim(
            session, shard, None if route.command.follow is None else route.command.follow(session, args)
        )
        if route.command.name == "Q.POP":
            self._note_popped(session, client, args[1])
        if route.blocking and (route.command.through is not None or b"BLOCK" in map(bytes.upper, args)):
            session.lane = shard  # where it waits, whatever else is unanswered
            session.held = True
            session.settle()
        session.written = shard
        shard.submit(client, handler, args, origin=session.known_to(shard) if route.of_session else b"")

    @staticmethod
    def _note_popped(session: Session, client: Session | Place, key: bytes) -> None:
        session.popped = key
        if type(client) is Place:
            client.popped = key

    def _hit(self, session: Session, route: Route, args: list[bytes]) -> bool:
        """Answers CACHE.GET from a line of this node, if there is one."""
        if session.pending or len(args) != route.arguments_min:
            return False
        reply = self._line_of(args[1])
        if reply is None:
            return False
        route.calls += 1
        if len(reply) < SHORT_BYTES:
            session.out.append(BULK_HEADERS[len(reply)] + reply + b"\r\n")
        else:
            self._reply(session, reply)
        return True

    def _through(self, session: Session, route: Route, args: list[bytes]) -> bool:
        """Carries a command out by way of the cache, if it can be; what waits for a line holds up all behind it."""
        through = route.command.through
        if through is None or (self._server.refusal is not None and not self._is_held(route.command, args)):
            return False
        self._check_room(route, args, [self._node.slot_shard[slot_of(key)] for key in args[1:2]])
        reply = through(self._server, args, lambda finish=None: self._place(session, finish))
        if reply is PLAINLY:
            return False
        if reply is WAITING:
            session.held = True
            session.settle()
        else:
            self._reply(session, reply)
        return True

    def _is_held(self, command: Command, args: list[bytes]) -> bool:
        """Whether lines have all there is to answer: memory may not, and to get one may take the log."""
        return command.name in ANSWERED_FROM_LINES and self._node.cache.holds(args[1:])

    def _look(
        self, session: Session, shard: Shard, handler: Handler, args: list[bytes], finish: Finish | None = None
    ) -> None:
        """Runs what is not logged: now, or in its place behind what is unanswered."""
        if session.pending or self._reads_wait(shard, args):
            shard.submit_read(self._claim(session, shard, finish), handler, args)
            self._hold_readers(session)
        else:
            reply = shard.read(handler, args)
            self._reply(session, reply if finish is None else finish(reply))

    def _reads_wait(self, shard: Shard, args: list[bytes]) -> bool:
        """Whether this node may not read by itself now, or something is due.

        There is no waiting for what is due while the disk lets nothing happen, but for what a cache has changed.
        """
        stuck = shard.due and self._server.refusal is not None
        return shard.reads_wait and not (stuck and shard.gate.is_free([args]))

    def _hold_readers(self, session: Session) -> None:
        if session.pending > UNANSWERED_MAX:
            session.held = True  # what it reads may be large: see first what that comes to
            session.settle()

    def _spread(self, session: Session, route: Route, shares: Shares, news: News | None = None) -> None:
        """Hands every shard its share at once; the answers are one when all are there."""
        assert shares.merge is not None
        parts = [(self._server.shard(number), args) for number, args in shares.parts]
        merge = merged(shares.merge, logged=route.logged)
        handlers = [self._handler(session, route, shard, args) for shard, args in parts]
        if not (route.logged or session.pending or any(self._reads_wait(shard, args) for shard, args in parts)):
            replies = [shard.read(handler, args) for handler, (shard, args) in zip(handlers, parts, strict=True)]
            self._reply(session, self._calls.affordable(session, merge(replies)))
            return
        place = self._place(session, lambda reply: self._calls.affordable(session, reply))
        gather = Gather(place if news is None else self._partitions.hearing(place, news), merge, len(parts))
        for number, (handler, (shard, args)) in enumerate(zip(handlers, parts, strict=True)):
            if route.logged:
                session.written = shard
                shard.submit(Share(gather, number), handler, args)
            else:
                shard.submit_read(Share(gather, number), handler, args)
        if not route.logged:
            self._hold_readers(session)

    def _check_room(self, route: Route, args: list[bytes], numbers: Sequence[int]) -> None:
        """Raises ``-OOM`` where a command would take memory that one of these shards has not."""
        fullness = self._server.fullness
        if fullness.somewhere:
            inner_at = route.command.inner_at
            fullness.check(self._table.find(args[inner_at:]).command if inner_at else route.command, numbers)

    def _handler(self, session: Session, route: Route, shard: Shard, args: list[bytes]) -> Handler:
        return queue_parts.call if args[0] == queue_parts.CALL else self._calls.handler(session, route, shard)

    def _to_parts(self, session: Session, route: Route, args: list[bytes], shape: Shape) -> None:
        """Gives a command to the parts of its queue that are concerned."""
        if route.command.name not in ("Q.POP", "Q.REDRIVE"):
            shares = self._partitions.shares(args, shape)
            self._check_room(route, args, [number for number, _ in shares.parts])
            self._spread(session, route, shares)
            return
        self._check_room(route, args, self._partitions.shards_of(args[1], shape))
        self._partitions.walk(session, args, shape, self._place)
        if b"BLOCK" in map(bytes.upper, args):
            session.held = True
            session.settle()

    # Transactions

    def _queue(self, session: Session, transaction: Transaction, route: Route, args: list[bytes]) -> Reply:
        if "no_multi" in route.command.flags:
            raise CommandError("Command not allowed inside a transaction")
        if route.command.name == "WATCH":  # refused, yet the transaction stays good
            return CommandError("WATCH inside MULTI is not allowed")
        if not route.local:
            self._keep_to_one_shard(session, transaction, route, args)
        transaction.add(route, args)
        if transaction.size_bytes > self._server.settings.client_query_buffer_limit:
            session.closing = True
            raise CommandError("the transaction is larger than client-query-buffer-limit")
        return QUEUED

    def _keep_to_one_shard(self, session: Session, transaction: Transaction, route: Route, args: list[bytes]) -> None:
        """Raises ``-CROSSSLOT`` unless the command goes where the transaction, and what was watched for it, is."""
        parts, merge = self._targets.of(session, route, args)
        if merge is not None:
            raise cross_slot(f"'{route.name}' concerns several shards, and a transaction is in one")
        number = parts[0][0]
        self._check_room(route, args, [number])
        known = transaction.shard
        if known is None and session.watched is not None:
            known = session.watched.number
        if known not in (None, number):
            raise cross_slot()
        transaction.shard = number

    def _execute_transaction(self, session: Session) -> None:
        """EXEC: the queued commands become one command of the log.

        Reads among them are logged too, for this node may not be the one that
        carries it out; local ones (PING, CLIENT …) are run here when the answer is
        there. When there is nothing to log, all are carried out as one read is.
        """
        transaction = session.transaction
        if transaction is None:
            raise CommandError("EXEC without MULTI")
        session.transaction = None
        session.settle()
        if transaction.failed:
            self._server.unwatch(session)
            raise CommandError("Transaction discarded because of previous errors.", "EXECABORT")
        if session.watched is None and not any(route.logged for route, _ in transaction.commands):
            self._execute_reads(session, transaction)
            return
        refusal = self._server.refusal
        if refusal is not None:
            self._server.unwatch(session)
            reason = f"{refusal.code} {refusal.message}"
            raise CommandError(f"Transaction discarded because of: {reason}", "EXECABORT")
        number = transaction.shard
        if number is None:
            number = 0 if session.watched is None else session.watched.number
        try:
            for route, args in transaction.commands:
                self._check_room(route, args, [number])
        except CommandError as error:
            self._server.unwatch(session)
            raise CommandError(f"Transaction discarded because of: {error.code} {error.message}", "EXECABORT") from None
        watched, session.watched = session.watched is not None, None
        shard = session.written = self._server.shard(number)
        steps = transaction.in_shard
        shard.submit(
            self._claim(session, shard, self._calls.weaving(session, transaction.commands)),
            self._calls.transaction(session, shard, steps, watched=watched),
            [b"EXEC"],
            logged=transactions.logged([(args, not route.logged) for route, args in steps], watched=watched),
            origin=session.known_to(shard),
        )

    def _execute_reads(self, session: Session, transaction: Transaction) -> None:
        """EXEC where nothing is to be logged."""
        weave = self._calls.weaving(session, transaction.commands)
        steps = transaction.in_shard
        if not steps:
            self._reply(session, [] if weave is None else weave([]))
            return
        shard = self._server.shard(transaction.shard or 0)
        handler = self._calls.looks(session, shard, steps)
        self._look(session, shard, handler, transactions.looking([args for _, args in steps]), weave)

    # Answering

    def _reply(self, session: Session, reply: Reply) -> None:
        """Answers now when nothing is owed before, else in its place.

        A local command that answers `WAITING` has seen to it that its answer
        comes by `deliver`, and holds the session until then.
        """
        if reply is WAITING:
            return
        if session.pending:
            self._place(session).reply = reply
            return
        self._answer(session, reply)
        if session.out and len(session.out[-1]) > LARGE_REPLY_BYTES:
            self._count_large(session, len(session.out[-1]))

    def _count_large(self, session: Session, size_bytes: int) -> None:
        session.out_bytes += size_bytes
        if session.out_bytes > UNREAD_BYTES_MAX:
            session.held = session.glutted = True
            session.settle()
