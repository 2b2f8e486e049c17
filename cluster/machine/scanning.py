"""Finding keys without naming them: KEYS, SCAN and RANDOMKEY.

Keys that are overdue, because very many were due at once or nothing can be
logged, are not shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING

from cluster.machine.arguments import Options, integer
from cluster.machine.glob import matcher
from cluster.machine.keys import kind_of
from cluster.machine.keyspace import BUCKETS
from cluster.machine.reply import CommandError, Reply, syntax_error

if TYPE_CHECKING:
    from cluster.machine.machine import Handler, Machine

COUNT_DEFAULT = 10

_FEW_KEYS = BUCKETS // 4
_TRIES_MAX = 100

# What C's strtoull reads, which is how Redis reads a cursor.
_CURSOR = re.compile(rb"[ \t-\r]*\+?([0-9]{1,40})\Z")


def keys(machine: Machine, args: list[bytes]) -> Reply:
    """KEYS pattern"""
    return list(filter(matcher(args[1]), living(machine, machine.keyspace.values)))


def scan(machine: Machine, args: list[bytes]) -> Reply:
    """SCAN cursor [MATCH pattern] [COUNT n] [TYPE type]; of a cursor only the bucket number counts"""
    start = cursor(args[1]) % BUCKETS
    count = COUNT_DEFAULT
    pattern = b"*"
    kind: bytes | None = None
    options = Options(args, 2)
    for word in options:
        if word == b"COUNT":
            count = integer(options.value())
            if count < 1:
                raise syntax_error()
        elif word == b"MATCH":
            pattern = options.value()
        elif word == b"TYPE":
            kind = options.value().lower()
        else:
            raise syntax_error()
    following, met = machine.keyspace.scan(start, count)
    found = living(machine, met)
    if kind is not None:
        values = machine.keyspace.values
        found = (key for key in found if kind_of(values[key]) == kind)
    return [b"%d" % following, list(filter(matcher(pattern), found))]


def cursor(text: bytes) -> int:
    """A cursor as SCAN and its kin take it: modulo `BUCKETS` it is the bucket to go on with."""
    found = _CURSOR.match(text)
    number = int(found[1]) if found else -1
    if not 0 <= number < 1 << 64:
        raise CommandError("invalid cursor")
    return number


def living(machine: Machine, found: Iterable[bytes]) -> Iterable[bytes]:
    """``found`` without the keys that are overdue, and those of other shards."""
    if machine.foreign:
        found = (key for key in found if key not in machine.foreign)
    if not machine.behind:
        return found
    return (key for key in found if not machine.overdue(key))


def random_key(below: Callable[[int], int]) -> Handler:
    """RANDOMKEY, every key with the same chance; ``below(n)`` draws one of 0 to n - 1.

    The machine has no chance of its own. A read may be given one, for only the
    node that answers carries it out.
    """

    def randomkey(machine: Machine, _args: list[bytes]) -> Reply:
        """RANDOMKEY"""
        if not machine.keyspace.values:
            return None
        for _ in range(_TRIES_MAX):
            key = _draw(machine, below)
            if key not in machine.foreign and not (machine.behind and machine.overdue(key)):
                return key
        return next(iter(living(machine, machine.keyspace.values)), None)

    return randomkey


def _draw(machine: Machine, below: Callable[[int], int]) -> bytes:
    """One key. Of few by counting; of many by drawing a bucket and a place in it until somebody is there."""
    keyspace = machine.keyspace
    total = len(keyspace)
    if total <= _FEW_KEYS:
        return next(islice(keyspace.values, below(total), None))
    places = 8 + 4 * total // BUCKETS  # far more than any bucket holds, so that every key has its place
    while True:
        place, bucket = below(places), keyspace.bucket(below(BUCKETS))
        if place < len(bucket):
            return bucket[place]
