"""Many fresh seeds on all processors for as long as is wanted."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tests.simulation.simulation import Result, run

SEEDS = 1 << 48
FAILURES_MAX = 20
"""So many are enough to look at."""


class Failure(NamedTuple):
    """A seed that found something."""

    seed: int
    shards: int
    error: str
    notes: str


def shards_of(seed: int) -> int:
    """Half of the seeds, unless told otherwise, are of one shard on every node, and half of many, each on some."""
    return (1, -1)[seed % 2]


def attempt(seed: int, steps: int, shards: int = 1) -> Result | Failure:
    """One run, in whatever process; an error of any kind is a find."""
    try:
        return run(seed, steps, shards=shards)
    except Exception as error:  # noqa: BLE001 - a crash of the product is as good a find as a violation
        return Failure(seed, shards, f"{type(error).__name__}: {error}", "\n".join(getattr(error, "__notes__", ())))


@dataclass
class Summary:
    """What all runs came to."""

    runs: int = 0
    turns: int = 0
    node_hours: float = 0.0
    commands: int = 0
    judged: int = 0
    elections: int = 0
    snapshots: int = 0
    deadlocks: int = 0
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def add(self, outcome: Result | Failure) -> None:
        """One more."""
        self.runs += 1
        if isinstance(outcome, Failure):
            self.failures.append(outcome)
            return
        for name in ("turns", "node_hours", "commands", "judged", "elections", "snapshots", "deadlocks"):
            setattr(self, name, getattr(self, name) + getattr(outcome, name))
        self.faults.update(outcome.faults)

    @property
    def line(self) -> str:
        """In one line."""
        return (
            f"{self.runs} runs, {self.node_hours:.2f} node-hours, {self.turns} turns, {self.judged} operations judged,"
            f" {self.elections} elections, {self.snapshots} snapshots, {self.deadlocks} deadlocks,"
            f" {len(self.failures)} failures"
        )


def soak(
    minutes: float,
    steps: int,
    *,
    shards: int = 0,
    first: int | None = None,
    workers: int = 0,
    console: Console | None = None,
) -> Summary:
    """Runs fresh seeds (or those from ``first`` on) until the time is up, and prints what it came to.

    ``shards`` 0: half of the runs have one shard, which is on every node, the other half as many as the seed says.
    """
    console = console or Console()
    summary = Summary()
    started_s = time.monotonic()
    until_s = started_s + minutes * 60
    seeds: Iterator[int] = (
        iter(lambda: secrets.randbelow(SEEDS), None) if first is None else iter(range(first, 1 << 62))
    )
    workers = workers or os.cpu_count() or 1
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with (
        Progress(*columns, console=console) as progress,
        ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        task = progress.add_task("begins", total=minutes * 60)
        running: set[Future[Result | Failure]] = set()
        while True:
            while len(running) < 2 * workers and time.monotonic() < until_s and len(summary.failures) < FAILURES_MAX:
                seed = next(seeds)
                running.add(pool.submit(attempt, seed, steps, shards or shards_of(seed)))
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                outcome = future.result()
                summary.add(outcome)
                if isinstance(outcome, Failure):
                    console.print(
                        f"seed {outcome.seed} shards {outcome.shards}: {outcome.error[:300]}",
                        markup=False,
                        highlight=False,
                    )
            summary.seconds = time.monotonic() - started_s
            progress.update(task, completed=min(summary.seconds, minutes * 60), description=summary.line)
    console.print(table(summary))
    return summary


def table(summary: Summary) -> Table:
    """A run of many seeds for a person."""
    found = Table(title="Simulated", show_header=False)
    found.add_row("runs", f"{summary.runs}")
    found.add_row("node-hours", f"{summary.node_hours:.2f}")
    found.add_row("turns", f"{summary.turns} ({summary.turns / max(summary.seconds, 0.001):.0f} a second)")
    found.add_row("commands carried out", f"{summary.commands}")
    found.add_row("operations judged", f"{summary.judged}")
    found.add_row("elections", f"{summary.elections}")
    found.add_row("snapshots installed", f"{summary.snapshots}")
    found.add_row("deadlocks broken", f"{summary.deadlocks}")
    found.add_row("faults", ", ".join(f"{name} {count}" for name, count in summary.faults.most_common()))
    found.add_row("failing seeds", ", ".join(str(one.seed) for one in summary.failures) or "none")
    return found
