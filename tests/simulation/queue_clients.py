"""Clients of queues: producers, consumers that are slow, late or gone, and one who looks after the queues.

What comes of it is judged by `tests.simulation.queue_referee` and `queue_told`;
here are only the askers. Every payload is pushed once, but for an ID's repeats.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.simulation.clients import Client
from tests.simulation.models import UNKNOWN, Call

if TYPE_CHECKING:
    from tests.simulation.clients import Workload
    from tests.simulation.sessions import Op

PRODUCERS = 2
CONSUMERS = 3

NAMES = 2
"""How many queues are in use at a time, beside those for their dead letters."""

REPEATED_LATELY = 5
TAKEN_MAX = 6

VISIBILITIES_MS = (30, 300, 1500)
DELAYS_MS = (20, 300, 1500)
BACKOFFS_MS = (("0", "0"), ("10", "80"), ("50", "1000"))
PARTITIONS = (1, 1, 2, 3, 8)


class Queues:
    """The queues in use: how each is made, and by whoever uses it first."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._chance = workload.simulation.world.chance
        self._asked: dict[bytes, None] = {}
        self._letters: dict[bytes, None] = {}  # queues for dead letters, of which some are left to be made by those

    def name(self) -> bytes:
        """One of those in use now; now and then one of dead letters."""
        if self._letters and self._chance.random() < 0.15:
            return self._chance.choice(list(self._letters)[-NAMES:])
        return self._workload.key("j", NAMES)

    def preparation(self, key: bytes) -> Iterator[Call]:
        """What makes the queue, if nobody has asked for that yet."""
        if key in self._asked or key in self._letters:
            return
        chance = self._chance
        settings: list[bytes] = []
        partitions = chance.choice(PARTITIONS)
        if partitions > 1:
            settings += (b"PARTITIONS", b"%d" % partitions)
        self._asked[key] = None
        for name in (b"VISIBILITY", b"MAXDELIVERIES", b"BACKOFF", b"MAXLEN", b"PX", b"DEDUP"):
            if chance.random() < 0.6:
                settings += self.setting(name)
        draw = chance.random()
        if draw < 0.5:
            letters = b"jd{%b}" % key if draw < 0.2 else b"jd" + key if draw < 0.4 else b"jx" + key
            settings += (b"DLQ", letters)
            if draw < 0.4:
                self._letters[letters] = None
            else:
                yield (b"SET", letters, self._workload.value())  # what takes no letters
        yield (b"Q.CREATE", key, *settings)

    def setting(self, name: bytes) -> tuple[bytes, ...]:
        """An option of Q.CREATE and Q.CONFIG."""
        chance = self._chance
        if name == b"BACKOFF":
            return (name, *(word.encode() for word in chance.choice(BACKOFFS_MS)))
        values = {
            b"VISIBILITY": VISIBILITIES_MS,
            b"MAXDELIVERIES": (1, 2, 3, 16),
            b"MAXLEN": (0, 6, 30),
            b"PX": (0, 0, 800),
            b"DEDUP": (0, 1000, 300_000),
        }[name]
        return (name, b"%d" % chance.choice(values))


class Producer(Client):
    """Pushes, and pushes again what it was not told of, if that has an ID."""

    def __init__(self, workload: Workload, name: str, queues: Queues) -> None:
        super().__init__(workload, name)
        self._queues = queues
        self._ids = 0
        self._again: deque[Call] = deque()
        self._lately: deque[Call] = deque(maxlen=REPEATED_LATELY)

    def calls(self) -> Iterator[Call]:
        """One push, of one message or several."""
        chance = self.world.chance
        if self._again and chance.random() < 0.7:
            yield self._again.popleft()
            return
        if self._lately and chance.random() < 0.1:
            yield chance.choice(self._lately)
            return
        key = self._queues.name()
        yield from self._queues.preparation(key)
        draw = chance.random()
        if draw < 0.25:
            yield (b"Q.MPUSH", key, *(self.workload.value() for _ in range(chance.randrange(1, 5))))
            return
        call: Call = (b"Q.PUSH", key, self.workload.value(), *self._options())
        if b"ID" in call:
            self._lately.append(call)
        yield call

    def _options(self) -> Iterator[bytes]:
        chance = self.world.chance
        if chance.random() < 0.5:
            self._ids += 1
            yield from (b"ID", b"%b#%d" % (self.name.encode(), self._ids))
        if chance.random() < 0.4:
            yield from (b"GROUP", b"g%d" % chance.randrange(3))
        if chance.random() < 0.3:
            yield from (b"DELAY", b"%d" % chance.choice(DELAYS_MS))
        if chance.random() < 0.3:
            yield from (b"PRIORITY", b"%d" % chance.choice((1, 9)))
        if chance.random() < 0.1:
            yield from (b"PX", b"%d" % chance.choice((200, 1500)))

    def learned(self, op: Op) -> None:
        """What it does not know of goes again."""
        if op.call[0] == b"Q.PUSH" and b"ID" in op.call and (op.output is UNKNOWN or op.void):
            self._again.append(op.call)


class Consumer(Client):
    """Takes messages, and does with each what a worker may: in time, late, or never."""

    leaves = 0.1

    def __init__(self, workload: Workload, name: str, queues: Queues) -> None:
        super().__init__(workload, name)
        self._queues = queues
        self._taken: list[tuple[bytes, bytes]] = []  # queue and receipt

    def calls(self) -> Iterator[Call]:
        """Ends a delivery, or takes more."""
        chance = self.world.chance
        if len(self._taken) > TAKEN_MAX or (self._taken and chance.random() < 0.6):
            place = 0 if chance.random() < 0.6 else chance.randrange(len(self._taken))
            key, receipt = self._taken.pop(place)
            draw = chance.random()
            if draw < 0.65:
                also = [taken for taken in self._taken if taken[0] == key] if chance.random() < 0.3 else []
                self._taken = [taken for taken in self._taken if taken not in also]
                yield (b"Q.ACK", key, receipt, *(other for _, other in also))
            elif draw < 0.85:
                yield (
                    b"Q.NACK",
                    key,
                    receipt,
                    *chance.choice(((), (), (b"DELAY", b"0"), (b"DELAY", b"200"), (b"DEAD",), (b"REASON", b"no"))),
                )
            elif draw < 0.95:
                yield (b"Q.EXTEND", key, receipt, b"%d" % chance.choice(VISIBILITIES_MS))
            if draw > 0.85 or chance.random() < 0.1:
                self._taken.append((key, receipt))  # it comes back to it, perhaps too late
            if draw < 0.95:
                return
        key = self._queues.name()
        yield from self._queues.preparation(key)
        yield (b"Q.POP", key, *self._options())

    def _options(self) -> Iterator[bytes]:
        chance = self.world.chance
        if chance.random() < 0.4:
            yield from (b"COUNT", b"%d" % chance.randrange(2, 5))
        if chance.random() < 0.6:
            yield from (b"BLOCK", b"%d" % chance.choice((0, 100, 1000, 4000)))
        if chance.random() < 0.3:
            yield from (b"VISIBILITY", b"%d" % chance.choice(VISIBILITIES_MS))
        if chance.random() < 0.3:
            yield from (b"CONSUMER", b"worker%d" % chance.randrange(2))

    def learned(self, op: Op) -> None:
        """What it was given."""
        if op.call[0] == b"Q.POP" and op.returned is not None and isinstance(op.reply, list):
            self._taken += [(op.call[1], message[0]) for message in op.reply]


class Overseer(Client):
    """Looks at queues, changes their settings, sends dead letters back, and clears now and then."""

    def __init__(self, workload: Workload, name: str, queues: Queues) -> None:
        super().__init__(workload, name)
        self._queues = queues

    def calls(self) -> Iterator[Call]:
        """One command for a queue."""
        chance = self.world.chance
        key = self._queues.name()
        draw = chance.random()
        if draw < 0.35:
            yield (b"Q.INFO", key)
        elif draw < 0.45:
            yield chance.choice(((b"Q.LEN", key), (b"Q.PEEK", key, b"COUNT", b"3"), (b"Q.DEAD", key)))
        elif draw < 0.65:
            yield (b"Q.REDRIVE", key, *chance.choice(((), (b"COUNT", b"1"), (b"COUNT", b"3"))))
        elif draw < 0.93:
            name = chance.choice((b"VISIBILITY", b"MAXDELIVERIES", b"BACKOFF", b"MAXLEN", b"PX", b"DEDUP"))
            yield (b"Q.CONFIG", key, *self._queues.setting(name))
        elif draw < 0.98:
            yield (b"Q.PURGE", key, *chance.choice(((), (b"DEAD",))))
        else:
            yield (b"DEL", key)


def queue_users(workload: Workload) -> list[Client]:
    """Those of one run."""
    queues = Queues(workload)
    producers = [Producer(workload, f"p{number}", queues) for number in range(PRODUCERS)]
    consumers = [Consumer(workload, f"c{number}", queues) for number in range(CONSUMERS)]
    return [*producers, *consumers, Overseer(workload, "a", queues)]
