"""How a follower's writes come into the leader's log: each once, in order, and only in their term."""

from __future__ import annotations

import random

import pytest

from cluster.batch import Batch
from cluster.forwarding import Forwarding
from cluster.machine.reply import CommandError
from cluster.raft.messages import Forward
from cluster.raft.patience import extra_ms


def batch(number: int, term: int = 1) -> Batch:
    found = Batch()
    found.number, found.term = number, term
    found.body = b"batch %d" % number
    return found


def taken(leader: Forwarding) -> list[int]:
    return [number for _, number, _ in leader.parts]


def test_batches_are_taken_as_they_come() -> None:
    author, leader = Forwarding(b"n2.b1"), Forwarding(b"n1.b1")
    for number in (3, 4, 9):
        leader.take(author.send(batch(number), wanted=False))
    assert taken(leader) == [3, 4, 9]
    assert next((author, bytes(body)) for author, _, body in leader.parts) == (b"n2.b1", b"batch 3")


def test_a_batch_that_comes_twice_is_taken_once() -> None:
    author, leader = Forwarding(b"n2.b1"), Forwarding(b"n1.b1")
    message = author.send(batch(1), wanted=False)
    leader.take(message)
    leader.take(message)
    assert taken(leader) == [1]


def test_a_batch_waits_for_the_one_before_it() -> None:
    author, leader = Forwarding(b"n2.b1"), Forwarding(b"n1.b1")
    first, second = batch(1), batch(2)
    lost = author.send(first, wanted=False)
    leader.take(author.send(second, wanted=False))
    assert taken(leader) == []
    for message in author.repeat([first, second], 1000.0, 150.0, wanted=False):
        leader.take(message)
    leader.take(lost)
    assert taken(leader) == [1, 2]


def test_what_has_waited_long_enough_is_repeated_and_all_behind_it() -> None:
    """The leader refused what came behind a batch that it never got, however young that is."""
    author = Forwarding(b"n2.b1")
    first, second = batch(1), batch(2)
    author.send(first, wanted=False)
    author.send(second, wanted=False)
    first.sent_ms, second.sent_ms = 0.0, 100.0
    assert [message.number for message in author.repeat([first, second], 149.0, 150.0, wanted=False)] == []
    assert [message.number for message in author.repeat([first, second], 150.0, 150.0, wanted=False)] == [1, 2]
    assert [message.number for message in author.repeat([second], 299.0, 150.0, wanted=False)] == []
    assert [message.number for message in author.repeat([second], 300.0, 150.0, wanted=False)] == [2]


def test_a_large_batch_is_given_the_time_it_takes_and_so_is_what_is_behind_it() -> None:
    author = Forwarding(b"n2.b1")
    first, second = batch(1), batch(2)
    first.body = bytes(9 * 1024 * 1024)
    late_ms = 150.0 + extra_ms(len(first.body) + len(second.body))
    assert late_ms > 2_000
    for now_ms, expected in ((late_ms - 1, []), (late_ms, [1, 2])):
        again = author.repeat([first, second], now_ms, 150.0, wanted=False)
        assert [message.number for message in again] == expected
    second.sent_ms = 0.0
    assert [message.number for message in author.repeat([second], 150.0, 150.0, wanted=False)] == [2]


def test_what_was_given_up_is_no_link_of_the_chain() -> None:
    author, leader = Forwarding(b"n2.b1"), Forwarding(b"n1.b1")
    first, second, third = batch(1), batch(2), batch(3)
    late = author.send(first, wanted=False)
    author.send(second, wanted=False)
    for one in (first, second):
        one.lost = CommandError("given up", "UNCERTAIN")
    leader.take(author.send(third, wanted=False))
    assert taken(leader) == [3]
    leader.take(late)
    assert taken(leader) == [3], "its client was told that it is uncertain; in its place it would come after the third"


def test_a_chain_begins_anew_in_every_term() -> None:
    author, leader = Forwarding(b"n2.b1"), Forwarding(b"n1.b1")
    leader.take(author.send(batch(1, term=1), wanted=False))
    leader.begin_to_lead()
    assert taken(leader) == []
    leader.take(author.send(batch(2, term=3), wanted=False))
    assert taken(leader) == [2]


def test_what_is_sent_again_in_a_later_term_is_the_first_of_its_chain() -> None:
    """Also the batch that was sent last."""
    author = Forwarding(b"n2.b1")
    batches = [batch(number, term=1) for number in (1, 2)]
    for one in batches:
        author.send(one, wanted=False)
    for term, again in ((2, batches), (3, batches[1:])):
        leader = Forwarding(b"n1.b1")
        for one in again:
            one.term = term
            leader.take(author.send(one, wanted=False))
        assert taken(leader) == [one.number for one in again]


def test_authors_do_not_mix() -> None:
    leader = Forwarding(b"n1.b1")
    for author in (Forwarding(b"n2.b1"), Forwarding(b"n3.b1"), Forwarding(b"n2.b2")):
        leader.take(author.send(batch(1), wanted=False))
    assert [name for name, _, _ in leader.parts] == [b"n2.b1", b"n3.b1", b"n2.b2"]


@pytest.mark.parametrize("seed", range(30))
def test_whatever_the_network_does_each_batch_is_taken_once_and_in_order(seed: int) -> None:
    chance = random.Random(seed)
    author, leader = Forwarding(b"n2.b1"), Forwarding(b"n1.b1")
    wire: list[Forward] = []
    waiting: list[Batch] = []
    number = carried_out = 0
    for step in range(600):
        now_ms = step * 20.0
        if number < 60 and chance.random() < 0.3:
            number += 1
            waiting.append(batch(number))
            waiting[-1].sent_ms = now_ms
            wire.append(author.send(waiting[-1], wanted=False))
        wire += author.repeat(waiting, now_ms, 150.0, wanted=False)
        chance.shuffle(wire)
        for message in [wire.pop() for _ in range((len(wire) + 1) // 2)]:
            fate = chance.random()  # lost, doubled, or just late
            if fate < 0.2:
                wire.append(message)
            if fate > 0.1:
                leader.take(message)
        if chance.random() < 0.3:
            carried_out = len(leader.parts)
            waiting = [one for one in waiting if one.number > carried_out]
    assert taken(leader) == list(range(1, number + 1))
