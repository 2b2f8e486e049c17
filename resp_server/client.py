"""Locks for programs: ``with locks.hold("job:7", ttl=10.0) as lock:``, and the same with asyncio.

    import redis
    from resp_server.client import Locks

    locks = Locks(redis.Redis(port=7001))
    with locks.hold("job:7", ttl=10.0) as lock:
        store(result, fence=lock.token)

`Locks.hold` waits until the lock is granted and renews it in the background for
as long as the block runs. A lock can still be lost: when no server can be
reached, when the program is stopped for longer than ``ttl``, when an operator
breaks it. Then `Lock.lost` is set, `Lock.check` raises `LockLost`, and so does
the end of the block. What must not happen after that is to be written with
``FENCE lock.name lock.token …``, which the server refuses once the lock is lost.

`AsyncLocks` is the same with ``async with``. Both only carry out what
`resp_server.holding` says; every request goes over connections of their own, made
with the address, credentials and TLS settings of the client they are given, so
they never wait for a pool, and a wait that is given up is ended by closing one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import secrets
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import redis
import redis.asyncio

from resp_server.client_lines import AsyncLine, Idle, Line, Route, find, new_name, now_s
from resp_server.client_stops import Stop, begin, to_its_end
from resp_server.holding import Claim, DeadlockError, LockError, LockLost, LockTimeout, Wish
from resp_server.steps import Word

__all__ = ["AsyncLocks", "DeadlockError", "Lock", "LockError", "LockLost", "LockTimeout", "Locks"]

Event = TypeVar("Event", threading.Event, asyncio.Event)
Settings = dict[str, Any]

_log = logging.getLogger("sepakat.client")


class Lock(Generic[Event]):
    """A lock that is held, while the block runs.

    ``token`` is its fencing token. ``lost`` is an event, of threading or of
    asyncio: set, or about to be, when the lock is lost. `check` and ``is_held``
    know it at once, also in a program that was stopped and has just woken up.
    """

    __slots__ = ("_claim", "lost")

    def __init__(self, claim: Claim, lost: Event) -> None:
        self._claim = claim
        self.lost: Event = lost

    def __repr__(self) -> str:
        return f"<Lock {self.name!r} token={self.token}{'' if self.is_held else ' lost'}>"

    @property
    def name(self) -> Word:
        """The lock's key."""
        return self._claim.wish.name

    @property
    def owner(self) -> str:
        """The owner the server knows it by."""
        return self._claim.owner

    @property
    def token(self) -> int:
        """The fencing token of this hold."""
        return self._claim.token

    @property
    def is_held(self) -> bool:
        """Whether nobody else can have the lock just now, by this machine's clock."""
        if self._claim.is_held:
            return True
        self.lost.set()
        return False

    def check(self) -> None:
        """Raises `LockLost` unless the lock is held."""
        if not self.is_held:
            self._claim.check()


class Locks:
    """The locks of one server or cluster, for threads.

    ``servers`` is a ``redis.Redis``, a ``redis.RedisCluster``, or one URL or
    several, of which any that answers is used. ``name`` is what people see of
    this program in ``LOCK.INFO``. A wait is asked for again after ``ask_again``
    seconds, in case the connection is dead and nobody noticed; that costs its
    place in the line.

    May be used by any number of threads. All that one thread holds and waits
    for has one owner, so deadlocks between threads and programs are found.
    """

    def __init__(self, servers: Any, *, name: str | None = None, ask_again: float = 30.0) -> None:
        self._places = find(servers, redis.ConnectionPool)
        self._lines = Idle()
        self._name = name
        self._ask_again_s = ask_again
        self._owners = threading.local()

    @contextlib.contextmanager
    def hold(
        self, name: Word, *, ttl: float = 30.0, shared: bool = False, timeout: float | None = None
    ) -> Iterator[Lock[threading.Event]]:
        """Holds the lock ``name`` for as long as the block runs.

        It is held alone, or ``shared`` with others who share it. A program that
        dies holds it for ``ttl`` seconds more. ``timeout`` is how long to wait,
        0 for not at all, None for ever; then `LockTimeout` is raised.
        `DeadlockError` when this thread and others would wait for each other,
        `LockLost` at the end of the block when the lock was lost, and
        `RuntimeError` when this thread holds it already: it is not re-entrant.
        """
        wish = Wish(name, ttl, shared, timeout, self._ask_again_s)
        owner = _owner_of(self._owners.__dict__, self._name)
        with owner.claiming(wish) as claim:
            line = Line(Route(self._places), self._lines)
            lost, stop = threading.Event(), Stop()
            try:
                line.carry_out(claim.acquiring())
                begin(self._renew, claim, lost, stop)
                yield Lock(claim, lost)
            except BaseException as error:
                _note(error, claim)
                raise
            finally:
                try:
                    self._end(claim, line, stop)
                except BaseException:  # interrupted in the middle of it
                    self._end(claim, line, stop)
                    raise
            claim.conclude()

    def _end(self, claim: Claim, line: Line, stop: Stop) -> None:
        stop.set()
        line.carry_out(claim.releasing())
        line.rest()

    def _renew(self, claim: Claim, lost: threading.Event, stop: Stop) -> None:
        line = Line(Route(self._places), self._lines)
        try:
            line.carry_out(claim.renewing(), stop)
        finally:
            line.rest()
            if not stop.is_set:
                lost.set()

    def close(self) -> None:
        """Closes the connections that are not in use. More are made when they are needed."""
        for connection in self._lines.empty():
            connection.disconnect()


class AsyncLocks:
    """As `Locks`, for the tasks of one event loop: ``servers`` is a client of ``redis.asyncio``, or URLs."""

    def __init__(self, servers: Any, *, name: str | None = None, ask_again: float = 30.0) -> None:
        self._places = find(servers, redis.asyncio.ConnectionPool)
        self._lines = Idle()
        self._name = name
        self._ask_again_s = ask_again
        self._owners: weakref.WeakKeyDictionary[asyncio.Task[Any], Settings] = weakref.WeakKeyDictionary()

    @contextlib.asynccontextmanager
    async def hold(
        self, name: Word, *, ttl: float = 30.0, shared: bool = False, timeout: float | None = None
    ) -> AsyncIterator[Lock[asyncio.Event]]:
        """As `Locks.hold`. Cancelled, it still gives the lock back, for which it takes a few seconds at most."""
        wish = Wish(name, ttl, shared, timeout, self._ask_again_s)
        task = asyncio.current_task()
        assert task is not None, "hold is for tasks"
        owner = _owner_of(self._owners.setdefault(task, {}), self._name)
        with owner.claiming(wish) as claim:
            line = AsyncLine(Route(self._places), self._lines)
            lost = asyncio.Event()
            renewal: asyncio.Task[None] | None = None
            try:
                await line.carry_out(claim.acquiring())
                renewal = asyncio.create_task(self._renew(claim, lost))
                yield Lock(claim, lost)
            except BaseException as error:
                _note(error, claim)
                raise
            finally:
                await to_its_end(self._end(claim, line, renewal))
            claim.conclude()

    async def _renew(self, claim: Claim, lost: asyncio.Event) -> None:
        line = AsyncLine(Route(self._places), self._lines)
        try:
            await line.carry_out(claim.renewing())
            lost.set()
        finally:
            await line.rest()

    async def _end(self, claim: Claim, line: AsyncLine, renewal: asyncio.Task[None] | None) -> None:
        if renewal is not None:
            renewal.cancel()
            await asyncio.wait([renewal])
        await line.carry_out(claim.releasing())
        await line.rest()

    async def close(self) -> None:
        """As `Locks.close`."""
        for connection in self._lines.empty():
            await connection.disconnect()


# Owners


@dataclass(slots=True)
class _Owner:
    """All that one thread or task claims, in one process: a copy that a fork made is somebody else."""

    name: str
    pid: int = field(default_factory=os.getpid)
    is_in_doubt: bool = False
    claimed: set[bytes] = field(default_factory=set)

    @contextlib.contextmanager
    def claiming(self, wish: Wish) -> Iterator[Claim]:
        """A new claim of this owner. It must be settled when the block ends, or nobody takes this name again."""
        key = wish.key if isinstance(wish.key, bytes) else wish.key.encode()
        if key in self.claimed:
            raise RuntimeError(f"this thread or task holds lock {wish.name!r} already, or waits for it")
        claim = Claim(wish, self.name, secrets.token_hex(8), now_s, random.random)
        try:
            self.claimed.add(key)
            yield claim
        finally:
            self.claimed.discard(key)
            self.is_in_doubt |= not claim.settled
            if claim.unreleased:
                _log.warning("lock %r may stay locked for %g s: %s", wish.name, wish.ttl_s, claim.unreleased)


def _owner_of(kept: Settings, name: str | None) -> _Owner:
    """The owner a thread or task has, or a new one."""
    owner: _Owner | None = kept.get("owner")
    if owner is None or owner.is_in_doubt or owner.pid != os.getpid():
        kept["owner"] = owner = _Owner(new_name(name))
    return owner


def _note(error: BaseException, claim: Claim) -> None:
    """Tells in an error of the block that the lock was lost, too."""
    if claim.token and not claim.is_held and not isinstance(error, LockLost):
        error.add_note(f"lock {claim.wish.name!r} was lost meanwhile")
