"""What clients call and see, and what a register and a lock do when nothing happens at the same time.

The models are written from the command contract, not from the product's code, and know only what the workloads use:
anything else is a `ValueError`, so that no reply goes unjudged. Neither knows of time: a history must be shorter than
any life its keys are given.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Sequence
from enum import Enum
from typing import ClassVar, Final, NamedTuple, Protocol, TypeAlias, TypeVar

INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1
NOT_AN_INTEGER = "-ERR value is not an integer or out of range"
TOO_BIG = "-ERR increment or decrement would overflow"


class Unknown(Enum):
    """What stands for the reply nobody saw."""

    UNKNOWN = "?"


UNKNOWN: Final = Unknown.UNKNOWN

Call: TypeAlias = tuple[bytes, ...]
"""A command and its arguments, the command in capitals; the second word is the key."""

Output: TypeAlias = int | bytes | str | None
"""A reply: simple strings and errors are ``str``, an error with its leading ``-``."""


class Operation(NamedTuple):
    """One call of one client. ``returned`` None: it may take effect at any time after ``invoked``, or never.

    The times are of any one clock, or count events. An operation that certainly did not happen is left out
    of a history. The client's name is for people: only times say what came first.
    """

    client: str
    call: Call
    invoked: int
    returned: int | None = None
    output: Output | Unknown = UNKNOWN


State = TypeVar("State", bound=Hashable)


class Model(Protocol[State]):
    """What one key does.

    The last two methods only save work: False, and the calls as they are, are never wrong.
    """

    @property
    def initial(self) -> State:
        """The key's state before anybody called."""

    def step(self, state: State, call: Call, output: Output | Unknown) -> Sequence[State]:
        """The states ``call`` may lead to if it answers ``output``, none if it cannot; `UNKNOWN` fits any answer."""

    def show(self, state: State) -> str:
        """A state in a word or two, for people."""

    def only_reads(self, call: Call, output: Output | Unknown) -> bool:
        """Whether ``call``, where it can answer ``output``, leaves every state as it is."""

    def alike(self, unknown: Sequence[Call], known: Sequence[Operation]) -> Sequence[Call]:
        """The calls of unknown outcome, those that no reply in ``known`` can tell apart written the same."""


Value: TypeAlias = bytes | None


class Register:
    """A string key under GET, SET (NX, XX, GET), SETNX, DEL, INCR and FLUSHALL, which names it here as any other.

    The state is its value, None if there is none.

    ``EXEC key expected value`` stands for a transaction that sets the key, which was watched when it had the expected
    value (empty for none). It may answer "nothing" whatever the value is: the key may have changed and changed back.
    """

    initial: ClassVar[Value] = None

    def step(self, state: Value, call: Call, output: Output | Unknown) -> Sequence[Value]:
        """The value afterwards, if the call answers ``output``."""
        if call[0] == b"EXEC":
            return _exec(state, call[2] or None, call[3], output)
        command = REGISTER.get(call[0])
        if command is None:
            raise ValueError(f"not a command of the register: {call}")
        answer, after = command(state, *call[2:])
        return (after,) if output is UNKNOWN or output == answer else ()

    def show(self, state: Value) -> str:
        """The value as text."""
        return "nothing" if state is None else repr(state)[2:-1]

    def only_reads(self, call: Call, output: Output | Unknown) -> bool:
        """GET, and what was refused."""
        if call[0] == b"SET":
            return output is None and b"GET" not in call[3:]
        if call[0] == b"EXEC":
            return output == "nothing"
        return call[0] == b"GET" or (call[0] in (b"SETNX", b"DEL") and output == 0)

    def alike(self, unknown: Sequence[Call], known: Sequence[Operation]) -> Sequence[Call]:
        """One number stands for all that no reply shows, as it is or counted up; one text for all texts."""
        shown = {b"%d" % output if isinstance(output, int) else output for *_, output in known}
        numbers = sorted(number for value in shown if (number := _number(value)) is not None)
        increments = sum(call[0] == b"INCR" for call in [*unknown, *(operation.call for operation in known)])
        stand_ins: dict[bool, bytes] = {}

        def written(value: bytes) -> bytes:
            number = _number(value)
            if number is None:
                return value if value in shown else stand_ins.setdefault(False, value)
            first_shown = bisect_left(numbers, number)
            end = number + increments
            if end > INTEGER_MAX or (first_shown < len(numbers) and numbers[first_shown] <= end):
                return value
            return stand_ins.setdefault(True, value)

        return [call if call[0] == b"EXEC" else (*call[:2], *map(written, call[2:3]), *call[3:]) for call in unknown]


def _exec(state: Value, expected: Value, new: bytes, output: Output | Unknown) -> Sequence[Value]:
    if output is UNKNOWN:
        return (new if state == expected else state,)
    if output == "OK":
        return (new,) if state == expected else ()
    return (state,) if output == "nothing" else ()


def _number(value: object) -> int | None:
    """What INCR takes a value for, if it takes it."""
    if not isinstance(value, bytes):
        return None
    try:
        number = int(value)
    except ValueError:
        return None
    return number if value == b"%d" % number and INTEGER_MIN <= number <= INTEGER_MAX else None


def _get(value: Value) -> tuple[Output, Value]:
    return value, value


def _set(old: Value, new: bytes, *options: bytes) -> tuple[Output, Value]:
    if not options:
        return "OK", new
    if not {*options} <= {b"NX", b"XX", b"GET"} or {b"NX", b"XX"} <= {*options}:
        raise ValueError(f"not options of the register's SET: {options}")
    refused = (b"NX" in options and old is not None) or (b"XX" in options and old is None)
    done: Output = None if refused else "OK"
    return old if b"GET" in options else done, old if refused else new


def _setnx(old: Value, new: bytes) -> tuple[Output, Value]:
    return (1, new) if old is None else (0, old)


def _del(old: Value) -> tuple[Output, Value]:
    return 0 if old is None else 1, None


def _incr(old: Value) -> tuple[Output, Value]:
    number = 0 if old is None else _number(old)
    if number is None:
        return NOT_AN_INTEGER, old
    if number == INTEGER_MAX:
        return TOO_BIG, old
    return number + 1, b"%d" % (number + 1)


def _flushall(old: Value) -> tuple[Output, Value]:
    return "OK", None


REGISTER: dict[bytes, Callable[..., tuple[Output, Value]]] = {
    b"GET": _get,
    b"SET": _set,
    b"SETNX": _setnx,
    b"DEL": _del,
    b"INCR": _incr,
    b"FLUSHALL": _flushall,
}
"""The answer and the value afterwards, from the value before and the arguments after the key."""


class Hold(NamedTuple):
    """Who has a lock how many times (None and 0: nobody), and the last token of it that a client saw.

    ``token_known``: that token is the present hold's. An acquire nobody saw the reply of has one that is greater.
    """

    owner: bytes | None
    holds: int
    token: int
    token_known: bool


class Lock:
    """An exclusive, re-entrant lock under LOCK.ACQUIRE and LOCK.RELEASE, without expiry; its tokens only grow.

    Weak spot: a token nobody saw is not kept from being given again to the next holder.
    """

    initial: ClassVar[Hold] = Hold(None, 0, 0, False)

    def step(self, state: Hold, call: Call, output: Output | Unknown) -> Sequence[Hold]:
        """The hold afterwards, if the call answers ``output``."""
        command, owner, options = call[0], call[2], call[3:]
        if command == b"LOCK.ACQUIRE" and {*options[::2]} <= {b"PX", b"BLOCK"}:
            return _acquire(state, owner, output)
        if command == b"LOCK.RELEASE" and not options:
            return _release(state, owner, output)
        raise ValueError(f"not a command of the lock: {call}")

    def show(self, state: Hold) -> str:
        """Its owner, how often it holds and by which token; the last token if nobody has it."""
        token = str(state.token) if state.token_known or state.owner is None else f"over {state.token}"
        return f"free, {token}" if state.owner is None else f"{repr(state.owner)[2:-1]} x{state.holds}, {token}"

    def only_reads(self, call: Call, output: Output | Unknown) -> bool:
        """What was refused."""
        return output in (None, 0)

    def alike(self, unknown: Sequence[Call], known: Sequence[Operation]) -> Sequence[Call]:
        """All as they are: every owner matters."""
        return unknown


def _acquire(state: Hold, owner: bytes, output: Output | Unknown) -> Sequence[Hold]:
    if state.owner not in (None, owner):
        return (state,) if output in (None, UNKNOWN) else ()
    taken = state._replace(owner=owner, holds=state.holds + 1)
    if output is UNKNOWN:
        return (taken,)
    if not isinstance(output, int):
        return ()
    if state.token_known:
        return (taken,) if output == state.token else ()
    return (taken._replace(token=output, token_known=True),) if output > state.token else ()


def _release(state: Hold, owner: bytes, output: Output | Unknown) -> Sequence[Hold]:
    if state.owner != owner:
        return (state,) if output in (0, UNKNOWN) else ()
    if output not in (1, UNKNOWN):
        return ()
    if state.holds > 1:
        return (state._replace(holds=state.holds - 1),)
    return (Hold(None, 0, state.token, False),)
