"""Nodes with a replica of a shard keep the lines they share while others write: they see it in their logs."""

from __future__ import annotations

import pytest

from cluster.cache.snooping import UNREAD_MAX, Overwritten
from cluster.raft.messages import Append, Recall, Want
from tests.unit.several_nodes import STEP_MS, SeveralNodes

LEASE_MS = 500


class Log:
    """A replica with a log of keys, one an entry."""

    def __init__(self, *keys: bytes) -> None:
        self.keys = list(keys)
        self.applied = self.unsaved = 0

    @property
    def last_index(self) -> int:
        return len(self.keys)

    @property
    def settled(self) -> int:
        return self.applied - self.unsaved

    def last_naming(self, key: bytes, after: int) -> int:
        return max((at for at, one in enumerate(self.keys, 1) if at > after and one == key), default=0)

    def is_lasting(self, key: bytes) -> bool:
        return True

    def value(self, key: bytes) -> bytes | None:
        return None


def test_a_line_can_be_read_again_once_the_last_entry_that_names_it_is_carried_out() -> None:
    lines, log = Overwritten(), Log(b"k", b"other", b"k")
    assert lines.granted(b"k", 3, log, shared=True)
    log.keys += [b"k", b"k"]
    for index in (4, 5):
        assert lines.counts(b"k", index)
        lines.add(b"k", index, 0)
    for log.applied in (3, 4):
        assert lines.carried_out(log) == []
        assert b"k" in lines
    log.applied = 5
    assert lines.carried_out(log) == [b"k"]
    assert b"k" not in lines


def test_a_log_ahead_of_the_grant_overwrites_the_line_when_it_comes() -> None:
    lines, log = Overwritten(), Log(b"k", b"k", b"other")
    assert not lines.granted(b"k", 1, log, shared=True)
    assert lines.after == {b"k": 2}
    assert lines.granted(b"k", 1, log, shared=False), "whoever owns a line wrote it last"
    assert lines.granted(b"other", 3, log, shared=True)


def test_entries_from_before_a_grant_that_come_after_it_count_for_nothing() -> None:
    lines, log = Overwritten(), Log(b"k")
    assert lines.granted(b"k", 3, log, shared=True)
    assert [lines.counts(b"k", index) for index in (2, 3, 4)] == [False, False, True]
    log.keys += [b"k", b"k"]
    log.applied = 3
    lines.carried_out(log)
    assert lines.counts(b"k", 2), "all of them have come: none will"


def test_entries_that_came_and_may_come_again_count_no_more_for_a_line_that_was_granted_after_them() -> None:
    lines, log = Overwritten(), Log(b"k", b"k")
    log.applied = 1
    assert lines.granted(b"k", 2, log, shared=False)
    lines.carried_out(log)
    assert not lines.counts(b"k", 2), "its owner has written it since, and memory does not have that yet"
    log.applied, log.unsaved = 2, 1
    lines.carried_out(log)
    assert not lines.counts(b"k", 2), "it is carried out, and told of once it is handed to the disk"
    log.unsaved = 0
    lines.carried_out(log)
    assert not lines
    assert lines.counts(b"k", 3)


def test_an_entry_that_was_cut_off_the_log_is_not_waited_for() -> None:
    lines, log = Overwritten(), Log(b"a", b"k")
    lines.add(b"k", 2, 0)
    log.keys.pop()
    log.applied = 1
    assert lines.carried_out(log) == [b"k"]


def test_a_log_that_was_cut_off_before_the_grant_has_to_come_to_it_first() -> None:
    """Entries of a leader before name the line; the next one's, up to the grant, come in parts: memory is behind it."""
    lines, log = Overwritten(), Log(b"a", b"k", b"k", b"k")
    assert not lines.granted(b"k", 3, log, shared=True)
    log.keys = [b"a", b"b"]
    log.applied = 2
    assert lines.carried_out(log) == []
    log.keys += [b"k"]
    assert lines.carried_out(log) == []
    log.applied = 3
    assert lines.carried_out(log) == [b"k"]


def test_a_line_that_nobody_reads_between_writes_is_noticed() -> None:
    lines, log = Overwritten(), Log()
    for index in range(1, UNREAD_MAX + 2):
        assert not lines.is_unread(b"k")
        log.keys.append(b"k")
        lines.add(b"k", index, reads=7)
        log.applied = index
        lines.carried_out(log)
    assert lines.is_unread(b"k")
    lines.add(b"k", index + 1, reads=8)
    assert not lines.is_unread(b"k")


# Whole nodes


def recalls(nodes: SeveralNodes) -> int:
    return sum(
        sent
        for member in nodes.members.values()
        for kind, sent, _ in member.node.cache_traffic
        if kind == Recall.__name__
    )


def bulk(value: str) -> bytes:
    return f"${len(value)}\r\n{value}\r\n".encode()


@pytest.fixture
def shared() -> SeveralNodes:
    """A line that all of three nodes share."""
    nodes = SeveralNodes(3)
    nodes.ask(nodes.leader, "SET k old")
    for name in nodes.members:
        assert nodes.ask(name, "CACHE.GET k") == bulk("old")
    return nodes


def is_shared(nodes: SeveralNodes, name: str) -> bool:
    return nodes.ask(name, "CACHE.STATE k") == b"$1\r\nS\r\n"


def test_a_plain_write_leaves_a_shared_line_where_it_is_with_the_new_value(shared: SeveralNodes) -> None:
    before, wants = recalls(shared), shared.members[shared.followers[0]].node.cache.traffic.misses
    for value in ("new", "newer"):
        assert shared.ask(shared.followers[1], f"SET k {value}") == b"+OK\r\n"
        for name in shared.members:
            assert is_shared(shared, name)
            assert shared.ask(name, "CACHE.GET k") == bulk(value)
    assert recalls(shared) == before, "nobody was asked to give it up"
    assert shared.members[shared.followers[0]].node.cache.traffic.misses == wants


def test_a_line_with_an_end_is_asked_for_anew(shared: SeveralNodes) -> None:
    follower = shared.followers[0]
    assert shared.ask(shared.leader, "SET k new PX 300") == b"+OK\r\n"
    assert shared.ask(follower, "CACHE.GET k") == bulk("new")
    shared.pass_time(400)
    assert shared.ask(follower, "CACHE.GET k") == b"$-1\r\n"


@pytest.mark.parametrize("slow_ms", [0, 200])
def test_a_life_counts_from_when_it_was_given_however_long_that_took_to_be_committed(
    shared: SeveralNodes, slow_ms: int
) -> None:
    leader = shared.leader
    client = shared.connect(leader)
    shared.stopped.update(shared.followers)
    began_ms = shared.now_ms
    assert shared.send(client, "PEXPIRE k 400") == b""
    shared.pass_time(slow_ms)
    shared.stopped.clear()
    while shared.now_ms < began_ms + 390:
        shared.ask(leader, "CACHE.GET k")
        shared.pass_time(STEP_MS)
    assert shared.received(client) == b":1\r\n"
    shared.pass_time(2 * STEP_MS)
    assert shared.ask(leader, "GET k") == b"$-1\r\n"
    assert shared.ask(leader, "CACHE.GET k") == b"$-1\r\n"


@pytest.mark.parametrize("call", ["FLUSHALL", "DEL k", "RENAME k other", "LPUSH-free"])
def test_whatever_changes_the_key_is_seen(shared: SeveralNodes, call: str) -> None:
    if call == "LPUSH-free":
        shared.ask(shared.leader, "DEL k")
        call = "Q.PUSH k message"
    assert not shared.ask(shared.leader, call).startswith(b"-")
    for name in shared.members:
        reply = shared.ask(name, "CACHE.GET k")
        assert reply.startswith(b"-WRONGTYPE") if call.startswith("Q.") else reply == b"$-1\r\n"


def test_a_write_is_not_answered_before_all_who_share_the_line_know_of_it(shared: SeveralNodes) -> None:
    sharer, writer = shared.followers
    shared.cut.add(sharer)
    client = shared.connect(writer)
    assert shared.send(client, "SET k new") == b""
    began_ms, answered = shared.now_ms, b""
    while not answered:
        reader = shared.ask(sharer, "CACHE.GET k")
        shared.pass_time(STEP_MS)
        answered = shared.received(client)
        assert not (answered and reader), "who was cut off does not read what is no longer so"
    assert answered == b"+OK\r\n"
    assert shared.now_ms - began_ms <= 3 * LEASE_MS
    shared.cut.clear()
    shared.until(lambda: shared.ask(sharer, "CACHE.GET k") == bulk("new"))


def test_who_does_not_take_the_log_is_asked_by_message(shared: SeveralNodes) -> None:
    sharer, writer = shared.followers
    assert shared.ask(sharer, "CACHE.SET other 1") == b"+OK\r\n"
    shared.deaf[sharer] = Append
    client = shared.connect(writer)
    assert shared.send(client, "SET k new") == b""
    began_ms = shared.now_ms
    shared.until(lambda: shared.received(client))
    assert shared.now_ms - began_ms < LEASE_MS / 2
    assert shared.ask(sharer, "CACHE.GET k") == bulk("new"), "as the leader has it: its own log is behind"
    for value in ("newer", "newest"):
        client = shared.connect(writer)
        if not shared.send(client, f"SET k {value}"):
            shared.until(lambda client=client: shared.received(client))  # type: ignore[misc]
        shared.until(lambda value=value: shared.ask(sharer, "CACHE.GET k") == bulk(value))  # type: ignore[misc]
    assert not shared.members[sharer].node.cache.traffic.leases_lost, "it may have changed lines"


def test_another_leader_commits_nothing_that_a_reader_may_not_know_of() -> None:
    nodes = SeveralNodes(5, replicas=5)
    nodes.ask(nodes.leader, "SET k old")
    sharer, *others = nodes.followers
    assert nodes.ask(sharer, "CACHE.GET k") == bulk("old")
    assert nodes.ask(others[0], "CACHE.GET k") == bulk("old")
    assert nodes.ask(sharer, "CACHE.STATE k") == b"$1\r\nS\r\n"
    nodes.cut.add(sharer)  # who goes by its lease until that is over
    client = nodes.connect(others[0])
    assert nodes.send(client, "SET k new") == b"", "the leader waits for the one that is cut off"
    nodes.ask(others[1], "CLUSTER FAILOVER")
    nodes.until(lambda: nodes.leader == others[1])
    answer = b""
    while not answer:
        read = nodes.ask(sharer, "CACHE.GET k")
        nodes.pass_time(STEP_MS)
        answer = nodes.received(client)
        assert not (read == bulk("old") and answer), "the old was read, and the new was committed"
    assert answer == b"+OK\r\n"
    assert nodes.ask(sharer, "CACHE.GET k") != bulk("old")


def test_what_was_asked_for_long_ago_is_held_as_the_leader_takes_it_to_be(shared: SeveralNodes) -> None:
    """A request to own the line comes once more when that was given away: it is granted, and nobody waits for it."""
    follower, leader = shared.followers[0], shared.members[shared.leader].node
    cache = shared.members[follower].node.cache
    assert shared.ask(follower, "CACHE.GET k") == bulk("old")
    assert shared.ask(follower, "CACHE.SET k new") == b"+OK\r\n"
    assert shared.ask(shared.leader, "GET k") == bulk("new")
    assert shared.ask(follower, "CACHE.STATE k") == bulk("S")
    for other in shared.members:
        if other != follower:
            shared.ask(other, "CACHE.EVICT k")
    office = cache.offices[0]
    leader.receive(
        follower, 0, Want(office.term, cache.author, office.base, 1, office.last, b"k", own=True, snoops=True)
    )
    shared.pass_time(100)
    (directory,) = leader._coherence._directories.values()
    held = (directory.holders(b"k"), directory.is_owned(b"k"))
    assert held == ((), False)
    assert cache.state(b"k") == "I"


def test_an_owner_that_is_asked_late_to_share_is_not_taken_for_the_owner_any_more(shared: SeveralNodes) -> None:
    """What it is asked is from before it was granted the line, and nobody waits for its answer."""
    leader = shared.members[shared.leader].node.shards[0]
    owner = shared.members[shared.followers[0]].node
    assert shared.ask(owner.name, "CACHE.SET own 1") == b"+OK\r\n"
    directory = leader.gate.directory
    assert directory is not None
    assert directory.is_owned(b"own")
    owner.receive(shared.leader, 0, Recall(leader.raft.term, owner.author, 0, b"own", True))
    shared.pass_time(LEASE_MS)
    assert directory.holders(b"own") == ()
    assert shared.ask(owner.name, "CACHE.STATE own") == b"$1\r\nI\r\n"
    assert shared.ask(owner.name, "CACHE.GET own") == b"$1\r\n1\r\n"
