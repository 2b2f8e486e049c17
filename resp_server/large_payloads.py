"""Messages larger than ``queue-warn-payload-bytes``: counted, and told in the log now and then.

A message is kept in memory by every replica, goes through the log and over the
network whole, and everybody else waits meanwhile: large things are better kept
elsewhere, and named in the message.
"""

from __future__ import annotations

from collections.abc import Iterable

from resp_server.logs import LOGGER

TELL_AGAIN_MS = 10_000.0
NAME_SHOWN_BYTES_MAX = 128
PUSHES = frozenset({b"Q.PUSH", b"Q.MPUSH"})


class LargePayloads:
    """Of one node's clients; ``count`` since the start."""

    def __init__(self) -> None:
        self.count = 0
        self._tell_at_ms = float("-inf")
        self._untold = 0

    def look(self, commands: Iterable[list[bytes]], limit_bytes: int, monotonic_ms: float) -> None:
        """Looks at commands of which one may be large; a limit of 0 is none."""
        if not limit_bytes:
            return
        for args in commands:
            if len(args) > 2 and args[0].upper() in PUSHES:
                payloads = args[2:3] if args[0].upper() == b"Q.PUSH" else args[2:]
                sizes = [len(payload) for payload in payloads if len(payload) > limit_bytes]
                if sizes:
                    self._note(args[1], sizes, monotonic_ms)

    def _note(self, queue: bytes, sizes: list[int], monotonic_ms: float) -> None:
        self.count += len(sizes)
        self._untold += len(sizes)
        if monotonic_ms >= self._tell_at_ms:
            name = queue[:NAME_SHOWN_BYTES_MAX].decode("utf-8", "backslashreplace")
            LOGGER.warning("large payload", {"queue": name, "bytes": max(sizes), "since_told": self._untold})
            self._untold = 0
            self._tell_at_ms = monotonic_ms + TELL_AGAIN_MS
