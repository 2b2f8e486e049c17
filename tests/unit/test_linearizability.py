"""The linearizability checker: histories by hand, histories of the real machine, and every order tried one by one."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import combinations, permutations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from cluster.machine.machine import Machine
from cluster.machine.reply import CommandError, Status
from resp_server.commands import keys, locks, strings
from resp_server.commands.table import Table
from tests.simulation.findings import Verdict
from tests.simulation.linearizability import check
from tests.simulation.models import NOT_AN_INTEGER, UNKNOWN, Lock, Model, Operation, Output, Register, State, Unknown

LINEARIZABLE, VIOLATED, UNDECIDED = Verdict.LINEARIZABLE, Verdict.VIOLATED, Verdict.UNDECIDED
TABLE = Table((strings.COMMANDS, keys.COMMANDS, locks.COMMANDS))


def known(client: str, line: str, invoked: int, returned: int, output: Output) -> Operation:
    """A call whose reply was seen."""
    return Operation(client, tuple(line.encode().split()), invoked, returned, output)


def unknown(client: str, line: str, invoked: int) -> Operation:
    """A call whose reply was not."""
    return Operation(client, tuple(line.encode().split()), invoked)


def register(*history: Operation) -> Verdict:
    return check(history, Register()).verdict


def lock(*history: Operation) -> Verdict:
    return check(history, Lock()).verdict


# Registers


def test_a_history_of_nothing_is_linearizable() -> None:
    assert register() is LINEARIZABLE
    assert register(unknown("ann", "SET x 1", 1)) is LINEARIZABLE


def test_one_after_another() -> None:
    assert (
        register(
            known("ann", "GET x", 1, 2, None),
            known("ann", "SET x 1", 3, 4, "OK"),
            known("bob", "GET x", 5, 6, b"1"),
            known("bob", "INCR x", 7, 8, 2),
            known("bob", "SET x 5 NX", 9, 10, None),
            known("bob", "SETNX x 5", 11, 12, 0),
            known("ann", "DEL x", 13, 14, 1),
            known("ann", "SET x text NX", 15, 16, "OK"),
            known("ann", "INCR x", 17, 18, "-ERR value is not an integer or out of range"),
        )
        is LINEARIZABLE
    )


@pytest.mark.parametrize("value", [None, b"1"])
def test_a_read_during_a_write_may_see_it_or_not(value: Output) -> None:
    assert register(known("ann", "SET x 1", 1, 9, "OK"), known("bob", "GET x", 2, 3, value)) is LINEARIZABLE


def test_of_two_reads_during_a_write_the_later_may_not_unsee_it() -> None:
    write, first = known("ann", "SET x 1", 1, 9, "OK"), known("bob", "GET x", 2, 3, b"1")
    assert register(write, first, known("cid", "GET x", 4, 5, b"1")) is LINEARIZABLE
    assert register(write, first, known("cid", "GET x", 4, 5, None)) is VIOLATED
    assert register(write, first, known("cid", "GET x", 3, 5, None)) is LINEARIZABLE  # at the same time


def test_a_stale_read() -> None:
    first, second = known("ann", "SET x 1", 1, 2, "OK"), known("ann", "SET x 2", 3, 4, "OK")
    assert register(first, second, known("bob", "GET x", 5, 6, b"2")) is LINEARIZABLE
    assert register(first, second, known("bob", "GET x", 5, 6, b"1")) is VIOLATED


def test_a_lost_update() -> None:
    first = known("ann", "INCR x", 1, 4, 1)
    assert register(first, known("bob", "INCR x", 2, 3, 2)) is LINEARIZABLE
    assert register(first, known("bob", "INCR x", 2, 3, 1)) is VIOLATED
    assert register(first, known("bob", "INCR x", 2, 3, 2), known("cid", "GET x", 5, 6, b"1")) is VIOLATED


def test_a_read_from_the_future() -> None:
    assert register(known("bob", "GET x", 1, 2, b"1"), known("ann", "SET x 1", 3, 4, "OK")) is VIOLATED
    assert register(known("bob", "GET x", 1, 2, b"1"), unknown("ann", "SET x 1", 3)) is VIOLATED


def test_two_who_both_set_what_was_not_there() -> None:
    first = known("ann", "SET x 1 NX", 1, 4, "OK")
    assert register(first, known("bob", "SETNX x 2", 2, 3, 0)) is LINEARIZABLE
    assert register(first, known("bob", "SETNX x 2", 2, 3, 1)) is VIOLATED


def test_an_unknown_outcome_that_took_effect_late() -> None:
    lost = unknown("ann", "SET x 1", 1)
    before, after = known("bob", "SET x 2", 3, 4, "OK"), known("bob", "GET x", 5, 6, b"2")
    assert register(lost, before, after, known("bob", "GET x", 7, 8, b"1")) is LINEARIZABLE
    assert register(lost, before, after, known("bob", "GET x", 7, 8, b"3")) is VIOLATED


def test_an_unknown_outcome_takes_effect_once() -> None:
    lost, again = unknown("ann", "SET x 1", 1), known("bob", "SET x 2", 5, 6, "OK")
    seen, seen_again = known("bob", "GET x", 3, 4, b"1"), known("bob", "GET x", 7, 8, b"1")
    assert register(lost, seen, again, seen_again) is VIOLATED
    assert register(lost, unknown("cid", "SET x 1", 2), seen, again, seen_again) is LINEARIZABLE


def test_an_unknown_outcome_that_never_was() -> None:
    lost = unknown("ann", "DEL x", 1)
    assert register(known("bob", "SET x 1", 2, 3, "OK"), lost, known("bob", "GET x", 4, 5, b"1")) is LINEARIZABLE


def test_unknown_outcomes_build_on_one_another() -> None:
    lost = [unknown("ann", "INCR x", 1), unknown("bob", "SET x 7", 2), unknown("cid", "INCR x", 3)]
    assert register(*lost, known("dan", "GET x", 4, 5, b"9")) is LINEARIZABLE
    assert register(*lost, known("dan", "GET x", 4, 5, b"10")) is VIOLATED


def test_which_unknown_outcome_it_was_may_show_later() -> None:
    lost = [unknown("ann", "SET x 1", 1), unknown("bob", "SETNX x 1", 2)]
    seen, again = known("cid", "GET x", 3, 4, b"1"), known("cid", "GET x", 7, 8, b"1")
    assert register(*lost, seen, known("cid", "SET x 2", 5, 6, "OK"), again) is LINEARIZABLE  # bob's, then ann's
    assert register(*lost, seen, known("cid", "SET x 2", 5, 6, "OK"), again._replace(output=b"3")) is VIOLATED


@pytest.mark.parametrize("value", [b"8", b"9", b"text", b"other"])
def test_any_of_many_unknown_outcomes_may_be_seen(value: bytes) -> None:
    lost = [unknown("ann", f"SET x {word}", number) for number, word in enumerate(["9", "8", "other", "text"])]
    assert register(*lost, known("bob", "GET x", 5, 6, value)) is LINEARIZABLE
    assert register(*lost, known("bob", "GET x", 5, 6, value + b"0")) is VIOLATED


def test_unknown_outcomes_nobody_saw_may_still_be_a_number_or_not() -> None:
    lost = [unknown("ann", "SET x 8", 1), unknown("bob", "SET x text", 2)]
    assert register(*lost, known("cid", "INCR x", 3, 4, NOT_AN_INTEGER)) is LINEARIZABLE
    assert register(*lost, known("cid", "INCR x", 3, 4, 9)) is LINEARIZABLE
    assert register(*lost, known("cid", "INCR x", 3, 4, 10)) is VIOLATED


def test_a_write_that_answers_with_nothing_is_still_a_write() -> None:
    write = known("ann", "SET x 1 GET", 1, 9, None)
    assert register(write, known("bob", "GET x", 2, 3, None), known("bob", "GET x", 4, 5, b"1")) is LINEARIZABLE


def test_keys_are_judged_alone() -> None:
    report = check(
        [
            known("ann", "SET x 1", 1, 2, "OK"),
            known("ann", "SET y 1", 3, 4, "OK"),
            known("bob", "GET y", 5, 6, None),
            known("bob", "GET x", 5, 6, b"1"),
        ],
        Register(),
    )
    assert [(finding.key, finding.verdict) for finding in report.findings] == [(b"x", LINEARIZABLE), (b"y", VIOLATED)]
    assert report.verdict is VIOLATED


# Locks


def test_a_lock_goes_from_one_to_another() -> None:
    history = [
        known("ann", "LOCK.ACQUIRE l ann", 1, 2, 3),
        known("bob", "LOCK.ACQUIRE l bob PX 60000", 3, 4, None),
        known("ann", "LOCK.ACQUIRE l ann", 5, 6, 3),
        known("ann", "LOCK.RELEASE l ann", 7, 8, 1),
        known("bob", "LOCK.ACQUIRE l bob", 9, 10, None),
        known("ann", "LOCK.RELEASE l ann", 11, 12, 1),
        known("ann", "LOCK.RELEASE l ann", 13, 14, 0),
        known("bob", "LOCK.ACQUIRE l bob BLOCK 0", 15, 16, 8),
    ]
    assert lock(*history) is LINEARIZABLE
    for missing in (0, 3, 5):
        assert lock(*history[:missing], *history[missing + 1 :]) is VIOLATED


def test_two_holders() -> None:
    ann = known("ann", "LOCK.ACQUIRE l ann", 1, 4, 1)
    assert lock(ann, known("bob", "LOCK.ACQUIRE l bob", 2, 3, None)) is LINEARIZABLE
    assert lock(ann, known("bob", "LOCK.ACQUIRE l bob", 2, 3, 2)) is VIOLATED


@pytest.mark.parametrize(("token", "verdict"), [(6, LINEARIZABLE), (5, VIOLATED), (4, VIOLATED)])
def test_a_token_that_does_not_grow(token: int, verdict: Verdict) -> None:
    first, freed = known("ann", "LOCK.ACQUIRE l ann", 1, 2, 5), known("ann", "LOCK.RELEASE l ann", 3, 4, 1)
    assert lock(first, freed, known("bob", "LOCK.ACQUIRE l bob", 5, 6, token)) is verdict


@pytest.mark.parametrize(("token", "verdict"), [(5, LINEARIZABLE), (6, VIOLATED), (None, VIOLATED)])
def test_a_holder_who_acquires_again_has_the_same_token(token: Output, verdict: Verdict) -> None:
    first = known("ann", "LOCK.ACQUIRE l ann", 1, 2, 5)
    assert lock(first, known("ann", "LOCK.ACQUIRE l ann", 3, 4, token)) is verdict


def test_an_acquire_of_unknown_outcome() -> None:
    lost, refused = unknown("ann", "LOCK.ACQUIRE l ann", 1), known("bob", "LOCK.ACQUIRE l bob", 2, 3, None)
    again = known("ann", "LOCK.ACQUIRE l ann", 4, 5, 7)
    assert lock(refused) is VIOLATED
    assert lock(lost, refused, again) is LINEARIZABLE
    assert lock(lost, refused, known("bob", "LOCK.ACQUIRE l bob", 4, 5, 7)) is VIOLATED
    assert lock(lost, refused, again, known("ann", "LOCK.ACQUIRE l ann", 6, 7, 8)) is VIOLATED


def test_a_release_of_unknown_outcome() -> None:
    held, lost = known("ann", "LOCK.ACQUIRE l ann", 1, 2, 1), unknown("ann", "LOCK.RELEASE l ann", 3)
    assert lock(held, lost, known("bob", "LOCK.ACQUIRE l bob", 4, 5, None)) is LINEARIZABLE
    assert lock(held, lost, known("bob", "LOCK.ACQUIRE l bob", 4, 5, 2)) is LINEARIZABLE
    assert lock(held, lost, known("bob", "LOCK.ACQUIRE l bob", 4, 5, 1)) is VIOLATED


# What is said, refused and given up


def test_what_does_not_fit_is_shown() -> None:
    report = check(
        [
            known("ann", "SET x 1", 10, 20, "OK"),
            known("bob", "SET x 22", 15, 30, "OK"),
            known("ann", "GET x", 40, 50, b"1"),
            unknown("dan", "SET x 4", 5),
            known("cid", "GET x", 60, 80, b"22"),
            known("ann", "GET x", 70, 75, None),
            known("cid", "GET x", 90, 95, b"22"),
        ],
        Register(),
    )
    assert str(report).splitlines() == [
        "key x: not linearizable (20 steps)",
        "The longest order found has 3 operations:",
        "   client  call      reply  state after  from call to return",
        "1  bob     SET x 22  OK     22               |---|",
        "2  ann     SET x 1   OK     1              |---|",
        "3  ann     GET x     1      1                      |-|",
        "One of these must come next, and none fits:",
        "-  cid     GET x     22                                |-----|",
        "-  ann     GET x     null                                |-|",
        "These may have happened, and do not help:",
        "?  dan     SET x 4   ?                   |--------------------->",
        "Not shown: 1 after.",
        "",
        "0 of 1 keys are linearizable (20 steps)",
    ]


def test_a_long_history_is_shown_from_its_end() -> None:
    history = [known("ann", f"SET x {number}", 2 * number, 2 * number + 1, "OK") for number in range(100)]
    text = str(check([*history, known("bob", "GET x", 200, 201, b"9")], Register()))
    assert "The longest order found has 100 operations:" in text
    assert "Not shown: 90 before." in text
    assert len(text.splitlines()) < 20


def test_a_search_that_is_too_long_is_not_decided() -> None:
    history = [known("ann", f"SET x {number}", 1, 9, "OK") for number in range(5)]
    report = check([*history, known("bob", "GET x", 10, 11, b"6")], Register(), steps_max=20)
    assert report.verdict is UNDECIDED
    assert report.steps == 20
    assert "undecided (20 steps)" in str(report)


def test_a_violation_outweighs_a_key_that_is_not_decided() -> None:
    history = [known("ann", f"SET x {number}", 1, 9, "OK") for number in range(30)]
    assert check([*history, known("bob", "GET y", 1, 2, b"1")], Register(), steps_max=20).verdict is VIOLATED


def test_no_operation_returns_before_it_was_called() -> None:
    with pytest.raises(ValueError, match="returned before"):
        register(known("ann", "GET x", 2, 1, None))


@pytest.mark.parametrize("line", ["APPEND x 1", "SET x 1 PX 5", "SET x 1 NX XX"])
def test_what_the_register_does_not_know_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="of the register"):
        register(known("ann", line, 1, 2, "OK"))


@pytest.mark.parametrize("line", ["LOCK.ACQUIRE l ann SHARED", "LOCK.RELEASE l ann TOKEN 1", "LOCK.BREAK l ann"])
def test_what_the_lock_does_not_know_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="of the lock"):
        lock(known("ann", line, 1, 2, 1))


# Histories of the real machine

REGISTER_LINES = (
    *("GET x", "GET y", "DEL x", "DEL y", "INCR x", "INCR y", "SET x 1", "SET y 2", "SET x 30", "SET x 40", "SET y 3"),
    *(
        "SET x text",
        "SET y other",
        "SET x 4 NX",
        "SET x 6 XX",
        "SET x 7 GET",
        "SET y 8 NX GET",
        "SETNX x 5",
        "SETNX y 2",
    ),
)
LOCK_LINES = tuple(
    f"LOCK.{verb} {key} {who}" for verb in ("ACQUIRE", "RELEASE") for key in "lm" for who in ("ann", "bob")
)


class Alone:
    """The product's machine, called by one client at a time."""

    def __init__(self) -> None:
        self._machine = Machine(TABLE.machine_commands())
        self._machine.begin(1_000_000)

    def run(self, call: tuple[bytes, ...]) -> Output:
        """The reply to ``call`` as a history has it."""
        reply = self._machine.run(self._machine.handler(call[0]), [*call])
        if isinstance(reply, CommandError):
            return f"-{reply.line.decode()}"
        if isinstance(reply, Status):
            return reply.text
        assert reply is None or isinstance(reply, int | bytes)
        return reply


def lived(steps: Sequence[tuple[str, int, int, str]]) -> list[Operation]:
    """The history of calls that took effect one after another, each some time after its call and before its return."""
    machine = Alone()
    history = []
    for number, (line, before, after, fate) in enumerate(steps):
        call, instant = tuple(line.encode().split()), 10 * number
        output = UNKNOWN if fate == "never happened" else machine.run(call)
        if fate == "seen":
            history.append(Operation(f"c{number}", call, instant - before, instant + after, output))
        else:
            history.append(Operation(f"c{number}", call, instant - before))
    return history


def lives(lines: Sequence[str]) -> SearchStrategy[list[Operation]]:
    """Histories of a machine that does what it should."""
    fates = st.sampled_from([*["seen"] * 6, "happened unseen", "never happened"])
    times = st.integers(0, 45)
    return st.lists(st.tuples(st.sampled_from(lines), times, times, fates), min_size=1, max_size=40).map(lived)


@given(lives(REGISTER_LINES))
@settings(max_examples=100, deadline=None)
def test_what_the_machine_answers_is_linearizable(history: list[Operation]) -> None:
    report = check(history, Register())
    assert report.verdict is LINEARIZABLE, str(report)


@given(lives(LOCK_LINES))
@settings(max_examples=100, deadline=None)
def test_the_machine_s_locks_are_linearizable(history: list[Operation]) -> None:
    report = check(history, Lock())
    assert report.verdict is LINEARIZABLE, str(report)


@given(lives(REGISTER_LINES), st.data())
@settings(max_examples=100, deadline=None)
def test_a_value_never_written_is_not(history: list[Operation], data: st.DataObject) -> None:
    assert check(spoilt(history, data, b"never written"), Register()).verdict is VIOLATED


@given(lives(LOCK_LINES), st.data(), st.sampled_from([-1, b"1"]))
@settings(max_examples=100, deadline=None)
def test_a_token_never_given_is_not(history: list[Operation], data: st.DataObject, token: Output) -> None:
    assert check(spoilt(history, data, token), Lock()).verdict is VIOLATED


def spoilt(history: list[Operation], data: st.DataObject, output: Output) -> list[Operation]:
    """``history`` with ``output`` in place of one of the replies."""
    seen = [number for number, operation in enumerate(history) if operation.returned is not None]
    assume(seen)
    number = data.draw(st.sampled_from(seen))
    return [*history[:number], history[number]._replace(output=output), *history[number + 1 :]]


def busy(chance: random.Random, lines: Sequence[str], count: int) -> list[Operation]:
    """The history of ten clients who always call something; of every twentieth call the outcome is unknown."""
    machine = Alone()
    history = []
    waiting: dict[str, Operation] = {}
    answered: dict[str, Operation] = {}
    for time in range(3 * count):
        client = f"c{chance.randrange(10)}"
        if client in answered:
            history.append(answered.pop(client)._replace(returned=time))
        elif client not in waiting:
            line = chance.choice(lines).format(key=chance.randrange(10), client=client, value=chance.randrange(1_000))
            waiting[client] = Operation(client, tuple(line.encode().split()), time)
        else:
            operation = waiting.pop(client)
            if chance.random() < 0.05:
                history.append(operation)
                if chance.random() < 0.5:
                    continue
                machine.run(operation.call)
            else:
                answered[client] = operation._replace(output=machine.run(operation.call))
    return [*history, *waiting.values(), *answered.values()]


BUSY_REGISTER = ("GET {key}", "GET {key}", "SET {key} {value}", "INCR {key}", "DEL {key}", "SET {key} {value} NX")
BUSY_LOCK = ("LOCK.ACQUIRE {key} {client}", "LOCK.RELEASE {key} {client}")


def test_long_histories_take_few_steps() -> None:
    few_steps_for(busy(random.Random(1), BUSY_REGISTER, 5_000), Register())
    few_steps_for(busy(random.Random(1), BUSY_LOCK, 5_000), Lock())


def few_steps_for(history: list[Operation], model: Model[State]) -> None:
    """Judges ``history`` as it is, and with one reply spoilt."""
    report = check(history, model)
    assert report.verdict is LINEARIZABLE, str(report)
    assert report.steps < 5 * len(history)
    middle = next(number for number in range(2_500, 5_000) if history[number].returned is not None)
    history[middle] = history[middle]._replace(output=b"never written")
    assert check(history, model).verdict is VIOLATED


# Every order tried


def orders(history: Sequence[Operation]) -> Iterator[Sequence[Operation]]:
    """All that were possible in time, with and without each operation of unknown outcome."""
    seen = [operation for operation in history if operation.returned is not None]
    lost = [operation for operation in history if operation.returned is None]
    for count in range(len(lost) + 1):
        for happened in combinations(lost, count):
            for order in permutations([*seen, *happened]):
                pairs = combinations(order, 2)
                if not any(later.returned is not None and later.returned < early.invoked for early, later in pairs):
                    yield order


def explains(order: Sequence[Operation], model: Model[State]) -> bool:
    """Whether a key that is called in this order answers as it did."""
    states = {model.initial}
    for operation in order:
        states = {after for state in states for after in model.step(state, operation.call, operation.output)}
    return bool(states)


REGISTER_REPLIES: dict[str, Sequence[Output | Unknown]] = {
    "GET x": (None, b"1", b"2", b"3"),
    **dict.fromkeys(("SET x 1", "SET x 2", "SET x 7"), ("OK", UNKNOWN)),
    **dict.fromkeys(("SET x 8", "SET x a", "SET x b"), (UNKNOWN,)),
    "SET x 1 NX": ("OK", None, UNKNOWN),
    "SETNX x 9": (1, 0, UNKNOWN),
    "DEL x": (1, 0, UNKNOWN),
    "INCR x": (1, 2, 3, 9, NOT_AN_INTEGER, UNKNOWN),
}
LOCK_REPLIES: dict[str, Sequence[Output | Unknown]] = {
    "LOCK.ACQUIRE l ann": (1, 2, 3, None, UNKNOWN),
    "LOCK.ACQUIRE l bob": (1, 2, 3, None, UNKNOWN),
    "LOCK.RELEASE l ann": (1, 0, UNKNOWN),
    "LOCK.RELEASE l bob": (1, 0, UNKNOWN),
}


def tiny(replies: dict[str, Sequence[Output | Unknown]]) -> SearchStrategy[list[Operation]]:
    """Histories of a few operations with replies that may fit together or not."""
    pairs = [(line, output) for line, outputs in replies.items() for output in outputs]

    def operation(pair: tuple[str, Output | Unknown], invoked: int, lasted: int) -> Operation:
        line, output = pair
        return Operation(
            "c", tuple(line.encode().split()), invoked, None if output is UNKNOWN else invoked + lasted, output
        )

    one = st.builds(operation, st.sampled_from(pairs), st.integers(0, 9), st.integers(0, 4))
    return st.lists(one, min_size=1, max_size=5)


@given(tiny(REGISTER_REPLIES))
@settings(max_examples=300, deadline=None)
def test_registers_are_judged_as_by_trying_every_order(history: list[Operation]) -> None:
    assert (register(*history) is LINEARIZABLE) == any(explains(order, Register()) for order in orders(history))


@given(tiny(LOCK_REPLIES))
@settings(max_examples=300, deadline=None)
def test_locks_are_judged_as_by_trying_every_order(history: list[Operation]) -> None:
    assert (lock(*history) is LINEARIZABLE) == any(explains(order, Lock()) for order in orders(history))
