"""``python -m tests.simulation``: one seed, or many for as long as is wanted."""

from __future__ import annotations

import logging
import sys
import time

import click

from tests.simulation.simulation import Simulation
from tests.simulation.soak import shards_of, soak
from tests.simulation.trace import lines, tail


@click.command()
@click.option("--seed", type=int, default=1, show_default=True, help="Decides everything.")
@click.option("--steps", type=int, default=15_000, show_default=True, help="Turns of all nodes together.")
@click.option("--nodes", type=int, default=0, help="Nodes the cluster begins with; the seed chooses unless told.")
@click.option(
    "--shards",
    type=int,
    default=0,
    help="1: one shard, on every node; more: each on some; -1: the seed chooses; as chance has it unless told.",
)
@click.option("--trace", is_flag=True, help="Print everything that happens.")
@click.option("--soak", "minutes", type=float, default=0, help="Run fresh seeds on all processors for so many minutes.")
@click.option("--workers", type=int, default=0, help="With --soak: on so many processors instead of all.")
@click.option("--first", type=int, default=None, help="With --soak: count up from this seed instead of drawing them.")
def main(
    seed: int, steps: int, nodes: int, shards: int, trace: bool, minutes: float, workers: int, first: int | None
) -> None:
    """Runs simulated clusters and checks them."""
    logging.disable(logging.CRITICAL)
    if minutes:
        sys.exit(bool(soak(minutes, steps, shards=shards, workers=workers, first=first).failures))
    started_s = time.perf_counter()
    simulation = Simulation(seed, nodes=nodes, shards=shards or shards_of(seed), keep_all=trace)
    result, error = None, None
    try:
        result = simulation.run(steps)
    except AssertionError as found:
        error = found
    except BaseException:
        click.echo(tail(simulation))
        raise
    if trace:
        for line in lines(simulation.world.trace):
            click.echo(line)
    if error is not None:
        if not trace:
            click.echo(tail(simulation))
        click.echo(f"seed {seed}: {error}")
        sys.exit(1)
    click.echo(f"{result}, {simulation.turns / (time.perf_counter() - started_s):.0f} turns a second")


if __name__ == "__main__":
    main()
