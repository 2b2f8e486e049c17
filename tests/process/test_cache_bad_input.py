"""Bad calls of CACHE.* at every node of a real cluster: each is refused with Redis's words, and changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hiredis
import pytest

from tests.bad_cache_calls import HELD, SHOWN, refused
from tests.clusters import CALM, LONG_LEASES, Cluster
from tests.raw_client import RawClient

UNKNOWN_TO_ALL = ("CACHE.FILL {t}loading 999 v", "CACHE.FILL {t}new 1 v PX 5", "CACHE.FILL {t}plain 0 v")
"""Calls with the token of nobody: null, and nothing is stored."""


@pytest.fixture(scope="module")
def ring_flags() -> Sequence[str]:
    """Nothing of what was written to caches is lost for having stood still for a moment."""
    return (*CALM, *LONG_LEASES)


def shown(clients: Sequence[RawClient]) -> list[Any]:
    """What every node says of the keys: values, through caches and past them, and deadlines."""
    calls: list[list[bytes]] = [[b"CACHE.MGET", *SHOWN], [b"MGET", *SHOWN], *([b"PTTL", key] for key in SHOWN)]
    return [client.call(*call) for client in clients for call in calls]


def test_what_is_refused_at_any_node_changes_nothing(five: Cluster) -> None:
    """Some of the nodes have no replica of the keys' shard."""
    ann = five["n1"].raw()
    for line in HELD:
        reply: Any = ann.call(*line.split())
        assert not isinstance(reply, hiredis.ReplyError), (line, reply)
    _, token = reply
    clients = [node.raw() for node in five.nodes.values()]
    before = shown(clients)
    assert before == [[b"text", b"text", None, None]] * 2 + [-1, -1, -2, -2] + before[6:]
    for client in clients:
        for call, error in refused(token):
            answer = client.call(*call)
            assert isinstance(answer, hiredis.ReplyError), (call, answer)
            assert str(answer) == error, call
        for line in UNKNOWN_TO_ALL:
            assert client.call(*line.split()) is None, line
        assert client.call("PING") == b"PONG", "it is still the same connection"
        assert shown(clients) == before
    for client in clients:
        assert client.call("CACHE.STATE", "{t}lock") == client.call("CACHE.STATE", "{t}queue") == b"I"
    assert ann.call("CACHE.FILL", "{t}loading", token, "v") == b"OK", "nobody has lost anything"
    assert [client.call("CACHE.FETCH", "{t}loading") for client in clients] == [[b"v", None]] * len(clients)
