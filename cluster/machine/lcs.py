"""LCS: the longest common subsequence of two strings.

Redis fills a table of ``len(a) * len(b)`` lengths. Here a row of it is one
integer with a bit for each byte of ``b``, set where the row's length grows by
one (Hyyrö's bit-parallel algorithm); a row then costs a handful of operations
on long integers. The walk back needs nothing but those bits, and takes Redis's
turns where several subsequences are longest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.machine.arguments import Options, integer
from cluster.machine.reply import CommandError, Reply, syntax_error

if TYPE_CHECKING:
    from cluster.machine.machine import Machine

TABLE_BYTES_MAX = 512 * 1024 * 1024
"""How large Redis lets its table of 4-byte lengths become (``proto-max-bulk-len``)."""

TEXT_BYTES_MAX = 1 << 20
"""How long both strings may be together: the walk takes a step for each byte while everybody waits."""


@dataclass(frozen=True, slots=True)
class Match:
    """A common run: from ``a`` and from ``b`` on, ``size`` bytes long."""

    a: int
    b: int
    size: int


def lcs(machine: Machine, args: list[bytes]) -> Reply:
    """LCS key1 key2 [LEN] [IDX] [MINMATCHLEN length] [WITHMATCHLEN]"""
    a, b = _text(machine, args[1]), _text(machine, args[2])
    wanted, size_min = _options(args)
    if {b"IDX", b"LEN"} <= wanted:
        raise CommandError("If you want both the length and indexes, please just use IDX.")
    if (len(a) + 1) * (len(b) + 1) * 4 > TABLE_BYTES_MAX:
        raise CommandError("Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len")
    if len(a) + len(b) > TEXT_BYTES_MAX:
        raise CommandError("String too long for LCS")

    grows = rows(a, b)
    if b"LEN" in wanted:
        return grows[-1].bit_count()
    found = matches(grows, a, b)
    if b"IDX" not in wanted:
        return b"".join(a[match.a : match.a + match.size] for match in reversed(found))
    shown = [_shown(match, b"WITHMATCHLEN" in wanted) for match in found if match.size >= size_min]
    return {b"matches": shown, b"len": grows[-1].bit_count()}


def _options(args: list[bytes]) -> tuple[set[bytes], int]:
    """The words given, and MINMATCHLEN's number."""
    wanted: set[bytes] = set()
    size_min = 0
    options = Options(args, 3)
    for word in options:
        if word == b"MINMATCHLEN":
            size_min = integer(options.value())
        elif word in (b"IDX", b"LEN", b"WITHMATCHLEN"):
            wanted.add(word)
        else:
            raise syntax_error()
    return wanted, size_min


def _text(machine: Machine, key: bytes) -> bytes:
    value = machine.keyspace.values.get(key, b"")
    if type(value) is not bytes:
        raise CommandError("The specified keys must contain string values")
    return value


def _shown(match: Match, with_size: bool) -> list[object]:
    ranges: list[object] = [[match.a, match.a + match.size - 1], [match.b, match.b + match.size - 1]]
    return [*ranges, match.size] if with_size else ranges


def rows(a: bytes, b: bytes) -> list[int]:
    """A row for each prefix of ``a``, the empty one first; bit ``j`` says that the LCS with ``b`` grows by ``b[j]``."""
    everything = (1 << len(b)) - 1
    where = {byte: _positions(b, byte) for byte in dict.fromkeys(a)}
    still = everything  # the complement of a row, as the algorithm has it
    grows = [0]
    for byte in a:
        met = still & where[byte]
        still = ((still + met) | (still - met)) & everything
        grows.append(still ^ everything)
    return grows


def _positions(b: bytes, byte: int) -> int:
    """An integer with a bit for every place of ``byte`` in ``b``, the first place lowest."""
    bits = b[::-1].translate(bytes(b"01"[other == byte] for other in range(256)))
    return int(bits, 2) if bits else 0


def matches(grows: list[int], a: bytes, b: bytes) -> list[Match]:
    """The runs of one longest common subsequence, last run first."""
    found: list[Match] = []
    i, j, size = len(a), len(b), 0
    while i and j:
        if a[i - 1] == b[j - 1]:
            i, j, size = i - 1, j - 1, size + 1
            continue
        if size:
            found.append(Match(i, j, size))
            size = 0
        if grows[i] >> (j - 1) & 1:
            i -= 1
        else:
            j -= 1
    if size:
        found.append(Match(i, j, size))
    return found
