"""What a leader does for nodes without a replica: whom it answers what, and when it must not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cluster.batch import author_of, node_of
from cluster.carrying import Carrying
from cluster.clients import Clients
from cluster.forwarding import Forwarding
from cluster.hosting import Hosting
from cluster.machine.machine import Commands, Machine
from cluster.machine.reply import OK, WAITING, CommandError, Reply
from cluster.outcomes import KEPT_MS, Outcomes, decode, encode
from cluster.raft.core import Raft
from cluster.raft.messages import Ended, Forward, Look, Message, Outcome, Waits
from cluster.raft.reads import Asked
from cluster.waits import OwnWaits
from tests.paper.group import Group

AUTHOR = b"n4.b1"


def _get(machine: Machine, args: list[bytes]) -> Reply:
    return machine.keyspace.string(args[1])


def _set(machine: Machine, args: list[bytes]) -> Reply:
    machine.keyspace.put(args[1], args[2])
    return OK


def _wait(machine: Machine, args: list[bytes]) -> Reply:
    return machine.wait(b"kind", [args[1]], args, 0)


COMMANDS = Commands({b"GET": _get, b"SET": _set, b"WAIT": _wait}, {b"WAIT": lambda machine, waiter: WAITING})


class Host:
    """A member of a group of three, and what it does for others; it leads in term 2."""

    def __init__(self, *, settled: bool = True) -> None:
        self.group = Group()
        self.group.load("n1", [], term=1)
        self.raft: Raft = self.group.elect("n1", settled=settled)
        assert self.raft.term == 2
        self.machine = Machine(COMMANDS)
        clients = Clients(b"n1.b1")
        self.carrying = Carrying(clients, OwnWaits(clients))
        self.sent: list[tuple[str, Message]] = []
        self.hosting = Hosting(self.raft, self.carrying, Forwarding(b"n1.b1"), self.sent)

    def take(self, number: int, term: int) -> bool:
        return self.hosting.take("n4", Forward(term, AUTHOR, 0, number, b"", True))

    def remember(self, number: int, *replies: Reply, at_ms: float = 0.0) -> None:
        self.carrying.numbers[AUTHOR] = number
        self.carrying.outcomes.carried_out(at_ms, AUTHOR, number, replies)

    def outcomes(self) -> list[tuple[str, int, list[Reply], bool]]:
        """Whom what was sent since the last look: (to, number, replies, never)."""
        found = []
        for to, message in self.sent:
            assert isinstance(message, Outcome)
            assert (message.term, message.author) == (self.raft.term, AUTHOR)
            found.append((to, message.number, decode(message.replies) if message.replies else [], message.never))
        self.sent.clear()
        return found


# Writes


def test_a_batch_of_this_term_is_taken_and_answered_once_it_is_carried_out() -> None:
    host = Host()
    assert host.take(1, term=2)
    assert host.outcomes() == []
    host.remember(1, OK)
    assert host.hosting.carried_out(AUTHOR, 1)
    assert host.outcomes() == [("n4", 1, [OK], False)]


def test_one_that_nobody_wants_to_hear_of_is_not_told() -> None:
    """Its author has a replica."""
    host = Host()
    host.remember(1, OK)
    assert not host.hosting.carried_out(AUTHOR, 1)
    assert host.outcomes() == []


def test_one_that_was_carried_out_is_answered_and_not_taken_again() -> None:
    host = Host()
    host.remember(1, OK, None)
    for term in (1, 2):
        assert not host.take(1, term)
        assert host.outcomes() == [("n4", 1, [OK, None], False)]


def test_one_of_a_term_that_is_over_never_was_if_it_is_not_remembered() -> None:
    host = Host()
    assert not host.take(1, term=1)
    assert host.outcomes() == [("n4", 1, [], True)]


def test_who_forgot_or_did_not_see_it_does_not_say_never() -> None:
    host = Host()
    host.remember(1, OK)
    host.remember(2, OK, at_ms=KEPT_MS + 1)
    assert not host.take(1, term=1)
    assert host.outcomes() == [("n4", 1, [], False)]
    host.carrying.outcomes = Outcomes(since_term=1)
    host.carrying.numbers[AUTHOR] = 3
    assert not host.take(3, term=1)
    assert host.outcomes() == [("n4", 3, [], False)]


def test_what_is_later_than_all_that_came_of_its_author_never_was_whoever_did_not_see_it() -> None:
    host = Host()
    host.carrying.outcomes = Outcomes(since_term=1)
    host.carrying.numbers[AUTHOR] = 3
    assert not host.take(4, term=1)
    assert host.outcomes() == [("n4", 4, [], True)]


def test_a_leader_that_is_not_settled_knows_nothing_yet() -> None:
    """What came of the terms before may be in its log, to be carried out."""
    host = Host(settled=False)
    assert not host.take(1, term=1)
    assert host.outcomes() == []
    host.group.settle()
    assert not host.take(1, term=1)
    assert host.outcomes() == [("n4", 1, [], True)]


def test_a_batch_of_a_later_term_is_nothing_it_could_judge() -> None:
    host = Host()
    assert not host.take(1, term=3)
    assert host.outcomes() == []


def test_who_does_not_lead_says_nothing() -> None:
    host = Host()
    host.remember(1, OK)
    host.raft.follow_nobody()
    for term in (1, 2):
        assert not host.take(1, term)
    assert host.outcomes() == []


def test_whoever_wants_something_asks_again_in_a_new_term() -> None:
    host = Host()
    assert host.take(1, term=2)
    host.hosting.begin()
    host.remember(1, OK)
    assert not host.hosting.carried_out(AUTHOR, 1)


# Reads


def look(number: int, *calls: str, author: bytes = AUTHOR) -> Look:
    return Look(2, author, number, [[word.encode() for word in call.split()] for call in calls])


def test_reads_are_carried_out_once_it_is_sure_to_lead_and_has_carried_out_enough() -> None:
    host = Host()
    host.hosting.look("n4", look(1, "GET x", "GET y"))
    host.machine.apply(1000, [(_set, [b"SET", b"x", b"1"], b"")])
    host.hosting.serve(host.machine)
    assert host.outcomes() == []
    applied = host.raft.applied
    assert host.hosting.confirmed(Asked(AUTHOR, 1, applied + 1, 0), 1000)
    host.hosting.serve(host.machine)
    assert host.outcomes() == []
    assert host.hosting.waiting
    host.group.write("n1")
    host.group.settle()
    host.hosting.serve(host.machine)
    assert host.outcomes() == [("n4", 1, [b"1", None], False)]
    assert not host.hosting.waiting


def test_reads_that_came_twice_are_carried_out_once() -> None:
    host = Host()
    for _ in range(2):
        host.hosting.look("n4", look(1, "GET x"))
    asked = Asked(AUTHOR, 1, 0, 0)
    assert host.hosting.confirmed(asked, 1000)
    assert not host.hosting.confirmed(asked, 1000)
    host.hosting.serve(host.machine)
    assert len(host.outcomes()) == 1


def test_what_a_follower_asked_is_none_of_its_business() -> None:
    host = Host()
    host.hosting.look("n4", look(1, "GET x"))
    assert not host.hosting.confirmed(Asked(AUTHOR, 2, 0, 0), 1000)
    assert not host.hosting.confirmed(Asked(b"n2.b1", 1, 0, 0), 1000)


def test_what_confirms_reads_of_an_earlier_run_does_not_confirm_later_ones() -> None:
    """A node started anew counts its batches from one again; somebody else may lead since the first were asked."""
    host = Host()
    host.hosting.look("n4", look(1, "GET x", author=b"n4.b1"))
    host.hosting.look("n4", look(1, "GET x", "GET y", author=b"n4.b2"))
    assert host.hosting.confirmed(Asked(b"n4.b1", 1, 0, 0), 1000)
    host.hosting.serve(host.machine)
    assert host.outcomes() == [("n4", 1, [None], False)]
    assert host.hosting.confirmed(Asked(b"n4.b2", 1, 0, 0), 1000)
    host.hosting.serve(host.machine)
    assert [message for _, message in host.sent] == [Outcome(2, b"n4.b2", 1, encode([None, None]), False)]


def test_reads_that_nobody_confirmed_go_with_the_term() -> None:
    host = Host()
    host.hosting.look("n4", look(1, "GET x"))
    host.hosting.begin()
    assert not host.hosting.confirmed(Asked(AUTHOR, 1, 0, 0), 1000)


def test_a_command_that_this_version_does_not_know_is_refused() -> None:
    host = Host()
    host.hosting.look("n4", look(1, "FUTURE x", "GET x"))
    host.hosting.confirmed(Asked(AUTHOR, 1, 0, 0), 1000)
    host.hosting.serve(host.machine)
    ((_, _, (error, value), _),) = host.outcomes()
    assert isinstance(error, CommandError)
    assert "one version" in error.message
    assert value is None


# Waits

SESSION = AUTHOR + b".7"


@pytest.fixture
def host() -> Host:
    """One session of n4 waits, with number 1."""
    host = Host()
    host.machine.apply(1000, [(_wait, [b"WAIT", b"x"], SESSION)])
    return host


def ends(host: Host) -> list[tuple[str, bytes, int, list[Reply]]]:
    found = []
    for to, message in host.sent:
        assert isinstance(message, Ended)
        found.append((to, message.origin, message.wait, decode(message.reply) if message.reply else []))
    host.sent.clear()
    return found


def ask(host: Host, *waits: tuple[bytes, int]) -> list[tuple[str, bytes, int, list[Reply]]]:
    host.hosting.look_after("n4", host.machine, Waits(2, list(waits)))
    return ends(host)


def test_a_wait_that_ends_is_told(host: Host) -> None:
    host.hosting.ended((SESSION, 1, b"job"))
    assert ends(host) == [("n4", SESSION, 1, [b"job"])]


@pytest.mark.parametrize("name", ["n4", "db.example", "a.b.c", "x-1_y"])
def test_it_is_told_to_the_node_whatever_that_is_called(host: Host, name: str) -> None:
    session = author_of(name, "b1") + b".7"
    host.hosting.ended((session, 1, b"job"))
    assert [to for to, *_ in ends(host)] == [name]
    assert node_of(author_of(name, "b1")) == name


def test_no_node_s_sessions_look_like_those_of_another() -> None:
    """When a node starts again, all sessions of its former runs are ended, by how they begin."""
    assert not author_of("db.one", "b1").startswith(author_of("db", ""))
    assert author_of("db", "b2").startswith(author_of("db", ""))


def test_of_one_that_goes_on_nothing_is_said(host: Host) -> None:
    assert ask(host, (SESSION, 1)) == []


def test_how_one_ended_is_told_again(host: Host) -> None:
    host.machine.end_session(SESSION)
    host.carrying.outcomes.ended(0, (SESSION, 1, b"job"))
    assert ask(host, (SESSION, 1)) == [("n4", SESSION, 1, [b"job"])]


def test_that_it_is_over_is_told_also_where_nobody_knows_how(host: Host) -> None:
    host.machine.end_session(SESSION)
    assert ask(host, (SESSION, 1)) == [("n4", SESSION, 1, [])]


def test_the_next_wait_of_a_session_is_not_the_one_before(host: Host) -> None:
    host.machine.end_session(SESSION)
    host.machine.apply(1001, [(_wait, [b"WAIT", b"x"], SESSION)])
    assert ask(host, (SESSION, 1), (SESSION, 2)) == [("n4", SESSION, 1, [])]


@pytest.mark.parametrize("unable", [lambda raft: raft.follow_nobody(), None], ids=["follows", "not settled"])
def test_who_cannot_know_says_nothing_of_waits(unable: Callable[[Raft], None] | None) -> None:
    host = Host(settled=unable is not None)
    if unable is not None:
        unable(host.raft)
    assert ask(host, (SESSION, 1)) == []
