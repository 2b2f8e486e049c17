"""The queues of one shard as the contract has them: plain lists that are looked through from one end to the other.

Nothing is shared with the product but the words of its commands. What only the
product can know (a number, a receipt, a version) is learned from what it says.
Everything is to happen in a defined order: what falls due rings by its time, a
wait's end before a message's, then by queue, then oldest first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

DELAYED, READY, TAKEN, DEAD = "delayed", "ready", "in flight", "dead"

WAITS = "waits"
WAIT_ENDS, DUE, AGE = 1, 3, 4
FORGOTTEN_BY_A_PUSH = 16
"""So many ids whose window is over are forgotten by one push; a longer window set later does not bring them back."""

Answer: TypeAlias = Any
"""As the product's reply, but an `Error`, or `WAITS`."""


class Error(NamedTuple):
    """An error by its code."""

    code: str


class Origin(NamedTuple):
    """Where a dead letter of another queue comes from."""

    queue: bytes
    deliveries: int
    pushed_ms: int
    died_ms: int
    reason: bytes


@dataclass(frozen=True, slots=True)
class Part:
    """Which part of a queue is in a shard, and the versions of its settings and of its queue."""

    index: int
    count: int
    version: int
    born: int


@dataclass(eq=False, slots=True)
class Plain:
    """A message. ``place`` grows with each; ``id`` is None until the product has told what it made."""

    place: int
    payload: bytes
    pushed_ms: int
    id: bytes | None
    priority: int = 0
    group: bytes | None = None
    expires_ms: int | None = None
    state: str = READY
    at_ms: int = 0
    deliveries: int = 0
    note: bytes | None = None
    receipt: bytes | None = None
    origin: Origin | None = None


@dataclass(slots=True)
class Rules:
    """The settings of a queue."""

    partitions: int = 1
    visibility_ms: int = 30_000
    maxdeliveries: int = 16
    backoff_ms: tuple[int, int] = (100, 60_000)
    dlq: bytes | None = None
    maxlen: int = 0
    px_ms: int = 0
    dedup_ms: int = 300_000

    def read(self, words: list[bytes]) -> None:
        """Takes on what a command says."""
        rest = iter(words)
        for word in rest:
            name, value = word.decode().lower(), next(rest)
            if name == "backoff":
                self.backoff_ms = (int(value), int(next(rest)))
            elif name == "dlq":
                self.dlq = value or None
            elif name in ("partitions", "maxdeliveries", "maxlen"):
                setattr(self, name, int(value))
            else:
                setattr(self, f"{name}_ms", int(value))


@dataclass(slots=True)
class Tally:
    """What happened in a queue. ``purged`` and ``back`` are not told; ``back`` are letters that came back as dead."""

    pushed: int = 0
    acked: int = 0
    redelivered: int = 0
    expired: int = 0
    sent: int = 0
    purged: int = 0


@dataclass(eq=False, slots=True)
class PlainQueue:
    """``part`` is there where others of this name are in other shards."""

    rules: Rules
    part: Part | None = None
    messages: list[Plain] = field(default_factory=list)
    seen: list[tuple[bytes, int]] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    next_ms: int | None = None

    def living(self) -> list[Plain]:
        """Those that are not dead, oldest first."""
        return [message for message in self.messages if message.state != DEAD]

    def dead(self) -> list[Plain]:
        """Those that are, oldest first."""
        return [message for message in self.messages if message.state == DEAD]

    def first(self) -> Plain | None:
        """The one to hand out next: the highest priority, then the oldest; of a group only its oldest."""
        best: Plain | None = None
        groups: set[bytes] = set()
        for message in self.messages:
            if message.state == DEAD or message.group in groups:
                continue
            if message.group is not None:
                groups.add(message.group)
            if message.state == READY and (best is None or message.priority > best.priority):
                best = message
        return best

    def by_receipt(self, receipt: bytes) -> Plain | None:
        """Whose delivery a receipt is for, while that goes on."""
        return next((one for one in self.messages if one.state == TAKEN and one.receipt == receipt), None)

    def comes_to_something(self, until_ms: int) -> bool:
        """Whether there is something to hand out, or will be by then."""
        return self.first() is not None or any(0 < one.at_ms <= until_ms for one in self.living())

    def balance(self) -> tuple[int, int]:
        """What was pushed, and what became of it all: the two are the same."""
        tally = self.tally
        return tally.pushed, tally.acked + tally.expired + tally.sent + tally.purged + len(self.messages)


class Wait(NamedTuple):
    """A Q.POP that waits, ``in_part`` if it was sent to a part."""

    key: bytes
    words: list[bytes]
    until_ms: int | None


class Taken(NamedTuple):
    """What a Q.POP of that queue is to answer: these, but for the receipts."""

    key: bytes
    messages: list[Plain]
    expected: list[tuple[bytes, int, bytes | None]]


class Happened(NamedTuple):
    """Something that ends a message's life in a queue, or begins another: ``what`` as `Fates` has it."""

    key: bytes
    what: str
    message: Plain


class PlainQueues:
    """``happens`` is told what becomes of messages; ``other_type`` whether a key holds something else than a queue."""

    def __init__(
        self,
        shards: int,
        holds: Callable[[bytes], bool],
        other_type: Callable[[bytes], bool],
        happens: Callable[[Happened], None],
    ) -> None:
        self.queues: dict[bytes, PlainQueue] = {}
        self.waits: dict[bytes, Wait] = {}
        self.woken: list[tuple[bytes, Answer]] = []
        self.touched: dict[bytes, None] = {}
        self.posts: list[tuple[bytes, bytes]] = []  # queue and payload of letters of this entry
        self.dropped: dict[bytes, int] = {}  # queues that are gone from here, and up to which version
        self.now_ms = 0
        self._shards = shards
        self._holds = holds
        self._other_type = other_type
        self._happens = happens
        self._places = 0
        self._in_part = False

    # Time

    def begin(self, time_ms: int) -> None:
        """The time of an entry: what is due by then happens."""
        self.now_ms = max(self.now_ms, time_ms)
        while (due := min(self._due(), default=None, key=lambda one: one[0])) is not None:
            due[1]()
            self.serve()

    def _due(self) -> Iterator[tuple[tuple[Any, ...], Callable[[], None]]]:
        now_ms = self.now_ms
        for origin, wait in self.waits.items():
            if wait.until_ms is not None and wait.until_ms <= now_ms:
                yield (wait.until_ms, WAIT_ENDS, b"", 0, origin), lambda origin=origin: self._time_up(origin)  # type: ignore[misc]
        for key, queue in self.queues.items():
            if queue.next_ms is None or queue.next_ms > now_ms:
                continue
            for one in queue.messages:
                if one.state in (DELAYED, TAKEN) and one.at_ms and one.at_ms <= now_ms:
                    yield (one.at_ms, DUE, key, one.place, b""), lambda key=key, one=one: self._rings(key, one)  # type: ignore[misc]
                if one.state in (DELAYED, READY) and one.expires_ms is not None and one.expires_ms <= now_ms:
                    yield (one.expires_ms, AGE, key, one.place, b""), lambda key=key, one=one: self._expire(key, one)  # type: ignore[misc]

    def _time_up(self, origin: bytes) -> None:
        self.touched[self.waits.pop(origin).key] = None
        self.woken.append((origin, None))

    def _rings(self, key: bytes, message: Plain) -> None:
        if message.state == TAKEN:
            self._fail(key, message, b"timed out")
        else:
            self._ready(key, message)

    # The life of a message

    def _push(self, key: bytes, payload: bytes, words: list[bytes], id: bytes | None = None) -> Plain:
        queue = self.queues[key]
        options = dict(zip(words[::2], words[1::2], strict=True))
        delay_ms = int(options.get(b"DELAY", b"0"))
        px_ms = int(options.get(b"PX", b"0")) or queue.rules.px_ms
        self._places += 1
        message = Plain(
            self._places,
            payload,
            self.now_ms,
            options.get(b"ID", id),
            int(options.get(b"PRIORITY", b"0")),
            options.get(b"GROUP"),
            self.now_ms + px_ms if px_ms else None,
            DELAYED if delay_ms else READY,
            self.now_ms + delay_ms if delay_ms else 0,
        )
        queue.messages.append(message)
        queue.tally.pushed += 1
        self._changes(key, "pushed", message)
        return message

    def _ready(self, key: bytes, message: Plain) -> None:
        if message.expires_ms is not None and message.expires_ms <= self.now_ms:
            self._expire(key, message)
            return
        message.state, message.at_ms = READY, 0
        self.touched[key] = None

    def _expire(self, key: bytes, message: Plain) -> None:
        self.queues[key].tally.expired += 1
        self._remove(key, message, "expired")

    def _remove(self, key: bytes, message: Plain, what: str) -> None:
        self.queues[key].messages.remove(message)
        self._changes(key, what, message)

    def _changes(self, key: bytes, what: str, message: Plain) -> None:
        self.touched[key] = None
        self._happens(Happened(key, what, message))

    def _fail(self, key: bytes, message: Plain, reason: bytes, delay_ms: int | None = None) -> None:
        """A delivery failed."""
        rules = self.queues[key].rules
        if message.deliveries >= rules.maxdeliveries:
            self._die(key, message, reason)
            return
        if delay_ms is None:
            least_ms, most_ms = rules.backoff_ms
            delay_ms = min(most_ms, least_ms * 2 ** (message.deliveries - 1))
        message.note = None
        if not delay_ms or (message.expires_ms is not None and message.expires_ms <= self.now_ms):
            self._ready(key, message)
            return
        message.state, message.at_ms = DELAYED, self.now_ms + delay_ms
        self.touched[key] = None

    def _die(self, key: bytes, message: Plain, reason: bytes) -> None:
        queue, dlq = self.queues[key], self.queues[key].rules.dlq
        here = dlq is not None and self._holds(dlq)
        if dlq is None or (here and self._other_type(dlq)):
            message.state, message.at_ms, message.note, message.origin = DEAD, self.now_ms, reason, None
            self._changes(key, "died", message)
            return
        queue.tally.sent += 1
        if not here:
            self.posts.append((dlq, message.payload))
            self._remove(key, message, "sent")
            return
        self._remove(key, message, "moved")
        origin = Origin(key, message.deliveries, message.pushed_ms, self.now_ms, reason)
        self._take_in(dlq, message.payload, message.id, message.priority, message.group, origin)

    def _take_in(
        self, key: bytes, payload: bytes, id: bytes | None, priority: int, group: bytes | None, origin: Origin
    ) -> None:
        """A dead letter comes from another queue."""
        self.queues.setdefault(key, PlainQueue(Rules()))
        words = [b"PRIORITY", b"%d" % priority, *((b"GROUP", group) if group is not None else ())]
        self._push(key, payload, words, id).origin = origin

    # Those who wait

    def serve(self) -> None:
        """Whoever waits longest for a queue in which something is ready gets it."""
        for key in list(self.touched):
            queue = self.queues.get(key)
            if queue is None:
                continue
            for origin, wait in list(self.waits.items()):
                if wait.key != key:
                    continue
                taken = self._take(key, wait.words, origin)
                if taken is None:
                    break
                del self.waits[origin]
                self.woken.append((origin, taken))

    def look_ahead(self, key: bytes) -> None:
        """Notes when something is next due in a queue."""
        queue = self.queues.get(key)
        if queue is not None:
            times = [one.at_ms for one in queue.messages if one.state in (DELAYED, TAKEN) and one.at_ms]
            times += [one.expires_ms for one in queue.messages if one.expires_ms is not None]
            queue.next_ms = min(times, default=None)

    def _take(self, key: bytes, words: list[bytes], origin: bytes) -> Taken | None:
        queue = self.queues[key]
        options = dict(zip(words[::2], words[1::2], strict=True))
        until_ms = self.now_ms + (int(options.get(b"VISIBILITY", b"0")) or queue.rules.visibility_ms)
        found: list[Plain] = []
        self.touched[key] = None
        while len(found) < int(options.get(b"COUNT", b"1")) and (message := queue.first()) is not None:
            if message.expires_ms is not None and message.expires_ms <= self.now_ms:
                self._expire(key, message)
                continue
            queue.tally.redelivered += message.deliveries > 0
            message.state, message.at_ms, message.note = TAKEN, until_ms, options.get(b"CONSUMER", origin)
            message.deliveries += 1
            message.receipt = None
            found.append(message)
        expected = [(message.payload, message.deliveries, message.id) for message in found]
        return Taken(key, found, expected) if found else None

    def ends(self, origin: bytes) -> None:
        """Nobody waits there any more."""
        wait = self.waits.pop(origin, None)
        if wait is not None:
            self.touched[wait.key] = None

    # Commands

    def call(self, args: list[bytes], origin: bytes, *, in_part: bool = False) -> Answer:
        """Carries out a Q. command; the caller lets those who wait be served."""
        name, key = args[0].decode()[2:].lower(), args[1]
        self._in_part = in_part
        self.touched[key] = None
        queue = self.queues.get(key)
        if self._other_type(key):
            return Error("WRONGTYPE")
        if queue is not None and queue.part is not None and not in_part and name != "create":
            return Error("TRYAGAIN")
        if name == "pop":
            return self._pop(key, queue, args[2:], origin)
        answer: Answer = getattr(self, f"_on_{name}")(key, queue, args[2:])
        return answer

    def adopt(self, key: bytes, part: Part, rules: Rules, *, makes: bool) -> Error | None:
        """A command for a part says what its queue is like; what is left of one deleted before that was made goes."""
        queue = self.queues.get(key)
        if queue is not None and queue.part is not None and queue.part.version < part.born:
            self.delete(key)
            self.serve()
            queue = None
        if queue is None:
            if part.version < self.dropped.get(key, -1) and not self._other_type(key):
                return Error("TRYAGAIN")
            if makes and not self._other_type(key):
                self.queues[key] = PlainQueue(rules, part)
        elif queue.part is None:
            return Error("ERR")
        elif queue.part.version < part.version:
            queue.part, queue.rules = part, rules
        return None

    def delete(self, key: bytes) -> None:
        """The queue is gone, and with it all that was in it; of one with parts, whoever waits asks again."""
        queue = self.queues.pop(key, None)
        self.touched[key] = None
        for message in [] if queue is None else queue.messages:
            self._changes(key, "deleted", message)
        if queue is not None and queue.part is not None and not queue.part.index:
            self._ask_again(key)

    def drop(self, key: bytes, version: int) -> None:
        """A part of a deleted queue goes, unless it is of the next of that name."""
        queue = self.queues.get(key)
        part = None if queue is None else queue.part
        if part is None or part.version < version:
            if part is not None:
                self.delete(key)
            self._ask_again(key)

    def _ask_again(self, key: bytes) -> None:
        self.touched[key] = None
        for origin, wait in list(self.waits.items()):
            if wait.key == key:
                del self.waits[origin]
                self.woken.append((origin, None))

    def arrive(
        self, key: bytes, payload: bytes, id: bytes, priority: int, group: bytes | None, origin: Origin
    ) -> Answer:
        """A letter from another shard."""
        if self._other_type(key):
            return Error("WRONGTYPE")
        self._take_in(key, payload, id, priority, group, origin)
        self.serve()
        return "OK"

    def come_back(self, key: bytes, dead: Plain, reason: bytes) -> None:
        """A letter that could not be delivered is one of the dead of its queue."""
        queue = self.queues.get(key)
        if queue is not None:
            self._places += 1
            dead.place, dead.state, dead.at_ms, dead.note = self._places, DEAD, self.now_ms, reason
            queue.messages.append(dead)
            queue.tally.sent -= 1
            self._changes(key, "came back", dead)

    def _on_create(self, key: bytes, queue: PlainQueue | None, words: list[bytes]) -> Answer:
        if queue is not None:
            return Error("BUSYKEY")
        rules = Rules()
        rules.read(words)
        count = min(rules.partitions, self._shards)
        self.queues[key] = PlainQueue(rules, Part(0, count, 0, 0) if count > 1 else None)
        return "OK"

    def _on_config(self, key: bytes, queue: PlainQueue | None, words: list[bytes]) -> Answer:
        if queue is None:
            return Error("ERR")
        queue.rules.read(words)
        return "OK"

    def _on_push(self, key: bytes, queue: PlainQueue | None, words: list[bytes]) -> Answer:
        given = words[words.index(b"ID") + 1] if b"ID" in words[1::2] else None
        if queue is not None and given is not None:
            last_ms = next((at_ms for seen, at_ms in reversed(queue.seen) if seen == given), None)
            if last_ms is not None and last_ms + queue.rules.dedup_ms > self.now_ms:
                return given
        if (full := self._full(key, queue, 1)) is not None:
            return full
        queue = self.queues[key]
        for _ in range(FORGOTTEN_BY_A_PUSH):
            if queue.seen and queue.seen[0][1] + queue.rules.dedup_ms <= self.now_ms:
                del queue.seen[0]
        message = self._push(key, words[0], words[1:])
        if given is not None and queue.rules.dedup_ms:
            queue.seen.append((given, self.now_ms))
        return message

    def _on_mpush(self, key: bytes, queue: PlainQueue | None, words: list[bytes]) -> Answer:
        if (full := self._full(key, queue, len(words))) is not None:
            return full
        return [self._push(key, payload, []) for payload in words]

    def _full(self, key: bytes, queue: PlainQueue | None, count: int) -> Error | None:
        """That so many more do not fit; a queue that is not there is made."""
        if queue is None:
            self.queues[key] = PlainQueue(Rules())
            return None
        share = -(-queue.rules.maxlen // (1 if queue.part is None else queue.part.count))
        return Error("QUEUEFULL") if share and len(queue.living()) + count > share else None

    def _pop(self, key: bytes, queue: PlainQueue | None, words: list[bytes], origin: bytes) -> Answer:
        taken = None if queue is None else self._take(key, words, origin)
        if taken is not None:
            return taken
        if b"BLOCK" not in words[::2]:
            return None
        self.ends(origin)
        self.woken = [woken for woken in self.woken if woken[0] != origin]
        block_ms = int(words[words.index(b"BLOCK") + 1])
        self.waits[origin] = Wait(key, words, self.now_ms + block_ms if block_ms else None)
        return WAITS

    def _on_ack(self, key: bytes, queue: PlainQueue | None, words: list[bytes]) -> Answer:
        count = 0
        for receipt in words:
            message = None if queue is None else queue.by_receipt(receipt)
            if queue is not None and message is not None:
                queue.tally.acked += 1
                self._remove(key, message, "acked")
                count += 1
        return count

    def _on_nack(self, key: bytes, queue: PlainQueue | None, words: list[bytes]) -> Answer:
        message = None if queue is None else queue.by_receipt(words[0])
        if message is None:
            return 0
        options, rest = {}, iter(words[1:])
        for word in rest:
            options[word] = b"" if word == b"DEAD" else next(rest)
        if b"DEAD" in options:
            self._die(key, message, options.get(b"REASON", b"refused for good"))
        else:
            delay_ms = int(options[b"DELAY"]) if b"DELAY" in options else None
            self._fail(key, message, options.get(b"REASON", b"refused"), delay_ms)
        return 1

    def _on_extend(self, key: bytes, queue: PlainQueue | None, words: list[bytes]) -> Answer:
        message = None if queue is None else queue.by_receipt(words[0])
        if message is None:
            return 0
        message.at_ms = self.now_ms + int(words[1])
        return 1

    def untake(self, key: bytes, receipts: list[bytes]) -> int:
        """Deliveries that reached nobody never were."""
        count, queue = 0, self.queues.get(key)
        self.touched[key] = None
        for receipt in receipts:
            message = None if queue is None else queue.by_receipt(receipt)
            if message is not None:
                message.deliveries -= 1
                message.note = message.receipt = None
                self._happens(Happened(key, "untaken", message))
                self._ready(key, message)
                count += 1
        return count

    def _on_redrive(self, key: bytes, queue: PlainQueue | None, words: list[bytes]) -> Answer:
        if queue is None:
            return 0
        dead = queue.dead()
        if words:
            dead = dead[: int(words[1])]
        if queue.rules.maxlen:
            share = -(-queue.rules.maxlen // (1 if queue.part is None else queue.part.count))
            dead = dead[: max(0, share - len(queue.living()))]
        for message in dead:
            self._remove(key, message, "redriven")
            self._places += 1
            life_ms = None if message.expires_ms is None else message.expires_ms - message.pushed_ms
            again = Plain(
                self._places,
                message.payload,
                self.now_ms,
                message.id,
                message.priority,
                message.group,
                None if life_ms is None else self.now_ms + life_ms,
            )
            queue.messages.append(again)
            self._changes(key, "driven back", again)
        return len(dead)

    def _on_purge(self, key: bytes, queue: PlainQueue | None, words: list[bytes]) -> Answer:
        if queue is None:
            return 0
        dropped = queue.dead() if words else list(queue.messages)
        queue.tally.purged += len(dropped)
        for message in dropped:
            self._remove(key, message, "purged")
        return len(dropped)
