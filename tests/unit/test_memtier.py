"""Reading memtier_benchmark's report."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.memtier import Figures, read
from benchmarks.probes import MeasureFailed

REPORT: dict[str, Any] = json.loads("""
{
    "configuration": {"server": "127.0.0.1", "port": 6379, "clients": 50, "ratio": "1:10"}
    ,"run information": {"Threads": 1, "Connections per thread": 50, "Format version": 2}
    ,"ALL STATS": {
        "Runtime": {"Total duration": 1002, "Time unit": "MILLISECONDS", "Interrupted": "false"}
        ,"Sets": {"Count": 10, "Ops/sec": 10.00, "Average Latency": 9.0, "Percentile Latencies": {"p50.00": 9.0}}
        ,"Gets": {"Count": 100, "Ops/sec": 100.00, "Average Latency": 8.0, "Percentile Latencies": {"p50.00": 8.0}}
        ,"Totals": {
            "Count": 110
            ,"Ops/sec": 109.78
            ,"Connection Errors": 2
            ,"Average Latency": 0.025
            ,"Percentile Latencies": {
                "p50.00": 0.031, "p99.00": 0.071, "p99.90": 0.135
                ,"Histogram log format": {"Compressed Histogram": "HISTFAAAAA"}
            }
        }
    }
}
""")


def test_the_totals_are_read() -> None:
    assert read(REPORT) == Figures(ops_per_second=109.78, average_ms=0.025, p50_ms=0.031, p99_ms=0.071, errors=2)


@pytest.mark.parametrize("missing", ["Ops/sec", "Average Latency", "Percentile Latencies"])
def test_a_report_without_a_figure_says_which(missing: str) -> None:
    totals = {name: figure for name, figure in REPORT["ALL STATS"]["Totals"].items() if name != missing}
    with pytest.raises(MeasureFailed, match=f"memtier's report has no '{missing}'"):
        read({"ALL STATS": {"Totals": totals}})


def test_a_report_of_older_memtier_has_no_count_of_errors() -> None:
    totals = {name: figure for name, figure in REPORT["ALL STATS"]["Totals"].items() if name != "Connection Errors"}
    assert read({"ALL STATS": {"Totals": totals}}).errors == 0
