"""A key that expires, as one client alone would see it, whatever the time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from tests.simulation.models import UNKNOWN, Call, Operation, Output, Unknown


class Life(NamedTuple):
    """What the key holds, and whether that ends by itself."""

    value: bytes | None
    ends: bool


NOTHING = Life(None, ends=False)


class Fleeting:
    """A string under GET, SET (NX, XX, PX), DEL, PEXPIRE and FLUSHALL that may end at any moment, and stays away then.

    FLUSHALL names it here as any other.
    """

    initial: ClassVar[Life] = NOTHING

    def step(self, state: Life, call: Call, output: Output | Unknown) -> Sequence[Life]:
        """The states afterwards, if the call answers ``output``: it may have ended right before."""
        befores = (state, NOTHING) if state.ends else (state,)
        found = [_step(before, call) for before in befores]
        return list(dict.fromkeys(after for answer, after in found if output is UNKNOWN or output == answer))

    def show(self, state: Life) -> str:
        """The value as text."""
        return "nothing" if state.value is None else repr(state.value)[2:-1] + (" for a while" if state.ends else "")

    def only_reads(self, call: Call, output: Output | Unknown) -> bool:
        """Whoever sees a value leaves it there; whoever sees none may be the first to know that it ended."""
        if call[0] == b"SET":
            return output is None and b"XX" not in call[3:]
        return call[0] == b"GET" and isinstance(output, bytes)

    def alike(self, unknown: Sequence[Call], known: Sequence[Operation]) -> Sequence[Call]:
        """All as they are."""
        return unknown


def _step(state: Life, call: Call) -> tuple[Output, Life]:
    command, options = call[0], call[3:]
    if command == b"GET":
        return state.value, state
    if command == b"DEL":
        return int(state.value is not None), NOTHING
    if command == b"FLUSHALL":
        return "OK", NOTHING
    if command == b"PEXPIRE":
        return (0, state) if state.value is None else (1, state._replace(ends=True))
    if command == b"SET" and {*options[::2]} <= {b"PX", b"NX", b"XX"}:
        last = options[-1:]
        if (last == (b"NX",) and state.value is not None) or (last == (b"XX",) and state.value is None):
            return None, state
        return "OK", Life(call[2], ends=b"PX" in options)
    raise ValueError(f"not a command of the fleeting key: {call}")
