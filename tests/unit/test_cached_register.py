"""The models of keys that are read and written through caches, and of those that are loaded."""

from __future__ import annotations

import pytest

from tests.simulation.cached import Cached, loss, through
from tests.simulation.findings import Verdict
from tests.simulation.linearizability import check
from tests.simulation.loaded import Loaded
from tests.simulation.models import Call, Operation, Output, Register

A, B = b"a", b"b"
KEY = b"k"


def at(author: bytes, *words: bytes, weak: bool = False) -> Call:
    """A call by way of that cache."""
    return through(author, (words[0], KEY, *words[1:]), weak=weak)


def plain(*words: bytes) -> Call:
    """A call of the log."""
    return (words[0], KEY, *words[1:])


LOSS = loss(KEY, A, 0, 0).call


def verdict(model: Cached[object], *said: tuple[Call, Output]) -> Verdict:
    """What is found of calls that were answered one after the other."""
    operations = [Operation("", call, 2 * at, 2 * at + 1, output) for at, (call, output) in enumerate(said)]
    return check(operations, model).findings[0].verdict


WRITTEN: list[tuple[Call, Output]] = [(plain(b"SET", b"old"), "OK"), (at(A, b"SET", b"new", weak=True), "OK")]

RIGHT: dict[str, list[tuple[Call, Output]]] = {
    "who wrote it sees it": [(at(A, b"GET"), b"new")],
    "lost, and gone for all": [(LOSS, "OK"), (at(B, b"GET"), b"old"), (plain(b"GET"), b"old")],
    "written over before it was written back": [(at(A, b"SET", b"newer"), "OK"), (plain(b"GET"), b"newer")],
    "another one's loss is none": [(loss(KEY, B, 0, 0).call, "OK"), (at(A, b"GET"), b"new")],
}
WRONG: dict[str, list[tuple[Call, Output]]] = {
    "gone, and nothing was lost": [(at(B, b"GET"), b"old")],
    "seen elsewhere, and memory never had it": [(at(B, b"GET"), b"new")],
    "seen by the log, and memory never had it": [(plain(b"GET"), b"new")],
    "lost, and there again": [(LOSS, "OK"), (at(A, b"GET"), b"new")],
    "what came over it is kept": [(at(A, b"SET", b"newer"), "OK"), (LOSS, "OK"), (plain(b"GET"), b"old")],
}


@pytest.mark.parametrize("said", RIGHT.values(), ids=RIGHT)
def test_what_a_cache_may_do(said: list[tuple[Call, Output]]) -> None:
    assert verdict(Cached(Register()), *WRITTEN, *said) is Verdict.LINEARIZABLE  # type: ignore[arg-type]


@pytest.mark.parametrize("said", WRONG.values(), ids=WRONG)
def test_what_no_cache_may_do(said: list[tuple[Call, Output]]) -> None:
    assert verdict(Cached(Register()), *WRITTEN, *said) is Verdict.VIOLATED  # type: ignore[arg-type]


FETCHED: list[tuple[Call, Output]] = [(plain(b"CACHE.FETCH"), 1)]


def filled(token: bytes) -> Call:
    """A fill with a token."""
    return plain(b"CACHE.FILL", token, b"v")


LOADED_RIGHT: dict[str, list[tuple[Call, Output]]] = {
    "its loader fills it": [(filled(b"1"), "OK"), (plain(b"CACHE.FETCH"), b"v")],
    "the token was over": [(plain(b"CACHE.FETCH"), 2), (filled(b"1"), None), (filled(b"2"), "OK")],
    "the value was over": [(plain(b"SET", b"x", b"PX", b"9"), "OK"), (plain(b"CACHE.FETCH"), 2)],
}
LOADED_WRONG: dict[str, list[tuple[Call, Output]]] = {
    "filled after another got the token": [(plain(b"CACHE.FETCH"), 2), (filled(b"1"), "OK")],
    "filled twice": [(filled(b"1"), "OK"), (plain(b"DEL"), 1), (filled(b"1"), "OK")],
    "filled, and it was written and deleted": [
        (plain(b"SET", b"x"), "OK"),
        (plain(b"DEL"), 1),
        (filled(b"1"), "OK"),
    ],
    "a token for what is there": [(plain(b"SET", b"x"), "OK"), (plain(b"CACHE.FETCH"), 2)],
    "the same token again": [(plain(b"CACHE.FETCH"), 1)],
}


@pytest.mark.parametrize("said", LOADED_RIGHT.values(), ids=LOADED_RIGHT)
def test_how_a_key_is_loaded(said: list[tuple[Call, Output]]) -> None:
    assert verdict(Cached(Loaded()), *FETCHED, *said) is Verdict.LINEARIZABLE  # type: ignore[arg-type]


@pytest.mark.parametrize("said", LOADED_WRONG.values(), ids=LOADED_WRONG)
def test_how_no_key_is_loaded(said: list[tuple[Call, Output]]) -> None:
    assert verdict(Cached(Loaded()), *FETCHED, *said) is Verdict.VIOLATED  # type: ignore[arg-type]
