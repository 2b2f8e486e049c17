"""Keys that end while caches hold them: what memory has is not what its owner made of it."""

from __future__ import annotations

import pytest

from cluster.cache.controller import MISS
from tests.front import START_MS
from tests.unit.several_nodes import STEP_MS, SeveralNodes

LIFE_MS = 200
HELD = b"$3\r\nnew\r\n"


@pytest.fixture
def nodes() -> SeveralNodes:
    return SeveralNodes(3)


@pytest.mark.parametrize("early_ms", range(0, 60, STEP_MS))
@pytest.mark.parametrize("owner", [0, 1])
def test_what_took_the_place_of_a_key_does_not_end_with_it(nodes: SeveralNodes, owner: int, early_ms: int) -> None:
    """A node owns the line and wrote a value that has no end; another asks while that of memory is about to end."""
    at = [nodes.leader, *nodes.followers]
    writer, reader = nodes.connect(at[owner]), nodes.connect(at[2])
    assert nodes.send(writer, f"SET k old PX {LIFE_MS}") == b"+OK\r\n"
    ends_ms = nodes.now_ms + LIFE_MS
    nodes.send(writer, "CACHE.GET k")  # joins
    nodes.send(reader, "CACHE.GET other")
    nodes.pass_time(ends_ms - early_ms - 40 - nodes.now_ms)
    assert nodes.send(writer, "CACHE.SET k new") == b"+OK\r\n"
    nodes.pass_time(40)
    nodes.members[at[2]].dispatcher.execute(reader, [[b"CACHE.GET", b"k"]])
    nodes.pass_time(300)
    assert nodes.received(reader) == HELD
    assert nodes.send(writer, "GET k") == HELD


def test_what_is_sent_without_asking_does_not_outlive_its_key(nodes: SeveralNodes) -> None:
    """Its reader is stopped while it is on its way: it cannot tell how long that took."""
    stopped = nodes.followers[0]
    reader, writer = nodes.connect(stopped), nodes.connect(nodes.leader)
    nodes.send(writer, "SET k 1")
    for number in (2, 3):
        for _ in range(4):
            nodes.send(reader, "CACHE.GET k")  # so often that it is sent anew after the next write
        nodes.members[nodes.leader].dispatcher.execute(writer, [[b"SET", b"k", b"%d" % number, b"PX", b"200"]])
        nodes._exchange()
        nodes._exchange()
    nodes.pass_time(40)
    nodes.stopped.add(stopped)
    nodes.pass_time(220)
    assert nodes.send(writer, "GET k") == b"+OK\r\n" * 2 + b"$-1\r\n"
    nodes.stopped.clear()
    member = nodes.members[stopped]
    member.node.advance(START_MS + nodes.now_ms, nodes.now_ms)
    nodes.received(reader)
    member.dispatcher.execute(reader, [[b"CACHE.GET", b"k"]])
    nodes.pass_time(200)
    assert nodes.received(reader) == b"$-1\r\n"


@pytest.mark.parametrize("owner", [0, 1])
def test_a_life_is_counted_where_the_clock_is_that_ends_it(nodes: SeveralNodes, owner: int) -> None:
    """What a cache writes back lives as long as its client said, though the node's time of the log is behind."""
    name = [nodes.leader, *nodes.followers][owner]
    writer = nodes.connect(name)
    nodes.send(writer, "CACHE.GET k")
    shard = nodes.members[name].node.shards[0]
    if owner:
        shard._pace.follow(shard.now_ms - 5_000)
    assert nodes.send(writer, f"CACHE.SET k v PX {LIFE_MS}", "CACHE.FLUSH") == b"+OK\r\n:1\r\n"
    rest_ms = int(nodes.ask(nodes.leader, "PTTL k").strip(b":\r\n"))
    assert LIFE_MS - 20 <= rest_ms <= LIFE_MS + 20


def test_a_line_that_ends_within_a_turn_is_not_read_after_that(nodes: SeveralNodes) -> None:
    """A turn that takes longer than the key lives: its clients may ask what others know to be gone."""
    name = nodes.followers[0]
    cache, reader = nodes.members[name].node.cache, nodes.connect(name)
    nodes.send(reader, f"SET k v PX {LIFE_MS}", "CACHE.GET k")
    assert cache.read(b"k") == b"v"
    cache.clock_ms = lambda: float(nodes.now_ms + LIFE_MS)
    assert cache.read(b"k") is MISS
    assert cache.hit(b"k") is None
    assert cache.write(b"k", b"w") is MISS
