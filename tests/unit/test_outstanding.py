"""What clients asked and have no answer to: the order of answers, and what is lost when."""

from __future__ import annotations

from cluster.batch import Batch
from cluster.machine.machine import Machine
from cluster.machine.reply import OK, CommandError, Reply
from cluster.outstanding import Outstanding

ERROR = CommandError("no leader for shard 0", "CLUSTERDOWN")
UNCERTAIN = CommandError("who knows", "UNCERTAIN")


def _handler(machine: Machine, args: list[bytes]) -> Reply:
    return OK


def write(term: int = 1) -> Batch:
    batch = Batch()
    batch.clients.append("client")
    batch.calls.append((_handler, [b"SET"], b""))
    batch.logged.append([b"SET"])
    batch.term = term
    return batch


def read() -> Batch:
    batch = Batch()
    batch.clients.append("client")
    batch.calls.append((_handler, [b"GET"], b""))
    batch.logged.append([b"GET"])
    batch.reads.append(0)
    return batch


def outstanding(*batches: Batch, every_ms: float = 0.0) -> Outstanding:
    found = Outstanding()
    for place, batch in enumerate(batches):
        found.close(batch, place * every_ms)
    return found


def test_batches_are_numbered_from_one_and_kept_in_order() -> None:
    found = outstanding(write(), read(), write())
    assert [batch.number for batch in found] == [1, 2, 3]
    assert len(found) == 3
    assert found.oldest is not None
    assert found.oldest.number == 1
    assert Outstanding().oldest is None


def test_a_batch_is_taken_with_what_need_not_be_waited_for_before_it() -> None:
    found = outstanding(write(), write(), read(), write(), write())
    told, lost, *_ = found
    told.answers = [("client", OK)]
    lost.lost = ERROR
    assert [batch.number for batch in found.take_to(4)] == [1, 2, 3, 4]
    assert [batch.number for batch in found] == [5]


def test_a_batch_stays_behind_one_whose_outcome_another_node_will_tell() -> None:
    """This node got its replica between the two: the first is carried out by another, the second here."""
    found = outstanding(write(), read(), write())
    assert found.take_to(3) == []
    assert [batch.number for batch in found] == [1, 2, 3]
    waiting = found.find(3)
    assert waiting is not None
    waiting.answers = [("client", OK)]
    assert list(found.take_answerable(100)) == [], "nothing is answered before what was asked earlier"
    next(iter(found)).answers = [("client", OK)]
    assert [batch.number for batch in found.take_answerable(0)] == [1], "the read still waits for its index"
    found.readable(2, 7, 0)
    assert [batch.number for batch in found.take_answerable(7)] == [2, 3]


def test_a_batch_is_found_by_its_number_while_it_is_waited_for() -> None:
    found = outstanding(write(), read(), write())
    assert [one and one.number for one in map(found.find, (0, 1, 2, 3, 4))] == [None, 1, 2, 3, None]
    found.take_to(1)
    assert found.find(1) is None
    assert Outstanding().find(1) is None


def test_a_batch_that_is_not_waited_for_takes_nothing() -> None:
    found = outstanding(write(), write())
    found.take_to(1)
    assert found.take_to(1) == []
    assert found.take_to(9) == []
    assert [batch.number for batch in found] == [2]


def test_a_number_that_was_given_up_in_the_middle_takes_nothing() -> None:
    found = outstanding(write(), write(), write())
    batches = list(found)
    batches[1].number = 99  # as if 2 were gone
    batches[0].answers = [("client", OK)]
    assert found.take_to(2) == []
    assert len(found) == 3


def test_reads_are_served_once_their_index_is_carried_out() -> None:
    found = outstanding(read(), read())
    assert list(found.take_answerable(100)) == []
    found.readable(1, 7, 1000)
    assert list(found.take_answerable(6)) == []
    served = list(found.take_answerable(7))
    assert [(batch.number, batch.read_ms) for batch in served] == [(1, 1000)]


def test_one_answer_is_for_all_reads_up_to_its_number_that_have_none() -> None:
    found = outstanding(read(), read(), read())
    found.readable(1, 5, 100)
    found.readable(2, 9, 200)
    assert [(batch.read_index, batch.read_ms) for batch in found] == [(5, 100), (9, 200), (None, 0)]
    assert found.unconfirmed() == 3
    found.readable(3, 9, 300)
    assert found.unconfirmed() == 0


def test_nothing_is_answered_before_what_was_asked_earlier() -> None:
    found = outstanding(write(), read(), write())
    found.readable(2, 1, 0)
    assert list(found.take_answerable(50)) == []
    last = list(found)[2]
    last.lost = ERROR
    assert list(found.take_answerable(50)) == []
    first = next(iter(found))
    first.lost = ERROR
    assert [batch.number for batch in found.take_answerable(50)] == [1, 2, 3]


def test_after_an_entry_of_a_later_term_the_writes_of_earlier_ones_are_sent_again() -> None:
    found = outstanding(write(1), read(), write(2), write(3))
    assert found.to_send(3) is None, "nothing new is sent as long as nobody knows"
    found.never_before(3, after=0)
    assert [batch.term for batch in found if batch.writes] == [0, 0, 3]
    assert [batch.number for batch in found.to_send(3) or []] == [1, 3]
    assert found.to_send(3) == [], "once"


def test_what_was_told_is_not_sent_again() -> None:
    found = outstanding(write(1), write(1))
    next(iter(found)).answers = [("client", OK)]
    found.never_before(2, after=0)
    assert [batch.number for batch in found.to_send(2) or []] == [2]


def test_what_a_replica_did_not_see_it_does_not_send_again() -> None:
    """Its state came as a snapshot of an entry of term 1: what was sent by then may be in it."""
    found = outstanding(write(1), write(2), write(3))
    found.never_before(3, after=1)
    assert [batch.term for batch in found] == [1, 0, 3]
    assert found.to_send(3) is None
    next(iter(found)).lost = UNCERTAIN
    assert [batch.number for batch in found.to_send(3) or []] == [2]


def test_what_was_never_sent_is_sent_in_any_term() -> None:
    found = outstanding(write(0), write(0))
    assert [batch.number for batch in found.to_send(7) or []] == [1, 2]


def test_what_is_given_up_certainly_did_not_happen_unless_it_was_sent() -> None:
    found = outstanding(write(2), write(0))
    found.lose(UNCERTAIN, ERROR)
    assert [batch.lost for batch in found] == [UNCERTAIN, ERROR]


def test_a_lost_leader_loses_all_and_tells_writes_from_reads() -> None:
    found = outstanding(write(), read())
    assert found.lose(UNCERTAIN, ERROR)
    assert [batch.lost for batch in found] == [UNCERTAIN, ERROR]
    assert not found.lose(ERROR, ERROR), "what is lost is lost once"
    assert [batch.lost for batch in found] == [UNCERTAIN, ERROR]


def test_only_what_has_waited_too_long_is_given_up() -> None:
    found = outstanding(write(), write(), write(), every_ms=100.0)
    assert found.lose(UNCERTAIN, ERROR, before_ms=150.0)
    assert [batch.lost for batch in found] == [UNCERTAIN, UNCERTAIN, None]


def test_what_is_to_be_repeated_to_the_leader_of_a_term() -> None:
    found = outstanding(write(1), read(), write(2), write(2))
    list(found)[2].lost = ERROR
    assert [batch.number for batch in found.sent_in(2)] == [4]
    assert [batch.number for batch in found.sent_before(2)] == [1]
    next(iter(found)).answers = [("client", OK)]
    assert found.sent_before(2) == []


def test_whether_the_outcome_of_a_write_is_waited_for() -> None:
    found = outstanding(read(), write())
    assert found.writing
    list(found)[1].answers = [("client", OK)]
    assert not found.writing


def test_lost_reads_are_not_asked_for_again() -> None:
    found = outstanding(read(), read())
    list(found)[1].lost = ERROR
    assert found.unconfirmed() == 1
