"""Clients of locks in all their modes: owners that others use, too, and rings of owners that wait for each other.

What comes of it is judged by `tests.simulation.referee`; here are only the askers.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING

from tests.simulation.clients import FOR_EVER_MS, Client
from tests.simulation.models import UNKNOWN, Call
from tests.simulation.world import MS, SECOND

if TYPE_CHECKING:
    from tests.simulation.clients import Workload
    from tests.simulation.sessions import Op

OWNERS = 3
RING_SIZES = (2, 3, 3, 4, 8)

NAMES = 4
"""So many owners share what is asked here; each is known in several sessions, and in several shards."""

RING_US_MAX = 15 * SECOND
"""A ring that is not broken by then is given up by its members: something else may be wrong, and go on being so."""

BLOCKS_MS = (0, 50, 400, 3000)
LIVES_MS = (20, 300, 3000)


class Owners(Client):
    """Takes locks, places, offices and latches under names that others use at the same time, and gives them back."""

    def __init__(self, workload: Workload, name: str) -> None:
        super().__init__(workload, name)
        self._tokens: dict[tuple[bytes, bytes], int] = {}
        self._last_id = b""
        self._ids = 0

    def calls(self) -> Iterator[Call]:
        """One command, mostly of locks."""
        draw = self.world.chance.random()
        if draw < 0.75:
            yield self._of_locks()
        elif draw < 0.86:
            yield self._of_semaphores()
        elif draw < 0.92:
            yield self._of_latches()
        else:
            yield self._of_elections()

    def learned(self, op: Op) -> None:
        """The token of what it has."""
        if op.call[0] == b"LOCK.ACQUIRE" and isinstance(op.output, int):
            if len(self._tokens) > 2 * NAMES:
                self._tokens.clear()
            self._tokens[op.call[1], op.call[2]] = op.output

    # What it may ask

    def _name(self) -> bytes:
        return b"o%d" % self.world.chance.randrange(NAMES)

    def _keys(self) -> list[bytes]:
        """Two locks of one shard."""
        tag = self.workload.key("k", 2)
        return [b"k{%b}%d" % (tag, number) for number in range(2)]

    def _of_locks(self) -> Call:
        chance = self.world.chance
        first, second = self._keys()
        key, owner = chance.choice((first, second)), self._name()
        draw = chance.random()
        if draw < 0.45:
            return (b"LOCK.ACQUIRE", key, owner, *self._options())
        if draw < 0.6:
            keys = (first, second) if chance.random() < 0.5 else (second, first)
            return (b"LOCK.MACQUIRE", b"2", *keys, owner, *self._options())
        if draw < 0.8:
            token = self._token(key, owner)
            return (b"LOCK.RELEASE", key, owner, *((b"TOKEN", token) if chance.random() < 0.4 else ()))
        if draw < 0.85:
            life = b"%d" % chance.choice(LIVES_MS)
            token = self._token(key, owner)
            return (b"LOCK.EXTEND", key, owner, b"PX", life, *((b"TOKEN", token) if chance.random() < 0.4 else ()))
        if draw < 0.9:
            return (b"LOCK.DOWNGRADE", key, owner)
        if draw < 0.92:
            return (b"LOCK.BREAK", key, owner) if chance.random() < 0.5 else (b"LOCK.BREAK", key)
        if draw < 0.97:
            written = b"g{%b}" % key[2 : key.index(b"}")]
            return (b"FENCE", key, self._token(key, owner), b"SET", written, self.workload.value())
        return (b"LOCK.INFO", key) if draw < 0.99 else (b"DEL", key)

    def _options(self) -> tuple[bytes, ...]:
        chance = self.world.chance
        found: list[bytes] = list(chance.choice(((), (b"SHARED",), (b"SHARED",), (b"EXCLUSIVE",))))
        found += self._life()
        found += self._block()
        if chance.random() < 0.2:
            if not self._last_id or chance.random() < 0.5:
                self._ids += 1
                self._last_id = b"%b.%d" % (self.name.encode(), self._ids)
            found += (b"ID", self._last_id)
        return tuple(found)

    def _life(self) -> tuple[bytes, ...]:
        chance = self.world.chance
        draw = chance.random()
        if draw < 0.25:
            return (b"SESSION",)
        return (b"PX", FOR_EVER_MS if draw < 0.3 else b"%d" % chance.choice(LIVES_MS))

    def _block(self) -> tuple[bytes, ...]:
        chance = self.world.chance
        return (b"BLOCK", b"%d" % chance.choice(BLOCKS_MS)) if chance.random() < 0.7 else ()

    def _token(self, key: bytes, owner: bytes) -> bytes:
        return b"%d" % self._tokens.get((key, owner), 1)

    def _of_semaphores(self) -> Call:
        chance = self.world.chance
        key, owner = self.workload.key("n", 2), self._name()
        if chance.random() < 0.35:
            return (b"SEM.RELEASE", key, owner, *((b"COUNT", b"2") if chance.random() < 0.3 else ()))
        limit = chance.choice((2, 3, 3, 3))
        count = (b"COUNT", b"2") if chance.random() < 0.3 else ()
        return (b"SEM.ACQUIRE", key, owner, b"LIMIT", b"%d" % limit, *count, *self._life(), *self._block())

    def _of_latches(self) -> Call:
        chance = self.world.chance
        key = self.workload.key("h", 1)
        return chance.choice(
            (
                (b"LATCH.ADD", key, b"1"),
                (b"LATCH.DONE", key),
                (b"LATCH.DONE", key),
                (b"LATCH.WAIT", key, *self._block()),
            )
        )

    def _of_elections(self) -> Call:
        chance = self.world.chance
        key, candidate = self.workload.key("e", 1), self._name()
        draw = chance.random()
        if draw < 0.45:
            return (b"ELECT.CAMPAIGN", key, candidate, *self._life(), *self._block())
        if draw < 0.7:
            return (b"ELECT.RESIGN", key, candidate)
        if draw < 0.9:
            return (b"ELECT.OBSERVE", key, b"TOKEN", b"0", *self._block())
        return (b"ELECT.LEADER", key)


# Rings


class Part(Enum):
    """What a member of a ring does."""

    IDLE = "idle"
    TAKE = "takes its own lock"
    READY = "has its own, and others have not yet"
    CLOSE = "wants the next one's, too"
    GIVE = "gives back what it has"


class Ring:
    """Up to eight clients who take a lock each, in whatever shards, and then want the next one's: again and again.

    Each time the locks and the owners are new ones, so that whatever went wrong is over.
    """

    def __init__(self, workload: Workload, size: int) -> None:
        self._workload = workload
        self._round = 0
        self.members = [Member(workload, f"w{place}", self) for place in range(size)]
        self._playing: list[Member] = []

    def begin(self) -> None:
        """The next time."""
        workload, world = self._workload, self._workload.simulation.world
        if not workload.going:
            return
        self._round += 1
        number = self._round
        size = world.chance.randrange(2, len(self.members) + 1)
        self._playing = self.members[:size]
        for place, member in enumerate(self._playing):
            member.begin(f"w{number}.{place}".encode(), f"w{number}.{(place + 1) % size}".encode())
        world.after(RING_US_MAX, lambda: self._give_up(number))

    def _give_up(self, number: int) -> None:
        if self._round == number and self._workload.going:
            for member in self._playing:
                member.quit()
            self.looks()

    def looks(self) -> None:
        """One of them is further: all may want the next lock, or all are through."""
        if all(member.part in (Part.READY, Part.IDLE) for member in self._playing):
            ready = [member for member in self._playing if member.part is Part.READY]
            for member in ready:
                member.close()
            if not ready:
                self._playing = []
                self._workload.simulation.world.after(self._workload.think_us, self.begin)


class Member(Client):
    """One owner of a ring. Its own lock ends with its session, or it comes back for the next in another session."""

    def __init__(self, workload: Workload, name: str, ring: Ring) -> None:
        super().__init__(workload, name)
        self.part = Part.IDLE
        self._ring = ring
        self._own = self._next = self._owner = b""
        self._session_only = False
        self._left: list[bytes] = []  # what it has and has to give back

    def start(self) -> None:
        """The first of them begins for all."""
        if self._ring.members[0] is self:
            self.world.after(self.world.chance.randrange(SECOND), self._ring.begin)

    def begin(self, own: bytes, other: bytes) -> None:
        """Takes its own lock."""
        chance = self.world.chance
        self._own = b"w:" + own
        self._next = b"w:" + other
        self._owner = own
        self._session_only = chance.random() < 0.6
        self._left = []
        self._go(Part.TAKE)

    def close(self) -> None:
        """Wants the next one's lock; an owner that holds for longer than a session may do that in another one."""
        if not self._session_only and self.session is not None and self.world.happens(0.5):
            self._leave(self.session)
        self._go(Part.CLOSE)

    def quit(self) -> None:
        """Goes away."""
        self.part = Part.IDLE
        if self.session is not None:
            self._leave(self.session)

    def _go(self, part: Part) -> None:
        self.part = part
        self._act_soon()

    def act(self) -> None:
        """Asks, if it has something to do."""
        if self.part not in (Part.IDLE, Part.READY):
            super().act()

    def calls(self) -> Iterator[Call]:
        """What its part is."""
        life = (b"SESSION",) if self._session_only else (b"PX", FOR_EVER_MS)
        if self.part is Part.TAKE:
            shared = (b"SHARED",) if self.world.happens(0.3) else ()
            yield (b"LOCK.ACQUIRE", self._own, self._owner, *shared, *life)
        elif self.part is Part.CLOSE:
            yield (b"LOCK.ACQUIRE", self._next, self._owner, *life, b"BLOCK", b"0")
        elif self.part is Part.GIVE:
            for key in self._left:
                yield (b"LOCK.RELEASE", key, self._owner)

    def _may_go_on(self, session: object) -> bool:
        """It must know what it has."""
        return False

    def learned(self, op: Op) -> None:
        """What became of it; who cannot know leaves."""
        if self.part is Part.IDLE or op.call[2] != self._owner:
            return
        if op.void:
            return  # it asks again
        if op.output is UNKNOWN or op.output is None:
            self.part = Part.IDLE
            self.world.after(MS, self._leave_ring)
        elif self.part is Part.TAKE:
            self._left = [self._own]
            self.part = Part.READY
            self.world.after(0, self._ring.looks)
        elif self.part is Part.CLOSE:
            if isinstance(op.output, int):
                self._left = [self._own, self._next]
            self.part = Part.GIVE
        elif op.call[0] == b"LOCK.RELEASE" and op.call[1] == self._left[-1]:
            self.part = Part.IDLE
            self.world.after(0, self._ring.looks)

    def _leave_ring(self) -> None:
        if self.part is Part.IDLE:
            self.quit()
            self._ring.looks()

    def disconnected(self, session: object) -> None:
        """What it had with its session is gone."""
        super().disconnected(session)  # type: ignore[arg-type]
        if self.part is Part.READY and self._session_only:
            self.part = Part.IDLE
            self.world.after(0, self._ring.looks)


def lockers(workload: Workload) -> list[Client]:
    """Those of one run."""
    size = workload.simulation.world.chance.choice(RING_SIZES)
    return [*(Owners(workload, f"m{number}") for number in range(OWNERS)), *Ring(workload, size).members]
