"""ELECT.OBSERVE … PUSH: a client that hears of every leader while it does other things."""

from __future__ import annotations

from typing import Any

import hiredis
import pytest

from cluster.machine.reply import CommandError
from resp_server.settings import load
from tests.front import Client, Front


class Watcher:
    """A client that speaks RESP3, and keeps what is pushed to it apart from its replies."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self.client = front.connect()
        self._pushes: list[Any] = []
        self("HELLO 3")

    def __call__(self, line: str) -> Any:
        """The one reply to a call."""
        [reply] = self._sorted(self.client.call(*line.encode().split()))
        self._front.finish()  # what is asked for those who observe, when they were told
        return reply

    def pushes(self) -> list[Any]:
        """What came by itself since the last look."""
        assert self._sorted(self.client.replies()) == []
        pushes, self._pushes = self._pushes, []
        return pushes

    def _sorted(self, came: list[Any]) -> list[Any]:
        self._pushes += [list(one) for one in came if isinstance(one, hiredis.PushNotification)]
        return [one for one in came if not isinstance(one, hiredis.PushNotification)]


def told(key: bytes, candidate: bytes, token: int, value: bytes | None = None) -> list[object]:
    return [b"elect", key, candidate, token, value]


@pytest.fixture(params=["1", "8"], ids=["one shard", "eight shards"])
def front(request: pytest.FixtureRequest) -> Front:
    return Front(settings=load({"shards": request.param}, {}))


@pytest.fixture
def watcher(front: Front) -> Watcher:
    return Watcher(front)


@pytest.fixture
def other(front: Front) -> Watcher:
    return Watcher(front)


def waiters(front: Front) -> int:
    """How many waits the shards know of."""
    return sum(len(shard.machine.waiters) for shard in front.node.shards)


def test_every_leader_is_pushed(front: Front, watcher: Watcher, other: Watcher) -> None:
    assert watcher("ELECT.OBSERVE e PUSH") is None
    assert watcher.pushes() == []
    assert other("ELECT.CAMPAIGN e ann VALUE here") == 1
    assert watcher.pushes() == [told(b"e", b"ann", 1, b"here")]
    assert watcher("PING") == b"PONG", "it goes on with other things"
    assert other("ELECT.CAMPAIGN e ann VALUE there") == 1
    assert other("ELECT.RESIGN e ann") == 1
    assert watcher.pushes() == [], "a new value is no news, nor that nobody leads"
    assert other("ELECT.CAMPAIGN e ann") == 2
    assert other("ELECT.RESIGN e ann") == 1
    assert other("ELECT.CAMPAIGN e bob PX 700") == 3
    front.advance(1000)
    assert other("ELECT.CAMPAIGN e cid") == 4
    assert watcher.pushes() == [told(b"e", b"ann", 2), told(b"e", b"bob", 3), told(b"e", b"cid", 4)]
    assert other.pushes() == []


def test_the_answer_is_whoever_leads_and_the_known_one_is_no_news(watcher: Watcher, other: Watcher) -> None:
    other("ELECT.CAMPAIGN e ann VALUE here")
    assert watcher("ELECT.OBSERVE e PUSH") == [b"ann", 1, b"here"]
    assert other("elect.observe e token 1 push") is None
    for one in (watcher, other):
        assert one.pushes() == [], "that was the answer"
    watcher("ELECT.RESIGN e ann")
    watcher("ELECT.CAMPAIGN e bob")
    for one in (watcher, other):
        assert one.pushes() == [told(b"e", b"bob", 2)]


def test_leaders_that_follow_each_other_at_once(front: Front, watcher: Watcher, other: Watcher) -> None:
    """It asks again behind them, and is told of the last."""
    watcher("ELECT.OBSERVE e PUSH")
    for name in (b"ann", b"bob", b"cid"):
        other.client.ask([b"ELECT.CAMPAIGN", b"e", name])
        if name != b"cid":
            other.client.ask([b"ELECT.RESIGN", b"e", name])
    for _ in range(2):
        front.finish()
    pushes = watcher.pushes()
    assert pushes[-1] == told(b"e", b"cid", 3)
    tokens = [push[3] for push in pushes]
    assert tokens == sorted(set(tokens))


def test_a_client_that_waits_hears_of_it_too(front: Front, watcher: Watcher, other: Watcher) -> None:
    watcher("ELECT.OBSERVE e PUSH")
    other("LOCK.ACQUIRE l ann")
    assert watcher.client.call(b"LOCK.ACQUIRE", b"l", b"bob", b"BLOCK", b"0") == []
    token = other("ELECT.CAMPAIGN e ann")
    assert watcher.pushes() == [told(b"e", b"ann", token)]
    other("LOCK.RELEASE l ann")
    [granted] = watcher.client.replies()
    assert granted > 1


def test_several_elections_of_one_client(watcher: Watcher, other: Watcher) -> None:
    for key in ("e", "f", "e"):
        watcher(f"ELECT.OBSERVE {key} PUSH")
    for key in ("f", "e"):
        assert other(f"ELECT.CAMPAIGN {key} ann")
    assert [push[1] for push in watcher.pushes()] == [b"f", b"e"], "each once"
    assert watcher("ELECT.UNOBSERVE e") == 1
    assert watcher("ELECT.UNOBSERVE e") == 0
    for key in ("f", "e"):
        other(f"ELECT.RESIGN {key} ann")
        other(f"ELECT.CAMPAIGN {key} bob")
    assert [push[1:3] for push in watcher.pushes()] == [[b"f", b"bob"]]


@pytest.mark.parametrize("end", ["ELECT.UNOBSERVE e", "RESET", "HELLO 2", "the connection's"])
def test_nothing_is_left_of_a_watch_that_ended(front: Front, watcher: Watcher, other: Watcher, end: str) -> None:
    watcher("ELECT.OBSERVE e PUSH")
    assert (waiters(front), len(front.server.observers)) == (1, 1)
    if end == "the connection's":
        front.disconnect(watcher.client)
    else:
        watcher(end)
    front.finish()
    assert (waiters(front), len(front.server.observers)) == (0, 0)
    other("ELECT.CAMPAIGN e ann")
    assert watcher.pushes() == []


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["HELLO 2", "ELECT.OBSERVE e PUSH"], "ERR PUSH needs RESP3 (HELLO 3); with RESP2 wait with BLOCK"),
        (["ELECT.OBSERVE e PUSH PUSH"], "ERR syntax error"),
        (["ELECT.OBSERVE e PUSH BLOCK 5"], "ERR syntax error"),
        (["ELECT.OBSERVE e TOKEN 9 PUSH"], "ERR TOKEN is not one that was given"),
        (["ELECT.OBSERVE e TOKEN PUSH"], "ERR TOKEN is not one that was given"),
        (["SET e text", "ELECT.OBSERVE e PUSH"], "WRONGTYPE Operation against a key holding the wrong kind of value"),
        (["ELECT.UNOBSERVE"], "ERR wrong number of arguments for 'elect.unobserve' command"),
    ],
)
def test_what_is_refused_is_not_watched(front: Front, watcher: Watcher, lines: list[str], text: str) -> None:
    replies = [watcher(line) for line in lines]
    assert str(replies[-1]) == text
    assert (waiters(front), len(front.server.observers)) == (0, 0)


def test_a_transaction_does_not_begin_to_watch(front: Front, watcher: Watcher) -> None:
    for line in ("MULTI", "ELECT.OBSERVE e PUSH", "SET {e}k 1"):
        watcher(line)
    [error, ok] = watcher("EXEC")
    assert str(error) == "ERR PUSH is not possible in a transaction"
    assert ok == b"OK"
    assert len(front.server.observers) == 0


def test_an_election_that_became_something_else(front: Front, watcher: Watcher, other: Watcher) -> None:
    other("ELECT.CAMPAIGN e ann")
    watcher("ELECT.OBSERVE e PUSH")
    other("SET e text")
    [[kind, key, error]] = watcher.pushes()
    assert (kind, key) == (b"elect", b"e")
    assert str(error).startswith("WRONGTYPE ")
    assert (waiters(front), len(front.server.observers)) == (0, 0)
    other("DEL e")
    other("ELECT.CAMPAIGN e ann")
    assert watcher.pushes() == []


@pytest.mark.parametrize("code", ["CLUSTERDOWN", "UNCERTAIN", "MISCONF"])
def test_what_may_pass_is_asked_again(front: Front, watcher: Watcher, other: Watcher, code: str) -> None:
    watcher("ELECT.OBSERVE e PUSH")
    shard = front.server.shard_of(b"e")
    [waiter] = shard.machine.waiters.everyone()
    front.server.shard_of(b"e").end_session(waiter.origin)
    front.finish()
    assert front.server.observers.woken(waiter.origin, CommandError("for now", code)) is None
    front.finish()
    other("ELECT.CAMPAIGN e ann")
    assert watcher.pushes() == [], "nobody asked"
    front.server.observers.ask_again()
    front.finish()
    assert watcher.pushes() == [told(b"e", b"ann", 1)]


def test_what_others_gave_up_for_this_node_is_asked_again(front: Front, watcher: Watcher, other: Watcher) -> None:
    """As the leader of a shard does with the sessions of a node that it has not heard of for long."""
    other("ELECT.CAMPAIGN e ann")
    watcher("ELECT.OBSERVE e PUSH")
    shard = front.server.shard_of(b"e")
    for _ in range(2):
        [waiter] = shard.machine.waiters.everyone()
        front.server.shard_of(b"e").end_session(waiter.origin)
        front.finish()
        assert waiters(front) == 0
        front.server.observers.ask_again()
        front.finish()
        front.server.observers.ask_again()
        front.finish()
        assert waiters(front) == 1, "once"
    assert watcher.pushes() == [], "the same leader is no news"
    front.server.shard_of(b"e").end_session(waiter.origin)
    other("ELECT.RESIGN e ann")
    other("ELECT.CAMPAIGN e bob")
    assert watcher.pushes() == []
    front.server.observers.ask_again()
    for _ in range(2):
        front.finish()
    assert watcher.pushes() == [told(b"e", b"bob", 2)]
    assert waiters(front) == 1


def test_other_clients_are_not_mistaken_for_watches(front: Front) -> None:
    client: Client = front.connect()
    assert front.server.observers.woken(client.session.origin, None) is None
