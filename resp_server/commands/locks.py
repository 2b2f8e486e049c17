"""LOCK.* and FENCE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cluster.machine import fence, lock_deadlocks, lock_views, locks
from cluster.machine.lock_requests import ACQUIRE, owner_at
from cluster.machine.reply import CommandError, Reply
from resp_server.commands.command import COUNTED_KEYS, ONE_KEY, Command
from resp_server.commands.lives import with_default_life
from resp_server.commands.spreading import cross_slot, everywhere, joined, one_after_the_other

if TYPE_CHECKING:
    from resp_server.server import Server

FENCED_AT = 3

_with_default_life = with_default_life(ACQUIRE, lambda args: owner_at(args) + 1)


def graphs_joined(replies: list[dict[bytes, Any]]) -> Reply:
    """LOCK.GRAPH of several shards: edges joined, counts added, the latest deadlock."""
    told = [reply[b"last"] for reply in replies if reply[b"last"] is not None]
    return {
        b"edges": [edge for reply in replies for edge in reply[b"edges"]],
        b"deadlocks": sum(reply[b"deadlocks"] for reply in replies),
        b"last": max(told, key=lambda last: last[b"time-ms"], default=None),
    }


def fenced(server: Server, args: list[bytes]) -> list[bytes]:
    """FENCE with its command prepared; refuses one that does not exist, does not write, or has too few arguments."""
    inner = args[FENCED_AT:]
    route = server.table.find(inner)
    command = route.command
    if command.run is None or "write" not in command.flags:
        raise CommandError(f"FENCE takes a command that writes, '{command.full_name}' does not")
    if command.run is fence.fence:
        raise CommandError("FENCE calls can not be nested")
    route.check_arity(inner)
    if command.spread is not None and not command.keys.first and len(server.node.shards) > 1:
        raise cross_slot(f"'{command.full_name}' concerns all shards, and a lock is in one")
    return args if command.prepare is None else [*args[:FENCED_AT], *command.prepare(server, inner)]


COMMANDS = (
    Command(
        name="LOCK.ACQUIRE",
        arity=-3,
        group="lock",
        summary="Takes a lock, shared or exclusive, at once or by waiting for it.",
        syntax="key owner [SHARED | EXCLUSIVE] [PX ms | SESSION] [BLOCK ms] [ID request]",
        reply="The fencing token, an integer; null when the lock was not granted in time; `-DEADLOCK …` when "
        "waiting would close a cycle. Exclusive for 30000 ms (setting `lock-default-ttl`) unless told otherwise; "
        "`SESSION` is for as long as the connection lives. `BLOCK 0` waits for ever. An owner, 1 to 4096 bytes, that "
        "holds the lock gets its token again and must release once more; an upgrade from shared to exclusive gets a "
        "new token and counts nothing up. "
        "`PX` never shortens a hold that is acquired again. `ID` makes sending the same request again harmless.",
        flags=("write", "denyoom", "blocking", "session"),
        keys=ONE_KEY,
        example="LOCK.ACQUIRE job:7 worker-a PX 5000",
        run=locks.acquire,
        prepare=_with_default_life,
        retry=locks.retry_acquire,
    ),
    Command(
        name="LOCK.MACQUIRE",
        arity=-4,
        group="lock",
        summary="Takes several locks at once: all of them, or none.",
        syntax=("numkeys key [key ...] owner [SHARED | EXCLUSIVE] [PX ms | SESSION] [BLOCK ms] [ID request]"),
        reply="Array of fencing tokens, one for every key as it was named; null when not all were granted in time; "
        "`-DEADLOCK …` when waiting would close a cycle. The rules for each are those of `LOCK.ACQUIRE`. Who waits "
        "holds none of them for it, and stands in the line of every one: who comes later to any of them is served "
        "later. A key named twice is one key: its token stands twice, and one release gives it back. All keys must "
        "be in one shard.",
        complexity="O(N) for N keys",
        flags=("write", "denyoom", "blocking", "movablekeys", "session"),
        keys=COUNTED_KEYS,
        example="LOCK.MACQUIRE 2 {bank}:alice {bank}:bob transfer-17 PX 5000 BLOCK 1000",
        run=locks.macquire,
        prepare=_with_default_life,
        retry=locks.retry_macquire,
    ),
    Command(
        name="LOCK.RELEASE",
        arity=-3,
        group="lock",
        summary="Gives back one acquire of a lock.",
        syntax="key owner [TOKEN token]",
        reply="1, or 0 when the owner holds nothing or with another token.",
        flags=("write", "fast"),
        keys=ONE_KEY,
        example="LOCK.RELEASE job:7 worker-a",
        run=locks.release,
    ),
    Command(
        name="LOCK.EXTEND",
        arity=-5,
        group="lock",
        summary="Sets how long a hold goes on living.",
        syntax="key owner PX ms [TOKEN token]",
        reply="1, or 0 when the owner holds nothing or with another token. The life is set, not added to, and may "
        "become shorter; a `SESSION` hold ends by time from then on.",
        flags=("write", "fast"),
        keys=ONE_KEY,
        example="LOCK.EXTEND job:7 worker-a PX 5000",
        run=locks.extend,
    ),
    Command(
        name="LOCK.DOWNGRADE",
        arity=3,
        group="lock",
        summary="Makes an exclusive hold a shared one.",
        syntax="key owner",
        reply="The token, unchanged; null when the owner does not hold the lock exclusively.",
        flags=("write", "fast"),
        keys=ONE_KEY,
        example="LOCK.DOWNGRADE job:7 worker-a",
        run=locks.downgrade,
    ),
    Command(
        name="LOCK.INFO",
        arity=2,
        group="lock",
        summary="Shows who holds a lock and who waits for it.",
        syntax="key",
        reply="Map: `mode` (`free`, `shared` or `exclusive`), `token` (the last one issued, 0 for none), `holders` "
        "(array of maps `owner mode holds token ttl-ms session`) and `waiters` (array of maps `owner mode "
        "waited-ms`). For a hold taken with `SESSION`, `session` is 1 and `ttl-ms` is -1; else `session` is 0.",
        complexity="O(N) for N holders and waiters",
        flags=("readonly",),
        keys=ONE_KEY,
        example="LOCK.INFO job:7",
        run=lock_views.info,
    ),
    Command(
        name="LOCK.OWNED",
        arity=2,
        group="lock",
        summary="Lists the locks an owner holds.",
        syntax="owner",
        reply="Array of keys, in no particular order.",
        complexity="O(N) for N locks the owner holds",
        flags=("readonly",),
        example="LOCK.OWNED worker-a",
        run=lock_views.owned,
        spread=everywhere(joined),
    ),
    Command(
        name="LOCK.SCAN",
        arity=-2,
        group="lock",
        summary="Iterates over the locks that are held.",
        syntax="cursor [MATCH pattern] [COUNT count]",
        reply="As `SCAN`: array of the next cursor and an array of keys.",
        complexity="O(1) for every call, O(N) for a whole walk over N keys in the database",
        flags=("readonly",),
        example="LOCK.SCAN 0 MATCH job:*",
        run=lock_views.scan,
        spread=one_after_the_other,
    ),
    Command(
        name="LOCK.BREAK",
        arity=-2,
        group="lock",
        summary="Takes a lock away from its holders, or from one of them.",
        syntax="key [owner]",
        reply="How many owners lost their hold. Their tokens are worth nothing from then on.",
        complexity="O(N) for N holders",
        flags=("write", "admin"),
        keys=ONE_KEY,
        example="LOCK.BREAK job:7",
        run=locks.break_,
    ),
    Command(
        name="LOCK.GRAPH",
        arity=1,
        group="lock",
        summary="Shows who waits for whom in the whole cluster, and the last deadlock.",
        reply="Map: `edges` (array of maps `waiter holder key`), `deadlocks` (how many were broken), `last` (null, or "
        "of the last one the map `cycle victim key time-ms`: the cycle in words, the owner that was refused and the "
        "key it waited for, and when, in milliseconds since 1970). Where a key is free and kept for one who waits for "
        "several, that one is the `holder`.",
        complexity="O(N) for N waiters and the holders they wait for",
        flags=("readonly",),
        example="LOCK.GRAPH",
        run=lock_deadlocks.graph,
        spread=everywhere(graphs_joined),
    ),
    Command(
        name="FENCE",
        arity=-4,
        group="lock",
        summary="Runs a command that writes, only while a lock (or semaphore, or election) is held with this token.",
        syntax="lock token command [arg ...]",
        reply="The command's reply; `-FENCED …` with nothing changed when the lock is not held with the token. Lock "
        "and keys must be in one shard.",
        complexity="Depends on the command",
        flags=("write", "denyoom", "movablekeys", "session"),
        keys=ONE_KEY,
        example="FENCE job:7 1 SET {job:7}:result done",
        run=fence.fence,
        prepare=fenced,
        inner_at=FENCED_AT,
    ),
)
