"""The production's limits, made so small that a short run reaches all of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from unittest.mock import patch

from cluster import leadership, moves, node, outcomes, shard
from cluster.cache import office, write_backs
from cluster.raft import leading, progress, transfer

CHOICES: tuple[tuple[ModuleType, str, tuple[float, ...]], ...] = (
    (shard, "RETAIN_BYTES", (0, 300, 3000)),
    (leadership, "ENTRIES_AHEAD_MAX", (2, 8, 64)),
    (shard, "APPLY_BYTES", (100, 2000, 4 * 1024 * 1024)),
    (leading, "APPEND_BYTES_MAX", (300, 2000, 1024 * 1024)),
    (progress, "IN_FLIGHT_BYTES_MAX", (1000, 8 * 1024 * 1024)),
    (progress, "IN_FLIGHT_APPENDS_MAX", (2, 256)),
    (leading, "CAUGHT_UP_ENTRIES", (4, 64)),
    (outcomes, "KEPT_REPLIES_MAX", (150, 200_000)),
    (outcomes, "KEPT_MS", (7_000.0, 15_000.0)),
    (shard, "FORGOTTEN_MS", (1_000.0, 5_000.0)),
    (moves, "STEADY_MS", (300.0, 2_000.0)),
    (moves, "CHOSEN_MS", (3_000.0, 600_000.0)),
    (moves, "ARRIVING_MAX", (1, 2)),
    (node, "SYSTEM_VOTERS", (3, 5)),
    (transfer, "RESEND_MS", (200.0, 1000.0)),
)
"""The usual value stands last."""

OF_CACHES: tuple[tuple[ModuleType, str, tuple[float, ...]], ...] = (
    (office, "SENT_MAX", (1, 2, 64)),
    (write_backs, "CELLS_MAX", (1, 2, 1000)),
)
"""The same, of what only those come to who use the caches."""


@contextmanager
def small_limits(chance: random.Random) -> Iterator[None]:
    """Draws each limit, and puts all of them back at the end."""
    with _drawn(chance, CHOICES):
        yield


@contextmanager
def small_caches(chance: random.Random, *, small: bool) -> Iterator[None]:
    """The same of the caches' limits, if those are to be small."""
    with _drawn(chance, OF_CACHES if small else ()):
        yield


@contextmanager
def _drawn(chance: random.Random, limits: tuple[tuple[ModuleType, str, tuple[float, ...]], ...]) -> Iterator[None]:
    with ExitStack() as stack:
        for module, name, choices in limits:
            stack.enter_context(patch.object(module, name, chance.choice(choices)))
        yield
