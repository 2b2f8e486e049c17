"""Which nodes' caches may hold lines of this shard, and what they wrote back: the part of coherence that is replicated.

A cache *joins* before it is granted its first line, so a new leader knows whom
to hear of before it lets anybody write. It is *closed* when its lease has run
out and somebody else wants what it holds; from then on nothing it says counts
until it joins anew, holding nothing.

What a cache writes back is numbered, and carried out in the order of the
numbers: once each, however often it is sent, and to whomever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cluster.machine.reply import OK, Reply

if TYPE_CHECKING:
    from cluster.machine.machine import Machine

JOIN = b"_CACHE.JOIN"
CLOSE = b"_CACHE.CLOSE"
WRITE_BACK = b"_CACHE.WRITEBACK"
HOME = b"_CACHE.HOME"

NO_DEADLINE = b""


class Cache(msgspec.Struct, array_like=True):
    """One node's, in one run: the number it joined with, and that of the last write-back that was carried out."""

    base: int
    last: int
    is_open: bool = True


class Caches(msgspec.Struct, array_like=True):
    """By author. ``home`` is the last leader that granted lines, and ``lease_ms`` how long it let them be used."""

    known: dict[bytes, Cache] = {}
    home: bytes = b""
    lease_ms: int = 0

    def open(self) -> list[bytes]:
        """Those that may hold lines."""
        return [author for author, cache in self.known.items() if cache.is_open]


def join(machine: Machine, args: list[bytes]) -> Reply:
    """_CACHE.JOIN author number: a cache without lines; those of earlier runs of its node are gone with them."""
    author, number = args[1], int(args[2])
    run = author[: author.index(b".") + 1]
    known = machine.caches.known
    for former in [one for one in known if one.startswith(run) and one != author]:
        del known[former]
    cache = known.get(author)
    if cache is None or cache.last < number:
        known[author] = Cache(number, number)
    return OK


def close(machine: Machine, args: list[bytes]) -> Reply:
    """_CACHE.CLOSE author base: it holds nothing any more, if it is still the one that joined with that number."""
    cache = machine.caches.known.get(args[1])
    if cache is not None and cache.base == int(args[2]):
        cache.is_open = False
    return OK


def home(machine: Machine, args: list[bytes]) -> Reply:
    """_CACHE.HOME author lease-ms: this leader is going to grant lines."""
    machine.caches.home, machine.caches.lease_ms = args[1], int(args[2])
    return OK


def write_back(machine: Machine, args: list[bytes]) -> Reply:
    """_CACHE.WRITEBACK author number [key value deadline-ms …]"""
    cache = machine.caches.known.get(args[1])
    number = int(args[2])
    if cache is None or not cache.is_open or number != cache.last + 1:
        return 0
    cache.last = number
    keyspace = machine.keyspace
    for at in range(3, len(args), 3):
        key, value, deadline = args[at : at + 3]
        deadline_ms = None if deadline == NO_DEADLINE else int(deadline)
        if deadline_ms is not None and deadline_ms <= machine.now_ms:
            keyspace.remove(key)
            continue
        keyspace.put(key, value)
        keyspace.set_deadline(key, deadline_ms)
    return 1


HANDLERS = {JOIN: join, CLOSE: close, WRITE_BACK: write_back, HOME: home}
