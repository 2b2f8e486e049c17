"""A lock as a value: who holds it, and the shard's memory of the tokens it gave.

A lock is held by one owner exclusively or by any number of owners together; a
lock that nobody holds is not a key at all. What an owner has is its *hold*:
how often it acquired, with which token, and what ends it when the owner does
not: a time (``PX``) or the end of a session (``SESSION``).

Tokens come from one counter for the whole shard, so they grow strictly for
every key whatever happens to it: release, expiry, DEL, restart. A hold gets a
new token when it begins and when a shared hold becomes exclusive, so that what
it sent while it shared the lock is told from what it sends while it owns it.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import ClassVar

import msgspec

from cluster.machine.reply import CommandError

TOKENS_KEPT = 10_000
KEY_BYTES_KEPT = 1024
REQUESTS_KEPT = 16
"""How many ``ID``s a hold remembers: those of its last acquires."""


class Hold(msgspec.Struct, array_like=True, gc=False):
    """What one owner has of a lock.

    ``holds`` counts acquires not released yet. ``ends_ms`` is a time of the
    log, or None for a hold that ends with the session ``origin``.
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


class Lock(msgspec.Struct, array_like=True, gc=False):
    """A lock that is held: by ``exclusive``, or by every hold in ``shared`` (by owner, in the order they came).

    ``token`` is the last one given for this key, perhaps to a holder that left.
    """

    kind: ClassVar[bytes] = b"lock"
    encoding: ClassVar[bytes] = b"lock"

    token: int
    exclusive: Hold | None
    shared: dict[bytes, Hold]

    @property
    def mode(self) -> bytes:
        """How it is held: ``exclusive`` or ``shared``."""
        return b"shared" if self.exclusive is None else b"exclusive"

    def holder(self, owner: bytes) -> Hold | None:
        """What ``owner`` has of it."""
        hold = self.exclusive
        if hold is None:
            return self.shared.get(owner)
        return hold if hold.owner == owner else None

    def holders(self) -> Collection[Hold]:
        """Every hold, the longest-standing first."""
        return self.shared.values() if self.exclusive is None else (self.exclusive,)

    def living(self, now_ms: int) -> list[Hold]:
        """The holds whose time is not up, the longest-standing first."""
        return [hold for hold in self.holders() if not hold.is_over(now_ms)]

    def header(self) -> bytes:
        """The whole lock, for a checkpoint."""
        return msgspec.msgpack.encode(self)

    def parts(self) -> tuple[bytes, ...]:
        """A lock is small: it has no parts."""
        return ()

    def part(self, part: bytes) -> bytes | None:
        """A lock has no parts."""
        return None

    def copy(self) -> Lock:
        """Refused: a second lock would be held by owners who never asked for it."""
        raise CommandError("a lock cannot be copied or renamed")

    def size_bytes(self) -> int:
        """About how much memory it takes."""
        return 120 + sum(
            120 + len(hold.owner) + len(hold.origin) + sum(map(len, hold.requests)) for hold in self.holders()
        )


class Issued(msgspec.Struct, array_like=True):
    """The shard's token counter, and the last token of locks that may be free by now.

    ``recent`` keeps the `TOKENS_KEPT` keys locked or freed last, up to twice
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
