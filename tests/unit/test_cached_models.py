"""The judge of caches: what it lets pass, and that it sees what must never be."""

from __future__ import annotations

import pytest

from tests.cached_models import CachedRegister, Loaded
from tests.simulation.findings import Verdict
from tests.simulation.linearizability import check
from tests.simulation.models import UNKNOWN, Operation


def operation(line: str, at: int, until: int | None = None) -> Operation:
    """``SET k v node tag = OK`` from one time to another; ``?`` for a reply nobody saw, ``nil`` for null."""
    words, _, answer = line.partition(" = ")
    call = tuple(b"" if word == "-" else word.encode() for word in words.split())
    if answer == "?":
        return Operation("c", call, at, until, UNKNOWN)
    if answer.lstrip("-").isdigit() and call[0] not in (b"READ", b"GET"):
        return Operation("c", call, at, until, int(answer))
    output = None if answer == "nil" else answer if answer == "OK" else answer.encode()
    return Operation("c", call, at, until, output)


def one_after_the_other(*lines: str) -> list[Operation]:
    """Each is answered before the next is called; what nobody called (``~``) may happen from there on."""
    return [
        operation(line.removeprefix("~ "), 2 * at, None if line.startswith("~") else 2 * at + 1)
        for at, line in enumerate(lines)
    ]


RIGHT = {
    "read anywhere": ("SET k 1 a - = OK", "READ k a = 1", "READ k b = 1", "READ k - = 1"),
    "lost with its owner": ("SET k 1 - - = OK", "SET k 2 a - = OK", "READ k a = 2", "LOSE k a = ?", "READ k b = 1"),
    "written back in part": (
        "SET k 1 a - = OK", "SET k 2 a - = OK", "SET k 3 a - = OK", "LOSE k a = ?", "READ k b = 2",
    ),
    "kept by its owner": ("SET k 2 a - = OK", "LOSE k a = ?", "READ k a = 2"),
    "lapsed": ("SET k 1 - t = OK", "~ LAPSE k t = ?", "READ k a = 1", "READ k b = nil", "READ k a = nil"),
    "no lapse of what was written since": ("SET k 1 - t = OK", "~ LAPSE k t = ?", "SET k 2 - - = OK", "GET k = 2"),
    "not there": ("SET k 1 a - XX = nil", "DEL k = 0", "SET k 1 a - NX = OK", "EXPIRE k t = 1", "GET k = 1"),
}  # fmt: skip
WRONG = {
    "stale": ("SET k 1 - - = OK", "SET k 2 - - = OK", "GET k = 1"),
    "lost by another": ("SET k 1 - - = OK", "SET k 2 a - = OK", "LOSE k b = ?", "READ k b = 1"),
    "lost before": ("SET k 1 - - = OK", "LOSE k a = ?", "SET k 2 a - = OK", "READ k b = 1"),
    "lost though another saw it": (
        "SET k 1 - - = OK", "SET k 2 a - = OK", "READ k b = 2", "LOSE k a = ?", "READ k b = 1",
    ),
    "lost though a plain command saw it": (
        "SET k 1 - - = OK", "SET k 2 a - = OK", "READ k - = 2", "LOSE k a = ?", "READ k a = 1",
    ),
    "lost though it was durable": ("SET k 1 - - = OK", "SET k 2 - - = OK", "LOSE k a = ?", "READ k b = 1"),
    "lost, and back": ("SET k 1 a - = OK", "LOSE k a = ?", "READ k b = nil", "READ k a = 1"),
    "lapsed too early": ("SET k 1 - t = OK", "GET k = nil", "~ LAPSE k t = ?"),
    "lapsed, and back": ("SET k 1 - t = OK", "~ LAPSE k t = ?", "READ k b = nil", "READ k a = 1"),
    "deadline taken away": ("SET k 1 - t = OK", "SET k 2 - - = OK", "~ LAPSE k t = ?", "GET k = nil"),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_what_caches_may_do(name: str) -> None:
    report = check(one_after_the_other(*RIGHT[name]), CachedRegister())
    assert report.verdict is Verdict.LINEARIZABLE, str(report)


@pytest.mark.parametrize("name", WRONG)
def test_what_caches_may_not_do(name: str) -> None:
    assert check(one_after_the_other(*WRONG[name]), CachedRegister()).verdict is Verdict.VIOLATED


GOOD = {
    "one loads": ("FETCH k = 1", "FILL k 1 v = OK", "FETCH k = v", "DEL k = 1", "FETCH k = 2"),
    "the next loads": ("FETCH k = 1", "~ END k 1 = ?", "FETCH k = 2", "FILL k 1 old = nil", "FILL k 2 v = OK"),
    "written meanwhile": ("FETCH k = 1", "SET k w = OK", "DEL k = 1", "FILL k 1 old = nil", "FETCH k = 2"),
}
BAD = {
    "two load": ("FETCH k = 1", "FETCH k = 2"),
    "two fill": ("FETCH k = 1", "~ END k 1 = ?", "FETCH k = 2", "FILL k 1 v = OK"),
    "refused for no reason": ("FETCH k = 1", "FILL k 1 v = nil"),
    "a late fill": ("FETCH k = 1", "SET k w = OK", "DEL k = 1", "FILL k 1 old = OK"),
    "an old token": ("FETCH k = 2", "~ END k 2 = ?", "FETCH k = 1"),
    "a value nobody brought": ("FETCH k = 1", "FILL k 1 v = OK", "FETCH k = w"),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_loaders_may_do(name: str) -> None:
    report = check(one_after_the_other(*GOOD[name]), Loaded())
    assert report.verdict is Verdict.LINEARIZABLE, str(report)


@pytest.mark.parametrize("name", BAD)
def test_what_loaders_may_not_do(name: str) -> None:
    assert check(one_after_the_other(*BAD[name]), Loaded()).verdict is Verdict.VIOLATED
