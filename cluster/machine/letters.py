"""What one shard has to say to another: commands for keys that are elsewhere, which must be carried out.

A handler that would change a key of another shard posts a *letter* instead. It
is part of the state until the shard it is for has carried it out (the leader
sees to that, `cluster.courier`), so it survives whatever the state survives; it
may be carried out more than once. One that is refused there is opened here:
``back`` is carried out instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cluster.machine.reply import CommandError, Reply

if TYPE_CHECKING:
    from cluster.machine.machine import Machine

DELIVERED = b"_LETTER.DELIVERED"
REFUSED = b"_LETTER.REFUSED"


class Letter(msgspec.Struct, array_like=True):
    """A command, for the shard of its key or the system's, and one for here should that be refused; ``[]`` is none."""

    args: list[bytes]
    back: list[bytes]


def post(machine: Machine, args: list[bytes], back: list[bytes]) -> None:
    """The command will be carried out in the shard of ``args[1]``, or ``back`` here."""
    machine.letters[machine.next_id()] = Letter(args, back)


def delivered(machine: Machine, args: list[bytes]) -> Reply:
    """These letters have been carried out."""
    for number in args[1:]:
        machine.letters.pop(int(number), None)
    return len(args) - 1


def refused(machine: Machine, args: list[bytes]) -> Reply:
    """This one will never be."""
    letter = machine.letters.pop(int(args[1]), None)
    if letter is None or not letter.back:
        return 0
    try:
        machine.handler(letter.back[0])(machine, letter.back)
    except CommandError:
        return 0  # what it came from is gone as well
    return 1
