"""What became of commands: which answers are remembered for how long, and that every answer survives the way."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.machine.reply import NULL_ARRAY, OK, WAITING, CommandError, Members, Reply, Status, Verbatim
from cluster.outcomes import KEPT_MS, KEPT_REPLIES_MAX, Outcomes, Waiting, decode, encode
from tests.unit.wire_front import wire

N4 = b"n4.b1"
N5 = b"n5.b1"


# On the way


def there(reply: Reply) -> Any:
    """The reply as another node gets it."""
    (found,) = decode(encode([reply]))
    return found


REPLIES: tuple[Any, ...] = (
    None,
    b"",
    b"\x00\xff\r\n",
    0,
    -(2**63),
    2**63 - 1,
    True,
    False,
    1.5,
    float("inf"),
    OK,
    Status("QUEUED"),
    Verbatim(b"# Server\r\n\xff"),
    Verbatim(b"text", b"mkd"),
    NULL_ARRAY,
    CommandError("wrong", "WRONGTYPE"),
    CommandError(b"unknown command '\xff\xc3('"),
    [],
    [b"a", [1, None, [OK, NULL_ARRAY]], CommandError("inside", "EXECABORT")],
    {b"name": 1, b"members": [b"a"], 7: {b"deep": None}},
    Members([b"a", b"b"]),
    [Members([Status("fast")]), {b"flags": Members()}],
)


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("reply", REPLIES, ids=repr)
def test_a_client_cannot_tell_who_carried_its_command_out(reply: Reply, protocol: int) -> None:
    assert wire(there(reply), protocol) == wire(reply, protocol)
    assert type(there(reply)) is type(reply)


def test_ok_is_the_one_that_is_known_by_identity() -> None:
    assert there(OK) is OK
    assert there(NULL_ARRAY) is NULL_ARRAY
    assert there(WAITING) is WAITING


def test_the_number_of_a_wait_comes_along() -> None:
    replies: list[Any] = [OK, Waiting(7)]
    found = decode(encode(replies))
    assert found == replies
    assert type(found[1]) is Waiting


def test_an_error_keeps_its_code_and_every_byte() -> None:
    error = there(CommandError(b"no such key '\xff'", "NOKEY"))
    assert (error.code, error.line) == ("NOKEY", b"NOKEY no such key '\xff'")


PLAIN = st.one_of(
    st.none(),
    st.binary(max_size=9),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.floats(allow_nan=False),
    st.sampled_from([OK, NULL_ARRAY]),
    st.builds(Status, st.text(st.characters(codec="ascii", exclude_characters="\r\n"), max_size=5)),
    st.builds(CommandError, st.binary(max_size=9), st.sampled_from(["ERR", "WRONGTYPE"])),
    st.builds(Verbatim, st.binary(max_size=9)),
)
NESTED = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(Members),
        st.dictionaries(st.one_of(st.binary(max_size=3), st.integers(0, 9)), inner, max_size=3),
    ),
    max_leaves=12,
)


@given(st.lists(NESTED, max_size=5))
def test_whatever_is_nested_in_whatever(replies: list[Reply]) -> None:
    assert list(map(wire, decode(encode(replies)))) == list(map(wire, replies))
    assert [wire(reply, 3) for reply in decode(encode(replies))] == [wire(reply, 3) for reply in replies]


# Remembering


def test_a_batch_is_known_by_its_author_and_number() -> None:
    outcomes = Outcomes()
    outcomes.carried_out(0, N4, 1, [OK])
    outcomes.carried_out(0, N4, 2, [7, None])
    assert outcomes.of(N4, 1) == [OK]
    assert outcomes.of(N4, 2) == [7, None]
    assert outcomes.of(N4, 3) is None
    assert outcomes.of(N5, 1) is None
    assert outcomes.of(b"n4.b2", 1) is None, "another run of the same node"


def test_what_is_too_old_is_forgotten_and_nobody_says_that_it_never_was() -> None:
    outcomes = Outcomes()
    outcomes.carried_out(0, N4, 1, [OK])
    outcomes.carried_out(KEPT_MS, N4, 2, [OK])
    assert outcomes.of(N4, 1) == [OK], "as long as it is kept"
    outcomes.carried_out(KEPT_MS + 1, N5, 1, [OK])
    assert outcomes.of(N4, 1) is None
    assert outcomes.of(N4, 2) == [OK]
    assert not outcomes.never(N4, 1, term=9)
    assert outcomes.never(N4, 3, term=9)


def test_so_many_replies_are_remembered_at_the_most() -> None:
    outcomes = Outcomes()
    half = [OK] * (KEPT_REPLIES_MAX // 2)
    for number in (1, 2, 3):
        outcomes.carried_out(0, N4, number, half)
    assert [outcomes.of(N4, number) is not None for number in (1, 2, 3)] == [False, True, True]
    outcomes.carried_out(0, N4, 4, [OK])
    assert [outcomes.of(N4, number) is not None for number in (2, 3, 4)] == [False, True, True]


def test_one_batch_larger_than_all_that_is_remembered_is_forgotten_at_once() -> None:
    outcomes = Outcomes()
    outcomes.carried_out(0, N4, 1, [OK] * (KEPT_REPLIES_MAX + 1))
    assert outcomes.of(N4, 1) is None
    assert not outcomes.never(N4, 1, term=9)


# Never


def test_what_is_not_remembered_never_was() -> None:
    """Every entry of the term it was sent in was carried out here: whoever asks has seen to that."""
    outcomes = Outcomes()
    assert outcomes.never(N4, 1, term=1)
    outcomes.carried_out(0, N4, 2, [OK])
    assert outcomes.never(N4, 1, term=1), "the one behind it came without it"
    assert not outcomes.never(N4, 2, term=1)
    assert outcomes.never(N4, 3, term=1)
    assert outcomes.never(N5, 2, term=1)


def test_what_may_be_in_a_snapshot_is_not_said_to_have_never_been() -> None:
    outcomes = Outcomes(since_term=3)
    assert not outcomes.never(N4, 1, term=2)
    assert not outcomes.never(N4, 1, term=3), "the last entry of the snapshot is of that term"
    assert outcomes.never(N4, 1, term=4)


# Waits


def test_a_wait_is_known_by_its_session_and_number() -> None:
    outcomes = Outcomes()
    outcomes.ended(0, (b"n4.b1.7", 3, [b"job"]))
    assert outcomes.of_wait(b"n4.b1.7", 3) == (3, [b"job"])
    assert outcomes.of_wait(b"n4.b1.7", 2) is None
    assert outcomes.of_wait(b"n4.b1.8", 3) is None


def test_a_wait_that_ended_with_nothing_is_told_from_one_that_is_not_known() -> None:
    outcomes = Outcomes()
    outcomes.ended(0, (b"n4.b1.7", 3, None))
    assert outcomes.of_wait(b"n4.b1.7", 3) == (3, None)


def test_waits_are_forgotten_by_age_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.outcomes.KEPT_REPLIES_MAX", 2)
    outcomes = Outcomes()
    for number in range(3):
        outcomes.ended(0, (b"n4.b1.%d" % number, number, OK))
    assert [outcomes.of_wait(b"n4.b1.%d" % number, number) is not None for number in range(3)] == [False, True, True]
    outcomes.ended(KEPT_MS + 1, (b"n4.b1.9", 9, OK))
    assert [outcomes.of_wait(b"n4.b1.%d" % number, number) is not None for number in (1, 2, 9)] == [False, False, True]


def test_to_forget_a_wait_is_not_to_forget_the_next_of_the_same_session() -> None:
    outcomes = Outcomes()
    outcomes.ended(0, (b"n4.b1.7", 1, b"first"))
    outcomes.ended(KEPT_MS, (b"n4.b1.7", 2, b"second"))
    outcomes.ended(KEPT_MS + 1, (b"n4.b1.8", 3, b"other"))
    assert outcomes.of_wait(b"n4.b1.7", 2) == (2, b"second")
    outcomes.ended(3 * KEPT_MS, (b"n4.b1.8", 4, b"other"))
    assert outcomes.of_wait(b"n4.b1.7", 2) is None
