"""The referee of queues: every committed entry is carried out again by a plain model, which judges replies and states.

It watches the machine of `tests.simulation.referee`, which carries out the same
entries as all replicas do: what a command for queues answers, who is woken with
what, and what is left afterwards must be what `plain_queues` comes to.
"""

from __future__ import annotations

from dataclasses import astuple, replace
from typing import Any, NamedTuple, TypeGuard

import msgspec

from cluster.machine import letters, queue_lives, queue_parts
from cluster.machine.machine import END_SESSION, END_SESSIONS, UNBLOCK, Call, Machine
from cluster.machine.message import Message, State
from cluster.machine.queue import Queue
from cluster.machine.reply import NULL_ARRAY, OK, WAITING, CommandError, Reply
from tests.simulation.plain_queues import (
    DEAD,
    DELAYED,
    READY,
    TAKEN,
    WAITS,
    Answer,
    Error,
    Happened,
    Origin,
    Part,
    Plain,
    PlainQueue,
    PlainQueues,
    Rules,
)
from tests.simulation.plain_queues import (
    Taken as TakenMessages,
)
from tests.simulation.world import Violation

LOOKS = (b"Q.LEN", b"Q.INFO", b"Q.PEEK", b"Q.DEAD", b"Q.LIST")
MAKES = (b"Q.PUSH", b"Q.MPUSH")
CONCERN = (
    b"DEL",
    END_SESSION,
    END_SESSIONS,
    UNBLOCK,
    letters.REFUSED,
    queue_parts.CALL,
    queue_parts.DROP,
    queue_lives.ARRIVE,
)

RULES = ("partitions", "visibility_ms", "maxdeliveries", "backoff_ms", "dlq", "maxlen", "px_ms", "dedup_ms")
"""The settings as they go with commands for parts, in this order."""

STATES = {State.DELAYED: DELAYED, State.READY: READY, State.IN_FLIGHT: TAKEN, State.DEAD: DEAD}


class Given(NamedTuple):
    """A delivery: of what, for the how-manieth time, and to whom."""

    payload: bytes
    deliveries: int
    id: bytes
    origin: bytes


class QueueReferee:
    """Watches the queues of one shard.

    ``given`` are all deliveries there were, by queue and receipt, ``acked`` those that were acknowledged; ``fates``
    what became of a payload in a queue, in order; ``ids`` the payloads that were pushed with an id. ``sent`` counts
    letters to other shards by queue and body, ``arrived`` those from others, ``back`` those that came back.
    """

    def __init__(self, machine: Machine, shards: int) -> None:
        self._machine = machine
        self.plain = PlainQueues(shards, machine.holds, self._other_type, self._happens)
        self.given: dict[tuple[bytes, bytes], Given] = {}
        self.acked: dict[tuple[bytes, bytes], None] = {}
        self.fates: dict[tuple[bytes, bytes], list[str]] = {}
        self.ids: dict[tuple[bytes, bytes], list[bytes]] = {}
        self.sent: dict[tuple[bytes, bytes], int] = {}
        self.arrived: dict[tuple[bytes, bytes], int] = {}
        self.back: dict[tuple[bytes, bytes], int] = {}
        self._letter = 0
        self._found: Violation | None = None
        self._expected: list[tuple[bytes, Answer]] = []

    def begin(self, time_ms: int) -> None:
        """An entry is about to be carried out."""
        self.plain.begin(time_ms)

    def watched(self, call: Call) -> Call:
        """A call of it, which is looked at."""
        handler, args, origin = call
        name = args[0]
        if name in LOOKS or not (name.startswith(b"Q.") or name in CONCERN):
            return call
        if name == queue_parts.CALL and args[3] in LOOKS:
            return call

        def run(machine: Machine, args: list[Any]) -> Reply:
            letter = machine.letters.get(int(args[1])) if name == letters.REFUSED else None
            try:
                reply = handler(machine, args)
            except CommandError as error:
                self._step(args, origin, error, letter)
                raise
            self._step(args, origin, reply, letter)
            return reply

        return run, args, origin

    def end(self, woken: list[tuple[bytes, int, Reply]]) -> None:
        """The entry was carried out, and these waits ended; raises `Violation`."""
        if self._found is not None:
            raise self._found
        self._judge_woken(woken)
        self._judge_letters()
        for key in self.plain.touched:
            self.plain.look_ahead(key)
            self._compare(key)
        self.plain.touched = {}

    def values(self) -> list[tuple[bytes, Queue]]:
        """The queues as the machine has them, by their names."""
        found = self._machine.keyspace.values.items()
        return [(key, value) for key, value in found if isinstance(value, Queue)]

    def _other_type(self, key: bytes) -> bool:
        value = self._machine.keyspace.values.get(key)
        return value is not None and not isinstance(value, Queue)

    def _happens(self, happened: Happened) -> None:
        key, what, message = happened
        self.fates.setdefault((key, message.payload), []).append(what)
        if what == "acked" and message.receipt is not None:
            self.acked[key, message.receipt] = None
        elif what == "pushed" and message.id is not None:
            self.ids.setdefault((key, message.id), []).append(message.payload)

    # One call

    def _step(self, args: list[Any], origin: bytes, reply: Reply, letter: letters.Letter | None) -> None:
        if self._found is not None:
            return
        try:
            self._carry_out(args, origin, reply, letter)
        except Violation as found:
            self._found = found
        self.plain.serve()

    def _carry_out(self, args: list[Any], origin: bytes, reply: Reply, letter: letters.Letter | None) -> None:
        plain, name = self.plain, args[0]
        if name.startswith(b"Q."):
            self._judge(args, origin, reply, plain.call(args, origin))
        elif name == queue_parts.CALL:
            self._of_part(args, origin, reply)
        elif name == queue_lives.ARRIVE:
            message = msgspec.msgpack.decode(args[2], type=Message)
            died = Origin(*msgspec.msgpack.decode(args[3]))
            answer = plain.arrive(args[1], message.payload, message.id, message.priority, message.group, died)
            self._count(self.arrived, args[1], args[2], wanted=answer == "OK")
            self._judge(args, origin, reply, answer)
        elif name == letters.REFUSED:
            if letter is not None and letter.back:
                self._came_back(letter)
        elif name == queue_parts.DROP:
            plain.drop(args[1], msgspec.msgpack.decode(args[2])[2])
        elif name == b"DEL":
            for key in args[1:]:
                plain.delete(key)
                plain.touched[key] = None
        else:
            self._of_session(args, reply)

    def _of_session(self, args: list[Any], reply: Reply) -> None:
        """Sessions are over, or no longer to wait."""
        plain, name = self.plain, args[0]
        if name == END_SESSION:
            plain.ends(args[1])
        elif name == END_SESSIONS:
            for other in [one for one in plain.waits if one.startswith(args[1]) and not one.startswith(args[2])]:
                plain.ends(other)
        elif name == UNBLOCK and reply == 1 and args[1] in plain.waits:
            plain.ends(args[1])
            plain.woken.append((args[1], None))

    def _of_part(self, args: list[Any], origin: bytes, reply: Reply) -> None:
        key, name, inner = args[1], args[3], [args[3], args[1], *args[4:]]
        index, (version, count, settings, born, _) = msgspec.msgpack.decode(args[2])
        gone = self._machine.dropped.get(key)
        if gone is not None:
            self.plain.dropped[key] = gone.version
        rules = Rules(**dict(zip(RULES, [*settings[:3], tuple(settings[3]), *settings[4:8]], strict=True)))
        error = self.plain.adopt(key, Part(index, count, version, born), rules, makes=name in MAKES)
        if error is not None:
            self._judge(args, origin, reply, error)
        elif name == queue_parts.UNTAKE:
            self._judge(args, origin, reply, self.plain.untake(key, args[4:]))
        else:
            self._judge(inner, origin, reply, self.plain.call(inner, origin, in_part=True))

    def _came_back(self, letter: letters.Letter) -> None:
        _, key, body, reason = letter.back
        self._count(self.back, letter.args[1], body)
        sent = msgspec.msgpack.decode(body, type=Message)
        self.plain.touched[key] = None
        message = Plain(0, sent.payload, sent.pushed_ms, sent.id, sent.priority, sent.group, sent.expires_ms)
        message.deliveries = sent.deliveries
        self.plain.come_back(key, message, reason)

    @staticmethod
    def _count(counts: dict[tuple[bytes, bytes], int], key: bytes, body: bytes, *, wanted: bool = True) -> None:
        if wanted:
            counts[key, body] = counts.get((key, body), 0) + 1

    def _judge(self, args: list[Any], origin: bytes, reply: Reply, answer: Answer) -> None:
        """What a command answered is what the rules come to; and what only the product can know is learned."""
        key = args[1]
        if args[0] in (b"Q.CREATE", b"Q.CONFIG") and answer == "OK":
            self._learn_version(key)
        if not self._fits(key, origin, reply, answer):
            raise Violation("queues answer by the rules", f"{args} of {origin!r} got {reply!r} instead of {answer}")

    def _fits(self, key: bytes, origin: bytes, reply: Reply, answer: Answer) -> bool:
        if isinstance(answer, Error):
            return isinstance(reply, CommandError) and reply.code == answer.code
        if isinstance(answer, Plain):
            return self._fits_id(key, reply, answer)
        if isinstance(answer, TakenMessages):
            return self._fits_messages(origin, reply, answer)
        if isinstance(answer, list):
            return (
                isinstance(reply, list)
                and len(reply) == len(answer)
                and all(self._fits_id(key, named, message) for named, message in zip(reply, answer, strict=True))
            )
        if answer in ("OK", WAITS, None):
            return reply is {"OK": OK, WAITS: WAITING, None: NULL_ARRAY}[answer]
        return type(reply) is type(answer) and bool(reply == answer)

    def _fits_id(self, key: bytes, reply: Reply, message: Plain) -> bool:
        if message.id is None and isinstance(reply, bytes):
            message.id = reply
            known = self.ids.setdefault((key, reply), [])
            known.append(message.payload)
            return len(known) == 1
        return reply == message.id

    def _fits_messages(self, origin: bytes, reply: Reply, answer: TakenMessages) -> bool:
        key = answer.key
        if not isinstance(reply, list) or [tuple(one[1:]) for one in reply] != answer.expected:
            return False
        for message, (receipt, payload, deliveries, named) in zip(answer.messages, reply, strict=True):
            again = self.given.get((key, receipt))
            if again is not None and "untaken" not in self.fates.get((key, payload), ()):
                raise Violation(
                    "a receipt is of one delivery", f"{receipt!r} of {key!r} to {again.origin!r} and {origin!r}"
                )
            message.receipt = receipt
            self.given[key, receipt] = Given(payload, deliveries, named, origin)
        return True

    def _learn_version(self, key: bytes) -> None:
        value, queue = self._machine.keyspace.values.get(key), self.plain.queues.get(key)
        if isinstance(value, Queue) and value.partition is not None and queue is not None and queue.part is not None:
            version = value.partition.version
            if version <= queue.part.version:
                raise Violation("newer settings go before older", f"{key!r} has {version} after {queue.part}")
            queue.part = replace(queue.part, version=version, born=queue.part.born or version)

    # An entry's end

    def _judge_woken(self, woken: list[tuple[bytes, int, Reply]]) -> None:
        """Who waited longest was served, and nobody else; whose time was up was told."""
        expected, self.plain.woken = self.plain.woken, []
        concerned = dict.fromkeys(origin for origin, _ in expected)
        found = [(origin, reply) for origin, _, reply in woken if origin in concerned or _is_messages(reply)]
        wanted = {origin: [one for other, one in expected if other == origin] for origin in concerned}
        for origin, reply in found:
            answers = wanted.get(origin) or [None]
            answer = answers.pop(0)
            if not self._fits(b"", origin, reply, answer):
                raise Violation("whoever waits is served in turn", f"{origin!r} got {reply!r} instead of {answer}")
        if any(wanted.values()):
            raise Violation("whoever waits is served in turn", f"{wanted} were not woken, {found} were")

    def _judge_letters(self) -> None:
        """What is to go to other shards was posted."""
        posted = []
        for number, letter in self._machine.letters.items():
            if number > self._letter and letter.args[0] == queue_lives.ARRIVE:
                body = letter.args[2]
                posted.append((letter.args[1], msgspec.msgpack.decode(body, type=Message).payload))
                self._count(self.sent, letter.args[1], body)
        self._letter = max(self._machine.letters, default=self._letter)
        wanted, self.plain.posts = self.plain.posts, []
        if posted != wanted:
            raise Violation("the dead are sent on", f"{posted} were posted instead of {wanted}")

    def _compare(self, key: bytes) -> None:
        """A queue of the machine is as the rules have it."""
        value, plain = self._machine.keyspace.values.get(key), self.plain.queues.get(key)
        queue = value if isinstance(value, Queue) else None
        if queue is None or plain is None:
            if queue is not None or plain is not None:
                raise Violation("queues are as the rules have them", f"{key!r} is {value!r}, and should be {plain}")
            return
        try:
            queue.check()
        except AssertionError as error:
            raise Violation("queue.check", f"{key!r}: {error!r}") from error
        found, wanted = _picture(queue), _plain_picture(plain)
        if found != wanted:
            differ = [(one, other) for one, other in zip(found, wanted, strict=True) if one != other]
            raise Violation("queues are as the rules have them", f"{key!r}: {differ}")
        pushed, accounted = plain.balance()
        if pushed != accounted:
            raise Violation("the counts add up", f"{key!r}: {plain.tally} with {len(plain.messages)} there")
        line = [waiter.origin for waiter in self._machine.waiters.at(key, Queue.kind)]
        if line != [origin for origin, wait in self.plain.waits.items() if wait.key == key]:
            raise Violation(
                "first come, first served", f"those who wait for {key!r} are {line}, not {self.plain.waits}"
            )


def _is_messages(reply: Reply) -> TypeGuard[list[list[Any]]]:
    return isinstance(reply, list) and all(isinstance(one, list) for one in reply)


def _picture(queue: Queue) -> list[Any]:
    """All of a queue that clients can come to see."""
    counters = queue.counters
    return [
        [(*_seen(message), _origin(queue, message)) for message in queue.living.values()],
        [(*_seen(message), None) for message in queue.buried()],
        [counters.pushed, counters.acked, counters.redelivered, counters.expired, counters.sent],
        list(msgspec.structs.astuple(queue.settings)),
        None if queue.partition is None else msgspec.structs.astuple(queue.partition),
    ]


def _origin(queue: Queue, message: Message) -> tuple[Any, ...] | None:
    origin = queue.origins.get(message.number)
    return None if origin is None else msgspec.structs.astuple(origin)


def _seen(message: Message) -> tuple[Any, ...]:
    return (
        message.id,
        message.payload,
        message.pushed_ms,
        message.priority,
        message.group,
        message.expires_ms,
        STATES[message.state],
        message.at_ms,
        message.deliveries,
        message.note,
    )


def _plain_picture(queue: PlainQueue) -> list[Any]:
    rules, tally = queue.rules, queue.tally
    return [
        [_plainly_seen(message) for message in queue.living()],
        [_plainly_seen(message) for message in queue.dead()],
        [tally.pushed, tally.acked, tally.redelivered, tally.expired, tally.sent],
        [getattr(rules, name) for name in RULES],
        None if queue.part is None else astuple(queue.part),
    ]


def _plainly_seen(one: Plain) -> tuple[Any, ...]:
    return (
        one.id,
        one.payload,
        one.pushed_ms,
        one.priority,
        one.group,
        one.expires_ms,
        one.state,
        one.at_ms,
        one.deliveries,
        one.note,
        one.origin,
    )
