"""Keys read and written through the caches of all nodes while random things happen to these, for as long as wanted.

    python -m tests.soak_caches --minutes 30 --nodes 5 --seed 7

Each round has new keys (tests.cache_traffic), some troubles one after the other, and an end at which each key is read
through every node. Then all replies are judged: is there one order that explains them, in which a change is lost
only with the node that had it? What is broken is told with the calls around it, and a table at the end says what
was done. It ends with 1 when anything was broken.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

from tests.cache_traffic import CacheHistory, cache_traffic
from tests.clusters import UNHURRIED, Cluster, Node, new_cluster
from tests.rings import REPLICAS, wait_for_ring
from tests.simulation.findings import Finding, Verdict
from tests.troubles import BLOWS, Trouble, guest, hand_over, kill_all, mend, slow_links

SHARDS = 8
SHAPE = ("--shards", str(SHARDS), "--replicas", str(REPLICAS))
FLAGS = (*UNHURRIED, "--session-timeout", "3500")
TROUBLES_PER_ROUND = 5
REPLIES_BETWEEN = 300
MOVE_CHANCE = 0.3  # of a round in which a node joins and is removed

EVERYTHING: tuple[Trouble, ...] = (*BLOWS, hand_over, slow_links, kill_all)


class Soak:
    """What was done so far, and what was found."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self.commands: Counter[str] = Counter()
        self.findings: list[str] = []
        self._cluster = cluster
        self._chance = random.Random(seed)
        self._seed = seed
        self._members = list(cluster.nodes.values())
        self._joined = len(self._members)

    def round(self, number: int, troubles: Sequence[Trouble] = (), *, moves: bool | None = None) -> None:
        """One, to its end; the troubles, and whether shards move, are drawn unless they are told."""
        nodes = self._members.copy()
        chance = self._chance
        told: list[str] = []
        with cache_traffic(self._cluster, nodes, seed=self._seed * 1000 + number, prefix=f"r{number}") as history:
            history.goes_on()
            for trouble in troubles or chance.sample(EVERYTHING, TROUBLES_PER_ROUND):
                told.append(self._strike(history, trouble))
                if troubles or chance.random() < 0.5:
                    history.goes_on(REPLIES_BETWEEN)  # else the next comes at once
                    history.recovered()
            mend(self._cluster)
            history.goes_on(REPLIES_BETWEEN)
            history.recovered()
            if chance.random() < MOVE_CHANCE if moves is None else moves:
                told.append(self._move(history, nodes))
            history.goes_on()
        self._cluster.hang_up()
        self._cluster.check_output()
        self._judge(number, history, told)

    def _strike(self, history: CacheHistory, trouble: Trouble) -> str:
        chance = self._chance
        self.done["troubles"] += 1
        blow = next((one for one in BLOWS if one is trouble), None)
        if blow is None:
            if trouble is kill_all:
                history.hurts(*self._members)
            what = trouble(self._cluster, chance)
        else:
            victim = chance.choice(self._members)
            history.hurts(victim)
            what = blow(self._cluster, chance, victim)
        click.echo(f"  {what}; replies so far: {history.done}")
        return what

    def _move(self, history: CacheHistory, nodes: list[Node]) -> str:
        """A node joins, shards move to it, and it is removed again."""
        wait_for_ring(self._cluster, self._members)
        self._joined += 1
        with guest(self._cluster, self._members, f"n{self._joined}") as new:
            nodes.append(new)
            wait_for_ring(self._cluster)
            history.goes_on()
            nodes.remove(new)
            history.goes_on()
        self.done["joined and removed"] += 1
        what = f"{new} joined and was removed"
        click.echo(f"  {what}; replies so far: {history.done}")
        return what

    def _judge(self, number: int, history: CacheHistory, told: Sequence[str]) -> None:
        self.commands += history.commands
        self.done["leases lost by nodes nobody hurt"] += history.unhurt_losses
        self.done["calls that were not answered"] += history.excuses.total()
        reports = history.judge()
        for finding in (finding for report in reports for finding in report.findings):
            self.done["keys judged"] += 1
            self.done["operations judged"] += sum(bool(placed.operation.client) for placed in finding.order)
            self.done["changes lost with their owner"] += _lost(finding)
            if finding.verdict is not Verdict.LINEARIZABLE:
                self.findings.append(str(finding))
                click.echo(f"round {number}: {', '.join(told)}\n{finding}")


def _lost(finding: Finding) -> int:
    """How many times nodes went with what they had changed, in the order that was found."""
    states = ["", *(placed.state for placed in finding.order)]
    return sum(
        placed.operation.call[0] == b"LOSE" and before != placed.state
        for before, placed in zip(states, finding.order, strict=False)
    )


def soak(folder: Path, size: int, seconds: float, seed: int) -> Soak:
    """Rounds until the time is up; the last one is finished."""
    with new_cluster(folder, size, *FLAGS, shape=SHAPE) as cluster:
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
    """Keys read and written through caches while random things happen to a cluster of real nodes."""
    with tempfile.TemporaryDirectory(prefix="soak-caches-") as folder:
        done = soak(Path(folder), nodes, minutes * 60, seed)
    click.echo("\n| what | how often |\n| --- | ---: |")
    for what, count in [*sorted(done.done.items()), *sorted(done.commands.items())]:
        click.echo(f"| {what} | {count} |")
    click.echo(f"| **keys without an order** | **{len(done.findings)}** |")
    raise SystemExit(1 if done.findings else 0)


if __name__ == "__main__":
    main()
