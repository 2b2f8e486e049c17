"""Who was heard when, and what every node tells every other about itself."""

from __future__ import annotations

from cluster.contacts import Contacts
from cluster.raft.messages import Presence

INTERVAL_MS = 300.0


def contacts() -> Contacts:
    return Contacts(INTERVAL_MS)


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
    told = found.presences(["n2", "n3"], [(0, 1), (7, 4)], 1000.0)
    assert [peer for peer, _ in told] == ["n2", "n3"]
    assert all(message.leads == [(0, 1), (7, 4)] for _, message in told)
    assert found.next_presence_ms == 4 * INTERVAL_MS, "with the beats: at a multiple"


def test_news_are_told_at_once() -> None:
    found = contacts()
    found.presences(["n2"], [], 1000.0)
    found.hurry()
    assert found.next_presence_ms <= 1000.0


def test_who_is_told_can_tell_how_long_the_way_is() -> None:
    """n1 says something at 1000; it comes at 1010, n2 answers 100 ms later, and that comes 10 ms after: 20 in all."""
    one, other = contacts(), contacts()
    ((_, first),) = one.presences(["n2"], [], 1000.0)
    assert first == Presence(0, 1_000_000, 0, 0, [])
    other.present("n1", first, 510.0)  # its clock is its own
    ((_, second),) = other.presences(["n1"], [], 610.0)
    assert (second.echo_us, second.held_us) == (1_000_000, 100_000)
    assert one.round_trip_us("n2") is None
    one.present("n2", second, 1120.0)
    assert one.round_trip_us("n2") == 20_000
    assert other.round_trip_us("n1") is None, "it has had no answer yet"


def test_no_way_takes_less_than_no_time() -> None:
    found = contacts()
    found.present("n2", Presence(0, 5, 1_000_000, 100, []), 1000.0)
    assert found.round_trip_us("n2") == 0
