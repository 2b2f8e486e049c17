"""What owners hold: one owner's hold, a value that is made of holds, and the shard's memory of the tokens it gave.

Locks, semaphores and elections are all values that owners hold. What an owner
has is its *hold*: how much of the value, with which token, and what ends it
when the owner does not: a time (``PX``) or the end of a session (``SESSION``).
A value that nobody holds is not a key at all.

Tokens come from one counter for the whole shard, so they grow strictly for
every key whatever happens to it: release, expiry, DEL, restart.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import NoReturn

import msgspec

from cluster.machine.reply import CommandError
from cluster.machine.whole import Whole

TOKENS_KEPT = 10_000
KEY_BYTES_KEPT = 1024
REQUESTS_KEPT = 16
"""How many ``ID``s a hold remembers: those of its last acquires."""


class Hold(msgspec.Struct, array_like=True, gc=False):
    """What one owner has.

    ``holds`` counts what it has not given back yet: acquires of a lock, places
    of a semaphore. ``ends_ms`` is a time of the log, or None for a hold that
    ends with the session ``origin``.
    """

    owner: bytes
    token: int
    holds: int
    ends_ms: int | None
    origin: bytes
    requests: tuple[bytes, ...]

    def is_over(self, now_ms: int) -> bool:
        """Whether its time is up, although its alarm may not have rung."""
        return self.ends_ms is not None and self.ends_ms <= now_ms

    def ttl_ms(self, now_ms: int) -> int:
        """What is left of its life; -1 when it lives as long as its session."""
        return -1 if self.ends_ms is None else max(0, self.ends_ms - now_ms)

    def knows(self, request: bytes | None) -> bool:
        """Whether the request with this ``ID`` was granted already; it is remembered if not."""
        if request is None:
            return False
        if request in self.requests:
            return True
        self.requests = (*self.requests, request)[-REQUESTS_KEPT:]
        return False


class Holding(Whole, array_like=True, gc=False):
    """A value that is held; ``token`` is the last one given for its key, perhaps to a holder that left."""

    token: int

    def holder(self, owner: bytes) -> Hold | None:
        """What ``owner`` has of it."""
        raise NotImplementedError

    def holders(self) -> Collection[Hold]:
        """Every hold, the longest-standing first."""
        raise NotImplementedError

    def leave(self, hold: Hold) -> None:
        """Takes out one of several holds."""
        raise NotImplementedError

    def living(self, now_ms: int) -> list[Hold]:
        """The holds whose time is not up, the longest-standing first."""
        return [hold for hold in self.holders() if not hold.is_over(now_ms)]

    def copy(self) -> NoReturn:
        """Refused: a second one would be held by owners who never asked for it."""
        article = "an" if self.kind[:1] in b"aeiou" else "a"
        raise CommandError(f"{article} {self.kind.decode()} cannot be copied or renamed")

    def size_bytes(self) -> int:
        """About how much memory it takes."""
        return 120 + sum(
            120 + len(hold.owner) + len(hold.origin) + sum(map(len, hold.requests)) for hold in self.holders()
        )


class Issued(msgspec.Struct, array_like=True):
    """The shard's token counter, and the last token of keys that may be free by now.

    ``recent`` keeps the `TOKENS_KEPT` keys taken or freed last, up to twice
    as many for a while; keys longer than `KEY_BYTES_KEPT` are not remembered.
    """

    counter: int = 0
    recent: dict[bytes, int] = msgspec.field(default_factory=dict)

    def issue(self, key: bytes) -> int:
        """The next token, given for ``key``."""
        self.counter = token = self.counter + 1
        self.remember(key, token)
        return token

    def remember(self, key: bytes, token: int) -> None:
        """Keeps ``key`` among the most recent with the last token given for it."""
        recent = self.recent
        recent.pop(key, None)
        if len(key) <= KEY_BYTES_KEPT:
            recent[key] = token
            if len(recent) > 2 * TOKENS_KEPT:  # all at once: taking the oldest from a dict is slow one by one
                self.recent = dict(islice(recent.items(), TOKENS_KEPT, None))
