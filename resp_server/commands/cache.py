"""CACHE.*: string keys through the lines of the node the client talks to.

A node keeps lines of the shards it has; for all others the memory is asked,
wherever it is, which is what ``run`` is for in the records below.
"""

from __future__ import annotations

from cluster.cache.lines import INVALID
from cluster.machine import keys, strings
from cluster.machine.machine import Machine
from cluster.machine.reply import Reply, syntax_error
from resp_server.commands.command import ALL_KEYS, ONE_KEY, Command
from resp_server.commands.spreading import by_keys, by_keys_in_order, total
from resp_server.session import Session


def _memory(session: Session, key: bytes) -> bytes | None:
    return session.server.shard_of(key).machine.keyspace.string(key)


def _get(session: Session, args: list[bytes]) -> Reply:
    return session.server.lines.read(args[1], _memory(session, args[1]))


def _get_from_memory(machine: Machine, args: list[bytes]) -> Reply:
    return machine.keyspace.string(args[1])


def _mget(session: Session, args: list[bytes]) -> Reply:
    memory = [_memory(session, key) for key in args[1:]]
    return [session.server.lines.read(key, value) for key, value in zip(args[1:], memory, strict=True)]


def _mget_from_memory(machine: Machine, args: list[bytes]) -> Reply:
    return list(map(machine.keyspace.string, args[1:]))


def _without_sync(args: list[bytes]) -> list[bytes]:
    """CACHE.SET's arguments as SET's: SYNC is what every write is here, and no other option is known."""
    allowed = {b"EX", b"PX", b"NX", b"XX", b"SYNC"}
    options = iter(args[3:])
    kept = args[:3]
    for option in options:
        word = option.upper()
        if word not in allowed:
            raise syntax_error()
        if word != b"SYNC":
            kept.append(word)
        if word in (b"EX", b"PX"):
            kept += [value for value in [next(options, None)] if value is not None]
    return kept


def _set_in_memory(machine: Machine, args: list[bytes]) -> Reply:
    return strings.set_(machine, _without_sync(args))


def _set(session: Session, args: list[bytes]) -> Reply:
    reply = _set_in_memory(session.server.shard_of(args[1]).machine, args)
    if reply is not None:
        value = _memory(session, args[1])
        if value is not None:
            session.server.lines.fill(args[1], value)
    return reply


def _state(session: Session, args: list[bytes]) -> Reply:
    return session.server.lines.state(args[1], _memory(session, args[1]))


def _no_state(machine: Machine, args: list[bytes]) -> Reply:
    return INVALID


def _evict(session: Session, args: list[bytes]) -> Reply:
    return int(session.server.lines.drop(args[1]))


def _nothing_to_evict(machine: Machine, args: list[bytes]) -> Reply:
    return 0


def _flush(session: Session, args: list[bytes]) -> Reply:
    return 0  # no line is ever dirty: every write was durable before it was answered


def _stats(session: Session, args: list[bytes]) -> Reply:
    lines = session.server.lines
    traffic = lines.traffic
    reads = traffic.hits + traffic.misses
    return {
        b"lines": len(lines),
        b"bytes": lines.bytes,
        b"max-bytes": lines.max_bytes,
        b"hits": traffic.hits,
        b"misses": traffic.misses,
        b"hit-ratio": traffic.hits / reads if reads else 0.0,
        b"invalidations-sent": 0,
        b"invalidations-received": traffic.invalidations_received,
        b"write-backs": 0,
        b"evictions": traffic.evictions,
        b"modified": 0,
        b"exclusive": len(lines),
        b"shared": 0,
        b"leases-lost": 0,
    }


COMMANDS = (
    Command(
        name="CACHE.GET",
        arity=2,
        group="cache",
        summary="Returns a string value through this node's cache.",
        syntax="key",
        reply="Value, or null.",
        flags=("readonly", "fast"),
        keys=ONE_KEY,
        example="CACHE.GET page:1",
        run=_get_from_memory,
        serve=_get,
    ),
    Command(
        name="CACHE.MGET",
        arity=-2,
        group="cache",
        summary="Returns several string values through this node's cache.",
        syntax="key [key ...]",
        reply="Array of values, null for each that is missing.",
        complexity="O(N) where N is the number of keys",
        flags=("readonly", "fast"),
        keys=ALL_KEYS,
        example="CACHE.MGET page:1 page:2",
        run=_mget_from_memory,
        serve=_mget,
        spread=by_keys_in_order,
    ),
    Command(
        name="CACHE.SET",
        arity=-3,
        group="cache",
        summary="Sets a string value through this node's cache.",
        syntax="key value [EX seconds | PX milliseconds] [NX | XX] [SYNC]",
        reply="`OK`, or null when `NX` or `XX` was not met.",
        flags=("write", "denyoom"),
        keys=ONE_KEY,
        example='CACHE.SET page:1 "<html>" PX 60000',
        run=_set_in_memory,
        serve=_set,
    ),
    Command(
        name="CACHE.DEL",
        arity=-2,
        group="cache",
        summary="Deletes keys, wherever they are cached.",
        syntax="key [key ...]",
        reply="How many existed.",
        complexity="O(N) where N is the number of keys",
        flags=("write",),
        keys=ALL_KEYS,
        example="CACHE.DEL page:1",
        run=keys.delete,
        spread=by_keys(total),
    ),
    Command(
        name="CACHE.STATE",
        arity=2,
        group="cache",
        summary="Tells the MESI state of this node's line.",
        syntax="key",
        reply="`M`, `E`, `S` or `I`.",
        flags=("readonly", "fast"),
        keys=ONE_KEY,
        example="CACHE.STATE page:1",
        run=_no_state,
        serve=_state,
    ),
    Command(
        name="CACHE.EVICT",
        arity=2,
        group="cache",
        summary="Drops this node's line.",
        syntax="key",
        reply="1, or 0 when there was none.",
        flags=("readonly", "fast"),
        keys=ONE_KEY,
        example="CACHE.EVICT page:1",
        run=_nothing_to_evict,
        serve=_evict,
    ),
    Command(
        name="CACHE.FLUSH",
        arity=1,
        group="cache",
        summary="Writes back this node's dirty lines.",
        reply="How many were written back.",
        flags=("readonly",),
        example="CACHE.FLUSH",
        serve=_flush,
    ),
    Command(
        name="CACHE.STATS",
        arity=1,
        group="cache",
        summary="Counts what this node's cache holds and went through.",
        reply="Map: `lines bytes max-bytes hits misses hit-ratio invalidations-sent invalidations-received "
        "write-backs evictions modified exclusive shared leases-lost`.",
        flags=("readonly", "fast"),
        example="CACHE.STATS",
        serve=_stats,
    ),
)
