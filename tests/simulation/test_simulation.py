"""Clusters that live through everything that may happen to them, from many seeds.

``python -m tests.simulation --seed N`` runs one of them again, with ``--trace``
for all that happened; ``--soak MINUTES`` runs many more.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import secrets
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.simulation.simulation import Simulation
from tests.simulation.soak import SEEDS, Failure, Summary, attempt, shards_of
from tests.simulation.trace import lines

FRESH = 1
STEPS = 15_000


class World(NamedTuple):
    """A run to be: of as many shards as `Simulation` takes."""

    seed: int
    shards: int
    steps: int = STEPS


FIXED = [World(seed, shards_of(seed)) for seed in range(1, 41)]

REGRESSIONS = Path(__file__).with_name("regressions.txt")


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as found:
        yield found


def summarised(pool: ProcessPoolExecutor, worlds: Iterable[World]) -> Summary:
    """Runs all of these."""
    summary = Summary()
    seeds, shards, steps = zip(*worlds, strict=True)
    for outcome in pool.map(attempt, seeds, steps, shards):
        summary.add(outcome)
    return summary


def story(failure: Failure) -> str:
    """What a person wants to read first."""
    command = f"python -m tests.simulation --seed {failure.seed} --shards {failure.shards} --steps {STEPS} --trace"
    return f"seed {failure.seed}: {failure.error}\n{failure.notes}\n{command}\n"


def assert_clean(summary: Summary, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\nsimulated: {summary.line}")  # noqa: T201 - CI says how much was checked
    assert not summary.failures, "\n".join(map(story, summary.failures))


def test_fixed_seeds(pool: ProcessPoolExecutor, capsys: pytest.CaptureFixture[str]) -> None:
    assert_clean(summarised(pool, FIXED), capsys)


def test_seeds_that_found_something(pool: ProcessPoolExecutor, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row.split() for row in REGRESSIONS.read_text().splitlines() if row and not row.startswith("#")]
    worlds = [World(int(seed), int(shards), int(steps)) for seed, shards, steps, *_ in rows]
    assert_clean(summarised(pool, [world for world in worlds if world not in FIXED]), capsys)


def test_fresh_seeds(pool: ProcessPoolExecutor, capsys: pytest.CaptureFixture[str]) -> None:
    seeds = [secrets.randbelow(SEEDS) for _ in range(FRESH)]
    with capsys.disabled():
        print("\nfresh seeds:", *seeds)  # noqa: T201 - before anything can go wrong
    assert_clean(summarised(pool, [World(seed, shards_of(seed)) for seed in seeds]), capsys)


def digest(seed: int) -> str:
    """All of a run's trace, in short."""
    simulation = Simulation(seed, shards=shards_of(seed), keep_all=True)
    simulation.run(4000)
    return hashlib.sha256("\n".join(lines(simulation.world.trace)).encode()).hexdigest()


@pytest.mark.parametrize("seed", [3, 4])
def test_the_same_seed_is_the_same_run(seed: int) -> None:
    """Byte for byte, in this process and in another one that hashes differently."""
    first = digest(seed)
    assert digest(seed) == first
    assert digest(seed + 100) != first
    code = f"from tests.simulation.test_simulation import digest; print(digest({seed}))"
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == first
