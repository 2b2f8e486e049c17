r"""Redis's patterns: ``*``, ``?``, ``[a-z]``, ``[^abc]`` and ``\`` before a character that means itself.

A pattern becomes one regular expression over bytes. Between two stars stands
a run of fixed length, and the first place a run fits is as good as any later
one, so each is an atomic group: however many stars a hostile pattern has,
matching never goes back over a decision.

As in Redis: a class that is not closed ends with the pattern, a range may be
written backwards and compares bytes as signed, and nothing but ``*`` alone or
the empty pattern matches the empty string.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TypeAlias

from cluster.machine.reply import CommandError

Matches: TypeAlias = "Callable[[bytes], object]"

PATTERN_BYTES_MAX = 16 * 1024
"""Longer patterns are refused, which Redis does not: translating one takes its time while everybody waits."""

STARS_MAX = 1000  # Redis gives up, without a match, on patterns nested deeper
_CACHED_BYTES_MAX = 256

_STARS = re.compile(rb"\*+")
_LITERALS = re.compile(rb"[^*?\[\\]+")
_NOTHING = b"(?!)"


def matcher(pattern: bytes) -> Matches:
    """A function that is truthy for the byte strings ``pattern`` matches; an error for one too long."""
    if len(pattern) > PATTERN_BYTES_MAX:
        raise CommandError(f"pattern is too long, use {PATTERN_BYTES_MAX} bytes at most")
    compiled = _remembered(pattern) if len(pattern) <= _CACHED_BYTES_MAX else _compiled(pattern)
    return compiled.fullmatch


def _compiled(pattern: bytes) -> re.Pattern[bytes]:
    if pattern.strip(b"*") == b"":
        return re.compile(b".*" if pattern == b"*" else b".+" if pattern else b"", re.DOTALL)
    first, *later = _runs(pattern)
    if not later:
        return re.compile(first, re.DOTALL)
    if len(later) - (not later[-1]) > STARS_MAX:
        return re.compile(_NOTHING)
    middle = b"".join(b"(?>.*?%b)" % run for run in later[:-1])
    return re.compile(b"%b%b.*%b" % (first, middle, later[-1]), re.DOTALL)


_remembered = lru_cache(maxsize=256)(_compiled)


def _runs(pattern: bytes) -> list[bytes]:
    """The regular expressions of what stands between the stars."""
    runs: list[list[bytes]] = [[]]
    for element in _elements(pattern):
        if element == b"*":
            runs.append([])
        else:
            runs[-1].append(element)
    return [b"".join(run) for run in runs]


def _elements(pattern: bytes) -> Iterator[bytes]:
    """The pattern's elements as regular expressions; a star, or several in a row, as ``*``."""
    at = 0
    while at < len(pattern):
        if found := _LITERALS.match(pattern, at):
            yield re.escape(found[0])
            at = found.end()
        elif found := _STARS.match(pattern, at):
            yield b"*"
            at = found.end()
        elif pattern[at : at + 1] == b"?":
            yield b"."
            at += 1
        elif pattern[at : at + 1] == b"[":
            element, at = _class(pattern, at + 1)
            yield element
        else:  # a backslash; at the end of the pattern it means itself
            yield re.escape(pattern[at + 1 : at + 2] or b"\\")
            at += 2


def _class(pattern: bytes, at: int) -> tuple[bytes, int]:
    """The class whose inside begins at ``at`` as a regular expression, and the position behind it."""
    inverted = pattern[at : at + 1] == b"^"
    at += inverted
    members = bytearray(256)
    while at < len(pattern) and pattern[at : at + 1] != b"]":
        left = len(pattern) - at
        if left >= 2 and pattern[at : at + 1] == b"\\":
            members[pattern[at + 1]] = 1
            at += 2
        elif left >= 3 and pattern[at + 1 : at + 2] == b"-":
            low, high = sorted((_signed(pattern[at]), _signed(pattern[at + 2])))
            for number in range(low, high + 1):
                members[number & 0xFF] = 1
            at += 3
        else:
            members[pattern[at]] = 1
            at += 1
    return _bracket(bytes(members), inverted), at + 1


@lru_cache(maxsize=256)
def _bracket(members: bytes, inverted: bool) -> bytes:
    """A class of the bytes marked in ``members``."""
    listed = b"".join(b"\\x%02x" % byte for byte, member in enumerate(members) if member)
    if not listed:
        return b"." if inverted else _NOTHING
    return b"[%b%b]" % (b"^" if inverted else b"", listed)


def _signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte
