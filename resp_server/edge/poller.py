"""Which sockets are ready: epoll where there is one, else what `selectors` finds (kqueue).

READ, WRITE and GONE are epoll's own bits, so that on Linux nothing is
translated on the way.
"""

from __future__ import annotations

import select
import selectors
import sys
from typing import Protocol

READ = 0x001  # EPOLLIN
WRITE = 0x004  # EPOLLOUT
BROKEN = 0x018  # EPOLLHUP, EPOLLERR
GONE = 0x2018  # EPOLLRDHUP, EPOLLHUP, EPOLLERR: told even while READ is not asked for, where the system can


class Poller(Protocol):
    """A set of file descriptors; itself one, readable while any of them is ready."""

    def fileno(self) -> int:
        """The descriptor to wait on."""
        ...

    def watch(self, fd: int, interest: int) -> None:
        """Begins to watch ``fd`` for READ and WRITE."""
        ...

    def change(self, fd: int, interest: int) -> None:
        """Watches ``fd`` for something else."""
        ...

    def forget(self, fd: int) -> None:
        """Stops watching ``fd``, before it is closed."""
        ...

    def poll(self, timeout_s: float) -> list[tuple[int, int]]:
        """(fd, what it is ready for) of those that are ready, waiting at most so long."""
        ...

    def close(self) -> None:
        """Lets go of everything."""
        ...


if sys.platform == "linux":

    class EpollPoller:
        """epoll, level-triggered."""

        def __init__(self) -> None:
            self._epoll = select.epoll()
            self.fileno = self._epoll.fileno
            self.poll = self._epoll.poll
            self.forget = self._epoll.unregister
            self.close = self._epoll.close

        def watch(self, fd: int, interest: int) -> None:
            self._epoll.register(fd, interest | select.EPOLLRDHUP)

        def change(self, fd: int, interest: int) -> None:
            self._epoll.modify(fd, interest | select.EPOLLRDHUP)


class SelectorPoller:
    """Whatever `selectors` offers here. It cannot tell GONE apart from READ."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.close = self._selector.close

    def fileno(self) -> int:
        fileno: int = self._selector.fileno()
        return fileno

    def watch(self, fd: int, interest: int) -> None:
        events = (selectors.EVENT_READ if interest & READ else 0) | (selectors.EVENT_WRITE if interest & WRITE else 0)
        if events:
            self._selector.register(fd, events)

    def change(self, fd: int, interest: int) -> None:
        self.forget(fd)
        self.watch(fd, interest)

    def forget(self, fd: int) -> None:
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def poll(self, timeout_s: float) -> list[tuple[int, int]]:
        return [
            (key.fd, (READ if events & selectors.EVENT_READ else 0) | (WRITE if events & selectors.EVENT_WRITE else 0))
            for key, events in self._selector.select(timeout_s)
        ]


def new_poller() -> Poller:
    """The best there is on this system."""
    return EpollPoller() if sys.platform == "linux" else SelectorPoller()
