"""CACHE.FETCH and CACHE.FILL in the machine: who has the token, who waits, and what ends it."""

from __future__ import annotations

import pytest

from cluster.machine.loading import LOAD_MS
from cluster.machine.machine import UNBLOCK
from cluster.machine.reply import OK, WAITING
from tests.unit.machines import Talk, error


@pytest.fixture
def talk() -> Talk:
    return Talk()


def token_of(reply: object) -> int:
    """The token of a loader."""
    assert isinstance(reply, list)
    value, token = reply
    assert value is None
    assert isinstance(token, int)
    return token


def forgets(talk: Talk) -> None:
    """Nothing is left of what was loaded, but values."""
    assert talk.machine.loaders == {}
    assert len(talk.machine.waiters) == 0
    assert talk.machine.sessions.snapshot() == Talk().machine.sessions.snapshot()


def test_a_value_that_is_there(talk: Talk) -> None:
    talk("ann", "SET k v")
    assert talk("ann", "CACHE.FETCH k") == [b"v", None]
    forgets(talk)


def test_the_first_gets_the_token_and_the_others_the_value(talk: Talk) -> None:
    token = token_of(talk("ann", "CACHE.FETCH k"))
    assert [talk(name, "CACHE.FETCH k") for name in ("bob", "cid", "dan")] == [WAITING] * 3
    assert talk("ann", f"CACHE.FILL k {token} v") is OK
    assert talk.woken() == [(name, [b"v", None]) for name in ("bob", "cid", "dan")]
    assert talk("ann", "GET k") == b"v"
    forgets(talk)


def test_keys_are_loaded_each_by_itself(talk: Talk) -> None:
    first, second = token_of(talk("ann", "CACHE.FETCH a")), token_of(talk("bob", "CACHE.FETCH b"))
    assert first != second
    assert talk("ann", f"CACHE.FILL b {first} v") is None
    assert talk("ann", f"CACHE.FILL a {second} v") is None
    assert talk("ann", f"CACHE.FILL a {first} v") is OK
    assert talk("cid", "CACHE.FETCH b") is WAITING


@pytest.mark.parametrize("words", ["", " EX 60", " px 60000"])
def test_the_fill_has_a_life_or_none(talk: Talk, words: str) -> None:
    token = token_of(talk("ann", "CACHE.FETCH k"))
    assert talk("ann", f"CACHE.FILL k {token} v{words}") is OK
    assert talk("ann", "PTTL k") == (60_000 if words else -1)


def test_a_token_is_good_once(talk: Talk) -> None:
    token = token_of(talk("ann", "CACHE.FETCH k"))
    assert talk("ann", f"CACHE.FILL k {token} v") is OK
    assert talk("ann", f"CACHE.FILL k {token} late") is None
    talk("ann", "DEL k")
    assert talk("ann", f"CACHE.FILL k {token} late") is None
    assert talk("ann", "EXISTS k") == 0


def test_nobody_had_a_token(talk: Talk) -> None:
    assert talk("ann", "CACHE.FILL k 1 v") is None
    assert talk("ann", "CACHE.FILL k -1 v") is None
    assert talk("ann", "EXISTS k") == 0


@pytest.mark.parametrize(("words", "life_ms"), [("", LOAD_MS), (" PX 70", 70)])
def test_when_its_time_is_over_the_next_has_it(talk: Talk, words: str, life_ms: int) -> None:
    token = token_of(talk("ann", f"CACHE.FETCH k{words}"))
    assert talk("bob", "CACHE.FETCH k PX 500") is WAITING
    assert talk("cid", "CACHE.FETCH k") is WAITING
    talk.pass_ms(life_ms - 1)
    assert talk.woken() == []
    talk.pass_ms(1)
    [(name, reply)] = talk.woken()
    next_token = token_of(reply)
    assert name == "bob"
    assert next_token > token
    assert talk("ann", f"CACHE.FILL k {token} late") is None
    talk.pass_ms(499)
    assert talk.woken() == [], "its own time counts from now"
    assert talk("bob", f"CACHE.FILL k {next_token} v") is OK
    assert talk.woken() == [("cid", [b"v", None])]
    forgets(talk)


def test_when_its_time_is_over_and_nobody_waits(talk: Talk) -> None:
    token = token_of(talk("ann", "CACHE.FETCH k PX 70"))
    talk.pass_ms(70)
    assert talk("ann", f"CACHE.FILL k {token} late") is None
    forgets(talk)
    assert token_of(talk("bob", "CACHE.FETCH k")) > token


def test_when_the_loader_leaves_the_next_has_it(talk: Talk) -> None:
    token = token_of(talk("ann", "CACHE.FETCH k"))
    other = token_of(talk("ann", "CACHE.FETCH other"))
    assert talk("bob", "CACHE.FETCH k") is WAITING
    talk.end("ann")
    [(name, reply)] = talk.woken()
    assert name == "bob"
    assert token_of(reply) > other > token
    assert talk("cid", f"CACHE.FILL other {other} late") is None
    talk.end("bob")
    forgets(talk)


def test_who_waits_and_leaves_is_passed_over(talk: Talk) -> None:
    talk("ann", "CACHE.FETCH k")
    talk("bob", "CACHE.FETCH k")
    talk("cid", "CACHE.FETCH k")
    talk.end("bob")
    talk.end("ann")
    [(name, _)] = talk.woken()
    assert name == "cid"


def test_the_loader_asks_again_and_has_another_token(talk: Talk) -> None:
    token = token_of(talk("ann", "CACHE.FETCH k PX 70"))
    again = token_of(talk("ann", "CACHE.FETCH k PX 500"))
    assert again > token
    assert talk("ann", f"CACHE.FILL k {token} v") is None
    talk.pass_ms(70)
    assert talk("ann", f"CACHE.FILL k {again} v") is OK, "its time is the second one's"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("SET k v", b"v"), ("APPEND k v", b"v"), ("INCR k", b"1"), ("SETRANGE k 1 v", b"\0v"), ("MSET x y k v", b"v"),
        ("RENAME there k", b"here"), ("COPY there k", b"here"), ("SET k v PX 60000", b"v"),
    ],
)  # fmt: skip
def test_any_command_that_makes_it_be_there_answers_all(talk: Talk, line: str, value: bytes) -> None:
    talk("ann", "SET there here")
    token = token_of(talk("ann", "CACHE.FETCH k"))
    talk("bob", "CACHE.FETCH k")
    talk("cid", "CACHE.FETCH k")
    assert error_free(talk("dan", line))
    assert talk.woken() == [("bob", [value, None]), ("cid", [value, None])]
    assert talk("ann", f"CACHE.FILL k {token} late") is None
    assert talk("ann", "GET k") == value


@pytest.mark.parametrize("lines", [["SET k v", "DEL k"], ["SET k v PX 5", ""], ["SET k v", "FLUSHALL"]])
def test_what_was_loaded_before_the_key_was_written_and_deleted_is_refused(talk: Talk, lines: list[str]) -> None:
    token = token_of(talk("ann", "CACHE.FETCH k PX 60000"))
    for line in lines:
        if line:
            assert error_free(talk("bob", line))
        else:
            talk.pass_ms(5)
    assert talk("bob", "EXISTS k") == 0
    assert talk("ann", f"CACHE.FILL k {token} old") is None
    assert token_of(talk("cid", "CACHE.FETCH k")) > token, "nobody waits for whom it was refused"


def error_free(reply: object) -> bool:
    return not isinstance(reply, Exception)


def test_what_is_no_string_ends_the_waits_with_an_error(talk: Talk) -> None:
    token = token_of(talk("ann", "CACHE.FETCH k"))
    talk("bob", "CACHE.FETCH k")
    talk("cid", "LOCK.ACQUIRE k cid PX 1000")
    [(name, reply)] = talk.woken()
    assert name == "bob"
    assert error(reply) == "WRONGTYPE Operation against a key holding the wrong kind of value"
    assert talk("ann", f"CACHE.FILL k {token} late") is None
    assert talk.map("LOCK.INFO k")[b"mode"] == b"exclusive"


def test_a_wait_that_is_ended_by_force(talk: Talk) -> None:
    talk("ann", "CACHE.FETCH k")
    talk("bob", "CACHE.FETCH k")
    talk.machine.run(talk.machine.handler(UNBLOCK), [UNBLOCK, b"bob", b"TIMEOUT"])
    assert len(talk.machine.waiters) == 0
    talk.end("ann")
    assert talk.machine.loaders == {}


def test_in_a_checkpoint_all_of_it_is_kept(talk: Talk) -> None:
    token = token_of(talk("ann", "CACHE.FETCH k PX 70"))
    lasting = token_of(talk("ann", "CACHE.FETCH other PX 60000"))
    talk("bob", "CACHE.FETCH k PX 60000")
    talk("cid", "CACHE.FETCH other")
    for one in (talk, talk.restored()):
        one.pass_ms(70)
        [(name, reply)] = one.woken()
        assert name == "bob"
        assert token_of(reply) > token
        assert one("ann", f"CACHE.FILL k {token} late") is None
        assert one("ann", f"CACHE.FILL other {lasting} v") is OK
        assert one.woken() == [("cid", [b"v", None])]
        one.end("bob")
        forgets(one)


def test_a_session_that_ends_after_a_checkpoint_takes_its_tokens_along(talk: Talk) -> None:
    talk("ann", "CACHE.FETCH k")
    again = talk.restored()
    again.end("ann")
    forgets(again)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("CACHE.FETCH k PX", "ERR syntax error"),
        ("CACHE.FETCH k EX 5", "ERR syntax error"),
        ("CACHE.FETCH k PX x", "ERR value is not an integer or out of range"),
        ("CACHE.FILL k x v", "ERR value is not an integer or out of range"),
        ("CACHE.FILL k 1 v EX", "ERR syntax error"),
        ("CACHE.FILL k 1 v NX", "ERR syntax error"),
        ("CACHE.FILL k 1 v EX 5 PX 5", "ERR syntax error"),
        ("CACHE.FILL k 1 v EX x", "ERR value is not an integer or out of range"),
        ("CACHE.FILL k 1 v PX 0", "ERR invalid expire time in 'cache.fill' command"),
    ],
)
def test_what_is_refused_leaves_the_token_good(talk: Talk, line: str, text: str) -> None:
    token = token_of(talk("ann", "CACHE.FETCH k"))
    assert token == 1
    assert error(talk("ann", line)) == text
    assert talk("ann", "EXISTS k") == 0
    assert talk("ann", "CACHE.FILL k 1 v") is OK


@pytest.mark.parametrize("life", ["PX 0", "EX -1", f"EX {2**62}"])
def test_a_life_that_cannot_be_is_refused_whoever_asks(talk: Talk, life: str) -> None:
    token = token_of(talk("ann", "CACHE.FETCH k"))
    for key, other in (("k", token + 1), ("other", token)):
        assert (
            error(talk("ann", f"CACHE.FILL {key} {other} v {life}"))
            == "ERR invalid expire time in 'cache.fill' command"
        )
    assert talk("ann", f"CACHE.FILL k {token} v") is OK
