"""A command's syntax line as the argument tree that COMMAND DOCS answers, from which clients make their hints.

The line is written as in Redis's documentation: ``word`` is a value, ``WORD``
a token, alone or with the values behind it; ``[…]`` is optional, ``<…>`` a
choice, ``|`` stands between alternatives, and ``key [key ...]`` is one or more.
"""

from __future__ import annotations

import re
from typing import Any, TypeAlias

from cluster.machine.reply import Members, Status

Argument: TypeAlias = "dict[bytes, Any]"

_WORDS = re.compile(r"[\[\]<>|]|[^\s\[\]<>|]+")
_TOKEN = re.compile(r"[A-Z][A-Z0-9-]*")
_INTEGERS = frozenset(
    {"client-id", "count", "decrement", "end", "increment", "index", "milliseconds", "ms", "n", "numkeys", "offset"}
    | {"port", "seconds", "start", "timeout", "token"}
)


def arguments(syntax: str) -> list[Argument]:
    """The argument tree of a syntax line; `ValueError` when its brackets do not match."""
    words = _WORDS.findall(syntax)
    alternatives = _alternatives(words, "")
    return alternatives[0] if len(alternatives) == 1 else [_choice(alternatives)]


def _alternatives(words: list[str], end: str) -> list[list[Argument]]:
    """Sequences with ``|`` between them, up to ``end``; what is read is taken from ``words``."""
    found: list[list[Argument]] = [[]]
    while words and words[0] not in ("]", ">"):
        word = words.pop(0)
        if word == "|":
            found.append([])
        elif word == "[":
            _add_optional(found[-1], _alternatives(words, "]"))
        elif word == "<":
            found[-1].append(_choice(_alternatives(words, ">")))
        elif word == "...":
            found[-1].append({b"repeated": True})
        elif _TOKEN.fullmatch(word):
            found[-1].append(_token(word, words))
        else:
            found[-1].append(_value(word))
    if words[:1] != ([end] if end else []):
        raise ValueError(f"brackets do not match: expected {end or 'the end'!r} before {words[:1]}")
    if end:
        words.pop(0)
    return found


def _value(word: str) -> Argument:
    kind = "key" if word == "key" else "pattern" if word == "pattern" else "integer" if word in _INTEGERS else "string"
    return {b"name": word.encode(), b"type": kind.encode(), b"display_text": word.encode()}


def _token(word: str, words: list[str]) -> Argument:
    """A token with the values that follow it."""
    values: list[Argument] = []
    while words and words[0] not in ("[", "]", "|", "...") and not _TOKEN.fullmatch(words[0]):
        if words[0] == ">":
            break
        if words[0] == "<":
            words.pop(0)
            values.append(_choice(_alternatives(words, ">")))
        else:
            values.append(_value(words.pop(0)))
    token = word.encode()
    if not values:
        return {b"name": token.lower(), b"type": b"pure-token", b"display_text": token.lower(), b"token": token}
    if len(values) == 1:
        return {**values[0], b"token": token}
    return {b"name": token.lower(), b"type": b"block", b"token": token, b"arguments": values}


def _group(sequence: list[Argument]) -> Argument:
    if len(sequence) == 1:
        return sequence[0]
    return {b"name": sequence[0][b"name"], b"type": b"block", b"arguments": sequence}


def _choice(alternatives: list[list[Argument]]) -> Argument:
    if len(alternatives) == 1:
        return _group(alternatives[0])
    options = [_group(sequence) for sequence in alternatives]
    return {b"name": options[0][b"name"], b"type": b"oneof", b"arguments": options}


def _add_optional(sequence: list[Argument], alternatives: list[list[Argument]]) -> None:
    """Adds what stood in brackets; ``[key ...]`` behind ``key`` only says that there may be more of it."""
    repeated = alternatives[-1][-1:] == [{b"repeated": True}]
    if repeated:
        alternatives[-1].pop()
    group = _choice(alternatives)
    again = alternatives[0]
    if repeated and len(alternatives) == 1 and sequence[-len(again) :] == again:
        del sequence[-len(again) :]
        sequence.append(_flagged(group, "multiple"))
    else:
        sequence.append(_flagged(group, "optional", *(["multiple"] if repeated else [])))


def _flagged(argument: Argument, *flags: str) -> Argument:
    """The argument with more flags, which stand before a group's members as in Redis."""
    members = argument.get(b"arguments")
    flagged = {key: value for key, value in argument.items() if key != b"arguments"}
    known = [flag.text for flag in argument.get(b"flags", ())]
    flagged[b"flags"] = Members(Status(flag) for flag in dict.fromkeys([*flags, *known]))
    return flagged if members is None else {**flagged, b"arguments": members}
