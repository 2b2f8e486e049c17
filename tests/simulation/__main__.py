"""``python -m tests.simulation``: one seed, or many for as long as is wanted."""

from __future__ import annotations

import sys
import time

import click

from tests.simulation.simulation import Simulation
from tests.simulation.trace import lines, tail


@click.command()
@click.option("--seed", type=int, help="Decides everything.", default=1)
@click.option("--steps", type=int, default=10_000, show_default=True, help="Turns of all nodes together.")
@click.option("--nodes", type=int, default=0, help="Nodes the cluster begins with; the seed chooses unless told.")
@click.option("--trace", is_flag=True, help="Print everything that happens.")
def main(seed: int, steps: int, nodes: int, trace: bool) -> None:
    """Runs a simulated cluster and checks it."""
    started_s = time.perf_counter()
    simulation = Simulation(seed, nodes=nodes, keep_all=trace)
    try:
        result = simulation.run(steps)
    except Exception as error:
        if trace:
            print("\n".join(lines(simulation.world.trace)))  # noqa: T201
        else:
            print(tail(simulation))  # noqa: T201
        print(f"seed {seed}: {error}")  # noqa: T201
        if not isinstance(error, AssertionError):
            raise
        sys.exit(1)
    if trace:
        print("\n".join(lines(simulation.world.trace)))  # noqa: T201
    print(result, f"{result.turns / (time.perf_counter() - started_s):.0f} turns/s")  # noqa: T201


if __name__ == "__main__":
    main()
