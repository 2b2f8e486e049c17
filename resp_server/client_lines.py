"""The connections of clients: where a lock or a queue can be asked for, and one question with its answer.

A `Line` carries out what a procedure of `resp_server.steps` says, for a thread, an
`AsyncLine` for a task. Each has a connection for itself while it works, made with the
address, credentials and TLS settings of the client or URL that was given. They speak
RESP2, in which nothing comes that was not asked for, and repeat nothing by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from resp_server.client_stops import AsyncStop, Stop
from resp_server.steps import REPLY_S, Ask, Lost, Outcome, Pause, Refusal, Reply, Steps, Unreached

KEPT = (
    "host", "port", "path", "db", "username", "password", "credential_provider", "client_name", "driver_info",
    "socket_connect_timeout", "socket_keepalive", "socket_keepalive_options",
)  # fmt: skip
"""The settings of a client's connections that ours have too, besides those of TLS."""

IDLE_MAX = 32
REDIRECTIONS_MAX = 8
HANG_UP_S = 2.0
"""How long a server may take to notice that a connection was closed."""

CODES = (
    (redis.exceptions.MasterDownError, "MASTERDOWN"),
    (redis.exceptions.ClusterDownError, "CLUSTERDOWN"),
    (redis.exceptions.TryAgainError, "TRYAGAIN"),
    (redis.exceptions.BusyLoadingError, "LOADING"),
    (redis.exceptions.AuthenticationError, "NOAUTH"),
    (redis.exceptions.AuthorizationError, "NOPERM"),
    (redis.exceptions.OutOfMemoryError, "OOM"),
    (redis.exceptions.NoPermissionError, "NOPERM"),
)
"""Errors whose first word redis-py takes off."""

Settings = dict[str, Any]
Connection = Any
"""One of redis-py's, which are typed in part only."""


BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""It goes on while the machine is suspended, as the servers' clocks do."""


def now_s() -> float:
    """Seconds that only grow, whatever is done to the wall clock."""
    return time.clock_gettime(BOOT_CLOCK)


def new_name(given: str | None) -> str:
    """What a server is to call one thread or task: a person's name for the program, and what makes it the only one."""
    return f"{given or f'{socket.gethostname()}:{os.getpid()}'}:{secrets.token_hex(6)}"


# Where to ask


@dataclass(frozen=True, slots=True)
class Place:
    """One server: the kind of connection it takes, and the settings for it."""

    connection: type[Any]
    settings: Settings

    @property
    def address(self) -> tuple[object, ...]:
        return tuple(map(self.settings.get, ("path", "host", "port")))


def find(servers: Any, pools: type[Any]) -> list[Place]:
    """The servers a client or URLs name; ``pools`` is the pool that reads URLs."""
    if isinstance(servers, str):
        servers = [servers]
    if hasattr(servers, "get_nodes"):
        found = [_place_of_node(servers, node) for node in servers.get_nodes() or servers.startup_nodes]
    elif hasattr(servers, "connection_pool"):
        found = [_place_of_pool(servers.connection_pool)]
    elif isinstance(servers, Sequence):
        found = [_place_of_pool(pools.from_url(url)) for url in servers]
    else:
        raise TypeError(f"a Redis client or URLs are wanted, not {type(servers).__name__}")
    if not found:
        raise ValueError("no server is named")
    return found


def _place_of_pool(pool: Any) -> Place:
    return _place(pool.connection_class, pool.connection_kwargs)


def _place_of_node(cluster: Any, node: Any) -> Place:
    if hasattr(node, "connection_kwargs"):
        return _place(node.connection_class, node.connection_kwargs)
    return _place_of_pool(cluster.get_redis_connection(node).connection_pool)


def _place(connection: type[Any], settings: Settings) -> Place:
    return Place(
        connection, {name: value for name, value in settings.items() if name in KEPT or name.startswith("ssl_")}
    )


class Route:
    """Whom to ask for one key: a server that was given, until it fails; one that it was sent to, until that fails.

    May be shared by threads: whoever finds that a place fails does not make the others leave a better one.
    """

    def __init__(self, places: list[Place]) -> None:
        self._places = places
        self._next = random.randrange(len(places))
        self._sent_to: Place | None = None

    @property
    def place(self) -> Place:
        return self._sent_to or self._places[self._next % len(self._places)]

    def failed(self, place: Place) -> None:
        """It does not answer, or cannot."""
        if place is self.place:
            if self._sent_to is None:
                self._next += 1
            self._sent_to = None

    def moved(self, here: Place, error: redis.exceptions.MovedError) -> None:
        """The place that was asked says who has the key."""
        self._sent_to = Place(here.connection, here.settings | {"host": error.host, "port": error.port})


class Idle:
    """Connections nobody uses, by where they go; not those of a process this one was forked from."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._idle: list[tuple[tuple[object, ...], Connection]] = []

    def take(self, place: Place) -> Connection | None:
        if self._pid != os.getpid():
            self._pid, self._idle = os.getpid(), []
        for found in reversed(self._idle.copy()):
            if found[0] == place.address:
                with contextlib.suppress(ValueError):  # another thread took it
                    self._idle.remove(found)
                    return found[1]
        return None

    def give(self, place: Place, connection: Connection) -> bool:
        """Keeps it, unless there are enough."""
        if len(self._idle) >= IDLE_MAX:
            return False
        self._idle.append((place.address, connection))
        return True

    def empty(self) -> Iterable[Connection]:
        idle, self._idle = self._idle, []
        return [connection for _, connection in idle]


# Carrying out


class Line:
    """A connection to wherever the key can be asked for."""

    def __init__(self, route: Route, idle: Idle) -> None:
        self._route = route
        self._place = route.place
        self._idle = idle
        self._connection: Connection | None = None
        self._is_interrupted = False  # in the middle of a question

    def carry_out(self, steps: Steps, stop: Stop | None = None) -> None:
        """Does what ``steps`` says, to its end or until ``stop`` is set; a `Bell` also ends the wait for an answer."""
        pause = time.sleep if stop is None else stop.wait
        step = next(steps, None)
        while step is not None and not (stop is not None and stop.is_set):
            try:
                if isinstance(step, Pause):
                    pause(step.seconds)
                    step = next(steps)
                else:
                    step = steps.send(self._ask(step, stop))
            except StopIteration:
                return

    def _ask(self, ask: Ask, stop: Stop | None) -> Outcome:
        for _ in range(REDIRECTIONS_MAX):
            try:
                connection = self._connected()
            except (redis.RedisError, OSError) as error:
                self._leave()
                return _not_connected(error)
            except BaseException:
                self._is_interrupted = True
                raise
            try:
                connection.send_command(*ask.words)
                if stop is not None and stop.comes_before(connection, ask.within_s):
                    self._is_interrupted = True
                    return self.last_answer() or Lost("interrupted")
                if not connection.can_read(ask.within_s):
                    raise redis.TimeoutError(f"no answer within {ask.within_s:g} s")
                return Reply(connection.read_response())
            except redis.exceptions.MovedError as error:
                self.rest()
                self._route.moved(self._place, error)
            except (redis.RedisError, OSError) as error:
                outcome = _not_answered(error)
                if not isinstance(outcome, Refusal) or outcome.code == "CLUSTERDOWN":
                    self._leave()
                return outcome
            except BaseException:
                self._is_interrupted = True
                raise
        return Refusal("TRYAGAIN", "TRYAGAIN sent from node to node")

    def _connected(self) -> Connection:
        if self._is_interrupted:
            self.last_answer()
        while self._connection is None:
            self._place = place = self._route.place
            idle = self._idle.take(place)
            if idle is None:
                self._connection = place.connection(
                    **place.settings, socket_timeout=REPLY_S, protocol=2, retry=Retry(NoBackoff(), 0)
                )
                self._connection.connect()
            elif _is_fresh(idle):
                self._connection = idle
        return self._connection

    def _leave(self) -> None:
        self._disconnect()
        self._route.failed(self._place)

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            self._is_interrupted = False
            connection.disconnect()

    def last_answer(self) -> Outcome | None:
        """What came of the question that was interrupted, if one was.

        It hangs up, and returns when the server has done so too: what is asked
        then comes after the end of all that was asked here.
        """
        if not self._is_interrupted:
            return None
        outcome: Outcome = Lost("interrupted")
        line = getattr(self._connection, "_sock", None)
        if self._connection is not None and line is not None:
            with contextlib.suppress(redis.RedisError, OSError):
                line.shutdown(socket.SHUT_WR)
                line.settimeout(HANG_UP_S)
                outcome = Reply(self._connection.read_response(disconnect_on_error=False))
            with contextlib.suppress(OSError):
                while line.recv(65536):
                    pass
        self._disconnect()
        self._is_interrupted = False
        return outcome

    def rest(self) -> None:
        """Lets others use the connection."""
        if self._is_interrupted:
            self._disconnect()
        connection, self._connection = self._connection, None
        if connection is not None and not self._idle.give(self._place, connection):
            connection.disconnect()


def _is_fresh(connection: Connection) -> bool:
    """Whether it was neither closed by the server nor sent anything."""
    with contextlib.suppress(redis.RedisError, OSError):
        if not connection.can_read(0):
            return True
    connection.disconnect()
    return False


class AsyncLine:
    """As `Line`."""

    def __init__(self, route: Route, idle: Idle) -> None:
        self._route = route
        self._place = route.place
        self._idle = idle
        self._connection: Connection | None = None
        self._is_interrupted = False  # in the middle of a question

    async def carry_out(self, steps: Steps, stop: AsyncStop | None = None) -> None:
        """Does what ``steps`` says, to its end or until ``stop`` is set, which also ends the wait for an answer."""
        pause = asyncio.sleep if stop is None else stop.wait
        step = next(steps, None)
        while step is not None and not (stop is not None and stop.is_set):
            try:
                if isinstance(step, Pause):
                    await pause(step.seconds)
                    step = next(steps)
                else:
                    step = steps.send(await self._ask(step, stop))
            except StopIteration:
                return

    async def _ask(self, ask: Ask, stop: AsyncStop | None) -> Outcome:
        for _ in range(REDIRECTIONS_MAX):
            try:
                connection = await self._connected()
            except (redis.RedisError, OSError) as error:
                await self._leave()
                return _not_connected(error)
            except BaseException:
                self._is_interrupted = True
                raise
            try:
                async with asyncio.timeout(ask.within_s) if stop is None else stop.within(ask.within_s):
                    await connection.send_command(*ask.words)
                    return Reply(await connection.read_response(disconnect_on_error=False))
            except redis.exceptions.MovedError as error:
                await self.rest()
                self._route.moved(self._place, error)
            except (redis.RedisError, OSError) as error:
                if stop is not None and stop.is_set and isinstance(error, TimeoutError):
                    self._is_interrupted = True
                    return await self.last_answer() or Lost("interrupted")
                outcome = _not_answered(error)
                if not isinstance(outcome, Refusal) or outcome.code == "CLUSTERDOWN":
                    await self._leave()
                return outcome
            except BaseException:
                self._is_interrupted = True
                raise
        return Refusal("TRYAGAIN", "TRYAGAIN sent from node to node")

    async def _connected(self) -> Connection:
        if self._is_interrupted:
            await self.last_answer()
        while self._connection is None:
            self._place = place = self._route.place
            idle = self._idle.take(place)
            if idle is None:
                self._connection = place.connection(
                    **place.settings, socket_timeout=None, protocol=2, retry=AsyncRetry(NoBackoff(), 0)
                )
                async with asyncio.timeout(REPLY_S):
                    await self._connection.connect()
            elif await _is_fresh_async(idle):
                self._connection = idle
        return self._connection

    async def _leave(self) -> None:
        await self._disconnect()
        self._route.failed(self._place)

    async def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            self._is_interrupted = False
            await connection.disconnect(nowait=True)

    async def last_answer(self) -> Outcome | None:
        """As `Line`'s. With TLS there is no such way to hang up."""
        if not self._is_interrupted:
            return None
        outcome: Outcome = Lost("interrupted")
        reader, writer = (getattr(self._connection, name, None) for name in ("_reader", "_writer"))
        if self._connection is not None and reader and writer and writer.can_write_eof():
            with contextlib.suppress(redis.RedisError, OSError):
                writer.write_eof()
                async with asyncio.timeout(HANG_UP_S):
                    outcome = Reply(await self._connection.read_response(disconnect_on_error=False))
            with contextlib.suppress(OSError):
                async with asyncio.timeout(HANG_UP_S):
                    while await reader.read(65536):
                        pass
        await self._disconnect()
        self._is_interrupted = False
        return outcome

    async def rest(self) -> None:
        """As `Line.rest`."""
        if self._is_interrupted:
            await self._disconnect()
        connection, self._connection = self._connection, None
        if connection is not None and not self._idle.give(self._place, connection):
            await connection.disconnect(nowait=True)


async def _is_fresh_async(connection: Connection) -> bool:
    with contextlib.suppress(redis.RedisError, OSError):
        if not await connection.can_read():
            return True
    await connection.disconnect(nowait=True)
    return False


def _not_connected(error: Exception) -> Outcome:
    """What it means that no connection was made. A server that refuses a password will go on doing so."""
    text = str(error) or type(error).__name__
    if isinstance(error, redis.AuthenticationError | redis.exceptions.AuthorizationError | redis.ResponseError):
        return Refusal(_code_of(error, text), text)
    return Unreached(text)


def _not_answered(error: Exception) -> Outcome:
    """What it means that there was an error instead of a reply."""
    text = str(error) or type(error).__name__
    if isinstance(error, redis.ResponseError | redis.exceptions.BusyLoadingError | redis.AuthenticationError):
        return Refusal(_code_of(error, text), text)
    return Lost(text)


def _code_of(error: Exception, text: str) -> str:
    return next((code for kind, code in CODES if isinstance(error, kind)), text.partition(" ")[0])
