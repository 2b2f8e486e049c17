"""FENCE: a write that happens only while a lock, a place of a semaphore or an election is held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.machine.arguments import integer
from cluster.machine.hold import Holding
from cluster.machine.reply import CommandError, Reply

if TYPE_CHECKING:
    from cluster.machine.machine import Machine


def fence(machine: Machine, args: list[bytes]) -> Reply:
    """FENCE lock token command [arg …]: the command's reply or error; ``-FENCED`` when the lock moved on.

    Check and command are one step of one log entry. The command does not
    wait, as in EXEC. That it is a write with the right number of arguments was
    checked before it entered the log.
    """
    token = integer(args[2])
    held = machine.keyspace.values.get(args[1])
    if not isinstance(held, Holding) or all(hold.token != token for hold in held.holders()):
        raise CommandError(f"the lock is not held with token {token}, nothing was changed", "FENCED")
    inner = args[3:]
    handler = machine.commands.handlers.get(inner[0].upper())
    if handler is None:
        raise CommandError(b"unknown command '%b'" % inner[0][:128])
    may_wait, machine.may_wait = machine.may_wait, False
    try:
        return handler(machine, inner)
    finally:
        machine.may_wait = may_wait
