"""Every command of the table with right, wrong and absurd arguments: one reply each, and an error changes nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import hiredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resp_server.commands.command import Command
from resp_server.commands.table import Table
from resp_server.settings import load
from tests.calls import Words, commands, right, wrong
from tests.front import Client, Front, state

ALL = commands(Table())
CALL = st.one_of([st.one_of(right(command), wrong(command)) for command in ALL])
PROTOCOL = st.sampled_from([2, 3])
SHARDS = st.sampled_from([1, 4])


@pytest.fixture(autouse=True)
def _no_bug_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A command that fails by a bug says so in the log."""
    caplog.set_level(logging.ERROR)
    yield
    assert not [record for record in caplog.records if record.exc_info], caplog.text


def furnished(shards: int) -> Front:
    """A front with a key of every kind, some of them locked, waited for, or about to end."""
    front = Front(settings=load({"shards": str(shards)}, {}))
    client = front.connect()
    for words in (
        [b"SET", b"a", b"1", b"PX", b"700"],
        [b"SET", b"c", b"text"],
        [b"LOCK.ACQUIRE", b"b", b"ann"],
        [b"Q.MPUSH", b"{a}d", b"one", b"two", b"three"],
        [b"Q.POP", b"{a}d"],
        [b"LOCK.ACQUIRE", b"", b"ann", b"SHARED"],
    ):
        assert not isinstance(client.call(*words)[0], hiredis.ReplyError)
    front.connect().call(b"LOCK.ACQUIRE", b"b", b"bob", b"BLOCK", b"0")
    return front


PATIENCE = 20  # tenths of a second in which what is answered late has been


def is_answered(words: Words) -> bool:
    """Whether the client does not ask for silence."""
    return words[:2] != [b"CLIENT", b"REPLY"] or words[2:] not in ([b"OFF"], [b"SKIP"])


def answer(front: Front, client: Client, words: Words) -> list[object]:
    """The replies to one call of a client that may have to wait, and then gives up; not what is pushed to it."""
    replies = client.call(*words)
    if client.session.waiting:
        assert not replies
        front.server.shard(client.session.lane.number).unblock(None, client.session.origin, b"TIMEOUT")
        front.finish()
        replies = client.replies()
    front.finish()  # what is asked for those who observe
    replies += client.replies()
    for _ in range(PATIENCE):
        if replies or not client.session.places:
            break
        front.advance(100)  # until all nodes know of it, or are waited for no longer
        front.finish()
        replies += client.replies()
    return [reply for reply in replies if not isinstance(reply, hiredis.PushNotification)]


def states(front: Front) -> list[dict[str, object]]:
    """What every shard knows."""
    return [state(shard.machine) for shard in front.node.shards]


def try_out(calls: list[Words], protocol: int, shards: int) -> None:
    """Makes the calls one after another and checks every answer."""
    front = furnished(shards)
    client = front.connect()
    client.call(b"HELLO", b"%d" % protocol)
    for words in filter(is_answered, calls):
        before = states(front) if client.session.transaction is None else None
        replies = answer(front, client, words)
        assert len(replies) == 1, f"{words!r} was answered {replies!r}"
        if isinstance(replies[0], hiredis.ReplyError):
            assert "internal error" not in str(replies[0]), f"{words!r} is a bug"
            assert before in (None, states(front)), f"{words!r}: {replies[0]}, and something changed"
        if client.session.closing:
            client = front.connect()


@settings(max_examples=150)
@given(st.lists(CALL, min_size=1, max_size=12), PROTOCOL, SHARDS)
def test_every_call_gets_one_reply_and_an_error_changes_nothing(calls: list[Words], protocol: int, shards: int) -> None:
    try_out(calls, protocol, shards)


@settings(max_examples=12)
@given(st.data(), PROTOCOL, SHARDS)
@pytest.mark.parametrize("command", ALL, ids=lambda command: command.name)
def test_no_arguments_upset_a_command(command: Command, data: st.DataObject, protocol: int, shards: int) -> None:
    """As above, some calls of each: no command is left out by chance."""
    try_out([data.draw(wrong(command)), data.draw(right(command))], protocol, shards)
