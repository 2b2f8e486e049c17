"""What a client does to push messages and to work them off: what to send next, and what an answer means.

A `Push` is one message on its way into a queue. An `Intake` is one consumer of one
queue; each message it is given is a `Delivery` until that ends. What they do are
procedures of `resp_server.steps`; `resp_server.client_queues` drives them.

The rules:

* A push that may have been carried out is sent again with the same ``ID``, so the
  queue takes it once, for as long as it remembers ids (``DEDUP``).
* A take whose answer is lost is not asked for again: what it took comes back after
  its visibility.
* A delivery is believed in from before the last good request was *sent* until its
  visibility, less what clocks may differ, has passed here. One that was waited for
  is of unknown age: it is extended before anybody sees it, and left when it is over.
* Everything at hand is extended, what nobody has begun with too.
* An acknowledgement that finds nothing tells that the delivery was lost, unless an
  earlier try of it may have worked and nobody else can have the message yet.

The weak spot: a take that is answered while its connection breaks keeps its messages
from everybody for the length of their visibility.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from resp_server.steps import (
    CLOCKS_DIFFER,
    GIVE_BACK_S,
    PASSING,
    RENEWALS,
    REPLY_S,
    Ask,
    Lost,
    Outcome,
    Pause,
    Pauses,
    Refusal,
    Reply,
    Steps,
    Unreached,
    Word,
    Words,
    shown,
    written,
)

REASON_BYTES_MAX = 4096
"""A queue takes no longer reason."""


class QueueError(Exception):
    """A message could not be pushed, taken or settled; the message says why."""


class QueueFull(QueueError):
    """The queue has as many messages as it may have. Nothing was pushed."""


class QueueTimeout(QueueError, TimeoutError):
    """No server could do it in time. A push may have happened, if the message says so."""


class MessageLost(QueueError):
    """The delivery is over, or may be: somebody else may be working on the message, or will."""


def _check_seconds(name: str, seconds: float, least: float) -> None:
    if not least <= seconds < math.inf:
        raise ValueError(f"{name} has to be a number of seconds, at least {least:g}")


def _ms(seconds: float) -> str:
    return str(math.ceil(seconds * 1000 - 1e-6))


# Pushing


@dataclass(frozen=True, slots=True)
class Extras:
    """What may be said of a message besides its payload. Times are in seconds; ``ttl_s`` None is the queue's own."""

    delay_s: float = 0.0
    priority: int = 0
    group: Word | None = None
    ttl_s: float | None = None

    def __post_init__(self) -> None:
        _check_seconds("delay", self.delay_s, 0.0)
        if self.ttl_s is not None:
            _check_seconds("ttl", self.ttl_s, 0.001)
        if not 0 <= self.priority <= 255:
            raise ValueError("priority has to be a number from 0 to 255")

    def words(self) -> Words:
        """As options of Q.PUSH."""
        words: list[str | bytes] = []
        if self.delay_s:
            words += ["DELAY", _ms(self.delay_s)]
        if self.priority:
            words += ["PRIORITY", str(self.priority)]
        if self.group is not None:
            words += ["GROUP", written(self.group)]
        if self.ttl_s is not None:
            words += ["PX", _ms(self.ttl_s)]
        return tuple(words)


PLAIN = Extras()


class Push:
    """One message on its way into a queue. ``id`` is how the queue will know it, also in a repetition.

    ``clock`` gives seconds that only grow; ``chance`` a number from 0 to 1.
    """

    def __init__(
        self,
        queue: Word,
        payload: str | bytes,
        id: Word,
        clock: Callable[[], float],
        chance: Callable[[], float],
        *,
        extras: Extras = PLAIN,
        timeout_s: float = 30.0,
    ) -> None:
        _check_seconds("timeout", timeout_s, 0.0)
        self.id = written(id)
        self._queue = queue
        self._timeout_s = timeout_s
        self._words: Words = ("Q.PUSH", written(queue), payload, "ID", self.id, *extras.words())
        self._clock = clock
        self._pauses = Pauses(chance)

    def pushing(self) -> Steps:
        """Until it is pushed; raises a `QueueError` when it will not be, or nobody can say."""
        give_up_s = self._clock() + self._timeout_s
        is_doubtful = False
        while True:
            outcome = yield Ask(self._words, REPLY_S)
            match outcome:
                case Refusal("QUEUEFULL", why):
                    raise QueueFull(f"queue {shown(self._queue)}: {why.removeprefix('QUEUEFULL ')}")
                case Refusal(code, why) if code not in PASSING:
                    raise QueueError(f"queue {shown(self._queue)}: {why}")
                case Refusal("UNCERTAIN", why) | Lost(why):
                    is_doubtful = True
                case Refusal(_, why) | Unreached(why):
                    pass
                case _:
                    return
            left_s = give_up_s - self._clock()
            if left_s <= 0:
                text = f"no answer from queue {shown(self._queue)} within {self._timeout_s:g} s: {why}"
                raise QueueTimeout(text + ("; the message may have been pushed" if is_doubtful else ""))
            yield Pause(min(self._pauses.next_s(), left_s))


# Working off


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a consumer wants: ``count`` messages at a time, for ``visibility_s`` each, of one queue.

    It has had enough when none came for ``timeout_s``; 0 is when none is there,
    None is never. A wait that has gone on for ``ask_again_s`` is asked for again.
    """

    queue: Word
    visibility_s: float = 30.0
    count: int = 1
    timeout_s: float | None = None
    ask_again_s: float = 30.0

    def __post_init__(self) -> None:
        _check_seconds("visibility", self.visibility_s, 0.001)
        _check_seconds("ask_again", self.ask_again_s, 0.001)
        if self.timeout_s is not None:
            _check_seconds("timeout", self.timeout_s, 0.0)
        if self.count < 1:
            raise ValueError("count has to be at least 1")


class Delivery:
    """A message at hand, from when it is taken until it is acknowledged, refused or lost."""

    receipt: bytes
    payload: bytes
    deliveries: int
    id: bytes

    def __init__(self, wanted: Wanted, told: list[Any], clock: Callable[[], float], pauses: Pauses) -> None:
        self.receipt, self.payload, self.deliveries, self.id = told
        self.is_open = True  # neither acknowledged nor refused, as far as it was tried
        self.until_s = -math.inf
        self.renew_at_s = -math.inf
        self._wanted = wanted
        self._believed_s = wanted.visibility_s * (1 - CLOCKS_DIFFER)
        self._clock = clock
        self._pauses = pauses
        self._lost_because = ""

    @property
    def is_held(self) -> bool:
        """Whether nobody else can be given the message just now."""
        if not self._lost_because and self._clock() >= self.until_s:
            self._lost_because = "it was not extended in time"
        return self.is_open and not self._lost_because

    def check(self) -> None:
        """Raises `MessageLost` unless it is held."""
        if not self.is_held:
            self._raise(self._lost_because or "it was acknowledged or refused")

    def conclude(self) -> None:
        """After `acknowledging` or `refusing`: raises `MessageLost` unless that certainly happened."""
        if self._lost_because:
            self._raise(self._lost_because)

    def _raise(self, why: str) -> None:
        raise MessageLost(f"message {shown(self.id)} of queue {shown(self._wanted.queue)} is lost: {why}")

    def believe(self, sent_s: float) -> None:
        """It was taken or extended by a request that was sent then."""
        self.until_s = sent_s + self._believed_s
        self.renew_at_s = sent_s + self._believed_s / RENEWALS

    def extending(self) -> Steps:
        """Asks for another visibility, once."""
        sent_s = self._clock()
        left_s = self._believed_s if math.isinf(self.until_s) else max(0.001, self.until_s - sent_s)
        words = ("Q.EXTEND", written(self._wanted.queue), self.receipt, _ms(self._wanted.visibility_s))
        outcome = yield Ask(words, min(REPLY_S, left_s))
        if not self.is_open:
            return  # it was acknowledged or refused meanwhile, and an answer of 0 says no more than that
        match outcome:
            case Reply(1):
                self.believe(sent_s)
            case Reply():
                self._lost_because = self._lost_because or "it was given to somebody else, or it was purged"
            case _:
                self.renew_at_s = min(self._clock() + self._pauses.next_s(), self.until_s)

    def acknowledging(self) -> Steps:
        """The message is done with. It is tried until nobody else can have it any more."""
        return self._ending(("Q.ACK", written(self._wanted.queue), self.receipt), self.until_s)

    def refusing(self, delay_s: float | None = None, *, dead: bool = False, reason: str = "") -> Steps:
        """It comes back after its back-off, or ``delay_s``; or it is a ``dead`` letter, and ``reason`` tells why."""
        words: list[str | bytes] = ["Q.NACK", written(self._wanted.queue), self.receipt]
        if delay_s is not None:
            words += ["DELAY", _ms(delay_s)]
        if dead:
            words.append("DEAD")
        if reason:
            words += ["REASON", written(reason)[:REASON_BYTES_MAX]]
        return self._ending(tuple(words), min(self.until_s, self._clock() + GIVE_BACK_S))

    def _ending(self, words: Words, give_up_s: float) -> Steps:
        if not self.is_open:
            raise RuntimeError(f"message {shown(self.id)} was acknowledged or refused already")
        self.is_open = False
        is_first = True  # no try before this one may have worked
        while True:
            outcome = yield Ask(words, REPLY_S)
            match outcome:
                case Reply(count):
                    if count:
                        self._lost_because = ""
                    elif is_first:
                        self._lost_because = self._lost_because or "it was given to somebody else, or it was purged"
                    elif self._clock() >= self.until_s:
                        self._lost_because = self._lost_because or "it was over before the end of it was known"
                    return
                case Lost(why) | Refusal("UNCERTAIN", why):
                    is_first = False
                case Refusal(_, why) | Unreached(why):
                    pass
                case _:
                    raise AssertionError(outcome)
            is_final = isinstance(outcome, Refusal) and outcome.code not in PASSING
            if is_final or self._clock() >= give_up_s:
                self._lost_because = self._lost_because or f"no server could be told the end of it: {why}"
                return
            yield Pause(self._pauses.next_s())


class Intake:
    """One consumer of one queue, and what it has at hand.

    `keeping` may run in another thread than all the rest. ``clock`` and ``chance`` as for `Push`.
    """

    def __init__(self, wanted: Wanted, consumer: str, clock: Callable[[], float], chance: Callable[[], float]) -> None:
        self.wanted = wanted
        self._consumer = consumer
        self._clock = clock
        self._chance = chance
        self._pauses = Pauses(chance)
        self._held: dict[bytes, Delivery] = {}  # by receipt, what is to be kept
        self._unseen: deque[Delivery] = deque()
        self._sent_s = -math.inf

    def taking(self) -> Steps:
        """Until a message is at hand, or there were none for too long; `next` tells.

        Raises a `QueueError` when no server could be asked in that time, or none ever will give any.
        """
        timeout_s = self.wanted.timeout_s
        give_up_s = math.inf if timeout_s is None else self._clock() + timeout_s
        while not self._is_any_at_hand():
            self._sent_s = self._clock()
            wait_s = max(0.0, min(self.wanted.ask_again_s, give_up_s - self._sent_s))
            outcome = yield Ask(self._take(wait_s), wait_s + REPLY_S)
            self.receive(outcome)
            for delivery in self._unseen:
                if math.isinf(delivery.until_s):
                    yield from delivery.extending()
                self._held[delivery.receipt] = delivery
            left_s = give_up_s - self._clock()
            match outcome:
                case Reply():
                    self._pauses.reset()
                    if left_s <= 0:
                        return
                case Refusal(code, why) if code not in PASSING:
                    raise QueueError(f"queue {shown(self.wanted.queue)}: {why}")
                case Refusal(_, why) | Unreached(why) | Lost(why):
                    if left_s <= 0:
                        text = f"queue {shown(self.wanted.queue)} could not be asked within {timeout_s:g} s: {why}"
                        raise QueueTimeout(text)
                    yield Pause(min(self._pauses.next_s(), left_s))

    def receive(self, outcome: Outcome | None) -> None:
        """What the last take was answered with, also when that was not waited for."""
        if not isinstance(outcome, Reply) or not isinstance(outcome.value, list):
            return
        is_fresh = self._clock() - self._sent_s < self.wanted.visibility_s / RENEWALS
        for told in outcome.value:
            delivery = Delivery(self.wanted, told, self._clock, Pauses(self._chance, self.wanted.visibility_s / 10))
            if is_fresh:
                delivery.believe(self._sent_s)
            self._unseen.append(delivery)

    def _is_any_at_hand(self) -> bool:
        while self._unseen and not self._unseen[0].is_held:
            self._drop(self._unseen.popleft())
        return bool(self._unseen)

    def next(self) -> Delivery | None:
        """The next message at hand; it stays held until `over`."""
        return self._unseen.popleft() if self._is_any_at_hand() else None

    def over(self, delivery: Delivery) -> None:
        """It was acknowledged or refused, or nobody works on it any more."""
        self._drop(delivery)

    def _drop(self, delivery: Delivery) -> None:
        self._held.pop(delivery.receipt, None)

    def keeping(self) -> Steps:
        """Extends what is at hand, for ever."""
        while True:
            now_s = self._clock()
            most_s = self.wanted.visibility_s / RENEWALS / 2  # what is taken meanwhile need not be extended before
            held = [one for one in list(self._held.values()) if one.is_held]
            for delivery in held:
                if delivery.renew_at_s <= now_s:
                    yield from delivery.extending()
            due_s = min((one.renew_at_s for one in held if one.is_held), default=math.inf)
            yield Pause(max(0.001, min(most_s, due_s - self._clock())))

    def giving_back(self) -> Steps:
        """What nobody has begun with goes back to its place at once."""
        give_up_s = self._clock() + GIVE_BACK_S
        while self._unseen:
            delivery = self._unseen.popleft()
            if self._clock() < give_up_s and delivery.is_open:
                yield from delivery.refusing(0.0)
            self._drop(delivery)

    def _take(self, wait_s: float) -> Words:
        wanted = self.wanted
        count = ("COUNT", str(wanted.count)) if wanted.count > 1 else ()
        block = ("BLOCK", str(math.ceil(wait_s * 1000))) if wait_s else ()
        visibility = ("VISIBILITY", _ms(wanted.visibility_s))
        return ("Q.POP", written(wanted.queue), *count, *block, *visibility, "CONSUMER", self._consumer)
