"""Queues for programs: push messages, and work them off in a loop, with threads or with asyncio.

    import redis
    from resp_server.client_queues import Queues

    jobs = Queues(redis.Redis(port=7001)).queue("jobs")
    jobs.push("resize 7.png", delay=5.0)
    for message in jobs.consume():
        work(message.payload)

A message is acknowledged when the loop asks for the next one, and refused when the
loop is left while it is at hand, by an exception as by ``break``: a loop cannot tell
one from the other. `Queue.stop` ends it after the message at hand. Where the end of a
message is to be exact, and the reason told, it has a block of its own::

    for message in jobs.consume():
        with message:
            work(message.payload)

Every message at hand is extended in the background, so its visibility is how soon
others have it when this program dies, not how long the work may take. A delivery can
still be lost, and every message can come again: work is to be such that it does no
harm twice, or fenced.

`AsyncQueues` is the same with ``async for`` and ``async with``. An ``async for`` that is
left does not end its generator at once; ``contextlib.aclosing`` around it does. Both only
carry out what `resp_server.consuming` says, over connections of their own, as
`resp_server.client` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import AsyncGenerator, Generator
from types import TracebackType
from typing import Any

import redis
import redis.asyncio

from resp_server.client_lines import AsyncLine, Idle, Line, Place, Route, find, new_name, now_s
from resp_server.client_stops import AsyncStop, Bell, Stop, begin, to_its_end
from resp_server.consuming import (
    Delivery,
    Extras,
    Intake,
    MessageLost,
    Push,
    QueueError,
    QueueFull,
    QueueTimeout,
    Wanted,
)
from resp_server.steps import Steps, Word

__all__ = [
    "AsyncMessage",
    "AsyncQueue",
    "AsyncQueues",
    "Message",
    "MessageLost",
    "Queue",
    "QueueError",
    "QueueFull",
    "QueueTimeout",
    "Queues",
]

_log = logging.getLogger("sepakat.client")


class _Received:
    """What a program sees of a delivery."""

    __slots__ = ("_delivery",)

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id!r} deliveries={self.deliveries}{'' if self.is_held else ' not held'}>"

    @property
    def payload(self) -> bytes:
        """What was pushed."""
        return self._delivery.payload

    @property
    def id(self) -> bytes:
        """What the push answered."""
        return self._delivery.id

    @property
    def deliveries(self) -> int:
        """How often it was handed out, this time included."""
        return self._delivery.deliveries

    @property
    def receipt(self) -> bytes:
        """What acknowledges this delivery, for a ``Q.ACK`` of one's own, such as in ``MULTI``."""
        return self._delivery.receipt

    @property
    def is_held(self) -> bool:
        """Whether nobody else can be given the message just now, by this machine's clock."""
        return self._delivery.is_held

    def check(self) -> None:
        """Raises `MessageLost` unless it is held."""
        self._delivery.check()


class Message(_Received):
    """A message at hand. As a block, it is acknowledged at its end, refused by an exception."""

    __slots__ = ("_queue",)

    def __init__(self, delivery: Delivery, queue: Queue) -> None:
        super().__init__(delivery)
        self._queue = queue

    def ack(self) -> None:
        """It is done with: nobody gets it any more. Raises `MessageLost` when that is not certain."""
        self._end(self._delivery.acknowledging())

    def refuse(self, reason: str = "", *, delay: float | None = None, dead: bool = False) -> None:
        """It comes back after its back-off, or ``delay`` seconds; ``dead``: it does not come back but is kept apart.

        ``reason`` is what ``Q.DEAD`` shows if it dies of this. Raises `MessageLost` when that is not certain.
        """
        self._end(self._delivery.refusing(delay, dead=dead, reason=reason))

    def _end(self, steps: Steps) -> None:
        self._queue.carry_out(steps)
        self._delivery.conclude()

    def settle(self, steps: Steps) -> None:
        """Ends it as ``steps`` say, unless it has ended; what goes wrong is logged."""
        if self._delivery.is_open:
            with _logged():
                self._end(steps)

    def __enter__(self) -> Message:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.settle(_refusing(self._delivery, error))
        elif self._delivery.is_open:
            self.ack()


class Queue:
    """One queue. May be used by any number of threads; `Queues.queue` makes it."""

    def __init__(self, name: Word, places: list[Place], idle: Idle, consumer: str | None, ask_again_s: float) -> None:
        self.name = name
        self._route = Route(places)
        self._idle = idle
        self._consumer = consumer
        self._ask_again_s = ask_again_s
        self._bells: list[Bell] = []

    def push(
        self,
        payload: str | bytes,
        *,
        id: Word | None = None,
        delay: float = 0.0,
        priority: int = 0,
        group: Word | None = None,
        ttl: float | None = None,
        timeout: float = 30.0,
    ) -> bytes:
        """Pushes a message, and returns its id once it is safe.

        It is handed out after ``delay`` seconds; those of higher ``priority`` (0 to
        255) first; those of one ``group`` one at a time, in order. After ``ttl``
        seconds nobody wants it any more. With an ``id`` of your own the queue takes
        it once within its ``DEDUP``. When no server can say that it is safe it is
        sent again for ``timeout`` seconds, which does not push it twice.

        Raises `QueueFull`, `QueueTimeout`, or another `QueueError`.
        """
        push = _push(self.name, payload, id, Extras(delay, priority, group, ttl), timeout)
        self.carry_out(push.pushing())
        return _bytes(push.id)

    def consume(
        self, *, visibility: float = 30.0, count: int = 1, timeout: float | None = None
    ) -> Generator[Message, None, None]:
        """The messages of the queue, for a loop to work them off.

        When this program dies, others have its messages after ``visibility``
        seconds. ``count`` are taken at a time: more is faster, and what nobody has
        begun with when the loop ends goes back at once, which counts as a delivery.
        The loop ends when no message came for ``timeout`` seconds; 0 is when none is
        ready, None is never.

        Raises `QueueTimeout` when no server could be asked for all of ``timeout``,
        and another `QueueError` when none ever will give any, such as with a wrong
        password. A message that was lost is told in the log.
        """
        wanted = Wanted(self.name, visibility, count, timeout, self._ask_again_s)
        return self._messages(Intake(wanted, new_name(self._consumer), now_s, random.random))

    def _messages(self, intake: Intake) -> Generator[Message, None, None]:
        line, bell, kept = Line(self._route, self._idle), Bell(), Stop()
        self._bells.append(bell)
        try:
            begin(self._keep, intake, kept)
            while True:
                line.carry_out(intake.taking(), bell)
                if bell.is_set or (delivery := intake.next()) is None:
                    return
                message = Message(delivery, self)
                is_done = False
                try:
                    yield message
                    is_done = True
                finally:
                    message.settle(delivery.acknowledging() if is_done else delivery.refusing())
                    intake.over(delivery)
        finally:
            try:
                self._end(intake, line, bell, kept)
            except BaseException:  # interrupted in the middle of it
                self._end(intake, line, bell, kept)
                raise

    def _keep(self, intake: Intake, kept: Stop) -> None:
        line = Line(self._route, self._idle)
        try:
            line.carry_out(intake.keeping(), kept)
        finally:
            line.rest()

    def _end(self, intake: Intake, line: Line, bell: Bell, kept: Stop) -> None:
        kept.set()
        with contextlib.suppress(ValueError):
            self._bells.remove(bell)
        intake.receive(line.last_answer())
        line.carry_out(intake.giving_back())
        line.rest()
        bell.close()

    def stop(self) -> None:
        """Ends the loops over `consume` once the messages at hand are done with; a wait for one ends at once.

        May be called by any thread, and by a signal handler. Loops that begin afterwards are not meant.
        """
        for bell in self._bells.copy():
            bell.set()

    def carry_out(self, steps: Steps) -> None:
        """Does what ``steps`` say, over a connection that is free."""
        line = Line(self._route, self._idle)
        try:
            line.carry_out(steps)
        finally:
            line.rest()


class Queues:
    """The queues of one server or cluster, for threads.

    ``servers`` is a ``redis.Redis``, a ``redis.RedisCluster``, or one URL or
    several, of which any that answers is used. ``name`` is what people see of this
    program's consumers. A wait is asked for again after ``ask_again`` seconds, in
    case the connection is dead and nobody noticed.
    """

    def __init__(self, servers: Any, *, name: str | None = None, ask_again: float = 30.0) -> None:
        self._places = find(servers, redis.ConnectionPool)
        self._idle = Idle()
        self._name = name
        self._ask_again_s = ask_again

    def queue(self, name: Word) -> Queue:
        """The queue of that name, whether there is one yet or not."""
        return Queue(name, self._places, self._idle, self._name, self._ask_again_s)

    def close(self) -> None:
        """Closes the connections that are not in use. More are made when they are needed."""
        for connection in self._idle.empty():
            connection.disconnect()


# With asyncio


class AsyncMessage(_Received):
    """As `Message`, for tasks."""

    __slots__ = ("_queue",)

    def __init__(self, delivery: Delivery, queue: AsyncQueue) -> None:
        super().__init__(delivery)
        self._queue = queue

    async def ack(self) -> None:
        """As `Message.ack`."""
        await self._end(self._delivery.acknowledging())

    async def refuse(self, reason: str = "", *, delay: float | None = None, dead: bool = False) -> None:
        """As `Message.refuse`."""
        await self._end(self._delivery.refusing(delay, dead=dead, reason=reason))

    async def _end(self, steps: Steps) -> None:
        await self._queue.carry_out(steps)
        self._delivery.conclude()

    async def settle(self, steps: Steps) -> None:
        """As `Message.settle`, also when the task is cancelled meanwhile."""
        if self._delivery.is_open:
            with _logged():
                await to_its_end(self._end(steps))

    async def __aenter__(self) -> AsyncMessage:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            await self.settle(_refusing(self._delivery, error))
        elif self._delivery.is_open:
            await self.ack()


class AsyncQueue:
    """As `Queue`, for the tasks of one event loop; `AsyncQueues.queue` makes it."""

    def __init__(self, name: Word, places: list[Place], idle: Idle, consumer: str | None, ask_again_s: float) -> None:
        self.name = name
        self._route = Route(places)
        self._idle = idle
        self._consumer = consumer
        self._ask_again_s = ask_again_s
        self._stops: list[AsyncStop] = []

    async def push(
        self,
        payload: str | bytes,
        *,
        id: Word | None = None,
        delay: float = 0.0,
        priority: int = 0,
        group: Word | None = None,
        ttl: float | None = None,
        timeout: float = 30.0,
    ) -> bytes:
        """As `Queue.push`. When it is cancelled nobody knows whether it was pushed."""
        push = _push(self.name, payload, id, Extras(delay, priority, group, ttl), timeout)
        await self.carry_out(push.pushing())
        return _bytes(push.id)

    def consume(
        self, *, visibility: float = 30.0, count: int = 1, timeout: float | None = None
    ) -> AsyncGenerator[AsyncMessage, None]:
        """As `Queue.consume`."""
        wanted = Wanted(self.name, visibility, count, timeout, self._ask_again_s)
        return self._messages(Intake(wanted, new_name(self._consumer), now_s, random.random))

    async def _messages(self, intake: Intake) -> AsyncGenerator[AsyncMessage, None]:
        line, stop = AsyncLine(self._route, self._idle), AsyncStop()
        self._stops.append(stop)
        keeper = asyncio.create_task(self._keep(intake))
        try:
            while True:
                await line.carry_out(intake.taking(), stop)
                if stop.is_set or (delivery := intake.next()) is None:
                    return
                message = AsyncMessage(delivery, self)
                is_done = False
                try:
                    yield message
                    is_done = True
                finally:
                    await message.settle(delivery.acknowledging() if is_done else delivery.refusing())
                    intake.over(delivery)
        finally:
            self._stops.remove(stop)
            await to_its_end(self._end(intake, line, keeper))

    async def _keep(self, intake: Intake) -> None:
        line = AsyncLine(self._route, self._idle)
        try:
            await line.carry_out(intake.keeping())
        finally:
            await line.rest()

    async def _end(self, intake: Intake, line: AsyncLine, keeper: asyncio.Task[None]) -> None:
        keeper.cancel()
        await asyncio.wait([keeper])
        intake.receive(await line.last_answer())
        await line.carry_out(intake.giving_back())
        await line.rest()

    def stop(self) -> None:
        """As `Queue.stop`, for the event loop's thread: a signal handler goes by ``loop.add_signal_handler``."""
        for stop in self._stops.copy():
            stop.set()

    async def carry_out(self, steps: Steps) -> None:
        """As `Queue.carry_out`."""
        line = AsyncLine(self._route, self._idle)
        try:
            await line.carry_out(steps)
        finally:
            await line.rest()


class AsyncQueues:
    """As `Queues`, for the tasks of one event loop: ``servers`` is a client of ``redis.asyncio``, or URLs."""

    def __init__(self, servers: Any, *, name: str | None = None, ask_again: float = 30.0) -> None:
        self._places = find(servers, redis.asyncio.ConnectionPool)
        self._idle = Idle()
        self._name = name
        self._ask_again_s = ask_again

    def queue(self, name: Word) -> AsyncQueue:
        """The queue of that name, whether there is one yet or not."""
        return AsyncQueue(name, self._places, self._idle, self._name, self._ask_again_s)

    async def close(self) -> None:
        """As `Queues.close`."""
        for connection in self._idle.empty():
            await connection.disconnect()


# For both


def _push(name: Word, payload: str | bytes, id: Word | None, extras: Extras, timeout_s: float) -> Push:
    if not isinstance(payload, str | bytes):
        raise TypeError(f"a payload is text or bytes, not {type(payload).__name__}")
    own = secrets.token_hex(12) if id is None else id
    return Push(name, payload, own, now_s, random.random, extras=extras, timeout_s=timeout_s)


def _bytes(id: str | bytes) -> bytes:
    return id if isinstance(id, bytes) else id.encode()


def _refusing(delivery: Delivery, error: BaseException) -> Steps:
    """The end of a message of a block left by ``error``; what was interrupted did not fail, and goes back at once."""
    if not isinstance(error, Exception):
        return delivery.refusing(0.0)
    reason = f"{type(error).__name__}: {error}"
    if delivery.is_open:
        _log.warning("message %r is refused: %s", delivery.id, reason)
    return delivery.refusing(reason=reason)


@contextlib.contextmanager
def _logged() -> Generator[None, None, None]:
    """For where the end of a message cannot be raised: the loop goes on, or there is another error already."""
    try:
        yield
    except MessageLost as error:
        _log.warning("%s", error)
