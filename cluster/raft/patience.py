"""How much longer to wait for an answer to something large: it has to be sent, taken in and written first."""

from __future__ import annotations

LARGE_BYTES = 1024 * 1024
"""No longer for anything up to this."""

BYTES_PER_MS = 4_000
"""The slowest that links, disks and nodes are expected to be together."""


def extra_ms(size_bytes: int) -> float:
    """How many milliseconds more it may take because of its size."""
    return max(0, size_bytes - LARGE_BYTES) / BYTES_PER_MS
