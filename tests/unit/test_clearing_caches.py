"""FLUSHALL names no key, and changes all: also those that a cache is about to be given."""

from __future__ import annotations

import pytest

from resp_server.session import Session
from tests.unit.several_nodes import SeveralNodes


class Slow(SeveralNodes):
    """Three nodes; ``behind`` has a replica and takes entries when it is told to, ``distant`` has none, and caches."""

    def __init__(self) -> None:
        super().__init__(3, replicas=2)
        (self.behind,) = [name for name in self.followers if self.members[name].node.shards[0].here]
        (self.distant,) = [name for name in self.followers if name != self.behind]

    def asks(self, session: Session, call: str) -> None:
        """A client's command reaches the leader, which commits nothing meanwhile."""
        self.members[session.server.node.name].dispatcher.execute(session, [call.encode().split()])
        for _ in range(4):
            self._exchange()

    def takes_entries(self) -> None:
        """The one that is behind takes what was sent to it so far, and says so."""
        self.stopped.symmetric_difference_update(self.addresses)
        self._exchange()
        self.stopped.symmetric_difference_update(self.addresses)

    def clears(self, session: Session, call: str) -> None:
        """Keys go while what was asked before is in the log, and is carried out only with that."""
        self.takes_entries()
        self.asks(session, call)
        self.stopped.clear()
        self.until(lambda: session.out)


@pytest.fixture
def nodes() -> Slow:
    return Slow()


@pytest.mark.parametrize("holders", [[0], [2], [0, 1, 2]])
@pytest.mark.parametrize(
    "calls",
    [
        ["FLUSHALL"],
        ["flushdb async"],
        ["FENCE lock 1 FLUSHALL"],
        ["fence lock 1 flushall"],
        ["MULTI", "FLUSHALL", "SET other 1", "EXEC"],
        ["MULTI", "SET other 1", "FENCE lock 1 FLUSHDB", "EXEC"],
    ],
    ids=" ".join,
)
def test_in_whatever_a_command_stands_that_clears_all(calls: list[str], holders: list[int]) -> None:
    nodes = SeveralNodes(3)
    at = [nodes.leader, *nodes.followers]
    client = nodes.connect(nodes.leader)
    nodes.send(client, "SET k v", "LOCK.ACQUIRE lock ann")
    for holder in holders:
        assert nodes.ask(at[holder], "CACHE.GET k") == b"$1\r\nv\r\n"
    assert b"+OK\r\n" in nodes.send(client, *calls)
    assert [nodes.ask(name, "CACHE.GET k") for name in at] == [b"$-1\r\n"] * 3


@pytest.mark.parametrize("clearing", ["FLUSHALL", "FLUSHDB", "DEL k"])
def test_a_line_that_is_asked_for_is_not_granted_as_it_was_before(nodes: Slow, clearing: str) -> None:
    """The commands before it are carried out, it is not yet, and a line waits for those."""
    writer, clearer, reader = nodes.connect(nodes.leader), nodes.connect(nodes.leader), nodes.connect(nodes.distant)
    nodes.send(writer, "SET k old")
    nodes.send(reader, "CACHE.GET other")  # joins
    nodes.stopped.add(nodes.behind)
    nodes.asks(writer, "SET other 1")
    nodes.asks(reader, "CACHE.GET k")
    nodes.clears(clearer, clearing)
    assert nodes.send(reader, "CACHE.GET k").endswith(b"$-1\r\n")


@pytest.mark.parametrize("clearing", ["FLUSHALL", "FLUSHDB", "DEL k"])
def test_a_line_that_is_sent_unasked_is_not_as_it_was_before(nodes: Slow, clearing: str) -> None:
    """It was read much, and is to be sent anew once a write of it is carried out; it is not there any more by then."""
    writer, clearer, reader = nodes.connect(nodes.leader), nodes.connect(nodes.leader), nodes.connect(nodes.distant)
    nodes.send(writer, "SET k old")
    for _ in range(4):
        nodes.send(reader, "CACHE.GET k")
    nodes.stopped.add(nodes.behind)
    nodes.asks(writer, "SET k new")
    nodes.clears(clearer, clearing)
    assert nodes.send(reader, "CACHE.GET k").endswith(b"$-1\r\n")
