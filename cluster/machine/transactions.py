"""MULTI, EXEC and WATCH where they touch the replicated state.

A session's queue lives on its node; EXEC brings it into the log as one command
whose arguments are commands. Watched keys are replicated (WATCH is logged), so
every replica comes to the same answer whether EXEC may go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cluster.machine.reply import NULL_ARRAY, OK, Reply

if TYPE_CHECKING:
    from cluster.machine.machine import Handler, Machine


def watch(machine: Machine, args: list[bytes]) -> Reply:
    """WATCH key [key …]"""
    for key in args[1:]:
        machine.watch(key)
    return OK


def unwatch(machine: Machine, args: list[bytes]) -> Reply:
    """UNWATCH"""
    machine.unwatch(machine.origin)
    return OK


def execute(machine: Machine, steps: Sequence[tuple[Handler, list[bytes]]]) -> Reply:
    """Runs commands as one step: nobody waits in it, and nobody is woken before its end.

    The null array when a watched key changed since WATCH.
    """
    session = machine.sessions.get(machine.origin)
    dirty = session is not None and session.dirty
    machine.unwatch(machine.origin)
    if dirty:
        return NULL_ARRAY
    return look(machine, steps)


def look(machine: Machine, steps: Sequence[tuple[Handler, list[bytes]]]) -> list[Reply]:
    """Runs commands one after the other, where nobody may wait: all there is to a transaction that only reads."""
    machine.may_wait = False
    try:
        return [machine.step(handler, args) for handler, args in steps]
    finally:
        machine.may_wait = True


def replayed(machine: Machine, args: list[Any]) -> Reply:
    """EXEC as it stands in the log: its name, then the transaction's writes."""
    return execute(machine, [(machine.handler(command[0]), command) for command in args[1:]])
