"""SEM.*"""

from __future__ import annotations

from cluster.machine import semaphores
from resp_server.commands.command import ONE_KEY, Command
from resp_server.commands.lives import with_default_life

COMMANDS = (
    Command(
        name="SEM.ACQUIRE",
        arity=-5,
        group="semaphore",
        summary="Takes places of a semaphore, at once or by waiting for them.",
        syntax="key owner LIMIT n [COUNT n] [PX ms | SESSION] [BLOCK ms] [ID request]",
        reply="The fencing token of the owner's hold, an integer; null when there were not enough places in time. One "
        "place for 30000 ms unless told otherwise. An owner that asks again gets more places with the token it has; "
        "its hold ends as a whole, and `PX` never shortens it. `ID` makes sending the same request again harmless: it "
        "prolongs the hold and takes nothing. Places are given first come, first served, also to who wants many. "
        "`LIMIT` is the semaphore's limit from then on. When it shrinks, nobody loses a place; places are given again "
        "once fewer than the limit are held, and who waits for more than there are is refused at its turn.",
        flags=("write", "denyoom", "blocking", "session"),
        keys=ONE_KEY,
        example="SEM.ACQUIRE printers job-7 LIMIT 3 PX 5000 BLOCK 1000",
        run=semaphores.acquire,
        prepare=with_default_life(semaphores.ACQUIRE, lambda _args: 3),
        retry=semaphores.retry_acquire,
    ),
    Command(
        name="SEM.RELEASE",
        arity=-3,
        group="semaphore",
        summary="Gives back places of a semaphore.",
        syntax="key owner [COUNT n] [TOKEN token]",
        reply="How many places were given back, one unless told otherwise; 0 when the owner holds nothing or with "
        "another token.",
        flags=("write", "fast"),
        keys=ONE_KEY,
        example="SEM.RELEASE printers job-7",
        run=semaphores.release,
    ),
    Command(
        name="SEM.INFO",
        arity=2,
        group="semaphore",
        summary="Shows who holds places of a semaphore and who waits for some.",
        syntax="key",
        reply="Map: `limit` (0 when nothing is held), `held` (places), `token` (the last one issued, 0 for none), "
        "`holders` (array of maps `owner count token ttl-ms session`) and `waiters` (array of maps `owner count "
        "waited-ms`). For a hold taken with `SESSION`, `session` is 1 and `ttl-ms` is -1; else `session` is 0.",
        complexity="O(N) for N holders and waiters",
        flags=("readonly",),
        keys=ONE_KEY,
        example="SEM.INFO printers",
        run=semaphores.info,
    ),
)
