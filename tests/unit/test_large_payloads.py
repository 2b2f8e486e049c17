"""Large messages are counted and told in the log, now and then."""

from __future__ import annotations

import logging

import pytest

from resp_server.large_payloads import TELL_AGAIN_MS, LargePayloads


def told(caplog: pytest.LogCaptureFixture) -> list[object]:
    found = [record.args for record in caplog.records if record.getMessage().startswith("large payload")]
    caplog.clear()
    return list(found)


def test_they_are_counted_and_told_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    seen = LargePayloads()
    large = bytes(101)
    seen.look([[b"q.push", b"\xffjobs", large], [b"Q.PUSH", b"jobs", bytes(100), b"ID", large]], 100, 0.0)
    seen.look([[b"Q.MPUSH", b"jobs", large, b"x", bytes(200)], [b"SET", b"k", large], [b"Q.PUSH"]], 100, 5.0)
    assert told(caplog) == [{"queue": "\\xffjobs", "bytes": 101, "since_told": 1}]
    assert seen.count == 3
    seen.look([[b"Q.PUSH", b"jobs", large]], 100, TELL_AGAIN_MS)
    assert told(caplog) == [{"queue": "jobs", "bytes": 101, "since_told": 3}]
    seen.look([[b"Q.PUSH", b"jobs", large]], 0, 10 * TELL_AGAIN_MS)
    assert told(caplog) == []
    assert seen.count == 4
