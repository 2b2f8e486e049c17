"""Telling a thread or a task of a client to end, and letting what it began come to its end."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import selectors
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any


class Stop:
    """Tells a thread to end. Unlike an event, it is whole after an interrupt in `set`, and can be set again."""

    def __init__(self) -> None:
        self.is_set = False
        self._gate = threading.Lock()
        self._gate.acquire()

    def set(self) -> None:
        self.is_set = True
        if self._gate.locked():
            self._gate.release()

    def wait(self, seconds: float) -> None:
        """Returns when it is set, or after so many seconds. For one thread only."""
        self._gate.acquire(timeout=seconds)

    def comes_before(self, connection: Any, seconds: float) -> bool:
        """Whether it is to be heeded before ``connection`` has an answer: not this one, which lets answers come."""
        return False


class Bell(Stop):
    """A `Stop` that ends the wait for an answer, too. It can be set by a signal handler; `close` it."""

    def __init__(self) -> None:
        super().__init__()
        self._hears, self._rings = socket.socketpair()
        self._rings.setblocking(False)

    def set(self) -> None:
        super().set()
        with contextlib.suppress(OSError):  # it rings already, or is closed
            self._rings.send(b"!")

    def comes_before(self, connection: Any, seconds: float) -> bool:
        """Waits until there is something to read, it is set, or so many seconds are over; whether it is set."""
        if not self.is_set and not connection.can_read(0):
            with selectors.PollSelector() as selector:
                selector.register(self._hears, selectors.EVENT_READ)
                selector.register(connection._sock, selectors.EVENT_READ)  # noqa: SLF001
                selector.select(seconds)
        return self.is_set

    def close(self) -> None:
        self._hears.close()
        self._rings.close()


class AsyncStop:
    """As `Bell`, for a task."""

    def __init__(self) -> None:
        self.is_set = False
        self._limits: list[asyncio.Timeout] = []

    def set(self) -> None:
        self.is_set = True
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(0)

    @contextlib.asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[None]:
        """As ``asyncio.timeout``; the time is over at once when it is set."""
        async with asyncio.timeout(0 if self.is_set else seconds) as limit:
            self._limits.append(limit)
            try:
                yield
            finally:
                self._limits.remove(limit)

    async def wait(self, seconds: float) -> None:
        """Returns when it is set, or after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with self.within(seconds):
                await asyncio.get_running_loop().create_future()


def begin(work: Callable[..., object], *arguments: object) -> None:
    """Runs it in a thread that ends with the program.

    An interrupt in ``threading.Thread.start``, which waits for the thread, can come
    out of it as a `RuntimeError` about a lock; there is no wait in this.
    """
    _thread.start_new_thread(work, arguments)


async def to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Awaits it, and lets it finish although the task is cancelled meanwhile, which is passed on then."""
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
