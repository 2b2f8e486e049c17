"""Sections 5.5 and 5.6: crashes, messages that come twice, late or not at all, and timing."""

from __future__ import annotations

import random

import pytest

from cluster.raft.messages import Append, Appended, Conflict, Heartbeat, TimeoutNow, Vote
from tests.paper.group import Group, Packet, entries


def test_requests_to_a_crashed_follower_are_repeated_until_it_answers() -> None:
    """5.5: "if a follower or candidate crashes ... Raft handles these failures by retrying indefinitely"."""
    group = Group()
    group.elect("n1")
    group.crash("n3")
    group.write("n1", b"while it was down")
    group.pass_ms(2000)
    group.start("n3")
    group.pass_ms(1000, until=lambda: group.payloads("n3") == [b"while it was down"])


def test_a_vote_is_asked_for_again_until_there_is_a_leader() -> None:
    """5.5: the next election asks those who did not answer."""
    group = Group()
    group.crash("n2")
    group.crash("n3")
    group.pass_ms(3000)
    assert group.leader() is None
    group.start("n2")
    group.pass_ms(2000, until=lambda: group.leader() is not None)


def test_an_answer_that_was_lost_is_given_again() -> None:
    """5.5: a server that completed an RPC "but before responding" crashed "will receive the same RPC again"."""
    group = Group()
    group.elect("n1")
    group.cut("n3")
    index = group.write("n1")
    group.save("n1")
    group.deliver(*group.waiting(Append, to="n2"))
    group.save("n2")
    group.lose(Appended)
    assert group["n1"].commit == index - 1
    group.pass_ms(1000, until=lambda: group["n1"].commit == index)


@pytest.mark.parametrize("times", [1, 2, 5])
def test_an_append_that_comes_again_does_nothing_new(times: int) -> None:
    """5.5: a follower that gets "log entries already present in its log ... ignores those entries"."""
    group = Group()
    group.load("n2", entries([1]))
    message = Append(2, 1, 1, 0, [(2, b"a"), (2, b"b")])
    for _ in range(times):
        group["n2"].receive("n1", message)
        group.save("n2")
    assert [term for term, _ in group.log_of("n2")] == [1, 2, 2]
    assert group.sent("n2", Appended) == [Appended(2, 3)] * times


def test_appends_that_come_in_the_wrong_order_still_end_in_the_same_log() -> None:
    """5.5, with appends that are pipelined: the later one is refused or taken, the earlier cuts nothing off."""
    group = Group()
    group.elect("n1")
    for payload in (b"1", b"2", b"3"):
        group.write("n1", payload)
    for packet in reversed(group.waiting(Append)):
        group.deliver(packet)
    assert group.sent("n2", Conflict)
    group.settle()
    group.pass_ms(100)
    assert group.log_of("n2") == group.log_of("n3") == group.log_of("n1")


class Storm:
    """A group in which messages are lost, doubled, delayed and reordered, and members crash, all from one seed."""

    def __init__(self, seed: int) -> None:
        self.group = Group(5)
        self._chance = random.Random(seed)
        self._late: list[Packet] = []
        self._written = 0

    def step(self) -> None:
        """A moment passes."""
        chance, group = self._chance, self.group
        group.now_ms += chance.choice((1, 5, 20, 60))
        for name in group.names:
            if name in group.down:
                if chance.random() < 0.1:
                    group.start(name)
            elif chance.random() < 0.005:
                group.crash(name)
            else:
                self._turn(name)
        self._deliver()

    def _turn(self, name: str) -> None:
        chance, group = self._chance, self.group
        group.tick(name)
        if group[name].leading is not None and chance.random() < 0.3:
            group.write(name, b"%d" % self._written)
            self._written += 1
        if chance.random() < 0.8:
            group.save(name)
        group.carry_out(name)

    def _deliver(self) -> None:
        chance, group = self._chance, self.group
        group.collect()
        chance.shuffle(group.wire)
        for packet in list(group.wire[: len(group.wire) * 3 // 4]):
            fate = chance.random()
            if fate < 0.1:
                group.wire.remove(packet)
                continue
            if fate < 0.3:
                self._late.append(packet)
            group.deliver(packet)
        if self._late and chance.random() < 0.2:
            group.deliver(self._late.pop(chance.randrange(len(self._late))))


@pytest.mark.parametrize("seed", range(12))
def test_a_network_that_loses_doubles_delays_and_reorders_changes_no_outcome(seed: int) -> None:
    """5.5: "Raft RPCs are idempotent, so this causes no harm"; `Group` looks at every step whether it does."""
    storm = Storm(seed)
    for _ in range(250):
        storm.step()
    group = storm.group
    for name in list(group.down):
        group.start(name)
    group.pass_ms(3000)
    leader = group.leader()
    assert leader is not None
    group.write(leader, b"last")
    group.pass_ms(100)
    assert len({tuple(group.payloads(name)) for name in group.names}) == 1
    assert group.payloads(leader)[-1] == b"last"


def standing(group: Group) -> list[tuple[int, str, str | None, list[tuple[int, bytes]]]]:
    """Where everybody stands: term, vote, leader, log."""
    return [(group[name].term, group[name].vote, group[name].leader, group.log_of(name)) for name in group.names]


def test_what_is_late_from_an_earlier_term_does_nothing() -> None:
    """5.5 and 5.1: all messages of one term, delivered again in the next."""
    group = Group()
    late = []
    group.elect("n1", settled=False)
    for _ in range(30):
        late += group.wire
        group.settle(lambda: not group.wire)
        group.write("n1")
        group.collect()
    group.settle()
    group.elect("n2")
    group.settle()
    before = standing(group)
    for packet in late:
        group.deliver(packet)
    group.lose()
    assert standing(group) == before


def test_a_leader_stays_one_as_long_as_messages_are_much_faster_than_elections() -> None:
    """5.6: "broadcastTime << electionTimeout"; that every other heartbeat is lost changes nothing."""
    group = Group()
    group.elect("n1")
    for beat in range(60):
        group.pass_ms(group.timing.heartbeat_ms - 5)
        group.wait(5)
        group.tick()
        if beat % 4 >= 2:
            group.lose(Heartbeat)
        group.settle()
    assert (group.leader(), group["n1"].term) == ("n1", 1)


def test_safety_does_not_depend_on_timing() -> None:
    """5.6: everybody stands for election at once, again and again, and still there is one leader a term at most."""
    group = Group(5)
    for _ in range(20):
        for name in group.names:
            leader = group.names[group.names.index(name) - 1]
            group[name].receive(leader, TimeoutNow(group[name].term))
            group.save(name)
        assert group.waiting(Vote)
        group.settle()
