"""memtier_benchmark, where it is on the PATH: running it and reading its JSON."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.probes import TIMEOUT_SECONDS, Endpoint, MeasureFailed

PROGRAM = "memtier_benchmark"


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run gave; latencies in milliseconds."""

    ops_per_second: float
    average_ms: float
    p50_ms: float
    p99_ms: float
    errors: int


def read(report: Mapping[str, Any]) -> Figures:
    """The totals of a ``--json-out-file`` report; `MeasureFailed` when it is not one."""
    try:
        totals = report["ALL STATS"]["Totals"]
        percentiles = totals["Percentile Latencies"]
        return Figures(
            ops_per_second=float(totals["Ops/sec"]),
            average_ms=float(totals["Average Latency"]),
            p50_ms=float(percentiles["p50.00"]),
            p99_ms=float(percentiles["p99.00"]),
            errors=int(totals.get("Connection Errors", 0)),
        )
    except KeyError as missing:
        raise MeasureFailed(f"memtier's report has no {missing}") from None


def installed() -> bool:
    """Whether memtier_benchmark is on the PATH."""
    return shutil.which(PROGRAM) is not None


def run(endpoint: Endpoint, requests: int) -> Figures:
    """One SET to ten GETs from 50 clients, memtier's own mix; ``requests`` in all."""
    with tempfile.TemporaryDirectory(prefix="sepakat-memtier-") as folder:
        report = Path(folder) / "report.json"
        line = [
            PROGRAM, "-s", endpoint.host, "-p", str(endpoint.port), "--threads=1", "--clients=50", "--ratio=1:10",
            f"--requests={requests // 50}", "--key-maximum=100000", "--hide-histogram", f"--json-out-file={report}",
        ]  # fmt: skip
        ended = subprocess.run(line, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
        if ended.returncode:
            raise MeasureFailed(f"{PROGRAM} ended with {ended.returncode}: {ended.stderr.strip()[-200:]}")
        try:
            figures = read(json.loads(report.read_text()))
        except ValueError as error:
            raise MeasureFailed(f"{PROGRAM}'s report cannot be read: {error}") from None
    if figures.errors:
        raise MeasureFailed(f"{PROGRAM} lost {figures.errors} connections")
    return figures
