"""A node's turns: what it has to do when, and what it answers to whom."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cluster import clients
from cluster.leadership import ENTRIES_AHEAD_MAX
from cluster.node import ROUND_MS, Node
from cluster.outcomes import encode
from cluster.raft.membership import payload_of
from cluster.raft.messages import Append, Forward, Message, Outcome
from cluster.raft.patience import extra_ms
from cluster.shard import APPLY_BYTES, FOREVER_MS, GIVE_UP_MS, Shard
from cluster.storage.contract import Entry
from tests.front import Front
from tests.scenarios.cluster import Cluster, in_time
from tests.scenarios.host import EPOCH_MS


def three() -> Cluster:
    """Three nodes that n1 leads, with nothing to do."""
    cluster = Cluster(3)
    cluster.elect("n1")
    cluster.pass_ms(400)
    cluster.events.clear()
    return cluster


def node(cluster: Cluster, name: str) -> Node:
    return cluster.hosts[name].node


def shard(cluster: Cluster, name: str) -> Shard:
    """The only shard, on a node."""
    return cluster.hosts[name].shard()


def advance(cluster: Cluster, name: str, ms: float = 0) -> Shard:
    """Only this node's clock moves on."""
    node(cluster, name).advance(EPOCH_MS + int(cluster.now_ms + ms), cluster.now_ms + ms)
    return shard(cluster, name)


# Waking and sleeping


def test_nodes_with_nothing_to_do_sleep_until_a_timer() -> None:
    cluster = three()
    for name in cluster.hosts:
        found = node(cluster, name)
        assert not found.busy
        tick_ms = found.next_tick_ms()
        assert tick_ms is not None
        assert cluster.now_ms < tick_ms <= cluster.now_ms + 2 * found.timing.election_ms


def test_a_node_that_is_alone_has_no_timers() -> None:
    cluster = Cluster(1)
    cluster.pass_ms(5)
    found = node(cluster, "n1")
    assert shard(cluster, "n1").raft.leading is not None
    assert all(one.next_tick_ms() == FOREVER_MS for one in found.each())
    assert found.next_tick_ms() <= cluster.now_ms + ROUND_MS, "the node itself looks where its shards should be"
    assert not found.busy


@pytest.mark.parametrize("gone", [("n2", "n3"), ("n3",)])
def test_a_node_without_a_leader_is_not_busy(gone: tuple[str, ...]) -> None:
    """It owes the log the end of sessions, and must not burn a processor over it."""
    cluster = Cluster(3)
    for name in gone:
        cluster.crash(name)
    cluster.hosts["n2"].stopped = True
    cluster.pass_ms(2000)
    assert not node(cluster, "n1").has_leader
    assert not node(cluster, "n1").busy
    shard(cluster, "n1").end_session(b"n1.b1.7")
    assert not node(cluster, "n1").busy


def test_what_clients_asked_makes_a_node_busy_once_it_can_move() -> None:
    cluster = three()
    cluster.hosts["n2"].write("SET x 1")
    assert node(cluster, "n2").busy
    cluster.turn("n2")
    assert not node(cluster, "n2").busy, "it is the leader's turn"


def test_only_a_leader_rings_alarms() -> None:
    cluster = three()
    cluster.hosts["n1"].write("SET x 1 PX 5000")
    cluster.pass_ms(60)
    due_ms = node(cluster, "n1").next_due_ms()
    assert due_ms is not None
    assert EPOCH_MS + cluster.now_ms < due_ms <= EPOCH_MS + cluster.now_ms + 5000
    assert node(cluster, "n2").next_due_ms() is None


def test_an_alarm_rings_on_every_node_by_one_entry() -> None:
    cluster = three()
    cluster.hosts["n2"].write("SET x 1 PX 100")
    cluster.pass_ms(60)
    last = shard(cluster, "n1").last_index
    cluster.pass_ms(200)
    assert shard(cluster, "n1").last_index == last + 1
    assert all(len(shard(cluster, name).machine.keyspace.values) == 0 for name in cluster.hosts)


# Leaders, leases


def test_a_leader_reads_at_once_and_a_follower_never_does() -> None:
    cluster = three()
    assert not advance(cluster, "n1").reads_wait
    assert advance(cluster, "n2").reads_wait


def test_reads_under_a_lease_that_ran_out_in_the_turn_are_not_answered() -> None:
    cluster = three()
    found = advance(cluster, "n1")
    assert not found.reads_lapsed(cluster.now_ms + 1)
    assert found.reads_lapsed(cluster.now_ms + found.timing.election_ms)


def test_reads_under_such_a_lease_are_certain_once_a_majority_answers_a_later_heartbeat() -> None:
    cluster = three()
    found = advance(cluster, "n1")
    doubt = node(cluster, "n1").doubt(cluster.now_ms + found.timing.election_ms)
    assert doubt.verdict() is None
    cluster.pass_ms(2 * found.timing.election_ms)
    assert doubt.verdict() is True


def test_reads_under_such_a_lease_are_lost_with_the_leader() -> None:
    cluster = three()
    found = advance(cluster, "n1")
    doubt = node(cluster, "n1").doubt(cluster.now_ms + found.timing.election_ms)
    found.raft.follow_nobody()
    assert doubt.verdict() is False


def test_reads_wait_where_something_is_due() -> None:
    """It has to happen first, for everybody."""
    cluster = three()
    cluster.hosts["n1"].write("SET x 1 PX 100")
    cluster.pass_ms(60)
    assert not advance(cluster, "n1").due
    found = advance(cluster, "n1", ms=100)
    assert found.due
    assert found.reads_wait


def test_a_leader_is_lost_after_two_election_timeouts() -> None:
    cluster = three()
    found = shard(cluster, "n2")
    assert found.has_leader
    cluster.cut("n2")
    patience_ms = 2 * found.timing.election_ms - (cluster.now_ms - found.raft.contact_ms)
    advance(cluster, "n2", patience_ms - 1)
    assert not found.lost_leader
    advance(cluster, "n2", patience_ms)
    assert found.lost_leader
    assert not found.has_leader


def test_nobody_waits_longer_for_a_lost_leader_than_that() -> None:
    cluster = three()
    found = shard(cluster, "n2")
    cluster.cut("n2")
    cluster.hosts["n2"].write("SET x 1")
    cluster.turn("n2")
    cluster.hosts["n2"].write("SET y 1")
    cluster.pass_ms(found.raft.contact_ms + 2 * found.timing.election_ms - cluster.now_ms)
    assert [event.split()[:5] for event in cluster.events] == [
        ["n2", "SET", "x", "1", "->"],
        ["n2", "SET", "y", "1", "->"],
    ]
    assert "-UNCERTAIN" in cluster.events[0]


def test_a_node_that_leads_again_begins_with_nothing_taken() -> None:
    """What it took in an earlier term belongs to that; and chains of batches begin anew."""
    cluster = three()
    for _ in range(3):
        cluster.hosts["n2"].write("INCR x")
        cluster.pass_ms(20)
    cluster.change("n3", "lead", "n3")
    cluster.pass_ms(400)
    cluster.change("n3", "lead", "n1")
    cluster.pass_ms(400)
    assert cluster.leader() == "n1"
    cluster.hosts["n2"].write("INCR x")
    cluster.pass_ms(20)
    assert cluster.events[-1] == "n2 INCR x -> 4"


def test_a_batch_of_an_earlier_term_is_not_taken() -> None:
    cluster = three()
    leader = shard(cluster, "n1")
    last = leader.last_index
    body = b"\x92\x91\x93\xc4\x03SET\xc4\x01x\xc4\x01y\x80"
    node(cluster, "n1").receive("n2", 0, Forward(leader.term - 1, b"n2.b1", 0, 99, body))
    cluster.pass_ms(60)
    assert leader.last_index == last


# Answers


def test_what_is_asked_on_one_node_is_answered_in_that_order() -> None:
    cluster = three()
    for name in ("n1", "n2"):
        host = cluster.hosts[name]
        host.write(f"SET {name} 1")
        host.shard().submit_read(host.asked(f"GET {name}"), *host.call(f"GET {name}"))
        host.write(f"APPEND {name} 2")
        host.shard().submit_read(host.asked(f"GET {name}"), *host.call(f"GET {name}"))
    cluster.pass_ms(30)
    for name in ("n1", "n2"):
        assert [event for event in cluster.events if event.startswith(name)] == [
            f"{name} SET {name} 1 -> OK",
            f'{name} GET {name} -> "1"',
            f"{name} APPEND {name} 2 -> 2",
            f'{name} GET {name} -> "12"',
        ]


def test_a_read_behind_a_write_of_an_earlier_turn_waits_for_it() -> None:
    cluster = three()
    cluster.hosts["n2"].write("SET x 1")
    cluster.turn("n2")
    cluster.hosts["n2"].read("GET x")
    cluster.turn("n2")
    cluster.pass_ms(30)
    assert cluster.events == ["n2 SET x 1 -> OK", 'n2 GET x -> "1"']


def test_what_gets_nowhere_under_a_leader_that_is_there_is_given_up() -> None:
    """A majority of the disks is stuck."""
    cluster = three()
    cluster.hosts["n2"].disk = cluster.hosts["n3"].disk = "slow"
    cluster.hosts["n1"].write("SET x 1")
    cluster.pass_ms(GIVE_UP_MS - 200)
    assert cluster.events == []
    cluster.pass_ms(400)
    assert [event.split(":")[0] for event in cluster.events] == [
        "n1 SET x 1 -> -UNCERTAIN it may or may not have happened"
    ]
    cluster.hosts["n2"].disk = "quick"
    cluster.hosts["n2"].commit()
    cluster.pass_ms(500)
    cluster.hosts["n1"].read("GET x")
    assert cluster.events[-1] == 'n1 GET x -> "1"', "it was uncertain, and it happened"


def test_what_is_large_is_given_up_later() -> None:
    cluster = three()
    cluster.hosts["n2"].disk = cluster.hosts["n3"].disk = "slow"
    cluster.hosts["n1"].write("SET x " + "1" * 5_000_000)
    cluster.pass_ms(10)
    cluster.hosts["n1"].write("SET y 2")
    cluster.pass_ms(GIVE_UP_MS + extra_ms(5_000_000) - 200)
    assert cluster.events == [], "and so is what has to wait for it"
    cluster.pass_ms(400)
    assert [event.split()[0] for event in cluster.events] == ["n1", "n1"]
    assert all("-UNCERTAIN" in event for event in cluster.events)


@pytest.mark.parametrize(("author", "kind"), [("n1", Append), ("n2", Forward)])
def test_what_is_still_on_its_way_out_is_not_sent_again(author: str, kind: type[Message]) -> None:
    """Nor what is behind it: it is not lost unless the link is."""
    cluster = three()
    sent: list[Message] = []

    def late(sender: str, to: str, message: Message) -> Sequence[float]:
        if (sender, type(message)) != (author, kind):
            return in_time(sender, to, message)
        sent.append(message)
        return []

    cluster.fate = late
    others = [name for name in cluster.hosts if name != author]
    for peer in others:
        node(cluster, author).sending(peer, large=True)
    cluster.hosts[author].write("SET x 1")
    cluster.pass_ms(2_000)
    first = len(sent)
    assert first == (2 if kind is Append else 1)
    for peer in others:
        node(cluster, author).sending(peer, large=False)
    cluster.pass_ms(700)
    assert len(sent) > first
    cluster.fate = in_time
    for peer in others:
        node(cluster, author).sending(peer, large=True)
        node(cluster, author).disconnected(peer)
    cluster.pass_ms(700)
    assert cluster.events == [f"{author} SET x 1 -> OK"]


def test_a_leader_far_ahead_lets_its_batch_grow() -> None:
    cluster = three()
    cluster.hosts["n2"].disk = cluster.hosts["n3"].disk = "slow"
    leader = shard(cluster, "n1")
    for number in range(ENTRIES_AHEAD_MAX + 20):
        cluster.hosts["n1"].write(f"SET x {number}")
        cluster.turn("n1")
    assert leader.last_index - leader.commit_index == ENTRIES_AHEAD_MAX
    assert not leader.busy
    cluster.hosts["n2"].disk = "quick"
    cluster.pass_ms(500)
    assert leader.last_index - leader.commit_index == 0
    assert len(cluster.events) == ENTRIES_AHEAD_MAX + 20


def test_more_than_the_log_takes_at_once_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "BATCH_BYTES_MAX", 100)
    cluster = three()
    for name in ("n1", "n2"):
        cluster.hosts[name].write(f"SET {name} {'y' * 200}")
    cluster.pass_ms(30)
    assert [event.split(" -> ")[1] for event in cluster.events] == [
        "-ERR more than the log takes at once: send less in one transaction"
    ] * 2


def test_the_end_of_a_session_happens_also_when_the_leader_is_lost_with_it() -> None:
    cluster = three()
    host = cluster.hosts["n2"]
    host.write("LOCK.ACQUIRE lock me SESSION")
    cluster.pass_ms(60)
    origin = host.node.origin(1)
    assert host.shard().knows_session(origin)
    host.shard().end_session(origin)
    cluster.turn("n2")
    cluster.crash("n1")  # and with it the only message about it
    cluster.elect("n3")
    cluster.pass_ms(200)
    assert not host.shard().knows_session(origin)


def test_a_replica_that_is_not_as_far_as_where_it_was_made_one_cannot_tell_of_sessions() -> None:
    """What clients of its node got before that, another node told them."""
    cluster = three()
    raft = shard(cluster, "n2").raft
    origin = node(cluster, "n2").origin(1)
    assert not shard(cluster, "n2").knows_session(origin)
    raft.append(Entry(0, raft.log.last_index + 1, raft.term, payload_of(raft.config)))
    assert shard(cluster, "n2").knows_session(origin)


def test_a_replica_that_was_told_an_outcome_before_it_comes_to_it_cannot_tell_of_sessions() -> None:
    cluster = three()
    host, n2 = cluster.hosts["n2"], shard(cluster, "n2")
    host.write("LOCK.ACQUIRE lock me SESSION")
    cluster.turn("n2")
    batch, origin = n2.clients.outstanding.oldest, host.node.origin(1)
    assert batch is not None
    assert not n2.knows_session(origin)
    n2.receive("n1", Outcome(n2.term, n2.clients.author, batch.number, encode([1]), never=False))
    assert n2.knows_session(origin)
    cluster.pass_ms(60)
    n2.end_session(origin)
    cluster.pass_ms(200)
    assert not n2.knows_session(origin)


def test_a_node_that_comes_back_ends_the_sessions_it_had() -> None:
    cluster = three()
    cluster.hosts["n2"].write("LOCK.ACQUIRE lock me SESSION")
    cluster.pass_ms(60)
    cluster.crash("n2")
    cluster.hosts["n2"].start(cluster.now_ms)
    cluster.pass_ms(600)
    cluster.hosts["n1"].write("LOCK.ACQUIRE lock other PX 1000")
    cluster.pass_ms(30)
    assert cluster.events[-1] == "n1 LOCK.ACQUIRE lock other PX 1000 -> 2"


# Links


def test_a_link_that_works_again_is_used_at_once() -> None:
    """Whatever the leader sent before went nowhere, and a follower asks again what it asked."""
    cluster = three()
    cluster.cut("n1", "n2")
    cluster.hosts["n1"].write("SET x 1")
    cluster.pass_ms(100)
    cluster.cuts.clear()
    leader = node(cluster, "n1")
    leader.connected("n2")
    sent = [message for to, number, message in leader.outgoing() if (to, number) == ("n2", 0)]
    assert any(isinstance(message, Append) and message.entries for message in sent)


def test_what_was_under_way_on_a_broken_link_is_sent_again() -> None:
    cluster = three()
    leading = shard(cluster, "n1").raft.leading
    cluster.cut("n1", "n2")
    cluster.hosts["n1"].write("SET x 1")
    cluster.pass_ms(20)
    assert leading is not None
    assert leading.progress["n2"].unanswered
    node(cluster, "n1").disconnected("n2")
    assert not leading.progress["n2"].unanswered


def test_a_node_alone_answers_what_it_was_asked_before_it_had_caught_up() -> None:
    """What its log holds is carried out turn by turn, and a read comes between two of them."""
    before = Front()
    writer = before.connect()
    for _ in range(5):
        writer.call(b"SET", b"key", bytes(APPLY_BYTES))
    writer.call(b"SET", b"key", b"last")
    after = Front(before.storage, boot="again")
    reader = after.connect()
    assert reader.call(b"GET", b"key") == [], "it cannot be answered yet"
    for _ in range(10):
        after.advance(100)
        after.finish()
    assert reader.replies() == [b"last"]
