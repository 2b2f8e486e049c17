"""Who was heard when, and what every node tells every other about itself."""

from __future__ import annotations

from cluster.contacts import Contacts
from cluster.raft.messages import Presence

INTERVAL_MS = 300.0
TIMEOUT_MS = 10_000


def contacts() -> Contacts:
    return Contacts(INTERVAL_MS)


def told(by: Contacts, to: str, now_ms: float) -> Presence:
    """What a node tells another at that time, of its own clock."""
    ((_, message),) = by.presences([to], [], now_ms, doubts=[], session_timeout_ms=TIMEOUT_MS)
    return message


def test_a_peer_is_silent_since_it_was_last_heard() -> None:
    found = contacts()
    assert found.heard_ms("n2") is None
    assert found.silent_ms("n2", 1000.0) is None
    found.heard("n2", 1000.0)
    assert found.heard_ms("n2") == 1000.0
    assert found.silent_ms("n2", 1250.0) == 250.0
    assert found.silent_ms("n3", 1250.0) is None


def test_everybody_is_told_once_an_interval() -> None:
    found = contacts()
    assert found.next_presence_ms == 0.0
    both = found.presences(["n2", "n3"], [(0, 1), (7, 4)], 1000.0, doubts=[(7, 60)], session_timeout_ms=TIMEOUT_MS)
    assert [peer for peer, _ in both] == ["n2", "n3"]
    assert all(message.leads == [(0, 1), (7, 4)] for _, message in both)
    assert all(message.doubts == [(7, 60)] for _, message in both)
    assert all(message.session_timeout_ms == TIMEOUT_MS for _, message in both)
    assert found.next_presence_ms == 4 * INTERVAL_MS, "with the beats: at a multiple"


def test_news_are_told_at_once() -> None:
    found = contacts()
    told(found, "n2", 1000.0)
    found.hurry()
    assert found.next_presence_ms <= 1000.0


def test_who_is_told_can_tell_how_long_the_way_is() -> None:
    """n1 says something at 1000; it comes at 1010, n2 answers 100 ms later, and that comes 10 ms after: 20 in all."""
    one, other = contacts(), contacts()
    first = told(one, "n2", 1000.0)
    assert first == Presence(0, 1_000_000, 0, 0, [], False, [], TIMEOUT_MS)
    other.present("n1", first, 510.0)  # its clock is its own
    second = told(other, "n1", 610.0)
    assert (second.echo_us, second.held_us) == (1_000_000, 100_000)
    assert one.round_trip_us("n2") is None
    one.present("n2", second, 1120.0)
    assert one.round_trip_us("n2") == 20_000
    assert other.round_trip_us("n1") is None, "it has had no answer yet"


def test_no_way_takes_less_than_no_time() -> None:
    found = contacts()
    found.present("n2", Presence(0, 5, 1_000_000, 100, []), 1000.0)
    assert found.round_trip_us("n2") == 0


def test_who_was_heard_by_a_peer_of_late_is_in_touch_with_it() -> None:
    one, other = contacts(), contacts()
    other.present("n1", told(one, "n2", 1000.0), 1000.0)
    assert not other.in_touch_ms("n1"), "n1 has not said that it hears anybody"
    one.present("n2", told(other, "n1", 1300.0), 1310.0)
    assert one.in_touch_ms("n2") == 1310.0
    answer = told(one, "n2", 1320.0)
    assert answer.both_ways
    assert (answer.echo_us, answer.held_us) == (1_300_000, 10_000)


def test_a_peer_that_hears_nothing_any_more_is_not_in_touch() -> None:
    one, other = contacts(), contacts()
    other.present("n1", told(one, "n2", 1000.0), 1000.0)
    for now_ms in (1300.0, 1600.0, 1900.0, 2200.0):
        one.present("n2", told(other, "n1", now_ms), now_ms)  # and nothing comes back
        told(one, "n2", now_ms)
    assert one.in_touch_ms("n2") == 1900.0
    assert not told(one, "n2", 2200.0).both_ways
    assert one.out_of_touch(1899.0) == {}
    assert one.out_of_touch(1900.0) == {"n2": 1900.0}


def test_what_a_peer_heard_before_this_machine_was_started_is_no_touch() -> None:
    found = contacts()
    found.present("n2", Presence(0, 5, 7_000_000, 0, []), 1000.0)
    assert not found.in_touch_ms("n2"), "the clock was another one"


def test_commands_are_a_touch() -> None:
    found = contacts()
    found.touched("n2", 1000.0)
    found.touched("n2", 900.0)
    assert found.in_touch_ms("n2") == 1000.0
