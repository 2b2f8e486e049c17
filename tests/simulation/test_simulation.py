"""Clusters under every fault: seeds that stay the same, and fresh ones, printed before they run."""

from __future__ import annotations

import secrets

import pytest

from tests.simulation.simulation import Simulation, run
from tests.simulation.soak import SEEDS
from tests.simulation.trace import lines

STEPS = 8_000
FIXED = range(1, 41)
FRESH = 40


@pytest.mark.parametrize("seed", FIXED)
def test_a_seed_that_stays(seed: int) -> None:
    run(seed, STEPS)


def test_fresh_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(FRESH):
        seed = secrets.randbelow(SEEDS)
        with capsys.disabled():
            print(f"fresh seed {seed}: python -m tests.simulation --seed {seed} --steps {STEPS}", flush=True)  # noqa: T201
        run(seed, STEPS)


def test_a_seed_decides_everything() -> None:
    def trace() -> list[str]:
        simulation = Simulation(7, keep_all=True)
        simulation.run(3_000)
        return list(lines(simulation.world.trace))

    assert trace() == trace()
