"""Calls of CACHE.* that are refused, for tests in the front and on real clusters; their keys share a shard."""

from __future__ import annotations

from collections.abc import Iterator

NOT_A_NUMBER = "ERR value is not an integer or out of range"
WRONG_KIND = "WRONGTYPE Operation against a key holding the wrong kind of value"

HELD = (
    "SET {t}plain text", "CACHE.SET {t}dirty text", "CACHE.GET {t}plain", "CACHE.GET {t}none", "Q.PUSH {t}queue job",
    "LOCK.ACQUIRE {t}lock ann PX 3600000", "CACHE.FETCH {t}loading PX 3600000",
)  # fmt: skip
SHOWN = [b"{t}plain", b"{t}dirty", b"{t}none", b"{t}new"]

NO_NUMBER = [b"", b"text", b"1e3", b"1.5", b"+1", b"01", b" 1", b"1 ", b"0x10", b"nan", b"9" * 400, b"%d" % 2**63]
NO_LIFE = [b"0", b"-1", b"%d" % (2**63 - 1), b"%d" % -(2**63)]

LIVES = (
    "CACHE.SET {t}dirty v PX TIME",
    "CACHE.SET {t}new v EX TIME",
    "CACHE.SET {t}plain v NX EX TIME",
    "CACHE.SET {t}none v PX TIME SYNC",
    "CACHE.FILL {t}loading LAST v PX TIME",
    "CACHE.FILL {t}loading LAST v EX TIME",
    "CACHE.FILL {t}new 999 v PX TIME",
)

SYNTAX = (
    "CACHE.SET {t}dirty v NX XX", "CACHE.SET {t}dirty v XX NX", "CACHE.SET {t}dirty v GET",
    "CACHE.SET {t}dirty v KEEPTTL", "CACHE.SET {t}dirty v EX", "CACHE.SET {t}dirty v PX", "CACHE.SET {t}dirty v 5",
    "CACHE.SET {t}dirty v EX 5 PX 5", "CACHE.SET {t}dirty v PX 5 PX 5", "CACHE.SET {t}dirty v PXAT 5",
    "CACHE.SET {t}new v SYNC now", "CACHE.FETCH {t}new PX", "CACHE.FETCH {t}new EX 5", "CACHE.FETCH {t}new 5",
    "CACHE.FETCH {t}new BLOCK 5", "CACHE.FILL {t}loading 1 v NX", "CACHE.FILL {t}loading 1 v SYNC",
    "CACHE.FILL {t}loading 1 v PX", "CACHE.FILL {t}loading 1 v EX 5 PX 5", "CACHE.FILL {t}loading 1 v 5",
    "CACHE.TOP 5", "CACHE.TOP COUNT", "CACHE.TOP COUNT 5 MATCH x",
)  # fmt: skip

ARITY = (
    "CACHE.GET", "CACHE.GET {t}plain {t}dirty", "CACHE.MGET", "CACHE.SET", "CACHE.SET {t}dirty", "CACHE.DEL",
    "CACHE.FETCH", "CACHE.FILL", "CACHE.FILL {t}loading", "CACHE.FILL {t}loading 1", "CACHE.STATE",
    "CACHE.STATE {t}dirty more", "CACHE.EVICT", "CACHE.EVICT {t}dirty {t}plain", "CACHE.FLUSH {t}dirty",
    "CACHE.STATS {t}dirty", "CACHE.TRAFFIC more",
)  # fmt: skip


def with_word(line: str, word: bytes) -> list[bytes]:
    """The call, with this for its time or its token."""
    return [word if one in (b"TIME", b"TOKEN") else one for one in line.encode().split()]


def refused(token: int) -> Iterator[tuple[list[bytes], str]]:
    """Every call, and the error it ends with; ``token`` is that of who loads ``{t}loading``."""
    for line in (*LIVES, "CACHE.FETCH {t}new PX TIME", "CACHE.FETCH {t}loading PX TIME"):
        command, line = line.partition(" ")[0].lower(), line.replace("LAST", str(token))
        for time in NO_LIFE:
            yield with_word(line, time), f"ERR invalid expire time in '{command}' command"
        for time in NO_NUMBER:
            yield with_word(line, time), NOT_A_NUMBER
    for number in NO_NUMBER:
        yield with_word("CACHE.FILL {t}loading TOKEN v", number), NOT_A_NUMBER
        yield [b"CACHE.TOP", b"COUNT", number], NOT_A_NUMBER
    for line in SYNTAX:
        yield line.encode().split(), "ERR syntax error"
    for line in ARITY:
        yield line.encode().split(), f"ERR wrong number of arguments for '{line.partition(' ')[0].lower()}' command"
    for kind in ("queue", "lock"):
        for command in ("CACHE.GET", "CACHE.FETCH"):
            yield f"{command} {{t}}{kind}".encode().split(), WRONG_KIND
