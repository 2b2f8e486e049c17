"""A node that gets no entries any more, while its cache asks for lines as ever: who writes what it shares gets on."""

from __future__ import annotations

from cluster.cache.directory import Directory
from cluster.machine.caches import HOME, JOIN
from cluster.raft.messages import Grant, Recall, Surrendered, Want, Yield
from tests.simulation.small_log import Entry, Log
from tests.simulation.small_world import Ground

LEASE_MS = 500
LEADER, SHARER = b"a.1", b"b.1"


def want(number: int, key: bytes, author: bytes = SHARER) -> Want:
    return Want(1, author, 1, number, 1, key, False, True)


def test_what_a_late_cache_asks_for_does_not_lengthen_its_lease() -> None:
    joined = (JOIN, SHARER, b"1"), (JOIN, LEADER, b"1"), (HOME, LEADER, b"%d" % LEASE_MS)
    ground = Ground(LEADER, 1, Log((Entry(1, joined),)), 1, 1000.0, ["b"])
    directory = Directory(ground, LEASE_MS)
    for author in (SHARER, LEADER):
        directory.receive(Surrendered(1, author, 1))
    directory.receive(want(1, b"k"))
    directory.go_on()
    directory.receive(want(1, b"k", LEADER))
    directory.go_on()
    recall = next(message for _, message in directory.mail if isinstance(message, Recall))
    directory.receive(Yield(1, SHARER, recall.serial, b"k", True, 1))
    directory.go_on()
    assert directory.holders(b"k") == (SHARER, LEADER)
    ground.last_index = 2
    directory.touch([b"SET", b"k", b"new"], 2)
    assert not directory.blocked
    number = 1
    while ground.demands.members() and ground.now_ms < 1000.0 + 10 * LEASE_MS:
        ground.now_ms += 50.0
        number += 1
        directory.receive(want(number, b"other %d" % number))
        ground.applied = ground.last_index  # of what else there is in the log
        directory.go_on()
    assert ground.demands.members() == []
    assert ground.now_ms <= 1000.0 + 2 * LEASE_MS
    granted = [message for _, message in directory.mail if isinstance(message, Grant)]
    assert len(granted) > 1, "it was not late at once"
