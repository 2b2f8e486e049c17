"""A machine's clock is set back, and the process is started anew: the log's time goes on from where it was."""

from __future__ import annotations

import pytest

from tests.front import START_MS, Front

HOUR_MS = 3_600_000


def test_lives_go_on_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Front()
    client = before.connect()
    client.call(b"SET", b"k", b"v", b"PX", b"10000")
    before.advance(5000)
    client.call(b"SET", b"other", b"v")
    monkeypatch.setattr("tests.front.START_MS", START_MS - HOUR_MS)
    after = Front(before.storage, boot="c")
    assert after.now_ms == START_MS - HOUR_MS
    client = after.connect()
    (rest_ms,) = client.call(b"PTTL", b"k")
    assert 4900 <= rest_ms <= 5000
    for _ in range(200):
        after.advance(100)  # at half its pace, as long as it is ahead of the wall clock
    assert client.call(b"GET", b"k") == [None]
