"""LATCH.*"""

from __future__ import annotations

from cluster.machine import latches
from resp_server.commands.command import ONE_KEY, Command

COMMANDS = (
    Command(
        name="LATCH.ADD",
        arity=3,
        group="latch",
        summary="Adds to a latch: so many more things are to be done.",
        syntax="key n",
        reply="The new count.",
        flags=("write", "denyoom", "fast"),
        keys=ONE_KEY,
        example="LATCH.ADD build:42 3",
        run=latches.add,
    ),
    Command(
        name="LATCH.DONE",
        arity=-2,
        group="latch",
        summary="Counts a latch down: one thing, or so many, are done.",
        syntax="key [n]",
        reply="The new count; who waits goes on when it is 0. An error, with nothing changed, when it would be less.",
        flags=("write", "fast"),
        keys=ONE_KEY,
        example="LATCH.DONE build:42",
        run=latches.done,
    ),
    Command(
        name="LATCH.WAIT",
        arity=-2,
        group="latch",
        summary="Waits until a latch is at zero.",
        syntax="key [BLOCK ms]",
        reply="1 at zero, where a latch nobody added to is, and one that was deleted; null when the time is up.",
        flags=("readonly", "logged", "blocking", "session"),
        keys=ONE_KEY,
        example="LATCH.WAIT build:42 BLOCK 60000",
        run=latches.wait,
        retry=latches.retry_wait,
    ),
    Command(
        name="LATCH.COUNT",
        arity=2,
        group="latch",
        summary="Tells how many things are still to be done.",
        syntax="key",
        reply="The count, 0 for no such latch.",
        flags=("readonly", "fast"),
        keys=ONE_KEY,
        example="LATCH.COUNT build:42",
        run=latches.count,
    ),
    Command(
        name="LATCH.INFO",
        arity=2,
        group="latch",
        summary="Shows a latch's count and how many wait for it.",
        syntax="key",
        reply="Map: `count` and `waiters`, both numbers.",
        complexity="O(N) for N waiters",
        flags=("readonly",),
        keys=ONE_KEY,
        example="LATCH.INFO build:42",
        run=latches.info,
    ),
)
