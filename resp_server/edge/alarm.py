"""Waiting until a descriptor is readable or a time is over, through Trio, and cheaply where it is the time.

Trio ends a wait at its deadline by cancelling it: an exception is made, thrown and caught, which was a third of
what an idle node computed. Linux has descriptors that become readable when a time is over (timerfd), so that
nothing is cancelled there; Python has them from 3.13 on, the C library at any rate.
"""

from __future__ import annotations

import ctypes
import math
import os
import select
import sys
import time
from typing import Protocol

import trio

NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC


class Alarm(Protocol):
    """One descriptor that is waited for."""

    async def wait(self, seconds: float) -> None:
        """Returns once it is readable, or after so long; what is infinite is never over. A checkpoint in any case."""
        ...

    def close(self) -> None:
        """Lets go of what it opened, which is not the descriptor."""
        ...


class DeadlineAlarm:
    """By Trio's own deadlines."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def wait(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await trio.lowlevel.wait_readable(self._descriptor)

    def close(self) -> None:
        pass


if sys.platform == "linux":

    class _Times(ctypes.Structure):
        """``struct itimerspec``: after how long again, and after how long first; nothing of both is never."""

        _fields_ = (
            ("again_s", ctypes.c_long), ("again_ns", ctypes.c_long), ("first_s", ctypes.c_long),
            ("first_ns", ctypes.c_long),
        )  # fmt: skip

    _library = ctypes.CDLL(None, use_errno=True)

    class TimerAlarm:
        """By a timerfd, in an epoll beside the descriptor. Raises `OSError` where the system has none."""

        def __init__(self, descriptor: int) -> None:
            self._timer = _checked(_library.timerfd_create(time.CLOCK_MONOTONIC, NONBLOCK_CLOEXEC))
            self._epoll = select.epoll()
            self._epoll.register(descriptor, select.EPOLLIN)
            self._epoll.register(self._timer, select.EPOLLIN)
            self._times = _Times()
            self._given = ctypes.byref(self._times)

        async def wait(self, seconds: float) -> None:
            times = self._times
            if math.isinf(seconds):
                times.first_s = times.first_ns = 0
            else:
                times.first_s = int(seconds)
                times.first_ns = max(1, int(seconds % 1 * 1e9))
            _checked(_library.timerfd_settime(self._timer, 0, self._given, None))  # it is not readable any more
            await trio.lowlevel.wait_readable(self._epoll.fileno())

        def close(self) -> None:
            self._epoll.close()
            os.close(self._timer)

    def _checked(result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result


def new_alarm(descriptor: int) -> Alarm:
    """The best there is here."""
    if sys.platform == "linux" and hasattr(_library, "timerfd_create"):
        return TimerAlarm(descriptor)
    return DeadlineAlarm(descriptor)
