"""Situations of locks and deadlocks, set up by hand: as scripts.py."""

from __future__ import annotations

from tests.simulation.clients import FOR_EVER_MS
from tests.simulation.scripts import Play, Script
from tests.simulation.sessions import Op
from tests.simulation.world import Violation

LIVES = ("PX", FOR_EVER_MS.decode())


def closed_by_a_grant(script: Script) -> None:
    """An owner in two sessions is granted what one waits for who holds what it wants in the other session."""
    a, b, c = script.a, script.b, script.c
    script.call(a, "LOCK.ACQUIRE", "l", "x", *LIVES)
    script.call(a, "LOCK.ACQUIRE", "m", "w", *LIVES)
    first = _waits(script.send(b, "LOCK.ACQUIRE", "l", "u", *LIVES, "BLOCK", "0"), script)
    second = _waits(script.send(c, "LOCK.ACQUIRE", "l", "w", *LIVES, "BLOCK", "0"), script)
    third = _waits(script.send(a, "LOCK.ACQUIRE", "m", "u", *LIVES, "BLOCK", "0"), script)
    script.call(a, "LOCK.RELEASE", "l", "x")
    script.run(500)
    if not isinstance(first.output, int) or second.done or not str(third.output).startswith("-DEADLOCK"):
        raise Violation("every cycle is broken", f"{first.output!r} {second.output!r} {third.output!r}")


def _waits(op: Op, script: Script) -> Op:
    script.until(lambda: op.waits)
    return op


DEADLOCKS: tuple[Play, ...] = (closed_by_a_grant,)
"""All of them."""
