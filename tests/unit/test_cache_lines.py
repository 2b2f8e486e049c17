"""The lines one node holds: how many there are in each state, and what they take, is counted as they change."""

from __future__ import annotations

import pytest

from cluster.cache.lines import FOREVER_MS, Line, Lines, size_bytes
from cluster.cache.mesi import Event, State
from cluster.cache.office import Office


def counted(lines: Lines) -> tuple[int, int, int]:
    """Modified, exclusive, shared; after a look at every line."""
    lines.check()
    assert lines.counts[State.INVALID] == 0
    return lines.counts[State.MODIFIED], lines.counts[State.EXCLUSIVE], lines.counts[State.SHARED]


def granted(event: Event, value: bytes | None = b"v") -> Line:
    line = Line(Office(0), value, FOREVER_MS)
    line.move(event)
    return line


def test_a_line_is_counted_where_it_is() -> None:
    lines = Lines(10_000)
    line = granted(Event.FILL_EXCLUSIVE)
    lines.add(b"k", line)
    assert counted(lines) == (0, 1, 0)
    lines.move(line, Event.WRITE)
    lines.change(b"k", line, b"longer")
    assert counted(lines) == (1, 0, 0)
    lines.move(line, Event.SHARE)
    assert counted(lines) == (0, 0, 1)


def test_what_takes_the_place_of_another_is_counted_instead() -> None:
    lines = Lines(10_000)
    lines.add(b"k", granted(Event.FILL_SHARED))
    lines.add(b"k", granted(Event.FILL_EXCLUSIVE, None))
    assert counted(lines) == (0, 1, 0)
    assert lines.bytes == size_bytes(b"k", None)


@pytest.mark.parametrize("moves", [(), (Event.LEAVE,), (Event.INVALIDATE,)])
def test_what_is_gone_is_not_counted(moves: tuple[Event, ...]) -> None:
    lines = Lines(10_000)
    line = granted(Event.FILL_SHARED)
    lines.add(b"k", line)
    lines.add(b"other", granted(Event.FILL_SHARED))
    for event in moves:
        lines.move(line, event)
    assert lines.remove(b"k") is line
    assert lines.remove(b"k") is None
    assert counted(lines) == (0, 0, 1)


def test_a_line_that_changes_behind_the_count_is_found() -> None:
    lines = Lines(10_000)
    line = granted(Event.FILL_SHARED)
    lines.add(b"k", line)
    line.move(Event.FILL_EXCLUSIVE)
    with pytest.raises(AssertionError):
        lines.check()
