"""The one task that holds every socket: a turn reads, runs, commits, answers.

A turn takes whatever sockets are ready, runs every complete command, makes the
turn's writes durable in one commit, and sends one buffer to each client. So
the batch grows with the load, and nothing here is a task or a switch per
client. Between turns the reactor waits on the poller's own descriptor through
Trio, and under load it lets Trio's other tasks run every few milliseconds.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Iterable

import trio

from cluster.node import Answers
from resp_server.dispatch import Dispatcher
from resp_server.edge.clock import Clock
from resp_server.edge.connection import RECEIVE_BYTES, Connection
from resp_server.edge.disk import Disk
from resp_server.edge.poller import GONE, READ, WRITE, new_poller
from resp_server.logs import LOGGER
from resp_server.protocol.requests import Limits
from resp_server.server import Server
from resp_server.session import Session

SHARE_NS = 4_000_000
"""How long turns may follow each other before Trio's other tasks get theirs."""

AWAKE_NS = 50_000
"""After a turn: how long to look for the next request without sleeping."""

LINGER_S = 0.001
"""After that: how long to sleep here, before giving the thread to Trio."""

ACCEPTS_PER_TURN = 256
KEEPALIVE_S_MAX = 32767  # more is an error on Linux
DRAIN_S = 5.0
"""How long a graceful stop waits for clients to take what they are owed."""


class Reactor:
    """Moves bytes between clients and the dispatcher, turn by turn."""

    def __init__(
        self, server: Server, dispatcher: Dispatcher, disk: Disk, clock: Clock, limits: Limits, clients_max: int
    ) -> None:
        self._server = server
        self._node = server.node
        self._dispatcher = dispatcher
        self._disk = disk
        self._clock = clock
        self._limits = limits
        self._clients_max = clients_max
        self._poller = new_poller()
        self._listeners: dict[int, socket.socket] = {}
        self._connections: dict[int, Connection] = {}
        self._of_session: dict[int, Connection] = {}
        self._stopping = False
        self._bell = disk.bell.fileno()
        self._poller.watch(self._bell, READ)

    # Life

    def listen(self, listener: socket.socket) -> None:
        """Accepts clients from a listening socket."""
        listener.setblocking(False)
        self._listeners[listener.fileno()] = listener
        self._poller.watch(listener.fileno(), READ)

    async def run(self) -> None:
        """Takes turns until it is cancelled."""
        poll = self._poller.poll
        shared_ns = time.monotonic_ns()
        self.turn([])  # what recovery left to be logged
        while True:
            ready = poll(0)
            if not ready and not self._busy:
                ready = self._look_again() or poll(LINGER_S)
                if not ready:
                    ready = await self._wait()
                    shared_ns = time.monotonic_ns()
            self.turn(ready)
            if time.monotonic_ns() - shared_ns > SHARE_NS:
                await trio.lowlevel.checkpoint()
                shared_ns = time.monotonic_ns()

    def _look_again(self) -> list[tuple[int, int]]:
        """Polls without sleeping for a moment: the next request is often nearer than a wake-up."""
        poll = self._poller.poll
        until_ns = time.monotonic_ns() + AWAKE_NS
        while not (ready := poll(0)) and time.monotonic_ns() < until_ns:
            pass
        return ready

    @property
    def _busy(self) -> bool:
        """Whether there is work that no socket has to announce."""
        if self._dispatcher.resumed:
            return True
        return not (self._node.idle or self._disk.under_way or self._server.refusal is not None)

    async def _wait(self) -> list[tuple[int, int]]:
        """Waits through Trio until a socket is ready or an alarm is due."""
        due_ms = None if self._server.refusal or self._disk.under_way else self._node.next_due_ms()
        limit_s = math.inf if due_ms is None else max(0, due_ms - self._clock.now_ms()) / 1000
        with trio.move_on_after(limit_s):
            await trio.lowlevel.wait_readable(self._poller.fileno())
        return self._poller.poll(0)

    def stop_accepting(self) -> None:
        """Closes the listening sockets."""
        for fd, listener in self._listeners.items():
            self._poller.forget(fd)
            listener.close()
        self._listeners.clear()

    async def drain(self) -> None:
        """Answers what has arrived, sends what is owed, and closes every connection."""
        self.stop_accepting()
        self.turn(self._poller.poll(0))
        while self._disk.under_way:
            await trio.lowlevel.wait_readable(self._bell)
            self.turn([(self._bell, READ)])
        self._stopping = True
        for connection in self._connections.values():
            self._look_out(connection)
        with trio.move_on_after(DRAIN_S):
            while any(connection.unsent for connection in self._connections.values()):
                await trio.lowlevel.wait_readable(self._poller.fileno())
                self.turn(self._poller.poll(0))
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._finish()
        self._poller.close()

    # A turn

    def turn(self, ready: Iterable[tuple[int, int]]) -> None:
        """Serves sockets that are ready, and whatever is due."""
        self._node.advance(self._clock.now_ms())
        connections = self._connections
        outbox = self._dispatcher.outbox
        for fd, event in ready:
            connection = connections.get(fd)
            if connection is None:
                if fd in self._listeners:
                    self._accept(self._listeners[fd])
                elif fd == self._bell:
                    self._answer(self._disk.collect())
                continue
            if event & WRITE:
                self._drain_one(connection)
            if event & READ:
                self._read(connection)
                outbox[connection.session] = None
            elif event & GONE:
                self._drop(connection)
        self._finish()

    def _read(self, connection: Connection) -> None:
        try:
            data = os.read(connection.fd, RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
            return
        session = connection.session
        session.last_active_ms = self._node.now_ms
        stats = self._server.stats
        stats.input_bytes += len(data)
        parser = connection.parser
        commands = parser.feed(data)
        stats.commands += len(commands)
        self._dispatcher.execute(session, commands)
        if not parser.authenticated and session.authenticated:
            self._read_on_as_known(connection)
        if parser.error is not None:
            self._break(connection)

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

    def _finish(self) -> None:
        """Commits the turn, delivers its answers, and sends."""
        dispatcher = self._dispatcher
        self._commit()
        while dispatcher.resumed:
            resumed, dispatcher.resumed = dispatcher.resumed, []
            for session in resumed:
                if not session.closed:
                    dispatcher.resume(session)
                    dispatcher.outbox[session] = None
            self._commit()
        while dispatcher.outbox:
            outbox, dispatcher.outbox = dispatcher.outbox, {}
            for session in outbox:
                connection = self._of_session.get(session.id)
                if connection is not None:
                    self._flush(connection)

    def _commit(self) -> None:
        if self._server.refusal is not None or self._disk.under_way:
            return
        work = self._node.ready()
        if work is not None:
            answers = self._disk.commit(work, here=self._stopping)
            if answers is not None:
                self._answer(answers)

    def _answer(self, answers: Answers) -> None:
        self._dispatcher.deliver(answers)
        self._node.advance(self._node.now_ms)

    def deliver(self, answers: Answers) -> None:
        """Hands over answers that did not come from a turn."""
        self._dispatcher.deliver(answers)
        self._finish()

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
            self._drop(connection)
            return
        if connection.unsent and self._over_limit(connection):
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

    def _over_limit(self, connection: Connection) -> bool:
        limit = self._server.settings.client_output_buffer_limit
        if limit.hard_bytes and connection.unsent_bytes > limit.hard_bytes:
            return True
        if not limit.soft_bytes or connection.unsent_bytes <= limit.soft_bytes:
            connection.over_soft_since_s = None
            return False
        now_s = time.monotonic()
        if connection.over_soft_since_s is None:
            connection.over_soft_since_s = now_s
        return now_s - connection.over_soft_since_s > limit.soft_s

    # Coming and going

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                client, peer = listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # gone already
            except OSError as error:  # out of descriptors or memory: `sweep` tries again
                LOGGER.warning("clients cannot be accepted for now", {"reason": error.strerror})
                self._poller.change(listener.fileno(), 0)
                return
            client.setblocking(False)
            if len(self._connections) >= min(self._server.settings.maxclients, self._clients_max):
                self._turn_away(client)
                continue
            self._welcome(client, peer)

    def _turn_away(self, client: socket.socket) -> None:
        self._server.stats.rejected_connections += 1
        try:
            client.send(b"-ERR max number of clients reached\r\n")
        except OSError:
            LOGGER.debug("a client that was turned away had gone already")
        client.close()

    def _welcome(self, client: socket.socket, peer: object) -> None:
        if client.family == socket.AF_UNIX:
            address = local = f"{client.getsockname()}:0"
        else:
            try:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                keep_alive(client, self._server.settings.tcp_keepalive)
            except OSError:  # macOS says so when the client has gone already
                client.close()
                return
            address, local = endpoint(peer), endpoint(client.getsockname())
        session = self._server.connect(address, local)
        connection = Connection(client, session, self._limits, READ)
        self._connections[connection.fd] = connection
        self._of_session[session.id] = connection
        self._poller.watch(connection.fd, READ)

    def _drop(self, connection: Connection) -> None:
        """Closes a connection, whatever it was doing."""
        if connection.session.closed:
            return
        self._server.disconnect(connection.session)
        del self._connections[connection.fd]
        del self._of_session[connection.session.id]
        self._poller.forget(connection.fd)
        connection.socket.close()

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
            if connection.unsent and self._over_limit(connection):
                self._drop_deaf(connection)
            elif timeout_ms and not session.waiting and now_ms - session.last_active_ms > timeout_ms:
                LOGGER.info("closed an idle client", {"client": session.address})
                self._drop(connection)
        for fd in self._listeners:
            self._poller.change(fd, READ)
        self._finish()


def endpoint(address: object) -> str:
    """A socket address as ``host:port``, with brackets around an IPv6 host."""
    host, port = address[:2]  # type: ignore[index]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def keep_alive(client: socket.socket, seconds: int) -> None:
    """Probes a silent peer after ``seconds`` (0: never), as Redis does: three probes a third of that apart."""
    if not seconds:
        return
    seconds = min(seconds, KEEPALIVE_S_MAX)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", seconds), ("TCP_KEEPINTVL", max(1, seconds // 3)), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            client.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
