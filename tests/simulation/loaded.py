"""A key that one of its readers loads, as one client alone would see it: CACHE.FETCH and CACHE.FILL beside the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from tests.simulation.fleeting import NOTHING, Fleeting, Life
from tests.simulation.models import UNKNOWN, Call, Operation, Output, Unknown

LOADING = frozenset({b"CACHE.FETCH", b"CACHE.FILL"})


class Load(NamedTuple):
    """What the key holds, the token that may be good, 0 if there is none, and the last one that somebody was given."""

    life: Life
    token: int = 0
    last: int = 0


class Loaded:
    """A `Fleeting` key with a token, which may cease to count at any moment, and does when a value comes.

    A fetch answers the value or a token, which is a number; one nobody saw the answer of must be left out.
    """

    initial: ClassVar[Load] = Load(NOTHING)

    def __init__(self) -> None:
        self._fleeting = Fleeting()

    def step(self, state: Load, call: Call, output: Output | Unknown) -> Sequence[Load]:
        """The states afterwards, if the call answers ``output``."""
        if call[0] == b"CACHE.FETCH":
            if not isinstance(output, int):
                return self._others(state, (b"GET", call[1]), output) if isinstance(output, bytes) else ()
            fresh = output > state.last and (state.life.ends or state.life.value is None)
            return (Load(NOTHING, output, output),) if fresh else ()
        if call[0] == b"CACHE.FILL":
            return self._fill(state, call, output)
        return self._others(state, call, output)

    def _others(self, state: Load, call: Call, output: Output | Unknown) -> Sequence[Load]:
        lives = self._fleeting.step(state.life, call, output)
        return [Load(life, state.token if life.value is None else 0, state.last) for life in lives]

    def _fill(self, state: Load, call: Call, output: Output | Unknown) -> Sequence[Load]:
        may_count = state.token == int(call[2]) and state.token > 0
        filled = Load(Life(call[3], ends=b"PX" in call), 0, state.last)
        found = []
        if output in ("OK", UNKNOWN) and may_count:
            found.append(filled)
        if output in (None, UNKNOWN):
            found.append(state)
        return found

    def show(self, state: Load) -> str:
        """The value, and the token."""
        return self._fleeting.show(state.life) + (f", {state.token} loads it" if state.token else "")

    def only_reads(self, call: Call, output: Output | Unknown) -> bool:
        """Whoever finds the value, and who was refused."""
        if call[0] in LOADING:
            return isinstance(output, bytes) or (call[0] == b"CACHE.FILL" and output is None)
        return self._fleeting.only_reads(call, output)

    def alike(self, unknown: Sequence[Call], known: Sequence[Operation]) -> Sequence[Call]:
        """All as they are."""
        return unknown
