"""The tail of the log in memory, against a plain list with three marks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cluster.raft.log import ENTRY_BYTES, Log
from cluster.storage.contract import Entry


def entry(index: int, term: int = 1, payload: bytes = b"x") -> Entry:
    return Entry(0, index, term, payload)


def log_of(*terms: int, base: int = 0, base_term: int = 0) -> Log:
    return Log(base, base_term, [entry(base + place, term) for place, term in enumerate(terms, 1)])


def test_what_the_disk_had_is_saved() -> None:
    log = log_of(1, 2, 2, base=5, base_term=1)
    assert (log.base_index, log.saved_index, log.sent_index, log.last_index, log.last_term) == (5, 8, 8, 8, 2)
    assert log.unsent() == []


def test_an_empty_log_ends_where_it_begins() -> None:
    log = log_of(base=7, base_term=3)
    assert (log.last_index, log.last_term, log.term(7), log.term(8), log.term(6)) == (7, 3, 3, None, None)


def test_what_it_holds() -> None:
    log = log_of(2, 4, base=5, base_term=1)
    assert log.holds(3, 99), "what was compacted was committed, so it is the same everywhere"
    assert log.holds(5, 1)
    assert not log.holds(5, 2)
    assert log.holds(7, 4)
    assert not log.holds(7, 3)
    assert not log.holds(8, 4)


def test_entries_go_to_the_disk_once_and_again_after_it_failed() -> None:
    log = log_of()
    log.append(entry(1))
    log.append(entry(2))
    taken = log.unsent()
    assert [one.index for one in taken] == [1, 2]
    assert log.unsent() == []
    log.append(entry(3))
    log.unsaved_again()
    assert [one.index for one in log.unsent()] == [1, 2, 3]
    log.saved(taken)
    assert log.saved_index == 2


def test_what_was_cut_off_while_the_disk_was_at_it_does_not_count() -> None:
    log = log_of(1)
    log.append(entry(2, 1))
    log.append(entry(3, 1))
    taken = log.unsent()
    log.cut_from(2)
    log.append(entry(2, 2))
    log.saved(taken)
    assert log.saved_index == 1
    assert log.unsent() == [entry(2, 2)]


def test_what_was_cut_off_is_not_saved_any_more() -> None:
    log = log_of(1, 1, 1)
    log.cut_from(2)
    assert (log.saved_index, log.sent_index, log.last_index) == (1, 1, 1)


@given(
    sizes=st.lists(st.integers(0, 300), min_size=1, max_size=12),
    first=st.integers(1, 12),
    bytes_max=st.integers(0, 2000),
)
def test_a_slice_is_as_long_as_fits_and_never_empty(sizes: list[int], first: int, bytes_max: int) -> None:
    log = Log(0, 0, [entry(place, 1, bytes(size)) for place, size in enumerate(sizes, 1)])
    first = min(first, len(sizes))
    found = log.slice(first, bytes_max)
    assert [one.index for one in found] == list(range(first, first + len(found)))
    assert found
    costs = [len(one.payload) + ENTRY_BYTES for one in found]
    assert len(found) == 1 or sum(costs) <= bytes_max
    following = first + len(found)
    if following <= log.last_index:
        assert sum(costs) + len(log.entry(following).payload) + ENTRY_BYTES > bytes_max


def test_a_slice_may_end_before_the_log_does() -> None:
    assert [one.index for one in log_of(1, 1, 1, 1).slice(2, 10**6, 3)] == [2, 3]


def test_only_what_follows_may_be_appended() -> None:
    with pytest.raises(AssertionError):
        log_of(1).append(entry(3))


class LogAgainstAList(RuleBasedStateMachine):
    """Every operation, in any order; the list has every entry there ever was, from index 1."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log(0, 0, ())
        self.entries: list[Entry] = []
        self.base = 0
        self.term = 1
        self.disk: list[Entry] = []  # what it was given and is not done with
        self.durable: list[Entry] = []  # what is on it

    @rule(payload=st.binary(max_size=20), later=st.booleans())
    def append(self, payload: bytes, later: bool) -> None:
        self.term += later
        one = Entry(0, len(self.entries) + 1, self.term, payload)
        self.entries.append(one)
        self.log.append(one)

    @precondition(lambda self: len(self.entries) > self.base)
    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(self.base + 1, len(self.entries)))
        del self.entries[index - 1 :]
        self.log.cut_from(index)
        self.term += 1  # only a later leader cuts

    @precondition(lambda self: not self.disk)
    @rule()
    def give(self) -> None:
        self.disk = self.log.unsent()

    @precondition(lambda self: self.disk)
    @rule(works=st.booleans())
    def finish(self, works: bool) -> None:
        if works:
            del self.durable[self.disk[0].index - 1 :]
            self.durable += self.disk
            self.log.saved(self.disk)
        else:
            self.log.unsaved_again()
        self.disk = []

    @precondition(lambda self: self.log.saved_index > self.base)
    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        self.base = data.draw(st.integers(self.base, self.log.saved_index))
        self.log.compact(self.base)

    @invariant()
    def agrees(self) -> None:
        log = self.log
        assert log.base_index == self.base
        assert log.last_index == len(self.entries)
        assert log.last_term == (self.entries[-1].term if self.entries else 0)
        assert [log.entry(index) for index in range(self.base + 1, log.last_index + 1)] == self.entries[self.base :]
        assert log.bytes == sum(len(one.payload) + ENTRY_BYTES for one in self.entries[self.base :])
        assert log.base_index <= log.saved_index <= log.sent_index <= log.last_index

    @invariant()
    def what_it_calls_saved_is_on_the_disk(self) -> None:
        saved = self.log.saved_index
        assert self.durable[:saved] == self.entries[:saved]


TestLogAgainstAList = LogAgainstAList.TestCase
