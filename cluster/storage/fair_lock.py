"""A lock that nobody takes twice while another waits for it.

Whoever lets go of an ordinary lock and wants it again at once mostly gets it:
the one that waits has yet to wake up. A thread that works through much in small
pieces, letting go between any two, would so keep another out until it is done.
"""

from __future__ import annotations

import threading
from types import TracebackType


class FairLock:
    """Held by a ``with`` block, of one thread at a time; of two that want it, the other one has it next."""

    __slots__ = ("_held", "_next")

    def __init__(self) -> None:
        self._held = threading.Lock()
        self._next = threading.Lock()  # held by the one that waits: nobody else may try meanwhile

    def __enter__(self) -> None:
        with self._next:
            self._held.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.release()
