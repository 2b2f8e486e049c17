"""Clients of the caches: on the same registers as plain commands, and on keys of their own that are loaded.

The registers they share are judged together (`tests.simulation.history`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.simulation.clients import KEY_CALLS, Client
from tests.simulation.models import Call

if TYPE_CHECKING:
    from tests.simulation.clients import Workload
    from tests.simulation.sessions import Op, Session

CACHERS = 5
CLEARERS = 3
KEYS_AT_ONCE = 5
HELD_CALLS = 1200
"""Registers of the caches' own are in use for so many calls: longer than any lease."""

LOADERS = 3
LOAD_MS = (100, 600, 3_000)
LIVES_MS = (20, 200, 1_500)
TOKENS_MAX = 3


class Cacher(Client):
    """Reads and writes registers through the cache of whatever node it is at, and stays there for a while."""

    leaves = 0.02

    def calls(self) -> Iterator[Call]:
        """A pipeline of a few commands on a few keys."""
        chance = self.world.chance
        for _ in range(1 if chance.random() < 0.4 else chance.randrange(2, 8)):
            draw = chance.random()
            if draw < 0.05:
                yield (b"CACHE.GET", self.workload.key("c", 2))
            elif draw < 0.1:
                yield (b"CACHE.MGET", *(self._any_key() for _ in range(chance.randrange(1, KEYS_AT_ONCE))))
            elif draw < 0.2:
                yield self._fleeting(self.workload.key("f", 2))
            elif draw < 0.4:
                yield self._register(self.workload.key("r", 3))
            else:
                yield self._register(self.workload.key("y", 2, HELD_CALLS))

    def _any_key(self) -> bytes:
        kind, keys, calls_max = self.world.chance.choice(
            (("c", 2, KEY_CALLS), ("r", 3, KEY_CALLS), ("f", 2, KEY_CALLS), ("y", 2, HELD_CALLS), ("y", 2, HELD_CALLS))
        )
        return self.workload.key(kind, keys, calls_max)

    def _register(self, key: bytes) -> Call:
        chance, draw = self.world.chance, self.world.chance.random()
        if draw < 0.66:
            return (b"CACHE.GET", key)
        if draw < 0.8:
            return (b"CACHE.SET", key, self.workload.value(), *chance.choice(((), (), (), (b"NX",), (b"XX",))))
        if draw < 0.83:
            return (b"CACHE.SET", key, self.workload.value(), b"SYNC", *chance.choice(((), (b"NX",), (b"XX",))))
        if draw < 0.87:
            return chance.choice(((b"CACHE.DEL", key), (b"DEL", key)))
        if draw < 0.9:
            return (b"CACHE.EVICT", key)
        if draw < 0.92:
            return (b"CACHE.FLUSH",)
        return (b"GET", key) if draw < 0.97 else (b"SET", key, self.workload.value())

    def _fleeting(self, key: bytes) -> Call:
        """A command on a key that expires."""
        chance, draw = self.world.chance, self.world.chance.random()
        if draw < 0.5:
            return (b"CACHE.GET", key)
        if draw < 0.6:
            return (b"CACHE.SET", key, self.workload.value())
        if draw < 0.9:
            life = (b"PX", b"%d" % chance.choice(LIVES_MS))
            return (b"CACHE.SET", key, self.workload.value(), *life, *chance.choice(((), (), (b"NX",), (b"XX",))))
        return (b"PEXPIRE", key, b"%d" % chance.choice(LIVES_MS))


class Clearer(Cacher):
    """One of those, who deletes all keys now and then: nobody's locks or queues must be among them."""

    def calls(self) -> Iterator[Call]:
        """As the others, or FLUSHALL, and what is there then."""
        chance = self.world.chance
        if chance.random() < 0.25:
            yield (chance.choice((b"FLUSHALL", b"FLUSHDB")),)
        yield from super().calls()


class Loader(Client):
    """Loads keys that are not there: in time, late, or never."""

    def __init__(self, workload: Workload, name: str) -> None:
        super().__init__(workload, name)
        self._tokens: list[tuple[bytes, int]] = []

    def calls(self) -> Iterator[Call]:
        """Fills what it was given a token for, or asks for a key, or makes that it is not there any more."""
        chance = self.world.chance
        if self._tokens and (len(self._tokens) > TOKENS_MAX or chance.random() < 0.5):
            key, token = self._tokens.pop(chance.randrange(len(self._tokens)))
            if chance.random() < 0.1:
                self._tokens.append((key, token))  # it comes again
            life = (b"PX", b"%d" % chance.choice(LIVES_MS)) if chance.random() < 0.5 else ()
            yield (b"CACHE.FILL", key, b"%d" % token, self.workload.value(), *life)
            return
        key, draw = self.workload.key("g", 2), chance.random()
        if draw < 0.45:
            yield (b"CACHE.FETCH", key, *((b"PX", b"%d" % chance.choice(LOAD_MS)) if draw < 0.35 else ()))
        elif draw < 0.6:
            yield chance.choice(((b"CACHE.GET", key), (b"GET", key)))
        elif draw < 0.85:
            yield chance.choice(((b"CACHE.DEL", key), (b"DEL", key), (b"PEXPIRE", key, b"20")))
        else:
            yield chance.choice(((b"CACHE.SET", key, self.workload.value()), (b"SET", key, self.workload.value())))

    def _may_go_on(self, session: Session) -> bool:
        """It may be told to load."""
        return False

    def learned(self, op: Op) -> None:
        """What it is to load."""
        if op.call[0] == b"CACHE.FETCH" and op.returned is not None and isinstance(op.output, int):
            self._tokens.append((op.call[1], op.output))


def cache_users(workload: Workload) -> list[Client]:
    """Those of one run."""
    loaders: list[Client] = [Loader(workload, f"g{number}") for number in range(LOADERS)]
    return [*(Cacher(workload, f"h{number}") for number in range(CACHERS)), *loaders]


def clearers(workload: Workload) -> list[Client]:
    """Those of a run in which all keys may be deleted."""
    return [Clearer(workload, f"e{number}") for number in range(CLEARERS)]
