"""What clients wrote to lines is sent when it is overdue, again until it is carried out, and only so much at a time."""

from __future__ import annotations

import pytest

from cluster.cache import office as offices
from cluster.cache import write_backs
from cluster.cache.lines import FOREVER_MS, Line, Lines, Traffic
from cluster.cache.mesi import Event, State
from cluster.cache.office import REPEAT_MS, Office
from cluster.cache.write_backs import UNFLUSHED, WriteBacks
from cluster.machine.caches import NO_DEADLINE
from cluster.raft.messages import Message, WriteBack

OVERDUE_MS = 100.0


class Node:
    """Lines of one shard, what is said of them, and when somebody has to look again."""

    def __init__(self) -> None:
        self.lines = Lines(1_000_000)
        self.office = Office(0)
        self.office.term = self.office.base = self.office.last = 1
        self.said: list[Message] = []
        self.wakes_ms = FOREVER_MS
        self.backs = WriteBacks(b"a.1", self.lines, Traffic(), overdue_ms=OVERDUE_MS, say=self._say, wake=self._at)

    def _say(self, office: Office, word: Message) -> None:
        assert office is self.office
        self.said.append(word)

    def _at(self, at_ms: float) -> None:
        self.wakes_ms = min(self.wakes_ms, at_ms)

    def write(self, key: bytes, now_ms: float, value: bytes = b"v", dies_ms: float | None = None) -> None:
        line = self.lines.get(key)
        if line is None:
            line = Line(self.office, None, FOREVER_MS)
            line.move(Event.FILL_EXCLUSIVE)
            self.lines.add(key, line)
        self.lines.move(line, Event.WRITE)
        self.lines.change(key, line, value)
        line.dies_ms = dies_ms
        self.backs.note(key, now_ms)

    def look(self, now_ms: float) -> list[list[bytes]]:
        """What is sent of all that was written: number and keys of each."""
        self.wakes_ms = FOREVER_MS
        self.backs.look([self.office], now_ms)
        return self.sent()

    def sent(self) -> list[list[bytes]]:
        said, self.said = self.said, []
        words = [word for word in said if isinstance(word, WriteBack)]
        assert len(words) == len(said)
        return [[b"%d" % word.number, *word.cells[::3]] for word in words]

    @property
    def count(self) -> int:
        return self.backs.count([self.office])


@pytest.fixture
def node() -> Node:
    return Node()


def state_of(node: Node, key: bytes) -> State:
    line = node.lines.get(key)
    assert line is not None
    return line.state


def test_a_line_is_sent_once_it_has_been_dirty_for_so_long_however_often_it_is_written(node: Node) -> None:
    node.write(b"k", 10)
    node.write(b"later", 20)
    node.write(b"k", 100)
    assert node.wakes_ms == 110
    assert node.look(109) == []
    assert (node.wakes_ms, state_of(node, b"k")) == (110, State.MODIFIED)
    assert node.look(110) == [[b"2", b"k"]]
    assert (state_of(node, b"k"), state_of(node, b"later")) == (State.EXCLUSIVE, State.MODIFIED)
    assert node.wakes_ms == 120
    assert node.count == 2


def test_what_is_not_confirmed_is_sent_again(node: Node) -> None:
    node.write(b"k", 0)
    node.backs.send(node.office, [b"k"], 5)
    assert node.sent() == [[b"2", b"k"]]
    assert node.look(5 + REPEAT_MS - 1) == []
    assert node.look(5 + REPEAT_MS) == [[b"2", b"k"]]
    assert node.wakes_ms == 5 + 2 * REPEAT_MS
    node.backs.confirm(node.office, 2, 60)
    assert node.look(1000) == []
    assert (node.wakes_ms, node.count) == (FOREVER_MS, 0)


def test_a_life_is_told_as_what_is_left_of_it_whenever_it_is_told(node: Node) -> None:
    node.write(b"k", 0, dies_ms=100)
    node.write(b"forever", 0)
    node.write(b"over", 0, dies_ms=20)
    node.backs.send_all(10)
    node.backs.resend(node.office, 40.5)
    lives = [word.cells[2::3] for word in node.said if isinstance(word, WriteBack)]
    assert lives == [[b"90", NO_DEADLINE, b"10"], [b"60", NO_DEADLINE, b"0"]]


def test_only_so_many_are_under_way_and_lines_stay_dirty_behind_them(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offices, "SENT_MAX", 2)
    for key in (b"a", b"b", b"c", b"d"):
        node.write(key, 0)
    for key in (b"a", b"b", b"c"):  # these lines go: what they changed cannot stay in them
        node.backs.send(node.office, [key], 0)
    assert node.sent() == [[b"2", b"a"], [b"3", b"b"]]
    node.backs.confirm(node.office, 2, 10)
    assert node.sent() == [[b"4", b"c"]]
    assert node.look(OVERDUE_MS) == [[b"3", b"b"], [b"4", b"c"]]
    assert state_of(node, b"d") is State.MODIFIED
    node.backs.confirm(node.office, 3, OVERDUE_MS)
    assert node.look(OVERDUE_MS) == [[b"5", b"d"]]


def test_many_lines_are_sent_in_several_write_backs(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_backs, "CELLS_MAX", 2)
    for key in (b"a", b"b", b"c"):
        node.write(key, 0)
    assert node.look(OVERDUE_MS) == [[b"2", b"a", b"b"]]
    assert node.wakes_ms <= OVERDUE_MS
    node.backs.send_all(OVERDUE_MS)
    assert node.sent() == [[b"3", b"c"]]


def test_a_flush_is_over_when_all_that_was_sent_before_is_carried_out(node: Node) -> None:
    node.write(b"gone", 0)
    node.backs.send(node.office, [b"gone"], 0)
    node.write(b"k", 0)
    node.backs.flush(7, [node.office], 1)
    node.write(b"k", 2)
    node.backs.send_all(2)
    assert node.sent() == [[b"2", b"gone"], [b"3", b"k"], [b"4", b"k"]]
    node.backs.confirm(node.office, 2, 3)
    assert node.backs.flushed() == []
    node.backs.confirm(node.office, 3, 4)
    assert node.backs.flushed() == [(7, 1)]
    assert node.backs.flushed() == []


def test_a_flush_of_nothing_is_over_at_once(node: Node) -> None:
    node.backs.flush(7, [node.office], 0)
    assert node.backs.flushed() == [(7, 0)]


def test_what_is_lost_is_waited_for_no_more(node: Node) -> None:
    node.write(b"k", 0)
    node.backs.flush(7, [node.office], 0)
    node.write(b"k", 0)
    assert node.backs.lose(node.office, [b"k"]) == 2
    assert (node.count, node.backs.flushed()) == (0, [(7, UNFLUSHED)])
    node.said.clear()
    assert node.look(1000) == []


def test_nobody_waits_long_for_a_flush(node: Node) -> None:
    leaderless: list[int] = []
    node.write(b"k", 0)
    node.backs.flush(7, [node.office], 10)
    node.backs.flush(8, [node.office], 20)
    node.backs.give_up(10, leaderless.__contains__)
    assert node.backs.flushed() == [(7, UNFLUSHED)]
    node.backs.give_up(19, leaderless.__contains__)
    assert node.backs.flushed() == []
    leaderless.append(node.office.number)
    node.backs.give_up(19, leaderless.__contains__)
    assert node.backs.flushed() == [(8, UNFLUSHED)]
    node.backs.flush(9, [node.office], 30)
    node.backs.confirm(node.office, 2, 30)
    node.backs.give_up(100, leaderless.__contains__)
    assert node.backs.flushed() == [(9, 0)], "nothing is waited for any more"
    assert node.count == 0


def test_nothing_is_sent_before_it_is_known_who_leads_and_all_of_it_then(node: Node) -> None:
    node.office.term = 0
    node.write(b"k", 0)
    node.backs.send_all(0)
    assert node.sent() == []
    node.office.term = 2
    node.backs.resend(node.office, 1)
    assert node.sent() == [[b"2", b"k"]]


def test_what_is_dirty_goes_sooner_once_it_may_be_so_for_less_long() -> None:
    node = Node()
    node.write(b"k", 0.0)
    assert node.look(1.0) == []
    node.backs.allow(2 * OVERDUE_MS)
    assert node.wakes_ms == OVERDUE_MS, "there is time"
    node.backs.allow(10.0)
    assert node.wakes_ms == 0.0
    assert node.look(5.0) == []
    assert node.wakes_ms == 10.0
    assert node.look(10.0) == [[b"2", b"k"]]
