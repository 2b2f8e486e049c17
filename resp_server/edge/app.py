"""The program's life: what starts first, what drains last.

Coming up: the data folder, the cluster, the state, then the sockets. Going
down: the leadership, the listening sockets, what is in flight, a checkpoint,
the data folder.
"""

from __future__ import annotations

import gc
import os
import random
import resource
import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec
import trio

from cluster.carrying import Unreadable
from cluster.node import Node
from cluster.raft.core import Timing
from cluster.storage import FolderError, SqliteStorage
from resp_server import logs
from resp_server.commands.table import Table
from resp_server.dispatch import Dispatcher
from resp_server.edge.belonging import Belonging, NotTaken, unless_signalled
from resp_server.edge.clock import Clock
from resp_server.edge.disk import Disk
from resp_server.edge.peers import Peers
from resp_server.edge.reactor import Reactor
from resp_server.edge.snapshots import Snapshots
from resp_server.logs import LOGGER
from resp_server.memory import measure
from resp_server.protocol.requests import Limits
from resp_server.server import Server
from resp_server.session import Session
from resp_server.settings import ReadMode, Settings

SWEEP_S = 1.0
WEIGH_S = 0.1
"""How often it is looked whether ``maxmemory`` is reached."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
DESCRIPTORS_KEPT = 96
"""For the data folder, the log, the listening sockets and the other nodes."""

SWITCH_S = 0.0002
"""How long the loop may keep the interpreter from the thread that commits, which asks for it when the disk is done."""

HAND_OVER_S = 2.0
"""How long a leader that stops waits for another to take over."""

COLLECT_AFTER = 50_000
"""Objects between two runs of the garbage collector: almost nothing here forms cycles."""


UNREADABLE_HINT = "restore the folder from a copy, or run the version that wrote it"


class StartError(Exception):
    """The server cannot start; the message is one line for the person who started it."""


def serve(settings: Settings) -> int:
    """Runs a node until SIGTERM, SIGINT or SHUTDOWN; the exit code. Raises `StartError`."""
    sys.setswitchinterval(SWITCH_S)
    with ExitStack() as cleanup:
        listeners = listen(settings, cleanup)
        try:
            storage = SqliteStorage(Path(settings.dir), settings.appendfsync)
            cleanup.callback(storage.close)
            belonging = trio.run(unless_signalled, settings, storage, STOP_SIGNALS)
            if belonging is not None:
                trio.run(App(settings, storage, belonging, listeners, clients_max()).run)
        except (FolderError, NotTaken) as error:
            raise StartError(str(error)) from None
        except ExceptionGroup as failures:
            unreadable = failures.subgroup(Unreadable)
            if unreadable is None:
                raise
            raise StartError(f"the data cannot be read ({first_of(unreadable)}): {UNREADABLE_HINT}") from None
    LOGGER.info("bye")
    return 0


class App:
    """Everything one process runs; the `Edge` its commands see."""

    def __init__(
        self,
        settings: Settings,
        storage: SqliteStorage,
        belonging: Belonging,
        listeners: list[socket.socket],
        clients_max: int,
    ) -> None:
        self._storage = storage
        self._listeners = listeners
        table = Table()
        node = self._node = new_node(table, settings, belonging)
        recover(node, storage)
        self._clock = Clock(node.now_ms)
        self._limits = Limits()
        self._server = Server(node, table, settings, self, run_id=secrets.token_hex(20))
        self._dispatcher = Dispatcher(self._server)
        self._disk = Disk(self._server, storage)
        self._snapshots = Snapshots(node, storage, self._disk, lambda: self._server.settings.rebalance_bandwidth)
        self._reactor = Reactor(self._server, self._dispatcher, self._disk, self._clock, self._limits, clients_max)
        self._peers = Peers(node, self._reactor.links, settings.address, lambda: self._server.secret)
        self._reactor.on_peer = self._peers.called
        self._reactor.after_turn = self._after_turn
        self._server.on_refusal = self._dispatcher.hurry
        self._final_checkpoint = True
        self._stop = trio.Event()
        self._limit_changed = trio.Event()
        self._leads_no_more = trio.Event()
        self.settings_changed("")

    async def run(self) -> None:
        """Serves until told to stop."""
        for listener in self._listeners:
            self._reactor.listen(listener)
        gc.collect()
        gc.freeze()
        gc.set_threshold(COLLECT_AFTER, 20, 100)
        LOGGER.info("ready", {"node": self._node.name, "port": self._server.port, "pid": os.getpid()})
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # what the receiver leaves behind: by then nothing is to be stopped
        with trio.open_signal_receiver(*STOP_SIGNALS) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._stop_on_signals, signals)
                nursery.start_soon(self._disk.write)
                try:
                    await self._serve_until_stopped()
                    await self._reactor.drain()
                finally:
                    self._disk.close()
                if self._final_checkpoint and self._server.refusal is None:
                    await self._disk.checkpoint()
                nursery.cancel_scope.cancel()

    async def _serve_until_stopped(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._reactor.run)
            nursery.start_soon(self._disk.checkpoint_when_wanted)
            nursery.start_soon(self._disk.look_every_second)
            nursery.start_soon(self._snapshots.run)
            nursery.start_soon(self._peers.run)
            nursery.start_soon(self._mend)
            nursery.start_soon(self._sweep)
            nursery.start_soon(self._weigh)
            await self._stop.wait()
            await self._hand_leadership_over()
            nursery.cancel_scope.cancel()

    async def _hand_leadership_over(self) -> None:
        """A leader that stops sees to it that the others need not find out that it is gone."""
        if not self._node.leads:
            return
        self._node.resign()
        self._disk.ring()
        with trio.move_on_after(HAND_OVER_S) as patience:
            await self._leads_no_more.wait()
        if patience.cancelled_caught:
            LOGGER.warning("nobody took over all that this node leads: the others will elect leaders")

    def _after_turn(self) -> None:
        self._peers.look()
        self._snapshots.look()
        if self._stop.is_set() and not (self._node.leads and self._reactor.links.some):
            self._leads_no_more.set()

    async def _stop_on_signals(self, signals: AsyncIterator[int]) -> None:
        """The first signal stops; more of them, however many, change nothing."""
        async for number in signals:
            LOGGER.info("stopping", {"signal": signal.Signals(number).name})
            self._stop.set()

    async def _mend(self) -> None:
        while True:
            await self._disk.mend()

    async def _weigh(self) -> None:
        while True:
            limit_bytes = self._server.settings.maxmemory
            if self._server.fullness.weigh(measure().used_bytes if limit_bytes else 0, limit_bytes):
                self._dispatcher.hurry()
            self._limit_changed = trio.Event()
            with trio.move_on_after(WEIGH_S if limit_bytes else SWEEP_S):
                await self._limit_changed.wait()

    async def _sweep(self) -> None:
        while True:
            await trio.sleep(SWEEP_S)
            self._reactor.sweep()

    # What commands ask for

    def close(self, session: Session) -> None:
        self._reactor.kill(session)

    def stop(self, *, checkpoint: bool) -> None:
        self._final_checkpoint = checkpoint
        self._stop.set()

    def start_checkpoint(self) -> bool:
        return self._disk.want_checkpoint()

    def unsent_bytes(self, session: Session) -> int:
        return self._reactor.unsent_bytes(session)

    def adopt_peer(self, session: Session, peer: str, address: str) -> None:
        self._reactor.adopt(session, peer, address)

    def settings_changed(self, name: str) -> None:
        settings = self._server.settings
        self._limits.bulk_bytes_max = settings.proto_max_bulk_len
        self._limits.query_buffer_bytes_max = settings.client_query_buffer_limit
        self._storage.set_policy(settings.appendfsync)
        self._server.node.cache.resize(settings.cache_max_bytes)
        self._server.node.cache.write_backs.allow(settings.cache_writeback_ms)
        self._server.node.propagate(wanted=settings.cache_propagation)
        self._server.slowlog.configure(settings.slowlog_log_slower_than, settings.slowlog_max_len)
        self._dispatcher.hurry()
        if name == "maxmemory":
            self._limit_changed.set()
        logs.set_level(settings.loglevel)


def first_of(failures: BaseExceptionGroup[Unreadable]) -> BaseException:
    """One failure of a group, however deep."""
    failure: BaseException = failures
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure


def clients_max() -> int:
    """Raises the limit of open files as far as it goes; how many clients that is enough for."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS refuses its own hard limit when that is infinite
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(1, soft - DESCRIPTORS_KEPT)


def new_node(table: Table, settings: Settings, belonging: Belonging) -> Node:
    """The node, as it is before it knows what is on its disk."""
    leases = settings.read_mode is ReadMode.LEASE
    return Node(
        table.machine_commands(),
        identity=belonging.identity,
        boot=secrets.token_hex(4),
        timing=Timing(settings.election_timeout, settings.heartbeat_interval, leases),
        chance=random.Random(),
        members=belonging.members,
        founders=belonging.founders,
        address=settings.address,
        zone=settings.zone,
        node_timeout_ms=settings.node_timeout,
        session_timeout_ms=settings.session_timeout,
        cache_max_bytes=settings.cache_max_bytes,
        cache_lease_ms=settings.cache_lease_ms,
        cache_writeback_ms=settings.cache_writeback_ms,
        cache_propagation=settings.cache_propagation,
    )


def recover(node: Node, storage: SqliteStorage) -> None:
    """Rebuilds the node's state from its disk."""
    started_s = time.monotonic()
    replayed = 0
    gc.disable()  # a million new objects, none of them garbage
    try:
        for shard in node.each():
            found = storage.load(shard.number)
            entries = storage.entries(shard.number, found.checkpoint_index + 1)
            replayed += node.recover(shard.number, found, storage.rows(shard.number), entries)
    except (LookupError, msgspec.MsgspecError) as error:
        raise StartError(f"the data cannot be read ({error}): {UNREADABLE_HINT}") from None
    gc.enable()
    LOGGER.info(
        "recovered",
        {
            "keys": sum(len(shard.machine.keyspace) for shard in node.shards),
            "entries": replayed,
            "seconds": round(time.monotonic() - started_s, 3),
        },
    )


def listen(settings: Settings, cleanup: ExitStack) -> list[socket.socket]:
    """The listening sockets, which ``cleanup`` closes; `StartError` when one cannot be had."""
    listeners: list[socket.socket] = []
    if settings.port:
        for family, address in dict.fromkeys(resolved(host, settings) for host in settings.bind):
            listeners.append(listen_tcp(family, address, settings))
            cleanup.callback(listeners[-1].close)
    if settings.unixsocket:
        listeners.append(listen_unix(settings))
        cleanup.callback(listeners[-1].close)
        cleanup.callback(Path(settings.unixsocket).unlink, missing_ok=True)
    if not listeners:
        raise StartError("nothing to listen on: give --port, --unixsocket or both")
    return listeners


def resolved(host: str, settings: Settings) -> tuple[int, tuple[str, int]]:
    """The address family and the address that a name stands for; two names may stand for one."""
    try:
        found = socket.getaddrinfo(host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StartError(f"cannot listen on {host}: {reason}; check --bind") from None
    family, _, _, _, address = found[0]
    return family, (str(address[0]), settings.port)


def listen_tcp(family: int, address: tuple[str, int], settings: Settings) -> socket.socket:
    """A TCP socket listening on one address."""
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        listener.bind(address)
        listener.listen(settings.tcp_backlog)
    except OSError as error:
        listener.close()
        host, port = address
        raise StartError(
            f"cannot listen on {host}:{port}: {error.strerror}; stop what uses it or choose another --port"
        ) from None
    return listener


def listen_unix(settings: Settings) -> socket.socket:
    """A Unix socket; one left behind by a server that died is replaced, one in use is not."""
    path = settings.unixsocket
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if Path(path).is_socket() and not answers(path):
            Path(path).unlink()
        listener.bind(path)
        if settings.unixsocketperm:
            Path(path).chmod(settings.unixsocketperm)
        listener.listen(settings.tcp_backlog)
    except OSError as error:
        listener.close()
        raise StartError(f"cannot listen on {path}: {error.strerror or error}; choose another --unixsocket") from None
    return listener


def answers(path: str) -> bool:
    """Whether somebody accepts connections on a Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
