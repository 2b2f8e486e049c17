"""Alarms against a plain list of them: those that are meant ring when they are due, in order, and no others do."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.machine.clockwork import BUCKET_MS, Alarm, Clockwork

KEYS = (b"a", b"b")
DETAILS = (b"", b"x", b"y")
CROWDED = 2
"""The kind whose alarms are set as one of many."""

ALARMS = st.builds(Alarm, st.sampled_from((1, CROWDED, 3)), st.sampled_from(KEYS), st.sampled_from(DETAILS))
TIMES_MS = st.integers(0, 6 * BUCKET_MS)
STEPS = st.one_of(
    st.tuples(st.just("set"), ALARMS, TIMES_MS),
    st.tuples(st.just("cancel"), ALARMS, TIMES_MS),
    st.tuples(st.just("ring"), ALARMS, st.integers(0, 2 * BUCKET_MS)),
)


class Plain:
    """The alarms that are meant, and the clockwork that is to know the same."""

    def __init__(self) -> None:
        self.clockwork = Clockwork()
        self.meant: dict[Alarm, int] = {}
        self.now_ms = 0

    def set(self, alarm: Alarm, due_ms: int) -> None:
        self.cancel(alarm)
        self.meant[alarm] = due_ms
        if alarm.kind == CROWDED:
            self.clockwork.set_one_of_many(due_ms, *alarm)
        else:
            self.clockwork.set(due_ms, alarm)

    def cancel(self, alarm: Alarm, due_ms: int | None = None) -> None:
        """With the time it was set for, unless told another one, by which nothing is cancelled."""
        meant_ms = self.meant.get(alarm, -1)
        given_ms = meant_ms if due_ms is None else due_ms
        if alarm.kind == CROWDED:
            self.clockwork.cancel_one_of_many(given_ms, *alarm)
        else:
            self.clockwork.cancel(given_ms, alarm)
        if given_ms == meant_ms:
            self.meant.pop(alarm, None)

    def ring_all(self, now_ms: int) -> None:
        self.now_ms = now_ms
        due = sorted((due_ms, alarm) for alarm, due_ms in self.meant.items() if due_ms <= now_ms)
        rung = list(iter(lambda: self.clockwork.ring(now_ms), None))
        assert rung == due
        for _, alarm in due:
            del self.meant[alarm]

    def check(self) -> None:
        assert len(self.clockwork) == len(self.meant)
        next_ms = self.clockwork.next_due_ms(self.now_ms)
        if self.meant:
            assert next_ms is not None
            assert next_ms <= min(self.meant.values()), "it is not looked at too late"
            if next_ms <= self.now_ms:
                assert next_ms == min(self.meant.values()), "whoever looks finds something"


@given(st.lists(STEPS, max_size=60))
@settings(deadline=None)
def test_what_is_meant_rings_in_order(steps: list[tuple[str, Alarm, Any]]) -> None:
    plain = Plain()
    for verb, alarm, ms in steps:
        if verb == "set":
            plain.set(alarm, ms)
        elif verb == "cancel":
            plain.cancel(alarm, None if ms % 2 else ms)
        else:
            plain.ring_all(plain.now_ms + ms)
        plain.check()
    plain.ring_all(100 * BUCKET_MS)
    assert len(plain.clockwork) == 0
    assert plain.clockwork.next_due_ms(plain.now_ms) is None


def test_many_of_one_second_ring_with_what_is_there_alone() -> None:
    clockwork = Clockwork()
    for number in (3, 1, 2):
        clockwork.set_one_of_many(5000, 2, b"q", b"%d" % number)
    clockwork.set(5000, Alarm(1, b"key", b""))
    clockwork.set(4999, Alarm(9, b"key", b""))
    assert clockwork.next_due_ms(0) == 5000 // BUCKET_MS * BUCKET_MS
    rung = list(iter(lambda: clockwork.ring(5000), None))
    assert [(due_ms, alarm.kind, alarm.detail) for due_ms, alarm in rung] == [
        (4999, 9, b""), (5000, 1, b""), (5000, 2, b"1"), (5000, 2, b"2"), (5000, 2, b"3"),
    ]  # fmt: skip
