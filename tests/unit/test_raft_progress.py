"""How far a follower is, and what may be sent to it."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cluster.raft.progress import IN_FLIGHT_APPENDS_MAX, IN_FLIGHT_BYTES_MAX, Progress, State


def replicating(match: int = 5) -> Progress:
    progress = Progress(match + 1, 0.0)
    progress.sent(match, 0, 0.0)
    progress.agreed(match, 0.0)
    assert progress.state is State.REPLICATE
    return progress


def test_it_begins_with_a_probe_and_waits_for_the_answer() -> None:
    progress = Progress(6, 0.0)
    assert (progress.state, progress.open, progress.unanswered) == (State.PROBE, True, False)
    progress.sent(5, 0, 0.0)
    assert (progress.open, progress.unanswered, progress.next) == (False, True, 6)
    assert progress.agreed(5, 1.0)
    assert (progress.state, progress.open, progress.match, progress.next) == (State.REPLICATE, True, 5, 6)


def test_appends_follow_each_other_and_are_answered_in_any_portions() -> None:
    progress = replicating(5)
    for index in (6, 7, 9):
        progress.sent(index, 10, 0.0)
    assert (progress.next, progress.bytes) == (10, 30)
    assert progress.agreed(7, 1.0)
    assert (progress.match, progress.bytes, progress.unanswered) == (7, 10, True)
    assert not progress.agreed(6, 1.0), "late"
    assert progress.agreed(9, 1.0)
    assert (progress.match, progress.bytes, progress.unanswered) == (9, 0, False)


def test_a_follower_that_does_not_answer_is_sent_no_more_than_so_many_or_so_much() -> None:
    progress = replicating()
    for count in range(IN_FLIGHT_APPENDS_MAX):
        assert progress.open
        progress.sent(6 + count, 1, 0.0)
    assert not progress.open
    progress = replicating()
    progress.sent(6, IN_FLIGHT_BYTES_MAX, 0.0)
    assert not progress.open
    progress.agreed(6, 1.0)
    assert progress.open


def test_lost_appends_are_sent_again_from_where_the_logs_agree() -> None:
    progress = replicating(5)
    progress.sent(8, 10, 0.0)
    progress.lost()
    assert (progress.state, progress.next, progress.bytes, progress.open) == (State.PROBE, 6, 0, True)


def test_a_lost_probe_is_repeated_where_it_was() -> None:
    """That it was not answered says nothing of where the logs agree."""
    progress = Progress(100, 0.0)
    progress.sent(99, 0, 0.0)
    progress.lost()
    assert (progress.state, progress.next, progress.open) == (State.PROBE, 100, True)


def test_a_probe_never_goes_back_behind_what_is_known_to_agree() -> None:
    progress = replicating(5)
    progress.probe(2)
    assert progress.next == 6


def test_nothing_is_appended_while_a_snapshot_is_on_its_way() -> None:
    progress = replicating(5)
    progress.send_snapshot()
    assert not progress.open
    progress.lost()
    assert progress.state is State.SNAPSHOT
    assert not progress.agreed(5, 1.0)
    assert progress.state is State.SNAPSHOT
    assert progress.agreed(50, 1.0), "it has it from somewhere"
    assert (progress.state, progress.next) == (State.REPLICATE, 51)


def test_when_something_last_moved() -> None:
    """An append that goes unanswered is measured from when it was sent, or from the last answer."""
    progress = replicating()
    progress.sent(6, 1, 100.0)
    assert progress.moved_ms == 100.0
    progress.sent(7, 1, 150.0)
    assert progress.moved_ms == 100.0
    progress.agreed(6, 180.0)
    assert progress.moved_ms == 180.0


class ProgressInAnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order: nothing known is forgotten, and the bytes under way add up."""

    def __init__(self) -> None:
        super().__init__()
        self.progress = Progress(1, 0.0)
        self.last = 0
        self.match = 0

    @precondition(lambda self: self.progress.open)
    @rule(count=st.integers(0, 3), size=st.integers(0, IN_FLIGHT_BYTES_MAX))
    def send(self, count: int, size: int) -> None:
        self.last = max(self.last, self.progress.next - 1 + count)
        self.progress.sent(self.progress.next - 1 + count, size, 0.0)

    @rule(data=st.data())
    def agree(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, self.last))
        self.match = max(self.match, index)
        self.progress.agreed(index, 0.0)

    @rule(index=st.integers(1, 50))
    def probe(self, index: int) -> None:
        self.progress.probe(index)

    @rule()
    def lose(self) -> None:
        self.progress.lost()

    @rule()
    def snapshot(self) -> None:
        self.progress.send_snapshot()

    @invariant()
    def holds(self) -> None:
        progress = self.progress
        assert progress.match == self.match
        assert progress.next > progress.match
        assert progress.bytes == sum(size for _, size in progress._appends)
        assert progress.state is State.REPLICATE or not progress._appends
        if progress.open and progress.state is State.REPLICATE:
            assert progress.bytes < IN_FLIGHT_BYTES_MAX
            assert len(progress._appends) < IN_FLIGHT_APPENDS_MAX


TestProgressInAnyOrder = ProgressInAnyOrder.TestCase
