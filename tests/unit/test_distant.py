"""A node without a replica: its clients get the same answers as everybody's, whatever happens on the way."""

from __future__ import annotations

import pytest

from cluster.outcomes import encode
from cluster.raft.messages import (
    Append,
    Appended,
    Ended,
    Forward,
    Heartbeat,
    Look,
    Message,
    Outcome,
    Presence,
    Waits,
)
from cluster.shard import GIVE_UP_MS
from cluster.waits import ASK_MS
from tests.scenarios.host import Asked
from tests.unit.far import Far

PATIENCE_MS = 350
"""More than it takes to repeat what may not have arrived."""


@pytest.fixture
def far() -> Far:
    return Far()


# When all is well


def test_it_writes_and_reads(far: Far) -> None:
    assert far.ask("SET x 1") == "OK"
    assert far.look("GET x") == '"1"'
    assert far.ask("INCR x") == "2"
    assert far.ask("APPEND x 5") == "2"
    assert far.shard.machine.keyspace.values == {}, "it keeps nothing"


def test_errors_are_the_shard_s(far: Far) -> None:
    far.ask("SET x text")
    assert far.ask("INCR x") == "-ERR"
    assert far.look("GET x") == '"text"'


def test_a_turn_s_commands_are_carried_out_and_answered_in_order(far: Far) -> None:
    host, shard = far.host, far.shard
    for number in range(3):
        host.write(f"APPEND x {number}")
        shard.submit_read(host.asked("GET x"), *host.call("GET x"))
    assert far.answers(30) == ["1", '"0"', "2", '"01"', "3", '"012"']


def test_turns_are_answered_in_order_whatever_they_are(far: Far) -> None:
    far.write("SET x 1")
    far.read("GET x")
    far.write("INCR x")
    far.read("GET x")
    far.read("GET x")
    assert far.answers(40) == ["OK", '"1"', "2", '"2"', '"2"']


def test_reads_alone_leave_nothing_in_the_log(far: Far) -> None:
    far.ask("SET x 1")
    last = far.cluster.hosts[far.leader].shard().last_index
    assert [far.look("GET x") for _ in range(3)] == ['"1"'] * 3
    assert far.cluster.hosts[far.leader].shard().last_index == last


def test_what_is_over_is_over_for_it_too(far: Far) -> None:
    far.ask("SET x 1 PX 100")
    assert far.look("GET x") == '"1"'
    far.cluster.pass_ms(100)
    assert far.look("GET x") == "nil"


# Messages that are lost, doubled, late


@pytest.mark.parametrize("kind", [Forward, Outcome])
def test_a_write_whose_messages_are_lost_happens_once(far: Far, kind: type[Message]) -> None:
    far.fates.lose(kind)
    far.write("INCR x")
    assert far.answers(60) == []
    far.fates.mend()
    assert far.answers(PATIENCE_MS) == ["1"]
    assert far.ask("INCR x") == "2"


@pytest.mark.parametrize("kind", [Look, Outcome])
def test_a_read_whose_messages_are_lost_is_asked_again(far: Far, kind: type[Message]) -> None:
    far.ask("SET x 1")
    far.fates.lose(kind)
    far.read("GET x")
    assert far.answers(60) == []
    far.fates.mend()
    assert far.answers(PATIENCE_MS) == ['"1"']


@pytest.mark.parametrize("kind", [Forward, Look, Outcome])
@pytest.mark.parametrize("late_ms", [0.0, 7.0, 190.0])
def test_doubled_messages_change_nothing(far: Far, kind: type[Message], late_ms: float) -> None:
    far.fates.copy(kind, 0.0, late_ms)
    found = []
    for _ in range(4):
        far.write("INCR x")
        far.read("GET x")
        found += far.answers(30)
    assert found == ["1", '"1"', "2", '"2"', "3", '"3"', "4", '"4"']
    far.cluster.pass_ms(400)
    far.fates.mend()
    assert far.look("GET x") == '"4"'


def test_batches_that_overtake_each_other_come_in_order(far: Far) -> None:
    far.fates.copy(Forward, 20.0)
    far.write("APPEND x 0")
    far.fates.mend()
    far.write("APPEND x 1")
    far.write("APPEND x 2")
    assert far.answers(PATIENCE_MS) == ["1", "2", "3"]
    assert far.look("GET x") == '"012"'


def test_a_late_copy_of_a_batch_that_was_answered_is_answered_and_not_carried_out(far: Far) -> None:
    far.fates.copy(Forward, 0.0, 5_000.0)
    assert far.ask("INCR x") == "1"
    far.fates.mend()
    sent = far.fates.sent(Outcome)
    far.cluster.pass_ms(5_100)
    assert far.fates.sent(Outcome) == sent + 1
    assert far.look("GET x") == '"1"'


# A change of leader, in every moment of a write


def test_it_is_lost_before_the_batch_came(far: Far) -> None:
    far.fates.lose(Forward)
    far.write("INCR x")
    far.cluster.pass_ms(5)
    far.fates.mend()
    far.change_leader()
    assert far.answers(50) == ["1"], "it certainly did not happen, so it was sent again"
    assert far.ask("INCR x") == "2"


def test_it_is_lost_when_it_alone_has_the_batch(far: Far) -> None:
    far.fates.lose(Append)
    far.write("INCR x")
    far.cluster.pass_ms(10)
    assert far.cluster.hosts[far.leader].shard().last_index > far.cluster.hosts[far.others[0]].shard().last_index
    far.fates.mend()
    far.change_leader()
    assert far.answers(50) == ["1"]
    former = far.others[-1]
    far.cluster.start(former)
    far.cluster.pass_ms(300)
    assert far.ask("INCR x") == "2", "what the former leader had is gone"


def test_it_is_lost_when_all_have_the_batch_and_nobody_knows(far: Far) -> None:
    far.fates.lose(Appended)
    far.write("INCR x")
    far.cluster.pass_ms(10)
    assert far.answers() == []
    far.fates.mend()
    far.change_leader()
    assert far.answers(50) == ["1"], "the next leader carried it out, once"
    assert far.ask("INCR x") == "2"


def test_it_is_lost_when_the_batch_is_carried_out_and_not_answered(far: Far) -> None:
    far.fates.lose(Outcome)
    far.write("INCR x")
    far.cluster.pass_ms(100)
    assert far.answers() == []
    far.fates.mend()
    far.change_leader()
    assert far.answers(50) == ["1"], "the next leader remembers"
    assert far.ask("INCR x") == "2"


def test_it_hands_over_with_batches_on_their_way(far: Far) -> None:
    for number in range(5):
        far.write("INCR x")
        far.cluster.pass_ms(1)
        if number == 2:
            far.cluster.change(far.leader, "lead", far.others[0])
    assert far.answers(400) == ["1", "2", "3", "4", "5"]


def test_nobody_is_elected_and_the_batch_may_be_anywhere(far: Far) -> None:
    far.fates.lose(Outcome)
    far.write("INCR x")
    far.cluster.pass_ms(10)
    for name in (far.leader, far.others[0]):
        far.cluster.crash(name)
    assert far.answers(2_000) == ["-UNCERTAIN"]


def test_what_was_sent_again_may_have_happened_the_second_time(far: Far) -> None:
    far.fates.lose(Forward)
    far.write("INCR x")
    far.cluster.pass_ms(5)
    far.change_leader()
    far.cluster.pass_ms(20)
    assert far.answers() == []
    assert [batch.term for batch in far.shard.clients.outstanding] != [0], "it is on its way again"
    for name in (far.leader, far.others[0]):
        far.cluster.crash(name)
    assert far.answers(2_000) == ["-UNCERTAIN"]


def test_a_node_that_knows_no_leader_says_that_it_did_not_happen(far: Far) -> None:
    for name in (far.leader, *far.others):
        far.cluster.crash(name)
    far.cluster.pass_ms(2_000)
    assert far.ask("INCR x") == "-CLUSTERDOWN"
    assert far.look("GET x") == "-CLUSTERDOWN"


def test_the_next_leader_may_have_it_from_a_snapshot_and_not_know(far: Far) -> None:
    leader, behind, third = far.leader, *far.others
    far.cluster.crash(behind)
    far.fates.lose(Outcome)
    far.write("INCR x")
    far.cluster.pass_ms(60)
    far.cluster.hosts[leader].checkpoint()
    far.cluster.start(behind)
    far.cluster.pass_ms(200)
    assert far.cluster.hosts[behind].shard().checkpoint_index, "it came as a snapshot"
    far.fates.mend()
    far.change_leader()
    assert far.leader == behind
    assert far.answers(60) == ["-UNCERTAIN"]
    assert far.look("GET x") == '"1"', "it did happen"
    assert third in far.others


def test_a_leader_that_remembers_no_more_does_not_say_never(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.outcomes.KEPT_REPLIES_MAX", 1)
    far.fates.lose(Outcome, to=far.distant)
    far.write("INCR x")
    far.cluster.pass_ms(130)
    far.fates.mend()
    for name in (far.leader, *far.others):
        far.cluster.hosts[name].shard()._carrying.outcomes.carried_out(0, b"n9.b1", 1, [1, 2])
    far.change_leader()
    assert far.answers(60) == ["-UNCERTAIN"]
    assert far.look("GET x") == '"1"'


def test_what_gets_nowhere_is_given_up(far: Far) -> None:
    far.fates.lose(Forward)
    far.write("INCR x")
    assert far.answers(GIVE_UP_MS - 100) == []
    assert far.answers(400) == ["-UNCERTAIN"]


def test_what_comes_after_it_was_given_up_is_not_carried_out_behind_what_came_later(far: Far) -> None:
    far.fates.copy(Forward, GIVE_UP_MS + 1_000)
    far.write("SET x old")
    assert far.answers(GIVE_UP_MS + 400) == ["-UNCERTAIN"]
    far.fates.mend()
    assert far.ask("SET x new", PATIENCE_MS) == "OK"
    far.cluster.pass_ms(2_000)
    assert far.look("GET x") == '"new"'


# Reads, and leaders that are none any more


def test_a_leader_that_is_cut_off_reads_for_nobody(far: Far) -> None:
    far.ask("SET x old")
    former, others = far.leader, far.others
    for other in others:
        far.cluster.cut(other, former)
        far.cluster.cut(other, far.distant)
    far.cluster.pass_ms(260)  # its lease is over, and nobody else leads yet
    far.read("GET x")
    assert far.answers(20) == []
    far.change_leader(crash=False)
    far.write("SET x new", at=far.leader)
    assert far.answers(2_000) == ["-CLUSTERDOWN"]
    far.cluster.cuts.clear()
    far.cluster.pass_ms(400)
    assert far.look("GET x") == '"new"'


def test_a_read_is_asked_of_the_next_leader(far: Far) -> None:
    far.ask("SET x 1")
    far.fates.lose(Look)
    far.read("GET x")
    far.cluster.pass_ms(5)
    far.fates.mend()
    far.change_leader()
    assert far.answers(60) == ['"1"']


def test_reads_behind_a_write_that_is_lost_do_not_overtake_it(far: Far) -> None:
    far.fates.lose(Forward)
    far.write("SET x 1")
    far.fates.mend()
    far.read("GET x")
    assert far.answers(PATIENCE_MS) == ["OK", '"1"']


# Waits


def test_it_waits_and_is_served(far: Far) -> None:
    far.write("Q.POP mail BLOCK 0")
    assert far.answers(20) == ["waits"]
    far.write("Q.PUSH mail hello", at=far.leader)
    (answer,) = far.answers(20)
    assert '"hello"' in answer


def test_a_wait_ends_with_its_time(far: Far) -> None:
    far.write("Q.POP mail BLOCK 100")
    assert far.answers(20) == ["waits"]
    assert far.answers(150) == ["Signal.NULL_ARRAY"]


def test_it_asks_when_nobody_says_that_a_wait_is_over(far: Far) -> None:
    far.write("Q.POP mail BLOCK 0")
    far.cluster.pass_ms(20)
    far.fates.lose(Ended)
    far.write("Q.PUSH mail hello", at=far.others[0])
    assert far.answers(100) == ["waits"]
    far.fates.mend()
    (answer,) = far.answers(ASK_MS + PATIENCE_MS)
    assert '"hello"' in answer
    sent = far.fates.sent(Waits)
    far.cluster.pass_ms(3 * ASK_MS)
    assert far.fates.sent(Waits) == sent, "there is nothing to ask any more"


def test_a_wait_outlives_its_leader(far: Far) -> None:
    far.write("Q.POP mail BLOCK 0")
    assert far.answers(20) == ["waits"]
    far.change_leader()
    assert far.answers(100) == []
    far.write("Q.PUSH mail hello", at=far.leader)
    (answer,) = far.answers(50)
    assert '"hello"' in answer


def test_the_next_leader_knows_how_a_wait_ended(far: Far) -> None:
    far.write("Q.POP mail BLOCK 0")
    assert far.answers(20) == ["waits"]
    far.fates.lose(Ended)
    far.write("Q.PUSH mail hello", at=far.leader)
    assert far.answers(100) == []
    far.fates.mend()
    far.change_leader()
    (answer,) = far.answers(100)
    assert '"hello"' in answer


def test_a_wait_of_which_nobody_knows_how_it_ended(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    far.write("Q.POP mail BLOCK 0")
    assert far.answers(20) == ["waits"]
    far.fates.lose(Ended)
    far.write("Q.PUSH mail hello", at=far.leader)
    far.cluster.pass_ms(50)
    monkeypatch.setattr("cluster.outcomes.KEPT_MS", 10.0)
    far.write("Q.POP other BLOCK 20", at=far.leader)
    far.cluster.pass_ms(60)
    for name in (far.leader, *far.others):
        outcomes = far.cluster.hosts[name].shard()._carrying.outcomes
        outcomes.ended(far.cluster.now_ms + 20, (b"n9.b1.1", 99, None))
    far.fates.mend()
    assert far.answers(ASK_MS + PATIENCE_MS) == ["-UNCERTAIN"]


def test_the_answer_that_it_waits_is_lost_and_the_wait_is_over_meanwhile(far: Far) -> None:
    far.fates.lose(Outcome)
    far.write("Q.POP mail BLOCK 0")
    far.cluster.pass_ms(10)
    far.write("Q.PUSH mail hello", at=far.leader)
    far.cluster.pass_ms(10)
    far.fates.mend()
    waits, answer = far.answers(ASK_MS + PATIENCE_MS)
    assert waits == "waits"
    assert '"hello"' in answer


def test_nobody_is_told_that_a_wait_is_over_before_that_it_waits(far: Far) -> None:
    """What it asked waits behind a read that is not answered; meanwhile the wait begins and ends."""
    far.fates.lose(Look)
    far.read("GET x")
    far.write("Q.POP mail BLOCK 50")
    assert far.answers(120) == []
    far.fates.mend()
    assert far.answers(PATIENCE_MS) == ["nil", "waits", "Signal.NULL_ARRAY"]


def test_a_wait_long_past_that_a_replica_comes_by_is_not_the_one_that_ends_now(far: Far) -> None:
    """Both in one turn: this node gets its replica back and carries out what it was told before."""
    for _ in range(2):
        far.write("Q.POP mail BLOCK 0")
    assert far.answers(20) == ["waits", "waits"]
    origin, number = max(far.shard._waits.told.items(), key=lambda wait: wait[1])
    far.shard.receive(far.leader, Ended(far.shard.term, origin, number, encode([b"second"])))
    far.shard.machine.woken.append((origin, number - 1, b"first"))
    far.cluster.turn(far.distant)
    assert far.answers(20) == ['"second"']


def test_a_wait_that_began_after_it_was_given_up_is_ended(far: Far) -> None:
    far.fates.copy(Outcome, 10 * GIVE_UP_MS)
    far.write("Q.POP mail BLOCK 0")
    assert far.answers(GIVE_UP_MS + 400) == ["-UNCERTAIN"]
    far.fates.mend()
    far.cluster.pass_ms(PATIENCE_MS)
    assert len(far.cluster.hosts[far.leader].shard().machine.waiters) == 0


@pytest.mark.parametrize(("reason", "end"), [(b"TIMEOUT", "Signal.NULL_ARRAY"), (b"ERROR", "-UNBLOCKED")])
def test_a_wait_is_ended_by_hand(far: Far, reason: bytes, end: str) -> None:
    far.write("Q.POP mail BLOCK 0")
    assert far.answers(20) == ["waits"]
    for ended in ("1", "0"):
        far.shard.unblock(Asked("unblock"), far.host.node.origin(1), reason)
        far.cluster.turn(far.distant)
        assert sorted(far.answers(20)) == sorted([ended, end] if ended == "1" else [ended])


def test_a_client_that_leaves_ends_its_wait(far: Far) -> None:
    far.write("Q.POP mail BLOCK 0")
    assert far.answers(20) == ["waits"]
    far.shard.end_session(far.host.node.origin(1))
    far.cluster.turn(far.distant)
    far.cluster.pass_ms(20)
    assert len(far.cluster.hosts[far.leader].shard().machine.waiters) == 0
    assert far.answers(20) == []
    sent = far.fates.sent(Waits)
    far.cluster.pass_ms(3 * ASK_MS)
    assert far.fates.sent(Waits) == sent


def test_a_session_that_ends_while_there_is_no_leader_ends_when_there_is_one(far: Far) -> None:
    far.write("LOCK.ACQUIRE job me SESSION")
    assert far.answers(20) == ["1"]
    origin = far.host.node.origin(1)
    assert far.shard.knows_session(origin)
    far.cluster.crash(far.leader)
    far.shard.end_session(origin)
    far.cluster.turn(far.distant)
    far.cluster.pass_ms(50)
    far.leader, far.others = far.others[0], far.others[1:]
    far.cluster.elect(far.leader)
    far.cluster.pass_ms(200)
    assert far.cluster.hosts[far.leader].shard().machine.sessions.get(origin) is None


# Links


def test_a_link_that_works_again_is_used_at_once(far: Far) -> None:
    far.cluster.cut(far.distant)
    far.write("INCR x")
    far.cluster.pass_ms(50)
    far.cluster.cuts.clear()
    far.host.node.connected(far.leader)
    far.cluster.turn(far.distant)
    assert far.answers(20) == ["1"]


def test_it_knows_who_leads_from_what_every_node_says(far: Far) -> None:
    assert far.shard.leader == far.leader
    far.fates.lose(Presence, to=far.distant)
    former = far.leader
    far.change_leader()
    assert far.shard.leader != far.leader, "nobody told it"
    far.fates.mend()
    far.cluster.pass_ms(400)
    assert far.shard.leader == far.leader
    assert former != far.leader


def test_a_leader_that_steps_down_is_known_to_lead_no_more(far: Far) -> None:
    for other in far.others:
        far.cluster.cut(far.leader, other)
    far.fates.lose(Heartbeat)
    far.cluster.pass_ms(450)
    assert far.shard.last_leader != far.leader
