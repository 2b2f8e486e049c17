"""What a command for a queue does must not depend on how many messages wait in it.

Counted are the lines of Python that are carried out, which finds every loop of
ours; that nothing is walked within one call of a built-in is seen to by
collections that cannot be.
"""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

import pytest

from cluster.machine.line import Number
from cluster.machine.message import Message
from tests.unit.machines import Talk

FEW, MANY = 100, 10_000
HOUR_MS = 3_600_000


class Walked(BaseException):
    """All that wait were gone through; no Exception, which the machine would make an answer of."""


class Living(dict[Number, Message]):
    """Messages by number that may be looked up, but not gone through from one to the next."""

    def __iter__(self) -> Iterator[Number]:
        return _walked()

    def items(self) -> NoReturn:
        _walked()

    def values(self) -> NoReturn:
        _walked()


class Waiting(deque[Number]):
    """A line that is joined and left, but not gone through."""

    def __iter__(self) -> Iterator[Number]:
        return _walked()


def _walked() -> NoReturn:
    raise Walked


def filled(count: int, *, delayed: bool = False, spread: bool = False) -> Talk:
    """A queue where so many messages wait and cannot be walked; with a group for each, or in ten, if ``spread``."""
    talk = Talk()
    for number in range(count):
        delay = f" DELAY {HOUR_MS + number}" if delayed else ""
        group = f" GROUP g{number % 10}" if spread else ""
        talk("producer", f"Q.PUSH q m{delay}{group}")
    queue: Any = talk.machine.keyspace.values[b"q"]
    queue.living = Living(dict.items(queue.living))
    for line in queue._lines.values():
        line._fresh = Waiting(line._fresh)
    return talk


def lines_of(work: Callable[[], object]) -> int:
    """How many lines of Python ``work`` carries out."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    gc.disable()  # a collection in the midst of it has callbacks, which have lines
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
        gc.enable()
    return count


def receipt(talk: Talk) -> str:
    """That of the next message."""
    taken: Any = talk("consumer", "Q.POP q")
    return str(taken[0][0].decode())


def take_and(talk: Talk, line: str) -> None:
    """Takes a message and carries out the line with its receipt."""
    assert talk("consumer", line.format(receipt(talk))) == 1


STEPS: dict[str, Callable[[Talk], object]] = {
    "push": lambda talk: talk("producer", "Q.PUSH q payload"),
    "push, with all options": lambda talk: talk(
        "producer", "Q.PUSH q payload ID own DELAY 5000 PRIORITY 0 GROUP g1 PX 90000"
    ),
    "pop and acknowledge": lambda talk: take_and(talk, "Q.ACK q {}"),
    "refuse": lambda talk: take_and(talk, "Q.NACK q {}"),
    "refuse at once": lambda talk: take_and(talk, "Q.NACK q {} DELAY 0"),
    "refuse for good": lambda talk: take_and(talk, "Q.NACK q {} DEAD"),
    "extend": lambda talk: take_and(talk, "Q.EXTEND q {} 60000"),
    "length": lambda talk: talk("reader", "Q.LEN q"),
    "entry without anything": lambda talk: talk.pass_ms(1),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_step_is_as_short_among_many_as_among_few(step: Callable[[Talk], object]) -> None:
    few, many = filled(FEW), filled(MANY)
    for talk in (few, many):  # the first of its kind may make what the others find
        step(talk)
    assert lines_of(lambda: step(many)) == lines_of(lambda: step(few)) > 0


@pytest.mark.parametrize("step", ["push", "entry without anything", "length"])
def test_delayed_messages_cost_nothing_until_they_are_due(step: str) -> None:
    none, many = filled(FEW), filled(MANY, delayed=True)
    for talk in (none, many):
        STEPS[step](talk)
    assert lines_of(lambda: STEPS[step](many)) == lines_of(lambda: STEPS[step](none)) > 0


def test_groups_hand_out_their_heads_alone() -> None:
    few, many = filled(FEW, spread=True), filled(MANY, spread=True)
    step = STEPS["pop and acknowledge"]
    for talk in (few, many):
        step(talk)
    assert lines_of(lambda: step(many)) == lines_of(lambda: step(few)) > 0


def test_what_may_not_be_walked_says_so() -> None:
    talk = filled(FEW)
    queue: Any = talk.machine.keyspace.values[b"q"]
    with pytest.raises(Walked):
        list(queue.living)
    with pytest.raises(Walked):
        list(queue.waiting())
