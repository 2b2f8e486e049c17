"""CACHE.*: string keys through the cache of the node the client talks to.

What a line of this node answers is answered at once; everything else waits for
a line (`cluster.cache.controller`). In a transaction they are carried out as the
plain commands they stand for, on the memory.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from cluster.cache.controller import MISS, Write
from cluster.cache.lines import size_bytes
from cluster.cache.mesi import State
from cluster.machine import keys, loading, strings
from cluster.machine.arguments import Options, bounded, integer
from cluster.machine.machine import Machine
from cluster.machine.reply import OK, WAITING, CommandError, Reply, syntax_error
from cluster.ring.slots import slot_of
from resp_server.commands.command import ALL_KEYS, ONE_KEY, PLAINLY, Asking, Command
from resp_server.commands.spreading import by_keys, by_keys_in_order, total
from resp_server.places import NOBODY, Gather, Share

if TYPE_CHECKING:
    from resp_server.server import Server
    from resp_server.session import Session

MS = {b"EX": 1000, b"PX": 1}
LIFE_MAX = 2**48  # milliseconds: far beyond that is a mistake
TOP = 10
TOP_MAX = 10_000


def _get(server: Server, args: list[bytes], asking: Asking) -> Reply:
    key = args[1]
    value = server.node.cache.read(key)
    if value is not MISS:
        return value
    server.node.cache.await_read(asking(), server.node.slot_shard[slot_of(key)], key)
    return WAITING


def _get_from_memory(machine: Machine, args: list[bytes]) -> Reply:
    return machine.keyspace.string(args[1])


def _mget(server: Server, args: list[bytes], asking: Asking) -> Reply:
    cache = server.node.cache
    values = [cache.read(key) for key in args[1:]]
    if MISS not in values:
        return values
    place = asking()
    place.partly_read = values.count(MISS) < len(values)
    gather = Gather(place, _first_error, len(values))
    for at, (key, value) in enumerate(zip(args[1:], values, strict=True)):
        if value is MISS:
            cache.await_read(Share(gather, at), server.node.slot_shard[slot_of(key)], key)
        else:
            gather.take(at, value)
    return WAITING


def _first_error(replies: list[Reply]) -> Reply:
    """MGET's answer: what is no string is null, as in Redis; what could not be read fails all of it."""
    errors = [reply for reply in replies if isinstance(reply, CommandError)]
    others = [error for error in errors if error.code != "WRONGTYPE"]
    return others[0] if others else [None if isinstance(reply, CommandError) else reply for reply in replies]


def _mget_from_memory(machine: Machine, args: list[bytes]) -> Reply:
    values = machine.keyspace.values
    return [value if isinstance(value := values.get(key), bytes) else None for key in args[1:]]


class _Set(NamedTuple):
    """What CACHE.SET was told: ``life`` as SET is to have it, and in milliseconds."""

    life: tuple[bytes, ...] = ()
    life_ms: int | None = None
    condition: bytes = b""
    sync: bool = False


def _read_set(args: list[bytes]) -> _Set:
    told = _Set()
    options = Options(args, 3)
    for word in options:
        if word in MS and not told.life:
            count = options.value()
            time = integer(count)
            if not 0 < time <= LIFE_MAX // MS[word]:
                raise CommandError("invalid expire time in 'cache.set' command")
            told = told._replace(life=(word, count), life_ms=time * MS[word])
        elif word in (b"NX", b"XX") and told.condition in (b"", word):
            told = told._replace(condition=word)
        elif word == b"SYNC":
            told = told._replace(sync=True)
        else:
            raise syntax_error()
    return told


def _plain_set(args: list[bytes], told: _Set) -> list[bytes]:
    """The SET that does the same."""
    condition = (told.condition,) if told.condition else ()
    return [b"SET", args[1], args[2], *told.life, *condition]


def _set(server: Server, args: list[bytes], asking: Asking) -> Reply:
    told = _read_set(args)
    cache, key, plain = server.node.cache, args[1], _plain_set(args, told)
    number = server.node.slot_shard[slot_of(key)]
    if not told.sync:
        reply = cache.write(key, args[2], told.life_ms, told.condition)
        if reply is not MISS:
            return reply
        cache.await_write(Write(asking(), args[2], told.life_ms, told.condition, plain), number, key)
        return WAITING

    def finish(reply: Reply) -> Reply:
        if reply is OK:
            cache.await_read(NOBODY, number, key)  # who writes it will read it
        return reply

    cache.write_through(asking(finish), number, plain)
    return WAITING


def _set_in_memory(machine: Machine, args: list[bytes]) -> Reply:
    return strings.set_(machine, _plain_set(args, _read_set(args)))


def _fetch(server: Server, args: list[bytes], asking: Asking) -> Reply:
    """A line that has the value answers; everything else is the business of the log."""
    value = server.node.cache.read(args[1]) if len(args) == 2 else MISS
    return [value, None] if isinstance(value, bytes) else PLAINLY


def _state(server: Server, args: list[bytes], asking: Asking) -> Reply:
    return server.node.cache.state(args[1]).encode()


def _no_state(machine: Machine, args: list[bytes]) -> Reply:
    return State.INVALID.value.encode()


def _evict(server: Server, args: list[bytes], asking: Asking) -> Reply:
    return int(server.node.cache.evict(args[1]))


def _nothing_to_evict(machine: Machine, args: list[bytes]) -> Reply:
    return 0


def _flush(server: Server, args: list[bytes], asking: Asking) -> Reply:
    server.node.cache.flush(asking())
    return WAITING


def _stats(session: Session, args: list[bytes]) -> Reply:
    cache = session.server.node.cache
    traffic, counts = cache.traffic, cache.lines.counts
    reads = traffic.hits + traffic.misses
    return {
        b"lines": len(cache.lines),
        b"bytes": cache.lines.bytes,
        b"max-bytes": cache.lines.max_bytes,
        b"hits": traffic.hits,
        b"misses": traffic.misses,
        b"hit-ratio": traffic.hits / reads if reads else 0.0,
        b"invalidations-sent": session.server.node.invalidations_sent,
        b"invalidations-received": traffic.invalidations_received,
        b"write-backs": traffic.write_backs,
        b"evictions": traffic.evictions,
        b"modified": counts[State.MODIFIED],
        b"exclusive": counts[State.EXCLUSIVE],
        b"shared": counts[State.SHARED],
        b"leases-lost": traffic.leases_lost,
    }


def _top(session: Session, args: list[bytes]) -> Reply:
    count = TOP
    options = Options(args, 1)
    for word in options:
        if word != b"COUNT":
            raise syntax_error()
        count = bounded(options.value(), 1, TOP_MAX)
    return [
        {
            b"key": key,
            b"state": line.state.value.encode(),
            b"reads": line.reads,
            b"bytes": size_bytes(key, line.value),
        }
        for key, line in session.server.node.cache.lines.most_read(count)
    ]


def _traffic(session: Session, args: list[bytes]) -> Reply:
    return [
        {b"kind": _dashed(kind), b"sent": sent, b"received": received}
        for kind, sent, received in session.server.node.cache_traffic
    ]


def _dashed(name: str) -> bytes:
    """``WriteBack`` as ``write-back``."""
    return re.sub("(?<=.)(?=[A-Z])", "-", name).lower().encode()


ANSWERED_FROM_LINES = frozenset({"CACHE.GET", "CACHE.MGET", "CACHE.STATE"})
"""What needs neither memory nor the log where all its keys have lines."""

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
        through=_get,
        alone=True,
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
        through=_mget,
        alone=True,
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
        through=_set,
        alone=True,
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
        name="CACHE.FETCH",
        arity=-2,
        group="cache",
        summary="Returns a value, or makes its caller the one that loads it.",
        syntax="key [PX milliseconds]",
        reply="`[value, null]`; or `[null, token]` for the one caller that is to load it, within `PX` (10000). "
        "All others wait for the fill, or for the next token.",
        flags=("write", "denyoom", "session", "blocking"),
        keys=ONE_KEY,
        example="CACHE.FETCH page:1",
        run=loading.fetch,
        retry=loading.retry_fetch,
        through=_fetch,
        alone=True,
    ),
    Command(
        name="CACHE.FILL",
        arity=-4,
        group="cache",
        summary="Sets the value its caller was given the token for.",
        syntax="key token value [EX seconds | PX milliseconds]",
        reply="`OK`, or null when the token counts no more.",
        flags=("write", "denyoom"),
        keys=ONE_KEY,
        example='CACHE.FILL page:1 7 "<html>" PX 60000',
        run=loading.fill,
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
        through=_state,
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
        through=_evict,
    ),
    Command(
        name="CACHE.FLUSH",
        arity=1,
        group="cache",
        summary="Writes back this node's dirty lines.",
        reply="How many were written back; `-UNCERTAIN` when that cannot be told soon.",
        flags=("readonly",),
        example="CACHE.FLUSH",
        run=_nothing_to_evict,
        through=_flush,
        alone=True,
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
    Command(
        name="CACHE.TOP",
        arity=-1,
        group="cache",
        summary="Tells which lines of this node were read most since they were granted.",
        syntax="[COUNT n]",
        reply="Array of maps `key state reads bytes`, 10 unless `COUNT` (to 10000) says otherwise, most read first.",
        complexity="O(N) where N is the number of lines, up to the 100000 used last",
        flags=("readonly",),
        example="CACHE.TOP COUNT 3",
        serve=_top,
    ),
    Command(
        name="CACHE.TRAFFIC",
        arity=1,
        group="cache",
        summary="Counts what this node's cache, and the directories it leads, said to other nodes and heard.",
        reply="Array of maps `kind sent received`.",
        flags=("readonly", "fast"),
        example="CACHE.TRAFFIC",
        serve=_traffic,
    ),
)
