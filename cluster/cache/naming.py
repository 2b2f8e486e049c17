"""Which keys a command may change: every word of it is taken for one, so that all commands are treated alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from cluster.batch import parts_in, writes_in
from cluster.machine.caches import WRITE_BACK
from cluster.machine.queue_parts import CALL, dlq_in

KEY_BYTES_MAX = 64 * 1024
"""Keys longer than this are not cached: what commands name is looked up by its hash."""

CLEARING = frozenset({b"FLUSHALL", b"FLUSHDB"})

FENCE = b"FENCE"
FENCED_AT = 3
"""Where the command stands that a FENCE is for."""


def words_of(command: Iterable[Any]) -> Iterator[bytes]:
    """The words of a command, and of those that stand in it; and where a queue's dead letters go."""
    if isinstance(command, list) and command[:1] == [CALL] and (dlq := dlq_in(command)) is not None:
        yield dlq
    for word in command:
        if isinstance(word, bytes):
            if len(word) <= KEY_BYTES_MAX:
                yield word
        elif isinstance(word, list):
            yield from words_of(word)


def clears(command: Iterable[Any]) -> bool:
    """Whether it changes keys that it does not name."""
    if not isinstance(command, list) or not command:
        return False
    name = command[0].upper() if isinstance(command[0], bytes) else b""
    if name == FENCE:
        return clears(command[FENCED_AT:])
    return name in CLEARING or any(map(clears, command))


def named_in(payload: bytes, author: bytes) -> dict[bytes, None] | None:
    """The words in an entry of commands, but for what that cache writes back; None: it may change anything."""
    found: dict[bytes, None] = {}
    for _, _, body in parts_in(payload)[1]:
        for command in writes_in(body)[0]:
            if command[0] == WRITE_BACK and command[1] == author:
                continue
            if clears(command):
                return None
            found.update(dict.fromkeys(words_of(command)))
    return found
