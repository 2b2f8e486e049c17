"""Queues under traffic while random things happen to a cluster, for as long as somebody wants.

    python -m tests.soak_queues --minutes 30 --seed 7

Each round has three new queues (one part, eight parts, dead letters that go to another shard), some troubles
one after the other, and an end at which everything is worked off and judged as in
tests/process/test_queue_faults.py. What is broken is told with the stories of the messages concerned, and a table
at the end says what was done. It ends with 1 when anything was broken.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from pathlib import Path

import click

from tests.clusters import UNHURRIED, Cluster, new_cluster
from tests.queue_traffic import Traffic, three_queues, traffic
from tests.rings import REPLICAS, ring_of, wait_for_ring
from tests.troubles import TROUBLES, guest, mend

SHARDS = 16
TROUBLES_PER_ROUND = 5
MOVE_CHANCE = 0.3  # of a round in which a node joins and is removed


class Soak:
    """What was done so far, and what was found."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self.findings: list[str] = []
        self._cluster = cluster
        self._chance = random.Random(seed)
        self._seed = seed
        self._members = list(cluster.nodes.values())
        self._joined = len(self._members)

    def round(self, number: int) -> None:
        """One, to its end."""
        ring = ring_of(self._members[0])
        with traffic(self._cluster, three_queues(ring, f"{number}"), seed=self._seed * 1000 + number) as running:
            running.goes_on()
            for trouble in self._chance.sample(TROUBLES, TROUBLES_PER_ROUND):
                self._tell(running, trouble(self._cluster, self._chance))
                self.done[trouble.__name__] += 1
                if self._chance.random() < 0.5:
                    running.goes_on()  # else the next comes at once
            if self._chance.random() < MOVE_CHANCE:
                self._move(running)
            mend(self._cluster)
            running.goes_on()
            running.finish()
            broken = running.broken()
            faults = [f"{at_s:10.4f} {what}" for at_s, what in running.history.faults]
        self._cluster.hang_up()
        self._cluster.check_output()
        self._count(running)
        if broken:
            self.findings += broken
            click.echo("\n".join([f"round {number}: {len(broken)} breaches", *faults, *broken]))

    def _tell(self, running: Traffic, what: str) -> None:
        running.fault(what)
        click.echo(f"  {what}; pushed so far: {running.pushed}")

    def _count(self, running: Traffic) -> None:
        items = running.history.items.values()
        self.done["messages"] += len(items)
        self.done["pushes whose outcome nobody knows"] += sum(item.doubtful for item in items)
        self.done["deliveries"] += sum(len(item.given) for item in items)
        self.done["acknowledged"] += sum(bool(item.acknowledged) for item in items)
        self.done["delivered more than once"] += sum(len(item.given) > 1 for item in items)
        self.done["calls that were not answered"] += running.excuses.total()

    def _move(self, running: Traffic) -> None:
        """A node joins, shards move to it, and it is removed again."""
        mend(self._cluster)
        self._joined += 1
        name = f"n{self._joined}"
        with guest(self._cluster, self._members, name) as new:
            running.joined_by(new)
            wait_for_ring(self._cluster)
            self._tell(running, f"{new} joined")
            running.goes_on()
            running.left_by(new)
        self._tell(running, f"{new} was removed")
        self.done["joined and removed"] += 1


def soak(folder: Path, size: int, seconds: float, seed: int) -> Soak:
    """Rounds until the time is up; the last one is finished."""
    shape = ("--shards", str(SHARDS), "--replicas", str(REPLICAS))
    with new_cluster(folder, size, *UNHURRIED, shape=shape) as cluster:
        cluster.start()
        wait_for_ring(cluster)
        running = Soak(cluster, seed)
        began_s = time.monotonic()
        number = 0
        while time.monotonic() - began_s < seconds:
            number += 1
            click.echo(f"round {number}, after {time.monotonic() - began_s:.0f} s")
            running.round(number)
        running.done["rounds"] = number
        running.done["seconds"] = round(time.monotonic() - began_s)
        return running


@click.command()
@click.option("--minutes", type=float, default=10.0, show_default=True, help="For how long to begin rounds.")
@click.option("--nodes", type=int, default=5, show_default=True, help="How many nodes.")
@click.option("--seed", type=int, default=1, show_default=True, help="Which troubles, in which order.")
def main(minutes: float, nodes: int, seed: int) -> None:
    """Queues under traffic while random things happen to a cluster of real nodes."""
    with tempfile.TemporaryDirectory(prefix="soak-queues-") as folder:
        done = soak(Path(folder), nodes, minutes * 60, seed)
    click.echo("\n| what | how often |\n| --- | ---: |")
    for what, count in sorted(done.done.items()):
        click.echo(f"| {what} | {count} |")
    click.echo(f"| **breaches** | **{len(done.findings)}** |")
    raise SystemExit(1 if done.findings else 0)


if __name__ == "__main__":
    main()
