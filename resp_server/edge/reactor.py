"""The one task that holds every socket: a turn reads, runs, commits, answers.

A turn takes whatever sockets are ready, runs every complete command, makes the
turn's writes durable in one commit, and sends one buffer to each client. So
the batch grows with the load, and nothing here is a task or a switch per
client. Between turns the reactor waits on the poller's own descriptor through
Trio, and under load it lets Trio's other tasks run every few milliseconds. After
a turn that served clients, or made their writes durable, it looks for more for a
moment first, unless others wait for the processor. When nothing but signs of life comes, those of all nodes are
gathered into one turn: they are sent at about the same time, and most of what
an idle node costs are its turns.

A process can be stopped at any point and go on later without noticing. Four
rules keep that harmless: the time of a turn is taken after its mail was read,
so a leader is never heard earlier than it spoke; after a long pause the mail
is read before any timer runs; what was read under a lease is not sent when
the lease has run out by the end of the reading, until it is certain all the same (doubt.py);
and whoever's session may have been ended meanwhile is closed before it is read from, or sent anything (lapses.py).
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable

import trio

from cluster.doubt import Doubt
from cluster.raft.messages import Alive, Heartbeat, Presence
from resp_server.dispatch import Dispatcher
from resp_server.edge.alarm import new_alarm
from resp_server.edge.clock import Clock
from resp_server.edge.connection import RECEIVE_BYTES, Connection, endpoints, keep_alive
from resp_server.edge.disk import Disk
from resp_server.edge.link import Links, Mail
from resp_server.edge.listeners import STANDING_MAX, Doorstep, Listeners
from resp_server.edge.poller import BROKEN, GONE, READ, WRITE, new_poller
from resp_server.edge.processors import Processors
from resp_server.lapses import Lapses
from resp_server.logs import LOGGER
from resp_server.protocol.requests import Limits
from resp_server.server import Server
from resp_server.session import Session

SHARE_NS = 4_000_000
"""How long turns may follow each other before Trio's other tasks get theirs."""

AWAKE_NS = 50_000
"""After a turn that served somebody: how long to look for the next request without sleeping."""

LINGER_S = 0.001
"""After that: how long to sleep here, before giving the thread to Trio."""

GATHER_MS = 3
"""How long to wait for the others' signs of life once one has come."""

SIGNS_OF_LIFE = (Heartbeat, Alive, Presence)

PAUSE_MS = 100
"""After a pause of this length there may be mail that is to be read before any timer runs."""

SETTLE_MS = 10
"""After this time a turn is whole, whatever it brings: somebody may have asked for what no timer knows of yet."""

DRAIN_S = 5.0
"""How long a graceful stop waits for clients to be answered, and then to take what they are owed."""

LEADERLESS_S_MAX = 10
"""How long those who wait are left in peace while there is no leader."""


def _monotonic_ms() -> float:
    return time.monotonic_ns() / 1e6


class Reactor:
    """Moves bytes between sockets and the core, turn by turn.

    ``links`` are the sockets to and from other nodes. ``on_peer`` hears of a
    connection that turned out to be a peer's: (its id, its address);
    ``after_turn`` is called when members or links may have come or gone, and
    whenever the core of a node that has links was run.
    """

    def __init__(
        self, server: Server, dispatcher: Dispatcher, disk: Disk, clock: Clock, limits: Limits, clients_max: int
    ) -> None:
        self._server = server
        self._node = server.node
        self._acknowledgements = server.acknowledgements
        self._dispatcher = dispatcher
        self._disk = disk
        self._clock = clock
        self._limits = limits
        self._clients_max = clients_max
        self._poller = new_poller()
        self._alarm = new_alarm(self._poller.fileno())
        self._processors = Processors()
        self.links = Links(self._poller, self._node)
        self.on_peer: Callable[[str, str], None] = lambda peer, address: None
        self.after_turn: Callable[[], None] = lambda: None
        self._members = self._node.members
        self._linked = False
        self._listeners = Listeners(self._poller)
        self._doorstep = Doorstep(self._poller, server.stats)
        self._lapses = Lapses(server)
        self._connections: dict[int, Connection] = {}
        self._of_session: dict[int, Connection] = {}
        self._stopping = False
        self._serving = False
        self._leaderless_s: dict[int, int] = {}  # by shard
        self._settle_at_ms = 0.0
        self._doubts: dict[Session, list[Doubt]] = {}  # who is not to see yet what it read
        self._node.cache.clock_ms = _monotonic_ms
        self._bell = disk.bell.fileno()
        self._poller.watch(self._bell, READ)

    # Life

    def listen(self, listener: socket.socket) -> None:
        """Accepts clients from a listening socket."""
        self._listeners.add(listener)

    async def run(self) -> None:
        """Takes turns until it is cancelled."""
        poll = self._poller.poll
        shared_ns = time.monotonic_ns()
        self.turn([])  # what recovery left to be logged
        while True:
            ready = poll(0)
            if not ready and not self._busy:
                if self._serving:
                    self._serving = False
                    ready = self._look_again() or poll(LINGER_S)
                if not ready:
                    ready = await self._wait()
                    shared_ns = time.monotonic_ns()
            self.turn(ready)
            if time.monotonic_ns() - shared_ns > SHARE_NS:
                await trio.lowlevel.checkpoint()
                shared_ns = time.monotonic_ns()

    def _look_again(self) -> list[tuple[int, int]]:
        """Polls without sleeping for a moment, where nobody else wants the processor: a request is often that near."""
        poll = self._poller.poll
        now_ns = time.monotonic_ns()
        if not self._processors.are_free(now_ns):
            return []
        until_ns = now_ns + AWAKE_NS
        while not (ready := poll(0)) and time.monotonic_ns() < until_ns:
            pass
        return ready

    @property
    def _busy(self) -> bool:
        """Whether there is work that no socket has to announce."""
        if self._dispatcher.resumed:
            return True
        return self._node.busy and not (self._disk.under_way or self._server.refusal is not None)

    async def _wait(self) -> list[tuple[int, int]]:
        """Waits through Trio until a socket is ready, an alarm is due or a timer has run out."""
        await self._alarm.wait(self._patience_s())
        return self._poller.poll(0)

    def _patience_s(self) -> float:
        limit_ms = math.inf
        due_ms = None if self._server.refusal or self._disk.under_way else self._node.next_due_ms()
        if due_ms is not None:
            limit_ms = due_ms - self._clock.now_ms()
        for timer_ms in (self._node.next_tick_ms(), self._acknowledgements.next_due_ms(), self._lapses.next_ms):
            if timer_ms is not None:
                limit_ms = min(limit_ms, timer_ms - time.monotonic() * 1000)
        return max(0, limit_ms) / 1000

    async def drain(self) -> None:
        """Answers what has arrived, sends what is owed, and closes every connection."""
        self._listeners.close()
        cache = self._node.cache
        cache.retire()
        self.turn(self._poller.poll(0))
        with trio.move_on_after(DRAIN_S):
            while cache.dirty or any(connection.session.pending for connection in self._connections.values()):
                self.turn(await self._wait())
        if cache.dirty:
            LOGGER.warning("what clients wrote to this node's cache could not be made durable", {"lines": cache.dirty})
        while self._disk.under_way:
            await trio.lowlevel.wait_readable(self._bell)
            self.turn([(self._bell, READ)])
        self._stopping = True
        for connection in self._connections.values():
            if not connection.ended:
                self._look_out(connection)
        with trio.move_on_after(DRAIN_S):
            while any(connection.unsent for connection in self._connections.values()):
                self.turn(await self._wait())
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._finish()
        self.links.close()
        self.close()

    def close(self) -> None:
        """Lets go of what turns are waited for with."""
        self._alarm.close()
        self._processors.close()
        self._poller.close()

    # A turn

    def turn(self, ready: list[tuple[int, int]]) -> None:
        """Serves sockets that are ready, and whatever is due."""
        whole = not ready
        if self.links.some:
            whole = self._hear(ready) or whole
        else:
            self._advance()
        self._close_lapsed(self._node.monotonic_ms)
        connections = self._connections
        outbox = self._dispatcher.outbox
        for fd, event in ready:
            connection = connections.get(fd)
            if connection is None:
                if fd == self._bell:
                    self._disk.collect()
                    whole = True
                else:
                    self._accept(fd)
                continue
            if event & WRITE:
                self._drain_one(connection)
                if connection.session.closed:
                    continue
            if event & READ:
                self._read(connection)
                outbox[connection.session] = None
            elif event & GONE:
                self._end(connection, unread=not event & BROKEN)
        self._finish(whole=whole)

    def _advance(self) -> None:
        clock = self._clock
        now_ms = clock.now_ms()
        self._node.advance(now_ms, clock.monotonic_ns / 1e6)

    def _look(self, ready: list[tuple[int, int]]) -> tuple[float, list[Mail]]:
        """The mail of the links that are ready, and when that was, in monotonic milliseconds."""
        mail = self.links.hear(ready)
        return time.monotonic_ns() / 1e6, mail

    def _gather(self, ready: list[tuple[int, int]], came: list[tuple[float, list[Mail]]]) -> None:
        """Waits a moment for more if nothing has come but signs of life, and adds what comes."""
        until_ms = came[0][0] + GATHER_MS
        looked_at = 0
        while (left_ms := until_ms - time.monotonic_ns() / 1e6) > 0:
            if not all(self.links.has(fd) for fd, _ in ready[looked_at:]):
                return
            if not all(isinstance(message, SIGNS_OF_LIFE) for _, _, message in came[-1][1]):
                return
            looked_at = len(ready)
            more = self._poller.poll(left_ms / 1000)
            ready += more
            came.append(self._look(more))

    def _hear(self, ready: list[tuple[int, int]]) -> bool:
        """Reads the mail of the links that are ready, moves the clocks, and hands the mail to the node, if any came."""
        node = self._node
        last_ms = node.monotonic_ms
        came = [self._look(ready)]
        if came[0][1] and not self._serving:
            self._gather(ready, came)
        self._advance()
        if node.monotonic_ms - last_ms > PAUSE_MS:
            came.append(self._look(self._poller.poll(0)))
            self._advance()
        count = 0
        for at_ms, mail in came:
            held_ms = max(0.0, node.monotonic_ms - at_ms)
            count += len(mail)
            for peer, shard, message in mail:
                node.receive(peer, shard, message, held_ms)
        self._server.stats.peer_messages_received += count
        return count > 0

    def _read(self, connection: Connection) -> None:
        try:
            data = os.read(connection.fd, RECEIVE_BYTES)
        except BlockingIOError:
            connection.unread = False
            return
        except OSError:
            self._drop(connection)
            return
        if not data:
            self._end(connection)
            return
        session = connection.session
        session.last_active_ms = self._node.now_ms
        stats = self._server.stats
        stats.input_bytes += len(data)
        parser = connection.parser
        commands = parser.feed(data)
        connection.gathered_bytes += len(data)
        if commands:
            limit_bytes = self._server.settings.queue_warn_payload_bytes
            if connection.gathered_bytes > limit_bytes:
                self._server.large_payloads.look(commands, limit_bytes, self._node.monotonic_ms)
            connection.gathered_bytes = len(data)  # the next command may have begun in it
        stats.commands += len(commands)
        self._dispatcher.execute(session, commands)
        if not parser.authenticated and session.authenticated:
            self._read_on_as_known(connection)
        if parser.error is not None:
            self._break(connection)

    def _end(self, connection: Connection, *, unread: bool = False) -> None:
        """The client sends no more: it gets what it is owed for what it sent before, but does not wait for anything.

        While it is not read from, some of that may still be ``unread``.
        """
        if not connection.ended:
            self._poller.forget(connection.fd)
        connection.ended, connection.unread = True, unread
        connection.interest = 0
        self._after_sending(connection)

    def _go_on_with(self, connection: Connection) -> None:
        """The client had ended, and all of it that was read is answered: reads on, or closes."""
        if connection.unread:
            self._dispatcher.outbox[connection.session] = None
            self._read(connection)
        else:
            self._drop(connection)

    def _read_on_as_known(self, connection: Connection) -> None:
        """The client authenticated in this chunk: what follows in it has the usual limits."""
        connection.parser.authenticated = True
        while commands := connection.parser.feed(b""):
            self._server.stats.commands += len(commands)
            self._dispatcher.execute(connection.session, commands)

    def _break(self, connection: Connection) -> None:
        """The client broke the protocol: tell it, after what came before, and close."""
        error = connection.parser.error
        assert error is not None
        about = {"client": connection.session.address, "error": error.line}
        LOGGER.info("closed a client that broke the protocol", about)
        self._dispatcher.refuse(connection.session, error.line)

    def _finish(self, *, whole: bool = True) -> None:
        """Runs the turn through the core, delivers its answers, and sends.

        Most turns only bring reads, which were answered already: unless the turn
        is to be ``whole``, the core is left alone when it has nothing to do yet.
        """
        dispatcher, node = self._dispatcher, self._node
        self._look_at_leases()
        if whole or node.busy or node.monotonic_ms >= self._settle_at_ms:
            self._catch_up()
            self._settle()
        while dispatcher.resumed:
            resumed, dispatcher.resumed = dispatcher.resumed, []
            node.advance(node.now_ms, node.monotonic_ms)
            for session in resumed:
                if not session.closed:
                    dispatcher.resume(session)
                    dispatcher.outbox[session] = None
            self._look_at_leases()
            self._settle()
        if self._doubts:
            self._resolve()
        self._close_lapsed(time.monotonic() * 1000)
        while dispatcher.outbox:
            self._serving = True
            outbox, dispatcher.outbox = dispatcher.outbox, {}
            for session in outbox:
                connection = self._of_session.get(session.id)
                if connection is not None and session not in self._doubts:
                    self._flush(connection)

    def _catch_up(self) -> None:
        """Moves the clocks on: what clients asked for came by now, and is answered under leases that stand now."""
        node, clock = self._node, self._clock
        clock.now_ms()
        monotonic_ms = clock.monotonic_ns / 1e6
        if monotonic_ms - node.monotonic_ms > PAUSE_MS and self.links.some:
            self._hear(self._poller.poll(0))
        else:
            node.pass_time(monotonic_ms)

    def _settle(self) -> None:
        """Timers, the log and the disk, and what became of it: messages to peers, answers to clients."""
        node = self._node
        node.tick()
        if not self._disk.under_way and self._server.refusal is None:
            work = node.ready()
            if work is not None:
                self._serving = True
                self._send()  # the others' disks are at it while this one is
                self._disk.commit(work, here=self._stopping)
        self._dispatcher.deliver(node.apply())
        if node.cache.lost:
            self._tell_lost()
        if self._acknowledgements.waiting:
            self._dispatcher.deliver(self._acknowledgements.look())
        self._send()
        linked = self.links.some
        if linked or self._linked or self._members is not node.members:
            self._linked, self._members = linked, node.members
            self.after_turn()
        tick_ms = node.next_tick_ms()
        latest_ms = node.monotonic_ms + SETTLE_MS
        self._settle_at_ms = latest_ms if tick_ms is None else min(tick_ms, latest_ms)

    def _tell_lost(self) -> None:
        cache = self._node.cache
        lost, cache.lost = cache.lost, {}
        for shard, lines in lost.items():
            LOGGER.warning("what clients wrote to this node's cache may be lost", {"shard": shard, "lines": lines})

    def _send(self) -> None:
        messages = self._node.outgoing()
        if messages:
            self._server.stats.peer_messages_sent += len(messages)
            self.links.send(messages)

    def _look_at_leases(self) -> None:
        """Where one ran out while reads were answered, they may be stale: nobody gets to see them for now."""
        monotonic_ms = time.monotonic() * 1000
        if self._node.reads_lapsed(monotonic_ms):
            doubt = self._node.doubt(monotonic_ms)
            for session in self._dispatcher.outbox:
                if session.out or any(place.partly_read for place in session.places):
                    self._doubts.setdefault(session, []).append(doubt)

    def _resolve(self) -> None:
        """Lets clients have what was in doubt once it is certain, and closes those for whom it never will be."""
        for session, doubts in list(self._doubts.items()):
            connection = self._of_session.get(session.id)
            verdicts = [doubt.verdict() for doubt in doubts]
            if connection is None:
                del self._doubts[session]
            elif False in verdicts:
                del self._doubts[session]
                LOGGER.warning("closed a client whose read may have been stale", {"client": session.address})
                self._drop(connection)
            elif all(verdicts):
                del self._doubts[session]
                self._dispatcher.outbox[session] = None

    def _close_lapsed(self, monotonic_ms: float) -> None:
        """Closes those whose sessions the leaders of shards may have ended by then."""
        if monotonic_ms < self._lapses.next_ms:
            return
        found = self._lapses.look(monotonic_ms)
        for session in found:
            connection = self._of_session.get(session.id)
            if connection is not None:
                self._drop(connection)
        if found:
            self._server.stats.lapse_disconnections += len(found)
            LOGGER.warning("closed clients whose sessions may be over: this node is cut off", {"clients": len(found)})

    # Sending

    def _flush(self, connection: Connection) -> None:
        session = connection.session
        out = session.out
        if out:
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            try:
                self._server.stats.output_bytes += connection.send(data)
            except OSError:
                self._drop(connection)
                return
            if not connection.unsent:
                session.out_bytes = 0
                if session.plain and connection.interest == READ and not connection.killed:
                    return  # nothing special about it: as nearly always
        self._after_sending(connection)

    def _drain_one(self, connection: Connection) -> None:
        try:
            self._server.stats.output_bytes += connection.drain()
        except OSError:
            self._drop(connection)
            return
        self._after_sending(connection)

    def _after_sending(self, connection: Connection) -> None:
        """Closes, waits for the socket to take more, or lets a client go on that has caught up."""
        session = connection.session
        if connection.killed or (session.closing and not connection.unsent and not session.pending):
            if connection.peer and not connection.killed:
                self._hand_over(connection)
            else:
                self._drop(connection)
            return
        if connection.ended:
            if connection.unsent or session.blocked:
                self._drop(connection)
            elif not (session.pending or session.backlog):
                self._go_on_with(connection)
            return
        if connection.unsent and connection.over_limit(self._server.settings.client_output_buffer_limit):
            self._drop_deaf(connection)
            return
        if not connection.unsent:
            connection.over_soft_since_s = None
            session.out_bytes = 0
            if session.glutted:
                self._dispatcher.relieve(session)
        self._look_out(connection)

    def _look_out(self, connection: Connection) -> None:
        """Asks the poller for what this connection can go on with."""
        session = connection.session
        paused = session.closing or self._stopping or (session.held and (session.backlog or session.broken is not None))
        interest = WRITE if connection.unsent else 0 if paused else READ
        if interest != connection.interest:
            connection.interest = interest
            self._poller.change(connection.fd, interest)

    # Coming and going

    def _accept(self, fd: int) -> None:
        for client, peer in self._listeners.accept(fd):
            excess = len(self._connections) - min(self._server.settings.maxclients, self._clients_max)
            if excess < 0:
                self._welcome(client, peer)
            elif not (self._node.addresses() and excess < STANDING_MAX and self._doorstep.take(client, peer)):
                self._doorstep.turn_away(client)
        if (node := self._doorstep.look(fd)) is not None:
            self._welcome(*node)

    def _welcome(self, client: socket.socket, peer: object) -> None:
        try:
            if client.family != socket.AF_UNIX:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                keep_alive(client, self._server.settings.tcp_keepalive)
        except OSError:  # macOS says so when the client has gone already
            client.close()
            return
        session = self._server.connect(*endpoints(client, peer))
        connection = Connection(client, session, self._limits, READ)
        self._connections[connection.fd] = connection
        self._of_session[session.id] = connection
        self._poller.watch(connection.fd, READ)

    def _drop(self, connection: Connection) -> None:
        """Closes a connection, whatever it was doing."""
        if self._let_go(connection):
            if not connection.ended:
                self._poller.forget(connection.fd)
            connection.socket.close()

    def _let_go(self, connection: Connection) -> bool:
        """The connection is no client's any more; whether it still was."""
        if connection.session.closed:
            return False
        self._server.disconnect(connection.session)
        del self._connections[connection.fd]
        del self._of_session[connection.session.id]
        return True

    def adopt(self, session: Session, peer: str, address: str) -> None:
        """The client proved to be a peer: once it has its answer, its connection is the link from there."""
        connection = self._of_session.get(session.id)
        if connection is not None:
            connection.peer, connection.peer_address = peer, address
            session.closing = True  # as a client
            session.settle()
            self._dispatcher.outbox[session] = None

    def _hand_over(self, connection: Connection) -> None:
        if connection.parser.buffered_bytes:
            self._drop(connection)  # it did not wait for the answer
        elif self._let_go(connection):
            self.links.adopt(connection.peer, connection.socket)
            self.on_peer(connection.peer, connection.peer_address)

    def _drop_deaf(self, connection: Connection) -> None:
        self._server.stats.output_limit_disconnections += 1
        LOGGER.warning("closed a client that does not read its replies", {"client": connection.session.address})
        self._drop(connection)

    def kill(self, session: Session) -> None:
        """Closes a client's connection at the end of this turn, after an attempt to send what it is owed."""
        connection = self._of_session.get(session.id)
        if connection is not None:
            connection.killed = True
            self._dispatcher.outbox[session] = None

    def unsent_bytes(self, session: Session) -> int:
        """What the client was sent but has not taken yet."""
        connection = self._of_session.get(session.id)
        return connection.unsent_bytes if connection is not None else 0

    def sweep(self) -> None:
        """Closes clients that were idle for too long or stayed over their soft output limit; once a second or so."""
        timeout_ms = self._server.settings.timeout * 1000
        now_ms = self._clock.now_ms()
        for connection in list(self._connections.values()):
            session = connection.session
            if connection.unsent and connection.over_limit(self._server.settings.client_output_buffer_limit):
                self._drop_deaf(connection)
            elif (
                timeout_ms and not (session.waiting or session.pending) and now_ms - session.last_active_ms > timeout_ms
            ):
                LOGGER.info("closed an idle client", {"client": session.address})
                self._drop(connection)
        self._listeners.watch()
        self._doorstep.clear()
        self._server.observers.ask_again()
        for shard in self._node.each():
            seconds = 0 if shard.has_leader else self._leaderless_s.get(shard.number, 0) + 1
            self._leaderless_s[shard.number] = seconds
            if seconds == LEADERLESS_S_MAX:
                self._dispatcher.give_up_waits(shard)
        self._finish()
