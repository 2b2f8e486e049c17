"""What a client does to push and to consume: every answer and failure at every step, without a server or a clock."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, strategies

from resp_server.consuming import (
    Delivery,
    Extras,
    Intake,
    MessageLost,
    Push,
    QueueError,
    QueueFull,
    QueueTimeout,
    Wanted,
)
from resp_server.steps import (
    CLOCKS_DIFFER,
    GIVE_BACK_S,
    PASSING,
    Ask,
    Lost,
    Outcome,
    Pause,
    Refusal,
    Reply,
    Steps,
    Unreached,
    Words,
)

VISIBILITY_S = 30.0
GONE = Lost("closed")
DOWN = Refusal("CLUSTERDOWN", "CLUSTERDOWN no leader for shard 0")
UNSURE = Refusal("UNCERTAIN", "UNCERTAIN the leader was lost")
FULL = Refusal("QUEUEFULL", "QUEUEFULL the queue holds 1 of MAXLEN 1 messages")
WRONG_TYPE = Refusal("WRONGTYPE", "WRONGTYPE not a queue")
NOWHERE = Unreached("refused")
PASSES = [*(Refusal(code, f"{code} for now") for code in sorted(PASSING)), GONE, NOWHERE]
DOUBTFUL = [GONE, UNSURE]
EMPTY = Reply(None)


def popped(*receipts: bytes) -> Reply:
    return Reply([[receipt, b"payload", 1, b"id " + receipt] for receipt in receipts])


class World:
    """Time, and answers in the order they are listed, each after so many seconds."""

    def __init__(self, **wanted: Any) -> None:
        self.now_s = 1000.0
        self.asked: list[str] = []
        self.within_s: list[float] = []
        self.paused_s: list[float] = []
        self.intake = Intake(Wanted("jobs", **wanted), "me", lambda: self.now_s, lambda: 1.0)

    def push(self, **more: Any) -> Push:
        return Push("jobs", "payload", "id", lambda: self.now_s, lambda: 1.0, **more)

    def run(self, steps: Steps, *answers: Outcome | tuple[float, Outcome]) -> None:
        """Until the steps end, or would ask once more than there are answers."""
        left = list(answers)
        try:
            step = next(steps)
            while isinstance(step, Pause) or left:
                outcome: Outcome | None = None
                if isinstance(step, Pause):
                    self.paused_s.append(step.seconds)
                    self.now_s += step.seconds
                else:
                    self.asked.append(line(step.words))
                    self.within_s.append(step.within_s)
                    answer = left.pop(0)
                    took_s, outcome = answer if isinstance(answer, tuple) else (0.001, answer)
                    self.now_s += took_s
                step = steps.send(outcome)
        except StopIteration:
            assert not left, "it ended early"

    def taken(self, *receipts: bytes) -> Delivery:
        """The first of what is at hand; forgets what was asked so far."""
        self.run(self.intake.taking(), popped(*receipts or (b"1-1",)))
        self.asked.clear()
        self.paused_s.clear()
        delivery = self.intake.next()
        assert delivery is not None
        return delivery


def line(words: Words) -> str:
    return " ".join(word.decode() if isinstance(word, bytes) else word for word in words)


# Pushing


@pytest.mark.parametrize(
    ("extras", "asked"),
    [
        (Extras(), "Q.PUSH jobs payload ID id"),
        (Extras(delay_s=1.5, priority=9), "Q.PUSH jobs payload ID id DELAY 1500 PRIORITY 9"),
        (Extras(delay_s=0.0001, group=b"g", ttl_s=60), "Q.PUSH jobs payload ID id DELAY 1 GROUP g PX 60000"),
    ],
)
def test_what_is_pushed(extras: Extras, asked: str) -> None:
    world = World()
    world.run(world.push(extras=extras).pushing(), Reply(b"id"))
    assert world.asked == [asked]


@pytest.mark.parametrize("failure", PASSES, ids=str)
def test_a_push_that_may_pass_is_repeated_with_its_id(failure: Outcome) -> None:
    world = World()
    world.run(world.push().pushing(), failure, failure, failure, Reply(b"id"))
    assert set(world.asked) == {"Q.PUSH jobs payload ID id"}
    assert 0 < world.paused_s[0] < world.paused_s[1] < world.paused_s[2]


@pytest.mark.parametrize("failure", PASSES, ids=str)
def test_a_push_ends_in_time_and_says_whether_it_may_have_happened(failure: Outcome) -> None:
    world = World()
    with pytest.raises(QueueTimeout, match=r"queue 'jobs' within 2 s: ") as raised:
        world.run(world.push(timeout_s=2.0).pushing(), *[(0.3, failure)] * 100)
    assert 1002.0 <= world.now_s < 1002.4
    is_doubtful = isinstance(failure, Lost) or failure == Refusal("UNCERTAIN", "UNCERTAIN for now")
    assert ("may have been pushed" in str(raised.value)) == is_doubtful


def test_what_a_queue_will_not_take_is_raised_at_once() -> None:
    world = World()
    with pytest.raises(QueueFull, match=r"^queue 'jobs': the queue holds 1 of MAXLEN 1 messages$"):
        world.run(world.push().pushing(), GONE, FULL)
    with pytest.raises(QueueError, match="WRONGTYPE"):
        world.run(world.push().pushing(), WRONG_TYPE)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Extras(delay_s=-1.0),
        lambda: Extras(delay_s=float("nan")),
        lambda: Extras(ttl_s=0.0),
        lambda: Extras(priority=256),
        lambda: Wanted("jobs", visibility_s=0.0),
        lambda: Wanted("jobs", count=0),
        lambda: Wanted("jobs", timeout_s=-1.0),
        lambda: Wanted("jobs", ask_again_s=float("inf")),
        lambda: World().push(timeout_s=float("inf")),
    ],
)
def test_nonsense_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="has to be"):
        make()


# Taking


@pytest.mark.parametrize(
    ("wanted", "asked"),
    [
        ({}, "Q.POP jobs BLOCK 30000 VISIBILITY 30000 CONSUMER me"),
        ({"count": 5, "ask_again_s": 2.0}, "Q.POP jobs COUNT 5 BLOCK 2000 VISIBILITY 30000 CONSUMER me"),
        ({"timeout_s": 0.0, "visibility_s": 0.5}, "Q.POP jobs VISIBILITY 500 CONSUMER me"),
        ({"timeout_s": 3.0}, "Q.POP jobs BLOCK 3000 VISIBILITY 30000 CONSUMER me"),
    ],
)
def test_what_is_asked_for(wanted: dict[str, Any], asked: str) -> None:
    world = World(**wanted)
    world.run(world.intake.taking(), popped(b"1-1"))
    assert world.asked == [asked]
    delivery = world.intake.next()
    assert delivery is not None
    assert (delivery.receipt, delivery.payload, delivery.deliveries, delivery.id) == (b"1-1", b"payload", 1, b"id 1-1")
    assert delivery.is_held
    assert world.intake.next() is None


def test_what_is_at_hand_is_not_asked_for() -> None:
    world = World(count=3)
    world.taken(b"1-1", b"2-1", b"3-1")
    for receipt in (b"2-1", b"3-1"):
        world.run(world.intake.taking())
        delivery = world.intake.next()
        assert delivery is not None
        assert delivery.receipt == receipt
    assert world.asked == []


@pytest.mark.parametrize("failure", PASSES, ids=str)
def test_a_consumer_asks_until_there_is_something(failure: Outcome) -> None:
    world = World()
    world.run(world.intake.taking(), failure, failure, (30.0, EMPTY), failure, popped(b"1-1"))
    assert len(world.asked) == 5
    assert world.intake.next() is not None


def test_a_consumer_has_enough_after_its_timeout() -> None:
    world = World(timeout_s=40.0)
    world.run(world.intake.taking(), (30.0, EMPTY), (10.0, EMPTY))
    assert world.intake.next() is None


@pytest.mark.parametrize("failure", PASSES, ids=str)
def test_no_server_in_time_is_not_the_same_as_no_message(failure: Outcome) -> None:
    world = World(timeout_s=1.0)
    with pytest.raises(QueueTimeout, match=r"'jobs' could not be asked within 1 s: "):
        world.run(world.intake.taking(), *[(0.2, failure)] * 50)
    assert 1001.0 <= world.now_s < 1001.3


def test_what_the_server_will_never_do_is_raised() -> None:
    world = World()
    with pytest.raises(QueueError, match="queue 'jobs': WRONGTYPE"):
        world.run(world.intake.taking(), DOWN, WRONG_TYPE)


def test_a_delivery_of_unknown_age_is_extended_before_anybody_sees_it() -> None:
    world = World(count=3)
    world.run(world.intake.taking(), (20.0, popped(b"1-1", b"2-1", b"3-1")), Reply(0), Reply(1), GONE)
    assert world.asked[1:] == [f"Q.EXTEND jobs {number}-1 30000" for number in (1, 2, 3)]
    delivery = world.intake.next()
    assert delivery is not None
    assert delivery.receipt == b"2-1"
    assert world.intake.next() is None, "nobody knows whether it is ours"


def test_when_all_of_unknown_age_are_over_more_is_asked_for() -> None:
    world = World()
    world.run(world.intake.taking(), (20.0, popped(b"1-1")), Reply(0), popped(b"1-2"))
    delivery = world.intake.next()
    assert delivery is not None
    assert delivery.receipt == b"1-2"


# Being held


def test_a_delivery_is_believed_in_from_before_it_was_asked_for() -> None:
    world = World()
    world.run(world.intake.taking(), (5.0, popped(b"1-1")))
    delivery = world.intake.next()
    assert delivery is not None
    world.now_s = 1000.0 + VISIBILITY_S * (1 - CLOCKS_DIFFER) - 0.001
    delivery.check()
    world.now_s += 0.002
    with pytest.raises(MessageLost, match=r"^message 'id 1-1' of queue 'jobs' is lost: it was not extended in time$"):
        delivery.check()
    world.now_s = 1000.0
    assert not delivery.is_held, "once lost, always lost"


def test_what_waited_at_hand_for_too_long_is_left() -> None:
    world = World(count=2)
    world.taken(b"1-1", b"2-1")
    world.now_s += VISIBILITY_S
    world.run(world.intake.taking(), popped(b"3-1"))
    assert len(world.asked) == 1
    delivery = world.intake.next()
    assert delivery is not None
    assert delivery.receipt == b"3-1"


def test_everything_at_hand_is_extended_while_it_is_at_hand() -> None:
    world = World(count=2)
    first = world.taken(b"1-1", b"2-1")
    keeping = world.intake.keeping()
    world.run(keeping, *[Reply(1)] * 6)
    assert world.asked == ["Q.EXTEND jobs 1-1 30000", "Q.EXTEND jobs 2-1 30000"] * 3
    assert world.now_s - 1000.0 == pytest.approx(3 * VISIBILITY_S / 3, rel=0.4)
    assert first.is_held
    world.run(first.acknowledging(), Reply(1))
    world.intake.over(first)
    world.asked.clear()
    world.run(world.intake.keeping(), Reply(1), Reply(1))
    assert set(world.asked) == {"Q.EXTEND jobs 2-1 30000"}


def test_a_keeper_that_has_nothing_to_keep_looks_often_enough() -> None:
    world = World()
    keeping = world.intake.keeping()
    step = next(keeping)
    delivery = world.taken()
    while isinstance(step, Pause):
        world.now_s += step.seconds
        step = next(keeping)
    assert line(step.words) == "Q.EXTEND jobs 1-1 30000"
    assert world.now_s < delivery.until_s - VISIBILITY_S / 3


@pytest.mark.parametrize("failure", [*PASSES, WRONG_TYPE], ids=str)
def test_what_cannot_be_extended_is_tried_again_until_it_is_over(failure: Outcome) -> None:
    world = World()
    delivery = world.taken()
    world.run(world.intake.keeping(), failure, (2.0, failure), Reply(1))
    assert delivery.is_held
    until_s = delivery.until_s
    keeping = world.intake.keeping()
    step: Ask | Pause = next(keeping)
    while delivery.is_held:
        outcome: Outcome | None = None
        if isinstance(step, Ask):
            assert world.now_s + step.within_s <= until_s + 0.001, "it is lost on time also when nothing is answered"
            world.now_s += min(0.4, step.within_s)
            outcome = failure
        else:
            world.now_s += step.seconds
        step = keeping.send(outcome)
    assert world.now_s == pytest.approx(until_s, abs=VISIBILITY_S / 6)


def test_a_delivery_that_the_server_does_not_know_is_lost() -> None:
    world = World()
    delivery = world.taken()
    world.run(delivery.extending(), Reply(0))
    with pytest.raises(MessageLost, match="given to somebody else, or it was purged"):
        delivery.check()


def test_an_extension_that_comes_too_late_for_an_acknowledgement_says_nothing() -> None:
    """The keeper's thread asks while the worker's acknowledges."""
    world = World()
    delivery = world.taken()
    extending = delivery.extending()
    next(extending)
    world.run(delivery.acknowledging(), Reply(1))
    with pytest.raises(StopIteration):
        extending.send(Reply(0))
    delivery.conclude()


# Ends


@pytest.mark.parametrize(
    ("end", "asked"),
    [
        (lambda one: one.acknowledging(), "Q.ACK jobs 1-1"),
        (lambda one: one.refusing(), "Q.NACK jobs 1-1"),
        (lambda one: one.refusing(0.0), "Q.NACK jobs 1-1 DELAY 0"),
        (lambda one: one.refusing(2.5), "Q.NACK jobs 1-1 DELAY 2500"),
        (lambda one: one.refusing(dead=True), "Q.NACK jobs 1-1 DEAD"),
        (lambda one: one.refusing(1.0, reason="torn"), "Q.NACK jobs 1-1 DELAY 1000 REASON torn"),
        (lambda one: one.refusing(reason="x" * 5000), f"Q.NACK jobs 1-1 REASON {'x' * 4096}"),
    ],
)
def test_how_a_message_ends(end: Callable[[Delivery], Steps], asked: str) -> None:
    world = World()
    delivery = world.taken()
    world.run(end(delivery), Reply(1))
    assert world.asked == [asked]
    delivery.conclude()
    assert not delivery.is_held
    with pytest.raises(MessageLost, match="acknowledged or refused"):
        delivery.check()
    with pytest.raises(RuntimeError, match="acknowledged or refused already"):
        next(delivery.acknowledging())


@pytest.mark.parametrize("failure", PASSES, ids=str)
@pytest.mark.parametrize("end", [Delivery.acknowledging, Delivery.refusing])
def test_an_end_is_tried_again(end: Callable[[Delivery], Steps], failure: Outcome) -> None:
    world = World()
    delivery = world.taken()
    world.run(end(delivery), failure, failure, Reply(1))
    assert len(set(world.asked)) == 1
    delivery.conclude()


@pytest.mark.parametrize("failure", PASSES, ids=str)
def test_a_late_acknowledgement_is_told_unless_an_earlier_try_may_have_worked(failure: Outcome) -> None:
    world = World()
    delivery = world.taken()
    world.run(delivery.acknowledging(), failure, Reply(0))
    if isinstance(failure, Lost) or (isinstance(failure, Refusal) and failure.code == "UNCERTAIN"):
        delivery.conclude()
    else:
        with pytest.raises(MessageLost, match="given to somebody else"):
            delivery.conclude()


@pytest.mark.parametrize("failure", DOUBTFUL, ids=str)
def test_whether_an_earlier_try_worked_is_not_known_once_others_may_have_it(failure: Outcome) -> None:
    world = World()
    delivery = world.taken()
    world.run(delivery.acknowledging(), *[(4.8, failure)] * 5, (3.0, failure), (0.1, Reply(0)))
    assert world.now_s < delivery.until_s
    delivery.conclude()
    other = world.taken(b"2-1")
    world.run(other.acknowledging(), *[(4.8, failure)] * 6, (4.0, Reply(0)))
    with pytest.raises(MessageLost, match="it was over before the end of it was known"):
        other.conclude()


def test_an_acknowledgement_is_tried_for_as_long_as_it_can_count() -> None:
    world = World()
    delivery = world.taken()
    world.run(delivery.acknowledging(), *[(3.0, DOWN)] * 8, Reply(1))
    delivery.conclude()
    other = world.taken(b"2-1")
    world.run(other.acknowledging(), *[(5.0, DOWN)] * 6)
    with pytest.raises(MessageLost, match="no server could be told the end of it: CLUSTERDOWN"):
        other.conclude()


def test_who_slept_too_long_still_tries_once() -> None:
    world = World()
    delivery = world.taken()
    world.now_s += VISIBILITY_S
    assert not delivery.is_held
    world.run(delivery.acknowledging(), Reply(1))
    delivery.conclude()
    other = world.taken(b"2-1")
    world.now_s += VISIBILITY_S
    world.run(other.acknowledging(), GONE)
    with pytest.raises(MessageLost):
        other.conclude()


def test_what_nobody_began_with_goes_back_to_its_place() -> None:
    world = World(count=3)
    world.taken(b"1-1", b"2-1", b"3-1")
    world.run(world.intake.giving_back(), DOWN, Reply(1), Reply(0))
    assert world.asked == ["Q.NACK jobs 2-1 DELAY 0", "Q.NACK jobs 2-1 DELAY 0", "Q.NACK jobs 3-1 DELAY 0"]
    world.run(world.intake.giving_back())


def test_giving_back_ends_in_time() -> None:
    world = World(count=9)
    world.taken(*(b"%d-1" % number for number in range(9)))
    began_s = world.now_s
    steps = world.intake.giving_back()
    step: Ask | Pause | None = next(steps)
    while step is not None:
        world.now_s += step.seconds if isinstance(step, Pause) else 0.5
        try:
            step = steps.send(None if isinstance(step, Pause) else NOWHERE)
        except StopIteration:
            step = None
    assert GIVE_BACK_S <= world.now_s - began_s < GIVE_BACK_S + 1.5
    world.run(world.intake.giving_back())
    assert world.asked == [], "what is left comes back by itself"


def test_what_an_interrupted_take_brought_goes_back() -> None:
    world = World(count=2)
    next(world.intake.taking())
    world.intake.receive(GONE)
    world.intake.receive(None)
    world.now_s += 20.0
    world.intake.receive(popped(b"1-1", b"2-1"))
    world.run(world.intake.giving_back(), Reply(1), Reply(1))
    assert world.asked == ["Q.NACK jobs 1-1 DELAY 0", "Q.NACK jobs 2-1 DELAY 0"]


# Against a server that keeps a queue


@dataclass
class Server:
    """One queue of messages that are numbers, as the contract has it, with a rival who takes what comes back."""

    now: Callable[[], float]
    ready: list[int] = field(default_factory=list)
    flying: dict[str, tuple[int, float]] = field(default_factory=dict)
    acked: list[int] = field(default_factory=list)
    deliveries: dict[int, int] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def answer(self, words: Words) -> object:
        self.expire()
        asked = line(words).split()
        match asked:
            case ["Q.PUSH", _, number, "ID", id]:
                if id not in self.seen:
                    self.seen.add(id)
                    self.ready.append(int(number))
                return id.encode()
            case ["Q.POP", *options]:
                count = int(options[options.index("COUNT") + 1]) if "COUNT" in options else 1
                return [self.take(VISIBILITY_S) for _ in range(min(count, len(self.ready)))] or None
            case ["Q.EXTEND", _, receipt, ms] if receipt in self.flying:
                self.flying[receipt] = (self.flying[receipt][0], self.now() + int(ms) / 1000)
                return 1
            case ["Q.ACK", _, receipt] if receipt in self.flying:
                self.acked.append(self.flying.pop(receipt)[0])
                return 1
            case ["Q.NACK", _, receipt, *_] if receipt in self.flying:
                self.ready.append(self.flying.pop(receipt)[0])
                return 1
        return 0

    def take(self, visibility_s: float) -> list[object]:
        number = self.ready.pop(0)
        self.deliveries[number] = self.deliveries.get(number, 0) + 1
        receipt = f"{number}-{self.deliveries[number]}"
        self.flying[receipt] = (number, self.now() + visibility_s)
        return [receipt.encode(), b"%d" % number, self.deliveries[number], b"%d" % number]

    def expire(self) -> None:
        for receipt, (number, until_s) in list(self.flying.items()):
            if self.now() >= until_s:
                del self.flying[receipt]
                self.ready.append(number)


HAPPENS = ["answers", "refuses", "uncertain, done", "uncertain, not done", "lost, done", "lost, not done", "unreached"]
FAILURES: dict[str, Outcome] = {"refuses": DOWN, "unreached": NOWHERE, "lost": GONE, "uncertain": UNSURE}


class Play:
    """Pushing and working off: what happens at each request, and how long it takes, is listed; then all is well."""

    def __init__(self, happenings: list[tuple[str, float]]) -> None:
        self.world = World(count=2, timeout_s=1.0)
        self.server = Server(lambda: self.world.now_s)
        self.worked: list[int] = []
        self._left = happenings

    def run(self, messages: int) -> None:
        """Checks at every step that what is believed to be held is nobody else's, and that each ends once."""
        for number in range(messages):
            push = Push("jobs", str(number), f"id{number}", lambda: self.world.now_s, lambda: 1.0, timeout_s=1000.0)
            self._carry_out(push.pushing())
        assert sorted(self.server.ready) == list(range(messages)), "each is pushed once"
        while len(self.server.acked) < messages:
            try:
                self._carry_out(self.world.intake.taking())
            except QueueTimeout:
                continue
            if (delivery := self.world.intake.next()) is None:
                self.world.now_s += VISIBILITY_S
                self.server.expire()
                continue
            self._look(delivery)
            ends = delivery.refusing() if self.world.now_s % 2 < 0.5 and delivery.deliveries == 1 else None
            self._carry_out(ends or delivery.acknowledging())
            self.world.intake.over(delivery)
            if ends is None and not self._is_lost(delivery):
                self.worked.append(int(delivery.id))
                assert int(delivery.id) in self.server.acked, "who is told so is never given it again"
        assert len(set(self.server.acked)) == len(self.server.acked) == messages

    def _is_lost(self, delivery: Delivery) -> bool:
        try:
            delivery.conclude()
        except MessageLost:
            return True
        return False

    def _look(self, delivery: Delivery) -> None:
        if delivery.is_held:
            self.server.expire()
            assert delivery.receipt.decode() in self.server.flying

    def _carry_out(self, steps: Steps) -> None:
        step = next(steps, None)
        while step is not None:
            outcome = None
            if isinstance(step, Pause):
                self.world.now_s += step.seconds
            else:
                outcome = self._ask(step)
            try:
                step = steps.send(outcome)
            except StopIteration:
                return

    def _ask(self, asked: Ask) -> Outcome:
        what, took_s = self._left.pop(0) if self._left else ("answers", 0.001)
        took_s = min(took_s, asked.within_s)
        self.world.now_s += took_s / 2
        reply = self.server.answer(asked.words) if what == "answers" or what.endswith(", done") else None
        self.world.now_s += took_s / 2
        return FAILURES.get(what.partition(",")[0], Reply(reply))


@pytest.mark.parametrize("took_s", [0.001, 4.0, 31.0])
def test_every_failure_at_every_step(took_s: float) -> None:
    for happenings in itertools.product(HAPPENS, repeat=3):
        Play([("answers", 0.001), *((what, took_s) for what in happenings)]).run(1)


@given(
    strategies.lists(strategies.tuples(strategies.sampled_from(HAPPENS), strategies.floats(0.0, 40.0)), max_size=20),
    strategies.integers(1, 4),
)
def test_whatever_happens_whenever(happenings: list[tuple[str, float]], messages: int) -> None:
    Play(happenings).run(messages)
