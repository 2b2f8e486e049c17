"""Commands that concern more than one shard: which shards, with which arguments, and what their answers are together.

A record's ``spread`` says how: it makes of a call its `Shares`. It is asked
only in a cluster of several shards; with one, every command is that shard's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from cluster.machine import scanning
from cluster.machine.arguments import integer
from cluster.machine.keyspace import BUCKETS
from cluster.machine.reply import OK, CommandError, Reply
from cluster.ring.slots import SLOTS, slot_of

if TYPE_CHECKING:
    from resp_server.commands.command import Keys

Merge: TypeAlias = "Callable[[list[Any]], Reply]"

_CHANCE = random.Random()  # which shard's key RANDOMKEY shows: only the node that answers draws


class Shares(NamedTuple):
    """The shares of one call, (shard, arguments), and what makes one answer of theirs; None where one shard answers."""

    parts: Sequence[tuple[int, list[bytes]]]
    merge: Merge | None = None


Spread: TypeAlias = "Callable[[Keys, list[bytes], Sequence[int]], Shares]"
"""Asked with where the keys stand, the call, and the shard of every slot."""


# Which shards


def by_keys(merge: Merge) -> Spread:
    """Every shard gets its keys, with what stands behind each; the answers are merged."""

    def spread(keys: Keys, args: list[bytes], slot_shard: Sequence[int]) -> Shares:
        parts = _by_shard(keys, args, slot_shard)
        if len(parts) == 1:
            return Shares([(next(iter(parts)), args)])
        return Shares([(shard, _share(keys, args, positions)) for shard, positions in parts.items()], merge)

    return spread


def by_keys_in_order(keys: Keys, args: list[bytes], slot_shard: Sequence[int]) -> Shares:
    """As `by_keys`, where the answer has one element for each key, in their order."""
    parts = _by_shard(keys, args, slot_shard)
    if len(parts) == 1:
        return Shares([(next(iter(parts)), args)])

    def merge(replies: list[list[Reply]]) -> Reply:
        found = dict(zip(chain.from_iterable(parts.values()), chain.from_iterable(replies), strict=True))
        return [found[position] for position in sorted(found)]

    return Shares([(shard, _share(keys, args, positions)) for shard, positions in parts.items()], merge)


def everywhere(merge: Merge) -> Spread:
    """Every shard gets the call as it is."""

    def spread(keys: Keys, args: list[bytes], slot_shard: Sequence[int]) -> Shares:
        return Shares([(shard, args) for shard in range(slot_shard[-1] + 1)], merge)

    return spread


def one_after_the_other(keys: Keys, args: list[bytes], slot_shard: Sequence[int]) -> Shares:
    """A walk: the cursor says which shard it is in, and the first answer of the next follows the last of one.

    ``cursor // BUCKETS`` is the shard and ``cursor % BUCKETS`` its own cursor,
    which is all it reads of the number.
    """
    shards = slot_shard[-1] + 1
    shard = scanning.cursor(args[1]) // BUCKETS % shards

    def merge(replies: list[list[Any]]) -> Reply:
        following, found = int(replies[0][0]), replies[0][1]
        if following:
            return [b"%d" % (shard * BUCKETS + following), found]
        return [b"%d" % ((shard + 1) % shards * BUCKETS), found]

    return Shares([(shard, args)], merge)


def by_slot(at: int) -> Spread:
    """The shard of the slot named by the argument ``at``."""

    def spread(keys: Keys, args: list[bytes], slot_shard: Sequence[int]) -> Shares:
        slot = integer(args[at])
        return Shares([(slot_shard[slot] if 0 <= slot < SLOTS else 0, args)])

    return spread


def _by_shard(keys: Keys, args: list[bytes], slot_shard: Sequence[int]) -> dict[int, list[int]]:
    """The positions of the keys in each shard. A call that ends within a step is one shard's to refuse."""
    positions = keys.positions(args)
    if (len(args) - keys.first) % keys.step:
        positions = positions[:1]
    found: dict[int, list[int]] = {}
    for position in positions:
        found.setdefault(slot_shard[slot_of(args[position])], []).append(position)
    return found


def _share(keys: Keys, args: list[bytes], positions: Iterable[int]) -> list[bytes]:
    """The call with only the keys at these positions, and what belongs to them."""
    share = args[: keys.first]
    for position in positions:
        share += args[position : position + keys.step]
    return share


# What the answers are together


def total(replies: list[int]) -> Reply:
    """Counts add up."""
    return sum(replies)


def joined(replies: list[list[Any]]) -> Reply:
    """Lists in no particular order."""
    return list(chain.from_iterable(replies))


def in_order(replies: list[list[Any]]) -> Reply:
    """Sorted lists; what stands in several of them once."""
    return sorted(dict.fromkeys(chain.from_iterable(replies)))


def all_done(replies: list[Reply]) -> Reply:
    """Each said OK."""
    return OK


def any_one(replies: list[Reply]) -> Reply:
    """One that is there, if one is."""
    found = [reply for reply in replies if reply is not None]
    return _CHANCE.choice(found) if found else None


def cross_slot(why: str = "Keys in request don't hash to the same slot") -> CommandError:
    """The error for a command that would have to be carried out in several shards as one."""
    return CommandError(why, "CROSSSLOT")
