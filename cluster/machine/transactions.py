"""MULTI, EXEC and WATCH where they touch the replicated state.

A session's queue lives on its node; EXEC brings it into the log as one command
whose arguments are commands, reads among them: whoever carries out the log may
have to answer for a node that does not. Watched keys are replicated (WATCH is
logged), so every replica comes to the same answer whether EXEC may go on. An
EXEC says whether keys were watched for it: where it comes so late that its session is
not known any more, nobody knows whether they changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from cluster.machine.reply import NULL_ARRAY, OK, Reply

if TYPE_CHECKING:
    from cluster.machine.machine import Handler, Machine

Step: TypeAlias = "tuple[Handler, list[bytes], bool]"
"""A command of a transaction, and whether it only reads, and so leaves no trace."""

LOOK = b"_EXEC.LOOK"


def watch(machine: Machine, args: list[bytes]) -> Reply:
    """WATCH key [key …]"""
    for key in args[1:]:
        machine.watch(key)
    return OK


def unwatch(machine: Machine, args: list[bytes]) -> Reply:
    """UNWATCH"""
    machine.unwatch(machine.origin)
    return OK


def execute(machine: Machine, steps: Sequence[Step], *, watched: bool = False) -> Reply:
    """Runs commands as one step: nobody waits in it, and nobody is woken before its end.

    The null array when a watched key changed since WATCH, or may have: keys were ``watched``, and are not any more.
    """
    session = machine.sessions.get(machine.origin)
    if session is None:
        return NULL_ARRAY if watched else look(machine, steps)
    spoilt = session.dirty or (watched and not session.watched)
    machine.unwatch(machine.origin)
    return NULL_ARRAY if spoilt else look(machine, steps)


def look(machine: Machine, steps: Sequence[Step]) -> list[Reply]:
    """Runs commands one after the other, where nobody may wait: all there is to a transaction that only reads."""
    machine.may_wait = False
    try:
        return [(machine.peek if reads else machine.step)(handler, args) for handler, args, reads in steps]
    finally:
        machine.may_wait = True


# Between nodes, and in the log


def logged(commands: Sequence[tuple[list[bytes], bool]], *, watched: bool = False) -> list[Any]:
    """EXEC as it stands in the log: its name, then the commands; one that only reads within a list of its own.

    True stands before them where keys were ``watched``.
    """
    steps = [[command] if reads else command for command, reads in commands]
    return [b"EXEC", True, *steps] if watched else [b"EXEC", *steps]


def replayed(machine: Machine, args: list[Any]) -> Reply:
    """What stands in the log."""
    watched = args[1:2] == [True]
    steps = [
        _step(machine, command[0], reads=True) if type(command[0]) is list else _step(machine, command)
        for command in args[2 if watched else 1 :]
    ]
    return execute(machine, steps, watched=watched)


def looking(commands: Sequence[list[bytes]]) -> list[bytes]:
    """A transaction that only reads, and watched nothing, as another node is asked for it."""
    return [LOOK, msgspec.msgpack.encode(commands)]


def looked(machine: Machine, args: list[bytes]) -> Reply:
    """What is asked so."""
    commands = msgspec.msgpack.decode(args[1], type=list[list[bytes]])
    return look(machine, [_step(machine, command, reads=True) for command in commands])


def _step(machine: Machine, command: list[bytes], *, reads: bool = False) -> Step:
    return machine.handler(command[0]), command, reads
