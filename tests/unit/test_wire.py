"""Peer messages as bytes: what goes in comes out, and anything else is refused in one way only."""

from __future__ import annotations

from typing import get_args, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import wire
from cluster.raft import messages
from cluster.raft.messages import AnyMessage, Message

KINDS: tuple[type[Message], ...] = get_args(AnyMessage)

INTEGERS = st.integers(0, 2**63 - 1)
FIELDS = {
    int: INTEGERS,
    bool: st.booleans(),
    bytes: st.binary(max_size=30),
    str: st.text(max_size=12),
    dict[str, int]: st.dictionaries(st.text(max_size=4), INTEGERS, max_size=3),
    list[tuple[int, bytes]]: st.lists(st.tuples(INTEGERS, st.binary(max_size=9)), max_size=3),
    list[tuple[bytes, bytes, bytes, int | None, bytes]]: st.lists(
        st.tuples(
            st.binary(max_size=5), st.binary(max_size=5), st.binary(max_size=5), st.none() | INTEGERS, st.binary()
        ),
        max_size=2,
    ),
}


def messages_of(kind: type[Message]) -> st.SearchStrategy[Message]:
    hints = get_type_hints(kind)
    return st.builds(kind, **{field: FIELDS[hints[field]] for field in kind.__struct_fields__})


ANY = st.one_of([messages_of(kind) for kind in KINDS])


@given(ANY)
def test_what_goes_in_comes_out(message: Message) -> None:
    found = wire.decode(wire.encode(message))
    assert type(found) is type(message)
    assert found == message


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    try:
        found = wire.decode(data)
    except wire.WireError:
        return
    assert isinstance(found, Message)
    assert wire.decode(wire.encode(found)) == found


@given(ANY, st.data())
def test_a_message_that_was_damaged_is_another_message_or_refused(message: Message, data: st.DataObject) -> None:
    whole = bytearray(wire.encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert isinstance(wire.decode(bytes(whole)), Message)
    except wire.WireError:
        return


@given(ANY, st.data())
def test_a_message_that_was_cut_short_is_refused(message: Message, data: st.DataObject) -> None:
    whole = wire.encode(message)
    with pytest.raises(wire.WireError):
        wire.decode(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(ANY, st.binary(min_size=1, max_size=9))
def test_bytes_behind_a_message_are_refused(message: Message, rest: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(wire.encode(message) + rest)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc0",
        b"\x93\x01\x00",
        b"\x92\xcc\xff\x00",  # a kind there is not
        b"\x91" * 100_000,  # nested without end
        b"\xdd\xff\xff\xff\xff",  # four thousand million elements, it says
        b"\xc6\xff\xff\xff\xff",
        b"\x97\x10\x00\x00\xa0\xa0\xa0\xa1\x80",  # text that is no UTF-8
        msgspec.msgpack.encode({"type": 1}),
        msgspec.msgpack.encode([1, "1", 0, 0, 0, []]),
        msgspec.msgpack.encode([1, 1, 0, 0, 0, [[1, "text"]]]),
    ],
    ids=lambda data: data[:8].hex(),
)
def test_what_is_refused(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(data)


def test_every_message_has_a_number_of_its_own_that_never_changes() -> None:
    """Nodes of one wire version must understand each other whatever the program's version."""
    numbers = {kind.__name__: kind.__struct_config__.tag for kind in KINDS}
    assert numbers == {
        "Append": 1,
        "Appended": 2,
        "Conflict": 3,
        "Heartbeat": 4,
        "Alive": 5,
        "Ping": 6,
        "Commit": 7,
        "Vote": 8,
        "Voted": 9,
        "TimeoutNow": 10,
        "Chunk": 11,
        "ChunkTaken": 12,
        "Forward": 13,
        "AskRead": 14,
        "Readable": 15,
        "Wish": 16,
        "WishRefused": 17,
        "WishGranted": 18,
    }


def test_every_message_there_is_goes_over_the_wire() -> None:
    there = {
        kind
        for kind in vars(messages).values()
        if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message
    }
    assert there == set(KINDS)
