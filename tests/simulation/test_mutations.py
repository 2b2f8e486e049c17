"""Each planted bug is caught, and the scripts that catch some of them end well where there is none."""

from __future__ import annotations

import pytest

from tests.simulation.cache_scripts import OF_CACHES
from tests.simulation.deadlocks import DEADLOCKS
from tests.simulation.lapses import LAPSES
from tests.simulation.moving import MOVING, ON_THREE, SHAPES
from tests.simulation.mutation import Mutation
from tests.simulation.mutations import MUTATIONS
from tests.simulation.queue_scripts import OF_QUEUES
from tests.simulation.scripts import SCRIPTS, Play, play

SEEDS_TRIED = 5


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_planted_bug_is_caught(mutation: Mutation) -> None:
    for seed in range(mutation.seed, mutation.seed + SEEDS_TRIED):
        found = mutation.catch(seed)
        if found is not None:
            assert found.rule in mutation.rules, found
            return
    pytest.fail(f"nothing noticed in {SEEDS_TRIED} runs: {mutation.plant.__doc__}")


@pytest.mark.parametrize("leases", [True, False], ids=["lease", "quorum"])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_a_script_ends_well(script: Play, leases: bool) -> None:
    for seed in range(1, 4):
        play(script, leases=leases, seed=seed)


@pytest.mark.parametrize("script", LAPSES, ids=lambda script: script.__name__)
def test_a_script_of_sessions_ends_well(script: Play) -> None:
    for seed in range(1, 4):
        play(script, seed=seed)


@pytest.mark.parametrize("script", DEADLOCKS, ids=lambda script: script.__name__)
def test_a_script_of_locks_ends_well(script: Play) -> None:
    for seed in range(1, 4):
        play(script, shape=DEADLOCKS[script], seed=seed)


@pytest.mark.parametrize("leases", [True, False], ids=["lease", "quorum"])
@pytest.mark.parametrize("script", OF_CACHES, ids=lambda script: script.__name__)
def test_a_script_of_caches_ends_well(script: Play, leases: bool) -> None:
    for seed in range(1, 4):
        play(script, leases=leases, seed=seed)


@pytest.mark.parametrize("script", OF_QUEUES, ids=lambda script: script.__name__)
def test_a_script_of_queues_ends_well(script: Play) -> None:
    for seed in range(1, 4):
        play(script, shape=OF_QUEUES[script], seed=seed)


@pytest.mark.parametrize("leases", [True, False], ids=["lease", "quorum"])
@pytest.mark.parametrize("script", MOVING, ids=lambda script: script.__name__)
def test_a_script_of_shards_ends_well(script: Play, leases: bool) -> None:
    for seed in range(1, 4):
        play(script, shape=SHAPES.get(script, ON_THREE), leases=leases, seed=seed)
