"""Peer messages as bytes: what goes in comes out, and anything else is refused in one way only."""

from __future__ import annotations

from typing import get_args, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import wire
from cluster.raft import messages
from cluster.raft.messages import AnyMessage, Append, AskRead, Message
from cluster.ring.slots import SYSTEM

KINDS: tuple[type[Message], ...] = get_args(AnyMessage)

INTEGERS = st.integers(0, 2**63 - 1)
FIELDS = {
    int: INTEGERS,
    bool: st.booleans(),
    bytes: st.binary(max_size=30),
    str: st.text(max_size=12),
    dict[str, int]: st.dictionaries(st.text(max_size=4), INTEGERS, max_size=3),
    list[bytes]: st.lists(st.binary(max_size=9), max_size=3),
    list[list[bytes]]: (CALLS := st.lists(st.lists(st.binary(max_size=9), max_size=3), max_size=3)),
    list[list[bytes]] | None: st.none() | CALLS,
    bytes | None: st.none() | st.binary(max_size=9),
    list[tuple[int, int, int]]: st.lists(st.tuples(INTEGERS, INTEGERS, INTEGERS), max_size=3),
    list[tuple[int, int]]: st.lists(st.tuples(INTEGERS, INTEGERS), max_size=3),
    list[tuple[bytes, int]]: st.lists(st.tuples(st.binary(max_size=9), INTEGERS), max_size=3),
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


MAIL = st.lists(st.tuples(st.integers(0, SYSTEM), ANY), max_size=4)


@given(MAIL)
def test_what_goes_in_comes_out(mail: list[tuple[int, Message]]) -> None:
    found = wire.decode(wire.encode(mail))
    assert [type(message) for _, message in found] == [type(message) for _, message in mail]
    assert found == mail


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_refused(data: bytes) -> None:
    try:
        found = wire.decode(data)
    except wire.WireError:
        return
    assert all(isinstance(message, Message) for _, message in found)
    assert wire.decode(wire.encode(found)) == found


@given(MAIL, st.data())
def test_a_frame_that_was_damaged_is_another_frame_or_refused(
    mail: list[tuple[int, Message]], data: st.DataObject
) -> None:
    whole = bytearray(wire.encode(mail))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert all(isinstance(message, Message) for _, message in wire.decode(bytes(whole)))
    except wire.WireError:
        return


@given(MAIL, st.data())
def test_a_frame_that_was_cut_short_is_refused(mail: list[tuple[int, Message]], data: st.DataObject) -> None:
    whole = wire.encode(mail)
    with pytest.raises(wire.WireError):
        wire.decode(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(MAIL, st.binary(min_size=1, max_size=9))
def test_bytes_behind_a_frame_are_refused(mail: list[tuple[int, Message]], rest: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(wire.encode(mail) + rest)


def test_a_turn_is_one_frame_until_that_gets_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "FRAME_BYTES_MAX", 10_000)
    monkeypatch.setattr(wire, "FRAME_LETTERS_MAX", 50)
    sizes = [1, 6_000, 3_000, 2_000, 50_000, 1, *[9] * 120]
    letters = [(shard, wire.pack(AskRead(0, b"n2.b", 1)) + b"\xff" * size) for shard, size in enumerate(sizes)]
    frames = list(wire.frames(letters))
    there = [b"".join(pieces) for pieces in frames]
    assert b"".join(there).count(b"\xff") == sum(sizes)
    counts = [int.from_bytes(frame[1:3], "big") for frame in there]
    assert counts == [3, 1, 1, 50, 50, 21]
    assert all(len(frame) < 11_000 for frame, count in zip(there, counts, strict=True) if count > 1)


def test_what_is_large_is_not_copied() -> None:
    large = wire.pack(Append(1, 0, 0, 0, [(1, b"x" * 300_000)]))
    small = wire.pack(AskRead(0, b"n2.b", 7))
    (pieces,) = wire.frames([(0, small), (1, large), (2, small)])
    assert pieces[1] is large
    assert wire.decode(b"".join(pieces))[2] == (2, AskRead(0, b"n2.b", 7))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc0",
        b"\x93\x01\x00",
        b"\x91\x92\x00\x92\xcc\xff\x00",  # a kind there is not
        b"\x91" * 100_000,  # nested without end
        b"\xdd\xff\xff\xff\xff",  # four thousand million elements, it says
        b"\xc6\xff\xff\xff\xff",
        b"\x91\x92\x00\x97\x10\x00\x00\xa0\xa0\xa0\xa1\x80",  # text that is no UTF-8
        msgspec.msgpack.encode([[0, {"type": 1}]]),
        msgspec.msgpack.encode([[0, [1, "1", 0, 0, 0, []]]]),
        msgspec.msgpack.encode([[0, [1, 1, 0, 0, 0, [[1, "text"]]]]]),
        msgspec.msgpack.encode([[-1, [14, 1, 1]]]),
        msgspec.msgpack.encode([[SYSTEM + 1, [14, 1, 1]]]),
        msgspec.msgpack.encode([[0, [14, 1, 1], 0]]),
        msgspec.msgpack.encode([14, 1, 1]),
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
        "Presence": 6,
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
        "Look": 19,
        "Outcome": 20,
        "Waits": 21,
        "Ended": 22,
        "Contended": 23,
        "ContendedHeard": 24,
        "Join": 25,
        "Joined": 26,
        "Want": 27,
        "Grant": 28,
        "Recall": 29,
        "Yield": 30,
        "Release": 31,
        "WriteBack": 32,
        "WrittenBack": 33,
        "Census": 34,
        "Surrendered": 35,
        "Lost": 36,
        "Renew": 37,
        "Renewed": 38,
        "NameReads": 39,
    }


def test_every_message_there_is_goes_over_the_wire() -> None:
    there = {
        kind
        for kind in vars(messages).values()
        if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message
    }
    assert there == set(KINDS)
