"""A message of a queue, and the table it lives by.

Every change of a message's state is one of `MOVES`::

    push ──> DELAYED ──wake──> READY ──take──> IN_FLIGHT ──acknowledge──> GONE
                ^                                 │ │ │
                └────────────put_back─────────────┘ │ └──send_away──> GONE (a new message in the DLQ)
                                                    └──bury──> DEAD ──redrive──> GONE (a new message here)

A push without DELAY begins at READY. ``untake`` leads from IN_FLIGHT back to
READY. ``expire`` leads from DELAYED or READY to
GONE: a message in flight is past its age only once it comes back.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import msgspec

from cluster.machine.line import Number


class State(IntEnum):
    """Where a message is in its life."""

    DELAYED = 0
    READY = 1
    IN_FLIGHT = 2
    DEAD = 3
    GONE = 4


DELAYED: Final = State.DELAYED
READY: Final = State.READY
IN_FLIGHT: Final = State.IN_FLIGHT
DEAD: Final = State.DEAD
GONE: Final = State.GONE

MOVES: Final[dict[str, dict[State, State]]] = {
    "wake": {DELAYED: READY},
    "take": {READY: IN_FLIGHT},
    "put_back": {IN_FLIGHT: DELAYED},
    "untake": {IN_FLIGHT: READY},
    "acknowledge": {IN_FLIGHT: GONE},
    "bury": {IN_FLIGHT: DEAD},
    "send_away": {IN_FLIGHT: GONE},
    "expire": {DELAYED: GONE, READY: GONE},
    "redrive": {DEAD: GONE},
    "purge": {DEAD: GONE},
}
"""Each verb of `Queue` and what it does to a message; a missing entry is a bug and raises KeyError."""


class Message(msgspec.Struct, array_like=True, gc=False):
    """One message.

    ``at_ms`` is when a delayed one becomes ready, when the visibility of one
    in flight ends, when a dead one died, else 0; ``note`` is who took one in
    flight and why a dead one died. ``expires_ms`` is None without an age limit.
    ``given_id`` is the client's ID, None when the server made it.
    """

    number: Number
    payload: bytes
    pushed_ms: int
    state: State
    at_ms: int = 0
    expires_ms: int | None = None
    priority: int = 0
    group: bytes | None = None
    given_id: bytes | None = None
    deliveries: int = 0
    note: bytes | None = None

    @property
    def id(self) -> bytes:
        """What Q.PUSH answered: the client's ID, else ``<milliseconds>-<number>``."""
        if self.given_id is not None:
            return self.given_id
        return b"%d-%d" % (self.pushed_ms, int.from_bytes(self.number, "big"))

    @property
    def receipt(self) -> bytes:
        """What acknowledges this delivery and no other: ``<number>-<deliveries>``."""
        return b"%d-%d" % (int.from_bytes(self.number, "big"), self.deliveries)
