"""What is read through the cache and beside it on one node: when it is answered, and what is counted."""

from __future__ import annotations

import pytest

from cluster.machine.reply import CommandError
from resp_server.settings import load
from tests.front import Client, Front


def front(shards: int) -> Front:
    return Front(settings=load({"shards": str(shards)}, {}))


def ask(front: Front, client: Client, line: str) -> list[object]:
    """The replies to one call, with turns as long as the node says that it has something to do, and no time passing."""
    replies = client.call(*line.encode().split())
    while front.node.busy:
        front.finish()
        replies += client.replies()
    return replies


@pytest.mark.parametrize("shards", [1, 8])
def test_what_waits_for_a_line_is_answered_without_time_passing(shards: int) -> None:
    node = front(shards)
    client, other = node.connect(), node.connect()
    for number in range(3):
        assert ask(node, client, f"CACHE.SET k {number}") == [b"OK"]
        assert ask(node, other, "GET k") == [b"%d" % number]
        assert ask(node, client, "CACHE.STATE k") == [b"S"]
        assert ask(node, client, f"CACHE.SET k {number}x") == [b"OK"]
        assert ask(node, client, f"APPEND k {number}y") == [4]
        assert ask(node, client, "CACHE.GET k") == [b"%dx%dy" % (number, number)]
        assert ask(node, other, "CACHE.SET k 1 SYNC") == [b"OK"]
        assert ask(node, other, "MGET k") == [[b"1"]]


def test_each_read_is_counted_once() -> None:
    node = front(1)
    client, traffic = node.connect(), node.node.cache.traffic
    assert ask(node, client, "CACHE.GET k") == [None]
    assert (traffic.hits, traffic.misses) == (0, 1)
    assert ask(node, client, "CACHE.GET k") == [None]
    assert (traffic.hits, traffic.misses) == (1, 1), "that there is none is known here, too"
    assert ask(node, client, "CACHE.SET k v") == [b"OK"]
    assert ask(node, client, "CACHE.GET k") == [b"v"]
    assert ask(node, client, "CACHE.MGET k other") == [[b"v", None]]
    assert (traffic.hits, traffic.misses) == (3, 2)
    [(key, line), _] = node.node.cache.lines.most_read(5)
    assert (key, line.reads) == (b"k", 3)
    assert [one for one, _ in node.node.cache.lines.most_read(1)] == [b"k"]


def test_while_the_disk_takes_nothing_a_change_is_seen_in_its_line_or_waited_for() -> None:
    """Also when something is due, for which no other read waits then."""
    node = front(1)
    client, other = node.connect(), node.connect()
    for line in ("SET k old", "SET due x PX 100", "CACHE.SET k new"):
        assert ask(node, client, line) == [b"OK"]
    assert ask(node, client, "CACHE.STATE k") == [b"M"]
    node.server.refuse_writes(CommandError("full", "MISCONF"))
    node.advance(1000)
    assert client.call(b"CACHE.GET", b"k") == [b"new"]
    assert client.call(b"CACHE.MGET", b"k", b"k") == [[b"new", b"new"]]
    assert client.call(b"CACHE.STATE", b"k") == [b"E"]
    assert client.call(b"GET", b"due") == [None]
    assert client.call(b"CACHE.GET", b"due") == [None]
    assert other.call(b"GET", b"k") == []
    node.server.refuse_writes(None)
    node.advance(100)
    node.finish()
    assert other.replies() == [b"new"]
