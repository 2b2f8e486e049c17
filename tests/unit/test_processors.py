"""Whether processors are free, by what the system counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from resp_server.edge.processors import IN_LINE_MAX, LOOK_NS, SCHEDSTAT, Processors

SECOND_NS = 1_000_000_000


def test_who_stands_in_line_has_others_beside_it(tmp_path: Path) -> None:
    source = tmp_path / "schedstat"

    def in_line(share: float, of_ns: int) -> None:
        before = int(source.read_text().split()[1]) if source.exists() else 0
        source.write_text(f"77 {before + int(share * of_ns)} 5\n")

    in_line(0.0, 0)
    processors = Processors(source)
    now_ns, known = SECOND_NS, True
    assert processors.are_free(now_ns)
    for share, free in ((IN_LINE_MAX + 0.01, False), (0.5, False), (IN_LINE_MAX - 0.01, True), (0.0, True)):
        in_line(share, LOOK_NS)
        assert processors.are_free(now_ns + LOOK_NS - 1) is known, "it is not looked so soon"
        now_ns += LOOK_NS
        assert processors.are_free(now_ns) is free
        known = free
    processors.close()
    assert processors.are_free(now_ns + SECOND_NS)


def test_where_the_system_does_not_say_they_are_free(tmp_path: Path) -> None:
    processors = Processors(tmp_path / "nothing")
    assert processors.are_free(SECOND_NS)
    processors.close()


@pytest.mark.skipif(not SCHEDSTAT.exists(), reason="this system does not say how long threads stand in line")
def test_the_system_says_it() -> None:
    processors = Processors()
    assert processors.are_free(0)
    processors.are_free(10**18)  # what it says is understood
    processors.close()
