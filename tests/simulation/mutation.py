"""A planted bug, and how it is looked for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias

from tests.simulation.faults import WEIGHTS, Profile
from tests.simulation.scripts import Play, play
from tests.simulation.simulation import ONE, Shape, Simulation
from tests.simulation.world import Violation

Patch: TypeAlias = "AbstractContextManager[Any]"


@dataclass(frozen=True)
class Mutation:
    """One planted bug: ``plant`` gives the patch that breaks the rule for as long as it is entered."""

    plant: Callable[[], Patch]
    rules: tuple[str, ...]
    favours: tuple[str, ...] = ()
    script: Play | None = None
    shape: Shape = ONE
    seed: int = 1
    leases: bool = True
    nodes: int = 3
    gap_ms: int = 600
    think_ms: int = 150
    delay_ms: float = 0.5
    steps: int = 15_000
    caches: bool = False

    def catch(self, seed: int) -> Violation | None:
        """What is found when the bug is there."""
        with self.plant():
            try:
                if self.script is not None:
                    play(self.script, shape=self.shape, leases=self.leases, seed=seed)
                else:
                    simulation = Simulation(
                        seed,
                        nodes=self.nodes,
                        shape=self.shape,
                        profile=self.profile,
                        leases=self.leases,
                        caches=self.caches,
                    )
                    simulation.run(self.steps)
            except Violation as found:
                return found
            except Exception as error:  # noqa: BLE001 - a crash of the product is as good a find as a violation
                return Violation("no crash", repr(error))
        return None

    @property
    def name(self) -> str:
        """What the bug is called."""
        return self.plant.__name__

    @property
    def profile(self) -> Profile:
        """Mostly what it favours, and a little of everything."""
        weights = {name: weight * (10 if name in self.favours else 1) for name, weight in WEIGHTS.items()}
        return Profile(self.gap_ms, weights, delay_ms=self.delay_ms, think_ms=self.think_ms)


CUTS = ("partition", "isolate_leader", "one_way", "only_one")
CRASHES = ("crash", "crash_leader", "crash_all")
MEMBERS = ("add", "remove", "replace", "transfer")
SLOW = ("slow_disk",)
